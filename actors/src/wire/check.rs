//! The checks before a run.

use interrex_events::Verdict;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A check before a run, and whether it speaks against the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// The subject, in a few words.
    pub subject: String,
    /// Good: no obstacle. Bad: the run would be refused. Unknown: it could not be found out.
    pub verdict: Verdict,
    /// What was found, in a sentence.
    pub detail: String,
    /// The values behind it, for programs.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub observed: Map<String, Value>,
}

impl Check {
    /// A check that is no obstacle.
    #[must_use]
    pub fn good(subject: &str, detail: impl Into<String>) -> Self {
        Self::of(subject, Verdict::Good, detail)
    }

    /// A check for which the run would be refused.
    #[must_use]
    pub fn bad(subject: &str, detail: impl Into<String>) -> Self {
        Self::of(subject, Verdict::Bad, detail)
    }

    /// A check that could not be made: the run would fail there, or be refused.
    #[must_use]
    pub fn unknown(subject: &str, detail: impl Into<String>) -> Self {
        Self::of(subject, Verdict::Unknown, detail)
    }

    fn of(subject: &str, verdict: Verdict, detail: impl Into<String>) -> Self {
        Self { subject: subject.to_owned(), verdict, detail: detail.into(), observed: Map::new() }
    }

    /// The same with one more value.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.observed.insert(name.to_owned(), value.into());
        self
    }

    /// Whether the check would stop the run.
    #[must_use]
    pub fn stops(&self) -> bool {
        self.verdict != Verdict::Good
    }
}
