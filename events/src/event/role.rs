//! Facts about the role of main: which node has it, and what becomes of nodes that no longer have it.

use serde::{Deserialize, Serialize};

use super::health::shown_in_words;
use crate::{Epoch, Lsn, NodeId, RunId, TimelineId};

/// The role of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Serves alone: no peers are configured.
    Standalone,
    /// Takes writes.
    Main,
    /// Follows main.
    Secondary,
}

shown_in_words!(Role { Standalone => "standalone", Main => "main", Secondary => "secondary" });

/// Payload of `epoch_opened`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochOpened {
    /// The new epoch.
    pub epoch: Epoch,
    /// Its main.
    pub main: NodeId,
    /// The main before it.
    pub old_main: Option<NodeId>,
    /// PostgreSQL's new timeline.
    pub timeline: TimelineId,
    /// Where the new timeline left the old one; `null` for a cluster's first epoch.
    pub switchpoint: Option<Lsn>,
}

/// How a node learned of a new main.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LearnedBy {
    /// The new main's `POST /api/cluster/notify`.
    Notice,
    /// A heartbeat of a peer.
    Heartbeat,
    /// The question that a starting node asks its peers before it starts its servers.
    StartupCheck,
    /// The target's answer to the offer of this node's role.
    Handover,
}

shown_in_words!(LearnedBy { Notice => "notice", Heartbeat => "heartbeat", StartupCheck => "startup check", Handover => "handover" });

/// Payload of `main_announced`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MainAnnounced {
    /// The new main.
    pub main: NodeId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its timeline, if the message had it.
    pub timeline: Option<TimelineId>,
    /// Where that timeline left the old one.
    pub switchpoint: Option<Lsn>,
    /// The node that sent the message.
    pub announced_by: NodeId,
    /// How this node learned it.
    pub learned_by: LearnedBy,
    /// Whether a switchover made it main; left out if an older program sent the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<bool>,
}

/// Payload of `notice_refused`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeRefused {
    /// The node that sent it.
    pub announced_by: NodeId,
    /// The epoch that it claimed.
    pub epoch: Epoch,
    /// The newest epoch that this node knows.
    pub known_epoch: Epoch,
    /// Why it was refused.
    pub reason: String,
}

/// Payload of `started_unconfirmed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartedUnconfirmed {
    /// How long this node waited for a peer's answer, in milliseconds.
    pub waited_ms: u64,
    /// The peers that were asked, and why each gave no answer.
    pub detail: String,
}

/// The reaction to a PostgreSQL that takes writes on a node that is not main.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StrayAnswer {
    /// Main lives: every server of this node is stopped, and stays stopped until the node rejoins.
    Stopped,
    /// Main is silent, but not yet for the threshold: the server keeps running until main answers or is lost.
    Watched,
}

shown_in_words!(StrayAnswer { Stopped => "stopped", Watched => "watched" });

/// Payload of `stray_primary_found`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrayPrimaryFound {
    /// The main, as far as this node knows.
    pub main: NodeId,
    /// Its epoch.
    pub epoch: Epoch,
    /// The timeline on which this node's PostgreSQL writes.
    pub timeline: Option<TimelineId>,
    /// The end of its WAL when it was found.
    pub lsn: Option<Lsn>,
    /// The reaction.
    pub answer: StrayAnswer,
    /// The reason, in a sentence.
    pub detail: String,
    /// The next command for the operator.
    pub next: String,
}

/// Why servers of a node that should run do not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartObstacle {
    /// Another node takes writes as main, or is about to: this node's servers were stopped.
    Contested,
    /// This node is a secondary, and its data directory would start as a primary.
    SecondMain,
    /// A server does not start.
    Failed,
}

shown_in_words!(StartObstacle { Contested => "contested", SecondMain => "second main", Failed => "failed" });

/// Payload of `start_held_up`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartHeldUp {
    /// The obstacle.
    pub obstacle: StartObstacle,
    /// The situation in a sentence, with the next command.
    pub detail: String,
}

/// Payload of `fencing_started`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FencingStarted {
    /// The new main.
    pub superseded_by: NodeId,
    /// Its epoch.
    pub epoch: Epoch,
    /// The epoch in which this node was main.
    pub own_epoch: Epoch,
    /// The run that asked for the fence: while it has promoted no node, it can lift the fence again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
}

/// Payload of `node_fenced`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFenced {
    /// The epoch that superseded this node's epoch.
    pub epoch: Epoch,
    /// How PostgreSQL was found (stopped already, or stopped now), with the proof.
    pub postgres: String,
    /// The same for Redis.
    pub redis: String,
    /// The same for dependents.
    pub dependents: String,
    /// The next command for the operator.
    pub next: String,
    /// The run that asked for the fence, if a run did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
}

/// Payload of `fence_lifted`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceLifted {
    /// The run that had asked for the fence, and ended before it promoted a node.
    pub run: RunId,
    /// The node that reports that: the node that made the run, or this node if a person says so.
    pub by: NodeId,
    /// The person's reason; `null` if the node that made the run reports it.
    pub reason: Option<String>,
}

/// Payload of `fencing_failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FencingFailed {
    /// The epoch that superseded this node's epoch.
    pub epoch: Epoch,
    /// The error.
    pub error: String,
}

/// Payload of `follow_finished`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowFinished {
    /// The main that this node follows now.
    pub main: NodeId,
    /// Whether this node receives the new main's WAL.
    pub streaming: bool,
    /// What was done and observed.
    pub detail: String,
}
