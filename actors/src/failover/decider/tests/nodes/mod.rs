//! The nodes of a cluster, two or three, on simulated machines: whatever goes wrong at whichever step of a run, the end is
//! named, and at most one node takes writes. Every supervisor starts, watches its peers and makes its runs by the real
//! deciders; what is simulated is what they act on.
//!
//! Every case has a name, such as `Two/Switchover/takeover/promote/CrashesAfter`; `INTERREX_CASE` runs those alone whose name
//! contains it.

mod claims;
mod cluster;
mod faults;
mod invariants;
mod makers;
mod orders;
mod processes;
mod races;
mod strays;
mod supervisor;
mod surprises;
mod taking_over;
mod verdicts;
mod watching;
mod world;

use interrex_events::{Finding, NodeId, Request, RunKind, StepId};
use interrex_projections::{NodeStatus, Run, RunEnd};

use self::{
    cluster::Cluster,
    faults::{Case, Fault, Nodes, Scene},
};
use super::{MAIN, ME, Node, switchover::switchover};
use crate::{
    messages::{MainSight, Operation},
    test_values,
};

/// The third node, where there is one.
const THIRD: NodeId = NodeId(3);
/// Rounds that a case may take, before and after everything is mended.
const BOUND: u32 = 400;
/// Rounds in which nothing is recorded and nothing is to be done: longer than any patience.
const QUIET: u32 = 8;

impl Node {
    /// A node of a cluster at rest: main serves, and the others stream from it. Of three, one alone may promote itself.
    fn of_cluster(me: NodeId, nodes: &[NodeId]) -> Self {
        let spec =
            |node: &NodeId| test_values::spec(*node, ["alpha", "beta", "gamma"][(node.0 - 1) as usize]);
        let mut node = Self::empty(me);
        node.policy.nodes = nodes.len();
        node.policy.candidate = (nodes.len() > 2).then_some(ME);
        node.policy.threshold_ms = cluster::PATIENCE_MS;
        let started = interrex_events::SupervisorStarted {
            name: String::new(),
            version: String::new(),
            pid: 1,
            role: if me == MAIN { interrex_events::Role::Main } else { interrex_events::Role::Secondary },
            nodes: nodes.iter().map(spec).collect(),
            main: Some(MAIN),
            interrupted_run: None,
            settings: serde_json::Map::new(),
        };
        node.store(started.into(), None);
        node
    }
}

impl Cluster {
    /// Whether it comes to rest.
    fn settle(&mut self) -> bool {
        let mut quiet = 0;
        for _ in 0..BOUND {
            let before = self.events();
            self.round();
            quiet = if self.is_quiet() && self.events() == before { quiet + 1 } else { 0 };
            if quiet == QUIET {
                return true;
            }
        }
        false
    }

    /// A takeover that failed past its point of no return ends with a person's word alone, and the offer waits for it.
    fn waits_for_a_person(&self) -> bool {
        let failed =
            |run: &Run| run.kind == RunKind::Takeover && run.end == RunEnd::NeedsOperator && run.node == ME;
        let offers = self.of(MAIN).status() == NodeStatus::HandingOver;
        offers && self.of(ME).active().is_none() && self.of(ME).runs().any(failed)
    }

    /// A main that is fenced for a run whose node cannot say any more that it has ended.
    fn fenced_for_nothing(&self) -> Option<NodeId> {
        let fenced = |node: &NodeId| {
            let own = self.of(*node);
            own.status() == NodeStatus::Fenced && own.main() == Some(*node)
        };
        let nobody_serves = self.world.writable().is_empty();
        self.nodes().into_iter().find(|node| fenced(node) && nobody_serves)
    }

    fn rounds(&mut self, rounds: u32) {
        for _ in 0..rounds {
            self.round();
        }
    }

    fn host_dies(&mut self, node: NodeId) {
        self.kill(node);
        self.crash(node, true);
    }

    /// Whatever the scene's run needs has happened, and it is about to begin.
    fn begin(&mut self) {
        self.rounds(3);
        self.struck = false;
        if matches!(self.case.scene, Scene::Promotion | Scene::Forced) {
            self.of_mut(ME).node.policy.auto_enabled = false;
        }
        match self.case.scene {
            Scene::HostDies => self.host_dies(MAIN),
            Scene::PostgresDies => self.kill(MAIN),
            Scene::StartsInVain => {
                self.kill(MAIN);
                self.world.of_mut(MAIN).broken = true;
                self.crash(MAIN, false);
            }
            // a third node that hears main would object
            Scene::LinkDies => self.peers(MAIN).into_iter().for_each(|peer| self.world.cut(MAIN, peer)),
            Scene::Promotion | Scene::Forced => {
                let forced = self.case.scene == Scene::Forced;
                if !forced {
                    self.host_dies(MAIN);
                    self.rounds(2);
                }
                let request = Request { forced, reason: Some("alpha burns".to_owned()) };
                self.ask(ME, &Operation::Promote { request, sight: None }).unwrap();
            }
            Scene::Switchover => drop(self.ask(MAIN, &switchover(ME)).unwrap()),
            Scene::Rejoin => {
                self.world.cut_all();
                self.rounds(30);
                self.world.mend_links();
                self.rounds(10);
                self.ask(MAIN, &Operation::Rejoin { copy: false, request: Request::default() }).unwrap();
            }
        }
    }
}

/// What is wrong with a case; nothing if all is well.
fn wrong_with(case: Case) -> (Vec<String>, Cluster) {
    let mut cluster = Cluster::new(case);
    cluster.begin();
    cluster.settle();
    if !cluster.struck && case.fault != Fault::Nothing {
        cluster.wrong.push("its step was never reached".to_owned());
    }
    cluster.mend();
    let mut rests = cluster.settle();
    if !rests && cluster.waits_for_a_person() {
        let request = Request { forced: false, reason: Some("beta has all of the log".to_owned()) };
        // the old main's supervisor is alive, and says that it waits
        let mut evidence = test_values::no_answer();
        evidence.supervisor = Finding::good("answers, and hands its role over");
        let silent_since = cluster.of(ME).node.now;
        let sight = MainSight {
            main: MAIN,
            silent_since,
            evidence,
            last_report: None,
            offers: true,
            supervisor_is_silent: false,
        };
        cluster.ask(ME, &Operation::Promote { request, sight: Some(sight) }).unwrap();
        rests = cluster.settle();
    }
    if let Some(main) = cluster.fenced_for_nothing() {
        let reason = Some("beta took over nothing".to_owned());
        cluster.ask(main, &Operation::Cancel { reason, force: true }).unwrap();
        rests = cluster.settle();
    }
    if !rests {
        cluster.wrong.push("it hangs".to_owned());
    }
    cluster.check_the_end();
    (std::mem::take(&mut cluster.wrong), cluster)
}

#[test]
fn whatever_goes_wrong_at_whichever_step_the_end_is_named_and_one_node_at_most_takes_writes() {
    let only = std::env::var("INTERREX_CASE").unwrap_or_default();
    let cases = Case::all().filter(|case| case.to_string().contains(&only));
    let mut failed = Vec::new();
    let mut count = 0;
    for case in cases {
        count += 1;
        let (wrong, cluster) = wrong_with(case);
        if !wrong.is_empty() {
            if !only.is_empty() {
                cluster.tell();
            }
            failed.push(format!("{case}: {}", wrong.join("; ")));
        }
    }
    assert!(failed.is_empty(), "{} of {count} cases:\n{}", failed.len(), failed.join("\n"));
}

/// Until its offer is recorded main decides alone: a target that is gone, or out of reach, costs no outage that waits for it.
#[test]
fn a_target_that_is_gone_before_the_offer_leaves_main_serving() {
    let before = [
        StepId::CheckHandover,
        StepId::WriteCheckpoint,
        StepId::Drain,
        StepId::StopMain,
        StepId::ProveHandover,
    ];
    for (step, fault) in before.iter().flat_map(|step| [(step, Fault::OtherGone), (step, Fault::LinkCut)]) {
        let (nodes, scene, kind) = (Nodes::Two, Scene::Switchover, RunKind::Switchover);
        let case = Case { nodes, scene, kind, step: *step, fault };
        let mut cluster = Cluster::new(case);
        // with it, a cut link is a failover of its own
        cluster.of_mut(ME).node.policy.auto_enabled = false;
        cluster.begin();
        cluster.settle();
        let serve = [MAIN, ME].map(|node| cluster.world.of(node).is_writable());
        assert!(cluster.struck && serve == [true, false], "{case}: {serve:?}");
        assert!(cluster.of(MAIN).active().is_none(), "{case}: it has ended");
    }
}

#[test]
fn without_a_fault_every_run_completes() {
    for scene in Scene::ALL {
        let step = StepId::RecordStart;
        for nodes in [Nodes::Two, Nodes::Three] {
            let case = Case { nodes, scene, kind: scene.kinds()[0], step, fault: Fault::Nothing };
            let (wrong, cluster) = wrong_with(case);
            assert!(wrong.is_empty(), "{case}: {wrong:?}");
            for kind in scene.kinds() {
                let mut runs = [MAIN, ME].into_iter().flat_map(|node| cluster.of(node).runs());
                let completed = runs.any(|run| run.kind == *kind && run.end == RunEnd::Completed);
                assert!(completed, "{case}: no {kind} completed");
            }
        }
    }
}

impl Cluster {
    /// Every journal, for whoever looks at a case.
    fn tell(&self) {
        for node in self.nodes() {
            println!("node {node}: {:?} {}", self.world.of(node).kind, self.of(node).status());
            for envelope in &self.of(node).node.journal {
                println!("  {:?}", envelope.event);
            }
        }
    }
}
