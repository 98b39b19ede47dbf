//! What was looked at before a run.

use interrex_events::Verdict;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Something that was looked at before a run, and whether it speaks against it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// What, in a few words.
    pub subject: String,
    /// Good: it stands in nobody's way. Bad: the run would be refused. Unknown: it could not be found out.
    pub verdict: Verdict,
    /// What was found, in a sentence.
    pub detail: String,
    /// The values behind it, for programs.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub observed: Map<String, Value>,
}

impl Check {
    /// It stands in nobody's way.
    #[must_use]
    pub fn good(subject: &str, detail: impl Into<String>) -> Self {
        Self::of(subject, Verdict::Good, detail)
    }

    /// The run would be refused.
    #[must_use]
    pub fn bad(subject: &str, detail: impl Into<String>) -> Self {
        Self::of(subject, Verdict::Bad, detail)
    }

    /// It could not be found out: the run would fail there, or be refused.
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

    /// Whether the run would not get past it.
    #[must_use]
    pub fn stops(&self) -> bool {
        self.verdict != Verdict::Good
    }
}
