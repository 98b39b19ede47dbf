//! A PostgreSQL that takes writes on a node that is not main.

use super::*;

fn evidence(alive: bool) -> Evidence {
    let finding = || if alive { Finding::good("answers") } else { Finding::bad("connection refused") };
    Evidence {
        supervisor: finding(),
        postgres: finding(),
        redis: finding(),
        wal_receiver: Finding::bad("no WAL is received"),
        last_good_at: None,
        missed_probes: if alive { 0 } else { 5 },
    }
}

impl Node {
    fn sees_main(&mut self, alive: bool, silent_ms: u64) {
        let silent_since = self.now.before(silent_ms);
        let evidence = evidence(alive);
        self.sight = Some(MainSight {
            main: MAIN,
            silent_since,
            evidence,
            last_report: None,
            offers: false,
            supervisor_is_silent: !alive,
        });
    }

    fn is_promoted_by_hand(&mut self) {
        let changed = PostgresChanged {
            status: PostgresStatus::Primary,
            timeline: Some(TimelineId(2)),
            lsn: Some(Lsn(0x300_0060)),
            detail: String::new(),
        };
        self.store(changed.into(), None);
        let event = self.journal.last().unwrap().event.clone();
        assert_eq!(effects(ME, &self.belief, None, &event), [Effect::Look]);
    }
}

#[test]
fn beside_a_living_main_it_is_stopped_and_the_node_is_fenced_until_it_rejoins() {
    let mut node = Node::secondary();
    node.sees_main(true, 0);
    node.is_promoted_by_hand();
    let facts = node.when(&Input::Looked);
    assert!(matches!(&facts[..], [Event::StrayPrimaryFound(it)] if it.answer == StrayAnswer::Stopped));
    assert_eq!(effects(ME, &node.belief, None, &facts[0]), [Effect::Fence { epoch: Epoch(1), again: false }]);
    assert!(node.belief.cluster.nodes.is_superseded(ME));
    assert!(node.when(&Input::Looked).is_empty(), "it is being stopped");
}

#[test]
fn while_main_is_silent_it_is_watched_and_taken_over_once_main_is_lost() {
    let mut node = Node::secondary();
    node.sees_main(false, 3_000);
    node.is_promoted_by_hand();
    let facts = node.when(&Input::Looked);
    assert!(matches!(&facts[..], [Event::StrayPrimaryFound(it)] if it.answer == StrayAnswer::Watched));
    assert!(node.when(&Input::Looked).is_empty(), "it is said once");
    node.sees_main(false, 5_000);
    node.when(&Input::Looked);
    assert_eq!((node.run().kind, node.run().trigger), (RunKind::Promotion, Trigger::ByHand));
    node.go_on(success);
    assert!(node.belief.cluster.nodes.is_main(ME));
    assert!(node.when(&Input::Looked).is_empty(), "a main takes writes");
}

#[test]
fn a_main_that_answers_again_ends_the_watch() {
    let mut node = Node::secondary();
    node.sees_main(false, 3_000);
    node.is_promoted_by_hand();
    node.when(&Input::Looked);
    node.sees_main(true, 0);
    let facts = node.when(&Input::Looked);
    assert!(matches!(&facts[..], [Event::StrayPrimaryFound(it)] if it.answer == StrayAnswer::Stopped));
}

#[test]
fn what_was_measured_before_the_directory_became_a_standbys_is_no_stray() {
    let mut node = Node::secondary();
    node.sees_main(true, 0);
    let changed =
        PostgresChanged { status: PostgresStatus::Primary, timeline: None, lsn: None, detail: String::new() };
    node.store(changed.into(), None);
    let demoted = NodeDemoted { main: MAIN, epoch: Epoch(1), by: Demotion::Unchanged };
    node.store(demoted.into(), None);
    assert!(node.when(&Input::Looked).is_empty());
}

#[test]
fn of_three_nodes_none_promotes_itself_without_a_candidate_and_one_at_most_with_it() {
    let lost = |candidate: Option<u32>, heard: Option<u32>| {
        let mut node = Node::secondary();
        let mut row = node.belief.cluster.nodes.nodes[&ME].clone();
        row.node = NodeId(3);
        node.belief.cluster.nodes.nodes.insert(NodeId(3), row);
        node.policy.nodes = 3;
        node.policy.candidate = candidate.map(NodeId);
        node.candidates.insert(NodeId(3), heard.map(NodeId));
        node.main_is_lost();
        let facts = node.when(&Input::Looked);
        matches!(&facts[..], [Event::FailoverStarted(_), ..])
    };
    assert!(!lost(None, None), "two of them could");
    assert!(lost(Some(ME.0), None) && lost(Some(ME.0), Some(ME.0)));
    assert!(!lost(Some(3), None), "it is another one");
    assert!(!lost(Some(ME.0), Some(3)), "they do not agree");
}

#[test]
fn a_node_that_the_configuration_has_no_more_needs_no_candidate() {
    let mut node = Node::secondary();
    let mut row = node.belief.cluster.nodes.nodes[&ME].clone();
    row.node = NodeId(3);
    node.belief.cluster.nodes.nodes.insert(NodeId(3), row);
    node.main_is_lost();
    assert!(matches!(&node.when(&Input::Looked)[..], [Event::FailoverStarted(_), ..]));
}
