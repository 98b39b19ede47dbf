//! What must hold after every transition, and at the end.

use std::collections::BTreeSet;

use interrex_events::{Event, NodeId, PostgresStatus, RunKind, StepId, StepOutcome};
use interrex_projections::{NodeStatus, Run, RunEnd, StepState, Undo};

use super::{
    MAIN, ME,
    cluster::Cluster,
    faults::Scene,
    world::{Kind, other},
};

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
        let both = [MAIN, ME].iter().all(|node| self.world.of(*node).is_writable());
        let allowed = self.may_be_split();
        self.holds(!both || allowed, || "two primaries take writes".to_owned());
        for node in [MAIN, ME] {
            let own = self.world.of(node);
            let (misused, streams) = (own.misused, self.world.status(node) == PostgresStatus::Streaming);
            let lacks = streams && !self.world.of(other(node)).log.starts_with(&own.log);
            let pending = own.promoted_in.is_some() && self.of(node).active().is_none();
            self.holds(!pending, || format!("{node} makes no run, and its promotion is pending"));
            self.holds(!misused, || format!("{node} was started half-rewound"));
            self.holds(!lacks, || format!("{node} has log that its main lacks"));
        }
    }

    /// The exception that quorum `none` makes: a main that nobody could reach may go on beside the one that took over from
    /// it, if the run said that nothing proves it fenced; and one that reaches nobody may start alone. Both are stored, and
    /// only some cases can lead there. [`Cluster::check_split`] sees that it ends as soon as the two can tell each other.
    fn may_be_split(&self) -> bool {
        let unproved = |run: &&Run| {
            matches!(run.kind, RunKind::Failover | RunKind::Promotion)
                && run.step(StepId::FenceOldMain).state == StepState::Ended(StepOutcome::Skipped)
        };
        let stored = [MAIN, ME].iter().any(|node| {
            let journal = &self.of(*node).node.journal;
            let alone = journal.iter().any(|it| matches!(it.event, Event::StartedUnconfirmed(_)));
            alone || self.of(*node).runs().any(|run| unproved(&run))
        });
        // an old main comes back from having gone on alone
        let sets_up = self.case.scene == Scene::Rejoin && self.of(MAIN).runs().next().is_none();
        stored && (sets_up || self.case.may_split())
    }

    fn ends(&self) -> Vec<RunEnd> {
        [MAIN, ME].iter().flat_map(|node| self.of(*node).runs().map(|run| run.end)).collect()
    }

    fn only_switchovers(&self) -> bool {
        let planned = |run: &Run| matches!(run.kind, RunKind::Switchover | RunKind::Takeover);
        [MAIN, ME].iter().all(|node| self.of(*node).runs().all(planned))
    }

    /// Everything is mended and quiet.
    pub(super) fn check_the_end(&mut self) {
        let ends = self.ends();
        self.holds(!ends.contains(&RunEnd::Running), || "a run has no end".to_owned());
        let writable: Vec<NodeId> =
            [MAIN, ME].into_iter().filter(|node| self.world.of(*node).is_writable()).collect();
        self.holds(writable.len() <= 1, || "two primaries at the end".to_owned());
        self.holds(!writable.is_empty(), || format!("nobody serves, after {ends:?}"));
        let [first, second] = [MAIN, ME].map(|node| (self.of(node).main(), self.of(node).epoch()));
        self.holds(first == second, || format!("they disagree: {first:?}, {second:?}"));
        for node in [MAIN, ME] {
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
        let killed = self.case.fault.kills_postgres() || self.case.scene == Scene::PostgresDies;
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
        let rival = self.world.of(other(node)).is_writable();
        self.holds(!superseded || !is_main || rival, || format!("{node} is main, and left fenced"));
        if superseded {
            return;
        }
        self.holds(running, || format!("{node} is left stopped, as {kind:?}"));
        let follows = self.world.streams(node) || kind == Kind::Primary;
        self.holds(follows, || format!("{node} runs, and follows nobody"));
    }

    /// A switchover loses nothing, and a rejoin keeps what only the old main had.
    fn check_writes(&mut self, main: NodeId) {
        let serials = |log: &[super::world::Record]| log.iter().map(|it| it.serial).collect::<BTreeSet<_>>();
        let mut there = serials(&self.world.of(main).log);
        for node in [MAIN, ME] {
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
