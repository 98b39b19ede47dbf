//! What must hold after every transition, and at the end.

use std::collections::BTreeSet;

use interrex_events::{Event, NodeId, RunKind, StepId, StepOutcome};
use interrex_projections::{NodeStatus, Run, RunEnd, StepState, Undo};

use super::{MAIN, cluster::Cluster, faults::Scene, world::Kind};

impl Cluster {
    fn holds(&mut self, condition: bool, words: impl FnOnce() -> String) {
        if !condition {
            let words = words();
            if !self.wrong.contains(&words) {
                self.wrong.push(words);
            }
        }
    }

    pub(super) fn check(&mut self) {
        let split = self.world.writable().len() > 1;
        let allowed = !split || self.may_be_split();
        self.holds(allowed, || "two primaries take writes".to_owned());
        for node in self.nodes() {
            let own = self.world.of(node);
            let misused = own.misused;
            let lacks =
                self.world.upstream(node).is_some_and(|main| !self.world.of(main).log.starts_with(&own.log));
            let pending = own.promoted_in.is_some() && self.of(node).active().is_none();
            self.holds(!pending, || format!("{node} makes no run, and its promotion is pending"));
            self.holds(!misused, || format!("{node} was started half-rewound"));
            self.holds(!lacks, || format!("{node} has log that its main lacks"));
        }
    }

    /// Whatever quorum `none` allows: in one epoch one node acknowledges writes.
    fn check_reigns(&mut self) {
        let reigns: BTreeSet<_> =
            self.world.acknowledged.iter().filter_map(|it| Some((it.reign?, it.by))).collect();
        let mut epochs: Vec<_> = reigns.iter().map(|(epoch, _)| *epoch).collect();
        epochs.dedup();
        self.holds(epochs.len() == reigns.len(), || {
            format!("two nodes acknowledged writes in one epoch: {reigns:?}")
        });
    }

    /// The exception that quorum `none` makes: a main that nobody could reach may go on beside the one that took over from
    /// it, if the run said that nothing proves it fenced; and one that reaches nobody may start alone. Both are stored, and
    /// only some cases can lead there. [`Cluster::check_round`] sees that it ends as soon as the two can tell each other.
    fn may_be_split(&self) -> bool {
        let unproved = |run: &&Run| {
            matches!(run.kind, RunKind::Failover | RunKind::Promotion)
                && run.step(StepId::FenceOldMain).state == StepState::Ended(StepOutcome::Skipped)
        };
        let stored = self.nodes().iter().any(|node| {
            let journal = &self.of(*node).node.journal;
            let alone = journal.iter().any(|it| matches!(it.event, Event::StartedUnconfirmed(_)));
            alone || self.of(*node).runs().any(|run| unproved(&run))
        });
        // an old main comes back from having gone on alone
        let sets_up = self.case.scene == Scene::Rejoin && self.of(MAIN).runs().next().is_none();
        stored && (sets_up || self.case.may_split())
    }

    fn ends(&self) -> Vec<RunEnd> {
        let ends = |node: NodeId| self.of(node).runs().map(|run| run.end).collect::<Vec<_>>();
        self.nodes().into_iter().flat_map(ends).collect()
    }

    fn only_switchovers(&self) -> bool {
        let planned = |run: &Run| matches!(run.kind, RunKind::Switchover | RunKind::Takeover);
        self.nodes().iter().all(|node| self.of(*node).runs().all(planned))
    }

    /// Everything is mended and quiet.
    pub(super) fn check_the_end(&mut self) {
        let ends = self.ends();
        self.holds(!ends.contains(&RunEnd::Running), || "a run has no end".to_owned());
        self.check_reigns();
        let writable = self.world.writable();
        self.holds(writable.len() <= 1, || "two primaries at the end".to_owned());
        self.holds(!writable.is_empty(), || format!("nobody serves, after {ends:?}"));
        let beliefs: Vec<_> =
            self.nodes().iter().map(|node| (self.of(*node).main(), self.of(*node).epoch())).collect();
        let agree = beliefs.iter().all(|belief| *belief == beliefs[0]);
        self.holds(agree, || format!("they disagree: {beliefs:?}"));
        for node in self.nodes() {
            self.check_node_at_the_end(node);
        }
        if let [main] = writable[..] {
            let believed = self.of(main).main();
            self.holds(believed == Some(main), || format!("{main} serves and is not main"));
            self.check_writes(main);
        }
    }

    fn check_node_at_the_end(&mut self, node: NodeId) {
        let status = self.of(node).status();
        let decided = !matches!(status, NodeStatus::HandingOver | NodeStatus::Fencing);
        self.holds(decided, || format!("{node} is {status} at the end"));
        let killed = self.case.fault.kills_postgres()
            || matches!(self.case.scene, Scene::PostgresDies | Scene::StartsInVain);
        let stuck: Vec<_> = self
            .of(node)
            .runs()
            .flat_map(|run| {
                run.steps.iter().filter(|(_, step)| matches!(step.undo, Undo::Failed | Undo::Running))
            })
            .map(|(id, _)| *id)
            // a person has seen to that one
            .filter(|step| *step != StepId::FenceOldMain)
            .collect();
        self.holds(stuck.is_empty() || killed, || format!("{node} could not take back {stuck:?}"));
        let superseded = self.of(node).is_superseded();
        let machine = self.world.of(node);
        let (running, kind) = (machine.running, machine.kind);
        self.holds(!superseded || !running, || format!("{node} is fenced, and its PostgreSQL runs"));
        let is_main = self.of(node).main() == Some(node);
        let rival = self.peers(node).iter().any(|peer| self.world.of(*peer).is_writable());
        self.holds(!superseded || !is_main || rival, || format!("{node} is main, and left fenced"));
        if superseded {
            return;
        }
        self.holds(running, || format!("{node} is left stopped, as {kind:?}"));
        // one that is ahead of where a new main left the old line cannot, and says so
        let named = self.of(node).followed == Some(false);
        let follows = self.world.upstream(node).is_some() || kind == Kind::Primary || named;
        self.holds(follows, || format!("{node} runs, and follows nobody"));
    }

    /// A switchover loses nothing, and a rejoin keeps what only the old main had.
    fn check_writes(&mut self, main: NodeId) {
        let serials = |log: &[super::world::Record]| log.iter().map(|it| it.serial).collect::<BTreeSet<_>>();
        let mut there = serials(&self.world.of(main).log);
        for node in self.nodes() {
            there.extend(serials(&self.world.of(node).kept));
            // a fenced directory is kept as it is
            if !self.world.of(node).running {
                there.extend(serials(&self.world.of(node).log));
            }
        }
        let lost = self.world.acknowledged.iter().filter(|it| !there.contains(&it.serial)).count();
        let rejoins = self.case.scene == Scene::Rejoin;
        let counts = self.only_switchovers() || rejoins;
        self.holds(!counts || lost == 0, || format!("{lost} acknowledged writes are gone"));
        if self.only_switchovers() {
            let on_main = serials(&self.world.of(main).log);
            let missing = self.world.acknowledged.iter().filter(|it| !on_main.contains(&it.serial)).count();
            self.holds(missing == 0, || format!("{missing} acknowledged writes are not on main"));
        }
    }
}
