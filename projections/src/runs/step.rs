//! One step of a run.

use chrono::{DateTime, Utc};
use interrex_events::StepOutcome;
use serde::Serialize;
use serde_json::{Map, Value};

/// The state of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "outcome")]
pub enum StepState {
    /// Not begun yet.
    #[default]
    Pending,
    /// Its intent is recorded, its outcome is not.
    Running,
    /// Its outcome is recorded.
    Ended(StepOutcome),
}

/// One step of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Step {
    /// Its state.
    #[serde(flatten)]
    pub state: StepState,
    /// The number of attempts begun.
    pub attempts: u32,
    /// When its first attempt began.
    pub started_at: Option<DateTime<Utc>>,
    /// When the last outcome was recorded.
    pub ended_at: Option<DateTime<Utc>>,
    /// How long the last attempt took, in milliseconds.
    pub took_ms: Option<u64>,
    /// The details, in a sentence.
    pub detail: String,
    /// What was observed.
    pub observed: Map<String, Value>,
    /// Whether the step was a success without what it must have observed: the outcome is unknown, and the step looks again.
    #[serde(skip)]
    pub unread: bool,
    /// The state of its undo.
    pub undo: Undo,
    /// The outcome of the undo, in a sentence.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub undo_detail: String,
}

/// The state of the undo of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Undo {
    /// No undo was begun.
    #[default]
    NotAsked,
    /// Its undo's intent is recorded, the outcome is not.
    Running,
    /// The step was observed to be taken back.
    Done,
    /// The step was not taken back.
    Failed,
}

impl Step {
    /// A step that is an event itself.
    pub(super) fn recorded(at: DateTime<Utc>, detail: &str) -> Self {
        Self {
            state: StepState::Ended(StepOutcome::Succeeded),
            attempts: 1,
            started_at: Some(at),
            ended_at: Some(at),
            took_ms: Some(0),
            detail: detail.to_owned(),
            ..Self::default()
        }
    }

    /// Whether the steps that depend on it may begin.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        matches!(self.state, StepState::Ended(outcome) if outcome.is_success())
    }

    /// Whether its outcome is missing.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state == StepState::Running
    }
}
