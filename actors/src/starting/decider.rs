//! Decides whether this node's servers may run: a pure state machine, from the supervisor's start until they run.
//!
//! ```text
//! Began ─┬─ offers its role ─────────────────────────────────────> all but PostgreSQL
//!        ├─ main ─ Ask ─┬─ no answer, for a while ─> Ask
//!        │              ├─ contested: stop what runs ───> Ask
//!        │              └─ confirmed, or alone ─┐
//!        └─ secondary ──────────────────────────┴─ Start ─┬─ login ─ Redis' role ─ main: Ask once more ─> End
//!                                                         └─ failed, or a second main ─ longer and longer pauses ─> Began
//! ```
//!
//! One effect at a time: the shell stores the facts, makes the effect, and returns its result. The decision uses this node's own
//! events, the present answers of peers, and the role in which the data directory would start. A node that is superseded
//! meanwhile, by a fence or by a later epoch, starts nothing more: its fence stops what was started.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc, time::Duration};

use interrex_events::{
    Draft, Epoch, Event, LearnedBy, NodeId, RedisChanged, RedisStatus, Role, RunKind, StartHeldUp,
    StartObstacle, StartedUnconfirmed, StepId,
};
use interrex_projections::{Cluster, Run};

use crate::{
    env::Moment,
    heartbeat::claims::{Judged, Known, judge},
    messages::Claim,
    ports::StopMode,
    wire::{MainPostgres, NodeReport, RedisFacts},
};

/// Pause between two rounds of asking peers.
pub const ASK_AGAIN: Duration = Duration::from_millis(200);
/// First pause before a start that failed is tried again; it doubles with every failure.
pub const START_AGAIN: Duration = Duration::from_secs(2);
/// The longest pause.
const START_AGAIN_LIMIT: Duration = Duration::from_secs(60);

/// What a decision is made from, in addition to the state and the input.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// This node.
    pub me: NodeId,
    /// The fold of this node's own events.
    pub cluster: &'a Cluster,
    /// The newest epoch that each node opened, from the copies of their journals on this node.
    pub opened: &'a BTreeMap<NodeId, Epoch>,
    /// Whether the node has peers to ask.
    pub has_peers: bool,
    /// How long a main waits for an answer.
    pub wait_ms: u64,
    /// The role in which the data directory would start.
    pub directory: Directory,
    /// Whether a server of this node may be running, as last measured.
    pub may_run: bool,
    /// Now.
    pub now: Moment,
}

/// The role in which a data directory would start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Directory {
    /// Whether it would start as a standby.
    pub is_standby: bool,
    /// Whether no rejoin was cut off in it.
    pub is_whole: bool,
}

/// The answer of one peer.
#[derive(Debug, Clone)]
pub struct Heard {
    /// The peer.
    pub peer: NodeId,
    /// Its supervisor's report, or why there is none.
    pub supervisor: Result<Arc<NodeReport>, String>,
    /// The answer of its PostgreSQL, which is asked directly.
    pub postgres: Result<MainPostgres, String>,
}

/// The result of a start.
#[derive(Debug, Clone, Default)]
pub struct Started {
    /// Whether PostgreSQL had to be started.
    pub postgres: bool,
    /// The server's message, if it refuses the configured login.
    pub refused_login: Option<String>,
    /// The state of Redis, if there is one.
    pub redis: Option<RedisFacts>,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// The supervisor began.
    Began,
    /// The facts of the last decision are stored and folded.
    Stored,
    /// One round of asking every peer.
    Heard(Vec<Heard>),
    /// The pause is over.
    Waited,
    /// A start was broken off because of [`Starting::must_yield`].
    BrokenOff,
    /// A start ended.
    Started(Result<Started, String>),
    /// A stop ended.
    Stopped(Result<(), String>),
    /// Redis was made a master, or could not be.
    RedisMade,
}

/// A set of servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    All,
    /// PostgreSQL alone.
    Postgres,
    /// All but PostgreSQL.
    AllButPostgres,
}

/// What is to be done once the facts are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Decide again, now that they are folded.
    Look,
    /// Ask every peer once.
    Ask,
    /// Wait for this long.
    Wait(Duration),
    /// Start what does not run.
    Start(Scope),
    /// Stop what runs.
    Stop(Scope, StopMode),
    /// Make Redis a master.
    MakeRedisMaster,
    /// The start is over.
    End(Result<(), NotStarted>),
}

/// Why the supervisor must end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotStarted {
    /// The configuration does not fit this machine.
    Machine(String),
}

/// The result of a decision.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The facts to store first.
    pub facts: Vec<Draft>,
    /// Messages for the supervisor's log.
    pub tell: Option<String>,
    /// The effect that follows.
    pub effect: Effect,
}

impl From<Effect> for Decision {
    fn from(effect: Effect) -> Self {
        Self { facts: Vec::new(), tell: None, effect }
    }
}

impl Decision {
    fn telling(self, words: impl Into<String>) -> Self {
        Self { tell: Some(words.into()), ..self }
    }

    fn end() -> Self {
        Effect::End(Ok(())).into()
    }
}

/// The result of one round of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Confirmed {
    /// A peer answered, and none speaks against this node.
    Yes,
    /// Another node takes writes as main, or is about to: this one must not serve.
    Contested(String),
    /// No supervisor answered; their errors.
    Nobody(String),
}

/// What comes after the effect that is under way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Phase {
    /// Peers are asked before anything is started.
    #[default]
    Asking,
    /// What may run is being started.
    Starting(Scope),
    /// Peers are asked once more, for starting may have taken long.
    Confirming,
    /// What must not run is being stopped; then this follows.
    Stopping(Effect),
    /// What hinders the start may pass: it begins again after a pause.
    Pausing,
}

/// A start.
#[derive(Debug, Clone, Default)]
pub struct Starting {
    phase: Phase,
    /// Since when peers are asked.
    asking_since: Option<Moment>,
    /// What the last round of asking came to.
    heard: Option<Confirmed>,
    /// What holds it up, as recorded.
    held_up: Option<StartHeldUp>,
    /// Starts that failed, one after the other.
    failures: u32,
    /// Whether it paused once: it holds nothing up any longer but the servers.
    settled: bool,
    /// Whether it is recorded that no peer confirmed it.
    alone: bool,
}

impl Starting {
    /// Handles an input and returns what follows from it.
    pub fn decide(&mut self, situation: Situation<'_>, input: Input) -> Decision {
        match input {
            Input::Began => self.begin(situation),
            Input::Heard(answers) => self.hear(situation, &answers),
            Input::Stored => self.weigh(situation),
            Input::Waited | Input::BrokenOff if self.phase == Phase::Pausing => self.begin(situation),
            Input::Waited => Effect::Ask.into(),
            Input::BrokenOff => self.pause(situation),
            Input::Started(result) => self.started(situation, result),
            Input::Stopped(result) => self.stopped(situation, result),
            Input::RedisMade => self.confirm(situation),
        }
    }

    /// Whether everything but the servers is ready: requests are accepted, and runs may be made. Once true, it stays true.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Whether a start that is under way must be broken off: another node takes the role, or a run controls the servers.
    #[must_use]
    pub fn must_yield(&self, me: NodeId, cluster: &Cluster) -> bool {
        cluster.nodes.is_superseded(me) || (self.settled && cluster.runs.active(me).is_some())
    }

    /// What keeps servers stopped that should run, in a sentence.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        self.held_up.as_ref().map(|held_up| held_up.detail.as_str())
    }

    fn begin(&mut self, situation: Situation<'_>) -> Decision {
        let Situation { me, cluster, directory, now, .. } = situation;
        if self.settled && cluster.runs.active(me).is_some() {
            // its run starts what it needs, and what is left is started after it
            return self.pause(situation);
        }
        if cluster.nodes.is_handing_over(me) {
            // until the offer is answered, its PostgreSQL must not run, however it was started
            let decision = if directory.is_standby {
                self.start(Scope::AllButPostgres)
            } else {
                let start = Effect::Start(Scope::AllButPostgres);
                self.stop(Scope::Postgres, StopMode::Fast, start)
            };
            return decision.telling(
                "this node offers its role to another one: its PostgreSQL stays stopped until that is decided",
            );
        }
        if must_ask(situation) {
            self.phase = Phase::Asking;
            self.asking_since = Some(now);
            return Effect::Ask.into();
        }
        self.start_what_may_run(situation)
    }

    /// A later epoch is stored before anything else is done. An epoch that is not proved yet is not believed, and holds the start
    /// up: its main claims it, and its journal is being copied meanwhile.
    fn hear(&mut self, situation: Situation<'_>, answers: &[Heard]) -> Decision {
        let known = Known { me: situation.me, nodes: &situation.cluster.nodes, opened: situation.opened };
        let reports = answers.iter().filter_map(|heard| heard.supervisor.as_ref().ok());
        let believed = reports
            .filter_map(|report| Claim::of(report, LearnedBy::StartupCheck))
            .filter(|claim| judge(known, claim) == Judged::Believed)
            .max_by_key(|claim| (claim.epoch, Reverse(claim.main)));
        let facts: Vec<Event> = believed.iter().map(|claim| claim.announced().into()).collect();
        self.heard = Some(confirmed(situation, answers));
        if facts.is_empty() { self.weigh(situation) } else { stored_first(situation, facts, Effect::Look) }
    }

    fn weigh(&mut self, situation: Situation<'_>) -> Decision {
        if situation.cluster.nodes.is_superseded(situation.me) {
            return superseded();
        }
        let waited_ms = self.asking_since.map_or(0, |since| situation.now.ms_since(since));
        match self.heard.take() {
            None => Effect::Ask.into(),
            Some(Confirmed::Contested(detail)) => self.contested(situation, detail),
            _ if self.phase == Phase::Confirming => self.done(),
            Some(Confirmed::Yes) => self.start_what_may_run(situation),
            Some(Confirmed::Nobody(_)) if waited_ms < situation.wait_ms => Effect::Wait(ASK_AGAIN).into(),
            Some(Confirmed::Nobody(_)) if std::mem::replace(&mut self.alone, true) => {
                self.start_what_may_run(situation)
            }
            Some(Confirmed::Nobody(detail)) => {
                let alone =
                    Draft::new(situation.cluster.nodes.epoch, StartedUnconfirmed { waited_ms, detail });
                Decision { facts: vec![alone], ..self.start_what_may_run(situation) }
            }
        }
    }

    /// What runs here is stopped at once; who is main is decided elsewhere, and asked for until it is.
    fn contested(&mut self, situation: Situation<'_>, detail: String) -> Decision {
        // an answer that comes later than that is no answer to the next start
        self.asking_since = Some(situation.now);
        let news = self.held_up(situation, StartObstacle::Contested, detail);
        let stops = situation.may_run || self.phase == Phase::Confirming || news.tell.is_some();
        self.phase = Phase::Asking;
        let wait = Effect::Wait(ASK_AGAIN);
        let effect = if stops { self.stop(Scope::All, StopMode::Immediate, wait).effect } else { wait };
        Decision { effect, ..news }
    }

    /// What may run is started, and what must not stays stopped.
    fn start_what_may_run(&mut self, situation: Situation<'_>) -> Decision {
        let Situation { me, cluster, directory, .. } = situation;
        if cluster.nodes.is_superseded(me) {
            return superseded();
        }
        let run = cluster.runs.active(me);
        // a rejoin is at work on the data directory, or was cut off in it: its run starts the servers, or the next one does
        let returns = run
            .is_some_and(|run| run.kind == RunKind::Rejoin && !run.step(StepId::BecomeStandby).succeeded());
        if returns || !directory.is_whole {
            return self.done().telling(
                "this node is coming back as a secondary: its PostgreSQL is started when its data are whole",
            );
        }
        // a run was cut off while it withdrew what it had asked its PostgreSQL for
        if run.is_some_and(Run::is_withdrawing) {
            return self.start(Scope::AllButPostgres).telling(
                "this node withdraws a promotion: its run decides whether its PostgreSQL may start",
            );
        }
        if would_be_a_second_main(situation) {
            let name = cluster.nodes.name(me);
            let detail = format!(
                "PostgreSQL is not started: this node is a secondary, and its data directory has no standby.signal, so it would \
                 start as a second main. Bring this node back, which keeps its data: interrex rejoin {name}"
            );
            let held_up = self.held_up(situation, StartObstacle::SecondMain, detail);
            return Decision { effect: self.start(Scope::AllButPostgres).effect, ..held_up };
        }
        self.start(Scope::All)
    }

    fn started(&mut self, situation: Situation<'_>, result: Result<Started, String>) -> Decision {
        let Situation { me, cluster, .. } = situation;
        if cluster.nodes.is_superseded(me) {
            return superseded();
        }
        let started = match result {
            Err(error) => return self.failed(situation, &error),
            Ok(_) if self.phase == Phase::Starting(Scope::AllButPostgres) => {
                let second = |held_up: &StartHeldUp| held_up.obstacle == StartObstacle::SecondMain;
                return if self.held_up.as_ref().is_some_and(second) {
                    self.pause(situation)
                } else {
                    self.done()
                };
            }
            Ok(started) => started,
        };
        if let Some(words) = started.refused_login {
            let end = Effect::End(Err(NotStarted::Machine(words)));
            return if started.postgres { self.stop(Scope::All, StopMode::Fast, end) } else { end.into() };
        }
        // Redis keeps its role in its configuration file. A secondary's that came up as a master is left to the
        // ReplicationActor, which keeps what it has before it follows.
        let is_replica =
            |redis: &RedisFacts| matches!(redis.status, RedisStatus::Linked | RedisStatus::Unlinked);
        let is_secondary = cluster.nodes.get(me).is_some_and(|row| row.role == Role::Secondary);
        // a run that makes this node main makes its Redis a master too, once the old one has handed over
        let run_does =
            cluster.runs.active(me).is_some_and(|run| run.new_main == me && run.kind != RunKind::Rejoin);
        match started.redis.filter(|redis| is_replica(redis) && !is_secondary && !run_does) {
            Some(redis) => {
                let detail =
                    "Redis started as a replica, but this node is main: making it a master".to_owned();
                let found = RedisChanged { status: redis.status, offset: redis.offset, detail, alarm: true };
                stored_first(situation, vec![found.into()], Effect::MakeRedisMaster)
            }
            None => self.confirm(situation),
        }
    }

    /// The supervisor stays: it can be asked to fence, to rejoin, and what is wrong.
    fn failed(&mut self, situation: Situation<'_>, error: &str) -> Decision {
        self.failures = self.failures.saturating_add(1);
        let detail = format!(
            "{error}. The start is tried again, with pauses of up to a minute; to find the cause: interrex doctor"
        );
        let held_up = self.held_up(situation, StartObstacle::Failed, detail);
        Decision { effect: self.pause(situation).effect, ..held_up }
    }

    /// Starting may have taken long, and a peer may have taken over meanwhile.
    fn confirm(&mut self, situation: Situation<'_>) -> Decision {
        if must_ask(situation) {
            self.phase = Phase::Confirming;
            return Effect::Ask.into();
        }
        self.done()
    }

    fn stopped(&mut self, situation: Situation<'_>, result: Result<(), String>) -> Decision {
        let Phase::Stopping(then) = std::mem::take(&mut self.phase) else { return Effect::Ask.into() };
        if let Effect::Start(scope) = then {
            self.phase = Phase::Starting(scope);
        }
        match result {
            // what must be stopped is stopped before anything else is done
            Err(error) if !matches!(then, Effect::End(Err(_))) => self.failed(situation, &error),
            _ => then.into(),
        }
    }

    /// Records what holds the start up, once for as long as it does.
    fn held_up(&mut self, situation: Situation<'_>, obstacle: StartObstacle, detail: String) -> Decision {
        let held_up = StartHeldUp { obstacle, detail };
        let before = self.held_up.replace(held_up.clone());
        // a server's message about its failure has the time in it
        let known = |it: &StartHeldUp| {
            it.obstacle == obstacle && (obstacle == StartObstacle::Failed || it.detail == held_up.detail)
        };
        if before.as_ref().is_some_and(known) {
            return Decision::end();
        }
        let words = held_up.detail.clone();
        stored_first(situation, vec![held_up.into()], Effect::Look).telling(words)
    }

    fn start(&mut self, scope: Scope) -> Decision {
        self.phase = Phase::Starting(scope);
        Effect::Start(scope).into()
    }

    fn stop(&mut self, scope: Scope, mode: StopMode, then: Effect) -> Decision {
        self.phase = Phase::Stopping(then);
        Effect::Stop(scope, mode).into()
    }

    fn pause(&mut self, situation: Situation<'_>) -> Decision {
        if situation.cluster.nodes.is_superseded(situation.me) {
            return superseded();
        }
        (self.phase, self.settled) = (Phase::Pausing, true);
        let doubled = START_AGAIN * 2u32.saturating_pow(self.failures.saturating_sub(1).min(10));
        Effect::Wait(doubled.min(START_AGAIN_LIMIT)).into()
    }

    fn done(&mut self) -> Decision {
        self.held_up = None;
        Decision::end()
    }
}

/// Its fence is an effect of the event that says so, and stops what runs.
fn superseded() -> Decision {
    Decision::end().telling("this node was superseded: its servers stay stopped")
}

/// A main asks whether it still is one.
fn must_ask(situation: Situation<'_>) -> bool {
    let Situation { me, cluster, has_peers, .. } = situation;
    has_peers && cluster.nodes.is_main(me) && !cluster.nodes.is_superseded(me)
}

fn confirmed(situation: Situation<'_>, answers: &[Heard]) -> Confirmed {
    let name = |peer: NodeId| situation.cluster.nodes.name(peer);
    if let Some(words) = answers.iter().find_map(|heard| rival(situation, heard)) {
        return Confirmed::Contested(words);
    }
    if answers.iter().any(|heard| heard.supervisor.is_ok()) {
        return Confirmed::Yes;
    }
    let silent = answers.iter().filter_map(|heard| Some((heard.peer, heard.supervisor.as_ref().err()?)));
    Confirmed::Nobody(
        silent.map(|(peer, error)| format!("{}: {error}", name(peer))).collect::<Vec<_>>().join("; "),
    )
}

/// Why a peer keeps this main from serving. A primary whose own supervisor says that this node is main is a stray: that
/// supervisor stops it.
fn rival(situation: Situation<'_>, heard: &Heard) -> Option<String> {
    let name = situation.cluster.nodes.name(heard.peer);
    let writable = heard.postgres.as_ref().is_ok_and(|postgres| postgres.writable);
    match &heard.supervisor {
        Ok(report) if report.is_taking_over() => Some(format!(
            "this node's servers stay stopped: {name} is taking over. They start when that is decided (interrex status)"
        )),
        Ok(report) => {
            let Situation { me, cluster: Cluster { nodes, .. }, .. } = situation;
            // of two mains of one epoch the other yields, where this node opened it
            let yields = report.epoch == nodes.epoch
                && me < heard.peer
                && nodes.get(me).is_some_and(|row| row.opened == Some(nodes.epoch));
            // an epoch that no cluster can reach is never believed
            let can_be = report.epoch <= Epoch::HIGHEST;
            let rules = report.main == Some(heard.peer) && report.epoch >= nodes.epoch && can_be && !yields;
            rules.then(|| {
                format!(
                    "this node's servers stay stopped: {name} reports that it is main of epoch {}. They start when one of the two \
                     is no longer main (interrex status, on both)",
                    report.epoch
                )
            })
        }
        Err(error) if writable => Some(format!(
            "this node's servers stay stopped: the PostgreSQL of {name} takes writes, and its supervisor does not answer \
             ({error}). Start that supervisor: it stops a PostgreSQL that must not run"
        )),
        Err(_) => None,
    }
}

/// A secondary whose data directory would start as a primary would be a second main, unless a run of this node was just
/// promoting it.
fn would_be_a_second_main(situation: Situation<'_>) -> bool {
    let Situation { me, cluster, directory, .. } = situation;
    let promoting = cluster.runs.active(me).is_some_and(|run| run.new_main == me && run.is_past_no_return());
    let is_secondary = cluster.nodes.get(me).is_some_and(|row| row.role == Role::Secondary);
    is_secondary && !promoting && !directory.is_standby
}

fn stored_first(situation: Situation<'_>, facts: Vec<Event>, effect: Effect) -> Decision {
    let epoch = situation.cluster.nodes.epoch;
    Decision { facts: facts.into_iter().map(|fact| Draft::new(epoch, fact)).collect(), tell: None, effect }
}

#[cfg(test)]
#[path = "decider_tests.rs"]
mod tests;
