//! The supervisors on the machines of a [`World`]: they start, watch and decide by the real deciders, and hear of each other.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use interrex_events::*;
use interrex_projections::NodeStatus;
use uuid::Uuid;

use super::{
    super::Node,
    faults::{Case, Nodes},
    supervisor::{Process, Supervisor},
    world::World,
};
use crate::{
    failover::decider::*,
    heartbeat::decider as heartbeat,
    messages::{Accepted, MainSight, Operate, Operation},
    wire::{HandoverOffer, MainPostgres, NodeReport, PostgresFacts, RedisFacts},
};

/// How long a round takes.
const ROUND_MS: u64 = 50;
/// After which a silent main is lost, and after which one that hears nobody starts alone.
pub(super) const PATIENCE_MS: u64 = 5 * ROUND_MS;

pub(super) const TIMING: heartbeat::Timing = heartbeat::Timing {
    probe_interval: Duration::from_millis(ROUND_MS),
    probe_timeout: Duration::from_millis(ROUND_MS),
    threshold_ms: PATIENCE_MS,
};

pub(super) struct Cluster {
    pub world: World,
    supervisors: BTreeMap<NodeId, Supervisor>,
    pub case: Case,
    /// Whether the fault has struck.
    pub struck: bool,
    pub mended: bool,
    /// Rounds until the links are there again by themselves.
    pub links_back_in: Option<u32>,
    /// Rounds in which two primaries took writes although their supervisors could tell each other.
    split: u32,
    /// Rounds in which a node that was superseded took writes under its living supervisor.
    pub outlawed: BTreeMap<NodeId, u32>,
    pub wrong: Vec<String>,
    /// Whether the last node comes first in a round, so that messages cross the other way.
    pub turned_round: bool,
    /// Nodes that say of main and of its epoch what no event says.
    pub lies: BTreeMap<NodeId, (NodeId, Epoch)>,
    /// Whether a probe is due: the steps of a run take less time than two probes are apart.
    pub probes: bool,
    /// A node that lacks what it would ask others with.
    pub cannot_ask: Option<NodeId>,
    runs_begun: u128,
}

impl Cluster {
    pub(super) fn new(case: Case) -> Self {
        let nodes = case.nodes();
        let supervisors =
            nodes.iter().map(|node| (*node, Supervisor::new(Node::of_cluster(*node, &nodes)))).collect();
        let mut cluster = Self {
            world: World::new(&nodes),
            supervisors,
            case,
            struck: true,
            mended: false,
            links_back_in: None,
            split: 0,
            outlawed: BTreeMap::new(),
            wrong: Vec::new(),
            turned_round: case.nodes == Nodes::Three,
            lies: BTreeMap::new(),
            probes: true,
            cannot_ask: None,
            runs_begun: 0,
        };
        for node in nodes {
            cluster.fresh_run(node);
        }
        cluster
    }

    pub(super) fn nodes(&self) -> Vec<NodeId> {
        self.world.nodes()
    }

    pub(super) fn peers(&self, node: NodeId) -> Vec<NodeId> {
        self.nodes().into_iter().filter(|peer| *peer != node).collect()
    }

    pub(super) fn of(&self, node: NodeId) -> &Supervisor {
        &self.supervisors[&node]
    }

    pub(super) fn of_mut(&mut self, node: NodeId) -> &mut Supervisor {
        self.supervisors.get_mut(&node).unwrap()
    }

    fn fresh_run(&mut self, node: NodeId) {
        self.runs_begun += 1;
        self.of_mut(node).node.fresh_run = RunId(Uuid::from_u128(100 + self.runs_begun));
    }

    // ---- what supervisors hear of each other ----------------------------------------------------------------

    /// Whether the supervisor of a node answers another one, if only that it is starting.
    pub(super) fn answers(&self, from: NodeId, node: NodeId) -> bool {
        self.world.linked(from, node) && self.of(node).is_alive()
    }

    /// Whether it takes what the other one asks for.
    pub(super) fn takes_requests(&self, from: NodeId, node: NodeId) -> bool {
        self.answers(from, node) && !self.of(node).is_held()
    }

    /// What a supervisor says of itself, where it answers.
    pub(super) fn report(&self, from: NodeId, node: NodeId) -> Result<Arc<NodeReport>, String> {
        if !self.answers(from, node) {
            return Err("no answer".to_owned());
        }
        let supervisor = self.of(node);
        let nodes = &supervisor.node.belief.cluster.nodes;
        let run = supervisor.active();
        let sight = supervisor.node.sight.as_ref();
        let lie = self.lies.get(&node);
        Ok(Arc::new(NodeReport {
            cluster_id: ClusterId(Uuid::nil()),
            node,
            name: nodes.name(node),
            role: nodes.get(node).unwrap().role,
            candidate: supervisor.node.policy.candidate,
            status: supervisor.status(),
            epoch: lie.map_or(nodes.epoch, |(_, epoch)| *epoch),
            main: lie.map_or(nodes.main, |(main, _)| Some(*main)),
            switchpoint: supervisor.node.belief.standpoint.switchpoint,
            planned: supervisor.node.belief.standpoint.rests.planned,
            rests: None,
            no_session: None,
            main_no_session: None,
            healthy: true,
            problems: Vec::new(),
            postgres: self.postgres_facts(node),
            postgres_age_ms: Some(0),
            redis: no_redis(),
            dependents: BTreeMap::new(),
            lag: None,
            main_silent_ms: sight.map(|sight| supervisor.node.now.ms_since(sight.silent_since)),
            main_unseen: sight.is_some_and(MainSight::is_unseen),
            threshold_ms: PATIENCE_MS,
            quorum: "none".to_owned(),
            run: run.map(|run| {
                let running = run.steps.iter().filter(|(_, step)| step.is_running());
                (run.id, running.map(|(id, _)| *id).collect())
            }),
            copying: None,
            taking_over: Some(run.is_some_and(|run| run.new_main == node)),
            journal_heads: Vec::new(),
            stream: None,
            settings: None,
            hlc: Hlc::from_wall_ms(0),
            uptime_ms: 0,
            actors: BTreeMap::new(),
            version: String::new(),
        }))
    }

    /// What a node's PostgreSQL says to another one that asks it directly.
    pub(super) fn asked_postgres(&self, from: NodeId, node: NodeId) -> Result<MainPostgres, String> {
        let machine = self.world.of(node);
        if !machine.running || !self.world.linked(from, node) {
            return Err("no answer".to_owned());
        }
        Ok(MainPostgres { writable: machine.is_writable(), lsn: Some(machine.end()) })
    }

    /// What a node's copies of the others' journals say: they come with the heartbeats.
    pub(super) fn opened(&self, node: NodeId) -> std::collections::BTreeMap<NodeId, Epoch> {
        let linked = |peer: &NodeId| *peer == node || self.world.linked(node, *peer);
        let opened = |peer: NodeId| self.of(peer).node.belief.cluster.nodes.get(peer)?.opened;
        let peers = self.peers(node).into_iter().filter(linked);
        peers.filter_map(|peer| Some((peer, opened(peer)?))).collect()
    }

    pub(super) fn postgres_facts(&self, node: NodeId) -> PostgresFacts {
        let machine = self.world.of(node);
        PostgresFacts {
            status: self.world.status(node),
            timeline: machine.running.then(|| machine.timeline()),
            lsn: machine.running.then(|| machine.end()),
            replayed: None,
            detail: String::new(),
        }
    }

    // ---- storing, deciding ----------------------------------------------------------------------------------

    /// Stores a fact, and orders what follows from it.
    pub(super) fn store(&mut self, node: NodeId, event: impl Into<Event>, run: Option<RunId>) {
        let supervisor = self.of_mut(node);
        let event = event.into();
        supervisor.node.store(event.clone(), run);
        let effects = effects(node, &supervisor.node.belief, run, &event);
        self.order(node, effects);
    }

    pub(super) fn decide(&mut self, node: NodeId, input: &Input) {
        // what else there is to decide is derived anew once the start is settled
        if self.of(node).is_held() && !input.concerns_a_fence() {
            return;
        }
        let drafts = decide(self.of(node).node.situation(), input);
        self.state(node, drafts);
    }

    fn state(&mut self, node: NodeId, drafts: Vec<Draft>) {
        let begins = drafts.iter().any(|draft| draft.run_id == Some(self.of(node).node.fresh_run));
        for draft in drafts {
            self.store(node, draft.event, draft.run_id);
        }
        if begins {
            self.fresh_run(node);
        }
        self.of_mut(node).node.pass(1);
    }

    /// What somebody asks for: the run, or why not.
    pub(super) fn ask(&mut self, node: NodeId, operation: &Operation) -> Result<RunId, String> {
        let request = Operate { operation: operation.clone(), due: None, asker: Cause::System };
        let answered = answer(self.of(node).node.situation(), &request);
        let (accepted, drafts) = answered.map_err(|declined| declined.code.to_owned())?;
        self.state(node, drafts);
        match accepted {
            Accepted::Run(run) | Accepted::FenceLifted(run) => Ok(run),
            Accepted::Scheduled(_) | Accepted::Unscheduled(_) => Err("it is for a time".to_owned()),
        }
    }

    /// What a peer says to an offer, or nothing if it has not decided yet.
    pub(super) fn offer(&mut self, to: NodeId, offer: &HandoverOffer) -> Option<Result<(), String>> {
        let run = self.ask(to, &Operation::TakeOver(offer.clone())).ok()?;
        let nodes = &self.of(to).node.belief.cluster.nodes;
        if nodes.is_main(to) && nodes.epoch >= offer.epoch {
            return Some(Ok(()));
        }
        let otherwise = self.of(to).active().is_some() || nodes.epoch >= offer.epoch;
        let run = self.of(to).node.belief.cluster.runs.get(run)?;
        let refused = !run.is_running() && !otherwise && !run.is_past_no_return();
        refused.then(|| Err(run.problem.clone().unwrap_or_default()))
    }

    // ---- one round ------------------------------------------------------------------------------------------

    pub(super) fn round(&mut self) {
        self.links_back_in = self.links_back_in.and_then(|rounds| rounds.checked_sub(1));
        if self.links_back_in == Some(0) {
            self.world.mend_links();
        }
        for node in self.world.writable() {
            let reign = self.of(node).reign();
            self.world.acknowledge(node, reign);
        }
        self.world.promote_late();
        self.world.replicate();
        self.check();
        for node in self.in_turn() {
            match self.of(node).process {
                Process::Down(Some(0)) => self.boot(node),
                Process::Down(Some(rounds)) => self.of_mut(node).process = Process::Down(Some(rounds - 1)),
                Process::Down(None) => {}
                Process::Alive => {
                    self.measure(node);
                    self.probe(node);
                    self.check();
                    self.go_on_starting(node);
                    self.look(node);
                    self.check();
                    self.work(node);
                }
            }
            self.world.replicate();
            self.check();
            self.of_mut(node).node.pass(i64::try_from(ROUND_MS).unwrap());
        }
        self.check_round();
    }

    /// Who comes first in a round.
    fn in_turn(&self) -> Vec<NodeId> {
        let mut nodes = self.nodes();
        if self.turned_round {
            nodes.reverse();
        }
        nodes
    }

    pub(super) fn events(&self) -> usize {
        self.supervisors.values().map(|supervisor| supervisor.node.journal.len()).sum()
    }

    pub(super) fn is_quiet(&self) -> bool {
        let asked = self.nodes().iter().any(|node| self.world.of(*node).promoted_in.is_some());
        let rests = |supervisor: &Supervisor| {
            supervisor.is_alive()
                && supervisor.start.is_none()
                && supervisor.orders.iter().all(|order| supervisor.follows_in_vain(order))
                && supervisor.active().is_none()
        };
        !asked && self.supervisors.values().all(rests)
    }

    /// What may last for a round or two, and no longer.
    pub(super) fn check_round(&mut self) {
        let writable = self.world.writable();
        let told = writable.iter().all(|node| self.of(*node).is_alive())
            && writable.iter().all(|one| writable.iter().all(|other| self.world.linked(*one, *other)));
        self.split = if writable.len() > 1 && told { self.split + 1 } else { 0 };
        if self.split > 3 {
            self.wrong.push("two primaries take writes although both supervisors know".to_owned());
        }
        for node in self.nodes() {
            let supervisor = self.of(node);
            let must_not = supervisor.status() == NodeStatus::Fenced
                || supervisor.start.as_ref().is_some_and(|start| start.starting.problem().is_some());
            let outlaw = supervisor.is_alive() && must_not && self.world.of(node).is_writable();
            let rounds = self.outlawed.entry(node).or_default();
            *rounds = if outlaw { *rounds + 1 } else { 0 };
            if *rounds > 2 {
                self.wrong.push(format!("{node} must not serve, and takes writes under its supervisor"));
            }
        }
    }
}

pub(super) fn no_redis() -> RedisFacts {
    RedisFacts::none()
}
