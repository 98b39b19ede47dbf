//! From version 1 of the tables to version 2, in one transaction: a crash leaves the one or the other.

use std::path::Path;

use rusqlite::Transaction;

use super::{
    JournalError, disk,
    row::{self, Version},
    schema::{EVENTS, SCHEMA_VERSION},
    seal,
    snapshot::Unreadable,
};
use crate::{ChainWalk, ChainWalks, Head, RecordRef};

const SET_ASIDE: &str = "
DROP TRIGGER cluster_events_no_update;
DROP TRIGGER cluster_events_no_delete;
DROP INDEX cluster_events_story;
DROP INDEX cluster_events_run;
ALTER TABLE cluster_events RENAME TO cluster_events_version_1;
";

/// Moves every event into the new tables, checked before it is moved and again where it then is. Nothing
/// happened until the transaction is committed.
pub(super) fn run(transaction: &Transaction<'_>, path: &Path) -> Result<(), JournalError> {
    let (before, after) = copy(transaction).map_err(|error| match error {
        Unreadable::Row(broken) => JournalError::Damaged { path: path.to_owned(), broken },
        Unreadable::File(error) => disk::error(path, &error),
    })?;
    if before != after {
        return Err(JournalError::failed(path, "its events did not arrive in the new tables as they were"));
    }
    transaction
        .execute_batch("DROP TABLE cluster_events_version_1")
        .and_then(|()| transaction.pragma_update(None, "user_version", SCHEMA_VERSION))
        .map_err(|error| disk::error(path, &error))
}

/// Fills the new tables. The heads of all chains in the old ones and in the new ones.
fn copy(transaction: &Transaction<'_>) -> Result<(Vec<Head>, Vec<Head>), Unreadable> {
    transaction.execute_batch(SET_ASIDE)?;
    transaction.execute_batch(EVENTS)?;
    transaction.execute_batch(seal::TABLES)?;
    let mut insertion = transaction.prepare(&row::INSERTION)?;
    let before = walk(transaction, Version::One, "cluster_events_version_1", |record| {
        row::insert(&mut insertion, record)
    })?;
    let after = walk(transaction, Version::Two, "cluster_events", |_| Ok(()))?;
    Ok((before, after))
}

/// Walks every chain in a table. Where each ends: a chain without a gap that ends so has the same events.
fn walk(
    transaction: &Transaction<'_>,
    version: Version,
    table: &str,
    mut each: impl FnMut(&RecordRef<'_>) -> rusqlite::Result<()>,
) -> Result<Vec<Head>, Unreadable> {
    let columns = version.columns();
    let mut events =
        transaction.prepare(&format!("SELECT {columns} FROM {table} ORDER BY node_id, node_seq"))?;
    let mut rows = events.query(())?;
    let mut chains = ChainWalks::default();
    while let Some(row) = rows.next()? {
        let record = row::read(row).map_err(|error| Unreadable::row(row, &error))?;
        chains.step(&record).map_err(Unreadable::Row)?;
        each(&record)?;
    }
    Ok(chains.walks().map(ChainWalk::head).collect())
}
