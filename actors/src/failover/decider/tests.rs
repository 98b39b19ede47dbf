//! Given the stream, when an input comes, then these facts follow.

mod detached;
mod fencing;
mod nodes;
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

use super::*;
use crate::{
    failover::{
        resting::Deadlines,
        steps::{Need, rule},
    },
    journal::Belief,
    messages::{FenceProof, MainSight, Operate, Operation, StepReport},
};

const ME: NodeId = NodeId(2);
const MAIN: NodeId = NodeId(1);
const RUN: RunId = RunId(Uuid::from_u128(1));

/// One node's fold, its clock, and the facts it stated.
struct Node {
    me: NodeId,
    belief: Belief,
    /// What it sees of main.
    sight: Option<MainSight>,
    policy: FailoverPolicy,
    candidates: std::collections::BTreeMap<NodeId, Option<NodeId>>,
    now: Moment,
    sequence: u64,
    stated: Vec<Event>,
    /// Everything it stored: what a new supervisor begins from.
    journal: Vec<Envelope>,
    /// The id that a run begun now would get.
    fresh_run: RunId,
}

/// What a step observes where it succeeds.
fn found_by(step: StepId) -> Observed {
    let (timeline, switchpoint) = (TimelineId(2), Lsn(0x0300_0060));
    match step {
        StepId::Promote => Promoted { timeline, switchpoint }.into(),
        StepId::ProveHandover => HandoverProved {
            system_id: "7312345678901234567".to_owned(),
            timeline: TimelineId(1),
            checkpoint: Lsn(0x0300_0028),
            end: switchpoint,
            received: switchpoint,
            head: anchor(MAIN),
        }
        .into(),
        StepId::HandOver => RoleTaken { timeline, switchpoint: Some(switchpoint), head: anchor(ME) }.into(),
        StepId::Rebuild => Rebuilt { by: Demotion::Unchanged, kept: None }.into(),
        _ => Observed::Nothing,
    }
}

impl Node {
    /// A node that has stored nothing yet.
    fn empty(me: NodeId) -> Self {
        Self {
            me,
            belief: Belief::default(),
            sight: None,
            policy: FailoverPolicy {
                auto_enabled: true,
                threshold_ms: 5_000,
                cool_down_ms: 600_000,
                maximum_lag_bytes: None,
                rejoin_automatically: false,
                candidate: None,
                nodes: 2,
                quorum: "none",
            },
            candidates: std::collections::BTreeMap::new(),
            now: Moment {
                monotonic: std::time::Duration::from_secs(100),
                wall: DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
            },
            sequence: 0,
            stated: Vec::new(),
            journal: Vec::new(),
            fresh_run: RUN,
        }
    }

    /// A secondary whose standby streams.
    fn secondary() -> Self {
        let spec = |node: NodeId, name: &str| NodeSpec {
            node,
            name: name.to_owned(),
            address: Address::as_recorded(String::new()),
            postgres: Address::as_recorded(String::new()),
            redis: None,
        };
        let mut node = Self::empty(ME);
        node.store(
            SupervisorStarted {
                name: "beta".to_owned(),
                version: String::new(),
                pid: 1,
                role: Role::Secondary,
                nodes: vec![spec(MAIN, "alpha"), spec(ME, "beta")],
                main: Some(MAIN),
                interrupted_run: None,
                settings: serde_json::Map::new(),
            }
            .into(),
            None,
        );
        let streaming = PostgresChanged {
            status: PostgresStatus::Streaming,
            timeline: None,
            lsn: None,
            detail: String::new(),
        };
        node.store(streaming.into(), None);
        node
    }

    fn store(&mut self, event: Event, run_id: Option<RunId>) {
        self.store_as(Cause::System, event, run_id);
    }

    fn store_as(&mut self, actor: Cause, event: Event, run_id: Option<RunId>) {
        self.sequence += 1;
        let event_id = EventId(Uuid::from_u128(self.sequence.into()));
        let envelope = Envelope {
            event_id,
            cluster_id: ClusterId(Uuid::nil()),
            node_id: self.me,
            node_seq: NodeSeq(self.sequence),
            epoch: self.belief.cluster.nodes.epoch.max(Epoch(1)),
            learned_in: self.belief.cluster.nodes.epoch.max(Epoch(1)),
            hlc: Hlc::from_wall_ms(self.now.wall.timestamp_millis()),
            recorded_at: self.now.wall,
            run_id,
            correlation_id: event_id,
            causation_id: None,
            actor,
            event,
        };
        self.belief.cluster.apply(&envelope);
        self.belief.standpoint.apply(&envelope);
        self.journal.push(envelope);
    }

    fn pass(&mut self, ms: i64) {
        self.now.monotonic += std::time::Duration::from_millis(ms.unsigned_abs());
        self.now.wall += TimeDelta::milliseconds(ms);
    }

    /// Decides, and stores what follows. The facts.
    fn when(&mut self, input: &Input) -> Vec<Event> {
        let drafts = decide(self.situation(), input);
        self.state(drafts)
    }

    fn situation(&self) -> Situation<'_> {
        Situation {
            me: self.me,
            cluster: &self.belief.cluster,
            standpoint: &self.belief.standpoint,
            policy: &self.policy,
            candidates: &self.candidates,
            sight: self.sight.as_ref(),
            resting: Deadlines::begin(&self.belief.standpoint.rests, &self.policy, self.now).left(self.now),
            now: self.now,
            fresh_run: self.fresh_run,
        }
    }

    fn state(&mut self, drafts: Vec<Draft>) -> Vec<Event> {
        let events: Vec<Event> = drafts.iter().map(|draft| draft.event.clone()).collect();
        for draft in drafts {
            self.store_as(draft.actor, draft.event, draft.run_id);
        }
        self.stated.extend(events.clone());
        events
    }

    fn main_is_lost(&mut self) {
        let finding = || Finding::bad("connection refused");
        let lost = MainLost {
            main: MAIN,
            silent_ms: 5_000,
            threshold_ms: 5_000,
            evidence: Evidence {
                supervisor: finding(),
                postgres: finding(),
                redis: finding(),
                wal_receiver: finding(),
                last_good_at: None,
                missed_probes: 5,
            },
            last_report: None,
        };
        self.sees(&lost);
        self.store(lost.into(), None);
    }

    /// What is seen of main bears the verdict out.
    fn sees(&mut self, lost: &MainLost) {
        self.sight = Some(MainSight {
            main: lost.main,
            silent_since: self.now.before(lost.silent_ms),
            evidence: lost.evidence.clone(),
            last_report: None,
            offers: false,
            supervisor_is_silent: true,
        });
    }

    fn run(&self) -> &Run {
        self.belief.cluster.runs.get(RUN).unwrap()
    }

    /// The steps whose outcome is awaited.
    fn running(&self) -> BTreeSet<StepId> {
        self.run().steps.iter().filter(|(_, step)| step.is_running()).map(|(id, _)| *id).collect()
    }

    fn end(&mut self, step: StepId, outcome: StepOutcome) -> Vec<Event> {
        let mut report = StepReport::new(outcome, format!("{step} {outcome}"));
        if outcome.is_success() {
            report.observed = found_by(step);
        }
        if step == StepId::BecomeStandby && outcome.is_success() {
            // the ReplicationActor records it on the way
            let demoted = NodeDemoted { main: ME, epoch: Epoch(2), by: Demotion::Unchanged };
            self.store(demoted.into(), Some(RUN));
        }
        let attempt = self.run().step(step).attempts;
        self.pass(10);
        self.when(&Input::StepEnded(StepEnded { run: RUN, step, attempt, report, took_ms: 10 }))
    }

    /// Ends every step that is running, and those that follow, with success, but for what `outcome` says.
    fn go_on(&mut self, outcome: impl Fn(StepId, u32) -> StepOutcome) {
        for _ in 0..1_000 {
            let Some(step) = self.running().into_iter().next() else { return };
            let attempt = self.run().step(step).attempts;
            self.end(step, outcome(step, attempt));
            self.undo_all();
        }
        panic!("the run does not end: {:?}", self.running());
    }

    /// Ends step after step with success, until this one is running.
    fn go_on_until(&mut self, wanted: StepId) {
        while !self.running().contains(&wanted) {
            let step = *self.running().first().unwrap();
            self.end(step, StepOutcome::Succeeded);
        }
    }

    fn undo_all(&mut self) {
        let asked =
            |run: &Run| run.steps.iter().find(|(_, step)| step.undo == Undo::Running).map(|(id, _)| *id);
        while let Some(step) = asked(self.run()) {
            let detail = "taken back".to_owned();
            self.when(&Input::UndoEnded(UndoEnded { run: RUN, step, undone: true, detail }));
        }
    }

    fn failing_over() -> Self {
        let mut node = Self::secondary();
        node.main_is_lost();
        node.when(&Input::Looked);
        node
    }

    fn withheld(&self) -> Vec<WithheldRule> {
        let rule = |event: &Event| match event {
            Event::FailoverWithheld(withheld) => Some(withheld.rule),
            _ => None,
        };
        self.stated.iter().filter_map(rule).collect()
    }
}

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
fn a_main_that_is_back_refuses_the_promotion_and_the_standby_follows_it_again() {
    let mut node = Node::failing_over();
    node.go_on(|step, _| if step == StepId::Promote { StepOutcome::Refused } else { StepOutcome::Succeeded });
    assert_eq!(node.run().end, RunEnd::Refused);
    assert_eq!(node.run().step(StepId::Detach).undo, Undo::Done);
    assert!(!node.belief.cluster.nodes.is_main(ME));
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
    assert!(!node.belief.cluster.nodes.is_main(ME), "an epoch was opened on a timeline that nobody knows");
    node.go_on(success);
    assert_eq!(node.run().end, RunEnd::Completed);
}
