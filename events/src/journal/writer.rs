//! The one thread that writes: it stamps, chains and commits whatever is queued, one fsync for all of it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvError, SyncSender, TryRecvError, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use chrono::{SubsecRound, Utc};
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{AppendResult, Identity, JournalError, Segment, Stamp, checkpoint, disk, row};
use crate::{Base, Broken, ChainWalk, Draft, Epoch, Head, HlcClock, Lineage, NodeId, NodeSeq, Record, RunId};

/// Appends that may wait for the disk. A node makes a few per second; a full queue is a dead disk.
const QUEUE_LIMIT: usize = 1024;
/// Appends that share one fsync. Past this, waiting longer no longer pays.
const BATCH_LIMIT: usize = 256;
/// How long a batch waits for the next of those who shared the last one; an fsync takes some times as long.
const PATIENCE: Duration = Duration::from_micros(50);
/// Looks for the next request before the thread sleeps, each followed by a yield: some tens of microseconds in all.
const LOOKS_BEFORE_SLEEP: u32 = 100;

/// What may be asked of the writer.
pub(super) enum Content {
    /// Facts of this node, to be stamped and chained.
    Own(Vec<Fact>),
    /// Events of one node as that node recorded them, where they begin if not with the first, and the epoch in
    /// which they were learned.
    Copies { base: Option<Box<Base>>, records: Vec<Record>, learned_in: Epoch },
    /// A segment to be dropped, and the epoch in which that is stated.
    Sealed(Box<Segment>, Epoch),
}

struct Request {
    content: Content,
    answer: oneshot::Sender<AppendResult>,
}

/// A draft as it will be stored, but for what only the writer knows: its place, its time and its hash.
pub(super) struct Fact {
    epoch: Epoch,
    run_id: Option<RunId>,
    caused_by: Option<Lineage>,
    kind: String,
    schema_version: u32,
    actor: String,
    payload: String,
}

impl Fact {
    pub(super) fn of(draft: &Draft) -> serde_json::Result<Self> {
        Ok(Self {
            epoch: draft.epoch,
            run_id: draft.run_id,
            caused_by: draft.caused_by,
            kind: draft.event.kind().to_owned(),
            schema_version: draft.event.schema_version(),
            actor: serde_json::to_string(&draft.actor)?,
            payload: draft.event.payload()?,
        })
    }
}

/// How far the chain of every journal held here goes.
pub(super) type Heads = BTreeMap<NodeId, ChainWalk>;

/// The way in to the writer.
pub(super) enum Queue {
    /// On its own thread: an fsync does not delay other work, and many appends share one fsync.
    Thread(Thread),
    /// On the caller's, one append after the other: a simulated world decides what comes first.
    InLine(Mutex<Writer>),
}

/// The way in to the writer thread.
pub(super) struct Thread {
    /// Nothing only while the queue is being dropped.
    requests: Option<SyncSender<Request>>,
    thread: Option<JoinHandle<()>>,
    heads: Arc<Mutex<Heads>>,
}

/// What is queued is still written, and the file closed, before the owner of the journal goes on.
impl Drop for Thread {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take() {
            // a writer that panicked has dropped its answers already, which is how its callers know
            let _ = thread.join();
        }
    }
}

impl Queue {
    pub(super) fn store(
        &self,
        content: Content,
        path: &Path,
    ) -> Result<oneshot::Receiver<AppendResult>, JournalError> {
        let (answer, receiver) = oneshot::channel();
        let requests = match self {
            Self::Thread(thread) => thread.requests.as_ref(),
            Self::InLine(writer) => {
                let stored = lock(writer).store(content);
                // the receiver is here
                let _ = answer.send(stored);
                return Ok(receiver);
            }
        };
        match requests.map(|requests| requests.try_send(Request { content, answer })) {
            Some(Ok(())) => Ok(receiver),
            Some(Err(TrySendError::Full(_))) => Err(JournalError::Overloaded(QUEUE_LIMIT)),
            Some(Err(TrySendError::Disconnected(_))) | None => {
                Err(JournalError::failed(path, "its writer ended after an earlier error"))
            }
        }
    }

    pub(super) fn heads(&self) -> Heads {
        match self {
            Self::Thread(thread) => lock(&thread.heads).clone(),
            Self::InLine(writer) => lock(writer).heads.clone(),
        }
    }

    /// Whether other threads may work in parallel to the caller.
    pub(super) fn has_threads(&self) -> bool {
        matches!(self, Self::Thread(_))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the thread owns.
pub(super) struct Writer {
    pub(super) path: PathBuf,
    pub(super) connection: Connection,
    pub(super) identity: Identity,
    pub(super) heads: Heads,
    pub(super) clock: Arc<Mutex<HlcClock>>,
    pub(super) stamp: Arc<dyn Stamp>,
}

pub(super) fn spawn(writer: Writer) -> std::io::Result<Queue> {
    let (requests, inbox) = sync_channel(QUEUE_LIMIT);
    let heads = Arc::new(Mutex::new(writer.heads.clone()));
    let published = heads.clone();
    let thread = std::thread::Builder::new()
        .name("journal".to_owned())
        .spawn(move || writer.run(&inbox, &published))?;
    Ok(Queue::Thread(Thread { requests: Some(requests), thread: Some(thread), heads }))
}

impl Writer {
    /// Stores one request by itself.
    fn store(&mut self, content: Content) -> AppendResult {
        let (results, heads) = self.commit(std::iter::once(content))?;
        self.heads = heads;
        checkpoint::after_commit(&self.connection).map_err(|error| disk::error(&self.path, &error))?;
        results.into_iter().next().unwrap_or_else(|| Ok(Vec::new()))
    }

    fn run(mut self, inbox: &Receiver<Request>, published: &Mutex<Heads>) {
        let mut expected = 1;
        while let Ok(first) = next(inbox) {
            let mut answers = Vec::with_capacity(expected);
            let batch = Batch { inbox, first: Some(first), expected, taken: 0 }.map(|request| {
                answers.push(request.answer);
                request.content
            });
            let stored = self.commit(batch);
            expected = answers.len();
            match stored {
                Ok((results, heads)) => {
                    lock(published).clone_from(&heads);
                    self.heads = heads;
                    for (answer, result) in answers.into_iter().zip(results) {
                        // the caller may have stopped waiting; the events are stored nevertheless
                        let _ = answer.send(result);
                    }
                    // what was answered is on disk without it: only the next request waits for a checkpoint
                    if let Err(error) = checkpoint::after_commit(&self.connection) {
                        return answer_all_with(&disk::error(&self.path, &error), Vec::new(), inbox);
                    }
                }
                Err(error) => {
                    // never again: after a failed write or fsync, what is on disk is not known
                    return answer_all_with(&error, answers, inbox);
                }
            }
        }
        checkpoint::end(&self.connection);
    }

    /// Stores a batch in one transaction, each request as it comes; nothing of this writer changes unless the
    /// commit succeeded. Copies that do not continue what is here, and segments that may not be sealed, are refused
    /// alone: the rest of the batch is stored.
    fn commit(
        &mut self,
        batch: impl Iterator<Item = Content>,
    ) -> Result<(Vec<AppendResult>, Heads), JournalError> {
        let failed = |error| disk::error(&self.path, &error);
        let mut heads = self.heads.clone();
        let mut results = Vec::new();
        let mut segments = Vec::new();
        // an error ends this writer: closing the file takes back what is not committed
        self.execute("BEGIN IMMEDIATE").map_err(failed)?;
        {
            let mut insertion = self.connection.prepare_cached(&row::INSERTION).map_err(failed)?;
            for content in batch {
                let result = self.take(content, &mut heads, &mut segments)?;
                for record in result.iter().flatten() {
                    row::insert(&mut insertion, &record.borrowed()).map_err(failed)?;
                }
                results.push(result);
            }
        }
        for segment in &segments {
            segment.store(&self.connection).map_err(failed)?;
        }
        self.execute("COMMIT").map_err(failed)?;
        Ok((results, heads))
    }

    fn execute(&self, statement: &str) -> rusqlite::Result<usize> {
        self.connection.prepare_cached(statement)?.execute(())
    }

    /// What is to be stored for a request.
    fn take(
        &self,
        content: Content,
        heads: &mut Heads,
        segments: &mut Vec<Segment>,
    ) -> Result<AppendResult, JournalError> {
        Ok(match content {
            Content::Own(facts) => Ok(self.stamp_all(facts, heads)),
            Content::Copies { base, records, learned_in } => {
                let mut tried = heads.clone();
                let begun = base.and_then(|base| begun(*base, &mut tried));
                continuing(records, learned_in, &mut tried)
                    .inspect(|_| {
                        *heads = tried;
                        segments.extend(begun);
                    })
                    .map_err(JournalError::CopiesRefused)
            }
            Content::Sealed(segment, epoch) => {
                let sealed = self.sealed(&segment, epoch, heads, segments)?;
                segments.extend(sealed.is_ok().then_some(*segment));
                sealed
            }
        })
    }

    /// The event that states a segment, unless it may not be sealed.
    fn sealed(
        &self,
        segment: &Segment,
        epoch: Epoch,
        heads: &mut Heads,
        in_batch: &[Segment],
    ) -> Result<AppendResult, JournalError> {
        let refused = |reason: &str| Ok(Err(JournalError::SealRefused(reason.to_owned())));
        let Some(file) = &segment.file else { return refused("the segment has no file") };
        if in_batch.iter().any(|other| other.node() == segment.node()) {
            return refused("another segment of the same node is being sealed");
        }
        let newest = heads.get(&segment.node()).map_or(NodeSeq(0), |walk| walk.head().node_seq);
        let reason = segment.reason_against(&self.connection, newest);
        match reason.map_err(|error| disk::error(&self.path, &error))? {
            Some(reason) => refused(&reason),
            None => {
                let fact = Fact::of(&Draft::new(epoch, segment.sealed_into(file)));
                let fact = fact.map_err(|error| JournalError::failed(&self.path, error))?;
                Ok(Ok(self.stamp_all(vec![fact], heads)))
            }
        }
    }

    fn stamp_all(&self, facts: Vec<Fact>, heads: &mut Heads) -> Vec<Record> {
        let me = self.identity.node_id;
        let walk = heads.entry(me).or_insert(ChainWalk::from_genesis(me));
        if let Some(newest) = walk.moment() {
            // events that were taken back from a peer may be later than this node's clock
            lock(&self.clock).continue_after(newest);
        }
        let mut records = Vec::with_capacity(facts.len());
        for fact in facts {
            let record = self.record(fact, walk.head());
            *walk = ChainWalk::up_to(&record);
            records.push(record);
        }
        records
    }

    fn record(&self, fact: Fact, head: Head) -> Record {
        let recorded_at = self.stamp.now().with_timezone(&Utc).trunc_subsecs(3);
        let event_id = self.stamp.event_id();
        let hlc = lock(&self.clock).tick(recorded_at.timestamp_millis());
        let mut record = Record {
            event_id,
            cluster_id: self.identity.cluster_id,
            node_id: self.identity.node_id,
            node_seq: head.node_seq.next(),
            epoch: fact.epoch,
            hlc,
            recorded_at,
            kind: fact.kind,
            schema_version: fact.schema_version,
            run_id: fact.run_id,
            correlation_id: fact.caused_by.map_or(event_id, |cause| cause.correlation_id),
            causation_id: fact.caused_by.map(|cause| cause.causation_id),
            actor: fact.actor,
            payload: fact.payload,
            prev_hash: head.hash,
            hash: head.hash,
            learned_in: fact.epoch,
        };
        record.hash = record.computed_hash();
        record
    }
}

/// The next request. A caller that was just answered often asks again at once: looking out for that before going to sleep
/// spares a waking, which costs about a tenth of an fsync.
fn next(inbox: &Receiver<Request>) -> Result<Request, RecvError> {
    for _ in 0..LOOKS_BEFORE_SLEEP {
        match inbox.try_recv() {
            Ok(request) => return Ok(request),
            Err(TryRecvError::Disconnected) => return Err(RecvError),
            Err(TryRecvError::Empty) => std::thread::yield_now(),
        }
    }
    inbox.recv()
}

/// A dead journal answers every request with the reason of its end, as long as requests come.
fn answer_all_with(
    error: &JournalError,
    failed: Vec<oneshot::Sender<AppendResult>>,
    inbox: &Receiver<Request>,
) {
    let later = inbox.iter().map(|request| request.answer);
    for answer in failed.into_iter().chain(later) {
        let _ = answer.send(Err(error.clone()));
    }
}

/// The start of copies of a journal that is new here, as a segment whose file is elsewhere.
fn begun(base: Base, heads: &mut Heads) -> Option<Segment> {
    let node = base.head.node_id;
    if heads.get(&node).is_some_and(|walk| walk.head().node_seq > NodeSeq(0)) {
        return None;
    }
    heads.insert(node, base.walk());
    Some(Segment { first: NodeSeq(0).next(), end: base, file: None })
}

/// What shares the next fsync. Those who shared the last one were just answered and may ask again at once: without a
/// moment's patience the first of them would have an fsync to itself, and all others wait for it.
struct Batch<'a> {
    inbox: &'a Receiver<Request>,
    first: Option<Request>,
    /// How many shared the last one.
    expected: usize,
    taken: usize,
}

impl Iterator for Batch<'_> {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        let waits = self.taken < self.expected;
        let next = self.first.take().or_else(|| match self.taken {
            BATCH_LIMIT.. => None,
            _ if waits => self.inbox.recv_timeout(PATIENCE).ok(),
            _ => self.inbox.try_recv().ok(),
        })?;
        self.taken += 1;
        Some(next)
    }
}

/// Those of the copies that are not here yet, if they continue what is here; the heads then include them.
fn continuing(records: Vec<Record>, learned_in: Epoch, heads: &mut Heads) -> Result<Vec<Record>, Broken> {
    let Some(node) = records.first().map(|record| record.node_id) else { return Ok(Vec::new()) };
    let mut walk = heads.get(&node).copied().unwrap_or(ChainWalk::from_genesis(node));
    let known = walk.head().node_seq;
    let mut new = Vec::with_capacity(records.len());
    for mut record in records.into_iter().filter(|record| record.node_seq > known) {
        walk.step(&record)?;
        record.learned_in = learned_in.max(record.epoch);
        new.push(record);
    }
    heads.insert(node, walk);
    Ok(new)
}
