//! A switchover at a time: it begins when it is due, whatever died meanwhile, or says why not; never at another time.

use super::{switchover::switchover, *};
use crate::messages::{Accepted, Declined, Operate, Operation};

const HOUR_MS: i64 = 3_600_000;

fn ada() -> Cause {
    Cause::Person { name: "ada".to_owned(), source: "a test".to_owned() }
}

impl Node {
    fn asked_for(
        &mut self,
        operation: Operation,
        due: Option<DateTime<chrono::Utc>>,
    ) -> Result<(Accepted, Vec<Event>), Declined> {
        let request = Operate { operation, due, asker: ada() };
        let (accepted, drafts) = answer(self.situation(), &request)?;
        Ok((accepted, self.state(drafts)))
    }

    fn scheduled_in(&mut self, ms: i64) -> Result<(Accepted, Vec<Event>), Declined> {
        let due = self.now.wall + TimeDelta::milliseconds(ms);
        self.asked_for(switchover(ME), Some(due))
    }

    /// The main of the pair, which hands its role over in an hour.
    fn with_a_schedule() -> Self {
        let mut node = Self::main();
        node.scheduled_in(HOUR_MS).unwrap();
        node
    }

    fn unscheduled(&self) -> Vec<Unscheduling> {
        let because = |event: &Event| match event {
            Event::SwitchoverUnscheduled(it) => Some(it.because),
            _ => None,
        };
        self.stated.iter().filter_map(because).collect()
    }

    fn is_scheduled(&self) -> bool {
        self.belief.cluster.runs.scheduled(self.me).is_some()
    }
}

#[test]
fn it_begins_when_it_is_due_and_not_before_and_once() {
    let mut node = Node::with_a_schedule();
    node.pass(HOUR_MS - 1);
    assert!(node.when(&Input::Looked).is_empty());
    node.pass(1);
    let drafts = decide(node.situation(), &Input::Looked);
    let kinds: Vec<&str> = drafts.iter().map(|draft| draft.event.kind()).collect();
    assert_eq!(kinds, ["switchover_unscheduled", "switchover_started", "step_started"]);
    assert_eq!((&drafts[1].actor, drafts[1].run_id), (&ada(), Some(RUN)), "who asked for it begins it");
    assert!(drafts.iter().all(|draft| draft.caused_by.is_some()), "by the schedule");
    node.state(drafts);
    assert_eq!((node.unscheduled(), node.is_scheduled()), (vec![Unscheduling::Begun], false));
    assert!(node.when(&Input::Looked).is_empty());
    assert_eq!(node.run().kind, RunKind::Switchover);
    node.go_on(success);
    assert_eq!(node.run().end, RunEnd::Completed);
}

#[test]
fn a_new_supervisor_begins_it_too() {
    let mut node = Node::with_a_schedule();
    let restarted = SupervisorStarted {
        name: "alpha".to_owned(),
        version: String::new(),
        pid: 2,
        role: Role::Main,
        nodes: Vec::new(),
        main: Some(MAIN),
        interrupted_run: None,
        settings: serde_json::Map::new(),
    };
    node.store(restarted.into(), None);
    assert!(node.when(&Input::Booted).is_empty());
    node.pass(HOUR_MS + 60_000);
    node.when(&Input::Looked);
    assert_eq!((node.unscheduled(), node.run().is_running()), (vec![Unscheduling::Begun], true));
}

#[test]
fn what_was_due_while_nobody_could_begin_it_is_not_begun_late() {
    let mut node = Node::with_a_schedule();
    node.pass(HOUR_MS + 5 * 60_000 + 1);
    let facts = node.when(&Input::Looked);
    assert!(matches!(&facts[..], [Event::SwitchoverUnscheduled(it)]
        if it.because == Unscheduling::Missed && it.detail.contains("5 min 0 s ago")));
    assert!(!node.is_scheduled());
    assert!(node.when(&Input::Looked).is_empty());
}

#[test]
fn what_speaks_against_it_when_it_is_due_is_recorded_and_it_never_begins() {
    let not_main: fn(&mut Node) = |node| node.store(super::switchover::another_main().into(), None);
    let busy: fn(&mut Node) = |node| drop(node.asked_for(switchover(ME), None).unwrap());
    for (meanwhile, words) in [(not_main, "not main"), (busy, "under way")] {
        let mut node = Node::with_a_schedule();
        meanwhile(&mut node);
        node.pass(HOUR_MS);
        let facts = node.when(&Input::Looked);
        assert!(
            matches!(&facts[..], [Event::SwitchoverUnscheduled(it)]
                if it.because == Unscheduling::Refused && it.detail.contains(words)),
            "{words}: {facts:?}"
        );
        assert!(!node.is_scheduled());
    }
}

#[test]
fn a_schedule_is_cancelled_while_no_run_goes_on_and_a_run_before_it() {
    let cancel = || Operation::Cancel { reason: Some("wrong week".to_owned()), force: false };
    let mut node = Node::with_a_schedule();
    let (accepted, facts) = node.asked_for(cancel(), None).unwrap();
    assert!(matches!(accepted, Accepted::Unscheduled(_)));
    assert!(matches!(&facts[..], [Event::SwitchoverUnscheduled(it)]
        if it.because == Unscheduling::Cancelled && it.detail == "wrong week"));
    node.pass(HOUR_MS);
    assert!(node.when(&Input::Looked).is_empty());
    assert_eq!(node.asked_for(cancel(), None).unwrap_err().code, "no_run");

    let mut node = Node::with_a_schedule();
    node.asked_for(switchover(ME), None).unwrap();
    assert_eq!(node.asked_for(cancel(), None).unwrap().0, Accepted::Run(RUN));
    assert!(node.is_scheduled(), "that was another one");
}

#[test]
fn what_cannot_be_scheduled_is_declined_in_clear_words() {
    let month = 31 * 24 * HOUR_MS;
    for (ms, code) in [(0, "in_the_past"), (-HOUR_MS, "in_the_past"), (month, "too_far_ahead")] {
        assert_eq!(Node::main().scheduled_in(ms).unwrap_err().code, code, "{ms}");
    }
    let mut node = Node::with_a_schedule();
    let declined = node.scheduled_in(2 * HOUR_MS).unwrap_err();
    assert_eq!(declined.code, "already_scheduled");
    assert!(declined.message.contains("to beta") && declined.message.contains("by ada"), "{declined}");
    assert_eq!(Node::secondary().scheduled_in(HOUR_MS).unwrap_err().code, "not_main");
    let mut node = Node::main();
    let due = node.now.wall + TimeDelta::hours(1);
    let unknown = node.asked_for(switchover(NodeId(9)), Some(due)).unwrap_err();
    assert_eq!(unknown.code, "no_such_target");
    let cancel = node.asked_for(Operation::Cancel { reason: None, force: false }, Some(due)).unwrap_err();
    assert_eq!(cancel.code, "not_schedulable");
    assert!(node.stated.is_empty());
}
