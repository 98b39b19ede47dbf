//! The PostgreSQL of another node, as far as one that comes back behind it, or will once it has handed over, needs it.

use async_trait::async_trait;
use interrex_events::NodeId;

use super::{Answer, MainLineage};
use crate::replication::postgres::standby_limits::StandbyLimits;

/// Main's server over the network. It does not need main's supervisor.
#[async_trait(?Send)]
pub trait MainServerPort {
    /// Its lineage; an error if it is no primary.
    async fn lineage(&self) -> Answer<MainLineage>;
    /// Keeps the log that a node will need in that node's slot, and writes a CHECKPOINT, without which a rewind may not
    /// see a promotion (facts 5). Whether the slot was made.
    async fn prepare_return(&self, node: NodeId) -> Answer<bool>;
    /// What a standby of it must not have less of.
    async fn limits(&self) -> Answer<StandbyLimits>;
    /// Settings that would hinder it as main and that cannot be cleared while it runs, in words.
    async fn hindrances(&self) -> Answer<Vec<String>>;
    /// Whether it streams to a node's standby.
    async fn streams_to(&self, node: NodeId) -> Answer<bool>;
}
