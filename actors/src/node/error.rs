//! Why a whole supervisor does not start, or must end.

use std::time::Duration;

use interrex_events::{JournalForked, journal::JournalError};

use crate::ports::PortError;

/// How long the journal may take to store a fact.
pub(crate) const STORE_LIMIT: Duration = Duration::from_secs(10);

/// Why a node did not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The configuration does not fit this machine.
    #[error("{0}")]
    Machine(String),
    /// This node's own journal is not what a peer or its own PostgreSQL holds of it.
    #[error(transparent)]
    Server(#[from] PortError),
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// It cannot go on.
    #[error(transparent)]
    Fatal(#[from] Fatal),
    /// The journal did not answer in time, or not at all.
    #[error("the journal did not store an event within {STORE_LIMIT:?}, or failed: its disk does not answer")]
    NotStored,
    /// It was asked to end, and not all of its servers ended in good order.
    #[error("{0}")]
    NotInGoodOrder(String),
}

/// Why the whole process must end.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Fatal {
    /// The journal cannot be written or read any more.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// This node's journal has two continuations: whatever it says is doubtful.
    #[error(
        "{}; keep the journal as evidence and move it away: the next start takes this node's events back from a peer's copy",
        .0.in_words()
    )]
    Forked(JournalForked),
    /// An actor fails again and again.
    #[error(
        "actor `{actor}` failed {restarts} times within {window_seconds} s, last: {reason}; the supervisor ends so that \
             its service manager starts it afresh"
    )]
    ActorKeepsFailing {
        /// Which one.
        actor: &'static str,
        /// How often.
        restarts: u32,
        /// Within how many seconds.
        window_seconds: u64,
        /// How it failed last.
        reason: String,
    },
}
