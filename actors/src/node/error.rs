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
    /// This node's own journal differs from the copy that a peer or its own PostgreSQL holds.
    #[error(transparent)]
    Server(#[from] PortError),
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The supervisor cannot go on.
    #[error(transparent)]
    Fatal(#[from] Fatal),
    /// The journal did not answer in time, or not at all.
    #[error("the journal did not store an event within {STORE_LIMIT:?}, or failed: its disk does not answer")]
    NotStored,
    /// The supervisor was asked to end, and not all of its servers ended in good order.
    #[error("{0}")]
    NotInGoodOrder(String),
}

/// Why the whole process must end.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Fatal {
    /// The journal cannot be written or read any longer.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// This node's journal has two continuations, so it cannot be trusted.
    #[error(
        "{}; keep the journal as evidence and move it away: the next start takes this node's events back from a peer's copy",
        .0.in_words()
    )]
    Forked(JournalForked),
    /// An actor fails again and again.
    #[error(
        "actor `{actor}` failed {restarts} times within {window_seconds} s, last: {reason}; the supervisor ends so that its \
         service manager starts it again"
    )]
    ActorKeepsFailing {
        /// Its name.
        actor: &'static str,
        /// The number of restarts.
        restarts: u32,
        /// The time within which they happened, in seconds.
        window_seconds: u64,
        /// The last failure.
        reason: String,
    },
}
