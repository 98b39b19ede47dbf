//! The PostgreSQL of another node, as a node needs it that rejoins behind it, or will follow it after a switchover.

use std::collections::BTreeMap;

use async_trait::async_trait;
use interrex_events::NodeId;

use super::{Answer, MainLineage};
use crate::ports::{FileNode, StandbyLimits};

/// What a file holds on main.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// A table of users.
    Table {
        /// Its database.
        database: String,
        /// Its name, with its schema.
        name: String,
    },
    /// A part of large values (TOAST), a materialized view, a catalog, or a table of Interrex's own.
    NoTableOfUsers,
    /// Nothing: there is no such file.
    Nothing,
}

/// Main's answer about files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeldOnMain {
    /// The content of each. A missing file could not be asked for.
    pub found: BTreeMap<FileNode, Held>,
    /// Why some files are missing.
    pub not_asked: Option<String>,
}

/// A node's replication slot on main, before the node comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReturnSlot {
    /// The slot exists, and only the node itself uses it.
    There,
    /// The slot can be made, or made again if its WAL is gone.
    ToBeMade,
    /// Another receiver uses the slot; the message names it.
    InUse(String),
    /// The slot is not available; the message gives the reason and the fix.
    Withheld(String),
}

impl ReturnSlot {
    /// The obstacle for the node, as a message.
    #[must_use]
    pub fn obstacle(&self) -> Option<&str> {
        match self {
            Self::There | Self::ToBeMade => None,
            Self::InUse(words) | Self::Withheld(words) => Some(words),
        }
    }
}

/// Main's server over the network. It does not need main's supervisor.
#[async_trait(?Send)]
pub trait MainServerPort {
    /// Its lineage. An error if it is not a primary.
    async fn lineage(&self) -> Answer<MainLineage>;
    /// SHA-256 of a part of one of its WAL files, from one offset to another, for each piece of `piece` bytes; nothing if it has no
    /// such file, or this node's login may not read it.
    async fn log_sums(&self, file: &str, part: (u64, u64, u64)) -> Answer<Option<Vec<String>>>;
    /// Bytes of one of its WAL files from an offset on; nothing in the same cases.
    async fn log_bytes(&self, file: &str, part: (u64, u64)) -> Answer<Option<Vec<u8>>>;
    /// Whether this node's login there may do what `pg_rewind` does: read the files of the data directory.
    async fn lets_itself_be_read(&self) -> Answer<bool>;
    /// Bytes of its data without the WAL: the size of a base backup.
    ///
    /// # Errors
    /// It has tablespaces, which a base backup here does not include; or it does not answer.
    async fn size(&self) -> Answer<u64>;
    /// Checks that a base backup here would include all of its data.
    ///
    /// # Errors
    /// It has tablespaces, or it does not answer.
    async fn can_be_copied(&self) -> Answer<()>;
    /// A node's slot there. Nothing is changed.
    async fn return_slot(&self, node: NodeId) -> Answer<ReturnSlot>;
    /// Keeps the WAL that a node will need in that node's slot, and writes a CHECKPOINT unless there was one since the promotion:
    /// without it a rewind does not see the promotion (MEASURED M5). Returns whether the slot was made.
    async fn prepare_return(&self, node: NodeId) -> Answer<bool>;
    /// The limits that a standby of it must not go below.
    async fn limits(&self) -> Answer<StandbyLimits>;
    /// Settings that would hinder it as main and cannot be cleared while it runs, as messages.
    async fn hindrances(&self) -> Answer<Vec<String>>;
    /// Logs in ahead of the next question. It takes a second at most.
    async fn log_in_ahead(&self) -> Answer<()>;
    /// The content of files with these numbers, for each database. It takes a second at most, and returns what was found by then.
    async fn held_in(&self, files: &[FileNode]) -> HeldOnMain;
    /// Whether it streams to a node's standby.
    async fn streams_to(&self, node: NodeId) -> Answer<bool>;
}
