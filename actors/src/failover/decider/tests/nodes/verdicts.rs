//! When a verdict becomes a run, and when it may not: what outlived it, what was tried before, and what a start holds up.

use interrex_events::{Epoch, Event, NodeId, RunKind, WithheldRule};
use interrex_projections::RunEnd;

use super::{
    super::switchover::switchover, MAIN, ME, THIRD, cluster::Cluster, faults::Nodes, surprises::LONG,
};
use crate::heartbeat::decider::Watch;

/// A cool-down that a test can wait for, in rounds and in milliseconds.
const COOL_DOWN: u32 = 400;
const COOL_DOWN_MS: u64 = 20_000;
/// The first pause after a run in vain, in rounds.
const PAUSE: u32 = 100;

impl Cluster {
    fn of_nodes(nodes: Nodes) -> Self {
        let mut cluster = Self::at_rest(nodes);
        for node in cluster.nodes() {
            cluster.of_mut(node).node.policy.cool_down_ms = COOL_DOWN_MS;
        }
        cluster
    }

    /// From now on this node is the one that may promote itself.
    fn name_candidate(&mut self, candidate: NodeId) {
        for node in self.nodes() {
            self.configure_candidate(node, Some(candidate));
        }
        self.rounds(3);
    }

    fn allow_failover(&mut self, node: NodeId, allowed: bool) {
        self.of_mut(node).node.policy.auto_enabled = allowed;
    }

    fn failovers(&self, node: NodeId) -> usize {
        self.of(node).runs().filter(|run| run.node == node && run.kind == RunKind::Failover).count()
    }

    fn verdict_stands(&self, node: NodeId, rule: WithheldRule) -> bool {
        let verdict = &self.of(node).node.belief.standpoint.verdict;
        verdict.as_ref().is_some_and(|verdict| verdict.withheld == Some(rule))
    }

    /// Main moved to the second node unplanned, and the next one to take it is the one that this returns.
    fn moved_unplanned(nodes: Nodes) -> (Self, NodeId) {
        let mut cluster = Self::of_nodes(nodes);
        cluster.host_dies(MAIN);
        cluster.rounds(LONG);
        assert!(cluster.serves(ME), "{nodes:?}");
        let next = if nodes == Nodes::Two { MAIN } else { THIRD };
        if nodes == Nodes::Two {
            cluster.mend();
            cluster.rounds(LONG);
            assert!(cluster.rejoins(MAIN, ME));
        }
        cluster.name_candidate(next);
        (cluster, next)
    }
}

#[test]
fn a_verdict_that_a_rule_held_back_makes_no_run_once_main_is_back() {
    for (nodes, watch_restarts) in [(Nodes::Two, false), (Nodes::Two, true), (Nodes::Three, true)] {
        let mut cluster = Cluster::of_nodes(nodes);
        cluster.allow_failover(ME, false);
        cluster.host_dies(MAIN);
        cluster.rounds(LONG);
        assert!(cluster.verdict_stands(ME, WithheldRule::AutoFailoverDisabled));
        if watch_restarts {
            cluster.of_mut(ME).watch = Watch::default();
        }
        cluster.mend();
        cluster.rounds(10);
        assert!(cluster.serves(MAIN));
        cluster.allow_failover(ME, true);
        assert!(cluster.always(2 * LONG, |it| it.serves(MAIN)), "{nodes:?} {watch_restarts}: main is fenced");
        assert_eq!(cluster.failovers(ME), 0, "{nodes:?} {watch_restarts}");
    }
}

#[test]
fn a_verdict_that_the_cool_down_held_back_makes_no_run_once_main_is_back() {
    for nodes in [Nodes::Two, Nodes::Three] {
        let (mut cluster, next) = Cluster::moved_unplanned(nodes);
        cluster.host_dies(ME);
        cluster.rounds(LONG);
        assert!(cluster.verdict_stands(next, WithheldRule::CoolDown), "{nodes:?}");
        cluster.crash(ME, false);
        cluster.rounds(10);
        assert!(cluster.serves(ME), "{nodes:?}");
        assert!(cluster.always(COOL_DOWN, |it| it.serves(ME)), "{nodes:?}: main is fenced");
        assert_eq!(cluster.failovers(next), 0, "{nodes:?}");
    }
}

/// The verdict is old, and main may be back: a node that can ask no other one does not know.
#[test]
fn a_verdict_that_a_rule_held_back_makes_no_run_of_a_node_that_cannot_look_again() {
    let mut cluster = Cluster::of_nodes(Nodes::Two);
    cluster.allow_failover(ME, false);
    cluster.host_dies(MAIN);
    cluster.rounds(LONG);
    // its standby hears nothing of main either
    cluster.world.of_mut(ME).kind = super::world::Kind::StandbyOf(ME);
    cluster.cannot_ask = Some(ME);
    cluster.mend();
    cluster.rounds(10);
    assert!(cluster.serves(MAIN) && cluster.verdict_stands(ME, WithheldRule::OwnTrouble));
    cluster.allow_failover(ME, true);
    assert!(cluster.always(2 * LONG, |it| it.serves(MAIN)), "main is fenced");
    assert_eq!(cluster.failovers(ME), 0);
    cluster.cannot_ask = None;
    assert!(cluster.always(2 * LONG, |it| it.serves(MAIN)), "main is fenced");
    assert_eq!(cluster.failovers(ME), 0, "it is seen to be back");
}

#[test]
fn an_unplanned_change_of_main_by_any_node_starts_the_cool_down_and_its_end_the_next_failover() {
    for nodes in [Nodes::Two, Nodes::Three] {
        let (mut cluster, next) = Cluster::moved_unplanned(nodes);
        cluster.host_dies(ME);
        assert!(cluster.always(COOL_DOWN / 2, |it| it.world.writable().is_empty()), "{nodes:?}: main flaps");
        assert!(cluster.verdict_stands(next, WithheldRule::CoolDown), "{nodes:?}");
        cluster.rounds(COOL_DOWN / 2);
        assert!(cluster.serves(next) && cluster.of(next).epoch() == Epoch(3), "{nodes:?}: it is over");
    }
}

#[test]
fn a_planned_change_of_main_starts_no_cool_down_however_a_node_learned_of_it() {
    for (nodes, is_away) in [(Nodes::Two, false), (Nodes::Three, false), (Nodes::Three, true)] {
        let mut cluster = Cluster::of_nodes(nodes);
        let next = if nodes == Nodes::Two { MAIN } else { THIRD };
        if is_away {
            cluster.crash(THIRD, true);
        }
        cluster.ask(MAIN, &switchover(ME)).unwrap();
        cluster.rounds(LONG);
        assert!(cluster.serves(ME), "{nodes:?} {is_away}");
        cluster.mend();
        cluster.rounds(LONG);
        cluster.name_candidate(next);
        assert_eq!(cluster.agreed_main(), Some((ME, Epoch(2))), "{nodes:?} {is_away}");
        cluster.host_dies(ME);
        cluster.rounds(LONG);
        assert!(cluster.serves(next), "{nodes:?} {is_away}: {next} rests");
    }
}

/// A third node that hears main objects before anything is changed; when main dies soon after, nobody waits for long.
#[test]
fn a_run_that_ended_before_it_changed_anything_costs_a_pause_and_no_cool_down() {
    let mut cluster = Cluster::at_rest(Nodes::Three);
    cluster.world.cut(MAIN, ME);
    cluster.rounds(LONG / 2);
    assert!(cluster.failovers(ME) > 0 && cluster.serves(MAIN), "the third node objects");
    assert!(cluster.of(ME).runs().all(|run| run.end == RunEnd::Refused), "before anything is changed");
    cluster.world.mend_links();
    cluster.world.cut(MAIN, ME);
    cluster.host_dies(MAIN);
    cluster.rounds(PAUSE + LONG);
    assert!(cluster.serves(ME), "it waits longer than a pause");
    assert!(!cluster.withheld(ME, WithheldRule::CoolDown));
}

/// Its supervisor is started again and again, and its PostgreSQL takes long to fail: it is always starting.
#[test]
fn a_main_that_never_gets_beyond_its_start_is_fenced_all_the_same() {
    for nodes in [Nodes::Two, Nodes::Three] {
        let mut cluster = Cluster::at_rest(nodes);
        cluster.kill(MAIN);
        let machine = cluster.world.of_mut(MAIN);
        (machine.broken, machine.starts_in) = (true, 4 * LONG);
        cluster.crash(MAIN, false);
        cluster.rounds(LONG);
        assert!(cluster.serves(ME), "{nodes:?}: the cluster is down");
        let fenced = |event: &Event| matches!(event, Event::NodeFenced(_));
        assert!(cluster.of(MAIN).node.journal.iter().any(|it| fenced(&it.event)), "{nodes:?}: it is proved");
        cluster.world.of_mut(MAIN).broken = false;
        assert!(cluster.always(5 * LONG, |it| it.world.writable() == [ME]), "{nodes:?}: it starts after all");
        assert!(cluster.wrong.is_empty(), "{nodes:?}: {:?}", cluster.wrong);
    }
}
