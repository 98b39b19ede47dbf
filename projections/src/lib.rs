//! What is: pure folds of the event stream into something to read.
//!
//! A fold never performs an effect, reads no clock and never fails: an event it does not know is counted and
//! shown. What an actor believes is a fold too, so a dashboard shows what the deciders act on.
//!
//! **Invariant:** this crate knows no actor and no I/O but the tables it keeps in PostgreSQL (feature `postgres`).

mod carried;
mod cluster_nodes;
#[cfg(feature = "postgres")]
pub mod postgres;
mod runs;
mod settings;
mod standpoint;
mod story_order;
mod timeline;
mod words;

use std::collections::BTreeMap;

use interrex_events::{Carried, Envelope, Event, NodeId};
use serde::Serialize;

pub use carried::{carried, is_settled};
pub use cluster_nodes::{ClusterNodes, Node};
pub use interrex_events::NodeStatus;
pub use runs::{Run, RunEnd, Runs, Step, StepState, Undo};
pub use settings::Settings;
pub use standpoint::{Standing, Standpoint};
pub use story_order::{InStoryOrder, Taken};
pub use timeline::{Entry, Level, Timeline};
pub use words::{human_bytes, human_ms};

/// Something that is folded from events.
pub trait Projection {
    /// Takes in the next event.
    fn apply(&mut self, envelope: &Envelope);

    /// Begins with what the sealed events of each node said in the end, where a story's begin was sealed. What
    /// tells of single events alone has nothing to begin with.
    fn begin_after(&mut self, sealed: &BTreeMap<NodeId, &Carried>) {
        let _ = sealed;
    }
}

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
    /// Events that this version could not read, by kind.
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
    fn begin_after(&mut self, sealed: &BTreeMap<NodeId, &Carried>) {
        *self = Self::sealed_by_all(sealed);
    }

    fn apply(&mut self, envelope: &Envelope) {
        self.events += 1;
        if let Event::Unknown(unknown) = &envelope.event {
            *self.unknown_kinds.entry(unknown.kind.clone()).or_default() += 1;
        }
        self.nodes.apply(envelope);
        self.runs.apply(envelope);
        self.settings.apply(envelope);
    }
}

#[cfg(test)]
mod tests;
