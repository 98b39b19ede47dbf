//! JournalActor: the only writer of the journal. It hands events to all other actors once they are on disk.

mod belief;
pub mod copies;
pub mod retention;

use std::{cell::Cell, rc::Rc, sync::Arc};

use actix::{Actor, Addr, AsyncContext, Context, Handler, ResponseFuture, StreamHandler};
use interrex_events::{
    Envelope, NodeId, NodeSeq,
    journal::{AppendResult, JournalError},
};
use interrex_projections::{Entry, Level};
use tokio::sync::{mpsc, oneshot};

pub use self::belief::{Belief, Taken};
use crate::{
    line::Gone,
    messages::{Append, KeepCopies, Persisted, Refused, Seal},
    node::{Fatal, Shared},
};

/// Appends that may be between the queue of the disk and the actors at one time.
const IN_FLIGHT_LIMIT: usize = 512;

struct InFlight {
    stored: oneshot::Receiver<AppendResult>,
    asker: Asker,
}

/// Who waits for the disk, and for what.
enum Asker {
    /// For the place of the last fact.
    Facts(oneshot::Sender<NodeSeq>),
    /// For the number of new copies, or their refusal; and whose journal they may begin here.
    Copies(oneshot::Sender<Result<usize, Refused>>, Option<NodeId>),
    /// For a segment to be gone, or its refusal.
    Seal(oneshot::Sender<Result<(), Refused>>),
}

/// What became of an append, in the order in which appends were queued.
pub struct Stored {
    result: AppendResult,
    asker: Asker,
}

/// The shell: it queues, and hands on in order.
pub struct JournalActor {
    shared: Arc<Shared>,
    in_flight: Option<mpsc::Sender<InFlight>>,
    /// Events that an earlier instance stored but did not hand on before it failed.
    missed: Vec<Envelope>,
    /// Whether the story is being rebuilt.
    telling: Rc<Cell<bool>>,
}

impl JournalActor {
    /// An instance that continues where the last one ended.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn rebuilt(shared: &Arc<Shared>) -> Result<Self, Fatal> {
        let mut actor =
            Self { shared: shared.clone(), in_flight: None, missed: Vec::new(), telling: Rc::default() };
        actor.missed = actor.stored_after(shared.look(|view| view.folded))?;
        Ok(actor)
    }

    fn stored_after(&self, place: NodeSeq) -> Result<Vec<Envelope>, Fatal> {
        let records = self.shared.journal.reader()?.page(self.shared.settings.me, place, u32::MAX)?;
        Ok(records.iter().map(interrex_events::Record::open).collect())
    }

    /// Binds the lines that end at this actor to this instance.
    pub fn bind(shared: &Shared, address: &Addr<Self>) {
        shared.lines.append.bind(address.clone().recipient());
        shared.lines.keep_copies.bind(address.clone().recipient());
        shared.lines.seal.bind(address.clone().recipient());
    }

    fn queue(&self, stored: Result<oneshot::Receiver<AppendResult>, JournalError>, asker: Asker) {
        let queued = stored.map_err(Fatal::Journal).and_then(|stored| {
            let sender = self.in_flight.as_ref().ok_or_else(overloaded)?;
            sender.try_send(InFlight { stored, asker }).map_err(|_| overloaded())
        });
        if let Err(fatal) = queued {
            self.shared.give_up(fatal);
        }
    }

    /// Once at a time: pages of late events come one after the other.
    fn rebuild_story(&self) {
        if self.telling.replace(true) {
            return;
        }
        let (shared, telling) = (self.shared.clone(), self.telling.clone());
        tokio::task::spawn_local(async move {
            if let Err(error) = shared.rebuild_story().await {
                shared.give_up(Fatal::Journal(error));
            }
            telling.set(false);
        });
    }

    /// A journal begins here whose first events were sealed elsewhere: no fold of its events alone knows what they said.
    fn begin(&self, node: NodeId) {
        if node == self.shared.settings.me
            && let Err(error) = self.shared.fold_own_again()
        {
            return self.shared.give_up(Fatal::Journal(error));
        }
        self.rebuild_story();
    }

    /// The only place where an event becomes known: first in the view, then to the actors that fold. Copies of other nodes' events
    /// go into the view alone: no actor acts on them (ADR 7).
    fn hand_on(&self, mut envelopes: Vec<Envelope>) {
        let me = self.shared.settings.me;
        let folded = self.shared.look(|view| view.folded);
        let is_own = envelopes.first().is_some_and(|first| first.node_id == me);
        if is_own && envelopes.first().is_some_and(|first| first.node_seq > folded.next()) {
            // stored for an instance before this one, which died before the disk answered
            match self.stored_after(folded) {
                Ok(all) => envelopes = all,
                Err(fatal) => return self.shared.give_up(fatal),
            }
        }
        if self.shared.fold(&envelopes) == interrex_projections::Taken::TooEarly {
            self.rebuild_story();
        }
        if !is_own {
            return;
        }
        self.say(&envelopes);
        let persisted = Persisted(Arc::from(envelopes));
        self.shared.lines.heartbeat_persisted.tell(persisted.clone());
        self.shared.lines.failover_persisted.tell(persisted);
    }

    /// Writes changes and alarms of the timeline to the service manager's log: an operator looks there first.
    fn say(&self, envelopes: &[Envelope]) {
        let entries: Vec<Entry> = self.shared.look(|view| {
            let cluster = &view.cluster;
            envelopes.iter().map(|envelope| Entry::of(envelope, &cluster.nodes, &cluster.runs)).collect()
        });
        for Entry { level, kind, text, .. } in &entries {
            match level {
                Level::Info => tracing::debug!(kind, "{text}"),
                Level::Notice => tracing::info!(kind, "{text}"),
                Level::Alarm => tracing::warn!(kind, "{text}"),
            }
        }
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
        self.queue(self.shared.journal.append(&append.0), Asker::Facts(asker));
        Box::pin(async move { answer.await.map_err(|_| Gone) })
    }
}

impl Handler<KeepCopies> for JournalActor {
    type Result = ResponseFuture<Result<Result<usize, Refused>, Gone>>;

    fn handle(&mut self, copies: KeepCopies, _: &mut Self::Context) -> Self::Result {
        let (asker, answer) = oneshot::channel();
        let (journal, epoch) = (&self.shared.journal, self.shared.epoch());
        let begins = copies.0.base.as_ref().map(|base| base.head.node_id);
        let stored = match copies.0.base {
            Some(base) => journal.store_copies_after(base, copies.0.records, epoch),
            None => journal.store_copies(copies.0.records, epoch),
        };
        self.queue(stored, Asker::Copies(asker, begins));
        Box::pin(async move { answer.await.map_err(|_| Gone) })
    }
}

impl Handler<Seal> for JournalActor {
    type Result = ResponseFuture<Result<Result<(), Refused>, Gone>>;

    fn handle(&mut self, Seal(segment): Seal, _: &mut Self::Context) -> Self::Result {
        let (asker, answer) = oneshot::channel();
        self.queue(self.shared.journal.seal(segment, self.shared.epoch()), Asker::Seal(asker));
        Box::pin(async move { answer.await.map_err(|_| Gone) })
    }
}

fn overloaded() -> Fatal {
    Fatal::Journal(interrex_events::journal::JournalError::Overloaded(IN_FLIGHT_LIMIT))
}

impl StreamHandler<Stored> for JournalActor {
    fn handle(&mut self, stored: Stored, _: &mut Self::Context) {
        let records = match stored.result {
            Ok(records) => records,
            // the sender may have given up waiting
            Err(JournalError::CopiesRefused(broken)) => return stored.asker.refuse(&broken.to_string()),
            Err(JournalError::SealRefused(reason)) => return stored.asker.refuse(&reason),
            // never tried again: the content of the disk is no longer known
            Err(error) => return self.shared.give_up(Fatal::Journal(error)),
        };
        let envelopes: Vec<Envelope> = records.iter().map(interrex_events::Record::open).collect();
        let (count, last) = (envelopes.len(), envelopes.last().map(|envelope| envelope.node_seq));
        if let Asker::Copies(_, Some(begun)) = stored.asker {
            self.begin(begun);
        } else if count > 0 {
            self.hand_on(envelopes);
        }
        match (stored.asker, last) {
            (Asker::Facts(asker), Some(last)) => drop(asker.send(last)),
            (Asker::Copies(asker, _), _) => drop(asker.send(Ok(count))),
            (Asker::Seal(asker), _) => drop(asker.send(Ok(()))),
            (Asker::Facts(_), None) => {}
        }
    }
}

impl Asker {
    fn refuse(self, reason: &str) {
        let refused = Refused(reason.to_owned());
        match self {
            Self::Copies(asker, _) => drop(asker.send(Err(refused))),
            Self::Seal(asker) => drop(asker.send(Err(refused))),
            // facts of this node are never refused
            Self::Facts(_) => {}
        }
    }
}
