//! The journal: a node's own durable, append-only list of events, an SQLite file outside PGDATA.
//!
//! ```text
//! append(drafts) ─bounded queue─> writer thread: stamp, chain, INSERT ... COMMIT (one fsync per batch)
//!                                        └─> Appended(records) to the caller
//! ```
//!
//! An append that was answered is on disk: WAL mode with `synchronous=FULL`, set and read back at every
//! opening. A write or fsync that failed is never retried: the journal is then dead and says so, for the
//! kernel may have thrown the pages away, and the node must stop (ADR 2).

mod checkpoint;
mod disk;
mod lock;
mod read;
mod row;
mod schema;
mod seal;
#[cfg(feature = "export")]
#[cfg(test)]
mod seal_tests;
#[cfg(feature = "export")]
pub mod segment_file;
mod snapshot;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use chrono::{DateTime, Utc};

use self::{
    lock::Lock,
    writer::{Content, Fact},
};
pub use self::{
    read::{JournalReader, Selection, Verification, Verify},
    seal::{Segment, SegmentFile},
};
use crate::{Base, Broken, ChainWalk, ClusterId, Draft, Epoch, EventId, Head, Hlc, HlcClock, NodeId, Record};

/// What the journal asks of the outside: the wall clock and fresh ids. Only `actors::env` implements it for real.
pub trait Stamp: Send + Sync {
    /// The wall clock.
    fn now(&self) -> DateTime<Utc>;
    /// A fresh UUID version 7.
    fn event_id(&self) -> EventId;
}

/// Whose journal it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The node.
    pub node_id: NodeId,
}

/// Why a journal cannot be opened, read or written. Nothing was changed by a call that returns one, unless it says so.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// The file is not there.
    #[error("there is no journal at {0}")]
    Missing(PathBuf),
    /// Another process has it.
    #[error(
        "the journal {0} is in use by another supervisor; stop that one first, or give this node its own journal"
    )]
    InUse(PathBuf),
    /// It belongs to another node or cluster.
    #[error(
        "the journal {path} belongs to node {found_node} of cluster {found_cluster}, but this is node {node} of cluster {cluster}; \
             correct `node.id`, `cluster.id` or `node.journal` in the configuration"
    )]
    OtherIdentity {
        /// The file.
        path: PathBuf,
        /// Node in the file.
        found_node: NodeId,
        /// Cluster in the file.
        found_cluster: ClusterId,
        /// Node asked for.
        node: NodeId,
        /// Cluster asked for.
        cluster: ClusterId,
    },
    /// Another version of this program wrote it.
    #[error(
        "the journal {path} has schema version {found}, and this program reads version {known}: use the program that wrote it, or \
         move the journal away; the next start takes this node's events back from a peer's copy"
    )]
    OtherVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The version of this program.
        known: i64,
    },
    /// The file is no journal.
    #[error("{0} is an SQLite file, but not a journal of this program")]
    NotAJournal(PathBuf),
    /// The chain is broken.
    #[error(
        "the journal {path} is damaged: {broken}; keep the file as evidence, and restore it from a copy or from a peer"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first bad event.
        broken: Broken,
    },
    /// A durability setting did not take.
    #[error("the journal {path} cannot be made durable: `{setting}` reads `{found}` instead of `{wanted}`")]
    NotDurable {
        /// The file.
        path: PathBuf,
        /// The pragma.
        setting: &'static str,
        /// What it reads.
        found: String,
        /// What it must read.
        wanted: &'static str,
    },
    /// SQLite or the file system failed.
    #[error("the journal {path} failed: {detail}")]
    Failed {
        /// The file.
        path: PathBuf,
        /// The message of SQLite or of the system.
        detail: String,
    },
    /// Copies of a peer's events do not continue those here; none of them was stored.
    #[error("copies of a journal are refused: {0}")]
    CopiesRefused(Broken),
    /// A segment cannot be sealed next; no event was dropped.
    #[error("events of a journal were not sealed: {0}")]
    SealRefused(String),
    /// The disk, or its file system, took no more. Whether the events of this call are on it is not known.
    #[error(
        "the journal {path} cannot be written: {problem} ({detail}). A decision that cannot be stored must not be made: this \
         node's supervisor ends, and its servers keep running without it. Next: {next}, and start the supervisor again; every \
         event that was acknowledged is in the journal"
    )]
    DiskRefused {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
        /// SQLite's message.
        detail: String,
        /// What to do.
        next: &'static str,
    },
    /// More appends wait than the queue holds.
    #[error("the journal's queue is full: {0} appends are waiting for the disk")]
    Overloaded(usize),
}

impl JournalError {
    pub(crate) fn failed(path: &Path, error: impl std::fmt::Display) -> Self {
        Self::Failed { path: path.to_owned(), detail: error.to_string() }
    }
}

/// Answer to an append: the events as stored, in order, once they are on disk.
pub type AppendResult = Result<Vec<Record>, JournalError>;

/// The journal, open for writing. Dropping it ends the writer thread after what is queued.
pub struct Journal {
    path: PathBuf,
    identity: Identity,
    queue: writer::Queue,
    clock: Arc<Mutex<HlcClock>>,
    stamp: Arc<dyn Stamp>,
    /// Held for as long as the journal is open: a second supervisor is refused by it.
    _lock: Lock,
}

impl Journal {
    /// Opens the journal of `identity`, creating it if it is missing; an existing journal is verified first.
    ///
    /// # Errors
    /// Another process has it, it is another node's, it is damaged, or it cannot be made durable.
    pub fn open(path: &Path, identity: Identity, stamp: Arc<dyn Stamp>) -> Result<Self, JournalError> {
        Self::open_with(path, identity, stamp, |writer| {
            writer::spawn(writer).map_err(|error| JournalError::failed(path, error))
        })
    }

    /// The same without a thread: each append is stored before the call returns. For a simulated world, where nothing may
    /// happen in parallel to its one thread.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_in_line(
        path: &Path,
        identity: Identity,
        stamp: Arc<dyn Stamp>,
    ) -> Result<Self, JournalError> {
        Self::open_with(path, identity, stamp, |writer| Ok(writer::Queue::InLine(Mutex::new(writer))))
    }

    fn open_with(
        path: &Path,
        identity: Identity,
        stamp: Arc<dyn Stamp>,
        begin: impl FnOnce(writer::Writer) -> Result<writer::Queue, JournalError>,
    ) -> Result<Self, JournalError> {
        let lock = Lock::take(path)?;
        let newest = if !path.exists() || read::is_blank(path)? {
            Newest::default()
        } else {
            inspect(path, identity)?
        };
        create_for_its_owner(path)?;
        let connection = schema::open_for_writing(path, identity)?;
        let clock = Arc::new(Mutex::new(HlcClock::continuing(newest.hlc)));
        let queue = begin(writer::Writer {
            path: path.to_owned(),
            connection,
            identity,
            heads: newest.heads,
            clock: clock.clone(),
            stamp: stamp.clone(),
        })?;
        Ok(Self { path: path.to_owned(), identity, queue, clock, stamp, _lock: lock })
    }

    /// Queues facts to be stored together, in this order, in one transaction. The answer comes when they are on disk.
    ///
    /// # Errors
    /// The queue is full, the journal is dead, or a fact cannot be written as JSON; all before anything is stored.
    pub fn append(
        &self,
        drafts: &[Draft],
    ) -> Result<tokio::sync::oneshot::Receiver<AppendResult>, JournalError> {
        let facts = drafts.iter().map(Fact::of).collect::<Result<_, _>>();
        let facts = facts.map_err(|error| JournalError::failed(&self.path, error))?;
        self.queue.store(Content::Own(facts), &self.path)
    }

    /// Queues events of one node as that node recorded them, in its order, with the epoch in which they are
    /// learned. What is here already is passed over; the answer is what was new, once it is on disk, or
    /// [`JournalError::CopiesRefused`] if they do not continue what is here.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn store_copies(
        &self,
        records: Vec<Record>,
        learned_in: Epoch,
    ) -> Result<tokio::sync::oneshot::Receiver<AppendResult>, JournalError> {
        self.queue.store(Content::Copies { base: None, records, learned_in }, &self.path)
    }

    /// The same for a journal whose begin was sealed before it could be copied: where nothing of that node is
    /// here yet, its events begin after `base`.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn store_copies_after(
        &self,
        base: Base,
        records: Vec<Record>,
        learned_in: Epoch,
    ) -> Result<tokio::sync::oneshot::Receiver<AppendResult>, JournalError> {
        self.queue.store(Content::Copies { base: Some(Box::new(base)), records, learned_in }, &self.path)
    }

    /// Queues a segment to be sealed: its events are dropped, and a `journal_sealed` of this node says so, in one
    /// transaction. The answer is that event, or [`JournalError::SealRefused`].
    ///
    /// The segment's file must be whole and on disk: see [`segment_file::write`].
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn seal(
        &self,
        segment: Segment,
        epoch: Epoch,
    ) -> Result<tokio::sync::oneshot::Receiver<AppendResult>, JournalError> {
        self.queue.store(Content::Sealed(Box::new(segment), epoch), &self.path)
    }

    /// Takes note of a peer's clock, so that what is recorded next comes after what the peer recorded.
    ///
    /// # Errors
    /// The peer's clock is too far ahead to be followed.
    pub fn observe_clock(&self, remote: Hlc) -> Result<(), crate::TooFarAhead> {
        let wall_ms = self.stamp.now().timestamp_millis();
        self.clock.lock().unwrap_or_else(PoisonError::into_inner).observe(remote, wall_ms)
    }

    /// A moment on this node's clock, to send to a peer.
    #[must_use]
    pub fn tick_clock(&self) -> Hlc {
        let wall_ms = self.stamp.now().timestamp_millis();
        self.clock.lock().unwrap_or_else(PoisonError::into_inner).tick(wall_ms)
    }

    /// A reader with its own connection.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn reader(&self) -> Result<JournalReader, JournalError> {
        JournalReader::open(&self.path)
    }

    /// Reads with a reader of its own on another thread, or here where the journal has none; nothing if the work was cut off.
    pub async fn read_aside<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Option<T> {
        if !self.queue.has_threads() {
            return Some(read(self));
        }
        let journal = self.clone();
        tokio::task::spawn_blocking(move || read(&journal)).await.ok()
    }

    /// The newest event of this node that is on disk.
    #[must_use]
    pub fn head(&self) -> Head {
        let heads = self.queue.heads();
        heads.get(&self.identity.node_id).map_or(Head::empty(self.identity.node_id), ChainWalk::head)
    }

    /// The newest event on disk of every node whose events are here.
    #[must_use]
    pub fn heads(&self) -> Vec<Head> {
        self.queue.heads().values().map(ChainWalk::head).collect()
    }
}

/// Events name hosts, users and errors: the file is its owner's alone. SQLite gives its own files the same mode.
fn create_for_its_owner(path: &Path) -> Result<(), JournalError> {
    use std::os::unix::fs::OpenOptionsExt;
    let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    opened.map(drop).map_err(|error| JournalError::failed(path, error))
}

#[derive(Default)]
struct Newest {
    heads: writer::Heads,
    hlc: Hlc,
}

/// Looks at an existing journal without writing: whose it is, and whether every chain in it is sound.
fn inspect(path: &Path, identity: Identity) -> Result<Newest, JournalError> {
    let reader = JournalReader::open(path)?;
    let found = reader.identity();
    if found != identity {
        return Err(JournalError::OtherIdentity {
            path: path.to_owned(),
            found_node: found.node_id,
            found_cluster: found.cluster_id,
            node: identity.node_id,
            cluster: identity.cluster_id,
        });
    }
    let verification = reader.verify()?;
    if let Some(broken) = verification.broken {
        return Err(JournalError::Damaged { path: path.to_owned(), broken });
    }
    let heads: writer::Heads = verification.chains.walks().map(|walk| (walk.head().node_id, *walk)).collect();
    // a peer's clock may be years ahead: what this node records next comes after its own newest event
    let hlc = heads.get(&identity.node_id).and_then(ChainWalk::moment).unwrap_or_default();
    Ok(Newest { heads, hlc })
}
