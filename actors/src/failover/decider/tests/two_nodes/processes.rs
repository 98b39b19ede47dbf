//! Supervisors die and are started again, by the rules of the real start: who may serve, and who must ask first.

use interrex_events::*;
use interrex_projections::{NodeStatus, Projection as _, Run};

use super::{
    MAIN, ME,
    cluster::{Cluster, PATIENCE},
    supervisor::Process,
    world::{Kind, other},
};
use crate::{
    failover::decider::{Input, outstanding},
    journal::Belief,
};

/// Rounds until a supervisor that crashed is started again.
const RESTART: u32 = 2;

impl Cluster {
    pub(super) fn crash(&mut self, node: NodeId, until_mended: bool) {
        let supervisor = self.of_mut(node);
        supervisor.process = Process::Down((!until_mended).then_some(RESTART));
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
        supervisor.orders.clear();
        (supervisor.silent, supervisor.measured, supervisor.followed) = (0, (None, None), None);
        let nodes = &supervisor.node.belief.cluster.nodes;
        let started = SupervisorStarted {
            name: String::new(),
            version: String::new(),
            pid: 2,
            role: nodes.get(node).unwrap().role,
            nodes: Vec::new(),
            main: nodes.main,
            interrupted_run: supervisor.active().map(|run| run.id),
            settings: serde_json::Map::new(),
        };
        self.store(node, started, None);
        self.of_mut(node).process = Process::Starting(0);
        self.start_servers(node);
    }

    /// The rules of a start: who may serve, and who must ask first.
    pub(super) fn start_servers(&mut self, node: NodeId) {
        let supervisor = self.of(node);
        if supervisor.status() == NodeStatus::HandingOver {
            if self.world.of(node).kind == Kind::Primary {
                self.world.stop(node);
            }
            self.world.of_mut(node).redis = true;
            return self.up(node);
        }
        let is_main = supervisor.main() == Some(node);
        if is_main && !supervisor.is_superseded() && !self.may_still_be_main(node) {
            return;
        }
        if self.of(node).is_superseded() {
            self.stop_all(node);
            return self.up(node);
        }
        let run = self.of(node).active().filter(|run| run.kind == RunKind::Rejoin);
        let at_work = run.is_some_and(|run| !run.step(StepId::BecomeStandby).succeeded());
        if at_work || self.world.of(node).half_rewound {
            return self.up(node);
        }
        if self.of(node).active().is_some_and(Run::is_withdrawing) {
            return self.up(node);
        }
        if self.refuses_a_second_main(node) {
            self.of_mut(node).process = Process::Down(None);
            self.wrong.push(format!("the supervisor of {node} refuses to start a second main"));
            return;
        }
        let machine = self.world.of_mut(node);
        machine.start();
        machine.redis = true;
        self.hear(node);
        if self.of(node).is_superseded() {
            self.stop_all(node);
        }
        self.up(node);
    }

    /// Asks its peer, until that has answered or the wait is over.
    fn may_still_be_main(&mut self, node: NodeId) -> bool {
        self.hear(node);
        if self.of(node).is_superseded() {
            return true;
        }
        let peer = other(node);
        if self.answers(peer) {
            return !self.says_it_takes_over(peer);
        }
        let Process::Starting(waited) = &mut self.of_mut(node).process else { return true };
        *waited += 1;
        let alone = *waited > PATIENCE;
        if alone {
            let unconfirmed = StartedUnconfirmed { waited_ms: 0, detail: String::new() };
            self.store(node, unconfirmed, None);
        }
        alone
    }

    fn refuses_a_second_main(&self, node: NodeId) -> bool {
        let cluster = &self.of(node).node.belief.cluster;
        let run = cluster.runs.active(node);
        let promoting = run.is_some_and(|run| run.new_main == node && run.is_past_no_return());
        let secondary = cluster.nodes.get(node).unwrap().role == Role::Secondary;
        secondary && !promoting && self.world.of(node).kind == Kind::Primary
    }

    fn up(&mut self, node: NodeId) {
        self.of_mut(node).process = Process::Up;
        let outstanding = outstanding(node, &self.of(node).node.belief);
        self.order(node, outstanding);
        self.decide(node, &Input::Booted);
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
        self.world.link = true;
        for node in [MAIN, ME] {
            let down = matches!(self.of(node).process, Process::Down(_));
            if down || std::mem::take(&mut self.world.of_mut(node).killed) {
                self.crash(node, false);
            }
        }
    }
}
