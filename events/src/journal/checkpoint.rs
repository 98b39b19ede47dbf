//! When events move from SQLite's write-ahead log, the `-wal` file, into the journal's own.
//!
//! Left alone, SQLite does it after a commit and at every closing, keeps an error of it for itself, and tries
//! again at the next commit. A failed fsync is never to be tried again (ADR 2): so it is done here, aloud.

use rusqlite::{Connection, config::DbConfig};

/// Pages of the log that wait to be moved before it is done: four megabytes.
const PAGES: i64 = 1000;

/// Takes the checkpoints out of SQLite's hands, and empties the log that the last writer left.
///
/// What is read from that log may be in the system's buffers alone, if an fsync of the last writer failed: what
/// would be appended behind it were lost with it. So it is written once more, into the file, and synced there.
/// A reader that holds the log open delays that to a later checkpoint.
pub(super) fn begin(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    run(connection, "TRUNCATE")
}

/// Only an orderly end tidies up: after an error, nothing of the file is touched again.
pub(super) fn end(connection: &Connection) {
    // where this fails the log stays, and the next writer empties it
    let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
}

/// After a commit: empties the log when it has grown long.
pub(super) fn after_commit(connection: &Connection) -> rusqlite::Result<()> {
    let mut look = connection.prepare_cached("PRAGMA wal_checkpoint(NOOP)")?;
    let waiting =
        look.query_row((), |row| Ok(row.get::<_, i64>("log")? - row.get::<_, i64>("checkpointed")?))?;
    if waiting < PAGES {
        return Ok(());
    }
    run(connection, "PASSIVE")
}

fn run(connection: &Connection, mode: &str) -> rusqlite::Result<()> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), (), |_| Ok(()))
}
