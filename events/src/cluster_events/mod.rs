//! `cluster_events` in PostgreSQL: the merged stream of all nodes' journals, on main.
//!
//! ```text
//! begin(epoch): lock stream_head, refuse an older epoch
//!    ├─ append(events of one node): skip stored events, refuse a fork, assign pos without gaps
//!    ├─ ... projections, in the same transaction
//!    └─ commit
//! ```
//!
//! The relay asks the destination what it has and sends what follows it, for a failover may have lost rows
//! that were sent before. A position is `(epoch, pos)`: an asynchronous failover hands out the same `pos` again.

mod append;
mod migrations;
mod read;

pub use self::{
    append::{Appended, Relay, heads, stream_head},
    migrations::{is_current, is_there, migrate},
    read::{
        Cursor, Found, StreamVerification, at, find, for_each_in_story_order, journal_page, page, story_page,
        verify,
    },
};
use crate::{ChainHash, Epoch, NodeId, NodeSeq, Position};

/// Whether a table is Interrex's own, in SQL: `n` is its `pg_namespace`, `c` its `pg_class`. The journals hold its rows.
///
/// By name, for the schema alone tells nothing: a superuser called `interrex` puts tables of its own into the schema of that
/// name. Tables of projections end in the number of their version.
pub const IS_OWN_TABLE: &str = "(n.nspname = 'interrex' AND c.relname ~ '^(schema_version|write_probe|stream_head|journal_heads|\
    projection_checkpoints|settings_requests|cluster_(events|main|state|nodes|runs|timeline)(_[0-9]+)?)$')";

/// The newest position, and which event is there: what a checkpoint is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamHead {
    /// The position; `0:0` is an empty stream.
    pub position: Position,
    /// Hash of the event there.
    pub hash: ChainHash,
}

/// Why the stream could not be read or continued.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// PostgreSQL failed.
    #[error("{}", in_words(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// The same place holds another event than the journal: two machines with one node's number, or an old image.
    #[error(
        "cluster_events and the journal of node {node_id} disagree about event {node_seq}: the journal was forked"
    )]
    JournalForked {
        /// Whose journal.
        node_id: NodeId,
        /// Which event.
        node_seq: NodeSeq,
        /// Its hash in the journal.
        here: ChainHash,
        /// Its hash in `cluster_events`.
        there: ChainHash,
    },
    /// Events are missing between the stored ones and those to append.
    #[error("event {node_seq} of node {node_id} does not follow what cluster_events holds")]
    Gap {
        /// Whose journal.
        node_id: NodeId,
        /// Which event.
        node_seq: NodeSeq,
    },
    /// The stream was continued by a later main.
    #[error("cluster_events belongs to epoch {found} already: nothing of epoch {epoch} is appended to it")]
    OlderEpoch {
        /// The stream's epoch.
        found: Epoch,
        /// The node that wanted to append.
        epoch: Epoch,
    },
    /// A new epoch begins with the event that opened it, and that one was not among those to append.
    #[error("epoch {0} must begin with its epoch_opened, which the journal does not hold")]
    EpochNotOpened(Epoch),
    /// The tables are a newer program's.
    #[error(
        "the schema interrex has version {found}, and this program knows versions up to {known}; use the newer program"
    )]
    NewerSchema {
        /// Version there.
        found: i32,
        /// Newest version known here.
        known: i32,
    },
    /// Who is no superuser could have anything run as one who uses it.
    #[error(
        "{what} belongs to role {owner}, which is not a superuser: Interrex uses nothing in it. Look at what it holds; then drop \
         it, or name another database in postgres.database"
    )]
    StrangeSchema {
        /// The schema, or what in it.
        what: String,
        /// Its owner.
        owner: String,
    },
    /// The table holds something that is no hash.
    #[error("cluster_events holds no valid hash for node {0}")]
    BadHash(NodeId),
}

/// The server's message: the crate's error names only the kind.
#[must_use]
pub fn in_words(error: &tokio_postgres::Error) -> String {
    if let Some(server) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", server.message(), server.code().code());
    }
    // the cause at the bottom: "Connection refused" says more than "error connecting to server"
    let mut innermost: &dyn std::error::Error = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

fn node_column(node: NodeId) -> i32 {
    // ids are small numbers, checked where the configuration is read
    i32::try_from(node.0).unwrap_or(i32::MAX)
}

fn hash_from(node: NodeId, bytes: &[u8]) -> Result<ChainHash, StoreError> {
    ChainHash::from_slice(bytes).ok_or(StoreError::BadHash(node))
}
