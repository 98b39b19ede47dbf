//! Main hands its role over: whatever fails, dies or is cancelled, it ends in a named state, and at most one node is main.

use interrex_projections::NodeStatus;

use super::*;
use crate::{
    messages::{Declined, Operation},
    wire::HandoverOffer,
};

const STEPS: [StepId; 9] = [
    StepId::CheckHandover,
    StepId::WriteCheckpoint,
    StepId::Drain,
    StepId::StopMain,
    StepId::ProveHandover,
    StepId::HandOver,
    StepId::BecomeStandby,
    StepId::HandOverRedis,
    StepId::RestartDependents,
];

impl Node {
    /// The main of the pair.
    pub(super) fn main() -> Self {
        let mut node = Self::secondary();
        node.me = MAIN;
        let serving = PostgresChanged {
            status: PostgresStatus::Primary,
            timeline: None,
            lsn: None,
            detail: String::new(),
        };
        node.store(serving.into(), None);
        node
    }

    fn asked(&mut self, operation: &Operation) -> Result<Vec<Event>, Declined> {
        let asker = Cause::Person { name: "ada".to_owned(), source: "a test".to_owned() };
        let (_, drafts) = asked(self.situation(), operation, &asker)?;
        Ok(self.state(drafts))
    }

    pub(super) fn switching_over() -> Self {
        let mut node = Self::main();
        node.asked(&switchover(ME)).unwrap();
        node
    }

    fn status(&self) -> NodeStatus {
        self.belief.cluster.nodes.get(self.me).unwrap().status
    }
}

pub(super) fn switchover(to: NodeId) -> Operation {
    Operation::Switchover { to, drain_ms: 0, request: Request::default() }
}

fn cancel(reason: &str, force: bool) -> Operation {
    Operation::Cancel { reason: Some(reason.to_owned()), force }
}

fn offer(epoch: u64) -> Operation {
    Operation::TakeOver(HandoverOffer {
        from: MAIN,
        epoch: Epoch(epoch),
        handover: Handover {
            run: RunId(Uuid::from_u128(9)),
            system_id: "7312345678901234567".to_owned(),
            timeline: TimelineId(1),
            checkpoint: Lsn(0x0300_0028),
            end: Lsn(0x0300_0060),
        },
    })
}

pub(super) fn another_main() -> MainAnnounced {
    MainAnnounced {
        main: ME,
        epoch: Epoch(2),
        timeline: None,
        switchpoint: None,
        announced_by: ME,
        learned_by: LearnedBy::Heartbeat,
        planned: None,
    }
}

#[test]
fn main_offers_its_role_only_when_it_has_stopped_and_proved_that_nothing_is_missing() {
    let mut node = Node::switching_over();
    node.go_on_until(StepId::HandOver);
    assert_eq!(node.status(), NodeStatus::HandingOver, "from the offer on it must not start as a primary");
    let place = |wanted: fn(&Event) -> bool| node.stated.iter().position(wanted).unwrap();
    let proved = place(|event| matches!(event, Event::StepFinished(it) if it.step == StepId::ProveHandover));
    let offered = place(|event| matches!(event, Event::HandoverOffered(_)));
    let asked = place(|event| matches!(event, Event::StepStarted(it) if it.step == StepId::HandOver));
    assert!(proved < offered && offered < asked);

    node.go_on(success);
    assert_eq!(node.run().end, RunEnd::Completed);
    assert_eq!((node.belief.cluster.nodes.main, node.belief.cluster.nodes.epoch), (Some(ME), Epoch(2)));
    let certificate = node.run().certificate.clone().unwrap();
    assert_eq!((certificate.end, certificate.received), (certificate.switchpoint, certificate.switchpoint));
    assert_eq!(node.run().without_writes_ms, Some(30), "stop, proof and answer, 10 ms each");
}

#[test]
fn a_target_stores_that_it_accepts_and_begins_nothing_by_it() {
    let mut node = Node::secondary();
    let accept = |epoch| {
        let run = RunId(Uuid::from_u128(9));
        Operation::AcceptHandover(HandoverAccepted { from: MAIN, epoch: Epoch(epoch), run })
    };
    for _ in 0..2 {
        let stored = node.asked(&accept(2)).unwrap();
        assert!(matches!(stored.as_slice(), [Event::HandoverAccepted(_)]), "{stored:?}");
    }
    assert!(node.belief.cluster.runs.active(ME).is_none() && node.belief.cluster.runs.runs.is_empty());
    assert_eq!(node.asked(&accept(3)).unwrap_err().code, "older_epoch");
    node.asked(&offer(2)).unwrap();
    assert_eq!(node.asked(&accept(2)).unwrap_err().code, "run_active");
    let detached =
        PostgresChanged { status: PostgresStatus::Stopped, timeline: None, lsn: None, detail: String::new() };
    let mut node = Node::secondary();
    node.store(detached.into(), None);
    assert_eq!(node.asked(&accept(2)).unwrap_err().code, "not_promotable");
}

#[test]
fn whatever_step_fails_main_serves_on_or_has_handed_over() {
    for failing in STEPS {
        for bad in [StepOutcome::Failed, StepOutcome::Unknown, StepOutcome::Refused] {
            if failing == StepId::HandOver && bad != StepOutcome::Refused {
                continue; // asked again, until it is answered
            }
            let mut node = Node::switching_over();
            node.go_on(|step, _| if step == failing { bad } else { StepOutcome::Succeeded });
            let refused = bad == StepOutcome::Refused && failing <= StepId::HandOver;
            let expected = match failing {
                _ if refused => RunEnd::Refused,
                step if step < StepId::HandOver => RunEnd::RolledBack,
                _ => RunEnd::CompletedDegraded,
            };
            assert_eq!(node.run().end, expected, "{failing} {bad}");
            let undo = node.run().step(StepId::StopMain).undo;
            let stopped = failing >= StepId::StopMain;
            let back = matches!(expected, RunEnd::Refused | RunEnd::RolledBack);
            assert_eq!(
                undo == Undo::Done,
                back && stopped,
                "{failing} {bad}: a main that serves on was started again"
            );
            // the directory could still start as a primary
            let doubtful = failing == StepId::BecomeStandby && !refused;
            assert_eq!(node.belief.cluster.nodes.is_superseded(MAIN), doubtful, "{failing} {bad}");
            assert!(
                !node.belief.cluster.nodes.is_handing_over(MAIN),
                "{failing} {bad}: the offer is undecided"
            );
            let is_main = expected != RunEnd::CompletedDegraded;
            assert_eq!(node.belief.cluster.nodes.is_main(MAIN), is_main, "{failing} {bad}");
        }
    }
}

#[test]
fn an_offer_is_made_again_until_it_is_answered_or_a_person_answers_for_a_target_that_is_gone() {
    let mut node = Node::switching_over();
    node.go_on_until(StepId::HandOver);
    for unanswered in 1..50 {
        node.end(StepId::HandOver, StepOutcome::Unknown);
        assert_eq!(node.run().step(StepId::HandOver).attempts, unanswered + 1);
    }
    let code = |node: &mut Node, operation| node.asked(&operation).unwrap_err().code;
    assert_eq!(code(&mut node, cancel("beta burned down", false)), "past_no_return");
    node.store(PeerReachable { peer: ME, silent_ms: None }.into(), None);
    assert_eq!(code(&mut node, cancel("beta burned down", true)), "target_answers");
    node.store(PeerUnreachable { peer: ME, detail: "no route".to_owned() }.into(), None);
    assert_eq!(code(&mut node, cancel(" ", true)), "reason_needed");
    assert_eq!(node.status(), NodeStatus::HandingOver);

    node.asked(&cancel("beta burned down", true)).unwrap();
    node.undo_all();
    assert_eq!((node.run().end, node.run().step(StepId::StopMain).undo), (RunEnd::Refused, Undo::Done));
    assert_eq!((node.status(), node.belief.cluster.nodes.main), (NodeStatus::Online, Some(MAIN)));
    assert!(node.run().problem.as_ref().unwrap().contains("beta burned down"));
}

#[test]
fn an_offer_is_not_withdrawn_once_another_node_is_main() {
    let mut node = Node::switching_over();
    node.go_on_until(StepId::HandOver);
    node.store(PeerUnreachable { peer: ME, detail: "no route".to_owned() }.into(), None);
    node.store(another_main().into(), None);
    assert_eq!(node.asked(&cancel("beta burned down", true)).unwrap_err().code, "other_main");
}

#[test]
fn an_offer_that_is_not_answered_ends_when_a_third_node_is_main() {
    let mut node = Node::switching_over();
    node.go_on_until(StepId::HandOver);
    let third = NodeId(3);
    node.store(MainAnnounced { main: third, announced_by: third, ..another_main() }.into(), None);
    node.end(StepId::HandOver, StepOutcome::Unknown);
    node.undo_all();
    assert_eq!(node.run().end, RunEnd::Refused);
    assert!(!node.stated.iter().any(|event| matches!(event, Event::HandoverWithdrawn(_))));
    assert_eq!(node.status(), NodeStatus::Fencing, "it does not serve, and is stopped");
}

#[test]
fn a_supervisor_that_died_in_any_step_goes_on_with_that_step_or_takes_it_back() {
    for dying in STEPS {
        let mut node = Node::switching_over();
        node.go_on_until(dying);
        let resumed = node.when(&Input::Booted);
        assert!(matches!(&resumed[0], Event::RunResumed(it) if it.interrupted.contains(&dying)), "{dying}");
        node.go_on(success);
        assert_eq!(node.run().end, RunEnd::Completed, "{dying}");
        let offers = node.stated.iter().filter(|event| matches!(event, Event::HandoverOffered(_))).count();
        assert_eq!(offers, 1, "{dying}: an offer is made once");
    }
}

#[test]
fn a_run_is_cancelled_before_its_point_of_no_return_and_never_after() {
    for at in STEPS {
        let mut node = Node::switching_over();
        node.go_on_until(at);
        let cancelled = node.asked(&cancel("not now", false));
        if at >= StepId::HandOver {
            assert_eq!(cancelled.unwrap_err().code, "past_no_return", "{at}");
            continue;
        }
        assert!(cancelled.is_ok());
        node.go_on(success);
        assert_eq!(node.run().end, RunEnd::RolledBack, "{at}");
        assert!(node.run().problem.as_ref().unwrap().contains("not now"));
        assert!(!node.stated.iter().any(|event| matches!(event, Event::HandoverOffered(_))), "{at}");
        assert_eq!(node.run().step(StepId::StopMain).undo == Undo::Done, at >= StepId::StopMain, "{at}");
    }
}

#[test]
fn what_cannot_be_is_declined_with_its_reason() {
    let code = |node: &mut Node, operation: &Operation| node.asked(operation).unwrap_err().code;
    assert_eq!(code(&mut Node::secondary(), &switchover(MAIN)), "not_main");
    assert_eq!(code(&mut Node::main(), &switchover(MAIN)), "already_main", "to itself");
    assert_eq!(code(&mut Node::main(), &switchover(NodeId(7))), "no_such_target");
    assert_eq!(code(&mut Node::switching_over(), &switchover(ME)), "run_active");
    assert_eq!(code(&mut Node::main(), &cancel("not now", false)), "no_run");
    assert_eq!(code(&mut Node::secondary(), &offer(1)), "older_epoch");
    assert_eq!(code(&mut Node::failing_over(), &offer(2)), "run_active");
}

#[test]
fn a_main_that_is_fenced_on_the_way_neither_offers_its_role_nor_starts_again() {
    for at in [StepId::StopMain, StepId::ProveHandover, StepId::HandOver] {
        let mut node = Node::switching_over();
        node.go_on_until(at);
        node.when(&Input::FenceRequested(FenceRequest { by: ME, epoch: Epoch(2), run: RUN }));
        assert_eq!(node.status(), NodeStatus::Fencing, "{at}");
        node.go_on(
            |step, _| if step == StepId::HandOver { StepOutcome::Refused } else { StepOutcome::Succeeded },
        );
        assert_eq!(node.run().end, RunEnd::Refused, "{at}");
        assert_eq!(node.status(), NodeStatus::Fencing, "{at}");
        assert!(!node.stated.iter().any(|event| matches!(event, Event::HandoverWithdrawn(_))), "{at}");
    }
}

#[test]
fn an_offer_that_is_heard_twice_is_one_takeover() {
    let mut node = Node::secondary();
    assert_eq!(node.asked(&offer(2)).unwrap().len(), 2, "its begin and its first step");
    assert_eq!(node.run().kind, RunKind::Takeover);
    assert_eq!(node.asked(&offer(2)).unwrap(), []);
    node.go_on(success);
    assert_eq!(node.run().end, RunEnd::Completed);
    assert_eq!(node.asked(&offer(2)).unwrap(), [], "nor is it taken again when it has ended");
}

#[test]
fn an_offer_that_comes_after_a_failover_of_ones_own_is_answered_by_it() {
    let mut node = Node::failing_over();
    node.go_on(success);
    assert_eq!(node.asked(&offer(2)).unwrap(), [], "the role is taken, and no run begins");
    assert_eq!(
        node.asked(&offer(3)).unwrap_err().code,
        "older_epoch",
        "nobody offers what this node is main of"
    );
}

#[test]
fn a_main_that_was_overtaken_while_it_stops_does_not_offer_its_role() {
    let mut node = Node::switching_over();
    node.go_on_until(StepId::ProveHandover);
    node.store(another_main().into(), None);
    node.go_on(success);
    assert_eq!(node.run().end, RunEnd::Refused);
    assert_eq!(node.status(), NodeStatus::Fencing);
}

#[test]
fn an_offer_that_is_refused_after_another_node_became_main_is_not_withdrawn() {
    let mut node = Node::switching_over();
    node.go_on_until(StepId::HandOver);
    node.store(another_main().into(), None);
    node.end(StepId::HandOver, StepOutcome::Refused);
    node.undo_all();
    assert!(!node.stated.iter().any(|event| matches!(event, Event::HandoverWithdrawn(_))));
    assert_eq!(node.status(), NodeStatus::Fencing, "it does not serve, and is stopped");
}
