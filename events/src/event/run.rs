//! Facts about runs: how they begin and end, and decisions not to begin a run.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    handover::Handover,
    health::{Evidence, LastReport, shown_in_words},
    observed::Observed,
    step::StepId,
};
use crate::{Epoch, Lsn, NodeId};

/// Why a failover that was due by the threshold was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WithheldRule {
    /// `auto_failover_enabled` is false.
    AutoFailoverDisabled,
    /// Main gave no sign of life since this supervisor started (MEASURED M19).
    MainNeverSeenSinceBoot,
    /// Main's PostgreSQL answers; only its supervisor does not.
    PostgresStillAnswers,
    /// Main's supervisor answers and vouches for its PostgreSQL.
    SupervisorVouches,
    /// The local standby still receives main's WAL.
    WalStillStreaming,
    /// This supervisor itself did not run for a while, so the silence may be its own.
    OwnStall,
    /// This node lacked file descriptors, memory or ports, and could not ask main.
    OwnTrouble,
    /// The wall clock jumped. (The verdict itself is measured on another clock.)
    ClockJump,
    /// The cool-down: main changed unplanned a short while ago.
    CoolDown,
    /// A short while ago, a run of this node ended before it changed anything.
    RunInVain,
    /// The local PostgreSQL is not a standby that could be promoted.
    NotPromotable,
    /// With quorum `none` at most one node, the candidate, promotes itself, and this node is not the candidate.
    OtherCandidate,
}

shown_in_words!(WithheldRule {
    AutoFailoverDisabled => "auto_failover_disabled", MainNeverSeenSinceBoot => "main_never_seen_since_boot",
    PostgresStillAnswers => "postgres_still_answers",
    SupervisorVouches => "supervisor_vouches", WalStillStreaming => "wal_still_streaming",
    OwnStall => "own_stall", OwnTrouble => "own_trouble", ClockJump => "clock_jump", CoolDown => "cool_down", RunInVain => "run_in_vain", NotPromotable => "not_promotable",
    OtherCandidate => "other_candidate",
});

/// Payload of `failover_withheld`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverWithheld {
    /// The main.
    pub main: NodeId,
    /// The rule that withheld it.
    pub rule: WithheldRule,
    /// The details, in a sentence.
    pub detail: String,
    /// How long main had been silent, in milliseconds, if that is known.
    pub silent_ms: Option<u64>,
    /// The threshold, in milliseconds.
    pub threshold_ms: u64,
    /// What was known of main.
    pub evidence: Option<Evidence>,
}

/// What started a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// The threshold passed.
    Automatic,
    /// A person asked for it.
    Operator,
    /// The old main handed its role over, in a switchover.
    Switchover,
    /// A person promoted this node's PostgreSQL by hand, and main has been silent for the threshold. The supervisor
    /// takes the promotion over.
    ByHand,
}

/// Payload of `failover_started`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverStarted {
    /// What started it.
    pub trigger: Trigger,
    /// The old main.
    pub old_main: NodeId,
    /// The node that is to be main.
    pub new_main: NodeId,
    /// The epoch to open.
    pub epoch: Epoch,
    /// What was known of main.
    pub evidence: Evidence,
    /// How long main had been silent, in milliseconds.
    pub silent_ms: u64,
    /// The threshold, in milliseconds.
    pub threshold_ms: u64,
    /// Main's last report.
    pub last_report: Option<LastReport>,
    /// The quorum mode; `none` means no third opinion.
    pub quorum: String,
    /// What a person asked for, if one did.
    pub request: Option<Request>,
    /// What the old main proved before it handed its role over.
    pub handover: Option<Handover>,
}

/// What a person asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Whether the run was forced, against the evidence.
    pub forced: bool,
    /// The reason that the person gave.
    pub reason: Option<String>,
}

/// Payload of `failover_refused`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverRefused {
    /// The step that refused.
    pub step: StepId,
    /// Why, with the numbers.
    pub reason: String,
    /// The next command for the operator.
    pub next: String,
}

/// Payload of `run_resumed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunResumed {
    /// Steps whose outcome the last supervisor did not record before it ended.
    pub interrupted: Vec<StepId>,
}

/// Payload of `step_started`: the intent, recorded before the effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepStarted {
    /// Which step.
    pub step: StepId,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The time limit, in milliseconds.
    pub limit_ms: u64,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepOutcome {
    /// Done, and observed to be done.
    Succeeded,
    /// Found done already; nothing was changed.
    AlreadyDone,
    /// There was nothing to do.
    Skipped,
    /// Observed not to be done.
    Failed,
    /// The run must not continue, by policy.
    Refused,
    /// The outcome was not observed: the time ran out, or the supervisor died in between.
    Unknown,
}

shown_in_words!(StepOutcome {
    Succeeded => "succeeded", AlreadyDone => "already done", Skipped => "skipped",
    Failed => "failed", Refused => "refused", Unknown => "unknown",
});

impl StepOutcome {
    /// Whether the steps that depend on this one may begin.
    #[must_use]
    pub fn is_success(self) -> bool {
        matches!(self, Self::Succeeded | Self::AlreadyDone | Self::Skipped)
    }
}

/// Payload of `step_finished`: the outcome, as observed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepFinished {
    /// Which step.
    pub step: StepId,
    /// The attempt, from 1.
    pub attempt: u32,
    /// How it ended.
    pub outcome: StepOutcome,
    /// The details, in a sentence.
    pub detail: String,
    /// The observations behind it.
    pub observed: Map<String, Value>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

impl StepFinished {
    /// What was observed, if it reads.
    #[must_use]
    pub fn observation(&self) -> Option<Observed> {
        Observed::read(self.step, &self.observed).ok()
    }

    /// The outcome that may be believed: a success without what that step must have observed is unknown.
    #[must_use]
    pub fn settled(&self) -> StepOutcome {
        let suffices = self.observation().is_some_and(|observed| observed.suffices_for(self.step));
        if self.outcome.is_success() && !suffices { StepOutcome::Unknown } else { self.outcome }
    }

    /// Whether a promotion was seen: a new timeline with its history file. The step may have failed all the same.
    #[must_use]
    pub fn shows_a_promotion(&self) -> bool {
        matches!(self.observation(), Some(Observed::Promoted(_)))
    }
}

/// Payload of `step_undo_started`: the intent, recorded before the undo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepUndoStarted {
    /// Which step.
    pub step: StepId,
}

/// Payload of `step_undone`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepUndone {
    /// Which step.
    pub step: StepId,
    /// Whether the undo was observed to work.
    pub undone: bool,
    /// The details, in a sentence.
    pub detail: String,
}

/// What main acknowledged and the new main lacks, as far as the new main can know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// Bytes of WAL between main's last report and what this node has; `null` if main never reported.
    pub bytes: Option<u64>,
    /// Seconds from the last moment at which this node had all that main had reported, to main's first miss.
    pub seconds: Option<f64>,
    /// Whether main may have acknowledged more after its last report: the figures are then a minimum.
    pub lower_bound: bool,
    /// The end of main's WAL at its last report.
    pub main_lsn: Option<Lsn>,
    /// The end of the WAL on this node: the larger of received and replayed.
    pub own_lsn: Lsn,
}

/// The parts of the time without writes, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RecoveryTime {
    /// From main's last sign of life to the verdict.
    pub detect_ms: u64,
    /// From the verdict to the request to promote: epoch, loss, fence, detach, settings.
    pub decide_ms: u64,
    /// From the request to promote to a proved write.
    pub promote_ms: u64,
    /// From the proved write until every dependent proved ready.
    pub dependents_ms: u64,
}

impl RecoveryTime {
    /// The time without writes to PostgreSQL; dependents are not part of it.
    #[must_use]
    pub fn without_writes_ms(self) -> u64 {
        self.detect_ms + self.decide_ms + self.promote_ms
    }
}

/// Payload of `failover_completed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailoverCompleted {
    /// The new main.
    pub main: NodeId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Best-effort steps that failed.
    pub degraded: Vec<StepId>,
    /// The parts of the recovery time.
    pub recovery_time: RecoveryTime,
    /// The loss; `null` if it was not measured.
    pub loss: Option<Loss>,
}

/// How a run ended without success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailedEnd {
    /// Before the point of no return; every step was taken back.
    RolledBack,
    /// Before the point of no return; a step could not be taken back.
    Failed,
    /// After the point of no return; an operator must act.
    NeedsOperator,
}

shown_in_words!(FailedEnd { RolledBack => "rolled_back", Failed => "failed", NeedsOperator => "needs_operator" });

/// Payload of `failover_failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverFailed {
    /// How it ended.
    pub end: FailedEnd,
    /// The step that failed.
    pub step: StepId,
    /// Its error.
    pub error: String,
    /// The command to try next.
    pub next: String,
}

/// Payload of `run_refused`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRefused {
    /// The step that refused.
    pub step: StepId,
    /// Why, with the numbers.
    pub reason: String,
    /// The next command for the operator.
    pub next: String,
}

/// Payload of `run_failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFailed {
    /// How it ended.
    pub end: FailedEnd,
    /// The step that failed.
    pub step: StepId,
    /// Its error.
    pub error: String,
    /// The command to try next.
    pub next: String,
}

/// Payload of `run_cancel_requested`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunCancelRequested {
    /// The reason that the person gave.
    pub reason: Option<String>,
}
