//! Facts about runs: a failover, its steps, and the decisions not to make one.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::health::{Evidence, LastReport, shown_in_words};
use crate::{Epoch, Lsn, NodeId};

/// A step of a run. The order, limits and rules are in the step table of the `actors` crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepId {
    /// 1: the run and its evidence are written down.
    RecordStart,
    /// 2: the right to be main of the next epoch.
    WinEpoch,
    /// 3: how much of what main acknowledged is not here.
    MeasureLoss,
    /// 4: the old main stops acknowledging writes, if it answers at all.
    FenceOldMain,
    /// 5: receive nothing more from the old main, replay all that was received.
    Detach,
    /// 6: settings inherited from the old main that would hinder a new one.
    SanitiseSettings,
    /// 7: PostgreSQL becomes a primary. The point of no return.
    Promote,
    /// 8: Redis becomes a master, durably.
    PromoteRedis,
    /// 9: `cluster_events`, `cluster_config` and `cluster_nodes` say so.
    OpenEpoch,
    /// 10: RADIUS and other dependents restart and prove ready.
    RestartDependents,
    /// 11: every peer is told.
    NotifyPeers,
    /// 12: the nodes to come back find their replication slots and a checkpoint.
    PrepareRejoin,
    /// 13: the operator's hooks.
    RunHooks,
    /// 14: the run's end and its times are written down.
    RecordCompletion,
}

impl StepId {
    /// Every step of a failover, in the order of the runbook's page.
    pub const ALL: [Self; 14] = [
        Self::RecordStart,
        Self::WinEpoch,
        Self::MeasureLoss,
        Self::FenceOldMain,
        Self::Detach,
        Self::SanitiseSettings,
        Self::Promote,
        Self::PromoteRedis,
        Self::OpenEpoch,
        Self::RestartDependents,
        Self::NotifyPeers,
        Self::PrepareRejoin,
        Self::RunHooks,
        Self::RecordCompletion,
    ];

    /// Its number, from 1.
    #[must_use]
    pub fn number(self) -> usize {
        self as usize + 1
    }

    /// Its name in snake_case, as stored.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RecordStart => "record_start",
            Self::WinEpoch => "win_epoch",
            Self::MeasureLoss => "measure_loss",
            Self::FenceOldMain => "fence_old_main",
            Self::Detach => "detach",
            Self::SanitiseSettings => "sanitise_settings",
            Self::Promote => "promote",
            Self::PromoteRedis => "promote_redis",
            Self::OpenEpoch => "open_epoch",
            Self::RestartDependents => "restart_dependents",
            Self::NotifyPeers => "notify_peers",
            Self::PrepareRejoin => "prepare_rejoin",
            Self::RunHooks => "run_hooks",
            Self::RecordCompletion => "record_completion",
        }
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names no step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a step; steps are {list}", list = StepId::ALL.map(StepId::name).join(", "))]
pub struct NotAStep(String);

impl FromStr for StepId {
    type Err = NotAStep;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|step| step.name() == text).ok_or_else(|| NotAStep(text.to_owned()))
    }
}

/// Why a failover that was due by the clock was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WithheldRule {
    /// `auto_failover_enabled` is false.
    AutoFailoverDisabled,
    /// Main was not seen once since this supervisor started (facts, S6).
    MainNeverSeenSinceBoot,
    /// Main's PostgreSQL answers, only its supervisor does not.
    PostgresStillAnswers,
    /// Main's supervisor answers and vouches for its PostgreSQL.
    SupervisorVouches,
    /// The local standby still receives main's log.
    WalStillStreaming,
    /// This supervisor itself was frozen: the silence may be its own.
    OwnStall,
    /// The wall clock jumped; the verdict is measured on another clock.
    ClockJump,
    /// The last run was too recent.
    CoolDown,
    /// The local PostgreSQL is no standby that could be promoted.
    NotPromotable,
}

shown_in_words!(WithheldRule {
    AutoFailoverDisabled => "auto_failover_disabled", MainNeverSeenSinceBoot => "main_never_seen_since_boot",
    PostgresStillAnswers => "postgres_still_answers",
    SupervisorVouches => "supervisor_vouches", WalStillStreaming => "wal_still_streaming",
    OwnStall => "own_stall", ClockJump => "clock_jump", CoolDown => "cool_down", NotPromotable => "not_promotable",
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
    /// Before the point of no return, and this node is a standby of the old main again.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_numbered_as_on_the_runbooks_page_and_read_back_by_name() {
        for (index, step) in StepId::ALL.into_iter().enumerate() {
            assert_eq!(step.number(), index + 1);
            assert_eq!(step.name().parse(), Ok(step));
            assert_eq!(serde_json::to_value(step).unwrap(), step.name());
        }
        assert!("promot".parse::<StepId>().is_err());
    }
}
