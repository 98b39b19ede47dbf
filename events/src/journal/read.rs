//! Reading a journal: beside a running supervisor, or a file alone.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OpenFlags, Row};
use serde::Serialize;

use super::{
    Identity, JournalError, RECORD_COLUMNS,
    schema::{APPLICATION_ID, SCHEMA_VERSION},
};
use crate::{
    Broken, ChainHash, ChainWalk, ClusterId, EventId, Head, Hlc, NodeId, NodeSeq, Place, Record, RunId,
};

/// Which events to read, in story order `(hlc, node, seq)`.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only this node's.
    pub node: Option<NodeId>,
    /// Only this run's.
    pub run: Option<RunId>,
    /// Only these kinds; all if empty.
    pub kinds: Vec<String>,
    /// Only from this moment on.
    pub since: Option<DateTime<Utc>>,
    /// Only up to this moment.
    pub until: Option<DateTime<Utc>>,
    /// Only after this place in the story.
    pub after: Option<Place>,
}

/// What a walk over all chains of a journal found.
#[derive(Debug, Clone, Serialize)]
pub struct Verification {
    /// Events that were found sound.
    pub events: u64,
    /// The newest sound event of each node.
    pub heads: Vec<Head>,
    /// The first bad one, if any.
    pub broken: Option<Broken>,
    /// The newest moment that this journal's own node recorded; a peer's clock may be years ahead.
    #[serde(skip)]
    pub newest_hlc: Hlc,
}

/// A read-only connection to a journal.
pub struct JournalReader {
    path: PathBuf,
    connection: Connection,
    identity: Identity,
}

impl JournalReader {
    /// Opens a journal, live or alone, without writing to it.
    ///
    /// # Errors
    /// The file is missing, is no journal, or is of a newer version.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        if !path.exists() {
            return Err(JournalError::Missing(path.to_owned()));
        }
        let connection = open_read_only(path)?;
        let identity = read_identity(&connection, path)?;
        Ok(Self { path: path.to_owned(), connection, identity })
    }

    /// Whose journal it is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Hands every selected event to `visit`, in story order.
    ///
    /// # Errors
    /// The file cannot be read, or holds a row that is no event.
    pub fn for_each(&self, selection: &Selection, mut visit: impl FnMut(Record)) -> Result<(), JournalError> {
        self.try_for_each(selection, |record| {
            visit(record);
            ControlFlow::<Infallible>::Continue(())
        })
        .map(|_| ())
    }

    /// The same, until `visit` breaks off: whoever needs only the first events must not wait for all of them.
    ///
    /// # Errors
    /// As [`Self::for_each`].
    pub fn try_for_each<B>(
        &self,
        selection: &Selection,
        mut visit: impl FnMut(Record) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, JournalError> {
        let mut conditions = vec!["1".to_owned()];
        let mut values: Vec<rusqlite::types::Value> = Vec::new();
        let mut add = |sql: String, value: Vec<rusqlite::types::Value>| {
            conditions.push(sql);
            values.extend(value);
        };
        if let Some(node) = selection.node {
            add("node_id = ?".to_owned(), vec![i64::from(node.0).into()]);
        }
        if let Some(run) = selection.run {
            add("run_id = ?".to_owned(), vec![run.to_string().into()]);
        }
        if !selection.kinds.is_empty() {
            let places = vec!["?"; selection.kinds.len()].join(", ");
            add(format!("kind IN ({places})"), selection.kinds.iter().cloned().map(Into::into).collect());
        }
        if let Some(since) = selection.since {
            add("hlc >= ?".to_owned(), vec![Hlc::from_wall_ms(since.timestamp_millis()).0.into()]);
        }
        if let Some(until) = selection.until {
            add("hlc < ?".to_owned(), vec![Hlc::from_wall_ms(until.timestamp_millis() + 1).0.into()]);
        }
        if let Some((hlc, node, seq)) = selection.after {
            let place = vec![hlc.0.into(), i64::from(node.0).into(), seq.0.cast_signed().into()];
            add("(hlc, node_id, node_seq) > (?, ?, ?)".to_owned(), place);
        }
        let sql = format!(
            "SELECT {RECORD_COLUMNS} FROM cluster_events WHERE {} ORDER BY hlc, node_id, node_seq",
            conditions.join(" AND ")
        );
        let mut flow = ControlFlow::Continue(());
        self.visit(&sql, rusqlite::params_from_iter(values), |record| {
            flow = visit(record);
            flow.is_continue()
        })?;
        Ok(flow)
    }

    /// Every selected event, in story order.
    ///
    /// # Errors
    /// As [`Self::for_each`].
    pub fn read(&self, selection: &Selection) -> Result<Vec<Record>, JournalError> {
        let mut records = Vec::new();
        self.for_each(selection, |record| records.push(record))?;
        Ok(records)
    }

    /// One node's events after a place, at most `limit`, in that node's order.
    ///
    /// # Errors
    /// As [`Self::for_each`].
    pub fn page(&self, node: NodeId, after: NodeSeq, limit: u32) -> Result<Vec<Record>, JournalError> {
        let mut records = Vec::new();
        let sql = format!(
            "SELECT {RECORD_COLUMNS} FROM cluster_events WHERE node_id = ?1 AND node_seq > ?2 \
             ORDER BY node_seq LIMIT ?3"
        );
        self.visit(&sql, (node.0, after.0.cast_signed(), limit), |record| {
            records.push(record);
            true
        })?;
        Ok(records)
    }

    /// Walks every chain in the file.
    ///
    /// # Errors
    /// The file cannot be read at all. A bad event is no error of the walk: it is what the walk is for.
    pub fn verify(&self) -> Result<Verification, JournalError> {
        let mut walks: BTreeMap<NodeId, ChainWalk> = BTreeMap::new();
        let mut events = 0;
        let mut broken: Option<Broken> = None;
        let mut newest_hlc = Hlc::default();
        let mut last: Option<(NodeId, NodeSeq)> = None;
        let failed = |error: rusqlite::Error| JournalError::failed(&self.path, error);
        let sql = format!("SELECT {RECORD_COLUMNS} FROM cluster_events ORDER BY node_id, node_seq");
        let mut statement = self.connection.prepare_cached(&sql).map_err(failed)?;
        let mut rows = statement.query(()).map_err(failed)?;
        while broken.is_none() {
            let row = match rows.next() {
                Ok(Some(row)) => row,
                Ok(None) => break,
                Err(error) if is_damage(&error) => {
                    broken =
                        Some(unreadable_after(last.unwrap_or((self.identity.node_id, NodeSeq(0))), &error));
                    break;
                }
                Err(error) => return Err(failed(error)),
            };
            let record = match record(row) {
                Ok(record) => record,
                Err(error) => {
                    broken = Some(unreadable_row(row, &error));
                    break;
                }
            };
            last = Some((record.node_id, record.node_seq));
            let walk = walks.entry(record.node_id).or_insert_with(|| ChainWalk::from_genesis(record.node_id));
            match walk.step(&record) {
                Ok(()) => {
                    events += 1;
                    if record.node_id == self.identity.node_id {
                        newest_hlc = newest_hlc.max(record.hlc);
                    }
                }
                Err(found) => broken = Some(found),
            }
        }
        if broken.is_none() {
            self.assert_every_event_is_found()?;
        }
        let heads = walks.values().map(ChainWalk::head).collect();
        Ok(Verification { events, heads, broken, newest_hlc })
    }

    /// The chains cover the events, and not the indexes that lead to them: one that skips an event, or has it at
    /// another place, would tell another story.
    fn assert_every_event_is_found(&self) -> Result<(), JournalError> {
        let found = self.connection.query_row("PRAGMA integrity_check(1)", (), |row| row.get::<_, String>(0));
        match found.map_err(|error| JournalError::failed(&self.path, error))?.as_str() {
            "ok" => Ok(()),
            problem => Err(JournalError::failed(
                &self.path,
                format!(
                    "it is damaged: {problem}; keep the file as evidence, and restore it from a copy or from a peer"
                ),
            )),
        }
    }

    fn visit(
        &self,
        sql: &str,
        parameters: impl rusqlite::Params,
        mut visit: impl FnMut(Record) -> bool,
    ) -> Result<(), JournalError> {
        let failed = |error: rusqlite::Error| JournalError::failed(&self.path, error);
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let mut rows = statement.query(parameters).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            if !visit(record(row).map_err(failed)?) {
                break;
            }
        }
        Ok(())
    }
}

/// A journal in WAL mode wants its `-shm` file even for reading; where the folder is read-only there is no
/// supervisor either, and the file can be read as one that nobody changes.
fn open_read_only(path: &Path) -> Result<Connection, JournalError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let probe = |connection: &Connection| {
        connection.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get::<_, i64>(0))
    };
    let live = Connection::open_with_flags(path, flags).and_then(|connection| {
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        probe(&connection).map(|_| connection)
    });
    let error = match live {
        Ok(connection) => return Ok(connection),
        Err(error) => error,
    };
    let cannot_open = matches!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::CannotOpen | rusqlite::ErrorCode::ReadOnly)
    );
    if !cannot_open {
        return Err(JournalError::failed(path, error));
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push("-wal");
    if std::fs::metadata(&beside).is_ok_and(|wal| wal.len() > 0) {
        let words = "its newest events are in the -wal file beside it, which cannot be read in a read-only folder: copy both \
                     to a folder that can be written";
        return Err(JournalError::failed(path, words));
    }
    let escaped = path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let connection = Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags)
        .map_err(|error| JournalError::failed(path, error))?;
    probe(&connection).map_err(|error| JournalError::failed(path, error))?;
    Ok(connection)
}

/// Whether the file is there and nothing was ever stored in it: a creation that a crash cut short.
pub(super) fn is_blank(path: &Path) -> Result<bool, JournalError> {
    let failed = |error: rusqlite::Error| JournalError::failed(path, error);
    let connection = open_read_only(path)?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0)).map_err(failed)?;
    Ok(tables == 0)
}

fn read_identity(connection: &Connection, path: &Path) -> Result<Identity, JournalError> {
    let failed = |error: rusqlite::Error| JournalError::failed(path, error);
    let application: i64 =
        connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(failed)?;
    if application != APPLICATION_ID {
        return Err(JournalError::NotAJournal(path.to_owned()));
    }
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    if found > SCHEMA_VERSION {
        return Err(JournalError::Newer { path: path.to_owned(), found, known: SCHEMA_VERSION });
    }
    connection
        .query_row("SELECT cluster_id, node_id FROM journal_identity", (), |row| {
            Ok(Identity { cluster_id: ClusterId(parsed(row, 0)?), node_id: NodeId(row.get(1)?) })
        })
        .map_err(failed)
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let number = |index: usize| row.get::<_, i64>(index).map(i64::cast_unsigned);
    Ok(Record {
        event_id: EventId(parsed(row, 0)?),
        cluster_id: ClusterId(parsed(row, 1)?),
        node_id: NodeId(row.get(2)?),
        node_seq: NodeSeq(number(3)?),
        epoch: crate::Epoch(number(4)?),
        hlc: Hlc(row.get(5)?),
        recorded_at: parsed(row, 6)?,
        kind: row.get(7)?,
        schema_version: row.get(8)?,
        run_id: optional(row, 9)?.map(RunId),
        correlation_id: EventId(parsed(row, 10)?),
        causation_id: optional(row, 11)?.map(EventId),
        actor: row.get(12)?,
        payload: row.get(13)?,
        prev_hash: hash(row, 14)?,
        hash: hash(row, 15)?,
        learned_in: crate::Epoch(number(16)?),
    })
}

/// Whether the file itself is damaged; any other error says nothing about what it holds.
fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
    )
}

/// A row that is no event; where even its place is lost, that reads as 0/0.
fn unreadable_row(row: &Row<'_>, error: &rusqlite::Error) -> Broken {
    let node_id = NodeId(row.get(2).unwrap_or_default());
    let node_seq = NodeSeq(row.get(3).map(i64::cast_unsigned).unwrap_or_default());
    Broken { node_id, node_seq, problem: format!("it cannot be read: {error}") }
}

fn unreadable_after((node_id, node_seq): (NodeId, NodeSeq), error: &rusqlite::Error) -> Broken {
    let problem = format!("it cannot be read, and nothing after it: {error}");
    Broken { node_id, node_seq: node_seq.next(), problem }
}

fn unreadable(index: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, Box::new(error))
}

fn parsed<T>(row: &Row<'_>, index: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.get(index)?;
    text.parse().map_err(|error| unreadable(index, error))
}

fn optional(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<uuid::Uuid>> {
    let text: Option<String> = row.get(index)?;
    text.map(|text| text.parse().map_err(|error| unreadable(index, error))).transpose()
}

fn hash(row: &Row<'_>, index: usize) -> rusqlite::Result<ChainHash> {
    let bytes: Vec<u8> = row.get(index)?;
    ChainHash::from_slice(&bytes)
        .ok_or_else(|| unreadable(index, std::io::Error::other("a hash has 32 bytes")))
}
