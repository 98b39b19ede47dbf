//! What a switchover and a rejoin need from the local PostgreSQL, in addition to [`PostgresPort`](super::PostgresPort).

use std::time::Duration;

use async_trait::async_trait;
use interrex_events::{Address, Lsn, NodeId, TimelineId};
use serde::{Deserialize, Serialize};

use super::{Answer, MainServerPort};
use crate::ports::{ForkReport, StandbyLimits};

/// The proof that a server was shut down, and where its WAL ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShutdownProof {
    /// System identifier of the cluster.
    pub system_id: u64,
    /// The timeline it wrote.
    pub timeline: TimelineId,
    /// Start of the shutdown checkpoint's record.
    pub checkpoint: Lsn,
    /// End of that record, and so of the WAL: a standby must have received it before it may be promoted.
    pub end: Lsn,
    /// SHA-256 of that record: the same on a standby that received it.
    pub sha256: String,
}

/// A WAL record, as one server's disk holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Where the next record begins.
    pub end: Lsn,
    /// SHA-256 of its bytes, page headers left out.
    pub sha256: String,
}

/// How far a standby's WAL reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// End of what it has on its disk: the larger of received and replayed (MEASURED M7).
    pub received: Lsn,
    /// End of the WAL that was replayed.
    pub replayed: Lsn,
}

/// The switchpoint between a timeline and the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// The timeline that ended.
    pub timeline: TimelineId,
    /// The LSN.
    pub switchpoint: Lsn,
}

/// Which WAL a running main writes, and its history. The identity is all of it together: the system identifier alone is the same
/// on both sides of a split (MEASURED M13).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MainLineage {
    /// System identifier.
    pub system_id: u64,
    /// The timeline that it writes now.
    pub timeline: TimelineId,
    /// The end of its flushed WAL.
    pub flushed: Lsn,
    /// The timelines before, oldest first.
    pub history: Vec<Switch>,
}

/// How a stopped data directory relates to a main.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    /// The verdict.
    pub verdict: Verdict,
    /// Whether it was shut down in good order.
    pub clean: bool,
    /// Its own system identifier.
    pub system_id: u64,
    /// Its own timeline.
    pub timeline: TimelineId,
    /// Where its own WAL ends.
    pub end: Lsn,
}

/// Where a data directory and a main diverged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parted {
    /// The last LSN that both share.
    pub switchpoint: Lsn,
    /// Bytes of WAL that only the directory has.
    pub bytes: u64,
    /// Whether that LSN is exact. If not, they diverged there or later: the WAL in between is no longer on both nodes.
    pub exact: bool,
}

/// Whether a data directory can follow a main.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its WAL is a part of main's: it can stream without a rewind.
    SameLine,
    /// It wrote WAL after main had left for another timeline.
    Diverged {
        /// Where the two diverged.
        parted: Parted,
        /// Whether `pg_rewind`, which compares histories only, would find that place; the error says why not.
        by_rewind: Result<(), String>,
    },
    /// It belongs to another PostgreSQL cluster.
    OtherSystem,
    /// It has all of main's WAL and more: a person must decide which of the two counts.
    Ahead {
        /// The end of main's WAL.
        parted: Parted,
        /// A message.
        words: String,
    },
    /// The relation is not known, with the reason.
    Unknown(String),
}

/// Handing over main's role, and following a new main. No method starts a server.
#[async_trait(?Send)]
pub trait HandoverPort {
    /// A fast stop that is never made harder: sessions end, standbys receive the rest of the WAL. If the limit passes, the error
    /// says what the server still waits for, and the caller decides.
    async fn hand_down(&self, limit: Duration) -> Answer<ShutdownProof>;
    /// How many bytes of WAL a node's standby that streams from this server is behind; nothing if it does not stream.
    async fn standby_behind(&self, node: NodeId) -> Answer<Option<u64>>;
    /// Drops the slots of other nodes that are not in use.
    async fn drop_unused_slots(&self) -> Answer<()>;
    /// The transactions that clients have open, supervisors left out: the process of each, and when it began.
    async fn open_transactions(&self) -> Answer<Vec<(i32, String)>>;
    /// The limits with which this server would start as the standby of another main.
    async fn limits_at_next_start(&self) -> Answer<StandbyLimits>;
    /// The proof alone, of a server that is stopped already.
    async fn shutdown_proof(&self) -> Answer<ShutdownProof>;
    /// How far this standby's WAL reaches.
    async fn received(&self) -> Answer<Received>;
    /// The end of the last whole record that this running standby has of a timeline's WAL. The received WAL may continue with a
    /// part of a record: a main sends its WAL by pages, and may die between two.
    async fn end_of_whole_log(&self, timeline: TimelineId) -> Answer<Lsn>;
    /// A WAL record on this server's disk, whether the server runs or not: for the checkpoint of a proof, the standby's part of it.
    async fn log_record(&self, timeline: TimelineId, at: Lsn) -> Answer<LogRecord>;
    /// Changes the stopped directory, durably, so that it can only start as a standby of this upstream. Can be repeated. With
    /// main's lineage it follows that timeline and no other; without, the latest timeline that it sees.
    async fn become_standby(&self, conninfo: &str, slot: &str, along: Option<&MainLineage>) -> Answer<()>;
    /// Whether a standby here also reads WAL from an archive (`restore_command`), by the configuration of the next start. Then the
    /// latest timeline that it sees may have been archived by another server, and main may never have had it.
    async fn restores_from_archive(&self) -> Answer<bool>;
    /// The timeline number that a standby here follows, by the configuration of the next start.
    async fn followed_timeline(&self) -> Answer<Option<TimelineId>>;
    /// Whether the directory could be made a standby. Nothing is changed.
    ///
    /// # Errors
    /// The obstacle, with the file's name.
    async fn could_become_standby(&self) -> Answer<()>;
    /// The newest error in this server's log file, if the supervisor knows that file.
    fn last_complaint(&self) -> Option<String>;
    /// The local running main's lineage.
    async fn main_lineage(&self) -> Answer<MainLineage>;
    /// How the stopped directory relates to a main. Main's WAL is read if the histories do not decide.
    async fn lineage_against(&self, main: &MainLineage, server: &dyn MainServerPort) -> Answer<Lineage>;
    /// Where the WAL that the running standby has received (with its timeline and end) begins to differ from main's, although both
    /// have the same timeline number; nothing if the two are the same, or if no WAL is left to compare.
    async fn parting_from(
        &self,
        received: (TimelineId, Lsn),
        main: &MainLineage,
        server: &dyn MainServerPort,
    ) -> Answer<Option<Lsn>>;
    /// Whether the directory can be rewound; the error says why not.
    async fn can_rewind(&self) -> Answer<()>;
    /// What the stopped directory's WAL has after the switchpoint at which main left its timeline.
    async fn fork(&self, timeline: TimelineId, switchpoint: Lsn, limit: Duration) -> Answer<ForkReport>;
    /// Another node's server, with the login of this node's own server, because the two are copies of each other.
    fn main_server(&self, address: &Address) -> Box<dyn MainServerPort>;
}
