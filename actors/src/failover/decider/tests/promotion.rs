//! A person makes a secondary main.

use super::*;
use crate::messages::{Declined, MainSight, Operation};

impl Node {
    fn promote(&mut self, request: Request, sight: Option<MainSight>) -> Result<Vec<Event>, Declined> {
        let asker = Cause::Person { name: "ada".to_owned(), source: "a test".to_owned() };
        let (_, drafts) = asked(self.situation(), &Operation::Promote { request, sight }, &asker)?;
        Ok(self.state(drafts))
    }

    /// What is seen of main, by the answers of its supervisor, its PostgreSQL and its log.
    fn sight(&self, witnesses: [bool; 3]) -> MainSight {
        let [supervisor, postgres, wal_receiver] = witnesses
            .map(|good| if good { Finding::good("answers") } else { Finding::bad("connection refused") });
        MainSight {
            main: MAIN,
            silent_since: self.now,
            evidence: Evidence {
                supervisor,
                postgres,
                redis: Finding::unknown("not asked"),
                wal_receiver,
                last_good_at: None,
                missed_probes: 3,
            },
            last_report: None,
            offers: false,
            supervisor_is_silent: false,
        }
    }
}

fn forced(reason: Option<&str>) -> Request {
    Request { forced: true, reason: reason.map(str::to_owned) }
}

#[test]
fn a_person_promotes_at_once_when_main_is_silent_whatever_the_automatic_rules_say() {
    let mut node = Node::secondary();
    node.policy.auto_enabled = false;
    let sight = node.sight([false, false, false]);
    node.promote(Request::default(), Some(sight)).unwrap();
    assert_eq!((node.run().kind, node.run().trigger), (RunKind::Promotion, Trigger::Operator));
    node.go_on(success);
    assert_eq!(node.run().end, RunEnd::Completed);
    assert_eq!((node.belief.cluster.nodes.main, node.belief.cluster.nodes.epoch), (Some(ME), Epoch(2)));
}

#[test]
fn any_sign_of_life_of_main_refuses_it_with_the_evidence_unless_a_reason_is_given() {
    for alive in 0..3 {
        let mut node = Node::secondary();
        let mut witnesses = [false; 3];
        witnesses[alive] = true;
        let sight = node.sight(witnesses);
        let declined = node.promote(Request::default(), Some(sight.clone())).unwrap_err();
        assert_eq!(declined.code, "main_answers");
        assert!(declined.message.contains("alpha") && declined.message.contains("answers"), "{declined}");
        assert_eq!(node.promote(forced(None), Some(sight.clone())).unwrap_err().code, "reason_needed");
        node.promote(forced(Some("alpha burns")), Some(sight)).unwrap();
        assert_eq!(node.run().request, Some(forced(Some("alpha burns"))));
    }
}

#[test]
fn what_is_no_standby_is_not_promoted() {
    let code = |node: &mut Node| node.promote(forced(Some("why not")), None).unwrap_err().code;
    let mut main = Node::secondary();
    main.me = MAIN;
    assert_eq!(code(&mut main), "already_main");

    let mut stopped = Node::secondary();
    let event =
        PostgresChanged { status: PostgresStatus::Stopped, timeline: None, lsn: None, detail: String::new() };
    stopped.store(event.into(), None);
    assert_eq!(code(&mut stopped), "not_promotable");

    let mut fenced = Node::secondary();
    let event = FencingStarted { superseded_by: MAIN, epoch: Epoch(2), own_epoch: Epoch(1), run: None };
    fenced.store(event.into(), None);
    assert_eq!(code(&mut fenced), "not_promotable");
    assert_eq!(code(&mut Node::failing_over()), "run_active");
}
