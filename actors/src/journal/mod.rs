//! JournalActor: the only writer of the journal, and the one that tells all others what is on disk.

use std::sync::Arc;

use actix::{Actor, Addr, AsyncContext, Context, Handler, ResponseFuture, StreamHandler};
use interrex_events::{
    Envelope, NodeSeq,
    journal::{AppendResult, Selection},
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    line::Gone,
    messages::{Append, Persisted},
    node::{Fatal, Shared},
};

/// Appends that may be between the queue of the disk and the actors at one time.
const IN_FLIGHT_LIMIT: usize = 512;

struct InFlight {
    stored: oneshot::Receiver<AppendResult>,
    asker: oneshot::Sender<NodeSeq>,
}

/// What became of an append, in the order in which appends were queued.
pub struct Stored {
    result: AppendResult,
    asker: oneshot::Sender<NodeSeq>,
}

/// The shell: it queues, and hands on in order.
pub struct JournalActor {
    shared: Arc<Shared>,
    in_flight: Option<mpsc::Sender<InFlight>>,
    /// Events that an instance before this one stored and did not live to hand on.
    missed: Vec<Envelope>,
}

impl JournalActor {
    /// An instance that continues where the last one ended.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn rebuilt(shared: &Arc<Shared>) -> Result<Self, Fatal> {
        let me = shared.settings.me;
        let folded = shared.look(|view| view.folded);
        let reader = shared.journal.reader()?;
        let missed = reader.page(me, folded, u32::MAX)?.iter().map(interrex_events::Record::open).collect();
        Ok(Self { shared: shared.clone(), in_flight: None, missed })
    }

    /// Connects the lines that lead here.
    pub fn bind(shared: &Shared, address: &Addr<Self>) {
        shared.lines.append.bind(address.clone().recipient());
    }

    /// The one place where an event becomes known: first the view, then the actors that fold.
    fn hand_on(&self, envelopes: Vec<Envelope>) {
        self.shared.fold(&envelopes);
        let persisted = Persisted(Arc::from(envelopes));
        self.shared.lines.heartbeat_persisted.tell(persisted.clone());
        self.shared.lines.failover_persisted.tell(persisted);
    }
}

impl Actor for JournalActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let (sender, receiver) = mpsc::channel(IN_FLIGHT_LIMIT);
        self.in_flight = Some(sender);
        context.add_stream(in_order(receiver));
        let missed = std::mem::take(&mut self.missed);
        if !missed.is_empty() {
            self.hand_on(missed);
        }
    }
}

/// The disk answers in the order of the queue, so waiting for one after the other loses no time.
fn in_order(receiver: mpsc::Receiver<InFlight>) -> impl futures_util::Stream<Item = Stored> {
    futures_util::stream::unfold(receiver, async |mut receiver: mpsc::Receiver<InFlight>| {
        let InFlight { stored, asker } = receiver.recv().await?;
        let dead = || interrex_events::journal::JournalError::Failed {
            path: std::path::PathBuf::new(),
            detail: "its writer ended without an answer".to_owned(),
        };
        let result = stored.await.unwrap_or_else(|_| Err(dead()));
        Some((Stored { result, asker }, receiver))
    })
}

impl Handler<Append> for JournalActor {
    type Result = ResponseFuture<Result<NodeSeq, Gone>>;

    fn handle(&mut self, append: Append, _: &mut Self::Context) -> Self::Result {
        let (asker, answer) = oneshot::channel();
        let queued = self.shared.journal.append(append.0).map_err(Fatal::Journal).and_then(|stored| {
            let sender = self.in_flight.as_ref().ok_or_else(overloaded)?;
            sender.try_send(InFlight { stored, asker }).map_err(|_| overloaded())
        });
        if let Err(fatal) = queued {
            self.shared.give_up(fatal);
        }
        Box::pin(async move { answer.await.map_err(|_| Gone) })
    }
}

fn overloaded() -> Fatal {
    Fatal::Journal(interrex_events::journal::JournalError::Overloaded(IN_FLIGHT_LIMIT))
}

impl StreamHandler<Stored> for JournalActor {
    fn handle(&mut self, stored: Stored, _: &mut Self::Context) {
        match stored.result {
            Ok(records) => {
                let envelopes: Vec<Envelope> = records.iter().map(interrex_events::Record::open).collect();
                if let Some(last) = envelopes.last().map(|envelope| envelope.node_seq) {
                    self.hand_on(envelopes);
                    // whoever asked may have given up waiting
                    let _ = stored.asker.send(last);
                }
            }
            // never tried again: what is on disk is not known any more
            Err(error) => self.shared.give_up(Fatal::Journal(error)),
        }
    }
}

/// What an actor's state is rebuilt from: the fold of everything on disk so far, and the place it reaches to.
///
/// # Errors
/// The journal cannot be read.
pub fn refold(shared: &Shared) -> Result<(interrex_projections::Cluster, NodeSeq), Fatal> {
    use interrex_projections::Projection;
    let mut cluster = interrex_projections::Cluster::default();
    let mut folded = NodeSeq(0);
    shared.journal.reader()?.for_each(&Selection::default(), |record| {
        if record.node_id == shared.settings.me {
            folded = folded.max(record.node_seq);
        }
        cluster.apply(&record.open());
    })?;
    Ok((cluster, folded))
}
