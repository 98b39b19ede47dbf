//! The one thread that writes: it stamps, chains and commits whatever is queued, one fsync for all of it.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
};

use chrono::{SubsecRound, Utc};
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;

use super::{AppendResult, Identity, JournalError, RECORD_COLUMNS, Stamp};
use crate::{Draft, Head, HlcClock, Record};

/// Appends that may wait for the disk. A node makes a few per second; a full queue is a dead disk.
const QUEUE_LIMIT: usize = 1024;
/// Appends that share one fsync. Past this, waiting longer no longer pays.
const BATCH_LIMIT: usize = 256;

struct Request {
    drafts: Vec<Draft>,
    answer: oneshot::Sender<AppendResult>,
}

/// The way in to the writer thread.
pub(super) struct Queue {
    /// Nothing only while the queue is being dropped.
    requests: Option<SyncSender<Request>>,
    thread: Option<JoinHandle<()>>,
    head: Arc<Mutex<Head>>,
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
    pub(super) fn append(
        &self,
        drafts: Vec<Draft>,
        path: &Path,
    ) -> Result<oneshot::Receiver<AppendResult>, JournalError> {
        let (answer, receiver) = oneshot::channel();
        let requests = self.requests.as_ref();
        match requests.map(|requests| requests.try_send(Request { drafts, answer })) {
            Some(Ok(())) => Ok(receiver),
            Some(Err(TrySendError::Full(_))) => Err(JournalError::Overloaded(QUEUE_LIMIT)),
            Some(Err(TrySendError::Disconnected(_))) | None => {
                Err(JournalError::failed(path, "its writer ended after an earlier error"))
            }
        }
    }

    pub(super) fn head(&self) -> Head {
        *self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the thread owns.
pub(super) struct Writer {
    pub(super) path: PathBuf,
    pub(super) connection: Connection,
    pub(super) identity: Identity,
    pub(super) head: Head,
    pub(super) clock: Arc<Mutex<HlcClock>>,
    pub(super) stamp: Arc<dyn Stamp>,
}

pub(super) fn spawn(writer: Writer) -> std::io::Result<Queue> {
    let (requests, inbox) = sync_channel(QUEUE_LIMIT);
    let head = Arc::new(Mutex::new(writer.head));
    let published = head.clone();
    let thread = std::thread::Builder::new()
        .name("journal".to_owned())
        .spawn(move || writer.run(&inbox, &published))?;
    Ok(Queue { requests: Some(requests), thread: Some(thread), head })
}

impl Writer {
    fn run(mut self, inbox: &Receiver<Request>, published: &Mutex<Head>) {
        while let Ok(first) = inbox.recv() {
            let mut batch = vec![first];
            batch.extend(inbox.try_iter().take(BATCH_LIMIT - 1));
            match self.commit(&batch) {
                Ok((records, head)) => {
                    self.head = head;
                    *published.lock().unwrap_or_else(PoisonError::into_inner) = head;
                    for (request, records) in batch.into_iter().zip(records) {
                        // whoever asked may have given up waiting; the events are stored all the same
                        let _ = request.answer.send(Ok(records));
                    }
                }
                Err(error) => {
                    for request in batch {
                        let _ = request.answer.send(Err(error.clone()));
                    }
                    // never again: after a failed write or fsync, what is on disk is not known
                    return;
                }
            }
        }
    }

    /// Stores a batch in one transaction; nothing of this writer changes unless the commit succeeded.
    fn commit(&mut self, batch: &[Request]) -> Result<(Vec<Vec<Record>>, Head), JournalError> {
        let mut head = self.head;
        let mut stored = Vec::with_capacity(batch.len());
        for request in batch {
            let mut records = Vec::with_capacity(request.drafts.len());
            for draft in &request.drafts {
                let record = self.record(draft, head)?;
                head = Head { node_id: record.node_id, node_seq: record.node_seq, hash: record.hash };
                records.push(record);
            }
            stored.push(records);
        }
        self.insert(stored.iter().flatten()).map_err(|error| JournalError::failed(&self.path, error))?;
        Ok((stored, head))
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
        };
        record.hash = record.computed_hash();
        Ok(record)
    }

    fn insert<'a>(&mut self, records: impl Iterator<Item = &'a Record>) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut insert = transaction.prepare_cached(&format!(
                "INSERT INTO cluster_events ({RECORD_COLUMNS}) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)"
            ))?;
            for record in records {
                insert.execute((
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
                ))?;
            }
        }
        transaction.commit()
    }
}
