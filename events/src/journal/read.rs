//! Reading a journal, with or without a running supervisor. Each call sees the journal at one moment.

use std::{
    convert::Infallible,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OpenFlags};
use serde::Serialize;

use super::{
    Identity, JournalError,
    schema::{APPLICATION_ID, SCHEMA_VERSION},
    snapshot::{Snapshot, Unreadable},
};
use crate::{
    Broken, ChainWalk, ChainWalks, Head, Hlc, NodeId, NodeSeq, Place, Record, RecordRef, RunId, Seen,
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

impl Selection {
    /// The first moment of it.
    pub(super) fn begin(&self) -> Option<Hlc> {
        self.since.map(|since| Hlc::from_wall_ms(since.timestamp_millis()))
    }

    /// The first moment after it.
    pub(super) fn end(&self) -> Option<Hlc> {
        self.until.map(|until| Hlc::from_wall_ms(until.timestamp_millis() + 1))
    }
}

/// Whether the chains are checked while events are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// Every event's hash, link and moment: half as fast, and nothing that was changed gets past it.
    Chains,
    /// Nothing: for a journal that was checked when it was opened.
    Nothing,
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
    /// The walks, to be gone on with.
    #[serde(skip)]
    pub(super) chains: ChainWalks,
}

/// A read-only connection to a journal.
pub struct JournalReader {
    path: PathBuf,
    pub(super) connection: Connection,
    identity: Identity,
}

impl JournalReader {
    /// Opens a journal, live or alone, without writing to it.
    ///
    /// # Errors
    /// The file is missing, is no journal, or is of another version.
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

    /// Lends every selected event to `visit`, in story order, until `visit` breaks off. Nothing is copied: this is
    /// how a journal of millions is read. It must not ask this reader for more meanwhile.
    ///
    /// # Errors
    /// The file cannot be read, or holds a row that is no event.
    pub fn visit<B>(
        &self,
        selection: &Selection,
        mut visit: impl FnMut(&RecordRef<'_>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, JournalError> {
        self.see(
            selection,
            |_| true,
            |seen| match seen {
                Seen::Read(record) => visit(record),
                Seen::PassedOver(_) => ControlFlow::Continue(()),
            },
        )
    }

    /// Lends every event to `visit`, in story order: of one node, or of all of them. Of kinds that `reads` refuses,
    /// it is told the place alone, which is several times as fast.
    ///
    /// # Errors
    /// As [`Self::visit`]; and [`JournalError::Damaged`] before the first event that is not what was recorded.
    pub fn see_all(
        &self,
        node: Option<NodeId>,
        verify: Verify,
        reads: impl Fn(&str) -> bool,
        mut visit: impl FnMut(Seen<'_>),
    ) -> Result<(), JournalError> {
        self.tell(node, verify, |_| (), reads, |(), seen| visit(seen))
    }

    fn see<B>(
        &self,
        selection: &Selection,
        reads: impl Fn(&str) -> bool,
        visit: impl FnMut(Seen<'_>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, JournalError> {
        let snapshot = Snapshot::of(&self.connection).map_err(|error| self.failed(&error))?;
        snapshot.story(selection, reads, visit).map_err(|error| self.unreadable(error))
    }

    /// Hands every selected event to `visit`, in story order.
    ///
    /// # Errors
    /// As [`Self::visit`].
    pub fn for_each(&self, selection: &Selection, mut visit: impl FnMut(Record)) -> Result<(), JournalError> {
        self.try_for_each(selection, |record| {
            visit(record);
            ControlFlow::<Infallible>::Continue(())
        })
        .map(|_| ())
    }

    /// The same, until `visit` breaks off: a caller that needs only the first events does not wait for all of them.
    ///
    /// # Errors
    /// As [`Self::visit`].
    pub fn try_for_each<B>(
        &self,
        selection: &Selection,
        mut visit: impl FnMut(Record) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, JournalError> {
        self.visit(selection, |record| visit(record.to_record()))
    }

    /// Every selected event, in story order.
    ///
    /// # Errors
    /// As [`Self::visit`].
    pub fn read(&self, selection: &Selection) -> Result<Vec<Record>, JournalError> {
        let mut records = Vec::new();
        self.for_each(selection, |record| records.push(record))?;
        Ok(records)
    }

    /// One node's events after a place, at most `limit`, in that node's order.
    ///
    /// # Errors
    /// As [`Self::visit`].
    pub fn page(&self, node: NodeId, after: NodeSeq, limit: u32) -> Result<Vec<Record>, JournalError> {
        let mut records = Vec::new();
        let snapshot = Snapshot::of(&self.connection).map_err(|error| self.failed(&error))?;
        let walked = snapshot.after(node, after, |record| {
            if records.len() == limit as usize {
                return ControlFlow::Break(());
            }
            records.push(record.to_record());
            ControlFlow::Continue(())
        });
        walked.map(|_| records).map_err(|error| self.unreadable(error))
    }

    /// One node's newest events, at most `limit`, in that node's order: enough to see whether the end is sound.
    ///
    /// # Errors
    /// As [`Self::visit`].
    pub fn newest(&self, node: NodeId, limit: u32) -> Result<Vec<Record>, JournalError> {
        let newest = "SELECT coalesce(max(node_seq), 0) FROM cluster_events WHERE node_id = ?";
        let newest: i64 = self
            .connection
            .query_row(newest, [node.0], |row| row.get(0))
            .map_err(|error| self.failed(&error))?;
        self.page(node, NodeSeq(newest.cast_unsigned().saturating_sub(limit.into())), limit)
    }

    /// Walks every chain in the file, node by node, from where it begins here.
    ///
    /// # Errors
    /// The file cannot be read at all. A bad event is no error of the walk: it is what the walk is for.
    pub fn verify(&self) -> Result<Verification, JournalError> {
        let snapshot = Snapshot::of(&self.connection).map_err(|error| self.failed(&error))?;
        let mut chains = snapshot.begins().map_err(|error| self.failed(&error))?;
        let mut events = 0;
        let mut last = (self.identity.node_id, NodeSeq(0));
        let walked = snapshot.chains(|record| {
            last = (record.node_id, record.node_seq);
            match chains.step(record) {
                Ok(()) => {
                    events += 1;
                    ControlFlow::Continue(())
                }
                Err(broken) => ControlFlow::Break(broken),
            }
        });
        let broken = match walked {
            Ok(ControlFlow::Continue(())) => None,
            Ok(ControlFlow::Break(broken)) | Err(Unreadable::Row(broken)) => Some(broken),
            Err(Unreadable::File(error)) if is_damage(&error) => Some(unreadable_after(last, &error)),
            Err(Unreadable::File(error)) => return Err(self.failed(&error)),
        };
        if broken.is_none() {
            self.assert_every_event_is_found()?;
        }
        let heads = chains.walks().map(ChainWalk::head).collect();
        Ok(Verification { events, heads, broken, chains })
    }

    /// The chains cover the events, and not the index that leads to a run's: one that skips an event, or has it at
    /// another place, would tell another story.
    fn assert_every_event_is_found(&self) -> Result<(), JournalError> {
        let found = self.connection.query_row("PRAGMA integrity_check(1)", (), |row| row.get::<_, String>(0));
        match found.map_err(|error| self.failed(&error))?.as_str() {
            "ok" => Ok(()),
            problem => Err(JournalError::failed(
                &self.path,
                format!(
                    "it is damaged: {problem}; keep the file as evidence, and restore it from a copy or from a peer"
                ),
            )),
        }
    }

    pub(super) fn failed(&self, error: &rusqlite::Error) -> JournalError {
        JournalError::failed(&self.path, error)
    }

    pub(super) fn damaged(&self, broken: Broken) -> JournalError {
        JournalError::Damaged { path: self.path.clone(), broken }
    }

    pub(super) fn unreadable(&self, unreadable: Unreadable) -> JournalError {
        match unreadable {
            Unreadable::Row(broken) => self.damaged(broken),
            Unreadable::File(error) => self.failed(&error),
        }
    }
}

/// A journal in WAL mode wants its `-shm` file even for reading; where the folder is read-only there is no
/// supervisor either, and the file can be read as a file that does not change.
fn open_read_only(path: &Path) -> Result<Connection, JournalError> {
    // the connection never leaves its reader, which is used by one thread at a time
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
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
        let message = "its newest events are in the -wal file next to it, which cannot be read in a read-only folder: copy both \
                     to a folder that can be written";
        return Err(JournalError::failed(path, message));
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
    if found != SCHEMA_VERSION {
        return Err(JournalError::OtherVersion { path: path.to_owned(), found, known: SCHEMA_VERSION });
    }
    let (cluster, node): (String, u32) = connection
        .query_row("SELECT cluster_id, node_id FROM journal_identity", (), |row| row.try_into())
        .map_err(failed)?;
    let cluster = cluster.parse().map_err(|error| JournalError::failed(path, error))?;
    Ok(Identity { cluster_id: cluster, node_id: NodeId(node) })
}

/// Whether the file itself is damaged; any other error says nothing about what it holds.
fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
    )
}

fn unreadable_after((node_id, node_seq): (NodeId, NodeSeq), error: &rusqlite::Error) -> Broken {
    let problem = format!("it cannot be read, and neither can anything after it: {error}");
    Broken { node_id, node_seq: node_seq.next(), problem }
}
