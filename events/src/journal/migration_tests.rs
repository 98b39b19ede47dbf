//! Journals of version 1, as the program that wrote them left them.

use std::{fs, path::Path, sync::Arc};

use chrono::{DateTime, Utc};
use rusqlite::{Connection, TransactionBehavior, params};
use uuid::Uuid;

use super::*;
use crate::{ChainHash, Epoch, NodeSeq, RunId, SupervisorStopped};

/// The tables as version 1 created them.
const VERSION_1: &str = "
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
    PRIMARY KEY (node_id, node_seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX cluster_events_story ON cluster_events (hlc, node_id, node_seq);
CREATE INDEX cluster_events_run ON cluster_events (run_id, hlc) WHERE run_id IS NOT NULL;

CREATE TRIGGER cluster_events_no_update BEFORE UPDATE ON cluster_events
BEGIN SELECT RAISE(ABORT, 'cluster_events is append-only'); END;
CREATE TRIGGER cluster_events_no_delete BEFORE DELETE ON cluster_events
BEGIN SELECT RAISE(ABORT, 'cluster_events is append-only'); END;

PRAGMA application_id = 1230131800;
PRAGMA user_version = 1;
";

const EVENTS: u64 = 500;

struct FixedStamp;

impl Stamp for FixedStamp {
    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_800_000_000_123).unwrap()
    }

    fn event_id(&self) -> EventId {
        EventId(Uuid::from_u128(1 << 80))
    }
}

fn identity() -> Identity {
    Identity { cluster_id: ClusterId(Uuid::from_u128(7)), node_id: NodeId(2) }
}

fn opened(path: &Path) -> Result<Journal, JournalError> {
    Journal::open(path, identity(), Arc::new(FixedStamp))
}

/// A chained stream of two nodes, every fifth event of a run.
fn records() -> Vec<Record> {
    let mut previous = [ChainHash::GENESIS; 2];
    let records = (0..EVENTS).map(|index| {
        let at = DateTime::from_timestamp_millis(1_700_000_000_007 + i64::try_from(index).unwrap()).unwrap();
        let which = usize::try_from(index % 2).unwrap();
        let event_id = EventId(Uuid::from_u128(u128::from(index) + 100));
        let mut record = Record {
            event_id,
            cluster_id: identity().cluster_id,
            node_id: NodeId(u32::try_from(index % 2).unwrap() + 1),
            node_seq: NodeSeq(index / 2 + 1),
            epoch: Epoch(3),
            hlc: Hlc::from_wall_ms(at.timestamp_millis()),
            recorded_at: at,
            kind: "supervisor_stopped".to_owned(),
            schema_version: 1,
            run_id: (index % 5 == 0).then(|| RunId(Uuid::from_u128(9))),
            correlation_id: event_id,
            causation_id: (index % 3 == 0).then_some(event_id),
            actor: r#"{"kind":"system"}"#.to_owned(),
            payload: serde_json::json!({ "reason": "é".repeat(99) }).to_string(),
            prev_hash: previous[which],
            hash: ChainHash::GENESIS,
            learned_in: Epoch(3),
        };
        record.hash = record.computed_hash();
        previous[which] = record.hash;
        record
    });
    records.collect()
}

/// Stores them as version 1 did.
fn write_version_1(path: &Path) -> Vec<Record> {
    let records = records();
    let connection = Connection::open(path).unwrap();
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection.execute_batch(VERSION_1).unwrap();
    let identity = identity();
    connection
        .execute(
            "INSERT INTO journal_identity VALUES (1, ?1, ?2)",
            (identity.cluster_id.to_string(), identity.node_id.0),
        )
        .unwrap();
    for record in &records {
        let values = params![
            record.event_id.to_string(),
            record.cluster_id.to_string(),
            record.node_id.0,
            record.node_seq.0.cast_signed(),
            record.epoch.0.cast_signed(),
            record.hlc.0,
            record.recorded_at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            &record.kind,
            record.schema_version,
            record.run_id.map(|id| id.to_string()),
            record.correlation_id.to_string(),
            record.causation_id.map(|id| id.to_string()),
            &record.actor,
            &record.payload,
            record.prev_hash.as_bytes().as_slice(),
            record.hash.as_bytes().as_slice(),
        ];
        let places = vec!["?"; 16].join(", ");
        connection.execute(&format!("INSERT INTO cluster_events VALUES ({places})"), values).unwrap();
    }
    records
}

fn version_of(path: &Path) -> i64 {
    let connection = Connection::open(path).unwrap();
    connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

#[test]
fn a_journal_of_version_1_is_read_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let written = write_version_1(&path);
    let reader = JournalReader::open(&path).unwrap();
    assert_eq!(reader.read(&Selection::default()).unwrap(), written);
    assert_eq!(reader.verify().unwrap().events, EVENTS);
    let run = Selection { run: Some(RunId(Uuid::from_u128(9))), ..Selection::default() };
    assert_eq!(reader.read(&run).unwrap().len() as u64, EVENTS / 5);
    assert_eq!(version_of(&path), 1);
}

#[test]
fn a_journal_of_version_1_is_moved_to_version_2_and_continues() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let written = write_version_1(&path);
    let beside = JournalReader::open(&path).unwrap();
    for _ in 0..2 {
        let journal = opened(&path).unwrap();
        assert_eq!(journal.reader().unwrap().read(&Selection::default()).unwrap(), written);
    }
    assert_eq!(version_of(&path), 2);
    assert_eq!(beside.read(&Selection::default()).unwrap(), written, "it was opened before, and reads on");
    let journal = opened(&path).unwrap();
    let next = Draft::new(Epoch(3), SupervisorStopped { reason: "next".to_owned() });
    let appended = journal.append(&[next]).unwrap().blocking_recv().unwrap().unwrap();
    assert_eq!(
        (appended[0].node_seq.0, appended[0].prev_hash),
        (EVENTS / 2 + 1, written.last().unwrap().hash)
    );
    assert_eq!(beside.verify().unwrap().broken, None);
    let change = Connection::open(&path).unwrap().execute("DELETE FROM cluster_events", ());
    assert!(change.unwrap_err().to_string().contains("append-only"));
}

#[test]
fn a_damaged_journal_of_version_1_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    write_version_1(&path);
    let connection = Connection::open(&path).unwrap();
    let damage =
        "DROP TRIGGER cluster_events_no_update; UPDATE cluster_events SET payload = '{}' WHERE node_seq = 7";
    connection.execute_batch(damage).unwrap();
    assert!(matches!(opened(&path), Err(JournalError::Damaged { .. })));
    assert_eq!(version_of(&path), 1);
}

/// A kill in the middle: what was written by then is in the log beside the file, and was never committed.
#[test]
fn a_crash_in_the_middle_leaves_version_1_which_is_moved_at_the_next_opening() {
    let folder = tempfile::tempdir().unwrap();
    let (path, left) = (folder.path().join("journal.db"), folder.path().join("left.db"));
    let written = write_version_1(&path);
    let mut connection = Connection::open(&path).unwrap();
    // a cache of nothing, so that pages of the unfinished transaction reach the log
    connection.execute_batch("PRAGMA cache_size = 1; PRAGMA wal_autocheckpoint = 0").unwrap();
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    migration::run(&transaction, &path).unwrap();
    let log = folder.path().join("journal.db-wal");
    assert!(fs::metadata(&log).unwrap().len() > 100_000, "nothing was left in the middle");
    fs::copy(&path, &left).unwrap();
    fs::copy(&log, folder.path().join("left.db-wal")).unwrap();
    drop(transaction);

    for path in [&path, &left] {
        assert_eq!(version_of(path), 1);
        assert_eq!(JournalReader::open(path).unwrap().read(&Selection::default()).unwrap(), written);
        let journal = opened(path).unwrap();
        assert_eq!(journal.reader().unwrap().read(&Selection::default()).unwrap(), written);
        assert_eq!(version_of(path), 2);
    }
}

#[test]
fn a_migration_that_fails_leaves_version_1() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let written = write_version_1(&path);
    let in_the_way = "CREATE VIEW story AS SELECT 1";
    Connection::open(&path).unwrap().execute_batch(in_the_way).unwrap();
    assert!(matches!(opened(&path), Err(JournalError::Failed { .. })));
    assert_eq!(version_of(&path), 1);
    assert_eq!(JournalReader::open(&path).unwrap().read(&Selection::default()).unwrap(), written);
}
