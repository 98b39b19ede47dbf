//! The chains in an export, checked event by event: while it is made, and while it is read.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::{EXPORT_VERSION, ExportHeader, Part};
use crate::{Broken, ChainWalk, ClusterId, Head, NodeId, NodeSeq, Record};

/// One walk for each node.
#[derive(Debug, Clone, Default)]
pub(super) struct Chains {
    walks: BTreeMap<NodeId, ChainWalk>,
    with_gaps: bool,
}

impl Chains {
    /// Chains that begin after these events.
    pub(super) fn after(begins: &[Head], with_gaps: bool) -> Self {
        let walks = begins.iter().map(|begin| (begin.node_id, ChainWalk::after(*begin))).collect();
        Self { walks, with_gaps }
    }

    /// Checks the next event; of a node that is new here it begins the chain.
    pub(super) fn step(&mut self, record: &Record) -> Result<(), Broken> {
        let walk = self.walks.entry(record.node_id).or_insert_with(|| ChainWalk::after(before(record)));
        if self.with_gaps && record.node_seq > walk.head().node_seq {
            *walk = ChainWalk::after(before(record));
        }
        walk.step(record)
    }

    /// The newest event of a node.
    pub(super) fn head(&self, node: NodeId) -> Head {
        self.walks.get(&node).map_or(Head::empty(node), ChainWalk::head)
    }

    /// The newest event of each node.
    pub(super) fn heads(&self) -> Vec<Head> {
        self.walks.values().map(ChainWalk::head).collect()
    }
}

/// What an event is chained to, by its own fields.
fn before(record: &Record) -> Head {
    let node_seq = NodeSeq(record.node_seq.0.saturating_sub(1));
    Head { node_id: record.node_id, node_seq, hash: record.prev_hash }
}

/// A look at all that will be exported, for the header comes first. A store that is written to meanwhile
/// may hold more at the second look: [`Self::covers`] says what belongs to the export.
#[derive(Debug)]
pub struct Survey {
    part: Part,
    begins: BTreeMap<NodeId, Head>,
    chains: Chains,
    events: u64,
}

impl Survey {
    /// A survey of a part of a store.
    #[must_use]
    pub fn of(part: Part) -> Self {
        let chains = Chains::after(&[], part.has_gaps());
        Self { part, begins: BTreeMap::new(), chains, events: 0 }
    }

    /// Takes note of the next event, in story order.
    ///
    /// # Errors
    /// It is not what was recorded, or not the next one of its node: a damaged store is not exported.
    pub fn take(&mut self, record: &Record) -> Result<(), Broken> {
        self.chains.step(record)?;
        self.begins.entry(record.node_id).or_insert_with(|| before(record));
        self.events += 1;
        Ok(())
    }

    /// For each node, what its first event is chained to.
    #[must_use]
    pub fn begins(&self) -> Vec<Head> {
        self.begins.values().copied().collect()
    }

    /// Events so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Whether an event of the part was there at the survey.
    #[must_use]
    pub fn covers(&self, record: &Record) -> bool {
        record.node_seq <= self.chains.head(record.node_id).node_seq
    }

    /// The header of the export.
    #[must_use]
    pub fn header(&self, cluster_id: ClusterId, node: NodeId, exported_at: DateTime<Utc>) -> ExportHeader {
        ExportHeader {
            interrex_export: EXPORT_VERSION,
            cluster_id,
            node,
            exported_at,
            events: self.events,
            part: self.part.clone(),
            begins: self.begins(),
            heads: self.chains.heads(),
        }
    }
}
