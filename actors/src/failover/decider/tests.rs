//! Given the stream, when an input comes, then these facts follow.

mod detached;
mod fencing;
mod node;
mod nodes;
mod observed;
mod promotion;
mod rejoin;
mod scheduling;
mod stray;
mod switchover;
mod withdrawal;

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta};
use interrex_events::*;
use interrex_projections::{Projection, Run, RunEnd, Undo};
use uuid::Uuid;

use self::node::{Node, found_by};
use super::*;
use crate::{
    failover::{
        resting::Deadlines,
        steps::{Need, rule},
    },
    journal::Belief,
    messages::{FenceProof, MainSight, Operate, Operation, StepReport},
    test_values,
};

const ME: NodeId = NodeId(2);
const MAIN: NodeId = NodeId(1);
const RUN: RunId = RunId(Uuid::from_u128(1));

fn anchor(node: NodeId) -> Anchor {
    Anchor { node, node_seq: NodeSeq(7), hash: ChainHash::GENESIS }
}

fn success(_: StepId, _: u32) -> StepOutcome {
    StepOutcome::Succeeded
}

const WORKED: [StepId; 12] = [
    StepId::WinEpoch,
    StepId::MeasureLoss,
    StepId::FenceOldMain,
    StepId::Detach,
    StepId::SanitiseSettings,
    StepId::Promote,
    StepId::PromoteRedis,
    StepId::OpenEpoch,
    StepId::RestartDependents,
    StepId::NotifyPeers,
    StepId::PrepareRejoin,
    StepId::RunHooks,
];

#[test]
fn a_lost_main_becomes_a_run_and_the_run_a_new_main() {
    let mut node = Node::failing_over();
    assert!(matches!(&node.stated[..], [Event::FailoverStarted(_), Event::StepStarted(first)]
        if first.step == StepId::WinEpoch));
    node.go_on(success);
    assert_eq!(node.run().end, RunEnd::Completed);
    assert_eq!((node.belief.cluster.nodes.main, node.belief.cluster.nodes.epoch), (Some(ME), Epoch(2)));
    for step in WORKED {
        let of_step = |event: &&Event| match event {
            Event::StepStarted(started) => started.step == step,
            Event::StepFinished(finished) => finished.step == step,
            _ => false,
        };
        assert_eq!(node.stated.iter().filter(of_step).count(), 2, "{step} lacks its intent or its outcome");
    }
    let Some(Event::FailoverCompleted(completed)) = node.stated.last() else { panic!("no completion") };
    assert_eq!(completed.recovery_time.detect_ms, 5_000);
    assert_eq!(completed.recovery_time.decide_ms, 50, "five steps of 10 ms before the promote request");
    assert_eq!(completed.recovery_time.promote_ms, 10);
}

#[test]
fn steps_after_the_promotion_run_side_by_side() {
    let mut node = Node::failing_over();
    node.go_on_until(StepId::Promote);
    assert_eq!(node.running().len(), 1, "nothing runs beside the promotion");
    node.end(StepId::Promote, StepOutcome::Succeeded);
    let beside = [StepId::PromoteRedis, StepId::OpenEpoch, StepId::RestartDependents, StepId::PrepareRejoin];
    assert_eq!(node.running(), beside.into());
}

#[test]
fn whatever_step_fails_the_run_ends_in_a_named_state_with_one_main_at_most() {
    for failing in WORKED {
        for bad in [StepOutcome::Failed, StepOutcome::Unknown, StepOutcome::Refused] {
            let mut node = Node::failing_over();
            node.go_on(|step, _| if step == failing { bad } else { StepOutcome::Succeeded });
            let expected = match (failing, rule(RunKind::Failover, failing).need) {
                (_, Need::BestEffort) => RunEnd::CompletedDegraded,
                (step, _) if bad == StepOutcome::Refused && step <= StepId::Promote => RunEnd::Refused,
                (step, _) if step >= StepId::Promote => RunEnd::NeedsOperator,
                _ => RunEnd::RolledBack,
            };
            assert_eq!(node.run().end, expected, "{failing} {bad}");
            let promoted =
                failing > StepId::Promote || rule(RunKind::Failover, failing).need == Need::BestEffort;
            assert_eq!(node.belief.cluster.nodes.is_main(ME), promoted, "{failing} {bad}");
            if failing == StepId::SanitiseSettings {
                assert_eq!(node.run().step(StepId::Detach).undo, Undo::Done, "{failing} {bad}");
            }
        }
    }
}

#[test]
fn a_step_that_fails_once_is_tried_again_where_the_table_says_so() {
    for failing in WORKED.into_iter().filter(|step| rule(RunKind::Failover, *step).attempts > 1) {
        let mut node = Node::failing_over();
        node.go_on(|step, attempt| {
            if step == failing && attempt == 1 { StepOutcome::Unknown } else { StepOutcome::Succeeded }
        });
        assert_eq!(node.run().end, RunEnd::Completed, "{failing}");
        assert_eq!(node.run().step(failing).attempts, 2, "{failing}");
    }
}

#[test]
fn a_supervisor_that_died_in_any_step_goes_on_with_that_step() {
    for dying in WORKED {
        let mut node = Node::failing_over();
        node.go_on_until(dying);
        let before = node.run().step(dying).attempts;
        let resumed = node.when(&Input::Booted);
        assert!(matches!(&resumed[0], Event::RunResumed(resumed) if resumed.interrupted.contains(&dying)));
        assert_eq!(node.run().step(dying).attempts, before + 1, "{dying}");
        assert!(node.running().contains(&dying), "{dying} is not taken up again");
        node.go_on(success);
        assert_eq!(node.run().end, RunEnd::Completed, "{dying}");
    }
}

#[test]
fn a_supervisor_that_dies_again_and_again_uses_up_no_attempt() {
    let mut node = Node::failing_over();
    for _ in 0..20 {
        node.when(&Input::Booted);
    }
    node.go_on(success);
    assert_eq!(node.run().end, RunEnd::Completed);
}

#[test]
fn an_answer_to_an_attempt_that_was_given_up_changes_nothing() {
    let mut node = Node::failing_over();
    let late = StepEnded {
        run: RUN,
        step: StepId::WinEpoch,
        attempt: 1,
        report: StepReport::new(StepOutcome::Succeeded, "late"),
        took_ms: 1,
    };
    node.when(&Input::Booted);
    assert_eq!(node.run().step(StepId::WinEpoch).attempts, 2);
    assert!(node.when(&Input::StepEnded(late)).is_empty());
}

/// What this node hears when neither it nor the old main opened the epoch.
fn a_third_is_main() -> MainAnnounced {
    MainAnnounced {
        main: NodeId(3),
        epoch: Epoch(2),
        timeline: None,
        switchpoint: None,
        announced_by: NodeId(3),
        learned_by: LearnedBy::Notice,
        planned: None,
    }
}

#[test]
fn a_run_yields_to_a_node_that_opened_the_epoch_meanwhile() {
    let mut node = Node::failing_over();
    node.store(a_third_is_main().into(), None);
    node.end(StepId::WinEpoch, StepOutcome::Succeeded);
    assert_eq!(node.run().end, RunEnd::Refused);
    assert!(!node.belief.cluster.nodes.is_main(ME));
}

#[test]
fn a_rule_that_says_no_is_recorded_once_with_its_name() {
    let mut node = Node::secondary();
    node.policy.auto_enabled = false;
    node.main_is_lost();
    for _ in 0..3 {
        node.when(&Input::Looked);
    }
    assert_eq!(node.withheld(), [WithheldRule::AutoFailoverDisabled]);

    let mut node = Node::secondary();
    let stopped =
        PostgresChanged { status: PostgresStatus::Stopped, timeline: None, lsn: None, detail: String::new() };
    node.store(stopped.into(), None);
    node.main_is_lost();
    node.when(&Input::Looked);
    assert_eq!(node.withheld(), [WithheldRule::NotPromotable]);
}

#[test]
fn a_run_that_changed_nothing_starts_no_cool_down_and_the_next_one_waits_for_a_short_pause() {
    let mut node = Node::failing_over();
    node.go_on(|step, _| if step == StepId::WinEpoch { StepOutcome::Failed } else { StepOutcome::Succeeded });
    assert_eq!(node.run().end, RunEnd::RolledBack);
    node.main_is_lost();
    for _ in 0..9 {
        node.when(&Input::Looked);
    }
    assert_eq!(node.withheld(), [WithheldRule::RunInVain]);
    node.pass(5_001);
    node.fresh_run = RunId(Uuid::from_u128(2));
    assert!(matches!(node.when(&Input::Looked)[0], Event::FailoverStarted(_)));
}

#[test]
fn a_run_that_fenced_main_and_took_that_back_starts_the_cool_down() {
    let mut node = Node::failing_over();
    node.go_on(|step, _| if step == StepId::Detach { StepOutcome::Failed } else { StepOutcome::Succeeded });
    assert_eq!(node.run().end, RunEnd::RolledBack);
    node.main_is_lost();
    node.when(&Input::Looked);
    assert_eq!(node.withheld(), [WithheldRule::CoolDown]);
    node.pass(599_000);
    assert_eq!(node.when(&Input::Looked), []);
    node.pass(1_001);
    node.fresh_run = RunId(Uuid::from_u128(2));
    assert!(matches!(node.when(&Input::Looked)[0], Event::FailoverStarted(_)));
}

#[test]
fn every_unplanned_change_of_main_starts_the_cool_down_whichever_node_made_it_and_a_switchover_none() {
    for (planned, withheld) in [
        (None, Some(WithheldRule::CoolDown)),
        (Some(false), Some(WithheldRule::CoolDown)),
        (Some(true), None),
    ] {
        let mut node = Node::secondary();
        let announced = MainAnnounced { main: MAIN, announced_by: MAIN, planned, ..a_third_is_main() };
        node.store(announced.into(), None);
        node.main_is_lost();
        let began = matches!(node.when(&Input::Looked)[..], [Event::FailoverStarted(_), ..]);
        assert_eq!((node.withheld().first().copied(), began), (withheld, withheld.is_none()), "{planned:?}");
    }
}

#[test]
fn a_verdict_that_was_held_back_is_judged_anew_before_it_is_acted_on() {
    let held_back = || {
        let mut node = Node::secondary();
        node.policy.auto_enabled = false;
        node.main_is_lost();
        node.when(&Input::Looked);
        node.pass(3_600_000);
        node.policy.auto_enabled = true;
        node
    };
    let mut node = held_back();
    let begun = node.when(&Input::Looked);
    let Event::FailoverStarted(started) = &begun[0] else { panic!("{begun:?}") };
    assert_eq!(started.silent_ms, 3_605_000, "its age is its own");
    // main has answered since, or another instance of the watch has only just begun to measure
    let mut node = held_back();
    node.sight.as_mut().unwrap().evidence.postgres = Finding::good("answers as a primary");
    assert_eq!(node.when(&Input::Looked), []);
    let mut node = held_back();
    node.sight.as_mut().unwrap().silent_since = node.now;
    assert_eq!(node.when(&Input::Looked), []);
    node.sight = None;
    assert_eq!(node.when(&Input::Looked), []);
}

#[test]
fn a_main_that_is_back_ends_an_automatic_run_before_its_fence() {
    let recovered = |node: &mut Node| {
        let evidence = node.sight.as_ref().unwrap().evidence.clone();
        let back = MainRecovered { main: MAIN, silent_ms: 6_000, threshold_ms: 5_000, evidence };
        node.store(back.into(), None);
    };
    for step in [StepId::WinEpoch, StepId::MeasureLoss] {
        let mut node = Node::failing_over();
        node.go_on_until(step);
        recovered(&mut node);
        node.end(step, StepOutcome::Succeeded);
        assert_eq!(node.run().end, RunEnd::Refused, "{step}");
        assert_eq!(node.belief.standpoint.rests.upset, None);
    }
    let mut node = Node::failing_over();
    node.go_on_until(StepId::Detach);
    recovered(&mut node);
    node.end(StepId::Detach, StepOutcome::Succeeded);
    assert!(node.run().is_running(), "it is fenced by now");
}

#[test]
fn a_new_supervisor_does_not_act_on_the_verdict_of_the_old_one() {
    let mut node = Node::secondary();
    node.main_is_lost();
    let restarted = SupervisorStarted {
        name: "beta".to_owned(),
        version: String::new(),
        pid: 2,
        role: Role::Secondary,
        nodes: Vec::new(),
        main: Some(MAIN),
        interrupted_run: None,
        settings: serde_json::Map::new(),
    };
    node.store(restarted.into(), None);
    assert!(node.when(&Input::Booted).is_empty() && node.when(&Input::Looked).is_empty());
}

/// Another node is main, of a later epoch.
fn main_announced() -> Event {
    Event::from(MainAnnounced {
        main: MAIN,
        epoch: Epoch(3),
        timeline: None,
        switchpoint: None,
        announced_by: MAIN,
        learned_by: LearnedBy::Heartbeat,
        planned: None,
    })
}

#[test]
fn a_secondary_follows_an_announced_main() {
    let mut node = Node::secondary();
    let announced = Event::from(MainAnnounced {
        main: NodeId(3),
        epoch: Epoch(2),
        timeline: None,
        switchpoint: None,
        announced_by: NodeId(3),
        learned_by: LearnedBy::Notice,
        planned: None,
    });
    node.store(announced.clone(), None);
    assert_eq!(effects(ME, &node.belief, None, &announced), [Effect::Follow(NodeId(3))]);
}

#[test]
fn a_main_that_is_back_refuses_the_promotion_and_the_standby_follows_it_again() {
    let mut node = Node::failing_over();
    node.go_on(|step, _| if step == StepId::Promote { StepOutcome::Refused } else { StepOutcome::Succeeded });
    assert_eq!(node.run().end, RunEnd::Refused);
    assert_eq!(node.run().step(StepId::Detach).undo, Undo::Done);
    assert!(!node.belief.cluster.nodes.is_main(ME));
}
