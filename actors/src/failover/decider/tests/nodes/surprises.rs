//! What others do behind the supervisors' backs, while no run is under way.

use interrex_events::{NodeId, RunKind, StepId};

use super::{
    MAIN, ME,
    cluster::Cluster,
    faults::{Case, Fault, Nodes, Scene},
};

/// Longer than any patience.
pub(super) const LONG: u32 = 30;

impl Cluster {
    /// At rest, whatever is done to it.
    pub(super) fn at_rest(nodes: Nodes) -> Self {
        let case = Case {
            nodes,
            scene: Scene::HostDies,
            kind: RunKind::Failover,
            step: StepId::RecordStart,
            fault: Fault::Nothing,
        };
        let mut cluster = Self::new(case);
        cluster.rounds(3);
        cluster
    }

    /// In each of so many rounds.
    pub(super) fn always(&mut self, rounds: u32, holds: impl Fn(&Self) -> bool) -> bool {
        (0..rounds).all(|_| {
            self.round();
            holds(self)
        })
    }

    pub(super) fn serves(&self, node: NodeId) -> bool {
        self.world.of(node).is_writable()
    }
}

#[test]
fn a_serving_main_whose_supervisor_restarts_stops_beside_a_primary_that_nobody_supervises() {
    for nodes in [Nodes::Two, Nodes::Three] {
        let mut cluster = Cluster::at_rest(nodes);
        cluster.crash(ME, true);
        cluster.world.promote(ME);
        cluster.crash(MAIN, false);
        cluster.rounds(5);
        assert!(cluster.always(LONG, |it| !it.serves(MAIN)), "{nodes:?}: two nodes take writes");
        cluster.world.of_mut(ME).kill();
        cluster.rounds(LONG);
        assert!(cluster.serves(MAIN), "{nodes:?}: it starts once that is over");
    }
}

#[test]
fn a_main_whose_supervisor_restarts_beside_a_node_that_takes_over_stops_at_once() {
    for nodes in [Nodes::Two, Nodes::Three] {
        let mut cluster = Cluster::at_rest(nodes);
        // no node hears alpha's supervisor or its PostgreSQL, and alpha's supervisor is started anew as the way is back
        cluster.crash(MAIN, false);
        cluster.peers(MAIN).into_iter().for_each(|peer| cluster.world.cut(MAIN, peer));
        let takes_over = |it: &Cluster| it.of(ME).active().is_some();
        for _ in 0..LONG {
            cluster.round();
            if takes_over(&cluster) {
                break;
            }
        }
        assert!(takes_over(&cluster), "{nodes:?}");
        cluster.crash(MAIN, false);
        cluster.world.mend_links();
        cluster.rounds(5);
        assert!(cluster.always(LONG, |it| it.world.writable().len() <= 1), "{nodes:?}");
        assert!(cluster.settle(), "{nodes:?}");
        // beta's run ends where it hears alpha again before its fence
        assert_eq!(cluster.world.writable().len(), 1, "{nodes:?}");
    }
}

#[test]
fn a_secondary_whose_directory_is_a_primarys_is_not_started_and_can_be_asked_to_rejoin() {
    use interrex_events::Request;

    use super::super::Operation;

    for nodes in [Nodes::Two, Nodes::Three] {
        let mut cluster = Cluster::at_rest(nodes);
        cluster.world.stop(ME);
        cluster.world.of_mut(ME).kind = super::world::Kind::Primary;
        cluster.crash(ME, false);
        assert!(cluster.always(LONG, |it| !it.serves(ME)), "{nodes:?}: a second main");
        let rejoin = Operation::Rejoin { copy: false, request: Request::default() };
        assert!(cluster.ask(ME, &rejoin).is_ok(), "{nodes:?}");
        assert!(cluster.settle(), "{nodes:?}");
        assert!(cluster.world.streams_from(ME, MAIN), "{nodes:?}");
    }
}
