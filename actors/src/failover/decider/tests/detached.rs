//! A standby that a run left without a main.

use super::*;

fn changed(status: PostgresStatus) -> Event {
    PostgresChanged { status, timeline: None, lsn: None, detail: String::new() }.into()
}

impl Node {
    /// A secondary whose run has failed, and whose PostgreSQL was down when it was to follow main again.
    fn left_alone() -> Self {
        let mut node = Self::failing_over();
        node.go_on_until(StepId::SanitiseSettings);
        while node.running().contains(&StepId::SanitiseSettings) {
            node.end(StepId::SanitiseSettings, StepOutcome::Failed);
        }
        let asked =
            |run: &Run| run.steps.iter().find(|(_, step)| step.undo == Undo::Running).map(|(id, _)| *id);
        while let Some(step) = asked(node.run()) {
            let undone = step != StepId::Detach;
            let detail = "connection refused".to_owned();
            node.when(&Input::UndoEnded(UndoEnded { run: RUN, step, undone, detail }));
        }
        assert_eq!(node.run().end, RunEnd::Failed);
        node
    }

    fn effects_of(&self, event: &Event) -> Vec<Effect> {
        effects(self.me, &self.belief, None, event)
    }

    /// What follows once this is stored.
    fn after(&mut self, event: impl Into<Event>) -> Vec<Effect> {
        let event = event.into();
        self.store(event.clone(), None);
        self.effects_of(&event)
    }
}

#[test]
fn it_returns_to_main_at_once_after_a_pause_when_it_answers_and_after_a_restart() {
    let mut node = Node::left_alone();
    let failed = node.stated.last().unwrap().clone();
    assert!(matches!(failed, Event::FailoverFailed(_)));
    assert_eq!(node.effects_of(&failed), [Effect::ReturnTo(MAIN)]);
    assert_eq!(outstanding(ME, &node.belief), [Effect::ReturnTo(MAIN)]);
    let late = FollowFinished { main: MAIN, streaming: false, detail: "connection refused".to_owned() };
    assert_eq!(node.after(late), [Effect::FollowLater(MAIN)]);
    assert_eq!(node.after(changed(PostgresStatus::Detached)), [Effect::ReturnTo(MAIN)]);
    assert_eq!(node.after(changed(PostgresStatus::Streaming)), []);
    assert_eq!(
        (outstanding(ME, &node.belief), node.after(changed(PostgresStatus::Detached))),
        (vec![], vec![])
    );
}

#[test]
fn it_stays_as_it_is_while_another_run_is_at_it_and_follows_whoever_is_main_instead() {
    let mut node = Node::left_alone();
    (node.policy.cool_down_ms, node.fresh_run) = (0, RunId(Uuid::from_u128(2)));
    node.main_is_lost();
    node.when(&Input::Looked);
    assert!(node.belief.cluster.runs.active(ME).is_some());
    assert_eq!(
        (outstanding(ME, &node.belief), node.after(changed(PostgresStatus::Detached))),
        (vec![], vec![])
    );

    let mut node = Node::left_alone();
    assert_eq!(node.after(a_third_is_main()), [Effect::Follow(NodeId(3))]);
    assert_eq!(outstanding(ME, &node.belief), [Effect::Follow(NodeId(3))]);
}

#[test]
fn one_that_a_person_has_detached_is_left_alone() {
    let mut node = Node::secondary();
    assert_eq!(node.after(changed(PostgresStatus::Detached)), []);
    assert_eq!(outstanding(ME, &node.belief), []);
}
