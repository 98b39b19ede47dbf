//! What an actor believes: the fold of everything on disk, up to a place in this node's journal.

use interrex_events::{Envelope, NodeSeq, journal::Selection};
use interrex_projections::{Cluster, Projection};

use crate::node::{Fatal, Shared};

/// The fold, and how far it reaches.
#[derive(Debug, Clone)]
pub struct Belief {
    /// The fold.
    pub cluster: Cluster,
    /// The newest event of this node in it.
    pub folded: NodeSeq,
}

/// What became of an event that was handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It was folded before.
    Known,
    /// It is folded now.
    Folded,
    /// Events before it were dropped on the way: the actor must begin anew and read them from the journal.
    AfterGap,
}

impl Belief {
    /// Rebuilt from the journal.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn rebuilt(shared: &Shared) -> Result<Self, Fatal> {
        let mut belief = Self { cluster: Cluster::default(), folded: NodeSeq(0) };
        shared.journal.reader()?.for_each(&Selection::default(), |record| {
            if record.node_id == shared.settings.me {
                belief.folded = belief.folded.max(record.node_seq);
            }
            belief.cluster.apply(&record.open());
        })?;
        Ok(belief)
    }

    /// Takes in the next event of this node.
    pub fn take(&mut self, envelope: &Envelope) -> Taken {
        if envelope.node_seq <= self.folded {
            return Taken::Known;
        }
        if envelope.node_seq != self.folded.next() {
            return Taken::AfterGap;
        }
        self.cluster.apply(envelope);
        self.folded = envelope.node_seq;
        Taken::Folded
    }
}
