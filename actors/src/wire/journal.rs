//! Events that one supervisor sends to another.

use interrex_events::{Base, Record};
use serde::{Deserialize, Serialize};

/// Events of one node, in its order, as a peer's journal holds them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct JournalPage {
    /// Where the peer's journal begins, if the events that were asked for are sealed there.
    pub base: Option<Base>,
    /// The events.
    pub records: Vec<Record>,
}
