//! What is: pure folds of the event stream into something to read.
//!
//! A fold never performs an effect, reads no clock and never fails: an event it does not know is counted and
//! shown. What an actor believes is a fold too, so a dashboard shows what the deciders act on.
//!
//! **Invariant:** this crate knows no actor and no I/O but the tables it keeps in PostgreSQL (feature `postgres`) and the
//! journal it is rebuilt from (feature `journal`).

mod carried;
mod cluster_nodes;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "journal")]
mod rebuild;
mod rests;
mod runs;
mod settings;
mod standpoint;
mod story_order;
mod timeline;
mod words;

use std::collections::BTreeMap;

use interrex_events::{Bases, Envelope, Event, Place, RecordRef, Seen};
use serde::Serialize;

pub use carried::{carried, is_settled};
pub use cluster_nodes::{ClusterNodes, Node};
pub use interrex_events::NodeStatus;
#[cfg(feature = "journal")]
pub use rebuild::{rebuild, rebuild_in_story_order};
pub use rests::{InVain, Rests, Upset, What};
pub use runs::{Rejoin, Run, RunEnd, Runs, Scheduled, Step, StepState, Undo};
pub use settings::Settings;
pub use standpoint::{Standing, Standpoint};
pub use story_order::{InStoryOrder, Taken};
pub use timeline::{Entry, Level, Timeline};
pub use words::{counted, human_bytes, human_ms};

/// Something that is folded from events.
pub trait Projection {
    /// Takes in the next event.
    fn apply(&mut self, envelope: &Envelope);

    /// Begins with the state at the end of each node's sealed events, if the start of a story was sealed. What
    /// tells of single events alone has nothing to begin with.
    fn begin_after(&mut self, _bases: &Bases) {}

    /// Whether an event of this kind can change it.
    fn folds(_kind: &str) -> bool
    where
        Self: Sized,
    {
        true
    }

    /// Lets an event go by unread that is of a kind it does not fold.
    fn pass_over(&mut self, _place: Place) {}

    /// Takes in the next stored event. Its payload is read only if it can change anything.
    fn apply_stored(&mut self, record: &RecordRef<'_>)
    where
        Self: Sized,
    {
        let seen =
            if Self::folds(record.kind) { Seen::Read(record) } else { Seen::PassedOver(record.place()) };
        self.see(seen);
    }

    /// Takes in what a walk over a store comes by, if the walk reads the kinds that this folds.
    fn see(&mut self, seen: Seen<'_>) {
        match seen {
            Seen::Read(record) => self.apply(&record.open()),
            Seen::PassedOver(place) => self.pass_over(place),
        }
    }
}

/// Windows of probes: most of every journal, and for people alone.
const FOLDED_BY_NOBODY: &str = "heartbeats_observed";

/// Everything the stream says about the cluster: of one node's journal, or of all of them merged.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cluster {
    /// Who is who, and how they are.
    pub nodes: ClusterNodes,
    /// Every run.
    pub runs: Runs,
    /// Settings that were changed while the cluster ran.
    pub settings: Settings,
    /// Events folded.
    pub events: u64,
    /// Events that this version had to read and could not, by kind.
    pub unknown_kinds: BTreeMap<String, u64>,
}

impl Cluster {
    /// The fold of a whole stream.
    pub fn of<'a>(stream: impl IntoIterator<Item = &'a Envelope>) -> Self {
        let mut cluster = Self::default();
        for envelope in stream {
            cluster.apply(envelope);
        }
        cluster
    }
}

impl Projection for Cluster {
    fn begin_after(&mut self, bases: &Bases) {
        *self = Self::sealed(bases);
    }

    fn apply(&mut self, envelope: &Envelope) {
        self.events += 1;
        if let Event::Unknown(unknown) = &envelope.event
            && Self::folds(&unknown.kind)
        {
            *self.unknown_kinds.entry(unknown.kind.clone()).or_default() += 1;
        }
        self.nodes.apply(envelope);
        self.runs.apply(envelope);
        self.settings.apply(envelope);
    }

    fn folds(kind: &str) -> bool {
        kind != FOLDED_BY_NOBODY
    }

    fn pass_over(&mut self, _place: Place) {
        self.events += 1;
    }
}

#[cfg(test)]
mod tests;
