//! What a switchover and a return need of the local PostgreSQL, beyond [`PostgresPort`](super::PostgresPort).

use std::time::Duration;

use async_trait::async_trait;
use interrex_events::{Address, Lsn, NodeId, TimelineId};
use serde::{Deserialize, Serialize};

use super::{Answer, MainServerPort};
use crate::ports::{ForkReport, StandbyLimits};

/// What proves that a server was closed, and where its log ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShutdownProof {
    /// System identifier of the cluster.
    pub system_id: u64,
    /// The timeline it wrote.
    pub timeline: TimelineId,
    /// Begin of the shutdown checkpoint's record.
    pub checkpoint: Lsn,
    /// End of that record, and so of the log: what a standby must have received before it may be promoted.
    pub end: Lsn,
    /// SHA-256 of that record: the same on a standby that received it.
    pub sha256: String,
}

/// A record of the log, as one server's disk holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Where the next record begins.
    pub end: Lsn,
    /// SHA-256 of its bytes, page headers left out.
    pub sha256: String,
}

/// How far a standby's log reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// End of what it has on its disk: the larger of received and replayed (MEASURED M7).
    pub received: Lsn,
    /// End of what was replayed.
    pub replayed: Lsn,
}

/// Where a timeline was left for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// The timeline that ended.
    pub timeline: TimelineId,
    /// Where.
    pub switchpoint: Lsn,
}

/// Which log a running main writes, and how it came to it. Identity is all of it, not the system identifier: that
/// is the same on both sides of a split (MEASURED M13).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MainLineage {
    /// System identifier.
    pub system_id: u64,
    /// The timeline that it writes now.
    pub timeline: TimelineId,
    /// How far it has flushed.
    pub flushed: Lsn,
    /// The timelines before, oldest first.
    pub history: Vec<Switch>,
}

/// What a stopped data directory is to a main.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    /// The verdict.
    pub verdict: Verdict,
    /// Whether it was closed in good order.
    pub clean: bool,
    /// Its own system identifier.
    pub system_id: u64,
    /// Its own timeline.
    pub timeline: TimelineId,
    /// Where its own log ends.
    pub end: Lsn,
}

/// Where a data directory and a main went different ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parted {
    /// The last place that both share.
    pub switchpoint: Lsn,
    /// Bytes of log that only the directory has.
    pub bytes: u64,
    /// Whether it is that place. If not, they parted there or later, for the log in between is not on both any more.
    pub exact: bool,
}

/// Whether a data directory can follow a main.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its log is a part of main's: it can stream without a rewind.
    SameLine,
    /// It wrote on after main had gone another way.
    Diverged {
        /// Where.
        parted: Parted,
        /// Whether `pg_rewind`, which goes by histories alone, would find that place; the error says why not.
        by_rewind: Result<(), String>,
    },
    /// It is another cluster's.
    OtherSystem,
    /// It has all of main's log and more: a person must say which of them counts.
    Ahead {
        /// Where main ends.
        parted: Parted,
        /// In words.
        words: String,
    },
    /// It cannot be told, and why.
    Unknown(String),
}

/// Handing a main's role down, and coming back behind a new one. Nothing here starts a server.
#[async_trait(?Send)]
pub trait HandoverPort {
    /// A fast stop that is never made harder: sessions end, standbys get the last of the log. If the limit passes,
    /// the error says what the server still waits for, and the caller decides.
    async fn hand_down(&self, limit: Duration) -> Answer<ShutdownProof>;
    /// How many bytes a node's standby that streams from this server is behind; nothing if none streams.
    async fn standby_behind(&self, node: NodeId) -> Answer<Option<u64>>;
    /// Drops the slots of other nodes that nobody uses.
    async fn drop_unused_slots(&self) -> Answer<()>;
    /// The transactions that clients have open, supervisors left out: the process of each, and when it began.
    async fn open_transactions(&self) -> Answer<Vec<(i32, String)>>;
    /// The limits that it would start with as the standby of another main.
    async fn limits_at_next_start(&self) -> Answer<StandbyLimits>;
    /// The proof alone, of a server that is stopped already.
    async fn shutdown_proof(&self) -> Answer<ShutdownProof>;
    /// How far this standby's log reaches.
    async fn received(&self) -> Answer<Received>;
    /// Where the last whole record ends of what this running standby has of a timeline's log. What it received may go on with a
    /// part of one: a main sends its log by pages, and may die between two.
    async fn end_of_whole_log(&self, timeline: TimelineId) -> Answer<Lsn>;
    /// A record of the log on this server's disk, running or not: with a proof's checkpoint, the other half of it.
    async fn log_record(&self, timeline: TimelineId, at: Lsn) -> Answer<LogRecord>;
    /// Makes the stopped directory one that can only start as a standby of this upstream, durably. Can be repeated. With main's line
    /// it follows that timeline and no other; without, whichever is the latest that it sees.
    async fn become_standby(&self, conninfo: &str, slot: &str, along: Option<&MainLineage>) -> Answer<()>;
    /// Whether a standby here looks for log in an archive too (`restore_command`), by the configuration of the next start. Then the
    /// latest timeline that it sees may be one that somebody else has archived and main never had.
    async fn restores_from_archive(&self) -> Answer<bool>;
    /// The timeline that a standby here follows by its number, by the configuration of the next start.
    async fn followed_timeline(&self) -> Answer<Option<TimelineId>>;
    /// Whether the directory could be made a standby. Nothing is changed.
    ///
    /// # Errors
    /// What would keep it from that, with the file's name.
    async fn could_become_standby(&self) -> Answer<()>;
    /// The newest complaint in this server's log, if that is a file that the supervisor knows.
    fn last_complaint(&self) -> Option<String>;
    /// The local running main's lineage.
    async fn main_lineage(&self) -> Answer<MainLineage>;
    /// What the stopped directory is to a main, whose log is read where histories do not tell.
    async fn lineage_against(&self, main: &MainLineage, server: &dyn MainServerPort) -> Answer<Lineage>;
    /// Where the WAL that the running standby has received (on which timeline, up to where) begins to be another than main's, although
    /// both number it alike; nothing where it is the same, or where nothing is left to compare.
    async fn parting_from(
        &self,
        received: (TimelineId, Lsn),
        main: &MainLineage,
        server: &dyn MainServerPort,
    ) -> Answer<Option<Lsn>>;
    /// Whether the directory can be rewound; the error says why not.
    async fn can_rewind(&self) -> Answer<()>;
    /// What the stopped directory's log holds after the place where main left its timeline.
    async fn fork(&self, timeline: TimelineId, switchpoint: Lsn, limit: Duration) -> Answer<ForkReport>;
    /// Another node's server, logged in to as to one's own, for they are copies of each other.
    fn main_server(&self, address: &Address) -> Box<dyn MainServerPort>;
}
