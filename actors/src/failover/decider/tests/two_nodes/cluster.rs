//! Two supervisors on the machines of a [`World`]: they decide with the real decider, and hear of each other.

use interrex_events::*;
use interrex_projections::NodeStatus;
use uuid::Uuid;

use super::{
    super::Node,
    MAIN, ME,
    faults::Case,
    supervisor::{Process, Supervisor},
    world::{World, index, other},
};
use crate::{
    failover::decider::*,
    messages::{Accepted, HandoverOffer, Operate, Operation},
};

/// Rounds after which a silent main is lost, and after which one that hears nobody starts alone.
pub(super) const PATIENCE: u32 = 5;

pub(super) struct Cluster {
    pub world: World,
    supervisors: [Supervisor; 2],
    pub case: Case,
    /// Whether the fault has struck.
    pub struck: bool,
    pub mended: bool,
    /// Rounds until the link is there again by itself.
    pub link_back_in: Option<u32>,
    /// Rounds in which two primaries took writes although their supervisors could tell each other.
    split: u32,
    pub wrong: Vec<String>,
    runs_begun: u128,
}

impl Cluster {
    pub(super) fn new(case: Case) -> Self {
        let supervisors = [Supervisor::new(Node::main()), Supervisor::new(Node::secondary())];
        let (world, wrong) = (World::new(), Vec::new());
        let mut cluster = Self {
            world,
            supervisors,
            case,
            struck: true,
            mended: false,
            link_back_in: None,
            split: 0,
            wrong,
            runs_begun: 0,
        };
        for node in [MAIN, ME] {
            cluster.fresh_run(node);
        }
        cluster
    }

    pub(super) fn of(&self, node: NodeId) -> &Supervisor {
        &self.supervisors[index(node)]
    }

    pub(super) fn of_mut(&mut self, node: NodeId) -> &mut Supervisor {
        &mut self.supervisors[index(node)]
    }

    fn fresh_run(&mut self, node: NodeId) {
        self.runs_begun += 1;
        self.of_mut(node).node.fresh_run = RunId(Uuid::from_u128(100 + self.runs_begun));
    }

    // ---- what supervisors hear of each other ----------------------------------------------------------------

    /// Whether the supervisor of a node answers the other one, if only that it is starting.
    pub(super) fn answers(&self, node: NodeId) -> bool {
        self.world.link && !matches!(self.of(node).process, Process::Down(_))
    }

    /// Whether it takes what the other one asks for.
    pub(super) fn takes_requests(&self, node: NodeId) -> bool {
        self.world.link && self.of(node).process == Process::Up
    }

    pub(super) fn says_it_takes_over(&self, node: NodeId) -> bool {
        let takes_over = self.of(node).active().is_some_and(|run| run.new_main == node);
        takes_over || self.world.of(node).is_writable()
    }

    fn hands_over(&self, node: NodeId) -> bool {
        let supervisor = self.of(node);
        let stopping = |step: &StepId| {
            let run = supervisor.active();
            run.is_some_and(|run| run.step(*step).is_running())
        };
        let steps = [StepId::StopMain, StepId::ProveHandover, StepId::HandOver];
        supervisor.status() == NodeStatus::HandingOver || steps.iter().any(stopping)
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
        self.link_back_in = self.link_back_in.and_then(|rounds| rounds.checked_sub(1));
        self.world.link |= self.link_back_in == Some(0);
        self.world.clients_write();
        self.world.promote_late();
        self.world.replicate();
        self.check();
        for node in [MAIN, ME] {
            match self.of(node).process {
                Process::Down(Some(0)) => self.boot(node),
                Process::Down(Some(rounds)) => self.of_mut(node).process = Process::Down(Some(rounds - 1)),
                Process::Down(None) => {}
                Process::Starting(_) => self.start_servers(node),
                Process::Up => {
                    self.measure(node);
                    self.hear(node);
                    self.watch_main(node);
                    self.check();
                    self.work(node);
                }
            }
            self.world.replicate();
            self.check();
            self.of_mut(node).node.pass(50);
        }
        self.check_split();
    }

    fn measure(&mut self, node: NodeId) {
        let status = self.world.status(node);
        let machine = self.world.of(node);
        let redis = if machine.redis { RedisStatus::Master } else { RedisStatus::Stopped };
        let lsn = machine.running.then(|| machine.end());
        let timeline = machine.running.then(|| machine.timeline());
        if self.of_mut(node).measured.0.replace(status) != Some(status) {
            self.store(node, PostgresChanged { status, timeline, lsn, detail: String::new() }, None);
        }
        if self.of_mut(node).measured.1.replace(redis) != Some(redis) {
            self.store(
                node,
                RedisChanged { status: redis, offset: None, detail: String::new(), alarm: false },
                None,
            );
        }
    }

    /// A later epoch is stored before anything else is done.
    pub(super) fn hear(&mut self, node: NodeId) {
        let peer = other(node);
        if self.answers(peer) && self.of(peer).epoch() > self.of(node).epoch() {
            let claim = self.of(peer).claim();
            self.store(node, claim, None);
        }
    }

    fn watch_main(&mut self, node: NodeId) {
        let main = other(node);
        if self.of(node).main() != Some(main) {
            return;
        }
        let says_well = self.answers(main) && (self.world.of(main).is_writable() || self.hands_over(main));
        let well = self.world.answers_as_primary(main) || says_well;
        let standpoint = &self.of(node).node.belief.standpoint;
        let (seen, verdict) = (standpoint.seen_main == Some(main), standpoint.verdict.is_some());
        let epoch = self.of(node).epoch();
        if well {
            self.of_mut(node).silent = 0;
            if verdict {
                let evidence = super::evidence();
                let recovered = MainRecovered { main, silent_ms: 0, threshold_ms: 0, evidence };
                self.store(node, recovered, None);
            }
            if !seen {
                self.store(node, MainSeen { main, epoch, evidence: super::evidence() }, None);
            }
            return;
        }
        self.of_mut(node).silent += 1;
        if self.of(node).silent == PATIENCE && seen {
            let (silent_ms, threshold_ms, evidence) = (5_000, 5_000, super::evidence());
            self.store(node, MainLost { main, silent_ms, threshold_ms, evidence, last_report: None }, None);
        } else if verdict {
            self.decide(node, &Input::Looked);
        }
    }

    pub(super) fn events(&self) -> usize {
        self.supervisors.iter().map(|supervisor| supervisor.node.journal.len()).sum()
    }

    pub(super) fn is_quiet(&self) -> bool {
        let asked = [MAIN, ME].iter().any(|node| self.world.of(*node).promoted_in.is_some());
        !asked
            && self.supervisors.iter().all(|supervisor| {
                supervisor.process == Process::Up
                    && supervisor.orders.is_empty()
                    && supervisor.active().is_none()
            })
    }

    fn check_split(&mut self) {
        let both = [MAIN, ME].iter().all(|node| self.world.of(*node).is_writable());
        let told = self.takes_requests(MAIN) && self.takes_requests(ME);
        self.split = if both && told { self.split + 1 } else { 0 };
        if self.split > 2 {
            self.wrong.push("two primaries take writes although both supervisors know".to_owned());
        }
    }
}
