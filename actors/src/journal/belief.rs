//! The state from which an actor acts: the fold of everything on disk, up to a place in this node's journal.

use interrex_events::{Bases, Envelope, NodeSeq, Place, journal::Verify};
use interrex_projections::{Cluster, Projection, Standpoint, rebuild};

use crate::node::{Fatal, Shared};

/// The fold of this node's own events, and how far it reaches. Copies of others' events are not in it: a node
/// acts on what it recorded itself (ADR 7).
#[derive(Debug, Clone, Default)]
pub struct Belief {
    /// The cluster's state.
    pub cluster: Cluster,
    /// What this node has observed and still has to do.
    pub standpoint: Standpoint,
    /// The newest event of this node in the fold.
    pub folded: NodeSeq,
}

/// The result of handing an event to the fold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// The event was folded before.
    Known,
    /// The event is folded now.
    Folded,
    /// Events before this one were dropped on the way: the actor must start again and read them from the journal.
    AfterGap,
}

impl Belief {
    /// Rebuilt from the journal.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn rebuilt(shared: &Shared) -> Result<Self, Fatal> {
        Ok(rebuild(&shared.journal.reader()?, Some(shared.settings.me), Verify::Nothing)?)
    }

    /// Folds the next event of this node.
    pub fn take(&mut self, envelope: &Envelope) -> Taken {
        if envelope.node_seq <= self.folded {
            return Taken::Known;
        }
        if envelope.node_seq != self.folded.next() {
            return Taken::AfterGap;
        }
        self.apply(envelope);
        Taken::Folded
    }
}

impl Projection for Belief {
    fn apply(&mut self, envelope: &Envelope) {
        self.cluster.apply(envelope);
        self.standpoint.apply(envelope);
        self.folded = envelope.node_seq;
    }

    fn begin_after(&mut self, bases: &Bases) {
        self.cluster.begin_after(bases);
        self.standpoint.begin_after(bases);
        self.folded = bases.values().map(|base| base.head.node_seq).max().unwrap_or_default();
    }

    fn folds(kind: &str) -> bool {
        Cluster::folds(kind) || Standpoint::folds(kind)
    }

    fn pass_over(&mut self, place: Place) {
        self.cluster.pass_over(place);
        self.standpoint.pass_over(place);
        self.folded = place.2;
    }
}
