//! What others say of main, and no event bears out: it moves no role, fences no main, and holds nothing up.

use interrex_events::{Epoch, EpochOpened, Event, LearnedBy, NodeId, RunId, TimelineId};
use uuid::Uuid;

use super::{MAIN, ME, THIRD, cluster::Cluster, faults::Nodes, surprises::LONG};
use crate::{
    failover::decider::Input,
    messages::{Claim, FenceRequest},
};

const STRANGER: NodeId = NodeId(9);
const MISSED: Epoch = Epoch(302);

fn claims_to(node: NodeId, learned_by: LearnedBy) -> Vec<Claim> {
    let peer = if node == MAIN { ME } else { MAIN };
    let other = if node == ME { MAIN } else { ME };
    let claim = |from, main, epoch| Claim {
        main,
        epoch,
        timeline: None,
        switchpoint: None,
        planned: None,
        from,
        learned_by,
    };
    vec![
        claim(peer, peer, Epoch(u64::MAX)),
        claim(peer, other, Epoch(u64::MAX)),
        claim(peer, peer, Epoch::HIGHEST),
        claim(peer, peer, Epoch(301)),
        claim(STRANGER, peer, Epoch(2)),
        claim(STRANGER, STRANGER, Epoch(2)),
        claim(peer, STRANGER, Epoch(2)),
        claim(peer, node, Epoch(2)),
        claim(node, node, Epoch(2)),
        claim(peer, node, Epoch(u64::MAX)),
    ]
}

impl Cluster {
    /// Main serves through these rounds as if nothing had happened, and every node knows it.
    fn main_is_untouched(&mut self) -> bool {
        self.always(LONG, |it| it.agreed_main() == Some((MAIN, Epoch(1))))
    }

    /// A failover works as ever.
    fn fails_over(&mut self) -> bool {
        self.host_dies(MAIN);
        self.rounds(LONG);
        self.serves(ME) && self.of(ME).main() == Some(ME) && self.of(ME).epoch() == Epoch(2)
    }
}

#[test]
fn a_claim_that_no_event_bears_out_changes_nothing() {
    for nodes in [Nodes::Two, Nodes::Three] {
        for learned_by in [LearnedBy::Notice, LearnedBy::Heartbeat, LearnedBy::Handover] {
            let mut cluster = Cluster::at_rest(nodes);
            for node in cluster.nodes() {
                for claim in claims_to(node, learned_by) {
                    let words = format!("{nodes:?}: to {node}: {claim:?}");
                    let refusals = |it: &Cluster| {
                        let refused = |event: &Event| matches!(event, Event::NoticeRefused(_));
                        it.of(node).node.journal.iter().filter(|it| refused(&it.event)).count()
                    };
                    let before = refusals(&cluster);
                    cluster.announce(node, claim);
                    // heartbeats come every second
                    let told = usize::from(learned_by != LearnedBy::Heartbeat);
                    assert_eq!(refusals(&cluster) - before, told, "{words}");
                    let untouched = cluster.always(3, |it| it.agreed_main() == Some((MAIN, Epoch(1))));
                    assert!(untouched, "{words}");
                }
            }
            assert!(cluster.main_is_untouched(), "{nodes:?}");
            assert!(cluster.fails_over(), "{nodes:?} {learned_by:?}");
        }
    }
}

#[test]
fn a_fence_that_no_member_may_ask_for_stops_no_main() {
    for nodes in [Nodes::Two, Nodes::Three] {
        let mut cluster = Cluster::at_rest(nodes);
        let run = RunId(Uuid::from_u128(9));
        let asked = [
            (STRANGER, Epoch(2)),
            (ME, Epoch(u64::MAX)),
            (ME, Epoch::HIGHEST),
            (ME, Epoch(301)),
            (ME, Epoch(1)),
            (ME, Epoch(0)),
        ];
        for (by, epoch) in asked {
            cluster.decide(MAIN, &Input::FenceRequested(FenceRequest { by, epoch, run }));
        }
        assert!(cluster.main_is_untouched() && cluster.fails_over(), "{nodes:?}");
    }
}

#[test]
fn a_member_that_names_an_epoch_that_cannot_be_holds_up_neither_mains_start_nor_a_failover() {
    for liar in [ME, THIRD] {
        for main in [MAIN, ME, THIRD] {
            let mut cluster = Cluster::at_rest(Nodes::Three);
            cluster.lies.insert(liar, (main, Epoch(u64::MAX)));
            assert!(cluster.main_is_untouched(), "{liar} names {main}");
            cluster.crash(MAIN, false);
            cluster.rounds(5);
            assert!(cluster.main_is_untouched(), "{liar} names {main}: main starts");
            assert!(liar == ME || cluster.fails_over(), "{liar} names {main}");
        }
    }
}

#[test]
fn a_node_that_missed_three_hundred_epochs_finds_main() {
    for restarts in [false, true] {
        let mut cluster = Cluster::at_rest(Nodes::Three);
        cluster.world.cut(MAIN, THIRD);
        cluster.world.cut(ME, THIRD);
        cluster.host_dies(MAIN);
        cluster.rounds(LONG);
        assert!(cluster.serves(ME));
        let timeline = TimelineId(cluster.world.of(ME).timeline);
        let opened = EpochOpened { epoch: MISSED, main: ME, old_main: None, timeline, switchpoint: None };
        cluster.store(ME, opened, None);
        // the old main is started beside it, and the third node meets both
        cluster.mend();
        if restarts {
            cluster.crash(THIRD, false);
        }
        let alone = cluster.always(LONG, |it| it.world.writable() == [ME]);
        assert!(alone, "{restarts}: {:?}", cluster.world.writable());
        assert_eq!(cluster.agreed_main(), Some((ME, MISSED)), "{restarts}");
        assert!(cluster.of(MAIN).is_superseded() && cluster.world.streams_from(THIRD, ME), "{restarts}");
    }
}
