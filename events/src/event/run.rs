//! Facts about runs: how they begin and end, and the decisions not to make one.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    handover::Handover,
    health::{Evidence, LastReport, shown_in_words},
    step::StepId,
};
use crate::{Epoch, Lsn, NodeId};

/// Why a failover that was due by the clock was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WithheldRule {
    /// `auto_failover_enabled` is false.
    AutoFailoverDisabled,
    /// Main was not seen once since this supervisor started (MEASURED M19).
    MainNeverSeenSinceBoot,
    /// Main's PostgreSQL answers, only its supervisor does not.
    PostgresStillAnswers,
    /// Main's supervisor answers and vouches for its PostgreSQL.
    SupervisorVouches,
    /// The local standby still receives main's log.
    WalStillStreaming,
    /// This supervisor itself was frozen: the silence may be its own.
    OwnStall,
    /// This node lacked file descriptors, memory or ports, and could not ask main.
    OwnTrouble,
    /// The wall clock jumped; the verdict is measured on another clock.
    ClockJump,
    /// Main changed unplanned a short while ago.
    CoolDown,
    /// The last run of this node ended before it changed anything, a short while ago.
    RunInVain,
    /// The local PostgreSQL is no standby that could be promoted.
    NotPromotable,
    /// With quorum `none` one node at most promotes itself, and this is not the one.
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
    /// Who is main.
    pub main: NodeId,
    /// Which rule said no.
    pub rule: WithheldRule,
    /// In a sentence.
    pub detail: String,
    /// How long main had been silent, in milliseconds, where that is known.
    pub silent_ms: Option<u64>,
    /// The threshold, in milliseconds.
    pub threshold_ms: u64,
    /// What was known.
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
    /// A person promoted this node's PostgreSQL by hand, and main has been silent for the threshold: the supervisor takes
    /// it over.
    ByHand,
}

/// Payload of `failover_started`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverStarted {
    /// What started it.
    pub trigger: Trigger,
    /// Who was main.
    pub old_main: NodeId,
    /// Who shall be.
    pub new_main: NodeId,
    /// The epoch to win.
    pub epoch: Epoch,
    /// What was known of main.
    pub evidence: Evidence,
    /// How long main had been silent, in milliseconds.
    pub silent_ms: u64,
    /// The threshold, in milliseconds.
    pub threshold_ms: u64,
    /// What main last said of itself.
    pub last_report: Option<LastReport>,
    /// The quorum mode; `none` is two nodes with no third opinion.
    pub quorum: String,
    /// What a person said when asking for it.
    pub request: Option<Request>,
    /// What the old main proved when it handed its role over.
    pub handover: Option<Handover>,
}

/// What a person said when asking for a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Whether it was to be done against the evidence.
    pub forced: bool,
    /// Why.
    pub reason: Option<String>,
}

/// Payload of `failover_refused`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverRefused {
    /// The step that refused.
    pub step: StepId,
    /// Why, with the numbers.
    pub reason: String,
    /// What the operator can do.
    pub next: String,
}

/// Payload of `run_resumed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunResumed {
    /// Steps whose outcome the last supervisor did not live to record.
    pub interrupted: Vec<StepId>,
}

/// Payload of `step_started`: the intent, recorded before the act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepStarted {
    /// Which step.
    pub step: StepId,
    /// From 1.
    pub attempt: u32,
    /// When it is given up, in milliseconds.
    pub limit_ms: u64,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepOutcome {
    /// Done, and observed to be done.
    Succeeded,
    /// It was found done already; nothing was changed.
    AlreadyDone,
    /// There was nothing to do on this node.
    Skipped,
    /// Observed not to be done.
    Failed,
    /// By policy, the run must not go on.
    Refused,
    /// Nobody knows: the time ran out, or the supervisor died in between.
    Unknown,
}

shown_in_words!(StepOutcome {
    Succeeded => "succeeded", AlreadyDone => "already done", Skipped => "skipped",
    Failed => "failed", Refused => "refused", Unknown => "unknown",
});

impl StepOutcome {
    /// Whether the steps that wait for this one may begin.
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
    /// Which attempt at it.
    pub attempt: u32,
    /// How it ended.
    pub outcome: StepOutcome,
    /// In a sentence.
    pub detail: String,
    /// The observations behind it.
    pub observed: Map<String, Value>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

impl StepFinished {
    /// Whether a promotion was seen: a new timeline with its history file. It may have failed all the same.
    #[must_use]
    pub fn shows_a_promotion(&self) -> bool {
        self.step == StepId::Promote && self.observed.contains_key("timeline")
    }
}

/// Payload of `step_undo_started`: the intent, recorded before the act.
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
    /// In a sentence.
    pub detail: String,
}

/// What main acknowledged and the new main does not have, as far as anyone here can know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// Bytes of log between main's last report and what this node holds; nothing if main never reported.
    pub bytes: Option<u64>,
    /// Seconds from the last moment this node held all that main had reported, to main's first miss.
    pub seconds: Option<f64>,
    /// Main may have acknowledged more after its last report: the figures are then the least, not the most.
    pub lower_bound: bool,
    /// End of main's log when it last reported.
    pub main_lsn: Option<Lsn>,
    /// End of the log held here: the larger of received and replayed.
    pub own_lsn: Lsn,
}

/// Where the time without writes went, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RecoveryTime {
    /// From main's last good sign to the verdict.
    pub detect_ms: u64,
    /// From the verdict to the promote request: epoch, loss, fence, detach, settings.
    pub decide_ms: u64,
    /// From the promote request to a proved write.
    pub promote_ms: u64,
    /// From the proved write until every dependent proved ready.
    pub dependents_ms: u64,
}

impl RecoveryTime {
    /// Time without writes to PostgreSQL: dependents come after it.
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
    /// Steps that the run could do without and had to.
    pub degraded: Vec<StepId>,
    /// Where the time went.
    pub recovery_time: RecoveryTime,
    /// What is lost.
    pub loss: Option<Loss>,
}

/// How a run ended without a new main in full service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailedEnd {
    /// Before the point of no return, and everything is as it was.
    RolledBack,
    /// Before the point of no return, and something could not be taken back.
    Failed,
    /// After the point of no return: a person must look.
    NeedsOperator,
}

shown_in_words!(FailedEnd { RolledBack => "rolled_back", Failed => "failed", NeedsOperator => "needs_operator" });

/// Payload of `failover_failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverFailed {
    /// In which state it ended.
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
    /// What the operator can do.
    pub next: String,
}

/// Payload of `run_failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFailed {
    /// In which state it ended.
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
    /// Why.
    pub reason: Option<String>,
}
