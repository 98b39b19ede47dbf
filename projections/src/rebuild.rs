//! Folding a whole journal.
//!
//! One thread reads, checks and folds: no event is copied, and payloads that nobody folds are not parsed. That
//! is FIGURE events a second, FIGURE with every hash checked (`bin/bench store`), and leaves nothing to coordinate.

use interrex_events::{
    NodeId,
    journal::{JournalError, JournalReader, Verify},
};

use crate::Projection;

/// The fold of a journal in story order: of one node's events, or of all.
///
/// # Errors
/// The journal cannot be read, or is damaged, where that is checked.
pub fn rebuild<P: Projection + Default>(
    reader: &JournalReader,
    node: Option<NodeId>,
    verify: Verify,
) -> Result<P, JournalError> {
    let mut projection = P::default();
    reader.visit_all(node, verify, |record| projection.take(record))?;
    Ok(projection)
}
