//! Facts about the health of servers: one's own, and main's as seen from a secondary.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{Epoch, Lsn, NodeId, TimelineId};

/// What a PostgreSQL server is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PostgresStatus {
    /// Not running, by observation.
    Stopped,
    /// It does not answer, and nothing proves that it is stopped.
    Unreachable,
    /// It answers and accepts writes.
    Primary,
    /// A standby that receives its main's log.
    Streaming,
    /// A standby that receives nothing at the moment.
    Detached,
}

/// What a Redis server is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RedisStatus {
    /// None is configured on the node.
    None,
    /// Not running, by observation.
    Stopped,
    /// It does not answer, and nothing proves that it is stopped.
    Unreachable,
    /// A master.
    Master,
    /// A replica whose link to its master is up.
    Linked,
    /// A replica whose link is down, or that never finished a first copy.
    Unlinked,
}

/// What a dependent, such as RADIUS, is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DependentStatus {
    /// Its readiness check passes.
    Ready,
    /// It runs, but its readiness check fails.
    NotReady,
    /// It does not run.
    Stopped,
}

/// How a node is, as far as the stream says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeStatus {
    /// Nothing was heard of it yet.
    #[default]
    Unknown,
    /// It answers.
    Online,
    /// It missed a probe; its silence is being measured.
    Suspected,
    /// It does not answer.
    Offline,
    /// Its supervisor ended in good order.
    Stopped,
    /// It has stopped to acknowledge writes, and offers its role to another node.
    HandingOver,
    /// Its reign was superseded; its servers are being stopped.
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
    /// What it does now.
    pub status: PostgresStatus,
    /// Its timeline, where it answers.
    pub timeline: Option<TimelineId>,
    /// The end of its log: flushed on a primary, the larger of received and replayed on a standby.
    pub lsn: Option<Lsn>,
    /// The server's own words, where it does not answer.
    pub detail: String,
}

/// Payload of `admission_changed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdmissionChanged {
    /// Whose PostgreSQL.
    pub node: NodeId,
    /// Whether it admits new sessions.
    pub admits: bool,
    /// Why not: the server's own words, or that it gave no answer.
    pub detail: String,
}

/// Payload of `redis_changed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisChanged {
    /// What it does now.
    pub status: RedisStatus,
    /// Its replication offset, in bytes, where it answers.
    pub offset: Option<u64>,
    /// The server's own words, where it does not answer.
    pub detail: String,
    /// Whether something is wrong with that, or was done about it; left out where it is a mere change.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alarm: bool,
}

/// Payload of `dependent_changed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DependentChanged {
    /// Its name in the configuration.
    pub name: String,
    /// What it does now.
    pub status: DependentStatus,
    /// The readiness check's own words, where it fails.
    pub detail: String,
}

/// What one witness says about main.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It speaks for main.
    Good,
    /// It speaks against main.
    Bad,
    /// It says nothing either way.
    Unknown,
}

shown_in_words!(Verdict { Good => "good", Bad => "bad", Unknown => "unknown" });

/// One witness and its words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// For or against.
    pub verdict: Verdict,
    /// What was answered, or what failed.
    pub detail: String,
}

impl Finding {
    /// A witness for main.
    #[must_use]
    pub fn good(detail: impl Into<String>) -> Self {
        Self { verdict: Verdict::Good, detail: detail.into() }
    }

    /// A witness against main.
    #[must_use]
    pub fn bad(detail: impl Into<String>) -> Self {
        Self { verdict: Verdict::Bad, detail: detail.into() }
    }

    /// No witness.
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

/// Everything a secondary knows about main at one moment: a vector, not one health check (MEASURED M21).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Does main's supervisor answer, and what does it say of its PostgreSQL?
    pub supervisor: Finding,
    /// Does main's PostgreSQL answer a query, as a primary?
    pub postgres: Finding,
    /// Does main's Redis answer? It informs, and never triggers a failover by itself.
    pub redis: Finding,
    /// Does the local standby still receive main's log?
    pub wal_receiver: Finding,
    /// When main last gave a good sign, on this node's wall clock.
    pub last_good_at: Option<DateTime<Utc>>,
    /// Probes in a row without a good sign.
    pub missed_probes: u32,
}

/// Payload of `main_seen`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MainSeen {
    /// Who is main.
    pub main: NodeId,
    /// In which epoch.
    pub epoch: Epoch,
    /// The evidence.
    pub evidence: Evidence,
}

/// Payload of `main_suspected`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MainSuspected {
    /// Who is main.
    pub main: NodeId,
    /// What failed.
    pub evidence: Evidence,
    /// How long main may be silent, in milliseconds.
    pub threshold_ms: u64,
}

/// Payload of `main_recovered`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MainRecovered {
    /// Who is main.
    pub main: NodeId,
    /// How long it was silent, in milliseconds.
    pub silent_ms: u64,
    /// How long it might have been, in milliseconds.
    pub threshold_ms: u64,
    /// What speaks for it again.
    pub evidence: Evidence,
}

/// Payload of `main_lost`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MainLost {
    /// Who was main.
    pub main: NodeId,
    /// How long it has been silent, in milliseconds.
    pub silent_ms: u64,
    /// How long it might have been, in milliseconds.
    pub threshold_ms: u64,
    /// What is known at the verdict.
    pub evidence: Evidence,
    /// What main last said of itself, for the measure of loss.
    pub last_report: Option<LastReport>,
}

/// The last position of its log that main reported, and how well the local standby kept up with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastReport {
    /// End of main's flushed log.
    pub lsn: Lsn,
    /// When main was first heard of by this supervisor, on this node's wall clock.
    pub first_reported_at: DateTime<Utc>,
    /// When it was reported, on this node's wall clock.
    pub reported_at: DateTime<Utc>,
    /// When this node last held all that main had reported.
    pub caught_up_at: Option<DateTime<Utc>>,
    /// When main first failed to answer after it: what it acknowledged in between, nobody here can know.
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
    /// How long it was silent, in milliseconds; nothing if it is the first contact.
    pub silent_ms: Option<u64>,
}

/// Payload of `heartbeats_observed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatsObserved {
    /// Which peer.
    pub peer: NodeId,
    /// Begin of the window, on this node's wall clock.
    pub since: DateTime<Utc>,
    /// Length of the window, in milliseconds.
    pub window_ms: u64,
    /// Probes answered.
    pub answered: u32,
    /// Round trips of the answered probes: how many took at most 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000 ms, or more.
    pub round_trips: [u32; 11],
    /// The exact offset of every unanswered probe from the window's begin, in milliseconds.
    pub missed_at_ms: Vec<u32>,
}

impl HeartbeatsObserved {
    /// Upper bounds of the round-trip histogram's first ten classes, in milliseconds.
    pub const BOUNDS_MS: [u64; 10] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];
}
