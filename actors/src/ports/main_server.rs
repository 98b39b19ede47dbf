//! The PostgreSQL of another node, as far as one that comes back behind it, or will once it has handed over, needs it.

use async_trait::async_trait;
use interrex_events::NodeId;

use super::{Answer, MainLineage};
use crate::replication::postgres::standby_limits::StandbyLimits;

/// A node's replication slot on main, before the node comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReturnSlot {
    /// It is there, and nobody uses it but the node itself.
    There,
    /// It can be made; also in place of one whose log is gone.
    ToBeMade,
    /// Somebody else receives through it; who, in words.
    InUse(String),
    /// It cannot be had; why, and what mends that, in words.
    Withheld(String),
}

impl ReturnSlot {
    /// What keeps the node from it, in words.
    #[must_use]
    pub fn obstacle(&self) -> Option<&str> {
        match self {
            Self::There | Self::ToBeMade => None,
            Self::InUse(words) | Self::Withheld(words) => Some(words),
        }
    }
}

/// Main's server over the network. It does not need main's supervisor.
#[async_trait(?Send)]
pub trait MainServerPort {
    /// Its lineage; an error if it is no primary.
    async fn lineage(&self) -> Answer<MainLineage>;
    /// Whether this node's login there may do what `pg_rewind` does: read the files of the data directory.
    async fn lets_itself_be_read(&self) -> Answer<bool>;
    /// Bytes of its data, the log left out: what a base backup of it takes.
    ///
    /// # Errors
    /// It has tablespaces, which no base backup here takes along; or it does not answer.
    async fn size(&self) -> Answer<u64>;
    /// A node's slot there. Nothing is changed.
    async fn return_slot(&self, node: NodeId) -> Answer<ReturnSlot>;
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
