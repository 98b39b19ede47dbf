//! The one thread that writes: it stamps, chains and commits whatever is queued, one fsync for all of it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use chrono::{SubsecRound, Utc};
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;

use super::{AppendResult, Identity, JournalError, Segment, Stamp, checkpoint, disk, row};
use crate::{Base, Broken, ChainWalk, Draft, Epoch, Head, HlcClock, NodeId, NodeSeq, Record};

/// Appends that may wait for the disk. A node makes a few per second; a full queue is a dead disk.
const QUEUE_LIMIT: usize = 1024;
/// Appends that share one fsync. Past this, waiting longer no longer pays.
const BATCH_LIMIT: usize = 256;
/// How long a batch waits for the next of those who shared the last one; an fsync takes some times as long.
const PATIENCE: Duration = Duration::from_micros(50);

/// What may be asked of the writer.
pub(super) enum Content {
    /// Facts of this node, to be stamped and chained.
    Own(Vec<Draft>),
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

/// How far the chain of every journal held here goes.
pub(super) type Heads = BTreeMap<NodeId, ChainWalk>;

/// The way in to the writer thread.
pub(super) struct Queue {
    /// Nothing only while the queue is being dropped.
    requests: Option<SyncSender<Request>>,
    thread: Option<JoinHandle<()>>,
    heads: Arc<Mutex<Heads>>,
}

/// What is queued is still written, and the file closed, before whoever holds the journal goes on.
impl Drop for Queue {
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
        let requests = self.requests.as_ref();
        match requests.map(|requests| requests.try_send(Request { content, answer })) {
            Some(Ok(())) => Ok(receiver),
            Some(Err(TrySendError::Full(_))) => Err(JournalError::Overloaded(QUEUE_LIMIT)),
            Some(Err(TrySendError::Disconnected(_))) | None => {
                Err(JournalError::failed(path, "its writer ended after an earlier error"))
            }
        }
    }

    pub(super) fn heads(&self) -> Heads {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the thread owns.
pub(super) struct Writer {
    pub(super) path: PathBuf,
    pub(super) connection: Connection,
    pub(super) log: checkpoint::Log,
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
    Ok(Queue { requests: Some(requests), thread: Some(thread), heads })
}

impl Writer {
    fn run(mut self, inbox: &Receiver<Request>, published: &Mutex<Heads>) {
        let mut expected = 1;
        while let Ok(first) = inbox.recv() {
            let batch = gather(inbox, first, expected);
            expected = batch.len();
            let (contents, answers): (Vec<_>, Vec<_>) =
                batch.into_iter().map(|request| (request.content, request.answer)).unzip();
            match self.commit(contents) {
                Ok((results, heads)) => {
                    published.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&heads);
                    self.heads = heads;
                    for (answer, result) in answers.into_iter().zip(results) {
                        // whoever asked may have given up waiting; the events are stored all the same
                        let _ = answer.send(result);
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

    /// Stores a batch in one transaction; nothing of this writer changes unless the commit succeeded. Copies
    /// that do not continue what is here, and segments that may not be sealed, are refused alone: the rest of the
    /// batch is stored.
    fn commit(&mut self, batch: Vec<Content>) -> Result<(Vec<AppendResult>, Heads), JournalError> {
        let mut heads = self.heads.clone();
        let mut results = Vec::with_capacity(batch.len());
        let mut segments = Vec::new();
        for content in batch {
            results.push(match content {
                Content::Own(drafts) => Ok(self.stamp_all(&drafts, &mut heads)?),
                Content::Copies { base, records, learned_in } => {
                    let mut tried = heads.clone();
                    let begun = base.and_then(|base| begun(*base, &mut tried));
                    continuing(records, learned_in, &mut tried)
                        .inspect(|_| {
                            heads = tried;
                            segments.extend(begun);
                        })
                        .map_err(JournalError::CopiesRefused)
                }
                Content::Sealed(segment, epoch) => {
                    let sealed = self.sealed(&segment, epoch, &mut heads, &segments)?;
                    segments.extend(sealed.is_ok().then_some(*segment));
                    sealed
                }
            });
        }
        let records = results.iter().flatten().flatten();
        self.store(records, &segments).map_err(|error| disk::error(&self.path, &error))?;
        Ok((results, heads))
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
            None => self.stamp_all(&[Draft::new(epoch, segment.sealed_into(file))], heads).map(Ok),
        }
    }

    fn stamp_all(&self, drafts: &[Draft], heads: &mut Heads) -> Result<Vec<Record>, JournalError> {
        let me = self.identity.node_id;
        let walk = heads.entry(me).or_insert(ChainWalk::from_genesis(me));
        if let Some(newest) = walk.moment() {
            // events that were taken back from a peer may be later than this node's clock
            self.clock.lock().unwrap_or_else(PoisonError::into_inner).continue_after(newest);
        }
        let mut records = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let record = self.record(draft, walk.head())?;
            *walk = ChainWalk::up_to(&record);
            records.push(record);
        }
        Ok(records)
    }

    fn record(&self, draft: &Draft, head: Head) -> Result<Record, JournalError> {
        let json = |error: serde_json::Error| JournalError::failed(&self.path, error);
        let recorded_at = self.stamp.now().with_timezone(&Utc).trunc_subsecs(3);
        let event_id = self.stamp.event_id();
        let hlc =
            self.clock.lock().unwrap_or_else(PoisonError::into_inner).tick(recorded_at.timestamp_millis());
        let mut record = Record {
            event_id,
            cluster_id: self.identity.cluster_id,
            node_id: self.identity.node_id,
            node_seq: head.node_seq.next(),
            epoch: draft.epoch,
            hlc,
            recorded_at,
            kind: draft.event.kind().to_owned(),
            schema_version: draft.event.schema_version(),
            run_id: draft.run_id,
            correlation_id: draft.caused_by.map_or(event_id, |cause| cause.correlation_id),
            causation_id: draft.caused_by.map(|cause| cause.causation_id),
            actor: serde_json::to_string(&draft.actor).map_err(json)?,
            payload: draft.event.payload().map_err(json)?,
            prev_hash: head.hash,
            hash: head.hash,
            learned_in: draft.epoch,
        };
        record.hash = record.computed_hash();
        Ok(record)
    }

    fn store<'a>(
        &mut self,
        records: impl Iterator<Item = &'a Record>,
        segments: &[Segment],
    ) -> rusqlite::Result<()> {
        let events = self.write(records, segments)?;
        self.log.grew(events, &self.connection)
    }

    /// How many events were stored or dropped.
    fn write<'a>(
        &mut self,
        records: impl Iterator<Item = &'a Record>,
        segments: &[Segment],
    ) -> rusqlite::Result<usize> {
        let mut events = 0;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut insertion = transaction.prepare_cached(&row::insertion())?;
            for record in records {
                row::insert(&mut insertion, &record.borrowed())?;
                events += 1;
            }
        }
        for segment in segments {
            events += segment.store(&transaction)?;
        }
        transaction.commit()?;
        Ok(events)
    }
}

/// A dead journal says why it died, to whoever asks and for as long as somebody does.
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

/// Where copies begin of which nothing was here yet, as a segment whose file is elsewhere.
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
fn gather(inbox: &Receiver<Request>, first: Request, expected: usize) -> Vec<Request> {
    let mut batch = vec![first];
    batch.extend(inbox.try_iter().take(BATCH_LIMIT - 1));
    while batch.len() < expected.min(BATCH_LIMIT)
        && let Ok(next) = inbox.recv_timeout(PATIENCE)
    {
        batch.push(next);
        batch.extend(inbox.try_iter().take(BATCH_LIMIT - batch.len()));
    }
    batch
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
