//! A node comes back as a secondary: whatever fails or dies, it ends in a named state, and serves nobody before it follows.

use interrex_projections::NodeStatus;

use super::*;
use crate::messages::{Declined, Operation};

const STEPS: [StepId; 8] = [
    StepId::CheckLineage,
    StepId::ReserveSlot,
    StepId::ReportFork,
    StepId::KeepDiverged,
    StepId::Rebuild,
    StepId::BecomeStandby,
    StepId::FollowRedis,
    StepId::RestartDependents,
];

impl Node {
    /// An old main that learned of another one, and is proved to have stopped.
    fn fenced() -> Self {
        let mut node = Self::secondary();
        node.me = MAIN;
        let announced = MainAnnounced {
            main: ME,
            epoch: Epoch(2),
            timeline: None,
            switchpoint: None,
            announced_by: ME,
            learned_by: LearnedBy::Heartbeat,
            planned: None,
        };
        node.store(announced.into(), None);
        node.is_proved_to_have_stopped();
        node
    }

    fn is_proved_to_have_stopped(&mut self) {
        let stopped = PostgresChanged {
            status: PostgresStatus::Stopped,
            timeline: None,
            lsn: None,
            detail: String::new(),
        };
        self.store(stopped.into(), None);
        let proof = NodeFenced {
            epoch: Epoch(2),
            postgres: String::new(),
            redis: String::new(),
            dependents: String::new(),
            next: String::new(),
            run: None,
        };
        self.store(proof.into(), None);
    }

    fn rejoin(&mut self, copy: bool) -> Result<Vec<Event>, Declined> {
        let operation = Operation::Rejoin { copy, request: Request::default() };
        let (_, drafts) = asked(self.situation(), &operation, &Cause::System)?;
        Ok(self.state(drafts))
    }

    fn returning() -> Self {
        let mut node = Self::fenced();
        node.rejoin(false).unwrap();
        node
    }

    fn own_status(&self) -> NodeStatus {
        self.belief.cluster.nodes.get(self.me).unwrap().status
    }
}

#[test]
fn whatever_step_fails_it_stays_fenced_or_follows() {
    for failing in STEPS {
        for bad in [StepOutcome::Failed, StepOutcome::Unknown, StepOutcome::Refused] {
            let mut node = Node::returning();
            node.go_on(|step, _| if step == failing { bad } else { StepOutcome::Succeeded });
            let refused = bad == StepOutcome::Refused && failing <= StepId::Rebuild;
            let expected = match failing {
                _ if refused => RunEnd::Refused,
                StepId::CheckLineage | StepId::ReserveSlot | StepId::KeepDiverged => RunEnd::RolledBack,
                StepId::Rebuild | StepId::BecomeStandby => RunEnd::NeedsOperator,
                _ => RunEnd::CompletedDegraded,
            };
            assert_eq!(node.run().end, expected, "{failing} {bad}");
            let follows = expected == RunEnd::CompletedDegraded;
            let status = if follows { NodeStatus::Online } else { NodeStatus::Fenced };
            assert_eq!(node.own_status(), status, "{failing} {bad}");
            assert_eq!(node.belief.cluster.nodes.main, Some(ME), "{failing} {bad}");
            if !follows {
                assert!(node.rejoin(false).is_ok(), "{failing} {bad}: it can be asked for again");
            }
        }
    }
}

#[test]
fn a_supervisor_that_died_in_any_step_of_it_goes_on_with_that_step() {
    for dying in STEPS {
        let mut node = Node::returning();
        node.go_on_until(dying);
        let resumed = node.when(&Input::Booted);
        assert!(matches!(&resumed[0], Event::RunResumed(it) if it.interrupted.contains(&dying)), "{dying}");
        assert_eq!(
            outstanding(node.me, &node.belief),
            [],
            "{dying}: nothing is stopped under the hands of the run"
        );
        node.go_on(success);
        assert_eq!((node.run().end, node.own_status()), (RunEnd::Completed, NodeStatus::Online), "{dying}");
    }
}

#[test]
fn a_server_that_somebody_starts_under_the_hands_of_the_run_is_stopped() {
    let mut node = Node::returning();
    node.go_on_until(StepId::KeepDiverged);
    let serving = Event::from(PostgresChanged {
        status: PostgresStatus::Primary,
        timeline: None,
        lsn: None,
        detail: String::new(),
    });
    node.store(serving.clone(), None);
    assert_eq!(
        effects(node.me, &node.belief, None, &serving),
        [Effect::Fence { epoch: Epoch(2), again: false }]
    );
}

#[test]
fn a_node_that_came_back_behind_a_main_that_was_superseded_meanwhile_stays_fenced_and_follows_the_newer_one()
{
    let mut node = Node::returning();
    node.go_on_until(StepId::BecomeStandby);
    let newer = NodeId(3);
    let announced = MainAnnounced {
        main: newer,
        epoch: Epoch(3),
        timeline: None,
        switchpoint: None,
        announced_by: newer,
        learned_by: LearnedBy::Heartbeat,
        planned: None,
    };
    node.store(announced.into(), None);
    // its record was under way when the news came
    node.end(StepId::BecomeStandby, StepOutcome::Succeeded);
    assert_eq!(node.own_status(), NodeStatus::Fenced);
    assert_eq!(
        (node.belief.cluster.nodes.main, node.belief.standpoint.to_follow),
        (Some(newer), Some(newer))
    );
}

#[test]
fn a_standby_that_was_stopped_to_be_looked_at_runs_again_when_its_run_is_given_up() {
    let mut node = Node::secondary();
    node.rejoin(true).unwrap();
    node.go_on(
        |step, _| if step == StepId::ReserveSlot { StepOutcome::Failed } else { StepOutcome::Succeeded },
    );
    assert_eq!(
        (node.run().end, node.run().step(StepId::CheckLineage).undo),
        (RunEnd::RolledBack, Undo::Done)
    );
}

#[test]
fn it_is_cancelled_before_the_directory_is_touched_and_never_after() {
    for at in STEPS {
        let mut node = Node::returning();
        node.go_on_until(at);
        let cancel = Operation::Cancel { reason: None, force: false };
        let cancelled = asked(node.situation(), &cancel, &Cause::System);
        if at >= StepId::Rebuild {
            assert_eq!(cancelled.unwrap_err().code, "past_no_return", "{at}");
            continue;
        }
        node.state(cancelled.unwrap().1);
        node.go_on(success);
        assert_eq!((node.run().end, node.own_status()), (RunEnd::RolledBack, NodeStatus::Fenced), "{at}");
    }
}

#[test]
fn what_cannot_come_back_is_declined_with_its_reason() {
    let code = |mut node: Node| node.rejoin(false).unwrap_err().code;
    let mut main = Node::secondary();
    main.me = MAIN;
    assert_eq!(code(main), "is_main");
    assert_eq!(code(Node::secondary()), "already_follows");
    assert!(
        Node::secondary().rejoin(true).is_ok(),
        "a standby that streams is copied anew only if that is said"
    );
    assert_eq!(code(Node::returning()), "run_active");
    let mut stopping = Node::fenced();
    let event = FencingStarted { superseded_by: ME, epoch: Epoch(2), own_epoch: Epoch(1), run: None };
    stopping.store(event.into(), None);
    assert_eq!(code(stopping), "fencing");
}

#[test]
fn it_comes_back_by_itself_only_where_that_is_configured_and_once_in_an_epoch() {
    let mut node = Node::fenced();
    assert_eq!(node.when(&Input::Looked), []);
    node.policy.rejoin_automatically = true;
    assert!(matches!(node.when(&Input::Looked)[..], [Event::RejoinStarted(_), Event::StepStarted(_)]));
    assert_eq!((node.run().trigger, node.when(&Input::Looked)), (Trigger::Automatic, Vec::new()));
    node.go_on(|_, _| StepOutcome::Failed);
    assert_eq!(node.run().end, RunEnd::RolledBack);
    assert_eq!(node.when(&Input::Looked), [], "what failed needs a person");
}

#[test]
fn it_gives_way_when_another_node_becomes_main_before_its_data_are_touched() {
    let mut node = Node::returning();
    let epoch = Epoch(3);
    let announced = MainAnnounced {
        main: NodeId(3),
        epoch,
        timeline: None,
        switchpoint: None,
        announced_by: NodeId(3),
        learned_by: LearnedBy::Heartbeat,
        planned: None,
    };
    node.store(announced.into(), None);
    node.go_on(success);
    assert_eq!(node.run().end, RunEnd::Refused);
    node.rejoin(false).unwrap();
}
