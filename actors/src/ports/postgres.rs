//! The local PostgreSQL.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use interrex_events::{Address, Epoch, Lsn, NodeId, TimelineId};
use serde::Deserialize;

use super::{Answer, NoReply};
use crate::wire::PostgresFacts;

/// A measurement of the local PostgreSQL.
#[derive(Debug, Clone, PartialEq)]
pub struct PostgresMeasure {
    /// Its state.
    pub facts: PostgresFacts,
    /// How long ago its WAL receiver last heard from main, if one is connected.
    pub receiver_heard: Option<Duration>,
    /// Why there are no facts, if there are none.
    pub no_reply: Option<NoReply>,
}

/// How much of the received WAL a standby has replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayState {
    /// Whether a WAL receiver runs.
    pub receiving: bool,
    /// End of the WAL that was received and flushed.
    pub received: Lsn,
    /// End of the WAL that was replayed.
    pub replayed: Lsn,
    /// Whether the startup process reports that it waits for more WAL: the second positive sign.
    pub waits_for_more: bool,
}

/// The proof of a promotion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promotion {
    /// The timeline that the server writes now, read from the name of its WAL file (MEASURED M5).
    pub timeline: TimelineId,
    /// The switchpoint at which it left the old timeline, read from the history file.
    pub switchpoint: Lsn,
}

/// A setting of a database or a role by which its clients cannot write.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ReadOnlySetting {
    /// The statement that removes it; it names the database or role.
    pub undone_by: String,
    /// Whether it applies to clients of every role.
    pub every_role: bool,
}

/// How a running server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// In good order: sessions end, the WAL is flushed, standbys receive it. A server that has not stopped within the configured
    /// patience is ended at once.
    Fast,
    /// The same with the patience of a step, which has a time limit of its own.
    Within(Duration),
    /// All processes are ended at once; the next start begins with a recovery.
    Immediate,
}

/// How PostgreSQL was stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresEnd {
    /// What was observed.
    pub words: String,
    /// Whether it was asked to stop in good order and did not: standbys may not have the end of its WAL.
    pub forced: bool,
}

impl fmt::Display for PostgresEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// The state of a server's process, for a server that answers no query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerProcess {
    /// No process is alive.
    None,
    /// It is starting, or serves.
    Up,
    /// It is shutting down, and will end.
    Stopping,
}

/// The local PostgreSQL. Callers set the time limit of every call that does not name one.
#[async_trait(?Send)]
pub trait PostgresPort {
    /// Measures its state. The result is always known: "nothing answers" is one of them.
    async fn measure(&self) -> PostgresMeasure;
    /// Whether it admits a new session. While it does, a session for long queries is opened ahead.
    async fn admits(&self) -> Result<(), NoReply>;
    /// Starts it if it does not run. Returns whether it had to be started.
    async fn start(&self) -> Answer<bool>;
    /// Stops it, and proves by observation that it is stopped. Returns what was observed.
    async fn stop(&self, mode: StopMode) -> Answer<PostgresEnd>;
    /// The state of its process, without a query.
    async fn process(&self) -> ServerProcess;
    /// Whether its data directory would start as a standby.
    fn is_standby_directory(&self) -> bool;
    /// Makes it receive from another upstream from now on.
    async fn set_upstream(&self, conninfo: &str) -> Answer<()>;
    /// Makes it receive nothing from now on, and keeps its upstream aside. The receiver's retries are fast from now on, so that a
    /// promotion never waits for one (MEASURED M6).
    async fn leave_upstream(&self) -> Answer<()>;
    /// Makes it receive again from the upstream that was kept aside, or from this one if none was.
    async fn return_to_upstream(&self, otherwise: &str) -> Answer<()>;
    /// The conninfo with which this node would follow a server.
    fn conninfo_of(&self, server: &Address) -> String;
    /// How much of the received WAL is replayed.
    async fn replay_state(&self) -> Answer<ReplayState>;
    /// Settings that hinder a main and cannot be cleared while the server runs, as messages.
    async fn hindrances(&self) -> Answer<Vec<String>>;
    /// Clears settings of the server that a base backup carried over from the old main. Returns what was cleared. An error at once
    /// if there are [`hindrances`](Self::hindrances).
    async fn sanitise(&self) -> Answer<Vec<String>>;
    /// Asks for a promotion, repeatedly, until recovery has ended; then proves it.
    async fn promote(&self) -> Answer<Promotion>;
    /// The proof alone; nothing if the server is still a standby.
    async fn promotion(&self) -> Answer<Option<Promotion>>;
    /// Whether it takes writes on the timeline of the main before it (that timeline, if it is known): it was started without
    /// `standby.signal`, not promoted.
    async fn writes_unpromoted(&self, mains: Option<TimelineId>) -> Answer<bool>;
    /// Commits a row of the epoch: the write that proves a primary.
    async fn prove_write(&self, epoch: Epoch) -> Answer<()>;
    /// Settings of databases and roles by which clients cannot write. They belong to the operator, and are not changed.
    async fn read_only_settings(&self) -> Answer<Vec<ReadOnlySetting>>;
    /// Makes sure that a node has a physical replication slot that reserves WAL. Returns whether it had to be made.
    async fn ensure_slot(&self, node: NodeId) -> Answer<bool>;
    /// Limits the WAL that slots keep, so that a node that never comes back cannot fill the disk. Returns the limit in force.
    async fn cap_slots(&self) -> Answer<String>;
    /// Writes a checkpoint now.
    async fn checkpoint(&self) -> Answer<()>;
    /// The timeline in the control file.
    async fn control_timeline(&self) -> Answer<TimelineId>;
}
