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

/// Payload of `settings_changed`. The event's actor is who changed them.
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
    /// The node that told this one.
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
    /// Whose journal has two continuations.
    pub node: NodeId,
    /// The newest event that was compared.
    pub node_seq: NodeSeq,
    /// Its hash here.
    pub here: ChainHash,
    /// Its hash there.
    pub there: ChainHash,
    /// Where the other one was found: a peer's name, or `cluster_events`.
    pub found_at: String,
}

impl JournalForked {
    /// In a sentence.
    #[must_use]
    pub fn in_words(&self) -> String {
        format!(
            "the journal of node {} has two continuations: event {} is {} here and {} in {}; two machines have its \
             number, or an old disk image was restored",
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
    /// Whose copy it was taken from; this node itself, where it was `cluster_events` in its own PostgreSQL.
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
    /// Epoch of the position that it could not get past.
    pub epoch: Epoch,
    /// The position in it.
    pub pos: u64,
    /// PostgreSQL's words, or the fold's.
    pub error: String,
}

/// Payload of `projection_rebuilt`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectionRebuilt {
    /// Which projection.
    pub projection: String,
    /// Version of its shape.
    pub version: u32,
    /// Why: what did not match, or who asked.
    pub reason: String,
    /// Events folded.
    pub events: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// What the sealed events of one journal said in the end, by themselves, so that the rest can be folded without them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Carried {
    /// Who is main.
    pub main: Option<NodeId>,
    /// The newest epoch.
    pub epoch: Epoch,
    /// Its timeline.
    pub timeline: Option<TimelineId>,
    /// Where that timeline left the old one.
    pub switchpoint: Option<Lsn>,
    /// The nodes, and how they were.
    pub nodes: Vec<CarriedNode>,
    /// The main that was seen well since the supervisor's last start.
    pub seen_main: Option<NodeId>,
    /// The announced main that this node's standbys do not receive log from yet.
    pub to_follow: Option<NodeId>,
    /// What proved last that this node was fenced.
    pub fence_proof: Option<NodeFenced>,
    /// The settings that were changed while the cluster ran.
    pub settings: Option<CarriedSettings>,
}

/// A node in [`Carried`]: its row of `cluster_nodes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedNode {
    /// Where it is.
    pub spec: NodeSpec,
    /// What it is for.
    pub role: Role,
    /// How it was; one that was superseded stays so until it rejoins.
    pub status: NodeStatus,
    /// Since when.
    pub status_since: Option<DateTime<Utc>>,
    /// What its PostgreSQL did.
    pub postgres: Option<PostgresStatus>,
    /// Its timeline.
    pub timeline: Option<TimelineId>,
    /// The end of its log when its PostgreSQL last changed state.
    pub lsn: Option<Lsn>,
    /// What its Redis did.
    pub redis: Option<RedisStatus>,
    /// What its dependents did.
    pub dependents: Vec<CarriedDependent>,
    /// Actors restarted after a panic, since the supervisor's last start.
    pub actor_restarts: u32,
    /// What its configuration said.
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
    /// What it did.
    pub status: DependentStatus,
}

/// What a node was configured with, in [`CarriedNode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedConfiguration {
    /// Its settings.
    pub settings: ClusterSettings,
    /// How often it probed, in milliseconds, where its start said so.
    pub probe_interval_ms: Option<u64>,
}

/// The changed settings in [`Carried`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedSettings {
    /// What held.
    pub settings: ClusterSettings,
    /// By which change.
    pub stamp: SettingsStamp,
    /// Who made it, where this journal said so.
    pub changed_by: Option<String>,
}

/// Payload of `journal_sealed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalSealed {
    /// Whose events: this node's own, or its copies of another's.
    pub node: NodeId,
    /// The first event of the segment.
    pub first: NodeSeq,
    /// The last one.
    pub last: NodeSeq,
    /// The last one's hash, which the rest is chained to.
    pub last_hash: ChainHash,
    /// The file that holds the segment now, in this node's folder of segments.
    pub file: String,
    /// SHA-256 of that file.
    pub file_hash: ChainHash,
    /// What the sealed events of that node said in the end, those before the segment included.
    pub carried: Carried,
}
