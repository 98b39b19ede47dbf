//! One step of a run.

use chrono::{DateTime, Utc};
use interrex_events::StepOutcome;
use serde::Serialize;
use serde_json::{Map, Value};

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "outcome")]
pub enum StepState {
    /// Its turn has not come.
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
    /// How far it is.
    #[serde(flatten)]
    pub state: StepState,
    /// Attempts begun.
    pub attempts: u32,
    /// When its first attempt began.
    pub started_at: Option<DateTime<Utc>>,
    /// When the last outcome was recorded.
    pub ended_at: Option<DateTime<Utc>>,
    /// How long the last attempt took, in milliseconds.
    pub took_ms: Option<u64>,
    /// In a sentence.
    pub detail: String,
    /// What was observed.
    pub observed: Map<String, Value>,
    /// Whether it is being taken back.
    pub undo: Undo,
    /// What that came to, in a sentence.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub undo_detail: String,
}

/// How far the taking back of a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Undo {
    /// It stands.
    #[default]
    NotAsked,
    /// Its undo's intent is recorded, the outcome is not.
    Running,
    /// It was observed to be taken back.
    Done,
    /// It was not.
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

    /// Whether the steps that wait for it may begin.
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
