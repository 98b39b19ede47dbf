//! A row of `cluster_events`, to and from a record.

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use rusqlite::{
    Row, Statement, params,
    types::{Type, ValueRef},
};
use uuid::Uuid;

use crate::{Broken, ChainHash, ClusterId, Epoch, EventId, Hlc, NodeId, NodeSeq, Place, RecordRef, RunId};

/// Every column, in the order of the tables: what most readers look at comes first.
pub(super) const COLUMNS: &str = "node_id, node_seq, hlc, recorded_at, epoch, kind, run_id, event_id, correlation_id, \
                                  causation_id, schema_version, cluster_id, prev_hash, hash, learned_in, actor, payload";

/// The record in a row of [`COLUMNS`].
pub(super) fn read<'a>(row: &'a Row<'_>) -> rusqlite::Result<RecordRef<'a>> {
    let counter = |column: usize| row.get(column).map(i64::cast_unsigned);
    Ok(RecordRef {
        node_id: NodeId(row.get(0)?),
        node_seq: NodeSeq(counter(1)?),
        hlc: moment(row)?,
        recorded_at: time(row, 3)?,
        epoch: Epoch(counter(4)?),
        kind: kind(row)?,
        run_id: optional_id(row, 6)?.map(RunId),
        event_id: EventId(id(row, 7)?),
        correlation_id: EventId(id(row, 8)?),
        causation_id: optional_id(row, 9)?.map(EventId),
        schema_version: row.get(10)?,
        cluster_id: ClusterId(id(row, 11)?),
        prev_hash: hash(row, 12)?,
        hash: hash(row, 13)?,
        learned_in: Epoch(counter(14)?),
        actor: text(row, 15)?,
        payload: text(row, 16)?,
    })
}

/// The event's place in the story, without a look at the rest of it.
pub(super) fn place(row: &Row<'_>) -> rusqlite::Result<Place> {
    Ok((moment(row)?, NodeId(row.get(0)?), NodeSeq(row.get(1).map(i64::cast_unsigned)?)))
}

/// The event's kind.
pub(super) fn kind<'a>(row: &'a Row<'_>) -> rusqlite::Result<&'a str> {
    text(row, 5)
}

/// The moment in such a row: all that a merge needs to know.
pub(super) fn moment(row: &Row<'_>) -> rusqlite::Result<Hlc> {
    row.get(2).map(Hlc)
}

/// What is wrong with a row that [`read`] cannot read; where even its place is lost, that reads as 0/0.
pub(super) fn unreadable(row: &Row<'_>, error: &rusqlite::Error) -> Broken {
    let node_id = NodeId(row.get(0).unwrap_or_default());
    let node_seq = NodeSeq(row.get(1).map(i64::cast_unsigned).unwrap_or_default());
    Broken { node_id, node_seq, problem: format!("it cannot be read: {error}") }
}

/// The statement that [`insert`] wants.
pub(super) static INSERTION: LazyLock<String> = LazyLock::new(|| {
    let values = vec!["?"; COLUMNS.split(", ").count()].join(", ");
    format!("INSERT INTO cluster_events ({COLUMNS}) VALUES ({values})")
});

/// Stores a record as a row.
pub(super) fn insert(statement: &mut Statement<'_>, record: &RecordRef<'_>) -> rusqlite::Result<()> {
    statement.execute(params![
        record.node_id.0,
        record.node_seq.0.cast_signed(),
        record.hlc.0,
        record.recorded_at.timestamp_millis(),
        record.epoch.0.cast_signed(),
        record.kind,
        record.run_id.as_ref().map(|id| id.0.as_bytes()),
        record.event_id.0.as_bytes(),
        record.correlation_id.0.as_bytes(),
        record.causation_id.as_ref().map(|id| id.0.as_bytes()),
        record.schema_version,
        record.cluster_id.0.as_bytes(),
        record.prev_hash.as_bytes(),
        record.hash.as_bytes(),
        record.learned_in.0.cast_signed(),
        record.actor,
        record.payload,
    ])?;
    Ok(())
}

fn wrong(column: usize, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.into())
}

fn text<'a>(row: &'a Row<'_>, column: usize) -> rusqlite::Result<&'a str> {
    row.get_ref(column)?.as_str().map_err(|error| wrong(column, error))
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<DateTime<Utc>> {
    let ms = row.get(column)?;
    DateTime::from_timestamp_millis(ms).ok_or_else(|| wrong(column, format!("{ms} ms is not a time")))
}

fn id(row: &Row<'_>, column: usize) -> rusqlite::Result<Uuid> {
    optional_id(row, column)?.ok_or_else(|| wrong(column, "an id is missing"))
}

fn optional_id(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Uuid>> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(None),
        value => {
            let bytes = value.as_blob().map_err(|error| wrong(column, error))?;
            Uuid::from_slice(bytes).map(Some).map_err(|error| wrong(column, error))
        }
    }
}

fn hash(row: &Row<'_>, column: usize) -> rusqlite::Result<ChainHash> {
    let bytes = row.get_ref(column)?.as_blob().map_err(|error| wrong(column, error))?;
    ChainHash::from_slice(bytes).ok_or_else(|| wrong(column, "a hash has 32 bytes"))
}
