//! Supervisors die and are started again. Who may serve then, and who must ask first, is decided by the real start.

use interrex_events::*;
use interrex_projections::Projection as _;

use super::{
    cluster::{Cluster, PATIENCE_MS},
    supervisor::{Process, Start},
    world::Kind,
};
use crate::{
    failover::decider::{Input, outstanding},
    heartbeat::decider::Watch,
    journal::Belief,
    starting::decider::{
        ASK_AGAIN, Directory, Effect, Heard, Input as StartInput, NotStarted, Scope, Situation, Started,
        Starting,
    },
};

/// Rounds until a supervisor that crashed is started again.
const RESTART: u32 = 2;
/// Rounds that a start takes which fails.
const FAILS_IN: u32 = 8;
/// Rounds until a start that failed is tried again.
const AGAIN: u32 = 6;

impl Cluster {
    pub(super) fn crash(&mut self, node: NodeId, until_mended: bool) {
        let supervisor = self.of_mut(node);
        supervisor.process = Process::Down((!until_mended).then_some(RESTART));
        supervisor.start = None;
        supervisor.orders.clear();
    }

    /// A new process: it knows what was stored, and nothing else.
    pub(super) fn boot(&mut self, node: NodeId) {
        let supervisor = self.of_mut(node);
        let mut belief = Belief::default();
        for envelope in &supervisor.node.journal {
            belief.cluster.apply(envelope);
            belief.standpoint.apply(envelope);
        }
        supervisor.node.belief = belief;
        supervisor.node.candidates.clear();
        supervisor.orders.clear();
        (supervisor.watch, supervisor.measured, supervisor.followed) = (Watch::default(), (None, None), None);
        let nodes = &supervisor.node.belief.cluster.nodes;
        let started = SupervisorStarted {
            name: nodes.name(node),
            version: String::new(),
            pid: 2,
            role: nodes.get(node).unwrap().role,
            nodes: Vec::new(),
            main: nodes.main,
            interrupted_run: supervisor.active().map(|run| run.id),
            settings: serde_json::Map::new(),
        };
        supervisor.process = Process::Alive;
        // held from its first event on
        supervisor.start = Some(Start { starting: Starting::default(), effect: Effect::Look, rounds: 0 });
        self.store(node, started, None);
        let fences = outstanding(node, &self.of(node).node.belief);
        self.order(node, fences);
        self.decide_start(node, StartInput::Began);
    }

    fn decide_start(&mut self, node: NodeId, input: StartInput) {
        let Some(mut start) = self.of_mut(node).start.take() else { return };
        let was_settled = start.starting.is_settled();
        let machine = self.world.of(node);
        let opened = self.opened(node);
        let situation = Situation {
            me: node,
            opened: &opened,
            cluster: &self.of(node).node.belief.cluster,
            has_peers: true,
            wait_ms: PATIENCE_MS,
            directory: Directory {
                is_standby: machine.kind != Kind::Primary,
                is_whole: !machine.half_rewound,
            },
            may_run: machine.running,
            now: self.of(node).node.now,
        };
        let decision = start.starting.decide(situation, input);
        start.effect = decision.effect;
        start.rounds = match start.effect {
            Effect::Wait(pause) if pause > ASK_AGAIN => AGAIN,
            Effect::Start(_) if machine.broken && !machine.running => FAILS_IN.max(machine.starts_in),
            Effect::Start(_) if !machine.running => machine.starts_in,
            _ => 0,
        };
        let is_over = matches!(start.effect, Effect::End(_));
        if let Effect::End(Err(NotStarted::Machine(words))) = &start.effect {
            self.wrong.push(format!("the supervisor of {node} does not start: {words}"));
        }
        let settles = !was_settled && (is_over || start.starting.is_settled());
        self.of_mut(node).start = Some(start);
        for draft in decision.facts {
            self.store(node, draft.event, None);
        }
        if is_over {
            self.of_mut(node).start = None;
        }
        if settles {
            let outstanding = outstanding(node, &self.of(node).node.belief);
            self.order(node, outstanding);
            self.decide(node, &Input::Booted);
        }
    }

    /// One effect of a start in a round.
    pub(super) fn go_on_starting(&mut self, node: NodeId) {
        let Some(start) = &mut self.of_mut(node).start else { return };
        if start.rounds > 0 {
            start.rounds -= 1;
            return;
        }
        let effect = start.effect.clone();
        let cluster = &self.of(node).node.belief.cluster;
        let yields = self.of(node).start.as_ref().is_some_and(|it| it.starting.must_yield(node, cluster));
        let input = match effect {
            Effect::Look => StartInput::Stored,
            Effect::Ask => StartInput::Heard(self.asked_everyone(node)),
            Effect::Wait(_) => StartInput::Waited,
            Effect::Start(_) if yields => StartInput::BrokenOff,
            Effect::Start(scope) => StartInput::Started(self.start_servers(node, scope)),
            Effect::Stop(Scope::Postgres, _) => {
                self.world.stop(node);
                StartInput::Stopped(Ok(()))
            }
            Effect::Stop(..) => {
                self.stop_all(node);
                StartInput::Stopped(Ok(()))
            }
            Effect::MakeRedisMaster => StartInput::RedisMade,
            Effect::End(_) => return,
        };
        self.decide_start(node, input);
    }

    fn asked_everyone(&self, node: NodeId) -> Vec<Heard> {
        let heard = |peer: NodeId| Heard {
            peer,
            supervisor: self.report(node, peer),
            postgres: self.asked_postgres(node, peer),
        };
        self.peers(node).into_iter().map(heard).collect()
    }

    fn start_servers(&mut self, node: NodeId, scope: Scope) -> Result<Started, String> {
        let machine = self.world.of_mut(node);
        machine.redis = true;
        let ran = machine.running;
        if scope != Scope::AllButPostgres && !machine.start() {
            return Err("PostgreSQL did not start".to_owned());
        }
        Ok(Started { postgres: !ran, ..Started::default() })
    }

    pub(super) fn stop_all(&mut self, node: NodeId) {
        let machine = self.world.of_mut(node);
        machine.kill();
        machine.redis = false;
    }

    pub(super) fn kill(&mut self, node: NodeId) {
        let machine = self.world.of_mut(node);
        machine.killed |= machine.running;
        machine.kill();
    }

    /// Links are up again, supervisors too; where somebody killed PostgreSQL, a person starts the supervisor again.
    pub(super) fn mend(&mut self) {
        self.mended = true;
        self.world.mend_links();
        for node in self.nodes() {
            self.world.of_mut(node).broken = false;
            let killed = std::mem::take(&mut self.world.of_mut(node).killed);
            if killed || !self.of(node).is_alive() {
                self.crash(node, false);
            }
        }
    }
}
