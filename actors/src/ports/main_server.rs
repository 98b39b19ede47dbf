//! The PostgreSQL of another node, as far as one that comes back behind it, or will once it has handed over, needs it.

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

/// What main says of files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeldOnMain {
    /// What each of them holds. One that is missing could not be asked for.
    pub found: BTreeMap<FileNode, Held>,
    /// Why some are missing.
    pub not_asked: Option<String>,
}

/// A node's replication slot on main, before the node comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReturnSlot {
    /// It is there, and nobody uses it but the node itself.
    There,
    /// It can be made; also in place of one whose log is gone.
    ToBeMade,
    /// Somebody else receives through it; who, in words.
    InUse(String),
    /// It cannot be had; why, and what mends that, in words.
    Withheld(String),
}

impl ReturnSlot {
    /// What keeps the node from it, in words.
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
    /// Its lineage; an error if it is no primary.
    async fn lineage(&self) -> Answer<MainLineage>;
    /// SHA-256 of a part of a file of its log, from one offset to another, piece by piece of so many bytes; nothing where it has
    /// no such file, or this node's login may not read it.
    async fn log_sums(&self, file: &str, part: (u64, u64, u64)) -> Answer<Option<Vec<String>>>;
    /// So many bytes of a file of its log from an offset on; nothing as above.
    async fn log_bytes(&self, file: &str, part: (u64, u64)) -> Answer<Option<Vec<u8>>>;
    /// Whether this node's login there may do what `pg_rewind` does: read the files of the data directory.
    async fn lets_itself_be_read(&self) -> Answer<bool>;
    /// Bytes of its data, the log left out: what a base backup of it takes.
    ///
    /// # Errors
    /// It has tablespaces, which no base backup here takes along; or it does not answer.
    async fn size(&self) -> Answer<u64>;
    /// Whether a base backup here takes all of it along.
    ///
    /// # Errors
    /// It has tablespaces, or it does not answer.
    async fn can_be_copied(&self) -> Answer<()>;
    /// A node's slot there. Nothing is changed.
    async fn return_slot(&self, node: NodeId) -> Answer<ReturnSlot>;
    /// Keeps the log that a node will need in that node's slot, and writes a CHECKPOINT unless there was one since it was
    /// promoted: without it a rewind does not see the promotion (MEASURED M5). Whether the slot was made.
    async fn prepare_return(&self, node: NodeId) -> Answer<bool>;
    /// What a standby of it must not have less of.
    async fn limits(&self) -> Answer<StandbyLimits>;
    /// Settings that would hinder it as main and that cannot be cleared while it runs, in words.
    async fn hindrances(&self) -> Answer<Vec<String>>;
    /// Logs in, so that the next question need not wait for that. It takes a second at most.
    async fn log_in_ahead(&self) -> Answer<()>;
    /// What files of this number hold there, database by database. It takes a second at most, and tells what it could find
    /// out until then.
    async fn held_in(&self, files: &[FileNode]) -> HeldOnMain;
    /// Whether it streams to a node's standby.
    async fn streams_to(&self, node: NodeId) -> Answer<bool>;
}
