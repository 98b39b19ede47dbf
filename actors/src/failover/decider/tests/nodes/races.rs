//! Several nodes want the role of a main that died: one of them gets it, whoever asks first and whatever crosses.

use interrex_events::{Epoch, Event, NodeId, Request, WithheldRule};

use super::{MAIN, ME, Operation, THIRD, cluster::Cluster, faults::Nodes, surprises::LONG};

impl Cluster {
    /// Three nodes at rest, whose secondaries name these candidates.
    fn with_candidates(second: Option<NodeId>, third: Option<NodeId>) -> Self {
        let mut cluster = Self::at_rest(Nodes::Three);
        for (node, candidate) in [(MAIN, second), (ME, second), (THIRD, third)] {
            cluster.configure_candidate(node, candidate);
        }
        cluster.rounds(3);
        cluster
    }

    /// Its supervisor goes by another configuration, and by what it hears from then on.
    pub(super) fn configure_candidate(&mut self, node: NodeId, candidate: Option<NodeId>) {
        let own = &mut self.of_mut(node).node;
        own.policy.candidate = candidate;
        own.candidates.clear();
    }

    /// `interrex promote`, which is told what the node sees of main. Whether it was taken.
    pub(super) fn promote_by_hand(&mut self, node: NodeId, forced: bool) -> bool {
        let request = Request { forced, reason: Some("alpha burns".to_owned()) };
        let sight = self.of(node).node.sight.clone();
        self.ask(node, &Operation::Promote { request, sight }).is_ok()
    }

    /// The node that every living supervisor holds to be main, where it serves alone.
    pub(super) fn agreed_main(&self) -> Option<(NodeId, Epoch)> {
        let alive = self.nodes().into_iter().filter(|node| self.of(*node).is_alive());
        let beliefs: Vec<_> = alive.map(|node| (self.of(node).main(), self.of(node).epoch())).collect();
        let (main, epoch) = *beliefs.first()?;
        let agreed = beliefs.iter().all(|belief| *belief == (main, epoch));
        main.filter(|main| agreed && self.world.writable() == [*main]).map(|main| (main, epoch))
    }

    /// Whether a node held a verdict back by this rule.
    pub(super) fn withheld(&self, node: NodeId, rule: WithheldRule) -> bool {
        let by_rule = |event: &Event| matches!(event, Event::FailoverWithheld(it) if it.rule == rule);
        self.of(node).node.journal.iter().any(|it| by_rule(&it.event))
    }
}

#[test]
fn of_three_nodes_without_one_common_candidate_no_secondary_promotes_itself() {
    let named = [(None, None), (Some(ME), Some(THIRD)), (Some(THIRD), Some(ME))];
    for ((second, third), is_cut) in named.into_iter().flat_map(|it| [(it, false), (it, true)]) {
        let case = format!("{second:?} {third:?} {is_cut}");
        let mut cluster = Cluster::with_candidates(second, third);
        if is_cut {
            cluster.world.cut(ME, THIRD);
        }
        cluster.host_dies(MAIN);
        assert!(cluster.always(2 * LONG, |it| it.world.writable().is_empty()), "{case}: it serves");
        for node in [ME, THIRD] {
            assert!(cluster.withheld(node, WithheldRule::OtherCandidate), "{case}: {node} says why");
        }
    }
}

#[test]
fn the_candidate_alone_takes_the_role_even_where_the_secondaries_do_not_reach_each_other() {
    for (candidate, is_cut) in [(ME, false), (ME, true), (THIRD, false), (THIRD, true)] {
        let mut cluster = Cluster::with_candidates(Some(candidate), Some(candidate));
        if is_cut {
            cluster.world.cut(ME, THIRD);
        }
        cluster.host_dies(MAIN);
        assert!(
            cluster.always(2 * LONG, |it| it.world.writable().iter().all(|node| *node == candidate)),
            "{candidate} {is_cut}: another one serves"
        );
        assert!(cluster.serves(candidate), "{candidate} {is_cut}");
    }
}

/// A race of two nodes for the role of a main whose host is dead.
struct Race {
    /// The node that begins, and the other one so many rounds later.
    first: NodeId,
    late: u32,
    forced: bool,
    turned_round: bool,
    /// Whether the second node promotes itself by its verdict beside them.
    automatic: bool,
    /// Whether a probe comes between two steps.
    probes: bool,
    /// A supervisor that dies in this round, and is started again at once.
    crashes: Option<(NodeId, u32)>,
}

/// What is wrong with a race, if anything is.
fn wrong_with(race: &Race) -> Option<String> {
    let Race { first, late, forced, turned_round, automatic, probes, crashes } = *race;
    let mut cluster = Cluster::at_rest(Nodes::Three);
    cluster.turned_round = turned_round;
    cluster.of_mut(ME).node.policy.auto_enabled = automatic;
    cluster.host_dies(MAIN);
    cluster.rounds(2);
    let second = if first == ME { THIRD } else { ME };
    cluster.probes = probes;
    for round in 0..LONG {
        if round == 0 {
            cluster.promote_by_hand(first, forced);
        }
        if round == late {
            cluster.promote_by_hand(second, forced);
        }
        if let Some((node, _)) = crashes.filter(|(_, at)| *at == round) {
            cluster.crash(node, false);
        }
        cluster.round();
    }
    cluster.probes = true;
    cluster.rounds(LONG);
    if cluster.world.writable().is_empty() && crashes.is_some() {
        // both gave up, and a person asks again
        cluster.promote_by_hand(ME, false);
        cluster.rounds(LONG);
    }
    let end = (cluster.agreed_main(), cluster.wrong.clone());
    let follows = end.0.is_some_and(|(main, _)| {
        let other = if main == ME { THIRD } else { ME };
        cluster.world.streams_from(other, main) || cluster.of(other).is_superseded()
    });
    (!follows || !end.1.is_empty()).then(|| {
        format!("{first} first, {late} later, forced {forced}, turned {turned_round}, automatic {automatic}, probes {probes}, {crashes:?}: {end:?}")
    })
}

fn none_goes_wrong(races: impl Iterator<Item = Race>) {
    let wrong: Vec<String> = races.filter_map(|race| wrong_with(&race)).collect();
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

/// Every order in which two nodes can begin, with one of these bits set or not: forced, turned round, automatic, probes.
fn orders(lates: &[u32], bits: u8) -> impl Iterator<Item = Race> {
    let choices = (0..16u8).filter(move |choice| choice & !bits == 0);
    let begun = lates.iter().flat_map(|late| [(ME, *late), (THIRD, *late)]);
    let begun: Vec<_> = begun.collect();
    choices.flat_map(move |choice| {
        let is = move |bit: u8| choice & bit != 0;
        begun.clone().into_iter().map(move |(first, late)| Race {
            first,
            late,
            forced: is(FORCED),
            turned_round: is(TURNED_ROUND),
            automatic: is(AUTOMATIC),
            probes: is(PROBES),
            crashes: None,
        })
    })
}

const FORCED: u8 = 1;
const TURNED_ROUND: u8 = 2;
const AUTOMATIC: u8 = 4;
const PROBES: u8 = 8;

#[test]
fn of_two_operators_who_promote_one_succeeds_and_every_node_agrees_whatever_the_order() {
    none_goes_wrong(orders(&[0, 1, 2, 3, 5, 8], FORCED | TURNED_ROUND | AUTOMATIC | PROBES));
}

/// What was agreed before a supervisor died is no agreement any more: another node may have asked while it was down.
#[test]
fn a_supervisor_that_dies_in_a_race_and_comes_back_makes_no_second_main() {
    let crashes = (0..10).flat_map(|at| [(ME, at), (THIRD, at)]);
    none_goes_wrong(crashes.flat_map(|crash| {
        let races = orders(&[0, 1, 2, 3, 4], TURNED_ROUND | PROBES);
        races.map(move |race| Race { crashes: Some(crash), ..race })
    }));
}

/// Without a quorum two people can make two mains on the two sides of a cut link: that ends as soon as the sides meet.
#[test]
fn of_two_mains_of_one_epoch_the_lower_node_id_serves_on_once_they_meet() {
    for turned_round in [false, true] {
        let mut cluster = Cluster::at_rest(Nodes::Three);
        cluster.turned_round = turned_round;
        cluster.of_mut(ME).node.policy.auto_enabled = false;
        cluster.host_dies(MAIN);
        cluster.world.cut(ME, THIRD);
        cluster.rounds(LONG);
        assert!(cluster.promote_by_hand(ME, false) && cluster.promote_by_hand(THIRD, false));
        cluster.rounds(LONG);
        assert_eq!(cluster.world.writable(), [ME, THIRD], "each side has a main");
        cluster.mend();
        cluster.rounds(5);
        assert!(cluster.always(LONG, |it| it.world.writable() == [ME]), "{turned_round}");
        assert_eq!(cluster.agreed_main(), Some((ME, Epoch(2))), "{turned_round}");
        for node in [MAIN, THIRD] {
            let rejoin = Operation::Rejoin { copy: false, request: Request::default() };
            assert!(cluster.ask(node, &rejoin).is_ok(), "{node}");
        }
        assert!(cluster.settle(), "{turned_round}");
        assert!([MAIN, THIRD].iter().all(|node| cluster.world.streams_from(*node, ME)), "{turned_round}");
    }
}

/// Its silence counts from its own start: that is no sign of life of main, and costs no pause.
#[test]
fn a_supervisor_that_starts_while_main_is_dead_holds_up_no_failover() {
    for at in 0..8 {
        let mut cluster = Cluster::at_rest(Nodes::Three);
        cluster.host_dies(MAIN);
        cluster.rounds(at);
        cluster.crash(THIRD, false);
        cluster.rounds(LONG);
        assert_eq!(cluster.agreed_main(), Some((ME, Epoch(2))), "after {at} rounds");
    }
}
