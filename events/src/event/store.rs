//! Facts about the store itself: settings kept in it, its copies, its projections, and what is wrong with them.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{NodeSpec, Role};
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

/// What a sealed part of a node's own journal said in the end, so that the rest can be folded without it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Who is main.
    pub main: Option<NodeId>,
    /// The newest epoch.
    pub epoch: Epoch,
    /// Its timeline.
    pub timeline: Option<TimelineId>,
    /// Where that timeline left the old one.
    pub switchpoint: Option<Lsn>,
    /// The nodes and what they are for.
    pub nodes: Vec<CarriedNode>,
    /// The announced main that this node's standbys do not receive log from yet.
    pub to_follow: Option<NodeId>,
    /// The settings that were changed while the cluster ran, and by which change.
    pub settings: Option<(ClusterSettings, SettingsStamp)>,
}

/// A node in [`Carried`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedNode {
    /// Where it is.
    pub spec: NodeSpec,
    /// What it is for.
    pub role: Role,
    /// Whether it was superseded and has not rejoined.
    pub superseded: bool,
}

/// Payload of `journal_sealed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalSealed {
    /// Whose events.
    pub node: NodeId,
    /// The first event of the segment.
    pub first: NodeSeq,
    /// The last one.
    pub last: NodeSeq,
    /// The last one's hash, which the rest is chained to.
    pub last_hash: ChainHash,
    /// The file that holds the segment now.
    pub file: String,
    /// SHA-256 of that file.
    pub file_hash: ChainHash,
    /// What this node's own sealed events said in the end; nothing for a copy of a peer's.
    pub carried: Option<Carried>,
}
