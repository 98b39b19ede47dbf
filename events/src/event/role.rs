//! Facts about who is main, and about those who no longer are.

use serde::{Deserialize, Serialize};

use super::health::shown_in_words;
use crate::{Epoch, Lsn, NodeId, RunId, TimelineId};

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Serves alone; no peers are configured.
    Standalone,
    /// Acknowledges writes.
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
    /// Who was main before.
    pub old_main: Option<NodeId>,
    /// PostgreSQL's new timeline.
    pub timeline: TimelineId,
    /// Where the new timeline left the old one; nothing for a cluster's first epoch.
    pub switchpoint: Option<Lsn>,
}

/// How a node learned of a new main.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LearnedBy {
    /// The new main's `POST /api/cluster/notify`.
    Notice,
    /// A heartbeat exchanged with a peer.
    Heartbeat,
    /// The question a starting node asks before it lets a client in.
    StartupCheck,
    /// Its answer to the offer of this node's role.
    Handover,
}

shown_in_words!(LearnedBy { Notice => "notice", Heartbeat => "heartbeat", StartupCheck => "startup check", Handover => "handover" });

/// Payload of `main_announced`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MainAnnounced {
    /// Who is main now.
    pub main: NodeId,
    /// In which epoch.
    pub epoch: Epoch,
    /// On which timeline, where it was said.
    pub timeline: Option<TimelineId>,
    /// Where that timeline left the old one.
    pub switchpoint: Option<Lsn>,
    /// Who said so.
    pub announced_by: NodeId,
    /// By which way.
    pub learned_by: LearnedBy,
    /// Whether it was a switchover that made it main; an older program does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned: Option<bool>,
}

/// Payload of `notice_refused`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeRefused {
    /// Who sent it.
    pub announced_by: NodeId,
    /// The epoch it spoke of.
    pub epoch: Epoch,
    /// The epoch this node knows.
    pub known_epoch: Epoch,
    /// Why it was refused.
    pub reason: String,
}

/// Payload of `started_unconfirmed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartedUnconfirmed {
    /// How long a peer's answer was waited for, in milliseconds.
    pub waited_ms: u64,
    /// Who was asked in vain, and why that failed.
    pub detail: String,
}

/// What is done about a PostgreSQL that takes writes on a node that is not main.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StrayAnswer {
    /// Main lives: every server of this node is stopped, and stays so until the node rejoins.
    Stopped,
    /// Main is silent, and not yet for its threshold: the server runs on until main answers or is lost.
    Watched,
}

shown_in_words!(StrayAnswer { Stopped => "stopped", Watched => "watched" });

/// Payload of `stray_primary_found`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrayPrimaryFound {
    /// Who is main, as far as this node knows.
    pub main: NodeId,
    /// In which epoch.
    pub epoch: Epoch,
    /// The timeline that this node's PostgreSQL writes.
    pub timeline: Option<TimelineId>,
    /// The end of its log when it was found.
    pub lsn: Option<Lsn>,
    /// What is done about it.
    pub answer: StrayAnswer,
    /// Why, in a sentence.
    pub detail: String,
    /// What the operator can do.
    pub next: String,
}

/// What keeps a node's servers from running that should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartObstacle {
    /// Another node takes writes as main, or is about to: what ran here was stopped.
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
    /// By what.
    pub obstacle: StartObstacle,
    /// In a sentence, with what to do.
    pub detail: String,
}

/// Payload of `fencing_started`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FencingStarted {
    /// Who is main now.
    pub superseded_by: NodeId,
    /// Its epoch.
    pub epoch: Epoch,
    /// The epoch in which this node was main.
    pub own_epoch: Epoch,
    /// The run that asked for it: as long as nobody was promoted, it can take that back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
}

/// Payload of `node_fenced`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFenced {
    /// The epoch that superseded this node's.
    pub epoch: Epoch,
    /// How PostgreSQL was found: stopped already, or stopped now, with the proof.
    pub postgres: String,
    /// The same for Redis.
    pub redis: String,
    /// The same for dependents.
    pub dependents: String,
    /// What the operator does next.
    pub next: String,
    /// The run that asked for it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
}

/// Payload of `fence_lifted`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceLifted {
    /// The run that had asked for the fence, and ended before it promoted anybody.
    pub run: RunId,
    /// Who says so: the node that made the run, or this one for a person.
    pub by: NodeId,
    /// That person's reason.
    pub reason: Option<String>,
}

/// Payload of `fencing_failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FencingFailed {
    /// The epoch that superseded this node's.
    pub epoch: Epoch,
    /// What failed.
    pub error: String,
}

/// Payload of `follow_finished`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowFinished {
    /// Whom this node follows now.
    pub main: NodeId,
    /// Whether the new main's log is being received.
    pub streaming: bool,
    /// What was done and seen.
    pub detail: String,
}
