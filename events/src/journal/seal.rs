//! The sealed begin of a journal: events that were exported to files and dropped, and where the rest begins.
//!
//! ```text
//! node 1   [ segment 1 to 10012 ][ segment 10013 to 20031 ]│ 20032  20033 ...     in cluster_events
//!            a file each, named in sealed_segments         └ the base, which the rest is chained to
//! ```
//!
//! A base may also come from a peer, where a copy of its journal begins: then there is no file for it here.

use std::ops::ControlFlow;

use rusqlite::{
    Connection, Row, params,
    types::{FromSqlError, Type},
};

use super::{JournalError, JournalReader, Selection, Verify, snapshot::Snapshot};
use crate::{Base, Bases, ChainHash, ChainWalks, Head, Hlc, JournalSealed, NodeId, NodeSeq, Seen};

/// The segments, and the rule that nothing else is ever dropped.
pub(super) const TABLES: &str = "
CREATE TABLE sealed_segments (
    node_id   INTEGER NOT NULL,
    first_seq INTEGER NOT NULL CHECK (first_seq > 0),
    last_seq  INTEGER NOT NULL CHECK (last_seq >= first_seq),
    last_hash BLOB    NOT NULL CHECK (length(last_hash) = 32),
    last_hlc  INTEGER NOT NULL,
    file      TEXT,
    file_hash BLOB             CHECK (length(file_hash) = 32),
    carried   TEXT    NOT NULL,
    PRIMARY KEY (node_id, last_seq),
    CHECK ((file IS NULL) = (file_hash IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TRIGGER sealed_segments_no_update BEFORE UPDATE ON sealed_segments
BEGIN SELECT RAISE(ABORT, 'sealed_segments is append-only'); END;
CREATE TRIGGER sealed_segments_no_delete BEFORE DELETE ON sealed_segments
BEGIN SELECT RAISE(ABORT, 'sealed_segments is append-only'); END;
CREATE TRIGGER cluster_events_no_delete BEFORE DELETE ON cluster_events
WHEN NOT EXISTS (SELECT 1 FROM sealed_segments WHERE node_id = OLD.node_id AND OLD.node_seq BETWEEN first_seq AND last_seq)
BEGIN SELECT RAISE(ABORT, 'cluster_events is append-only'); END;
";

/// A run of sealed events of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its first event.
    pub first: NodeSeq,
    /// Its last one, and what was said up to there.
    pub end: Base,
    /// The file of its events; `None` if a copy began after them.
    pub file: Option<SegmentFile>,
}

/// The file of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentFile {
    /// Its name in the folder of segments.
    pub name: String,
    /// SHA-256 of it.
    pub hash: ChainHash,
}

impl Segment {
    /// Whose events.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.end.head.node_id
    }

    /// Its last event.
    #[must_use]
    pub fn last(&self) -> NodeSeq {
        self.end.head.node_seq
    }

    /// The event that states it.
    pub(super) fn sealed_into(&self, file: &SegmentFile) -> JournalSealed {
        JournalSealed {
            node: self.node(),
            first: self.first,
            last: self.last(),
            last_hash: self.end.head.hash,
            file: file.name.clone(),
            file_hash: file.hash,
            carried: self.end.carried.clone(),
        }
    }

    /// Why it may not be sealed, if so: only what follows the last segment, and only what is here, and never the
    /// newest event.
    pub(super) fn reason_against(
        &self,
        connection: &Connection,
        newest: NodeSeq,
    ) -> rusqlite::Result<Option<String>> {
        let node = self.node().0;
        let sealed = "SELECT coalesce(max(last_seq), 0) FROM sealed_segments WHERE node_id = ?";
        let before: i64 = connection.query_row(sealed, [node], |row| row.get(0))?;
        if before + 1 != self.first.0.cast_signed() {
            return Ok(Some(format!("events up to {before} are sealed already")));
        }
        if self.last() >= newest {
            return Ok(Some("the newest event is never sealed".to_owned()));
        }
        let same = "SELECT count(*) FROM cluster_events WHERE node_id = ? AND node_seq = ? AND hash = ?";
        let last = params![node, self.last().0.cast_signed(), self.end.head.hash.as_bytes()];
        let found: i64 = connection.query_row(same, last, |row| row.get(0))?;
        Ok((found == 0).then(|| format!("event {} is not here, or is another one", self.last())))
    }

    /// Records the segment and drops its events, if they are here: in one transaction, both or neither.
    pub(super) fn store(&self, connection: &Connection) -> rusqlite::Result<()> {
        let carried = serde_json::to_string(&self.end.carried)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        let (node, first, last) = (self.node().0, self.first.0.cast_signed(), self.last().0.cast_signed());
        connection.execute(
            "INSERT INTO sealed_segments (node_id, first_seq, last_seq, last_hash, last_hlc, file, file_hash, carried) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            params![
                node,
                first,
                last,
                self.end.head.hash.as_bytes(),
                self.end.moment.0,
                self.file.as_ref().map(|file| &file.name),
                self.file.as_ref().map(|file| file.hash.as_bytes()),
                carried,
            ],
        )?;
        connection.execute(
            "DELETE FROM cluster_events WHERE node_id = ? AND node_seq BETWEEN ? AND ?",
            (node, first, last),
        )?;
        Ok(())
    }
}

/// Every segment, node by node, oldest first.
pub(super) fn segments(connection: &Connection) -> rusqlite::Result<Vec<Segment>> {
    let mut statement = connection.prepare(
        "SELECT node_id, first_seq, last_seq, last_hash, last_hlc, file, file_hash, carried \
         FROM sealed_segments ORDER BY node_id, last_seq",
    )?;
    statement.query_map((), segment)?.collect()
}

/// The last segment's end of each node.
pub(super) fn bases(segments: Vec<Segment>) -> Bases {
    segments.into_iter().map(|segment| (segment.node(), segment.end)).collect()
}

fn segment(row: &Row<'_>) -> rusqlite::Result<Segment> {
    let seq = |column| row.get(column).map(i64::cast_unsigned).map(NodeSeq);
    let head = Head {
        node_id: NodeId(row.get(0)?),
        node_seq: seq(2)?,
        hash: hash(row, 3)?.ok_or(FromSqlError::InvalidType)?,
    };
    let carried = serde_json::from_str(row.get_ref(7)?.as_str()?)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(7, Type::Text, error.into()))?;
    let name: Option<String> = row.get(5)?;
    let file = name.zip(hash(row, 6)?).map(|(name, hash)| SegmentFile { name, hash });
    Ok(Segment { first: seq(1)?, end: Base { head, moment: Hlc(row.get(4)?), carried }, file })
}

fn hash(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<ChainHash>> {
    let bytes: Option<[u8; 32]> = row.get(column)?;
    Ok(bytes.and_then(|bytes| ChainHash::from_slice(&bytes)))
}

impl JournalReader {
    /// Every segment that was sealed here, node by node, oldest first.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn segments(&self) -> Result<Vec<Segment>, JournalError> {
        let snapshot = Snapshot::of(&self.connection).map_err(|error| self.failed(&error))?;
        snapshot.segments().map_err(|error| self.failed(&error))
    }

    /// Where each journal here begins, if its begin was sealed.
    ///
    /// # Errors
    /// As [`Self::segments`].
    pub fn bases(&self) -> Result<Bases, JournalError> {
        self.segments().map(bases)
    }

    /// Tells the whole story, of one node or of all of them, at one moment: first what was sealed of all
    /// nodes, and then every event after that, in story order.
    ///
    /// # Errors
    /// As [`Self::see_all`].
    pub fn tell<S>(
        &self,
        node: Option<NodeId>,
        verify: Verify,
        begin: impl FnOnce(Bases) -> S,
        reads: impl Fn(&str) -> bool,
        mut visit: impl FnMut(&mut S, Seen<'_>),
    ) -> Result<S, JournalError> {
        let snapshot = Snapshot::of(&self.connection).map_err(|error| self.failed(&error))?;
        let bases = bases(snapshot.segments().map_err(|error| self.failed(&error))?);
        let mut chains = ChainWalks::continuing(bases.values().map(Base::walk));
        let mut told = begin(bases);
        let selection = Selection { node, ..Selection::default() };
        let checks = verify == Verify::Chains;
        let walked = snapshot.story(
            &selection,
            |kind| checks || reads(kind),
            |seen| {
                let Seen::Read(record) = seen else {
                    visit(&mut told, seen);
                    return ControlFlow::Continue(());
                };
                if checks && let Err(broken) = chains.step(record) {
                    return ControlFlow::Break(broken);
                }
                visit(&mut told, if reads(record.kind) { seen } else { Seen::PassedOver(record.place()) });
                ControlFlow::Continue(())
            },
        );
        match walked.map_err(|error| self.unreadable(error))? {
            ControlFlow::Break(broken) => Err(self.damaged(broken)),
            ControlFlow::Continue(()) => Ok(told),
        }
    }
}
