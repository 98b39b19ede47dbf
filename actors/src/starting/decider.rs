//! May this node's servers run? A pure state machine, from the supervisor's start until they do.
//!
//! ```text
//! Began ─┬─ offers its role ─────────────────────────> all but PostgreSQL
//!        ├─ main ─ Ask ─┬─ silent, contested ─ Wait ─> Ask
//!        │              └─ confirmed, alone ─┐
//!        └─ secondary ───────────────────────┴─ Start ─ login ─ Redis' role ─ main: Ask once more ─> End
//! ```
//!
//! One effect at a time: the shell stores the facts, makes the effect, and comes back with what it came to. What is decided
//! goes by this node's own events, by what peers say now, and by what the data directory would start as.

use std::{sync::Arc, time::Duration};

use interrex_events::{
    Draft, Event, LearnedBy, NodeId, RedisChanged, RedisStatus, Role, RunKind, StartedUnconfirmed, StepId,
};
use interrex_projections::{Cluster, Run};

use crate::{
    env::Moment,
    messages::Claim,
    ports::StopMode,
    report::{NodeReport, RedisFacts},
};

/// Pause between two rounds of asking peers.
pub const ASK_AGAIN: Duration = Duration::from_millis(200);

/// What a decision is made from, beside the state and the input.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// This node.
    pub me: NodeId,
    /// The fold of this node's own events.
    pub cluster: &'a Cluster,
    /// Whether there is anybody to ask.
    pub has_peers: bool,
    /// How long a main waits for an answer.
    pub wait_ms: u64,
    /// What the data directory would start as.
    pub directory: Directory,
    /// Now.
    pub now: Moment,
}

/// What a data directory would start as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Directory {
    /// As a standby.
    pub is_standby: bool,
    /// No rejoin was cut off in it.
    pub is_whole: bool,
}

/// What one peer answered.
#[derive(Debug, Clone)]
pub struct Heard {
    /// Its name.
    pub name: String,
    /// Its supervisor's words, or why there are none.
    pub supervisor: Result<Arc<NodeReport>, String>,
}

/// What a start came to.
#[derive(Debug, Clone, Default)]
pub struct Started {
    /// Whether PostgreSQL had to be started.
    pub postgres: bool,
    /// The server's words, where it refuses the configured login.
    pub refused_login: Option<String>,
    /// What Redis is doing, where there is one.
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
    /// A start ended.
    Started(Result<Started, String>),
    /// A stop ended.
    Stopped(Result<(), String>),
    /// Redis was made a master, or could not be.
    RedisMade,
}

/// Which servers.
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
    /// Nothing, for so long.
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
    /// A server did not start, or did not stop.
    Server(String),
}

/// What a decision came to.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The facts to store first.
    pub facts: Vec<Draft>,
    /// What is told in the supervisor's log.
    pub tell: Option<&'static str>,
    /// What is done then.
    pub effect: Effect,
}

impl From<Effect> for Decision {
    fn from(effect: Effect) -> Self {
        Self { facts: Vec::new(), tell: None, effect }
    }
}

impl Decision {
    fn telling(self, words: &'static str) -> Self {
        Self { tell: Some(words), ..self }
    }

    fn end() -> Self {
        Effect::End(Ok(())).into()
    }

    fn give_up(why: NotStarted) -> Self {
        Effect::End(Err(why)).into()
    }
}

/// What one round of asking came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Confirmed {
    /// A peer answered, and none speaks against this node.
    Yes,
    /// A peer is taking over, or its PostgreSQL is a primary already: this node must not serve.
    Contested,
    /// Nobody answered.
    Nobody,
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
}

/// A start.
#[derive(Debug, Clone, Default)]
pub struct Starting {
    phase: Phase,
    /// Since when peers are asked.
    asking_since: Option<Moment>,
    /// What the last round of asking came to, and who did not answer.
    heard: Option<(Confirmed, String)>,
    /// Whether it was told that another node is taking over.
    told_contested: bool,
}

impl Starting {
    /// Takes an input in and says what follows from it.
    pub fn decide(&mut self, situation: Situation<'_>, input: Input) -> Decision {
        match input {
            Input::Began => self.begin(situation),
            Input::Heard(answers) => self.hear(situation, &answers),
            Input::Stored => self.weigh(situation),
            Input::Waited => Effect::Ask.into(),
            Input::Started(result) => self.started(situation, result),
            Input::Stopped(result) => self.stopped(result),
            Input::RedisMade => self.confirm(situation),
        }
    }

    fn begin(&mut self, situation: Situation<'_>) -> Decision {
        let Situation { me, cluster, directory, now, .. } = situation;
        if cluster.nodes.is_handing_over(me) {
            // until the offer is answered, its PostgreSQL must not run, whoever started it
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
            self.asking_since = Some(now);
            return Effect::Ask.into();
        }
        self.start_what_may_run(situation)
    }

    /// A later epoch is stored before anything else is done.
    fn hear(&mut self, situation: Situation<'_>, answers: &[Heard]) -> Decision {
        let mut known = situation.cluster.nodes.epoch;
        let mut facts = Vec::new();
        let mut errors = Vec::new();
        let mut confirmed = Confirmed::Nobody;
        for Heard { name, supervisor } in answers {
            match supervisor {
                Err(error) => errors.push(format!("{name}: {error}")),
                Ok(report) => {
                    let claim = Claim::of(report, LearnedBy::StartupCheck).filter(|it| it.epoch > known);
                    if let Some(claim) = claim {
                        known = claim.epoch;
                        facts.push(claim.announced().into());
                    }
                    if report.takes_over() {
                        confirmed = Confirmed::Contested;
                    } else if confirmed == Confirmed::Nobody {
                        confirmed = Confirmed::Yes;
                    }
                }
            }
        }
        self.heard = Some((confirmed, errors.join("; ")));
        if facts.is_empty() { self.weigh(situation) } else { stored_first(situation, facts, Effect::Look) }
    }

    fn weigh(&mut self, situation: Situation<'_>) -> Decision {
        let superseded = situation.cluster.nodes.is_superseded(situation.me);
        if self.phase == Phase::Confirming {
            let stop = Effect::End(Ok(()));
            return if superseded {
                self.stop(Scope::All, StopMode::Immediate, stop)
            } else {
                Decision::end()
            };
        }
        let Some((confirmed, errors)) = self.heard.clone() else { return Effect::Ask.into() };
        let waited_ms = self.asking_since.map_or(0, |since| situation.now.ms_since(since));
        match confirmed {
            _ if superseded => self.start_what_may_run(situation),
            Confirmed::Yes => self.start_what_may_run(situation),
            Confirmed::Contested if std::mem::replace(&mut self.told_contested, true) => {
                Effect::Wait(ASK_AGAIN).into()
            }
            Confirmed::Contested => Decision::from(Effect::Wait(ASK_AGAIN))
                .telling("a peer is taking over: this node's servers stay stopped until that is decided"),
            Confirmed::Nobody if waited_ms < situation.wait_ms => Effect::Wait(ASK_AGAIN).into(),
            Confirmed::Nobody => {
                let alone = StartedUnconfirmed { waited_ms, detail: errors };
                let fact = Draft::new(situation.cluster.nodes.epoch, alone);
                Decision { facts: vec![fact], ..self.start_what_may_run(situation) }
            }
        }
    }

    /// What may run is started, and what must not is stopped.
    fn start_what_may_run(&mut self, situation: Situation<'_>) -> Decision {
        let Situation { me, cluster, directory, .. } = situation;
        if cluster.nodes.is_superseded(me) {
            // at once, although its fence is an effect of that event: they may be serving this very moment
            return self
                .stop(Scope::All, StopMode::Immediate, Effect::End(Ok(())))
                .telling("this node was superseded: its servers stay stopped");
        }
        let run = cluster.runs.active(me);
        // a rejoin is at work on the data directory, or was cut off in it: its run starts the servers, or the next one does
        let returns = run.is_some_and(|run| {
            run.kind == RunKind::Rejoin && !run.step(StepId::BecomeStandby).succeeded()
        });
        if returns || !directory.is_whole {
            return Decision::end().telling(
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
            let words = "postgres.data_dir: this node is a secondary, but its data directory has no standby.signal and would \
                         start as a second main; make it a standby of main with pg_basebackup -R";
            return Decision::give_up(NotStarted::Machine(words.to_owned()));
        }
        self.start(Scope::All)
    }

    fn started(&mut self, situation: Situation<'_>, result: Result<Started, String>) -> Decision {
        let Situation { me, cluster, .. } = situation;
        let started = match result {
            Err(error) => return Decision::give_up(NotStarted::Server(error)),
            Ok(_) if self.phase == Phase::Starting(Scope::AllButPostgres) => return Decision::end(),
            Ok(started) => started,
        };
        if let Some(words) = started.refused_login {
            let end = Effect::End(Err(NotStarted::Machine(words)));
            return if started.postgres { self.stop(Scope::All, StopMode::Fast, end) } else { end.into() };
        }
        // Redis keeps its role in its configuration file. A secondary's that came up as a master is left alone here, for
        // following would throw its data away: once main's is seen to be one too, the ReplicationActor keeps what it has and
        // makes it a replica.
        let is_replica = |redis: &RedisFacts| matches!(redis.status, RedisStatus::Linked | RedisStatus::Unlinked);
        let is_secondary = cluster.nodes.get(me).is_some_and(|row| row.role == Role::Secondary);
        match started.redis.filter(|redis| is_replica(redis) && !is_secondary) {
            Some(redis) => {
                let detail = "it came up as a replica, but this node is main: making it a master".to_owned();
                let found = RedisChanged { status: redis.status, offset: redis.offset, detail };
                stored_first(situation, vec![found.into()], Effect::MakeRedisMaster)
            }
            None => self.confirm(situation),
        }
    }

    /// Starting may have taken long, and a peer may have taken over meanwhile.
    fn confirm(&mut self, situation: Situation<'_>) -> Decision {
        if must_ask(situation) {
            self.phase = Phase::Confirming;
            return Effect::Ask.into();
        }
        Decision::end()
    }

    fn stopped(&mut self, result: Result<(), String>) -> Decision {
        let Phase::Stopping(then) = std::mem::take(&mut self.phase) else { return Decision::end() };
        if let Effect::Start(scope) = then {
            self.phase = Phase::Starting(scope);
        }
        match result {
            Err(error) if !matches!(then, Effect::End(Err(_))) => {
                Decision::give_up(NotStarted::Server(error))
            }
            _ => then.into(),
        }
    }

    fn start(&mut self, scope: Scope) -> Decision {
        self.phase = Phase::Starting(scope);
        Effect::Start(scope).into()
    }

    fn stop(&mut self, scope: Scope, mode: StopMode, then: Effect) -> Decision {
        self.phase = Phase::Stopping(then);
        Effect::Stop(scope, mode).into()
    }
}

/// A main asks whether it still is one.
fn must_ask(situation: Situation<'_>) -> bool {
    let Situation { me, cluster, has_peers, .. } = situation;
    has_peers && cluster.nodes.is_main(me) && !cluster.nodes.is_superseded(me)
}

/// A secondary whose data directory would start as a primary would be a second main, unless a run of this node was just
/// promoting it.
fn would_be_a_second_main(situation: Situation<'_>) -> bool {
    let Situation { me, cluster, directory, .. } = situation;
    let promoting =
        cluster.runs.active(me).is_some_and(|run| run.new_main == me && run.is_past_no_return());
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
