//! The file of a segment: an export of one node's consecutive events, whole and on disk before they are dropped.
//!
//! ```text
//! node-2-10013-20031.jsonl.zst      `interrex import` and every command that reads take it as any other export
//! ```

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    ops::RangeInclusive,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use chrono::DateTime;

use super::{JournalError, JournalReader, Segment, SegmentFile};
use crate::{
    Broken, ChainHash, Head, NodeId, NodeSeq, Record,
    export::{ExportError, ExportReader, ExportWriter, Packing, Part, Survey},
};

/// Events that are held in memory at a time.
const PAGE: u32 = 500;

/// Why a segment's file was not written, or is none.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// An event in the journal is not what was recorded.
    #[error("the journal is damaged: {0}")]
    Broken(#[from] Broken),
    /// The system refused.
    #[error("{}: {error}", path.display())]
    System {
        /// The file or folder.
        path: PathBuf,
        /// The system's message.
        error: io::Error,
    },
    /// The file cannot be read as the export that it was written as.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The file holds something else.
    #[error("{}: {message}", path.display())]
    Differs {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

/// The name of a segment's file.
#[must_use]
pub fn name(node: NodeId, events: &RangeInclusive<NodeSeq>) -> String {
    format!("node-{node}-{}-{}.jsonl.zst", events.start(), events.end())
}

/// Held while a file is written: an actor that was started again must not write into what its forerunner still does.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Exports events of a node to a file in a folder, which is made if it is missing, and reads it back. When this
/// returns, the file is whole and on disk under its name; a crash before that leaves nothing under it.
///
/// The same events always make the same file: the header's time is that of the newest of them.
///
/// # Errors
/// The journal cannot be read, an event in it is not what was recorded, or the file cannot be written.
pub fn write(
    reader: &JournalReader,
    node: NodeId,
    events: &RangeInclusive<NodeSeq>,
    folder: &Path,
) -> Result<SegmentFile, SegmentError> {
    let _held = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let name = name(node, events);
    let (partial, path) = (folder.join(format!("{name}.partial")), folder.join(&name));
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(refused(folder))?;
    let mut survey = Survey::of(Part::default());
    let mut newest = DateTime::UNIX_EPOCH;
    each(reader, node, events, |record| {
        newest = record.recorded_at;
        Ok(survey.take(record)?)
    })?;
    let identity = reader.identity();
    let header = survey.header(identity.cluster_id, identity.node_id, newest);
    // events name hosts, users and errors: the file is its owner's alone, as the journal is
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(refused(&partial)(error)),
        _ => {}
    }
    // created, never opened through an existing link
    let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&partial);
    let file = file.map_err(refused(&partial))?;
    let mut writer = ExportWriter::begin(file, Packing::Zstd, &header).map_err(refused(&partial))?;
    each(reader, node, events, |record| writer.write(record).map_err(refused(&partial)))?;
    let file = writer.finish().map_err(refused(&partial))?;
    file.sync_all().map_err(refused(&partial))?;
    drop(file);
    let [end] = header.heads[..] else { return Err(differs(&partial, "it has no events")) };
    assert_holds(&partial, end)?;
    let hash = hash_of(&partial)?;
    fs::rename(&partial, &path).map_err(refused(&path))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(refused(folder))?;
    Ok(SegmentFile { name, hash })
}

/// What is found where a segment's file should be.
#[derive(Debug)]
pub enum Found {
    /// The file, and every event in it is what was recorded.
    Sound,
    /// Nothing: files may be moved elsewhere.
    Missing,
    /// Something else.
    Wrong(SegmentError),
}

/// Looks for a segment's file in a folder, and checks it: its hash, its chain, and that it begins after `before`, the
/// end of the segment before it, if that is known.
#[must_use]
pub fn check(folder: &Path, file: &SegmentFile, segment: &Segment, before: Option<Head>) -> Found {
    let path = folder.join(&file.name);
    if !path.exists() {
        return Found::Missing;
    }
    let checked = || {
        if hash_of(&path)? != file.hash {
            return Err(differs(&path, "its SHA-256 is not the one that was recorded when it was sealed"));
        }
        let begins = assert_holds(&path, segment.end.head)?;
        if before.is_some_and(|before| begins != [before]) {
            return Err(differs(&path, "it is not chained to the segment before it"));
        }
        Ok(())
    };
    checked().map_or_else(Found::Wrong, |()| Found::Sound)
}

/// Reads a file to its end, every chain checked on the way. What its first events are chained to.
fn assert_holds(path: &Path, end: Head) -> Result<Vec<Head>, SegmentError> {
    let mut reader = ExportReader::open(path)?;
    let begins = reader.header().begins.clone();
    reader.try_for_each(|record| record.map(drop))?;
    if reader.heads() == [end] {
        return Ok(begins);
    }
    let message = format!("it does not end with event {} of node {}", end.node_seq, end.node_id);
    Err(differs(path, &message))
}

fn hash_of(path: &Path) -> Result<ChainHash, SegmentError> {
    File::open(path).and_then(ChainHash::of_all).map_err(refused(path))
}

/// Hands over the events, page by page: what may be sealed does not change between two looks.
fn each(
    reader: &JournalReader,
    node: NodeId,
    events: &RangeInclusive<NodeSeq>,
    mut visit: impl FnMut(&Record) -> Result<(), SegmentError>,
) -> Result<(), SegmentError> {
    let mut after = NodeSeq(events.start().0.saturating_sub(1));
    while after < *events.end() {
        let page = reader.page(node, after, PAGE)?;
        let Some(last) = page.last().map(|record| record.node_seq) else { break };
        for record in page.iter().take_while(|record| record.node_seq <= *events.end()) {
            visit(record)?;
        }
        after = last;
    }
    Ok(())
}

fn refused(path: &Path) -> impl Fn(io::Error) -> SegmentError {
    let path = path.to_owned();
    move |error| SegmentError::System { path: path.clone(), error }
}

fn differs(path: &Path, message: &str) -> SegmentError {
    SegmentError::Differs { path: path.to_owned(), message: message.to_owned() }
}
