//! What an actor believes: the fold of everything on disk, up to a place in this node's journal.

use interrex_events::{
    Envelope, NodeSeq,
    journal::{Base, Bases, Selection},
};
use interrex_projections::{Cluster, Projection, Standpoint};

use crate::node::{Fatal, Shared};

/// The fold of this node's own events, and how far it reaches. Copies of others' events are not in it: a node
/// acts on what it recorded itself (ADR 7).
#[derive(Debug, Clone, Default)]
pub struct Belief {
    /// What is.
    pub cluster: Cluster,
    /// What this node has seen and still has to do.
    pub standpoint: Standpoint,
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
        let me = shared.settings.me;
        let own = Selection { node: Some(me), ..Selection::default() };
        let begin = |bases: Bases| bases.get(&me).map(Self::after).unwrap_or_default();
        let reader = shared.journal.reader()?;
        Ok(reader.tell(&own, begin, |belief, record| belief.fold(&record.open()))?)
    }

    /// As the sealed begin of a node's journal left it.
    #[must_use]
    pub fn after(base: &Base) -> Self {
        Self {
            cluster: Cluster::sealed(&base.carried),
            standpoint: Standpoint::sealed(&base.carried),
            folded: base.head.node_seq,
        }
    }

    /// Takes in the next event of this node.
    pub fn take(&mut self, envelope: &Envelope) -> Taken {
        if envelope.node_seq <= self.folded {
            return Taken::Known;
        }
        if envelope.node_seq != self.folded.next() {
            return Taken::AfterGap;
        }
        self.fold(envelope);
        Taken::Folded
    }

    pub(crate) fn fold(&mut self, envelope: &Envelope) {
        self.cluster.apply(envelope);
        self.standpoint.apply(envelope);
        self.folded = envelope.node_seq;
    }
}
