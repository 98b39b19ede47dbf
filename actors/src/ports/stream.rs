//! `cluster_events` in the local PostgreSQL.

use std::collections::BTreeMap;

use async_trait::async_trait;
use interrex_events::{
    ClusterSettings, Epoch, Head, JournalForked, NodeId, NodeSeq, Position, ProjectionPaused,
    ProjectionRebuilt, Record,
};
use uuid::Uuid;

use super::{Answer, PortError};

/// What somebody asked for by an `UPDATE` of `cluster_config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsRequest {
    /// Its id.
    pub id: Uuid,
    /// The SQL user.
    pub requested_by: String,
    /// Where that user connected from.
    pub source: String,
    /// What shall hold of `auto_failover_enabled`, where that was asked for.
    pub auto_failover_enabled: Option<bool>,
    /// What shall hold of the threshold, in milliseconds, where that was asked for.
    pub auto_failover_threshold_ms: Option<u64>,
}

impl SettingsRequest {
    /// What holds once it is answered.
    #[must_use]
    pub fn applied_to(&self, before: ClusterSettings) -> ClusterSettings {
        ClusterSettings {
            auto_failover_enabled: self.auto_failover_enabled.unwrap_or(before.auto_failover_enabled),
            auto_failover_threshold_ms: self
                .auto_failover_threshold_ms
                .unwrap_or(before.auto_failover_threshold_ms),
        }
    }
}

/// What `cluster_events` holds.
#[derive(Debug, Clone)]
pub struct StreamState {
    /// Its newest position.
    pub position: Position,
    /// The newest event of each node.
    pub heads: BTreeMap<NodeId, Head>,
    /// Changes of settings that are asked for, oldest first.
    pub requests: Vec<SettingsRequest>,
    /// Projections that did not match and were rebuilt by this look.
    pub rebuilt: Vec<ProjectionRebuilt>,
    /// Projections that are paused, by name.
    pub paused: Vec<String>,
    /// Projections that could not be rebuilt, and why, in words. It is tried again.
    pub refused: Vec<String>,
}

/// What a relay came to.
#[derive(Debug, Clone)]
pub struct Relayed {
    /// The newest position then.
    pub position: Position,
    /// Projections that could not take in what was relayed.
    pub paused: Vec<ProjectionPaused>,
}

/// Why events are not in `cluster_events`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotRelayed {
    /// It holds other events of that node.
    #[error("{}", .0.in_words())]
    Forked(JournalForked),
    /// It failed.
    #[error(transparent)]
    Failed(#[from] PortError),
}

/// `cluster_events` in the local PostgreSQL, and the projections that are kept beside it.
#[async_trait(?Send)]
pub trait StreamPort {
    /// What it holds. Its tables are brought to this version first, and projections that do not match the stream
    /// are rebuilt.
    async fn look(&self) -> Answer<StreamState>;
    /// Events of a node after a place, in that node's order, not more than a page: none where there are none, or no
    /// such table. A standby's answer goes as far as it has replayed.
    async fn held(&self, node: NodeId, after: NodeSeq) -> Answer<Vec<Record>>;
    /// Appends events of one node, each once, as the main of an epoch.
    async fn relay(&self, epoch: Epoch, records: &[Record]) -> Result<Relayed, NotRelayed>;
    /// Folds what a standby has replayed since the last time, so that a promotion has little left to fold; how many events
    /// those were. Changes nothing in the database, and makes way for a relay; given up half-way, the next one goes on
    /// from there. Nothing happens where there are no such tables, or tables of another version.
    async fn follow(&self) -> Answer<u64>;
    /// Whether it holds an event, with all before it, and a standby has that on its disk. Why not, if not.
    async fn holds_safely(&self, event: Head) -> Answer<()>;
}
