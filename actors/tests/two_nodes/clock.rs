//! A clock that stands still until nothing is left to do, and ids that are counted.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use chrono::{DateTime, Utc};
use interrex_actors::env::{Env, Moment};
use interrex_events::{EventId, NodeId, RunId, journal::Stamp};
use tokio::time::Instant;
use uuid::Uuid;

/// When the simulated machines were started.
const BOOTED: &str = "2026-01-01T00:00:00Z";
/// How long they had run when the simulation begins.
const UPTIME: Duration = Duration::from_secs(1_000);

/// One node's clocks and ids. All nodes have the same time.
pub(crate) struct SimulatedEnv {
    node: NodeId,
    began: Instant,
    ids: AtomicU64,
}

impl SimulatedEnv {
    #[allow(clippy::disallowed_methods, reason = "the paused clock of the simulation")]
    pub(crate) fn of(node: NodeId) -> Self {
        Self { node, began: Instant::now(), ids: AtomicU64::new(0) }
    }

    fn id(&self) -> Uuid {
        let number = self.ids.fetch_add(1, Ordering::Relaxed);
        let moment = u64::try_from(self.now().timestamp_millis()).unwrap();
        let mut random = [0; 10];
        random[..2].copy_from_slice(&self.node.0.to_be_bytes()[..2]);
        random[2..].copy_from_slice(&number.to_be_bytes());
        uuid::Builder::from_unix_timestamp_millis(moment, &random).into_uuid()
    }
}

impl Stamp for SimulatedEnv {
    fn now(&self) -> DateTime<Utc> {
        self.moment().wall
    }

    fn event_id(&self) -> EventId {
        EventId(self.id())
    }
}

impl Env for SimulatedEnv {
    fn moment(&self) -> Moment {
        #[allow(clippy::disallowed_methods, reason = "the paused clock of the simulation")]
        let monotonic = UPTIME + (Instant::now() - self.began);
        let booted: DateTime<Utc> = BOOTED.parse().unwrap();
        Moment { monotonic, wall: booted + monotonic }
    }

    fn run_id(&self) -> RunId {
        RunId(self.id())
    }
}
