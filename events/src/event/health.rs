//! Facts about the health of servers: this node's own, and main's as seen from a secondary.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{Epoch, Lsn, NodeId, TimelineId};

/// The state of a PostgreSQL server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PostgresStatus {
    /// Observed not to run.
    Stopped,
    /// Gives no answer, and is not proved to be stopped.
    Unreachable,
    /// Answers and takes writes.
    Primary,
    /// A standby that receives main's WAL.
    Streaming,
    /// A standby that receives no WAL at the moment.
    Detached,
}

/// The state of a Redis server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RedisStatus {
    /// No Redis is configured on the node.
    None,
    /// Observed not to run.
    Stopped,
    /// Gives no answer, and is not proved to be stopped.
    Unreachable,
    /// A master.
    Master,
    /// A replica whose link to its master is up.
    Linked,
    /// A replica whose link is down, or whose first copy was never complete.
    Unlinked,
}

/// The state of a dependent, such as RADIUS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DependentStatus {
    /// Its readiness check passes.
    Ready,
    /// Runs, but its readiness check fails.
    NotReady,
    /// It does not run.
    Stopped,
}

/// The state of a node, as far as the stream shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeStatus {
    /// No observation of it yet.
    #[default]
    Unknown,
    /// It answers.
    Online,
    /// It missed a probe. Its silence is being measured.
    Suspected,
    /// It does not answer.
    Offline,
    /// Its supervisor ended in good order.
    Stopped,
    /// It no longer acknowledges writes, and offers its role to another node.
    HandingOver,
    /// Another node is main, or takes over. Its servers are being stopped.
    Fencing,
    /// It acknowledges no writes until it has rejoined.
    Fenced,
}

macro_rules! shown_in_words {
    ($name:ident { $($variant:ident => $text:literal),+ $(,)? }) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(match self { $( Self::$variant => $text ),+ })
            }
        }
    };
}
pub(super) use shown_in_words;

shown_in_words!(PostgresStatus {
    Stopped => "stopped", Unreachable => "unreachable", Primary => "primary",
    Streaming => "streaming", Detached => "detached",
});
shown_in_words!(RedisStatus {
    None => "none", Stopped => "stopped", Unreachable => "unreachable", Master => "master",
    Linked => "linked", Unlinked => "unlinked",
});
shown_in_words!(DependentStatus { Ready => "ready", NotReady => "not ready", Stopped => "stopped" });
shown_in_words!(NodeStatus {
    Unknown => "unknown", Online => "online", Suspected => "suspected", Offline => "offline",
    Stopped => "stopped", HandingOver => "handing_over", Fencing => "fencing", Fenced => "fenced",
});

/// Payload of `postgres_changed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostgresChanged {
    /// The new state.
    pub status: PostgresStatus,
    /// Its timeline, if it answers.
    pub timeline: Option<TimelineId>,
    /// The end of its WAL: flushed on a primary, the larger of received and replayed on a standby.
    pub lsn: Option<Lsn>,
    /// The server's or the system's message, if it does not answer.
    pub detail: String,
}

/// Payload of `admission_changed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdmissionChanged {
    /// The node whose PostgreSQL it is.
    pub node: NodeId,
    /// Whether it admits new sessions.
    pub admits: bool,
    /// Why not: the server's message, or that it gave no answer.
    pub detail: String,
}

/// Payload of `redis_changed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisChanged {
    /// The new state.
    pub status: RedisStatus,
    /// Its replication offset in bytes, if it answers.
    pub offset: Option<u64>,
    /// The server's or the system's message, if it does not answer.
    pub detail: String,
    /// Whether the change is a problem, or a reaction to a problem; left out if not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alarm: bool,
}

/// Payload of `dependent_changed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DependentChanged {
    /// Its name in the configuration.
    pub name: String,
    /// The new state.
    pub status: DependentStatus,
    /// The readiness check's message, if it fails.
    pub detail: String,
}

/// What one source of evidence says about main.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Evidence that main lives.
    Good,
    /// Evidence that main is silent.
    Bad,
    /// No evidence either way.
    Unknown,
}

shown_in_words!(Verdict { Good => "good", Bad => "bad", Unknown => "unknown" });

/// One source of evidence, with its verdict and detail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// For or against main.
    pub verdict: Verdict,
    /// The answer, or the error.
    pub detail: String,
}

impl Finding {
    /// Evidence for main.
    #[must_use]
    pub fn good(detail: impl Into<String>) -> Self {
        Self { verdict: Verdict::Good, detail: detail.into() }
    }

    /// Evidence against main.
    #[must_use]
    pub fn bad(detail: impl Into<String>) -> Self {
        Self { verdict: Verdict::Bad, detail: detail.into() }
    }

    /// No evidence.
    #[must_use]
    pub fn unknown(detail: impl Into<String>) -> Self {
        Self { verdict: Verdict::Unknown, detail: detail.into() }
    }

    /// Whether it speaks for main.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.verdict == Verdict::Good
    }
}

/// Everything that a secondary knows about main at one moment: several observations, not one health check (MEASURED M21).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Whether main's supervisor answers, and what it reports about its PostgreSQL.
    pub supervisor: Finding,
    /// Whether main's PostgreSQL answers a query as a primary.
    pub postgres: Finding,
    /// Whether main's Redis answers. This informs, and never triggers a failover by itself.
    pub redis: Finding,
    /// Whether the local standby still receives main's WAL.
    pub wal_receiver: Finding,
    /// Main's last sign of life, on this node's wall clock.
    pub last_good_at: Option<DateTime<Utc>>,
    /// Consecutive probes without a sign of life.
    pub missed_probes: u32,
}

/// Payload of `main_seen`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MainSeen {
    /// The main.
    pub main: NodeId,
    /// Its epoch.
    pub epoch: Epoch,
    /// The evidence.
    pub evidence: Evidence,
}

/// Payload of `main_suspected`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MainSuspected {
    /// The main.
    pub main: NodeId,
    /// What is known of main.
    pub evidence: Evidence,
    /// How long main may be silent, in milliseconds.
    pub threshold_ms: u64,
}

/// Payload of `main_recovered`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MainRecovered {
    /// The main.
    pub main: NodeId,
    /// How long it was silent, in milliseconds.
    pub silent_ms: u64,
    /// The threshold, in milliseconds.
    pub threshold_ms: u64,
    /// What is known of main now.
    pub evidence: Evidence,
}

/// Payload of `main_lost`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MainLost {
    /// The node that was main.
    pub main: NodeId,
    /// How long it has been silent, in milliseconds.
    pub silent_ms: u64,
    /// The threshold, in milliseconds.
    pub threshold_ms: u64,
    /// What is known of main at the verdict.
    pub evidence: Evidence,
    /// Main's last report, for the measure of loss.
    pub last_report: Option<LastReport>,
}

/// The last WAL position that main reported, and how well the local standby kept up with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastReport {
    /// The end of main's flushed WAL.
    pub lsn: Lsn,
    /// When this supervisor got main's first report, on this node's wall clock.
    pub first_reported_at: DateTime<Utc>,
    /// When main reported that position, on this node's wall clock.
    pub reported_at: DateTime<Utc>,
    /// When this node last had all WAL that main had reported.
    pub caught_up_at: Option<DateTime<Utc>>,
    /// Main's first miss after that report. What main acknowledged in between is unknown to this node.
    pub first_miss_at: Option<DateTime<Utc>>,
}

/// Payload of `peer_unreachable`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerUnreachable {
    /// Which peer.
    pub peer: NodeId,
    /// The error.
    pub detail: String,
}

/// Payload of `peer_reachable`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerReachable {
    /// Which peer.
    pub peer: NodeId,
    /// How long it was silent, in milliseconds; `null` at the first contact.
    pub silent_ms: Option<u64>,
}

/// Payload of `heartbeats_observed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatsObserved {
    /// Which peer.
    pub peer: NodeId,
    /// The start of the window, on this node's wall clock.
    pub since: DateTime<Utc>,
    /// Length of the window, in milliseconds.
    pub window_ms: u64,
    /// Probes answered.
    pub answered: u32,
    /// Round trips of the answered probes: how many took at most 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000 ms, or more.
    pub round_trips: [u32; 11],
    /// The offset of every unanswered probe from the start of the window, in milliseconds.
    pub missed_at_ms: Vec<u32>,
}

impl HeartbeatsObserved {
    /// The upper bounds of the round-trip histogram's first ten classes, in milliseconds.
    pub const BOUNDS_MS: [u64; 10] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];
}
