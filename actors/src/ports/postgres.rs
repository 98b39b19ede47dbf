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
    /// The timeline that the server writes now, read from its log's file name (MEASURED M5).
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
    /// come fast from now on, so that a promotion never sleeps through one (MEASURED M6).
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
