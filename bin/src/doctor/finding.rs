//! What a check found, in words for people and names for programs.

use serde::Serialize;

/// How a check ended, from harmless to harmful.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Measured, and as it must be.
    Pass,
    /// Not measured; the finding says why.
    Skipped,
    /// It works, with a risk.
    Warn,
    /// It would not work.
    Fail,
}

/// What would break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Breaks {
    /// Everything, at any time.
    Always,
    /// A secondary taking over from a lost main.
    Failover,
    /// A planned change of main.
    Switchover,
    /// An old main coming back.
    Rejoin,
}

/// A measured value, or why there is none.
pub type Measured<T> = Result<T, String>;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check's name; it never changes.
    pub check: &'static str,
    /// What would break.
    pub breaks: Breaks,
    /// How it ended.
    pub verdict: Verdict,
    /// What was measured, or why it was not.
    pub measured: String,
    /// The hazard, in a sentence or two.
    pub why: &'static str,
    /// What to run; nothing where nothing is wrong.
    pub fix: Option<String>,
}

/// The worst verdict; nothing where nothing was checked, which is no pass.
#[must_use]
pub fn worst(findings: &[Finding]) -> Option<Verdict> {
    findings.iter().map(|finding| finding.verdict).max()
}

/// A check's unchanging half.
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) breaks: Breaks,
    pub(super) why: &'static str,
}

impl Check {
    /// Judges what was measured; what was not is skipped, with the reason.
    pub(super) fn judge<T>(
        &self,
        measured: Measured<T>,
        judgement: impl FnOnce(T) -> (Verdict, String, Option<String>),
    ) -> Finding {
        let (verdict, measured, fix) = match measured {
            Ok(value) => judgement(value),
            Err(reason) => (Verdict::Skipped, reason, None),
        };
        Finding { check: self.name, breaks: self.breaks, verdict, measured, why: self.why, fix }
    }
}
