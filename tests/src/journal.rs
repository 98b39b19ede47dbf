//! What the program `journal-writer` and the tests that kill it agree upon.

use interrex_events::{ClusterId, NodeId, journal::Identity};
use uuid::Uuid;

/// How many facts a batch of the writer has: a run with fewer of them was torn.
pub const FACTS_OF_A_RUN: usize = 5;

/// Environment variable with the `host:port` of the PostgreSQL to which the writer relays its journal.
pub const RELAY_TO: &str = "JOURNAL_TEST_RELAY_TO";
/// Environment variable with the password of its superuser.
pub const RELAY_PASSWORD: &str = "JOURNAL_TEST_RELAY_PASSWORD";

/// Whose journals those are.
#[must_use]
pub fn journal_of_a_test() -> Identity {
    Identity { cluster_id: ClusterId(Uuid::from_u128(7)), node_id: NodeId(2) }
}
