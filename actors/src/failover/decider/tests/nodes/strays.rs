//! Somebody works on a server by hand while its supervisor lives: promotes it, takes its `standby.signal` away, stops it.

use interrex_events::{Epoch, NodeId, Request, WithheldRule};

use super::{MAIN, ME, Operation, THIRD, cluster::Cluster, faults::Nodes, surprises::LONG};

/// How a standby comes to take writes.
#[derive(Debug, Clone, Copy)]
enum Hand {
    Promotes,
    StartsWithoutSignal,
}

const HANDS: [Hand; 2] = [Hand::Promotes, Hand::StartsWithoutSignal];

/// Longer than a stray's pause between two takeovers.
const PAUSES: u32 = 450;

impl Cluster {
    fn strays(&mut self, node: NodeId, hand: Hand) {
        match hand {
            Hand::Promotes => drop(self.world.promote(node)),
            Hand::StartsWithoutSignal => self.world.start_as_primary(node),
        }
    }

    pub(super) fn rejoins(&mut self, node: NodeId, main: NodeId) -> bool {
        let rejoin = Operation::Rejoin { copy: false, request: Request::default() };
        self.ask(node, &rejoin).is_ok() && self.settle() && self.world.streams_from(node, main)
    }
}

#[test]
fn a_stray_beside_a_living_main_is_stopped_at_once_and_comes_back_by_a_rejoin() {
    for (nodes, stray) in [(Nodes::Two, ME), (Nodes::Three, ME), (Nodes::Three, THIRD)] {
        for hand in HANDS {
            let mut cluster = Cluster::at_rest(nodes);
            cluster.strays(stray, hand);
            cluster.rounds(2);
            assert!(cluster.always(LONG, |it| it.world.writable() == [MAIN]), "{nodes:?} {stray} {hand:?}");
            assert!(cluster.of(stray).is_superseded(), "{nodes:?} {stray} {hand:?}");
            assert!(cluster.rejoins(stray, MAIN), "{nodes:?} {stray} {hand:?}");
            assert_eq!(cluster.agreed_main(), Some((MAIN, Epoch(1))));
        }
    }
}

#[test]
fn a_main_that_restarts_beside_a_stray_serves_again_once_that_is_stopped() {
    for nodes in [Nodes::Two, Nodes::Three] {
        for hand in HANDS {
            let mut cluster = Cluster::at_rest(nodes);
            cluster.crash(MAIN, false);
            cluster.strays(ME, hand);
            cluster.rounds(5);
            assert!(cluster.always(LONG, |it| it.world.writable() == [MAIN]), "{nodes:?} {hand:?}");
        }
    }
}

#[test]
fn a_stray_is_taken_over_once_main_was_silent_for_the_threshold() {
    for (nodes, stray) in [(Nodes::Two, ME), (Nodes::Three, ME), (Nodes::Three, THIRD)] {
        for (hand, wait) in HANDS.into_iter().flat_map(|hand| [2, 3, 4].map(|wait| (hand, wait))) {
            let case = format!("{nodes:?} {stray} {hand:?} {wait}");
            let mut cluster = Cluster::at_rest(nodes);
            cluster.host_dies(MAIN);
            cluster.rounds(wait);
            cluster.strays(stray, hand);
            assert!(cluster.always(PAUSES, |it| it.world.writable().len() <= 1), "{case}: two serve");
            let main = cluster.agreed_main();
            assert!(main.is_some_and(|(_, epoch)| epoch >= Epoch(2)), "{case}: {main:?}");
            assert!(cluster.wrong.is_empty(), "{case}: {:?}", cluster.wrong);
            let (main, _) = main.unwrap();
            assert!(cluster.world.is_promoted(main), "{case}: main's own timeline has two writers");
            cluster.mend();
            cluster.rounds(5);
            assert!(cluster.always(LONG, |it| it.world.writable() == [main]), "{case}: the old main");
        }
    }
}

/// The run has asked the third node before: two primaries take writes until they meet, and no longer.
#[test]
fn a_stray_made_while_another_node_takes_the_role_is_stopped_once_there_is_a_main() {
    for wait in 5..14 {
        let mut cluster = Cluster::at_rest(Nodes::Three);
        cluster.host_dies(MAIN);
        cluster.rounds(wait);
        cluster.strays(THIRD, Hand::Promotes);
        cluster.rounds(10);
        assert!(cluster.always(PAUSES, |it| it.world.writable().len() <= 1), "{wait}: two serve");
        assert!(cluster.agreed_main().is_some(), "{wait}");
    }
}

#[test]
fn a_standby_that_somebody_stopped_takes_no_role_until_it_runs_again() {
    let mut cluster = Cluster::at_rest(Nodes::Two);
    cluster.world.stop(ME);
    cluster.rounds(3);
    cluster.host_dies(MAIN);
    assert!(cluster.always(LONG, |it| it.world.writable().is_empty()));
    assert!(cluster.withheld(ME, WithheldRule::NotPromotable));
    cluster.world.of_mut(ME).start();
    cluster.rounds(LONG);
    assert_eq!(cluster.agreed_main(), Some((ME, Epoch(2))));
}
