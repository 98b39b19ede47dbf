//! The only place that reads clocks and makes ids. All other code is given the time.

use std::time::Duration;

use chrono::{DateTime, Utc};
use interrex_events::{EventId, RunId, journal::Stamp};
use uuid::Uuid;

/// A moment on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Time since boot, suspension included. Verdicts are measured on this clock, because it cannot be set.
    pub monotonic: Duration,
    /// The wall clock: for people.
    pub wall: DateTime<Utc>,
}

impl Moment {
    /// Milliseconds from `earlier` to this moment, on the monotonic clock.
    #[must_use]
    pub fn ms_since(self, earlier: Self) -> u64 {
        ms(self.monotonic.saturating_sub(earlier.monotonic))
    }

    /// The moment `ms` milliseconds before this one, but not before the machine's start on the monotonic clock, nor before the
    /// calendar's start on the wall clock.
    #[must_use]
    pub fn before(self, earlier_ms: u64) -> Self {
        let earlier = Duration::from_millis(earlier_ms);
        let on_the_wall = chrono::TimeDelta::from_std(earlier).ok();
        Self {
            monotonic: self.monotonic.saturating_sub(earlier),
            wall: on_the_wall
                .and_then(|earlier| self.wall.checked_sub_signed(earlier))
                .unwrap_or(DateTime::<Utc>::MIN_UTC),
        }
    }
}

/// A duration in whole milliseconds.
#[must_use]
pub fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Clocks and ids.
pub trait Env: Stamp {
    /// Now, on both clocks.
    fn moment(&self) -> Moment;
    /// A fresh id for a run.
    fn run_id(&self) -> RunId;
}

/// The machine's own clocks and random ids.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEnv;

#[allow(clippy::disallowed_methods, reason = "this is the one place")]
impl Stamp for SystemEnv {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    fn event_id(&self) -> EventId {
        EventId(Uuid::now_v7())
    }
}

#[allow(clippy::disallowed_methods, reason = "this is the one place")]
impl Env for SystemEnv {
    fn moment(&self) -> Moment {
        let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(boot.tv_sec).unwrap_or_default();
        let nanoseconds = u32::try_from(boot.tv_nsec).unwrap_or_default();
        Moment { monotonic: Duration::new(seconds, nanoseconds), wall: Utc::now() }
    }

    fn run_id(&self) -> RunId {
        RunId(Uuid::now_v7())
    }
}
