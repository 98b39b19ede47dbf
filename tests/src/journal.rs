//! What the program `journal-writer` and the tests that kill it agree upon.

use interrex_events::{ClusterId, NodeId, journal::Identity};
use uuid::Uuid;

/// How many facts a batch of the writer has: a run with fewer of them was torn.
pub const FACTS_OF_A_RUN: usize = 5;

/// Whose journals those are.
#[must_use]
pub fn journal_of_a_test() -> Identity {
    Identity { cluster_id: ClusterId(Uuid::from_u128(7)), node_id: NodeId(2) }
}
