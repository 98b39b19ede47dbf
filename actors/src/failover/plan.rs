//! What a run would do, how long writes would wait, what would be lost, and what would stop it: a pure function of the
//! run's table, of what was looked at, and of earlier runs. It is what `--dry-run` prints.

use interrex_events::{Epoch, NodeId, RecoveryTime, RunKind, StepId};
use interrex_projections::{Run, RunEnd, Runs};
use serde::{Deserialize, Serialize};

use super::steps::{Need, StepRule, UNTIL_ANSWERED, table};
use crate::wire::Check;

/// What is known before a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Findings {
    /// The main node.
    pub old_main: NodeId,
    /// The node that would become main.
    pub new_main: NodeId,
    /// The epoch that would be opened.
    pub epoch: Epoch,
    /// How long open transactions may take to finish, in milliseconds: the step `drain` lasts no longer.
    pub drain_ms: u64,
    /// The checks; the decider's refusal first, if there is one.
    pub checks: Vec<Check>,
    /// The loss, in bytes of WAL; nothing if it cannot be known before the run.
    pub loss_bytes: Option<u64>,
}

/// One step of a planned run, from the step table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// Its number, from 1.
    pub number: usize,
    /// The step.
    pub step: StepId,
    /// What the step does.
    pub effect: String,
    /// What proves that it is done.
    pub proof: String,
    /// The limit of one attempt, in milliseconds; for `drain`, the time that was asked for. 0 if the step is an event itself.
    pub limit_ms: u64,
    /// Attempts before the step counts as failed; nothing if it is repeated until it is answered.
    pub attempts: Option<u32>,
    /// Whether the run fails without it.
    pub required: bool,
    /// How the step is taken back, if it can be.
    pub undo: Option<String>,
    /// Whether the run only goes forward from here.
    pub point_of_no_return: bool,
}

impl PlannedStep {
    fn of(kind: RunKind, rule: &StepRule, drain_ms: u64) -> Self {
        let limit_ms = if rule.step == StepId::Drain { drain_ms.min(rule.limit_ms) } else { rule.limit_ms };
        Self {
            number: kind.number(rule.step),
            step: rule.step,
            effect: rule.effect.to_owned(),
            proof: rule.success.to_owned(),
            limit_ms,
            attempts: attempts(rule),
            required: rule.need == Need::Required,
            undo: rule.undo.map(str::to_owned),
            point_of_no_return: rule.step == kind.point_of_no_return(),
        }
    }
}

/// How long no node would take writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithoutWrites {
    /// The first and the last step of that time.
    pub steps: Vec<StepId>,
    /// The sum of their limits with every attempt used, in milliseconds: the run ends when it is exceeded. Nothing if one of the
    /// steps is repeated until it is answered.
    pub limit_ms: Option<u64>,
    /// The time in earlier runs; nothing if no run has completed here yet.
    pub measured: Option<Measured>,
}

/// Times of earlier runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// The kind of these runs.
    pub kind: RunKind,
    /// How many runs.
    pub runs: usize,
    /// The median of their times, in milliseconds; with an even number of runs, the longer of the middle two.
    pub median_ms: u64,
    /// The longest, in milliseconds.
    pub longest_ms: u64,
}

/// What a run would do, as of now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The kind of run.
    pub kind: RunKind,
    /// The main node.
    pub old_main: NodeId,
    /// The node that would become main.
    pub new_main: NodeId,
    /// The epoch that would be opened.
    pub epoch: Epoch,
    /// Whether no check would stop the run.
    pub would_begin: bool,
    /// The checks.
    pub checks: Vec<Check>,
    /// Its steps, in order.
    pub steps: Vec<PlannedStep>,
    /// How long no node would take writes.
    pub without_writes: WithoutWrites,
    /// How long earlier runs took from begin to end; nothing if none has completed here yet.
    pub whole_run: Option<Measured>,
    /// The loss, in bytes of WAL; nothing if it cannot be known before the run.
    pub loss_bytes: Option<u64>,
}

impl Plan {
    /// What would stop it.
    pub fn stopped_by(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| check.stops())
    }
}

/// What a run would do.
#[must_use]
pub fn plan(kind: RunKind, findings: Findings, history: &Runs) -> Plan {
    let Findings { old_main, new_main, epoch, drain_ms, checks, loss_bytes } = findings;
    let steps = table(kind).iter().map(|rule| PlannedStep::of(kind, rule, drain_ms));
    Plan {
        kind,
        old_main,
        new_main,
        epoch,
        would_begin: !checks.iter().any(Check::stops),
        checks,
        steps: steps.collect(),
        without_writes: without_writes(kind, history),
        whole_run: measured(kind, history, whole_run_ms),
        loss_bytes,
    }
}

/// The first step during which no node takes writes, if there is one. The last such step is the point of no return.
fn writes_stop_at(kind: RunKind) -> Option<StepId> {
    match kind {
        RunKind::Failover | RunKind::Promotion | RunKind::Takeover => Some(StepId::WinEpoch),
        RunKind::Switchover => Some(StepId::StopMain),
        RunKind::Rejoin => None,
    }
}

fn attempts(rule: &StepRule) -> Option<u32> {
    (rule.attempts != UNTIL_ANSWERED).then_some(rule.attempts)
}

fn without_writes(kind: RunKind, history: &Runs) -> WithoutWrites {
    let first = writes_stop_at(kind);
    let stops = |step: StepId| first.is_some_and(|first| (first..=kind.point_of_no_return()).contains(&step));
    let rows = || table(kind).iter().filter(|row| stops(row.step));
    WithoutWrites {
        steps: rows().map(|row| row.step).collect(),
        limit_ms: rows().map(|row| Some(row.limit_ms * u64::from(attempts(row)?))).sum(),
        measured: measured(kind, history, without_writes_ms),
    }
}

/// The kinds of run whose times show how long a run of this kind takes, its own kind first: they have the same steps, after the
/// same loss of main. A takeover has these steps too, but main stops in the switchover.
fn alike(kind: RunKind) -> &'static [RunKind] {
    match kind {
        RunKind::Failover => &[RunKind::Failover, RunKind::Promotion],
        RunKind::Promotion => &[RunKind::Promotion, RunKind::Failover],
        RunKind::Switchover => &[RunKind::Switchover],
        RunKind::Takeover => &[RunKind::Takeover],
        RunKind::Rejoin => &[RunKind::Rejoin],
    }
}

/// Times of runs of the first kind of which there are any.
fn measured(kind: RunKind, history: &Runs, time: fn(&Run) -> Option<u64>) -> Option<Measured> {
    alike(kind).iter().find_map(|kind| {
        let runs = history.runs.values().filter(|run| run.kind == *kind);
        let mut times: Vec<u64> = runs.filter_map(time).collect();
        times.sort_unstable();
        let median_ms = *times.get(times.len() / 2)?;
        Some(Measured { kind: *kind, runs: times.len(), median_ms, longest_ms: *times.last()? })
    })
}

/// How long no node took writes in a completed run: only completed runs record it.
fn without_writes_ms(run: &Run) -> Option<u64> {
    run.without_writes_ms.or_else(|| run.recovery_time.map(RecoveryTime::without_writes_ms))
}

/// How long a run took that completed.
fn whole_run_ms(run: &Run) -> Option<u64> {
    let completed = matches!(run.end, RunEnd::Completed | RunEnd::CompletedDegraded);
    run.ended_at.filter(|_| completed).map(|end| run.ms_until(end))
}

#[cfg(test)]
mod tests {
    use interrex_events::*;
    use interrex_projections::{Projection as _, Runs};
    use uuid::Uuid;

    use super::*;

    const ALPHA: NodeId = NodeId(1);
    const BETA: NodeId = NodeId(2);

    fn findings(checks: Vec<Check>) -> Findings {
        Findings {
            old_main: ALPHA,
            new_main: BETA,
            epoch: Epoch(2),
            drain_ms: 0,
            checks,
            loss_bytes: Some(0),
        }
    }

    /// Switchovers that took so long, and one that did not complete.
    fn history(times: &[u64]) -> Runs {
        let started = SwitchoverStarted {
            old_main: ALPHA,
            new_main: BETA,
            epoch: Epoch(2),
            drain_ms: 0,
            request: Request::default(),
        };
        let completed = |without_writes_ms| SwitchoverCompleted {
            main: BETA,
            epoch: Epoch(2),
            degraded: Vec::new(),
            without_writes_ms,
            certificate: None,
            kept_redis: None,
        };
        let ended = times.iter().map(|ms| (started.clone().into(), vec![completed(*ms).into()], 1_000));
        told(ended.chain([(started.clone().into(), Vec::new(), 0)]))
    }

    /// Runs: how each began, what else it told, and how long after its begin, in milliseconds.
    fn told(stories: impl Iterator<Item = (Event, Vec<Event>, i64)>) -> Runs {
        let mut runs = Runs::default();
        let mut tell = |run: u128, ms: i64, event: Event| {
            let event_id = EventId(Uuid::from_u128(run));
            runs.apply(&Envelope {
                event_id,
                cluster_id: ClusterId(Uuid::nil()),
                node_id: ALPHA,
                node_seq: NodeSeq(1),
                epoch: Epoch(1),
                learned_in: Epoch(1),
                hlc: Hlc::from_wall_ms(0),
                recorded_at: chrono::DateTime::UNIX_EPOCH + chrono::TimeDelta::milliseconds(ms),
                run_id: Some(RunId(Uuid::from_u128(run))),
                correlation_id: event_id,
                causation_id: None,
                actor: Cause::System,
                event,
            });
        };
        for (run, (started, rest, took_ms)) in (1..).zip(stories) {
            tell(run, 0, started);
            rest.into_iter().for_each(|event| tell(run, took_ms, event));
        }
        runs
    }

    #[test]
    fn a_plan_has_every_step_of_the_table_and_one_point_of_no_return() {
        for kind in RunKind::ALL {
            let plan = plan(kind, findings(Vec::new()), &Runs::default());
            let steps: Vec<StepId> = plan.steps.iter().map(|step| step.step).collect();
            assert_eq!(steps, kind.steps(), "{kind}");
            let last_ways_back = plan.steps.iter().filter(|step| step.point_of_no_return);
            assert_eq!(last_ways_back.map(|step| step.step).collect::<Vec<_>>(), [kind.point_of_no_return()]);
            let last = writes_stop_at(kind).map(|_| kind.point_of_no_return());
            assert_eq!(plan.without_writes.steps.last(), last.as_ref(), "{kind}");
        }
    }

    #[test]
    fn whatever_is_bad_or_unknown_stops_it_and_all_of_it_is_named() {
        let checks = vec![
            Check::bad("rule", "a run is under way"),
            Check::good("lag", "0 bytes behind"),
            Check::unknown("supervisor", "no answer"),
        ];
        let planned = plan(RunKind::Switchover, findings(checks), &Runs::default());
        assert!(!planned.would_begin);
        let stopped_by: Vec<&str> = planned.stopped_by().map(|check| check.subject.as_str()).collect();
        assert_eq!(stopped_by, ["rule", "supervisor"]);
        let fine = plan(RunKind::Switchover, findings(vec![Check::good("lag", "")]), &Runs::default());
        assert!(fine.would_begin);
    }

    #[test]
    fn the_time_without_writes_is_that_of_completed_runs_of_the_kind_or_what_the_limits_allow() {
        let of = |kind, times: &[u64]| plan(kind, findings(Vec::new()), &history(times)).without_writes;
        let none = of(RunKind::Switchover, &[]);
        assert_eq!(none.steps, [StepId::StopMain, StepId::ProveHandover, StepId::HandOver]);
        assert_eq!((none.limit_ms, none.measured), (None, None), "an offer is made until it is answered");
        let promotion = of(RunKind::Promotion, &[]);
        assert_eq!(
            promotion.limit_ms,
            Some(3 * 5_000 + 2 * (5_000 + 10_000 + 60_000 + 5_000) + 240 * 60_000)
        );
        let kind = RunKind::Switchover;
        let measured = |runs, median_ms, longest_ms| Some(Measured { kind, runs, median_ms, longest_ms });
        assert_eq!(of(RunKind::Switchover, &[80]).measured, measured(1, 80, 80));
        assert_eq!(of(RunKind::Switchover, &[900, 70, 80]).measured, measured(3, 80, 900));
        assert_eq!(of(RunKind::Switchover, &[80, 70]).measured, measured(2, 80, 80));
        assert_eq!(of(RunKind::Failover, &[80]).measured, None, "of another kind");
    }

    fn failover() -> (Event, Vec<Event>, i64) {
        let unknown = || Finding::unknown("not asked");
        let evidence = Evidence {
            supervisor: unknown(),
            postgres: unknown(),
            redis: unknown(),
            wal_receiver: unknown(),
            last_good_at: None,
            missed_probes: 0,
        };
        let started = FailoverStarted {
            trigger: Trigger::Automatic,
            old_main: ALPHA,
            new_main: BETA,
            epoch: Epoch(2),
            evidence,
            silent_ms: 0,
            threshold_ms: 0,
            last_report: None,
            quorum: String::new(),
            request: None,
            handover: None,
        };
        let recovery_time =
            RecoveryTime { detect_ms: 5_000, decide_ms: 60, promote_ms: 40, dependents_ms: 9 };
        let completed = FailoverCompleted {
            main: BETA,
            epoch: Epoch(2),
            degraded: Vec::new(),
            recovery_time,
            loss: None,
        };
        (started.into(), vec![completed.into()], 700)
    }

    fn rejoin(took_ms: i64) -> (Event, Vec<Event>, i64) {
        let started = RejoinStarted { main: BETA, epoch: Epoch(2), copy: false, request: None };
        let completed = RejoinCompleted {
            main: BETA,
            epoch: Epoch(2),
            degraded: Vec::new(),
            by: Demotion::Rewound,
            stranded: None,
            kept: None,
            kept_redis: None,
        };
        (started.into(), vec![completed.into()], took_ms)
    }

    #[test]
    fn before_the_first_promotion_the_times_are_those_of_failovers_and_say_so() {
        let history = told([failover()].into_iter());
        let planned = plan(RunKind::Promotion, findings(Vec::new()), &history);
        let measured =
            |median_ms| Some(Measured { kind: RunKind::Failover, runs: 1, median_ms, longest_ms: median_ms });
        assert_eq!((planned.without_writes.measured, planned.whole_run), (measured(5_100), measured(700)));
    }

    #[test]
    fn a_rejoin_takes_what_earlier_ones_took() {
        let history = told([rejoin(3_000), rejoin(90_000), rejoin(4_000)].into_iter());
        let planned = plan(RunKind::Rejoin, findings(Vec::new()), &history);
        let kind = RunKind::Rejoin;
        assert_eq!(planned.whole_run, Some(Measured { kind, runs: 3, median_ms: 4_000, longest_ms: 90_000 }));
        assert_eq!(planned.without_writes.measured, None, "writes go on");
    }
}
