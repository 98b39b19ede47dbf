//! What a step observed decides, and an observation that does not read decides nothing.

use super::*;

#[test]
fn a_promotion_that_was_seen_opens_the_epoch_although_no_write_was_proved_yet() {
    let mut node = Node::failing_over();
    node.go_on_until(StepId::Promote);
    let report = StepReport::new(StepOutcome::Failed, "a primary that takes no write")
        .observing(found_by(StepId::Promote));
    let ended = StepEnded { run: RUN, step: StepId::Promote, attempt: 1, report, took_ms: 1 };
    let facts = node.when(&Input::StepEnded(ended));
    let kinds: Vec<&str> = facts.iter().map(Event::kind).collect();
    assert_eq!(kinds, ["step_finished", "epoch_opened", "step_started"]);
    assert!(node.belief.cluster.nodes.is_main(ME));
    node.go_on(success);
    assert_eq!(node.run().end, RunEnd::Completed);
    let opened = node.stated.iter().filter(|event| matches!(event, Event::EpochOpened(_))).count();
    assert_eq!(opened, 1);
}

#[test]
fn a_promotion_without_its_timeline_is_unknown_and_is_looked_at_until_it_reads() {
    let mut node = Node::failing_over();
    node.go_on_until(StepId::Promote);
    for attempt in 1..=500 {
        let report = StepReport::new(StepOutcome::Succeeded, "a primary");
        let ended = StepEnded { run: RUN, step: StepId::Promote, attempt, report, took_ms: 1 };
        let facts = node.when(&Input::StepEnded(ended));
        let kinds: Vec<&str> = facts.iter().map(Event::kind).collect();
        assert_eq!(kinds, ["step_finished", "step_started"], "attempt {attempt}");
    }
    assert!(!node.belief.cluster.nodes.is_main(ME), "an epoch was opened on a timeline that is not known");
    node.go_on(success);
    assert_eq!(node.run().end, RunEnd::Completed);
}

#[test]
fn what_a_stopped_main_proved_and_does_not_read_is_proved_again() {
    let mut node = Node::switching_over();
    node.go_on_until(StepId::ProveHandover);
    let report = StepReport::new(StepOutcome::Succeeded, "all of it is there");
    let ended = StepEnded { run: RUN, step: StepId::ProveHandover, attempt: 1, report, took_ms: 1 };
    let facts = node.when(&Input::StepEnded(ended));
    let kinds: Vec<&str> = facts.iter().map(Event::kind).collect();
    assert_eq!(kinds, ["step_finished", "step_started"], "nothing is offered");
}
