//! A superseded node stops serving, proves it once, and is told when it may serve again.

use super::*;

#[test]
fn a_main_fences_itself_for_a_later_epoch_only() {
    let mut node = Node::failing_over();
    node.go_on(success);
    let request = |epoch| Input::FenceRequested(FenceRequest { by: MAIN, epoch: Epoch(epoch), run: RUN });
    assert!(node.when(&request(2)).is_empty(), "its own epoch fences nobody");
    let facts = node.when(&request(3));
    assert!(matches!(&facts[..], [Event::FencingStarted(_)]));
    let effect = effects(ME, &node.belief, None, &facts[0]);
    assert_eq!(effect, [Effect::Fence { epoch: Epoch(3), again: false }]);
    assert!(node.when(&request(4)).is_empty(), "fencing is under way already");
}

#[test]
fn a_fence_is_lifted_by_the_run_that_asked_for_it_last_or_by_a_person_and_by_nobody_once_another_is_main() {
    let mut node = Node::failing_over();
    node.go_on(success);
    let other = RunId(Uuid::from_u128(2));
    let fence = |node: &mut Node, run| {
        node.when(&Input::FenceRequested(FenceRequest { by: MAIN, epoch: Epoch(3), run }));
        let proof =
            || FenceProof { postgres: "stopped".into(), redis: String::new(), dependents: String::new() };
        node.when(&Input::FenceEnded(FenceEnded { epoch: Epoch(3), result: Ok(proof()) }));
    };
    let lift = |node: &mut Node, run| node.when(&Input::LiftRequested(LiftRequest { by: MAIN, run }));
    fence(&mut node, other);
    fence(&mut node, RUN);
    assert!(lift(&mut node, other).is_empty(), "a later run took the place of that one");
    let facts = lift(&mut node, RUN);
    assert_eq!(effects(ME, &node.belief, None, &facts[0]), [Effect::ServeAgain]);
    assert!(!node.belief.cluster.nodes.is_superseded(ME) && node.belief.cluster.nodes.is_main(ME));

    fence(&mut node, other);
    let by_hand = |node: &Node, reason: Option<&str>| {
        let cancel = Operation::Cancel { reason: reason.map(str::to_owned), force: true };
        let asker = Cause::Person { name: "jo".into(), source: "here".into() };
        answer(node.situation(), &Operate { operation: cancel, due: None, asker })
    };
    let what_does_not_help = [
        Operation::Cancel { reason: None, force: false },
        Operation::Rejoin { copy: false, request: Request::default() },
        Operation::Promote { request: Request::default(), sight: None },
    ];
    for operation in what_does_not_help {
        let declined = asked(node.situation(), &operation, &Cause::System).unwrap_err();
        assert_eq!(declined.code, "fenced_main");
        assert!(declined.message.contains("interrex run cancel --force"), "{declined}");
    }
    assert_eq!(by_hand(&node, None).unwrap_err().code, "reason_needed");
    assert!(matches!(by_hand(&node, Some("beta burned")).unwrap().1[0].event, Event::FenceLifted(_)));
    node.store(main_announced(), None);
    assert!(lift(&mut node, other).is_empty() && by_hand(&node, Some("beta burned")).is_err());
}

#[test]
fn a_main_that_was_fenced_for_a_run_proves_it_once_and_not_again_when_the_run_made_a_main() {
    let mut node = Node::failing_over();
    node.go_on(success);
    let other = RunId(Uuid::from_u128(2));
    node.when(&Input::FenceRequested(FenceRequest { by: MAIN, epoch: Epoch(3), run: other }));
    let proof = FenceProof { postgres: "stopped".into(), redis: String::new(), dependents: String::new() };
    let ended = Input::FenceEnded(FenceEnded { epoch: Epoch(3), result: Ok(proof) });
    assert!(matches!(node.when(&ended)[..], [Event::NodeFenced(_)]));
    let announced = main_announced();
    node.store(announced.clone(), None);
    assert_eq!(node.belief.cluster.nodes.get(ME).unwrap().status, NodeStatus::Fenced);
    assert_eq!(effects(ME, &node.belief, None, &announced), []);
    assert_eq!(node.when(&ended), []);
}

#[test]
fn a_superseded_main_is_fenced_by_the_announcement_itself_and_again_after_a_restart() {
    let mut node = Node::failing_over();
    node.go_on(success);
    let announced = main_announced();
    node.store(announced.clone(), None);
    let fence = [Effect::Fence { epoch: Epoch(3), again: false }];
    assert_eq!(effects(ME, &node.belief, None, &announced), fence);
    assert_eq!(outstanding(ME, &node.belief), fence);
}

#[test]
fn a_server_of_a_fenced_node_that_somebody_starts_is_stopped_again() {
    let mut node = Node::failing_over();
    node.go_on(success);
    node.store(
        FencingStarted { superseded_by: MAIN, epoch: Epoch(3), own_epoch: Epoch(2), run: None }.into(),
        None,
    );
    let proof = NodeFenced {
        epoch: Epoch(3),
        postgres: String::new(),
        redis: String::new(),
        dependents: String::new(),
        next: String::new(),
        run: None,
    };
    node.store(proof.into(), None);
    let started = Event::from(PostgresChanged {
        status: PostgresStatus::Primary,
        timeline: None,
        lsn: None,
        detail: String::new(),
    });
    node.store(started.clone(), None);
    assert!(matches!(effects(ME, &node.belief, None, &started)[..], [Effect::Fence { again: false, .. }]));
    assert_eq!(node.belief.cluster.nodes.get(ME).unwrap().status, NodeStatus::Fencing, "the proof is void");
}
