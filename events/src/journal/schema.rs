//! The journal's tables, version 2.
//!
//! `cluster_events` has the name and the columns of the table in PostgreSQL. For the `sqlite3` command there is
//! the view `story`, with times and ids as people write them:
//!
//! ```text
//! $ sqlite3 journal.db "SELECT time, node_id, kind, payload FROM story WHERE kind LIKE 'failover%'"
//! ```
//!
//! Ids are bytes and times are milliseconds, which reads twice as fast as texts. There is no index of the story:
//! within a node it is the order of the primary key, and a reader merges the nodes (`snapshot.rs`).

use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::{Identity, JournalError, checkpoint, disk, seal};

/// Marks the file as ours: the bytes "IRRX".
pub(super) const APPLICATION_ID: i64 = 0x4952_5258;
/// Version of the tables, in `PRAGMA user_version`.
pub(super) const SCHEMA_VERSION: i64 = 2;

const IDENTITY: &str = "
CREATE TABLE journal_identity (
    only_row   INTEGER PRIMARY KEY CHECK (only_row = 1),
    cluster_id TEXT NOT NULL,
    node_id    INTEGER NOT NULL
) STRICT;
";

/// The events, and what belongs to them; what keeps them from being dropped is in `seal.rs`.
pub(super) const EVENTS: &str = "
CREATE TABLE cluster_events (
    node_id        INTEGER NOT NULL,
    node_seq       INTEGER NOT NULL CHECK (node_seq > 0),
    hlc            INTEGER NOT NULL,
    recorded_at    INTEGER NOT NULL,
    epoch          INTEGER NOT NULL,
    kind           TEXT    NOT NULL,
    run_id         BLOB             CHECK (length(run_id) = 16),
    event_id       BLOB    NOT NULL CHECK (length(event_id) = 16),
    correlation_id BLOB    NOT NULL CHECK (length(correlation_id) = 16),
    causation_id   BLOB             CHECK (length(causation_id) = 16),
    schema_version INTEGER NOT NULL,
    cluster_id     BLOB    NOT NULL CHECK (length(cluster_id) = 16),
    prev_hash      BLOB    NOT NULL CHECK (length(prev_hash) = 32),
    hash           BLOB    NOT NULL CHECK (length(hash) = 32),
    learned_in     INTEGER NOT NULL,
    actor          TEXT    NOT NULL,
    payload        TEXT    NOT NULL,
    PRIMARY KEY (node_id, node_seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX cluster_events_run ON cluster_events (run_id, hlc) WHERE run_id IS NOT NULL;

CREATE VIEW story AS SELECT
    strftime('%Y-%m-%dT%H:%M:%fZ', recorded_at / 1000.0, 'unixepoch') AS time,
    node_id, node_seq, epoch, kind, payload, actor,
    lower(hex(run_id)) AS run_id,
    lower(hex(event_id)) AS event_id,
    lower(hex(causation_id)) AS causation_id,
    lower(hex(correlation_id)) AS correlation_id,
    lower(hex(hash)) AS hash,
    learned_in
FROM cluster_events ORDER BY hlc, node_id, node_seq;

CREATE TRIGGER cluster_events_no_update BEFORE UPDATE ON cluster_events
BEGIN SELECT RAISE(ABORT, 'cluster_events is append-only'); END;
";

/// Opens or creates the file, with the durability that an answered append promises.
pub(super) fn open_for_writing(path: &Path, identity: Identity) -> Result<Connection, JournalError> {
    let failed = |error: rusqlite::Error| disk::error(path, &error);
    let mut connection = Connection::open(path).map_err(failed)?;
    connection.busy_timeout(std::time::Duration::from_secs(5)).map_err(failed)?;
    for (setting, value, wanted) in [
        ("journal_mode", "WAL", "wal"),
        ("synchronous", "FULL", "2"),
        ("wal_autocheckpoint", "0", "0"),
        ("journal_size_limit", "16777216", "16777216"),
    ] {
        set_and_assert(&connection, path, setting, value, wanted)?;
    }
    checkpoint::begin(&connection).map_err(failed)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    match version(&transaction).map_err(failed)? {
        SCHEMA_VERSION => {}
        0 => create(&transaction, identity).map_err(failed)?,
        found => {
            return Err(JournalError::OtherVersion { path: path.to_owned(), found, known: SCHEMA_VERSION });
        }
    }
    transaction.commit().map_err(failed)?;
    Ok(connection)
}

fn set_and_assert(
    connection: &Connection,
    path: &Path,
    setting: &'static str,
    value: &str,
    wanted: &'static str,
) -> Result<(), JournalError> {
    let failed = |error: rusqlite::Error| disk::error(path, &error);
    // to its last row: what ends after the first one keeps the error of its commit for itself
    connection.pragma(None, setting, value, |_| Ok(())).map_err(failed)?;
    let found = connection
        .pragma_query_value(None, setting, |row| {
            row.get::<_, rusqlite::types::Value>(0).map(|value| match value {
                rusqlite::types::Value::Integer(number) => number.to_string(),
                rusqlite::types::Value::Text(text) => text,
                other => format!("{other:?}"),
            })
        })
        .map_err(failed)?;
    if found == wanted {
        Ok(())
    } else {
        Err(JournalError::NotDurable { path: path.to_owned(), setting, found, wanted })
    }
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn create(transaction: &Transaction<'_>, identity: Identity) -> rusqlite::Result<()> {
    transaction.execute_batch(IDENTITY)?;
    transaction.execute_batch(EVENTS)?;
    transaction.execute_batch(seal::TABLES)?;
    transaction.execute(
        "INSERT INTO journal_identity (only_row, cluster_id, node_id) VALUES (1, ?1, ?2)",
        (identity.cluster_id.to_string(), identity.node_id.0),
    )?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)
}
