//! What actors act through. Each port has an adapter for the real thing beside the actor that uses it, and
//! is small enough for a simulation to stand in for.

mod handover;
mod main_server;
mod no_reply;
mod rejoin;

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use interrex_events::{
    Address, Base, ClusterSettings, Epoch, HandoverAccepted, Head, JournalForked, Lsn, NodeId, NodeSeq,
    ProjectionPaused, Record, RunId, TimelineId, cluster_events::Position,
};
use interrex_projections::{Run, postgres::Rebuilt};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    messages::{HandoverOffer, MainPostgres},
    report::{DependentFacts, NodeReport, Notice, PostgresFacts, RedisFacts},
};

pub use self::{
    handover::{
        HandoverPort, Lineage, LogRecord, MainLineage, Parted, Received, ShutdownProof, Switch, Verdict,
    },
    main_server::{Held, HeldOnMain, MainServerPort, ReturnSlot},
    no_reply::NoReply,
    rejoin::{KeepRequest, Kept, KeptBy, KeptManifest, RejoinPort, Rewind, Source},
};

/// Why a port could not do what it was asked; in words for a person. The world may or may not have changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PortError(pub String);

impl PortError {
    /// An error with what was being done.
    pub fn new(doing: &str, error: impl std::fmt::Display) -> Self {
        Self(format!("{doing}: {error}"))
    }
}

/// Answer of a port.
pub type Answer<T> = Result<T, PortError>;

/// A measurement of the local PostgreSQL.
#[derive(Debug, Clone, PartialEq)]
pub struct PostgresMeasure {
    /// What it is doing.
    pub facts: PostgresFacts,
    /// How long ago its log receiver last heard from main, where one is connected.
    pub receiver_heard: Option<Duration>,
    /// Why it gave no facts, where it gave none.
    pub no_reply: Option<NoReply>,
}

/// How far a standby is with what it received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayState {
    /// Whether a log receiver runs.
    pub receiving: bool,
    /// End of what was received and flushed.
    pub received: Lsn,
    /// End of what was replayed.
    pub replayed: Lsn,
    /// Whether the startup process says that it waits for more log: the second positive sign.
    pub waits_for_more: bool,
}

/// What proves a promotion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promotion {
    /// The timeline that the server writes now, read from its log's file name (facts 5: the control file lags).
    pub timeline: TimelineId,
    /// Where it left the old one, read from the history file.
    pub switchpoint: Lsn,
}

/// A setting of a database or a role by which its clients cannot write.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ReadOnlySetting {
    /// The statement that takes it back; names the database or role.
    pub undone_by: String,
    /// Whether it is for clients of every role, and not for one role.
    pub every_role: bool,
}

/// How a running server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// In good order: sessions are ended, the log is flushed, standbys get it. What is not done within the configured patience
    /// is ended at once.
    Fast,
    /// The same with the patience of a step, which has a time limit of its own.
    Within(Duration),
    /// Everything is ended at once; recovery follows at the next start.
    Immediate,
}

/// How PostgreSQL came to be stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresEnd {
    /// What was observed.
    pub words: String,
    /// Whether it did not end in good order although it was asked to: standbys may lack the end of its log.
    pub forced: bool,
}

impl fmt::Display for PostgresEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// How far a server's process says it is, where it answers no question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerProcess {
    /// None lives.
    None,
    /// It is starting, or serves.
    Up,
    /// It is shutting down, and does not come back from that.
    Stopping,
}

/// The local PostgreSQL. Callers set the time limit of every call that does not name one.
#[async_trait(?Send)]
pub trait PostgresPort {
    /// What it is doing. An answer always comes: that nothing answers is one.
    async fn measure(&self) -> PostgresMeasure;
    /// Whether it admits a new session. One for what takes long is opened beforehand while it does.
    async fn admits(&self) -> Result<(), NoReply>;
    /// Starts it, if it does not run. Whether it had to be started.
    async fn start(&self) -> Answer<bool>;
    /// Stops it, and proves by observation that it is stopped. What was observed.
    async fn stop(&self, mode: StopMode) -> Answer<PostgresEnd>;
    /// What is known of its process without asking it.
    fn process(&self) -> ServerProcess;
    /// Whether its data directory would start as a standby.
    fn is_standby_directory(&self) -> bool;
    /// Receives from another upstream from now on.
    async fn set_upstream(&self, conninfo: &str) -> Answer<()>;
    /// Receives nothing from now on, and keeps aside what it was told to receive from. Retries of the receiver
    /// come fast from now on, so that a promotion never sleeps through one (measured floors, point 5).
    async fn leave_upstream(&self) -> Answer<()>;
    /// Receives again from what was kept aside, or from this where nothing was.
    async fn return_to_upstream(&self, otherwise: &str) -> Answer<()>;
    /// The conninfo with which this node would follow a server.
    fn conninfo_of(&self, server: &Address) -> String;
    /// How far it is with what it received.
    async fn replay_state(&self) -> Answer<ReplayState>;
    /// Settings that hinder a main and that cannot be cleared while the server runs, in words.
    async fn hindrances(&self) -> Answer<Vec<String>>;
    /// Clears settings of the server that a base backup carried over from the old main. What was cleared. An error at once
    /// where there are [`hindrances`](Self::hindrances).
    async fn sanitise(&self) -> Answer<Vec<String>>;
    /// Asks for promotion, and asks again until recovery has ended; then proves it.
    async fn promote(&self) -> Answer<Promotion>;
    /// The proof alone: nothing if it is still a standby.
    async fn promotion(&self) -> Answer<Option<Promotion>>;
    /// Whether it takes writes on the timeline of the main before it (that timeline, where it is known): it was started without
    /// `standby.signal`, not promoted.
    async fn writes_unpromoted(&self, mains: Option<TimelineId>) -> Answer<bool>;
    /// Commits a row of the epoch: the write that proves a primary.
    async fn prove_write(&self, epoch: Epoch) -> Answer<()>;
    /// Settings of databases and roles by which clients cannot write. They are the operator's, and are left alone.
    async fn read_only_settings(&self) -> Answer<Vec<ReadOnlySetting>>;
    /// A physical replication slot for a node, reserved from now on. Whether it had to be made.
    async fn ensure_slot(&self, node: NodeId) -> Answer<bool>;
    /// Sees to it that a slot whose node never comes back cannot fill the disk. The limit in force.
    async fn cap_slots(&self) -> Answer<String>;
    /// A checkpoint, now.
    async fn checkpoint(&self) -> Answer<()>;
    /// The timeline in the control file.
    async fn control_timeline(&self) -> Answer<TimelineId>;
}

/// What somebody asked for by an `UPDATE` of `cluster_config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsRequest {
    /// Its id.
    pub id: Uuid,
    /// The SQL user.
    pub requested_by: String,
    /// Where that user connected from.
    pub source: String,
    /// What shall hold of `auto_failover_enabled`, where that was asked for.
    pub auto_failover_enabled: Option<bool>,
    /// What shall hold of the threshold, in milliseconds, where that was asked for.
    pub auto_failover_threshold_ms: Option<u64>,
}

impl SettingsRequest {
    /// What holds once it is answered.
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

/// What `cluster_events` holds.
#[derive(Debug, Clone)]
pub struct StreamState {
    /// Its newest position.
    pub position: Position,
    /// The newest event of each node.
    pub heads: BTreeMap<NodeId, Head>,
    /// Changes of settings that are asked for, oldest first.
    pub requests: Vec<SettingsRequest>,
    /// Projections that did not match and were rebuilt by this look, and how long that took, in milliseconds.
    pub rebuilt: Vec<(Rebuilt, u64)>,
    /// Projections that are paused, by name.
    pub paused: Vec<String>,
    /// Projections that could not be rebuilt, and why, in words. It is tried again.
    pub refused: Vec<String>,
}

/// What a relay came to.
#[derive(Debug, Clone)]
pub struct Relayed {
    /// The newest position then.
    pub position: Position,
    /// Projections that could not take in what was relayed.
    pub paused: Vec<ProjectionPaused>,
}

/// Why events are not in `cluster_events`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotRelayed {
    /// It holds other events of that node.
    #[error("{}", .0.in_words())]
    Forked(JournalForked),
    /// It failed.
    #[error(transparent)]
    Failed(#[from] PortError),
}

/// `cluster_events` in the local PostgreSQL, and the projections that are kept beside it.
#[async_trait(?Send)]
pub trait StreamPort {
    /// What it holds. Its tables are brought to this version first, and projections that do not match the stream
    /// are rebuilt.
    async fn look(&self) -> Answer<StreamState>;
    /// Events of a node after a place, in that node's order, not more than a page: none where there are none, or no
    /// such table. A standby's answer goes as far as it has replayed.
    async fn held(&self, node: NodeId, after: NodeSeq) -> Answer<Vec<Record>>;
    /// Appends events of one node, each once, as the main of an epoch.
    async fn relay(&self, epoch: Epoch, records: &[Record]) -> Result<Relayed, NotRelayed>;
    /// Folds what a standby has replayed since the last time, so that a promotion has little left to fold; how many events
    /// those were. Changes nothing in the database, and makes way for a relay; given up half-way, the next one goes on
    /// from there. Nothing happens where there are no such tables, or tables of another version.
    async fn follow(&self) -> Answer<u64>;
    /// Whether it holds an event, with all before it, and a standby has that on its disk. Why not, if not.
    async fn holds_safely(&self, event: Head) -> Answer<()>;
}

/// How Redis came to be stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisEnd {
    /// Nothing answered on its port, and no process of it lived.
    WasNotRunning,
    /// It saved what it had; its process is gone.
    InGoodOrder(i32),
    /// It was killed: it answered nobody, and wrote nothing for so long.
    Killed(i32, Duration),
}

impl RedisEnd {
    /// Whether what it had in memory may be lost.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        matches!(self, Self::Killed(..))
    }
}

impl fmt::Display for RedisEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WasNotRunning => f.write_str("was not running: nothing answers on its port"),
            Self::InGoodOrder(pid) => write!(f, "stopped, process {pid} is gone"),
            Self::Killed(pid, limit) => write!(
                f,
                "process {pid} was KILLED: it gave no answer and saved nothing for {limit:?} (redis.stop_timeout); what it had not \
                 saved before is lost"
            ),
        }
    }
}

/// What became of an offer of Redis' role to its replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisHandover {
    /// They have changed places. What was observed.
    Done(String),
    /// Redis refuses, in its own words. It is the master as before.
    Refused(String),
}

/// The local Redis.
#[async_trait(?Send)]
pub trait RedisPort {
    /// What it is doing. An answer always comes.
    async fn measure(&self) -> RedisFacts;
    /// Starts it, if it does not run. Whether it had to be started. An error: it does not start, or would start as a master from
    /// older data than a replica holds.
    async fn start(&self) -> Answer<bool>;
    /// Stops it, its data saved, and proves it: nothing answers on its port, and its process is gone. It gets the time it needs as
    /// long as it gets on with saving. An error: it lives on, or something else serves there.
    async fn stop(&self) -> Answer<RedisEnd>;
    /// Sees to it that a Redis that could not be stopped acknowledges no write for a while. What was observed.
    async fn take_no_writes(&self) -> Answer<String>;
    /// Makes it a master, ends its clients' connections, and writes the role to its configuration file.
    async fn promote(&self) -> Answer<String>;
    /// Changes places with its replica at `host:port`, which gets all of its data first.
    async fn hand_over(&self, replica: &Address, limit: Duration) -> Answer<RedisHandover>;
    /// Whether it is receiving all of its master's data.
    async fn is_copying(&self) -> bool;
    /// Stops it if it runs, copies what it has into a folder beside its own, named by the time (the newest `newest` stay),
    /// and makes its next start one as a replica of `host:port`: it serves no client before that. How it was stopped.
    async fn come_back_behind(&self, master: &Address, at: DateTime<Utc>, newest: usize) -> Answer<RedisEnd>;
    /// Makes the copy that [`RedisPort::come_back_behind`] did not get to make. An error: it must not be started, for it
    /// would take over main's data instead of what only it has.
    async fn keep_what_is_owed(&self) -> Answer<()>;
    /// The folder that [`RedisPort::come_back_behind`] made at this time, if it did.
    async fn kept_at(&self, at: DateTime<Utc>) -> Option<PathBuf>;
    /// Makes it a replica of `host:port`, durably.
    async fn follow(&self, master: &Address) -> Answer<String>;
    /// Whether it stands still because of what this supervisor did or held back: a start is to be tried again.
    fn waits_for_a_start(&self) -> bool;
}

/// The local dependents.
#[async_trait(?Send)]
pub trait DependentsPort {
    /// What each is doing, by name.
    async fn measure(&self) -> BTreeMap<String, DependentFacts>;
    /// Starts those that do not run. The names of those started.
    async fn start(&self) -> Answer<Vec<String>>;
    /// Stops all of them, and proves it. What was observed.
    async fn stop(&self) -> Answer<String>;
    /// Restarts all of them and waits for their readiness checks. How long each took, in milliseconds.
    async fn restart(&self) -> Answer<BTreeMap<String, u64>>;
}

/// What a hook is told.
#[derive(Debug, Clone, Copy)]
pub struct HookFacts {
    /// The run.
    pub run: RunId,
    /// The epoch.
    pub epoch: Epoch,
    /// The new main.
    pub new_main: NodeId,
    /// The old one.
    pub old_main: NodeId,
}

/// The operator's hooks.
#[async_trait(?Send)]
pub trait HooksPort {
    /// How many there are.
    fn count(&self) -> usize;
    /// Runs them one after the other. What each answered; the first that fails ends it.
    async fn run(&self, facts: HookFacts) -> Answer<Vec<String>>;
}

/// Why a peer is not known to be fenced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotFenced {
    /// Nobody answered: it may be dead, or cut off.
    #[error("{0}")]
    NoAnswer(String),
    /// It knows a later epoch: whoever asks has lost.
    #[error("{0}")]
    LaterEpoch(String),
    /// It answered, and its servers are not proved to be stopped.
    #[error("{0}")]
    NotProved(String),
}

/// Why a peer has not recorded that it would take the role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAccepted {
    /// No answer: it may be recorded, or not.
    #[error("{0}")]
    NoAnswer(String),
    /// It says no.
    #[error("{0}")]
    Declined(String),
}

/// What a peer says to an offer of the role of main.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer")]
pub enum OfferAnswer {
    /// It is main.
    Taken {
        /// The timeline that its PostgreSQL writes.
        timeline: TimelineId,
        /// Where that left the old one.
        switchpoint: Option<Lsn>,
        /// The newest event of its journal.
        head: Head,
    },
    /// It has not taken the role, and never will by this offer.
    Refused {
        /// Why.
        reason: String,
    },
    /// It is at it.
    Pending,
}

/// Events of one node, in its order, as a peer's journal holds them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct JournalPage {
    /// Where the peer's journal begins, if the events that were asked for are sealed there.
    pub base: Option<Base>,
    /// The events.
    pub records: Vec<Record>,
}

/// The other nodes.
#[async_trait(?Send)]
pub trait PeersPort {
    /// Exchanges reports with a peer's supervisor.
    async fn exchange(&self, peer: NodeId, own: &NodeReport) -> Result<Arc<NodeReport>, NoReply>;
    /// Asks a peer's PostgreSQL whether it serves.
    async fn postgres(&self, peer: NodeId) -> Result<MainPostgres, NoReply>;
    /// Whether a peer's PostgreSQL admits a new session.
    async fn admits(&self, peer: NodeId) -> Result<(), NoReply>;
    /// Asks a peer's Redis for its role; nothing where none is configured.
    async fn redis(&self, peer: NodeId) -> Option<Result<String, NoReply>>;
    /// Events of a node that a peer's journal holds, after a place, in that node's order; not more than a page.
    async fn journal(&self, peer: NodeId, node: NodeId, after: NodeSeq) -> Result<JournalPage, String>;
    /// Tells a peer's supervisor who is main.
    async fn notify(&self, peer: NodeId, notice: &Notice) -> Result<(), String>;
    /// How far a peer's standby has received the log.
    async fn received(&self, peer: NodeId) -> Result<Lsn, String>;
    /// Asks a peer to record that it would take the role by this switchover. It is on its disk when the answer comes.
    async fn accept_handover(&self, peer: NodeId, asked: &HandoverAccepted) -> Result<(), NotAccepted>;
    /// Offers a peer the role of main, and waits until it has taken it or says that it will not.
    async fn take_over(&self, peer: NodeId, offer: &HandoverOffer) -> Result<OfferAnswer, String>;
    /// Asks a peer's supervisor to stop its servers, and waits for the proof.
    async fn fence(&self, peer: NodeId, run: &Run) -> Result<String, NotFenced>;
    /// Tells a peer that the run for which it was fenced has ended and promoted nobody: it serves again, as main.
    async fn lift_fence(&self, peer: NodeId, run: &Run) -> Result<String, String>;
}
