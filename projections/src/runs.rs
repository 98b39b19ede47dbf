//! Runs: every failover and switchover with its steps, from the events of intent and outcome.

mod step;

use std::{collections::BTreeMap, fmt};

use chrono::{DateTime, Utc};
use interrex_events::{
    Cause, Certificate, Demotion, Envelope, Epoch, Event, Evidence, FailedEnd, FailoverFailed,
    FailoverRefused, FailoverStarted, Handover, LastReport, Lineage, Loss, NodeId, Observation, Observed,
    Place, RecoveryTime, RejoinStarted, Request, RunFailed, RunId, RunKind, RunRefused, StepId, StepOutcome,
    Stranded, SwitchoverScheduled, SwitchoverStarted, Trigger,
};
use serde::Serialize;

pub use self::step::{Step, StepState, Undo};
use crate::Projection;

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunEnd {
    /// It goes on.
    Running,
    /// Success: every step is done.
    Completed,
    /// Success, but a best-effort step failed.
    CompletedDegraded,
    /// Refused by policy before anything changed.
    Refused,
    /// Failed before the point of no return; every step was taken back.
    RolledBack,
    /// Failed before the point of no return; a step could not be taken back.
    Failed,
    /// Failed after the point of no return: an operator must act.
    NeedsOperator,
}

impl fmt::Display for RunEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::CompletedDegraded => "completed_degraded",
            Self::Refused => "refused",
            Self::RolledBack => "rolled_back",
            Self::Failed => "failed",
            Self::NeedsOperator => "needs_operator",
        })
    }
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Its kind.
    pub kind: RunKind,
    /// The node that makes it.
    pub node: NodeId,
    /// What started it.
    pub trigger: Trigger,
    /// What a person asked for, if one did.
    pub request: Option<Request>,
    /// The old main.
    pub old_main: NodeId,
    /// The node that is to be main.
    pub new_main: NodeId,
    /// The epoch to open.
    pub epoch: Epoch,
    /// Its state.
    pub end: RunEnd,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// How long main had been silent at the verdict, in milliseconds.
    pub silent_ms: u64,
    /// What was known of main at the verdict, if there was one.
    pub evidence: Option<Evidence>,
    /// Main's last report.
    pub last_report: Option<LastReport>,
    /// For a takeover: what the old main proved. For a switchover: what main offered.
    pub handover: Option<Handover>,
    /// For a switchover: how long open transactions may take to finish, in milliseconds.
    pub drain_ms: u64,
    /// The steps, in order.
    pub steps: BTreeMap<StepId, Step>,
    /// How often it was resumed after the supervisor died.
    pub resumed: u32,
    /// Whether a person asked to cancel it, with the reason.
    pub cancelled: Option<String>,
    /// The parts of the recovery time, once it completed.
    pub recovery_time: Option<RecoveryTime>,
    /// The loss, once it completed.
    pub loss: Option<Loss>,
    /// For a switchover: the time without writes, in milliseconds, once it completed.
    pub without_writes_ms: Option<u64>,
    /// For a switchover: the certificate, once it completed.
    pub certificate: Option<Certificate>,
    /// For a rejoin: what it found, kept and did.
    pub rejoin: Option<Rejoin>,
    /// Whether its promotion was observed: a new timeline with its history file.
    #[serde(skip)]
    pub promoted: bool,
    /// Best-effort steps that failed.
    pub degraded: Vec<StepId>,
    /// The last error, and the next command.
    pub problem: Option<String>,
    /// The event that began it, as a cause of later events.
    #[serde(skip)]
    pub lineage: Lineage,
    /// That event's place in the story: nodes whose clocks differ give ids in another order.
    #[serde(skip)]
    pub begun: Place,
}

/// The request and the result of a rejoin.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Rejoin {
    /// Whether to copy main's data directory even if this node's could be rewound.
    pub copy: bool,
    /// How the data directory was made to follow main, once it does.
    pub by: Option<Demotion>,
    /// What only this node had, once it completed.
    pub stranded: Option<Stranded>,
    /// The folder of the kept copy, once it completed.
    pub kept: Option<String>,
}

impl Run {
    fn begin(id: RunId, kind: RunKind, envelope: &Envelope) -> Self {
        let mut steps: BTreeMap<StepId, Step> =
            kind.steps().iter().map(|step| (*step, Step::default())).collect();
        let at = envelope.recorded_at;
        steps.insert(StepId::RecordStart, Step::recorded(at, "the run and its evidence are in the journal"));
        Self {
            id,
            kind,
            node: envelope.node_id,
            trigger: Trigger::Operator,
            request: None,
            old_main: envelope.node_id,
            new_main: envelope.node_id,
            epoch: envelope.epoch,
            end: RunEnd::Running,
            started_at: at,
            ended_at: None,
            silent_ms: 0,
            evidence: None,
            last_report: None,
            handover: None,
            drain_ms: 0,
            steps,
            resumed: 0,
            cancelled: None,
            recovery_time: None,
            loss: None,
            without_writes_ms: None,
            certificate: None,
            rejoin: None,
            promoted: false,
            degraded: Vec::new(),
            problem: None,
            lineage: envelope.lineage(),
            begun: envelope.place(),
        }
    }

    fn failover(id: RunId, started: &FailoverStarted, envelope: &Envelope) -> Self {
        let kind = match started.trigger {
            Trigger::Automatic => RunKind::Failover,
            Trigger::Operator | Trigger::ByHand => RunKind::Promotion,
            Trigger::Switchover => RunKind::Takeover,
        };
        Self {
            trigger: started.trigger,
            request: started.request.clone(),
            old_main: started.old_main,
            new_main: started.new_main,
            epoch: started.epoch,
            silent_ms: started.silent_ms,
            evidence: Some(started.evidence.clone()),
            last_report: started.last_report.clone(),
            handover: started.handover.clone(),
            ..Self::begin(id, kind, envelope)
        }
    }

    fn switchover(id: RunId, started: &SwitchoverStarted, envelope: &Envelope) -> Self {
        Self {
            request: Some(started.request.clone()),
            old_main: started.old_main,
            new_main: started.new_main,
            epoch: started.epoch,
            drain_ms: started.drain_ms,
            ..Self::begin(id, RunKind::Switchover, envelope)
        }
    }

    fn rejoin(id: RunId, started: &RejoinStarted, envelope: &Envelope) -> Self {
        let trigger = if started.request.is_some() { Trigger::Operator } else { Trigger::Automatic };
        Self {
            trigger,
            request: started.request.clone(),
            new_main: started.main,
            epoch: started.epoch,
            rejoin: Some(Rejoin { copy: started.copy, ..Rejoin::default() }),
            ..Self::begin(id, RunKind::Rejoin, envelope)
        }
    }

    /// One step; a step that the stream never mentioned is pending.
    #[must_use]
    pub fn step(&self, step: StepId) -> Step {
        self.steps.get(&step).cloned().unwrap_or_default()
    }

    /// What a step observed, if it is of that kind and reads.
    #[must_use]
    pub fn observed<T: Observation + Clone>(&self, step: StepId) -> Option<T> {
        let stored = &self.steps.get(&step)?.observed;
        T::of(&Observed::read(step, stored).ok()?).cloned()
    }

    /// Whether it goes on.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.end == RunEnd::Running
    }

    /// Whether it only goes forward: its point of no return was begun, and neither refused nor withdrawn.
    #[must_use]
    pub fn is_past_no_return(&self) -> bool {
        let step = self.step(self.kind.point_of_no_return());
        let refused = matches!(step.state, StepState::Pending | StepState::Ended(StepOutcome::Refused));
        match step.undo {
            Undo::Done => false,
            Undo::Failed => true,
            Undo::NotAsked | Undo::Running => self.promoted || !refused,
        }
    }

    /// Whether what its point of no return asked for is being withdrawn.
    #[must_use]
    pub fn is_withdrawing(&self) -> bool {
        self.is_running() && self.step(self.kind.point_of_no_return()).undo == Undo::Running
    }

    /// Milliseconds from the start of the run to a moment of it.
    #[must_use]
    pub fn ms_until(&self, moment: DateTime<Utc>) -> u64 {
        (moment - self.started_at).num_milliseconds().max(0).cast_unsigned()
    }

    /// The run as it is after a step has ended so: a decider plans the next steps on it.
    #[must_use]
    pub fn with_outcome(&self, step: StepId, outcome: StepOutcome) -> Self {
        let mut run = self.clone();
        run.steps.entry(step).or_default().state = StepState::Ended(outcome);
        run
    }

    fn complete(&mut self, degraded: &[StepId], at: DateTime<Utc>) {
        self.end = if degraded.is_empty() { RunEnd::Completed } else { RunEnd::CompletedDegraded };
        self.ended_at = Some(at);
        self.degraded = degraded.to_vec();
        self.steps
            .insert(StepId::RecordCompletion, Step::recorded(at, "the end of the run is in the journal"));
    }

    fn give_up(&mut self, end: RunEnd, problem: String, at: DateTime<Utc>) {
        (self.end, self.ended_at, self.problem) = (end, Some(at), Some(problem));
    }
}

/// A switchover that begins by itself when it is due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Scheduled {
    /// The target, the time and the drain.
    #[serde(flatten)]
    pub switchover: SwitchoverScheduled,
    /// The person who asked for it.
    pub asker: Cause,
    /// The event, as a cause of later events.
    #[serde(skip)]
    pub lineage: Lineage,
}

/// The fold.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Runs {
    /// Every run, by its id. That begins with the time by the clock of its node: for what came after what, see
    /// [`Self::newest_first`].
    pub runs: BTreeMap<RunId, Run>,
    /// The switchover that each node has scheduled.
    pub scheduled: BTreeMap<NodeId, Scheduled>,
}

impl Runs {
    /// The run that a node is making.
    #[must_use]
    pub fn active(&self, node: NodeId) -> Option<&Run> {
        self.newest_first().into_iter().find(|run| run.node == node && run.is_running())
    }

    /// Every run, as the story has them.
    #[must_use]
    pub fn newest_first(&self) -> Vec<&Run> {
        let mut runs: Vec<&Run> = self.runs.values().collect();
        runs.sort_by_key(|run| std::cmp::Reverse(run.begun));
        runs
    }

    /// The switchover that a node begins when it is due.
    #[must_use]
    pub fn scheduled(&self, node: NodeId) -> Option<&Scheduled> {
        self.scheduled.get(&node)
    }

    /// A scheduled switchover is not a run yet.
    fn schedule(&mut self, envelope: &Envelope) {
        match &envelope.event {
            Event::SwitchoverScheduled(switchover) => {
                let (switchover, asker) = (switchover.clone(), envelope.actor.clone());
                let scheduled = Scheduled { switchover, asker, lineage: envelope.lineage() };
                self.scheduled.insert(envelope.node_id, scheduled);
            }
            Event::SwitchoverUnscheduled(_) => {
                self.scheduled.remove(&envelope.node_id);
            }
            _ => {}
        }
    }

    /// The newest run.
    #[must_use]
    pub fn newest(&self) -> Option<&Run> {
        self.runs.values().max_by_key(|run| run.begun)
    }

    /// The other half of a switchover, seen from either: its id, whether the run itself is known here or not.
    #[must_use]
    pub fn other_half(&self, run: &Run) -> Option<RunId> {
        let begun_by = |half: &Run| half.handover.as_ref().map(|handover| handover.run);
        match run.kind {
            RunKind::Takeover => begun_by(run),
            RunKind::Switchover => {
                let answers = |half: &&Run| half.kind == RunKind::Takeover && begun_by(half) == Some(run.id);
                self.runs.values().find(answers).map(|half| half.id)
            }
            RunKind::Failover | RunKind::Promotion | RunKind::Rejoin => None,
        }
    }

    /// The newest run; for a switchover main's run, which has the certificate.
    #[must_use]
    pub fn newest_whole(&self) -> Option<&Run> {
        let newest = self.newest()?;
        let asked_for = self.other_half(newest).filter(|_| newest.kind == RunKind::Takeover);
        asked_for.and_then(|id| self.get(id)).or(Some(newest))
    }

    /// One run.
    #[must_use]
    pub fn get(&self, id: RunId) -> Option<&Run> {
        self.runs.get(&id)
    }
}

impl Projection for Runs {
    fn apply(&mut self, envelope: &Envelope) {
        self.schedule(envelope);
        let Some(id) = envelope.run_id else { return };
        let at = envelope.recorded_at;
        let begun = match &envelope.event {
            Event::FailoverStarted(started) => Some(Run::failover(id, started, envelope)),
            Event::SwitchoverStarted(started) => Some(Run::switchover(id, started, envelope)),
            Event::RejoinStarted(started) => Some(Run::rejoin(id, started, envelope)),
            _ => None,
        };
        if let Some(run) = begun {
            self.runs.entry(id).or_insert(run);
            return;
        }
        let Some(run) = self.runs.get_mut(&id) else { return };
        match &envelope.event {
            Event::StepStarted(started) => {
                let step = run.steps.entry(started.step).or_default();
                step.state = StepState::Running;
                step.attempts = started.attempt;
                step.started_at = step.started_at.or(Some(at));
                (step.ended_at, step.took_ms) = (None, None);
            }
            Event::StepFinished(finished) => {
                let step = run.steps.entry(finished.step).or_default();
                let outcome = finished.settled();
                step.state = StepState::Ended(outcome);
                step.unread = outcome != finished.outcome;
                (step.ended_at, step.took_ms) = (Some(at), Some(finished.took_ms));
                step.detail.clone_from(&finished.detail);
                step.observed.clone_from(&finished.observed);
                run.promoted |= finished.shows_a_promotion();
                let about = format!("{}: ", finished.step);
                if !finished.outcome.is_success() {
                    run.problem = Some(format!("{about}{}", finished.detail));
                } else if run.problem.as_ref().is_some_and(|problem| problem.starts_with(&about)) {
                    // a later attempt mended it
                    run.problem = None;
                }
            }
            Event::StepUndoStarted(started) => {
                run.steps.entry(started.step).or_default().undo = Undo::Running;
            }
            Event::StepUndone(undone) => {
                let step = run.steps.entry(undone.step).or_default();
                step.undo = if undone.undone { Undo::Done } else { Undo::Failed };
                step.undo_detail.clone_from(&undone.detail);
            }
            Event::RunResumed(_) => run.resumed += 1,
            Event::RunCancelRequested(cancel) => {
                run.cancelled =
                    Some(cancel.reason.clone().unwrap_or_else(|| "no reason was given".to_owned()));
            }
            Event::HandoverOffered(offered) => run.handover = Some(offered.handover.clone()),
            Event::FailoverCompleted(completed) => {
                run.complete(&completed.degraded, at);
                run.recovery_time = Some(completed.recovery_time);
                run.loss.clone_from(&completed.loss);
            }
            Event::SwitchoverCompleted(completed) => {
                run.complete(&completed.degraded, at);
                run.without_writes_ms = Some(completed.without_writes_ms);
                run.certificate.clone_from(&completed.certificate);
            }
            Event::NodeDemoted(demoted) => {
                if let Some(rejoin) = &mut run.rejoin {
                    rejoin.by = Some(demoted.by);
                }
            }
            Event::RejoinCompleted(completed) => {
                run.complete(&completed.degraded, at);
                if let Some(rejoin) = &mut run.rejoin {
                    rejoin.by = Some(completed.by);
                    rejoin.stranded.clone_from(&completed.stranded);
                    rejoin.kept.clone_from(&completed.kept);
                }
            }
            Event::FailoverRefused(FailoverRefused { step, reason, .. })
            | Event::RunRefused(RunRefused { step, reason, .. }) => {
                run.give_up(RunEnd::Refused, format!("{step}: {reason}"), at);
            }
            Event::FailoverFailed(FailoverFailed { end, step, error, next })
            | Event::RunFailed(RunFailed { end, step, error, next }) => {
                let end = match end {
                    FailedEnd::RolledBack => RunEnd::RolledBack,
                    FailedEnd::Failed => RunEnd::Failed,
                    FailedEnd::NeedsOperator => RunEnd::NeedsOperator,
                };
                run.give_up(end, format!("{step}: {error}; next: {next}"), at);
            }
            _ => {}
        }
    }
}
