//! Facts about the store itself: settings kept in it, its copies, its projections, and what is wrong with them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{DependentStatus, NodeFenced, NodeSpec, NodeStatus, PostgresStatus, RedisStatus, Role};
use crate::{ChainHash, Epoch, Hlc, Lsn, NodeId, NodeSeq, TimelineId};

/// The settings that hold for the whole cluster and can be changed while it runs, through `cluster_config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSettings {
    /// Whether a lost main is replaced without being asked.
    pub auto_failover_enabled: bool,
    /// How long main may be silent, in milliseconds.
    pub auto_failover_threshold_ms: u64,
}

/// Which change of the settings is the newer one: the later epoch, then the later moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct SettingsStamp {
    /// The epoch in which they were changed.
    pub epoch: Epoch,
    /// When.
    pub hlc: Hlc,
}

/// Payload of `settings_changed`. The event's actor is the person who changed them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsChanged {
    /// What holds from now on.
    pub settings: ClusterSettings,
    /// What held before.
    pub before: ClusterSettings,
    /// The row of `settings_requests` that asked for it, so that it is answered once.
    pub request: Uuid,
}

/// Payload of `settings_adopted`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsAdopted {
    /// What holds on this node from now on.
    pub settings: ClusterSettings,
    /// Which change it was.
    pub stamp: SettingsStamp,
    /// The node from which this node learned it.
    pub learned_from: NodeId,
}

/// Payload of `clock_skew_observed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockSkewObserved {
    /// Whose clock.
    pub peer: NodeId,
    /// How far it is ahead of this node's wall clock, in milliseconds; negative is behind.
    pub ahead_ms: i64,
    /// How far a peer's clock may be off, in milliseconds.
    pub limit_ms: i64,
}

/// Payload of `journal_forked`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalForked {
    /// The node whose journal has two continuations.
    pub node: NodeId,
    /// The newest event that was compared.
    pub node_seq: NodeSeq,
    /// Its hash here.
    pub here: ChainHash,
    /// Its hash there.
    pub there: ChainHash,
    /// Where the other continuation was found: a peer's name, or `cluster_events`.
    pub found_at: String,
}

impl JournalForked {
    /// In a sentence.
    #[must_use]
    pub fn in_words(&self) -> String {
        format!(
            "the journal of node {} has two continuations: event {} is {} here and {} in {}; two machines use its number, or an \
             old disk image was restored",
            self.node,
            self.node_seq,
            self.here.short(),
            self.there.short(),
            self.found_at
        )
    }
}

/// Payload of `journal_restored`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalRestored {
    /// The node from whose copy the events came; this node itself if they came from `cluster_events` in its own PostgreSQL.
    pub from: NodeId,
    /// Events of this node that its own journal had lost.
    pub events: u64,
    /// The newest of them.
    pub last: NodeSeq,
}

/// Payload of `projection_paused`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectionPaused {
    /// Which projection.
    pub projection: String,
    /// The epoch of the position of the event that it could not apply.
    pub epoch: Epoch,
    /// The position of that event.
    pub pos: u64,
    /// The error of PostgreSQL or of the fold.
    pub error: String,
}

/// Payload of `projection_rebuilt`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectionRebuilt {
    /// Which projection.
    pub projection: String,
    /// Version of its shape.
    pub version: u32,
    /// Why: what did not match, or that a rebuild was requested.
    pub reason: String,
    /// Events folded.
    pub events: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// The state at the end of one journal's sealed events, so that the later events can be folded without them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Carried {
    /// The main.
    pub main: Option<NodeId>,
    /// The newest epoch.
    pub epoch: Epoch,
    /// Its timeline.
    pub timeline: Option<TimelineId>,
    /// Where that timeline left the old one.
    pub switchpoint: Option<Lsn>,
    /// The nodes and their states.
    pub nodes: Vec<CarriedNode>,
    /// The main that gave a sign of life since the supervisor's last start.
    pub seen_main: Option<NodeId>,
    /// The announced main from which this node does not receive WAL yet.
    pub to_follow: Option<NodeId>,
    /// The last proof that this node was fenced.
    pub fence_proof: Option<NodeFenced>,
    /// The settings that were changed while the cluster ran.
    pub settings: Option<CarriedSettings>,
}

/// A node in [`Carried`]: its row of `cluster_nodes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedNode {
    /// Its name and addresses.
    pub spec: NodeSpec,
    /// Its role.
    pub role: Role,
    /// Its state. A fenced node stays fenced until it rejoins.
    pub status: NodeStatus,
    /// When that state began.
    pub status_since: Option<DateTime<Utc>>,
    /// The state of its PostgreSQL.
    pub postgres: Option<PostgresStatus>,
    /// Its timeline.
    pub timeline: Option<TimelineId>,
    /// The end of its WAL when its PostgreSQL last changed state.
    pub lsn: Option<Lsn>,
    /// The state of its Redis.
    pub redis: Option<RedisStatus>,
    /// The states of its dependents.
    pub dependents: Vec<CarriedDependent>,
    /// Restarts of its actors since the supervisor's last start.
    pub actor_restarts: u32,
    /// The settings in its configuration.
    pub configured: Option<CarriedConfiguration>,
    /// The newest epoch that it opened itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened: Option<Epoch>,
}

/// A dependent of a [`CarriedNode`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedDependent {
    /// Its name.
    pub name: String,
    /// Its state.
    pub status: DependentStatus,
}

/// The configured settings of a node, in [`CarriedNode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedConfiguration {
    /// Its settings.
    pub settings: ClusterSettings,
    /// Its probe interval in milliseconds, if its start event has it.
    pub probe_interval_ms: Option<u64>,
}

/// The changed settings in [`Carried`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedSettings {
    /// The settings.
    pub settings: ClusterSettings,
    /// The change that made them.
    pub stamp: SettingsStamp,
    /// The person who made that change, if this journal names one.
    pub changed_by: Option<String>,
}

/// Payload of `journal_sealed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalSealed {
    /// The node whose events were sealed: this node, or another of whose journal it holds a copy.
    pub node: NodeId,
    /// The first event of the segment.
    pub first: NodeSeq,
    /// The last event of the segment.
    pub last: NodeSeq,
    /// The last event's hash, which the next event is chained to.
    pub last_hash: ChainHash,
    /// The file that holds the segment now, in this node's folder of segments.
    pub file: String,
    /// SHA-256 of that file.
    pub file_hash: ChainHash,
    /// The state at the end of that node's sealed events, including those of earlier segments.
    pub carried: Carried,
}
