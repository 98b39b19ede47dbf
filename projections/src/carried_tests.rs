use interrex_events::{Address, Envelope, Event, Head, Hlc, NodeFenced, NodeId, NodeStatus, RunId};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::{Projection as _, story_order::tests::journals};

/// The fold of one node's own events.
fn fold(mut cluster: Cluster, mut standpoint: Standpoint, events: &[Envelope]) -> (Cluster, Standpoint) {
    for event in events {
        cluster.apply(event);
        standpoint.apply(event);
    }
    (cluster, standpoint)
}

fn from_the_first(events: &[Envelope]) -> (Cluster, Standpoint) {
    fold(Cluster::default(), Standpoint::default(), events)
}

fn base(node: NodeId, carried: Carried) -> Base {
    Base { head: Head::empty(node), moment: Hlc(0), carried }
}

/// One node's journal, in which no run has the id of another.
fn journal() -> impl Strategy<Value = Vec<Envelope>> {
    journals().prop_map(|events| {
        let mut begun = 0;
        let own = events.into_iter().filter(|event| event.node_id == NodeId(2));
        own.map(|mut event| {
            begun += u128::from(matches!(event.event, Event::FailoverStarted(_)));
            event.run_id = event.run_id.map(|_| RunId(Uuid::from_u128(begun)));
            event
        })
        .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    /// Sealed once or again and again, wherever that is allowed: what decides is the same.
    #[test]
    fn a_fold_from_what_was_carried_is_the_fold_of_everything(
        events in journal(), cuts in prop::collection::vec(any::<bool>(), 64)
    ) {
        let me = NodeId(2);
        let mut sealed = (Cluster::default(), Standpoint::default());
        let mut whole = sealed.clone();
        for (event, cut) in events.iter().zip(cuts) {
            whole = fold(whole.0, whole.1, std::slice::from_ref(event));
            sealed = fold(sealed.0, sealed.1, std::slice::from_ref(event));
            if cut && is_settled(me, &sealed.0, &sealed.1) {
                let carried = carried(&sealed.0, &sealed.1);
                let json = serde_json::to_string(&carried).unwrap();
                prop_assert_eq!(serde_json::from_str::<Carried>(&json).unwrap(), carried.clone());
                let bases = Bases::from([(me, base(me, carried))]);
                sealed = (Cluster::default(), Standpoint::default());
                sealed.0.begin_after(&bases);
                sealed.1.begin_after(&bases);
            }
            prop_assert_eq!(&sealed.1, &whole.1);
            let (now, all) = (&sealed.0, &whole.0);
            prop_assert_eq!(&now.nodes, &all.nodes);
            prop_assert_eq!(now.runs.active(me), all.runs.active(me));
            prop_assert_eq!(now.runs.scheduled(me), all.runs.scheduled(me));
            let decides = |it: &Settings| (it.changed, it.stamp, it.changed_by.clone(), it.configured.clone());
            prop_assert_eq!(decides(&now.settings), decides(&all.settings));
            prop_assert_eq!(is_settled(me, now, &sealed.1), is_settled(me, all, &whole.1));
        }
    }

    /// For people, the merged story begins with a main, and a fence that anyone recorded of itself shows.
    #[test]
    fn a_story_whose_begins_were_sealed_knows_every_node_and_its_own_last_word(events in journals()) {
        let of = |node: u32| -> Vec<Envelope> {
            events.iter().filter(|event| event.node_id == NodeId(node)).cloned().collect()
        };
        let folds: Vec<_> = (1..=3).map(|node| (NodeId(node), from_the_first(&of(node)))).collect();
        let said = folds.iter().map(|(node, (cluster, own))| (*node, base(*node, carried(cluster, own))));
        let story = Cluster::sealed(&said.collect());
        let latest = folds.iter().map(|(_, (cluster, _))| cluster.nodes.epoch).max();
        prop_assert_eq!(Some(story.nodes.epoch), latest);
        for (node, (cluster, _)) in &folds {
            let (Some(own), Some(shown)) = (cluster.nodes.get(*node), story.nodes.get(*node)) else { continue };
            prop_assert_eq!((own.postgres, &own.name), (shown.postgres, &shown.name));
            prop_assert!(shown.status_since >= own.status_since);
        }
    }
}

#[test]
fn a_node_that_was_fenced_when_its_events_were_sealed_is_fenced() {
    let carried = Carried {
        nodes: vec![CarriedNode {
            spec: NodeSpec {
                node: NodeId(1),
                name: "alpha".to_owned(),
                address: Address::as_recorded(String::new()),
                postgres: Address::as_recorded(String::new()),
                redis: None,
            },
            role: interrex_events::Role::Secondary,
            status: NodeStatus::Fenced,
            status_since: None,
            postgres: None,
            timeline: None,
            lsn: None,
            redis: None,
            dependents: Vec::new(),
            actor_restarts: 0,
            configured: None,
            opened: None,
        }],
        main: Some(NodeId(2)),
        fence_proof: Some(NodeFenced {
            epoch: interrex_events::Epoch(2),
            postgres: "stopped".to_owned(),
            redis: String::new(),
            dependents: String::new(),
            next: String::new(),
            run: Some(RunId(uuid::Uuid::from_u128(7))),
        }),
        ..Carried::default()
    };
    let nodes = Cluster::sealed(&Bases::from([(NodeId(1), base(NodeId(1), carried.clone()))])).nodes;
    assert!(nodes.is_superseded(NodeId(1)) && !nodes.is_main(NodeId(1)));
    assert_eq!(Standpoint::sealed(NodeId(1), &carried).fence_proof, carried.fence_proof);
}
