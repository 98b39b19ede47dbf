//! What a node says of itself right now: the answer of `GET /health`, and what heartbeats carry.

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
    /// What it does.
    pub status: PostgresStatus,
    /// Its timeline.
    pub timeline: Option<TimelineId>,
    /// The end of its log: flushed on a primary, the larger of received and replayed on a standby.
    pub lsn: Option<Lsn>,
    /// How far a standby has replayed.
    pub replayed: Option<Lsn>,
    /// The server's own words, where it does not answer.
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
    /// What it does.
    pub status: RedisStatus,
    /// Its replication offset, in bytes.
    pub offset: Option<u64>,
    /// The server's own words, where it does not answer.
    pub detail: String,
    /// Of a replica: `host:port` of its master. An older program does not say.
    #[serde(default)]
    pub upstream: Option<Address>,
    /// The commands that it does not let the supervisor give, with the reason of each.
    #[serde(default)]
    pub lacks: Vec<String>,
    /// Whether it does not run by this supervisor's own doing: it killed it, or holds its start back.
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
    /// What it does.
    pub status: DependentStatus,
    /// The readiness check's own words, where it fails.
    pub detail: String,
}

/// How far a secondary is behind main.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Lag {
    /// Bytes of log between main's last report and what is held here.
    pub bytes: u64,
    /// Seconds since this node last held all that main had reported.
    pub seconds: f64,
    /// Main may have written more since its last report: the figures are then the least, not the most.
    pub lower_bound: bool,
    /// Main's last report.
    pub main_lsn: Lsn,
}

/// What main knows of `cluster_events`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamFacts {
    /// Its newest position, at the last look.
    pub position: Option<Position>,
    /// Projections that are paused, by name.
    pub paused: Vec<String>,
    /// What keeps this node's events out of it.
    pub problems: Vec<String>,
    /// What keeps copies of other nodes' events out of it: main serves as well without them.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// How an actor is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorFacts {
    /// Restarts since the supervisor started.
    pub restarts: u32,
    /// Messages that found its mailbox full and were dropped.
    pub dropped: u64,
}

/// How far a copy of a node's data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyProgress {
    /// Bytes copied.
    pub done_bytes: u64,
    /// Bytes in all; as main estimates them for a base backup, it may grow.
    pub total_bytes: u64,
}

/// A time in which a node does not promote itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rest {
    /// What is left of it, in milliseconds.
    pub left_ms: u64,
    /// Why.
    pub because: String,
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// How it is, by its own journal.
    pub status: NodeStatus,
    /// The newest epoch it knows.
    pub epoch: Epoch,
    /// Who is main, as far as it knows.
    pub main: Option<NodeId>,
    /// Where the timeline of that epoch left the old one, if it opened the epoch itself.
    pub switchpoint: Option<Lsn>,
    /// Whether a switchover opened that epoch, as far as it knows; an older program does not say.
    #[serde(default)]
    pub planned: Option<bool>,
    /// How long this node does not promote itself, and why, where it would otherwise.
    #[serde(default)]
    pub rests: Option<Rest>,
    /// Whether it does what its role demands; decides between 200 and 503.
    pub healthy: bool,
    /// What is missing, if not.
    pub problems: Vec<String>,
    /// Its PostgreSQL.
    pub postgres: PostgresFacts,
    /// How long ago it was asked for that, in milliseconds; nothing before its first answer, and by older versions.
    #[serde(default)]
    pub postgres_age_ms: Option<u64>,
    /// Why its PostgreSQL admits no new session, where it answers those that are open and admits none.
    #[serde(default)]
    pub no_session: Option<String>,
    /// The same of main's PostgreSQL, as a secondary sees it.
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
    /// How long it may, in milliseconds.
    pub threshold_ms: u64,
    /// Who is asked before a node becomes main; `none` protects nobody from a cut link.
    pub quorum: String,
    /// Which node may promote itself, where that is configured: with quorum `none` it is one at most.
    #[serde(default)]
    pub candidate: Option<NodeId>,
    /// The run this node is making, and the steps it is at.
    pub run: Option<(RunId, Vec<StepId>)>,
    /// How far it is with copying main's data, or its own aside.
    #[serde(default)]
    pub copying: Option<CopyProgress>,
    /// Whether that run shall make it main; an older program does not say.
    #[serde(default)]
    pub taking_over: Option<bool>,
    /// The newest event of every journal held here.
    pub journal_heads: Vec<Head>,
    /// On main: `cluster_events`.
    #[serde(default)]
    pub stream: Option<StreamFacts>,
    /// The settings that were changed while the cluster ran, and by which change.
    #[serde(default)]
    pub settings: Option<(ClusterSettings, SettingsStamp)>,
    /// Its clock.
    pub hlc: Hlc,
    /// Milliseconds since its supervisor started.
    pub uptime_ms: u64,
    /// Its actors.
    pub actors: BTreeMap<String, ActorFacts>,
    /// The version of its program; an older one does not say.
    #[serde(default)]
    pub version: String,
}

impl NodeReport {
    /// Whether it makes a run that shall make it main.
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

/// `POST /api/cluster/notify`: who is main from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The cluster it speaks of.
    pub cluster_id: ClusterId,
    /// Who sends it.
    pub from: NodeId,
    /// Who is main.
    pub main: NodeId,
    /// In which epoch.
    pub epoch: Epoch,
    /// On which timeline.
    pub timeline: Option<TimelineId>,
    /// Where that timeline left the old one.
    pub switchpoint: Option<Lsn>,
    /// Whether a switchover made it main; an older program does not say.
    #[serde(default)]
    pub planned: Option<bool>,
    /// The sender's clock.
    pub hlc: Hlc,
}

/// What main's PostgreSQL said to a secondary that asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MainPostgres {
    /// Whether it accepts writes.
    pub writable: bool,
    /// The end of its flushed log.
    pub lsn: Option<Lsn>,
}
