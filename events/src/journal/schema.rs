//! The journal's tables. `cluster_events` has the name and shape of the table in PostgreSQL, and opens with
//! the `sqlite3` command.

use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::{Identity, JournalError, checkpoint, disk};

/// Marks the file as ours: the bytes "IRRX".
pub(super) const APPLICATION_ID: i64 = 0x4952_5258;
/// Version of the tables, in `PRAGMA user_version`.
pub(super) const SCHEMA_VERSION: i64 = 1;

/// Columns of `cluster_events`, in the order of [`crate::Record`]'s fields.
pub(crate) const RECORD_COLUMNS: &str = "event_id, cluster_id, node_id, node_seq, epoch, hlc, recorded_at, kind, \
     schema_version, run_id, correlation_id, causation_id, actor, payload, prev_hash, hash, learned_in";

const TABLES: &str = "
CREATE TABLE journal_identity (
    only_row   INTEGER PRIMARY KEY CHECK (only_row = 1),
    cluster_id TEXT NOT NULL,
    node_id    INTEGER NOT NULL
) STRICT;

CREATE TABLE cluster_events (
    event_id       TEXT    NOT NULL,
    cluster_id     TEXT    NOT NULL,
    node_id        INTEGER NOT NULL,
    node_seq       INTEGER NOT NULL CHECK (node_seq > 0),
    epoch          INTEGER NOT NULL,
    hlc            INTEGER NOT NULL,
    recorded_at    TEXT    NOT NULL,
    kind           TEXT    NOT NULL,
    schema_version INTEGER NOT NULL,
    run_id         TEXT,
    correlation_id TEXT    NOT NULL,
    causation_id   TEXT,
    actor          TEXT    NOT NULL,
    payload        TEXT    NOT NULL,
    prev_hash      BLOB    NOT NULL CHECK (length(prev_hash) = 32),
    hash           BLOB    NOT NULL CHECK (length(hash) = 32),
    learned_in     INTEGER NOT NULL,
    PRIMARY KEY (node_id, node_seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX cluster_events_story ON cluster_events (hlc, node_id, node_seq);
CREATE INDEX cluster_events_run ON cluster_events (run_id, hlc) WHERE run_id IS NOT NULL;

CREATE TRIGGER cluster_events_no_update BEFORE UPDATE ON cluster_events
BEGIN SELECT RAISE(ABORT, 'cluster_events is append-only'); END;
CREATE TRIGGER cluster_events_no_delete BEFORE DELETE ON cluster_events
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
    create_if_new(&transaction, identity).map_err(failed)?;
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

fn create_if_new(transaction: &Transaction<'_>, identity: Identity) -> rusqlite::Result<()> {
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version == SCHEMA_VERSION {
        return Ok(());
    }
    transaction.execute_batch(TABLES)?;
    transaction.execute(
        "INSERT INTO journal_identity (only_row, cluster_id, node_id) VALUES (1, ?1, ?2)",
        (identity.cluster_id.to_string(), identity.node_id.0),
    )?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)
}
