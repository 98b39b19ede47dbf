//! What a check found, in words for people and names for programs.

use interrex_events::NodeId;
use serde::{Deserialize, Serialize};

/// How a check ended, from harmless to harmful.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Measured, and as it must be.
    Pass,
    /// It works, with a risk.
    Warn,
    /// Not measured; the finding says why. What is not proved does not count as proved.
    Unknown,
    /// It would not work.
    Fail,
}

/// What people and Interrex do to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// A secondary takes over from a lost main.
    Failover,
    /// Main hands its role over.
    Switchover,
    /// An old main comes back as a secondary.
    Rejoin,
}

/// Every act.
pub const ALL_ACTS: &[Act] = &[Act::Failover, Act::Switchover, Act::Rejoin];

/// What a check is about: the headings of the answer, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// Files of the configuration and the journal.
    Configuration,
    /// Programs, users and services of this machine.
    Machine,
    /// Each PostgreSQL for itself.
    #[serde(rename = "postgresql")]
    PostgreSql,
    /// What main and its secondaries are to each other.
    Replication,
    /// Each Redis.
    Redis,
    /// Programs that restart with the role.
    Dependents,
    /// The supervisors, and what they believe.
    Supervisors,
}

impl Subject {
    /// Every subject, in the order of the answer.
    pub const ALL: [Self; 7] = [
        Self::Configuration,
        Self::Machine,
        Self::PostgreSql,
        Self::Replication,
        Self::Redis,
        Self::Dependents,
        Self::Supervisors,
    ];

    /// Its heading.
    #[must_use]
    pub fn heading(self) -> &'static str {
        match self {
            Self::Configuration => "Configuration and journal",
            Self::Machine => "This machine",
            Self::PostgreSql => "PostgreSQL",
            Self::Replication => "Replication",
            Self::Redis => "Redis",
            Self::Dependents => "Dependents and hooks",
            Self::Supervisors => "Supervisors",
        }
    }
}

/// A measured value, or why there is none.
pub type Measured<T> = Result<T, String>;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check's name; it never changes.
    pub check: &'static str,
    /// What it is about.
    pub subject: Subject,
    /// The node it speaks of; nothing where it is all of them.
    pub node: Option<NodeId>,
    /// How it ended.
    pub verdict: Verdict,
    /// What was measured, or why it was not.
    pub measured: String,
    /// The hazard, in a sentence or two.
    pub why: &'static str,
    /// What to run or to set; nothing where nothing is wrong.
    pub fix: Option<String>,
    /// What would not work as it should.
    pub breaks: &'static [Act],
}

/// What a look at measured values says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    pub(super) verdict: Verdict,
    pub(super) measured: String,
    pub(super) fix: Option<String>,
}

impl Judgement {
    pub(super) fn pass(measured: impl Into<String>) -> Self {
        Self { verdict: Verdict::Pass, measured: measured.into(), fix: None }
    }

    pub(super) fn warn(measured: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warn, measured: measured.into(), fix: Some(fix.into()) }
    }

    pub(super) fn fail(measured: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, measured: measured.into(), fix: Some(fix.into()) }
    }

    pub(super) fn unknown(reason: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { verdict: Verdict::Unknown, measured: reason.into(), fix: Some(fix.into()) }
    }

    /// As it should be, or else a warning.
    pub(super) fn pass_or_warn(good: bool, measured: impl Into<String>, fix: impl Into<String>) -> Self {
        if good { Self::pass(measured) } else { Self::warn(measured, fix) }
    }

    /// As it must be, or else a failure.
    pub(super) fn pass_or_fail(good: bool, measured: impl Into<String>, fix: impl Into<String>) -> Self {
        if good { Self::pass(measured) } else { Self::fail(measured, fix) }
    }
}

impl Subject {
    /// A check about it.
    pub(super) const fn check(
        self,
        name: &'static str,
        breaks: &'static [Act],
        looks_at: &'static str,
        why: &'static str,
    ) -> Check {
        Check { name, subject: self, breaks, looks_at, why }
    }
}

/// A check's unchanging half: a row of the table in docs/OPERATIONS.md.
#[derive(Debug)]
pub struct Check {
    /// Its name; it never changes.
    pub name: &'static str,
    /// What it is about.
    pub subject: Subject,
    /// What does not work as it should where it fails.
    pub breaks: &'static [Act],
    /// What it looks at.
    pub looks_at: &'static str,
    /// The hazard.
    pub why: &'static str,
}

impl Check {
    /// The finding about a node.
    pub(super) fn on(&self, node: NodeId, judgement: Judgement) -> Finding {
        self.found(Some(node), judgement)
    }

    /// The finding about all nodes.
    pub(super) fn found(&self, node: Option<NodeId>, judgement: Judgement) -> Finding {
        let Judgement { verdict, measured, fix } = judgement;
        Finding {
            check: self.name,
            subject: self.subject,
            node,
            verdict,
            measured,
            why: self.why,
            fix,
            breaks: self.breaks,
        }
    }

    /// Judges what was measured of a node; what was not is unknown, with the reason.
    pub(super) fn judge<T>(
        &self,
        node: NodeId,
        measured: &Measured<T>,
        judgement: impl FnOnce(&T) -> Judgement,
    ) -> Finding {
        let not_measured = |reason: &String| Judgement {
            verdict: Verdict::Unknown,
            measured: reason.clone(),
            fix: Some("mend that first, then look again".to_owned()),
        };
        self.on(node, measured.as_ref().map_or_else(not_measured, judgement))
    }
}

/// The worst verdict; nothing where nothing was checked, which is no pass.
#[must_use]
pub fn worst(findings: &[Finding]) -> Option<Verdict> {
    findings.iter().map(|finding| finding.verdict).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECK: Check = Check {
        name: "it",
        subject: Subject::Machine,
        breaks: ALL_ACTS,
        looks_at: "something",
        why: "for a reason",
    };

    #[test]
    fn what_was_not_measured_never_passes() {
        let silent: Measured<u8> = Err("beta does not answer".to_owned());
        let finding = CHECK.judge(NodeId(2), &silent, |_| Judgement::pass("fine"));
        assert_eq!((finding.verdict, finding.measured.as_str()), (Verdict::Unknown, "beta does not answer"));
        assert_eq!(CHECK.judge(NodeId(2), &Ok(1), |_| Judgement::pass("fine")).verdict, Verdict::Pass);
        assert_eq!(worst(&[]), None);
        assert_eq!(worst(&[finding]), Some(Verdict::Unknown));
    }
}
