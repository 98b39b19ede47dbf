//! What a check found: messages for people and names for programs.

use interrex_events::NodeId;
use serde::{Deserialize, Serialize};

/// How a check ended, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Measured, and good.
    Pass,
    /// A run would work, with a risk.
    Warn,
    /// Not measured; the finding says why. Readiness counts it as not proved.
    Unknown,
    /// A run would not work.
    Fail,
}

/// A change of roles that Interrex makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// A secondary takes over from a lost main.
    Failover,
    /// Main hands over its role.
    Switchover,
    /// An old main comes back as a secondary.
    Rejoin,
}

/// Every act.
pub const ALL_ACTS: &[Act] = &[Act::Failover, Act::Switchover, Act::Rejoin];

/// What a check is about. The subjects are the headings of the answer, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// Files of the configuration and the journal.
    Configuration,
    /// Programs, users and services of this machine.
    Machine,
    /// Each PostgreSQL by itself.
    #[serde(rename = "postgresql")]
    PostgreSql,
    /// Replication between main and its secondaries.
    Replication,
    /// Each Redis.
    Redis,
    /// Dependents and hooks.
    Dependents,
    /// The supervisors, and which main they believe in.
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

    /// The heading in the answer.
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
    /// The check's name. A released name never changes.
    pub check: &'static str,
    /// What it is about.
    pub subject: Subject,
    /// The node; nothing if the finding is about the whole cluster.
    pub node: Option<NodeId>,
    /// How it ended.
    pub verdict: Verdict,
    /// What was measured, or why it was not.
    pub measured: String,
    /// Why the check matters, in one or two sentences.
    pub why: &'static str,
    /// What to run or to set; nothing if nothing is wrong.
    pub fix: Option<String>,
    /// The acts that would not work as they should.
    pub breaks: &'static [Act],
}

/// The result of a check, before it is assigned to a node.
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

    /// A pass if `good`, otherwise a warning.
    pub(super) fn pass_or_warn(good: bool, measured: impl Into<String>, fix: impl Into<String>) -> Self {
        if good { Self::pass(measured) } else { Self::warn(measured, fix) }
    }

    /// A pass if `good`, otherwise a failure.
    pub(super) fn pass_or_fail(good: bool, measured: impl Into<String>, fix: impl Into<String>) -> Self {
        if good { Self::pass(measured) } else { Self::fail(measured, fix) }
    }
}

impl Subject {
    /// A check about this subject.
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

/// The constant part of a check: a row of the table in docs/OPERATIONS.md.
#[derive(Debug)]
pub struct Check {
    /// The name. A released name never changes.
    pub name: &'static str,
    /// What it is about.
    pub subject: Subject,
    /// The acts that do not work as they should if the check fails.
    pub breaks: &'static [Act],
    /// What the check demands.
    pub looks_at: &'static str,
    /// Why the check matters.
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

    /// Judges a measured value of a node. A value that was not measured is `unknown`, with the reason.
    pub(super) fn judge<T>(
        &self,
        node: NodeId,
        measured: &Measured<T>,
        judgement: impl FnOnce(&T) -> Judgement,
    ) -> Finding {
        let not_measured = |reason: &String| Judgement {
            verdict: Verdict::Unknown,
            measured: reason.clone(),
            fix: Some("fix that first, then run again: interrex doctor".to_owned()),
        };
        self.on(node, measured.as_ref().map_or_else(not_measured, judgement))
    }
}

/// The worst verdict; nothing if nothing was checked, which is not a pass.
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
