//! What the actors of one node share: settings, lines to each other, and the view that is shown to other nodes and people.

mod error;
mod lines;
mod report;
mod run;
mod settings;
mod view;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use interrex_events::{
    Draft, Envelope, Epoch, NodeId,
    journal::{Journal, JournalError, Verify},
};
use interrex_projections::{Cluster, InStoryOrder, Projection, Taken, rebuild, rebuild_in_story_order};
use tokio::sync::{mpsc, watch};

pub(crate) use self::error::STORE_LIMIT;
pub use self::{
    error::{Fatal, NodeError},
    lines::{Lines, actor_names},
    run::{Node, Ports},
    settings::{NodeSettings, OnExit, RejoinSettings},
    view::{StartFacts, View},
};
use crate::{
    env::{Env, Moment},
    failover::resting::Deadlines,
    journal::Belief,
    messages::Append,
    wire::StreamFacts,
};

/// Pause before the story is rebuilt once more, because events were stored during the last rebuild.
const REBUILD_AGAIN: Duration = Duration::from_millis(500);

/// What the actors of one node share.
pub struct Shared {
    /// Clocks and ids.
    pub env: Arc<dyn Env>,
    /// The settings of this supervisor.
    pub settings: NodeSettings,
    /// The journal.
    pub journal: Arc<Journal>,
    /// Lines between actors.
    pub lines: Lines,
    started: Moment,
    view: Mutex<View>,
    changed: watch::Sender<u64>,
    restarts: BTreeMap<&'static str, AtomicU32>,
    fatal: mpsc::Sender<Fatal>,
}

impl Shared {
    /// The shared part of a node whose journal is open; what it holds is folded first.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn new(
        env: Arc<dyn Env>,
        settings: NodeSettings,
        journal: Arc<Journal>,
    ) -> Result<(Self, mpsc::Receiver<Fatal>), JournalError> {
        let (fatal, fatals) = mpsc::channel(1);
        let (changed, _) = watch::channel(0);
        let (own, story) = read(&journal, settings.me)?;
        let deadlines = Deadlines::begin(&own.standpoint.rests, &settings.failover, env.moment());
        let view = View::of(own, story, deadlines);
        let restarts = actor_names::ALL.into_iter().map(|actor| (actor, AtomicU32::new(0))).collect();
        let shared = Self {
            started: env.moment(),
            env,
            settings,
            journal,
            lines: Lines::default(),
            view: Mutex::new(view),
            changed,
            restarts,
            fatal,
        };
        Ok((shared, fatals))
    }

    /// The view, for a look or a change that does not wait for anything.
    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the view.
    pub fn look<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(&self.view())
    }

    /// Changes what was measured.
    pub fn measured(&self, change: impl FnOnce(&mut View)) {
        change(&mut self.view());
        self.changed.send_modify(|version| *version += 1);
    }

    /// Adds events to the view. Only the JournalActor calls it, with events that are on disk. Returns whether the story must be
    /// rebuilt: an event belongs so far back in it that the journal has to be read.
    pub fn fold(&self, envelopes: &[Envelope]) -> Taken {
        let me = self.settings.me;
        let (policy, now) = (&self.settings.failover, self.env.moment());
        let mut taken = Taken::Folded;
        self.measured(|view| {
            for envelope in envelopes.iter().filter(|envelope| envelope.node_id == me) {
                let before = view.standpoint.rests.clone();
                fold(view, envelope);
                view.deadlines.follow(&before, &view.standpoint.rests, policy, now);
            }
            taken = view.story.take(envelopes.iter().cloned(), |_, _| {});
        });
        taken
    }

    /// Rebuilds the story from the journal on another thread: a journal of years takes a second.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub async fn rebuild_story(&self) -> Result<(), JournalError> {
        loop {
            let held = self.journal.heads();
            // a reader that panicked or was cut off leaves the story as it is: the next late event asks again
            let Some(story) = self.journal.read_aside(story_of).await else { return Ok(()) };
            let story = story?;
            // what was stored meanwhile may not be in it
            if self.journal.heads() == held {
                self.measured(|view| view.story = story);
                return Ok(());
            }
            tokio::time::sleep(REBUILD_AGAIN).await;
        }
    }

    /// Folds this node's own events again after their sealed beginning was learned. Only the JournalActor calls it.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn fold_own_again(&self) -> Result<(), JournalError> {
        let own: Belief = rebuild(&self.journal.reader()?, Some(self.settings.me), Verify::Nothing)?;
        self.measured(|view| {
            (view.cluster, view.standpoint, view.folded) = (own.cluster, own.standpoint, own.folded);
        });
        Ok(())
    }

    /// Waits until the view satisfies a condition.
    ///
    /// Returns whether it did within the limit.
    pub async fn wait_until(&self, limit: Duration, condition: impl FnMut(&View) -> bool) -> bool {
        tokio::time::timeout(limit, self.wait_for(condition)).await.is_ok()
    }

    /// The same without a limit: the condition may never be met.
    pub(crate) async fn wait_for(&self, mut condition: impl FnMut(&View) -> bool) {
        let mut changes = self.changed.subscribe();
        while !self.look(&mut condition) {
            if changes.changed().await.is_err() {
                // nothing changes any longer
                std::future::pending::<()>().await;
            }
        }
    }

    /// The newest epoch this node knows.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.look(|view| view.cluster.nodes.epoch)
    }

    /// The newest epoch that each node opened, by the journals that are held here.
    #[must_use]
    pub fn opened(&self) -> BTreeMap<NodeId, Epoch> {
        self.look(|view| {
            let rows = view.story.folded().nodes.nodes.values();
            rows.filter_map(|row| Some((row.node, row.opened?))).collect()
        })
    }

    /// Whether a node is one of this cluster.
    #[must_use]
    pub fn is_peer(&self, node: NodeId) -> bool {
        self.settings.peers().any(|spec| spec.node == node)
    }

    /// Notes the state of `cluster_events`; a new problem is written to the supervisor's log.
    pub fn set_stream(&self, facts: StreamFacts) {
        let before = self.look(|view| view.stream.clone()).unwrap_or_default();
        if before == facts {
            return;
        }
        let known = |problem: &&String| !before.problems.contains(problem) && !before.notes.contains(problem);
        for problem in facts.problems.iter().chain(&facts.notes).filter(known) {
            tracing::warn!(problem, "cluster_events");
        }
        self.measured(|view| view.stream = Some(facts));
    }

    /// Stores a fact without waiting for it. A journal that fails ends the process by itself.
    pub fn record(&self, draft: Draft) {
        let append = self.lines.append.clone();
        tokio::task::spawn_local(async move {
            if append.ask(Append(vec![draft])).await.is_err() {
                tracing::warn!("a fact was not stored: the journal's actor was being restarted");
            }
        });
    }

    /// Notes a restart of an actor.
    pub fn count_restart(&self, actor: &'static str) {
        if let Some(count) = self.restarts.get(actor) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Ends the process with an error.
    pub fn give_up(&self, fatal: Fatal) {
        tracing::error!(error = %fatal, "the supervisor gives up");
        // a second reason adds nothing: the first one is already ending the process
        let _ = self.fatal.try_send(fatal);
    }
}

/// Everything the journal holds: this node's own events by themselves, and the story of all nodes.
fn read(journal: &Journal, me: NodeId) -> Result<(Belief, InStoryOrder<Cluster>), JournalError> {
    Ok((rebuild(&journal.reader()?, Some(me), Verify::Nothing)?, story_of(journal)?))
}

fn story_of(journal: &Journal) -> Result<InStoryOrder<Cluster>, JournalError> {
    rebuild_in_story_order(&journal.reader()?, &journal.heads())
}

/// Takes the next own event in, once.
fn fold(view: &mut View, envelope: &Envelope) {
    if envelope.node_seq <= view.folded {
        return;
    }
    view.folded = envelope.node_seq;
    view.cluster.apply(envelope);
    view.standpoint.apply(envelope);
}
