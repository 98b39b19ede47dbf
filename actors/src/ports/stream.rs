//! `cluster_events` in the local PostgreSQL.

use std::collections::BTreeMap;

use async_trait::async_trait;
use interrex_events::{
    ClusterSettings, Epoch, Head, JournalForked, NodeId, NodeSeq, Position, ProjectionPaused,
    ProjectionRebuilt, Record,
};
use uuid::Uuid;

use super::{Answer, PortError};

/// A change of settings that was asked for by an `UPDATE` of `cluster_config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsRequest {
    /// Its id.
    pub id: Uuid,
    /// The SQL user.
    pub requested_by: String,
    /// The address from which that user connected.
    pub source: String,
    /// The new `auto_failover_enabled`, if that was asked for.
    pub auto_failover_enabled: Option<bool>,
    /// The new threshold, in milliseconds, if that was asked for.
    pub auto_failover_threshold_ms: Option<u64>,
}

impl SettingsRequest {
    /// The settings after the change.
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

/// The state of `cluster_events`.
#[derive(Debug, Clone)]
pub struct StreamState {
    /// Its newest position.
    pub position: Position,
    /// The newest event of each node.
    pub heads: BTreeMap<NodeId, Head>,
    /// Requested changes of settings, oldest first.
    pub requests: Vec<SettingsRequest>,
    /// Projections that did not match and were rebuilt by this look.
    pub rebuilt: Vec<ProjectionRebuilt>,
    /// Projections that are paused, by name.
    pub paused: Vec<String>,
    /// Projections that could not be rebuilt, each with the reason. The next look tries again.
    pub refused: Vec<String>,
}

/// The result of a relay.
#[derive(Debug, Clone)]
pub struct Relayed {
    /// The newest position after it.
    pub position: Position,
    /// Projections that could not take in what was relayed.
    pub paused: Vec<ProjectionPaused>,
}

/// Why events are not in `cluster_events`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotRelayed {
    /// `cluster_events` holds other events of that node.
    #[error("{}", .0.in_words())]
    Forked(JournalForked),
    /// The relay failed.
    #[error(transparent)]
    Failed(#[from] PortError),
}

/// `cluster_events` in the local PostgreSQL, and the projections that are kept with it.
#[async_trait(?Send)]
pub trait StreamPort {
    /// What it holds. Its tables are brought to this version first, and projections that do not match the stream
    /// are rebuilt.
    async fn look(&self) -> Answer<StreamState>;
    /// Events of a node after a place, in that node's order, at most one page; none if there are none, or no such table. A standby
    /// answers as far as it has replayed.
    async fn held(&self, node: NodeId, after: NodeSeq) -> Answer<Vec<Record>>;
    /// Appends events of one node, each once, as the main of an epoch.
    async fn relay(&self, epoch: Epoch, records: &[Record]) -> Result<Relayed, NotRelayed>;
    /// Folds what a standby has replayed since the last call, so that a promotion has little left to fold. Returns the number of
    /// events. Changes nothing in the database, and gives way to a relay; the next call continues one that was given up. Does
    /// nothing if there are no such tables, or tables of another version.
    async fn follow(&self) -> Answer<u64>;
    /// Whether it holds an event and all before it, and a standby has them on its disk. The error says why not.
    async fn holds_safely(&self, event: Head) -> Answer<()>;
}
