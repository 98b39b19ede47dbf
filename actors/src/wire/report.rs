//! A node's report of itself: the answer of `GET /health`, and the content of heartbeats.

use std::collections::BTreeMap;

use interrex_events::{
    Address, ClusterId, ClusterSettings, DependentStatus, Epoch, Head, Hlc, Lsn, NodeId, Position,
    PostgresStatus, RedisStatus, Role, RunId, SettingsStamp, StepId, TimelineId,
};
use interrex_projections::NodeStatus;
use serde::{Deserialize, Serialize};

/// A measurement of the local PostgreSQL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PostgresFacts {
    /// Its state.
    pub status: PostgresStatus,
    /// Its timeline.
    pub timeline: Option<TimelineId>,
    /// The end of its WAL: flushed on a primary, the larger of received and replayed on a standby.
    pub lsn: Option<Lsn>,
    /// How far a standby has replayed.
    pub replayed: Option<Lsn>,
    /// A message, if the server does not answer.
    pub detail: String,
}

impl PostgresFacts {
    /// A server that gave no answer.
    #[must_use]
    pub fn silent(status: PostgresStatus, detail: impl Into<String>) -> Self {
        Self { status, timeline: None, lsn: None, replayed: None, detail: detail.into() }
    }
}

/// A measurement of the local Redis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisFacts {
    /// Its state.
    pub status: RedisStatus,
    /// Its replication offset, in bytes.
    pub offset: Option<u64>,
    /// A message, if the server does not answer.
    pub detail: String,
    /// For a replica: `host:port` of its master. An older program leaves it out.
    #[serde(default)]
    pub upstream: Option<Address>,
    /// The commands that it does not accept from the supervisor, each with the reason.
    #[serde(default)]
    pub lacks: Vec<String>,
    /// Whether it is stopped because of this supervisor, which killed it or holds its start back.
    #[serde(default)]
    pub alarm: bool,
}

impl RedisFacts {
    /// A server of which nothing but its state is known.
    #[must_use]
    pub fn silent(status: RedisStatus, detail: impl Into<String>) -> Self {
        Self { status, offset: None, detail: detail.into(), upstream: None, lacks: Vec::new(), alarm: false }
    }

    /// Where no Redis is configured.
    #[must_use]
    pub fn none() -> Self {
        Self::silent(RedisStatus::None, "")
    }
}

/// A measurement of a dependent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DependentFacts {
    /// Its state.
    pub status: DependentStatus,
    /// The readiness check's message, if it fails.
    pub detail: String,
}

/// How far a secondary is behind main.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Lag {
    /// Bytes of WAL between main's last report and the WAL here.
    pub bytes: u64,
    /// Seconds since this node last held all that main had reported.
    pub seconds: f64,
    /// Whether main may have written more since its last report: the figures are then lower bounds.
    pub lower_bound: bool,
    /// Main's last report.
    pub main_lsn: Lsn,
}

/// Main's state of `cluster_events`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamFacts {
    /// Its newest position, at the last look.
    pub position: Option<Position>,
    /// Projections that are paused, by name.
    pub paused: Vec<String>,
    /// What keeps this node's events out of `cluster_events`.
    pub problems: Vec<String>,
    /// What keeps copies of other nodes' events out of it: main serves without them.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// The state of an actor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorFacts {
    /// Restarts since the supervisor started.
    pub restarts: u32,
    /// Messages that found its mailbox full and were dropped.
    pub dropped: u64,
}

/// The progress of a copy of a node's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyProgress {
    /// Bytes copied.
    pub done_bytes: u64,
    /// Bytes in all; as main estimates them for a base backup, it may grow.
    pub total_bytes: u64,
}

/// A time in which a node may not promote itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rest {
    /// The rest of that time, in milliseconds.
    pub left_ms: u64,
    /// The reason.
    pub because: String,
}

/// A node's report of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Its status, by its own journal.
    pub status: NodeStatus,
    /// The newest epoch it knows.
    pub epoch: Epoch,
    /// The main, as far as it knows.
    pub main: Option<NodeId>,
    /// The switchpoint at which the timeline of that epoch left the old one, if it opened the epoch itself.
    pub switchpoint: Option<Lsn>,
    /// Whether a switchover opened that epoch, as far as it knows; an older program leaves it out.
    #[serde(default)]
    pub planned: Option<bool>,
    /// How long this node may not promote itself, with the reason, if it would otherwise.
    #[serde(default)]
    pub rests: Option<Rest>,
    /// Whether it does what its role demands; the HTTP status is 200 or 503 accordingly.
    pub healthy: bool,
    /// Its problems, if it does not.
    pub problems: Vec<String>,
    /// Its PostgreSQL.
    pub postgres: PostgresFacts,
    /// How long ago that was measured, in milliseconds; nothing before its first answer, and from older versions.
    #[serde(default)]
    pub postgres_age_ms: Option<u64>,
    /// Why its PostgreSQL admits no new session, if it answers open ones.
    #[serde(default)]
    pub no_session: Option<String>,
    /// The same for main's PostgreSQL, as a secondary sees it.
    #[serde(default)]
    pub main_no_session: Option<String>,
    /// Its Redis.
    pub redis: RedisFacts,
    /// Its dependents.
    pub dependents: BTreeMap<String, DependentFacts>,
    /// On a secondary: how far it is behind.
    pub lag: Option<Lag>,
    /// On a secondary: how long main has given no good sign, in milliseconds.
    pub main_silent_ms: Option<u64>,
    /// Whether main has given no sign at all since this supervisor began to watch it: its silence counts from then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub main_unseen: bool,
    /// How long main may be silent, in milliseconds.
    pub threshold_ms: u64,
    /// The quorum mode; `none` gives no protection against a cut link.
    pub quorum: String,
    /// The node that may promote itself, if that is configured: with quorum `none` at most one node may.
    #[serde(default)]
    pub candidate: Option<NodeId>,
    /// The run of this node, and its current steps.
    pub run: Option<(RunId, Vec<StepId>)>,
    /// The progress of copying main's data, or its own data aside.
    #[serde(default)]
    pub copying: Option<CopyProgress>,
    /// Whether that run is to make it main; an older program leaves it out.
    #[serde(default)]
    pub taking_over: Option<bool>,
    /// The newest event of every journal on this node.
    pub journal_heads: Vec<Head>,
    /// On main: `cluster_events`.
    #[serde(default)]
    pub stream: Option<StreamFacts>,
    /// The settings that were changed while the cluster ran, and the change that set them.
    #[serde(default)]
    pub settings: Option<(ClusterSettings, SettingsStamp)>,
    /// Its clock.
    pub hlc: Hlc,
    /// Milliseconds since its supervisor started.
    pub uptime_ms: u64,
    /// Its actors.
    pub actors: BTreeMap<String, ActorFacts>,
    /// The version of its program; an older program leaves it out.
    #[serde(default)]
    pub version: String,
}

impl NodeReport {
    /// Whether it makes a run that is to make it main.
    #[must_use]
    pub fn is_taking_over(&self) -> bool {
        self.taking_over.unwrap_or(self.run.is_some())
    }

    /// Whether it is about to be main, or its PostgreSQL is a primary already.
    #[must_use]
    pub fn takes_over(&self) -> bool {
        self.is_taking_over() || self.postgres.status == PostgresStatus::Primary
    }

    /// Whether it is a main that has stopped, or is about to, in a switchover; every step of that ends in time.
    #[must_use]
    pub fn hands_over(&self) -> bool {
        let steps = self.run.iter().flat_map(|(_, steps)| steps);
        let mut stopping =
            steps.filter(|step| matches!(step, StepId::StopMain | StepId::ProveHandover | StepId::HandOver));
        self.status == NodeStatus::HandingOver || stopping.next().is_some()
    }
}

/// Body of `POST /api/cluster/notify`: the node that is main from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The sender.
    pub from: NodeId,
    /// The main node.
    pub main: NodeId,
    /// The epoch.
    pub epoch: Epoch,
    /// The timeline of that epoch.
    pub timeline: Option<TimelineId>,
    /// The switchpoint at which that timeline left the old one.
    pub switchpoint: Option<Lsn>,
    /// Whether a switchover made it main; an older program leaves it out.
    #[serde(default)]
    pub planned: Option<bool>,
    /// The sender's clock.
    pub hlc: Hlc,
}

/// The answer of main's PostgreSQL to a secondary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MainPostgres {
    /// Whether it accepts writes.
    pub writable: bool,
    /// The end of its flushed WAL.
    pub lsn: Option<Lsn>,
}
