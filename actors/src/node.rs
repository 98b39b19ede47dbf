//! What the actors of one node share: settings, lines to each other, and the view that is shown outside.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use interrex_events::{
    ClusterId, Draft, Envelope, Epoch, JournalForked, NodeId, NodeSeq, NodeSpec, RedisStatus, Role,
    journal::{Journal, JournalError, Verify},
};
use interrex_projections::{
    Cluster, InStoryOrder, Projection, Standpoint, Taken, rebuild, rebuild_in_story_order,
};
use tokio::sync::{mpsc, watch};

use crate::{
    env::{Env, Moment},
    failover::{
        policy::FailoverPolicy,
        resting::{Deadlines, why_it_rests},
    },
    journal::{Belief, retention::RetentionPolicy},
    line::{DropCount, Line},
    messages::{
        Append, Claim, CloseWindows, Fence, FenceEnded, FenceRequest, Follow, KeepCopies, LiftRequest,
        LookAhead, MainSight, Measured, Operate, Persisted, ProbeEnded, RunStep, Seal, ServeAgain,
        SettingsHeard, Settled, StepEnded, UndoEnded, UndoStep,
    },
    report::{
        ActorFacts, CopyProgress, DependentFacts, Lag, NodeReport, PostgresFacts, RedisFacts, Rest,
        StreamFacts,
    },
};

/// Pause before the story is told anew once more, because events were stored while it was.
const TELL_AGAIN: Duration = Duration::from_millis(500);

/// The actors, by name.
pub mod actor_names {
    /// Owns the journal.
    pub const JOURNAL: &str = "journal";
    /// Probes peers.
    pub const HEARTBEAT: &str = "heartbeat";
    /// Makes runs.
    pub const FAILOVER: &str = "failover";
    /// Owns PostgreSQL and Redis.
    pub const REPLICATION: &str = "replication";
    /// Tells everyone.
    pub const NOTIFIER: &str = "notifier";
    /// All of them.
    pub const ALL: [&str; 5] = [JOURNAL, HEARTBEAT, FAILOVER, REPLICATION, NOTIFIER];
}

/// Why the whole process must end.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Fatal {
    /// The journal cannot be written or read any more.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// This node's journal has two continuations: whatever it says is doubtful.
    #[error(
        "{}; keep the journal as evidence and move it away: the next start takes this node's events back from a peer's copy",
        .0.in_words()
    )]
    Forked(JournalForked),
    /// An actor fails again and again.
    #[error(
        "actor `{actor}` failed {restarts} times within {window_seconds} s, last: {reason}; the supervisor ends so that \
             its service manager starts it afresh"
    )]
    ActorKeepsFailing {
        /// Which one.
        actor: &'static str,
        /// How often.
        restarts: u32,
        /// Within how many seconds.
        window_seconds: u64,
        /// How it failed last.
        reason: String,
    },
}

/// What becomes of data that only a returning node has.
#[derive(Debug, Clone)]
pub struct RejoinSettings {
    /// The folder of all kept copies: on the volume of the data directory, so that a rename is enough.
    pub keep_in: std::path::PathBuf,
    /// How many of them stay.
    pub keep_newest: usize,
}

/// What is fixed for the life of a supervisor.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// This node.
    pub me: NodeId,
    /// Its name.
    pub name: String,
    /// Its role when its journal is new.
    pub initial_role: Role,
    /// Who is main when its journal is new.
    pub initial_main: Option<NodeId>,
    /// Every node, this one included.
    pub nodes: Vec<NodeSpec>,
    /// How often peers are probed and local servers measured.
    pub probe_interval: Duration,
    /// When one probe is given up.
    pub probe_timeout: Duration,
    /// How long a starting main waits for a peer to confirm it.
    pub startup_wait: Duration,
    /// When a failover is made.
    pub failover: FailoverPolicy,
    /// What becomes of data that only a returning node has.
    pub rejoin: RejoinSettings,
    /// Which events are sealed; nothing where all are kept.
    pub retention: Option<RetentionPolicy>,
}

impl NodeSettings {
    /// The other nodes.
    pub fn peers(&self) -> impl Iterator<Item = &NodeSpec> {
        self.nodes.iter().filter(|spec| spec.node != self.me)
    }

    /// A node of the configuration.
    #[must_use]
    pub fn spec(&self, node: NodeId) -> Option<&NodeSpec> {
        self.nodes.iter().find(|spec| spec.node == node)
    }
}

/// One line per message, to the actor that receives it.
#[derive(Clone)]
pub struct Lines {
    /// To the JournalActor.
    pub append: Line<Append>,
    /// To the JournalActor.
    pub keep_copies: Line<KeepCopies>,
    /// To the JournalActor.
    pub seal: Line<Seal>,
    /// To the HeartbeatActor.
    pub heartbeat_persisted: Line<Persisted>,
    /// To the HeartbeatActor.
    pub measured: Line<Measured>,
    /// To the HeartbeatActor.
    pub probe_ended: Line<ProbeEnded>,
    /// To the HeartbeatActor.
    pub claim: Line<Claim>,
    /// To the HeartbeatActor.
    pub settings_heard: Line<SettingsHeard>,
    /// To the HeartbeatActor.
    pub close_windows: Line<CloseWindows>,
    /// To the HeartbeatActor, which holds the lease: the step `win_epoch`.
    pub heartbeat_step: Line<RunStep>,
    /// To the FailoverActor.
    pub failover_persisted: Line<Persisted>,
    /// To the FailoverActor.
    pub step_ended: Line<StepEnded>,
    /// To the FailoverActor.
    pub undo_ended: Line<UndoEnded>,
    /// To the FailoverActor.
    pub fence_request: Line<FenceRequest>,
    /// To the FailoverActor.
    pub lift_request: Line<LiftRequest>,
    /// To the FailoverActor.
    pub fence_ended: Line<FenceEnded>,
    /// To the FailoverActor, from people and peers.
    pub operate: Line<Operate>,
    /// To the FailoverActor, from the start.
    pub settled: Line<Settled>,
    /// To the ReplicationActor.
    pub replication_step: Line<RunStep>,
    /// To the ReplicationActor.
    pub undo_step: Line<UndoStep>,
    /// To the ReplicationActor, from people who ask what would happen.
    pub look_ahead: Line<LookAhead>,
    /// To the ReplicationActor.
    pub fence: Line<Fence>,
    /// To the ReplicationActor.
    pub serve_again: Line<ServeAgain>,
    /// To the ReplicationActor.
    pub follow: Line<Follow>,
    /// To the NotifierActor.
    pub notifier_step: Line<RunStep>,
    dropped: BTreeMap<&'static str, DropCount>,
}

impl Default for Lines {
    fn default() -> Self {
        use actor_names::{ALL, FAILOVER, HEARTBEAT, JOURNAL, NOTIFIER, REPLICATION};
        let dropped: BTreeMap<&'static str, DropCount> =
            ALL.into_iter().map(|actor| (actor, DropCount::default())).collect();
        let to = |actor: &str| dropped.get(actor).cloned().unwrap_or_default();
        Self {
            append: Line::new(to(JOURNAL)),
            keep_copies: Line::new(to(JOURNAL)),
            seal: Line::new(to(JOURNAL)),
            heartbeat_persisted: Line::new(to(HEARTBEAT)),
            measured: Line::new(to(HEARTBEAT)),
            probe_ended: Line::new(to(HEARTBEAT)),
            claim: Line::new(to(HEARTBEAT)),
            settings_heard: Line::new(to(HEARTBEAT)),
            close_windows: Line::new(to(HEARTBEAT)),
            heartbeat_step: Line::new(to(HEARTBEAT)),
            failover_persisted: Line::new(to(FAILOVER)),
            step_ended: Line::new(to(FAILOVER)),
            undo_ended: Line::new(to(FAILOVER)),
            fence_request: Line::new(to(FAILOVER)),
            lift_request: Line::new(to(FAILOVER)),
            fence_ended: Line::new(to(FAILOVER)),
            operate: Line::new(to(FAILOVER)),
            settled: Line::new(to(FAILOVER)),
            replication_step: Line::new(to(REPLICATION)),
            undo_step: Line::new(to(REPLICATION)),
            look_ahead: Line::new(to(REPLICATION)),
            fence: Line::new(to(REPLICATION)),
            serve_again: Line::new(to(REPLICATION)),
            follow: Line::new(to(REPLICATION)),
            notifier_step: Line::new(to(NOTIFIER)),
            dropped,
        }
    }
}

/// How far the start of this supervisor is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StartFacts {
    /// Whether it holds up everything but a fence: no run is made, and nothing is asked for in vain.
    pub under_way: bool,
    /// What keeps servers from running that should, in a sentence.
    pub problem: Option<String>,
}

/// What is shown outside: the fold of the journal, and what was measured last.
#[derive(Debug, Clone)]
pub struct View {
    /// The fold of this node's own events: what it acts on.
    pub cluster: Cluster,
    /// What this node has seen and still has to do, by the same events.
    pub standpoint: Standpoint,
    /// The fold of every node's events that are held here, in story order: what it shows.
    pub story: InStoryOrder<Cluster>,
    /// The newest own event in it.
    pub folded: NodeSeq,
    /// The local PostgreSQL.
    pub postgres: PostgresFacts,
    /// When it was asked for that; nothing while it has not answered yet.
    pub postgres_asked_at: Option<Moment>,
    /// The local Redis.
    pub redis: RedisFacts,
    /// Whether that follows another Redis than main's.
    pub redis_astray: bool,
    /// The local dependents.
    pub dependents: BTreeMap<String, DependentFacts>,
    /// How far this node is behind main.
    pub lag: Option<Lag>,
    /// What this node sees of main.
    pub main_sight: Option<MainSight>,
    /// What main last saw of `cluster_events`.
    pub stream: Option<StreamFacts>,
    /// How far this node is with copying main's data, or its own aside.
    pub copying: Option<CopyProgress>,
    /// Which node each peer says may promote itself, as last heard.
    pub candidates: BTreeMap<NodeId, Option<NodeId>>,
    /// Nodes whose PostgreSQL takes writes beside this main, while their supervisors are silent.
    pub writers: BTreeSet<NodeId>,
    /// Why peers' supervisors refuse what this one asks, each in words.
    pub refusals: BTreeMap<NodeId, String>,
    /// Why this node's PostgreSQL admits no new session, where it answers and admits none.
    pub no_session: Option<String>,
    /// Why main's admits none, by its supervisor's word or its own refusal of the last probe.
    pub main_refuses: Option<String>,
    /// Why main's admits none, as two attempts in a row found, on a secondary.
    pub main_no_session: Option<String>,
    /// Until when this node does not promote itself.
    pub deadlines: Deadlines,
    /// How far the start is.
    pub start: StartFacts,
}

/// What the actors of one node share.
pub struct Shared {
    /// Clocks and ids.
    pub env: Arc<dyn Env>,
    /// What is fixed.
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
        let view = View {
            cluster: own.cluster,
            standpoint: own.standpoint,
            story,
            folded: own.folded,
            postgres: PostgresFacts::silent(interrex_events::PostgresStatus::Unreachable, "not measured yet"),
            postgres_asked_at: None,
            redis: RedisFacts::none(),
            redis_astray: false,
            dependents: BTreeMap::new(),
            lag: None,
            main_sight: None,
            stream: None,
            copying: None,
            candidates: BTreeMap::new(),
            writers: BTreeSet::new(),
            refusals: BTreeMap::new(),
            no_session: None,
            main_refuses: None,
            main_no_session: None,
            deadlines,
            start: StartFacts::default(),
        };
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

    /// Takes events into the view. Only the JournalActor calls it, with what is on disk. Whether the story must be
    /// told anew: an event belongs so far back in it that the journal has to be read.
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

    /// Tells the story anew from the journal, on another thread: a journal of years takes a second.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub async fn tell_anew(&self) -> Result<(), JournalError> {
        loop {
            let (journal, held) = (self.journal.clone(), self.journal.heads());
            let told = tokio::task::spawn_blocking(move || story_of(&journal)).await;
            // a reader that panicked or was cut off leaves the story as it is: the next late event asks again
            let Ok(story) = told else { return Ok(()) };
            let story = story?;
            // what was stored meanwhile may not be in it
            if self.journal.heads() == held {
                self.measured(|view| view.story = story);
                return Ok(());
            }
            tokio::time::sleep(TELL_AGAIN).await;
        }
    }

    /// Folds this node's own events anew, where the sealed begin of them was learned. Only the JournalActor calls it.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn fold_anew(&self) -> Result<(), JournalError> {
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

    /// The same for whoever has another end in mind: it may never come.
    pub(crate) async fn wait_for(&self, mut condition: impl FnMut(&View) -> bool) {
        let mut changes = self.changed.subscribe();
        while !self.look(&mut condition) {
            if changes.changed().await.is_err() {
                // nothing changes any more
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

    /// Notes what `cluster_events` was found to be; a problem that is new is told in the log.
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

    /// What this node says of itself now.
    #[must_use]
    pub fn report(&self) -> NodeReport {
        let now = self.env.moment();
        let me = self.settings.me;
        let view = self.view();
        let nodes = &view.cluster.nodes;
        let row = nodes.get(me);
        let role = row.map_or(self.settings.initial_role, |row| row.role);
        let problems = problems(&view, me, role);
        NodeReport {
            cluster_id: self.settings.cluster_id,
            node: me,
            name: self.settings.name.clone(),
            role,
            status: row.map(|row| row.status).unwrap_or_default(),
            epoch: nodes.epoch,
            main: nodes.main,
            switchpoint: view.standpoint.switchpoint,
            planned: view.standpoint.rests.planned,
            rests: rest(&view, me, now),
            healthy: problems.is_empty(),
            problems,
            postgres: view.postgres.clone(),
            postgres_age_ms: view.postgres_asked_at.map(|asked| now.ms_since(asked)),
            no_session: view.no_session.clone(),
            main_no_session: view.main_no_session.clone(),
            redis: view.redis.clone(),
            dependents: view.dependents.clone(),
            lag: view.lag,
            main_silent_ms: view.main_sight.as_ref().map(|sight| now.ms_since(sight.silent_since)),
            main_unseen: view.main_sight.as_ref().is_some_and(MainSight::is_unseen),
            threshold_ms: self.settings.failover.with(&view.cluster.settings).threshold_ms,
            quorum: self.settings.failover.quorum.to_owned(),
            candidate: self.settings.failover.candidate,
            run: view.cluster.runs.active(me).map(|run| {
                let steps = run.steps.iter().filter(|(_, step)| step.is_running()).map(|(id, _)| *id);
                (run.id, steps.collect())
            }),
            taking_over: Some(view.cluster.runs.active(me).is_some_and(|run| run.new_main == me)),
            journal_heads: self.journal.heads(),
            copying: view.copying,
            stream: view.stream.clone().filter(|_| nodes.is_main(me)),
            settings: view.cluster.settings.changed.map(|changed| (changed, view.cluster.settings.stamp)),
            hlc: self.journal.tick_clock(),
            uptime_ms: now.ms_since(self.started),
            actors: self
                .restarts
                .iter()
                .map(|(name, restarts)| {
                    let dropped =
                        self.lines.dropped.get(name).map_or(0, |count| count.load(Ordering::Relaxed));
                    let facts = ActorFacts { restarts: restarts.load(Ordering::Relaxed), dropped };
                    ((*name).to_owned(), facts)
                })
                .collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
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

/// How long a secondary does not promote itself, and why.
fn rest(view: &View, me: NodeId, now: Moment) -> Option<Rest> {
    if view.cluster.nodes.is_main(me) {
        return None;
    }
    let (left_ms, because) =
        why_it_rests(&view.standpoint.rests, &view.cluster.nodes, view.deadlines.left(now))?;
    Some(Rest { left_ms, because })
}

/// What keeps a node from doing what its role demands.
fn problems(view: &View, me: NodeId, role: Role) -> Vec<String> {
    use interrex_events::{DependentStatus, PostgresStatus};
    let mut problems = Vec::new();
    if view.cluster.nodes.is_superseded(me) {
        problems
            .push(format!("superseded by epoch {}: fenced until it has rejoined", view.cluster.nodes.epoch));
    }
    let (wanted_postgres, wanted_redis) = match role {
        Role::Main | Role::Standalone => (PostgresStatus::Primary, RedisStatus::Master),
        Role::Secondary => (PostgresStatus::Streaming, RedisStatus::Linked),
    };
    problems.extend(view.start.problem.clone());
    if view.postgres.status != wanted_postgres {
        problems.push(with_detail(format!("PostgreSQL is {}", view.postgres.status), &view.postgres.detail));
    }
    if let Some(words) = &view.no_session {
        problems
            .push(format!("PostgreSQL answers the sessions that are open, and admits no new one: {words}"));
    }
    for peer in &view.writers {
        problems.push(format!(
            "TWO MAINS: the PostgreSQL of {name} takes writes beside this main, and its supervisor does not answer: start that \
             supervisor, which stops it (systemctl start interrex, on {name})",
            name = view.cluster.nodes.name(*peer)
        ));
    }
    for (peer, reason) in &view.refusals {
        problems.push(format!(
            "the supervisor of {} refuses this node: {reason}; the two hear nothing of each other",
            view.cluster.nodes.name(*peer)
        ));
    }
    if view.redis.status != wanted_redis && view.redis.status != RedisStatus::None {
        problems.push(with_detail(format!("Redis is {}", view.redis.status), &view.redis.detail));
    }
    if let Some(stream) = view.stream.as_ref().filter(|_| view.cluster.nodes.is_main(me)) {
        problems.extend(stream.problems.iter().map(|problem| format!("cluster_events: {problem}")));
        problems
            .extend(stream.paused.iter().map(|name| format!("{name} is paused: it does not show what is")));
    }
    for (name, facts) in &view.dependents {
        if facts.status != DependentStatus::Ready {
            problems.push(with_detail(format!("{name} is {}", facts.status), &facts.detail));
        }
    }
    problems
}

fn with_detail(text: String, detail: &str) -> String {
    if detail.is_empty() { text } else { format!("{text}: {detail}") }
}
