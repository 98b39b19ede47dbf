//! A promotion that was asked for and not seen is withdrawn before its run ends (ADR 15).

use super::*;

impl Node {
    /// A run whose old main has proved its fence, and whose promotion has used up its attempts.
    fn not_obeyed() -> Self {
        let mut node = Self::failing_over();
        node.use_up_the_promotion();
        node
    }

    fn use_up_the_promotion(&mut self) {
        self.go_on_until(StepId::Promote);
        while self.running().contains(&StepId::Promote) {
            self.end(StepId::Promote, StepOutcome::Unknown);
        }
    }

    /// The step that is being taken back.
    fn being_undone(&self) -> Option<StepId> {
        self.run().steps.iter().find(|(_, step)| step.undo == Undo::Running).map(|(id, _)| *id)
    }

    fn undo_ends(&mut self, step: StepId, undone: bool, detail: &str) {
        assert_eq!(self.being_undone(), Some(step));
        let detail = detail.to_owned();
        self.when(&Input::UndoEnded(UndoEnded { run: RUN, step, undone, detail }));
    }

    fn end_in_words(&self) -> (RunEnd, String) {
        (self.run().end, self.run().problem.clone().unwrap_or_default())
    }

    /// The promotion is seen, and takes no write.
    fn promotion_is_seen_and_fails(&mut self) {
        let report =
            StepReport::new(StepOutcome::Failed, "it takes no write").observing(found_by(StepId::Promote));
        let attempt = self.run().step(StepId::Promote).attempts;
        let step = StepId::Promote;
        self.when(&Input::StepEnded(StepEnded { run: RUN, step, attempt, report, took_ms: 10 }));
    }
}

#[test]
fn attempts_that_are_used_up_are_withdrawn_first_and_everything_before_them_after() {
    let mut node = Node::not_obeyed();
    assert!(node.run().is_withdrawing() && node.run().is_past_no_return());
    node.undo_ends(StepId::Promote, true, "the promotion asked for before is withdrawn");
    assert!(!node.run().is_past_no_return());
    node.undo_ends(StepId::Detach, true, "");
    node.undo_ends(StepId::FenceOldMain, true, "");
    let (end, problem) = node.end_in_words();
    assert_eq!(end, RunEnd::NeedsOperator);
    for words in ["is withdrawn", "nothing is pending", "interrex promote"] {
        assert!(problem.contains(words), "{problem}");
    }
    assert!(!node.belief.cluster.nodes.is_main(ME));
}

#[test]
fn what_cannot_be_withdrawn_is_looked_at_once_more_and_told() {
    let mut node = Node::not_obeyed();
    let attempts = node.run().step(StepId::Promote).attempts;
    node.undo_ends(StepId::Promote, false, "PostgreSQL, process 7, lives on after SIGKILL");
    assert_eq!(node.running(), [StepId::Promote].into());
    node.end(StepId::Promote, StepOutcome::Failed);
    assert_eq!(node.run().step(StepId::Promote).attempts, attempts + 1);
    let (end, problem) = node.end_in_words();
    assert_eq!(end, RunEnd::NeedsOperator);
    for words in ["process 7, lives on", "PENDING", "do not start alpha", "interrex promote"] {
        assert!(problem.contains(words), "{problem}");
    }
    for kept in [StepId::Detach, StepId::FenceOldMain] {
        assert_eq!(node.run().step(kept).undo, Undo::NotAsked, "a second main would serve beside it");
    }
}

#[test]
fn what_has_happened_when_it_is_to_be_withdrawn_stands() {
    let mut node = Node::not_obeyed();
    node.undo_ends(StepId::Promote, false, "PostgreSQL has become a primary, on timeline 2");
    node.go_on(success);
    assert_eq!(node.run().end, RunEnd::Completed);
    assert!(node.belief.cluster.nodes.is_main(ME));
}

#[test]
fn what_was_seen_is_never_withdrawn() {
    let mut node = Node::failing_over();
    node.go_on_until(StepId::Promote);
    node.promotion_is_seen_and_fails();
    node.use_up_the_promotion();
    assert_eq!((node.being_undone(), node.run().end), (None, RunEnd::NeedsOperator));
    assert!(node.belief.cluster.nodes.is_main(ME), "its epoch is open");
}

#[test]
fn a_supervisor_that_dies_on_the_way_withdraws_again() {
    let mut node = Node::not_obeyed();
    let facts = node.when(&Input::Booted);
    let again = |event: &Event| matches!(event, Event::StepUndoStarted(it) if it.step == StepId::Promote);
    assert_eq!(facts.iter().filter(|event| again(event)).count(), 1);
    assert!(node.running().is_empty() && node.run().is_withdrawing());
}

#[test]
fn a_third_main_ends_a_promotion_that_is_pending() {
    let mut node = Node::failing_over();
    node.go_on_until(StepId::Promote);
    node.end(StepId::Promote, StepOutcome::Unknown);
    node.store(a_third_is_main().into(), None);
    node.end(StepId::Promote, StepOutcome::Unknown);
    node.undo_ends(StepId::Promote, true, "the promotion asked for before is withdrawn");
    node.undo_all();
    let (end, problem) = node.end_in_words();
    assert_eq!(end, RunEnd::Refused);
    assert!(problem.contains("opened epoch 2 meanwhile; the promotion asked for"), "{problem}");
    assert!(!node.belief.cluster.nodes.is_superseded(ME));
}

#[test]
fn a_promotion_that_came_after_a_third_main_is_stopped() {
    let mut node = Node::failing_over();
    node.go_on_until(StepId::Promote);
    node.store(a_third_is_main().into(), None);
    let facts = node.end(StepId::Promote, StepOutcome::Succeeded);
    let stopped = |event: &Event| matches!(event, Event::FencingStarted(it) if it.superseded_by == NodeId(3));
    assert!(facts.iter().any(stopped), "{facts:?}");
    let (end, problem) = node.end_in_words();
    assert_eq!((end, node.being_undone()), (RunEnd::NeedsOperator, None));
    assert!(problem.contains("interrex rejoin"), "{problem}");
    assert_eq!(node.belief.cluster.nodes.main, Some(NodeId(3)));
    assert!(node.belief.cluster.nodes.is_superseded(ME));
}
