//! Every run as a table of data: from it come the executor, the resume, the tests and the documentation.
//!
//! The first and the last step are events themselves, such as `failover_started` and `failover_completed`; all others
//! are recorded as intent (`step_started`) and outcome (`step_finished`). `docs/RUNS.md` shows the tables.

#[cfg(test)]
mod page;
mod to_main;
mod to_secondary;
mod to_successor;

use std::time::Duration;

use interrex_events::{RunKind, StepId};

use self::{to_main::TO_MAIN, to_secondary::TO_SECONDARY, to_successor::TO_SUCCESSOR};

/// The actor that makes a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    /// No actor: the step is an event itself.
    Journal,
    /// HeartbeatActor, which holds the lease.
    Heartbeat,
    /// ReplicationActor.
    Replication,
    /// NotifierActor.
    Notifier,
}

/// Whether a run can complete without a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The run fails without the step.
    Required,
    /// The run completes without the step, and is then `completed_degraded`.
    BestEffort,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct StepRule {
    /// The step.
    pub step: StepId,
    /// The actor that makes it.
    pub maker: Maker,
    /// The steps that must have ended before it begins.
    pub after: &'static [StepId],
    /// What the step does.
    pub effect: &'static str,
    /// What proves that it is done.
    pub success: &'static str,
    /// When one attempt is given up, in milliseconds.
    pub limit_ms: u64,
    /// Attempts before it counts as failed.
    pub attempts: u32,
    /// Whether the run can complete without it.
    pub need: Need,
    /// How the step is taken back before the point of no return, if it can be. For the point of no return itself: how a request
    /// whose result was not observed is withdrawn.
    pub undo: Option<&'static str>,
}

impl StepRule {
    /// When one attempt is given up.
    #[must_use]
    pub fn limit(&self) -> Duration {
        Duration::from_millis(self.limit_ms)
    }
}

/// Attempts at a question that only another node can answer: no node may act on a guess meanwhile, and each attempt without an
/// answer is recorded with what a person can do.
pub const UNTIL_ANSWERED: u32 = u32::MAX;

/// Pause before a repeated attempt.
pub const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// The steps of a run, in order.
#[must_use]
pub fn table(kind: RunKind) -> &'static [StepRule] {
    match kind {
        RunKind::Failover | RunKind::Promotion | RunKind::Takeover => &TO_MAIN,
        RunKind::Switchover => &TO_SUCCESSOR,
        RunKind::Rejoin => &TO_SECONDARY,
    }
}

/// A step that is no part of a run: nothing makes it, and nothing waits for it.
const FOREIGN: StepRule = StepRule {
    step: StepId::RecordStart,
    maker: Maker::Journal,
    after: &[],
    effect: "nothing",
    success: "nothing",
    limit_ms: 0,
    attempts: 1,
    need: Need::BestEffort,
    undo: None,
};

/// A step's row in the table of a run. For a step that this kind of run does not have, a row that no actor makes.
#[must_use]
pub fn rule(kind: RunKind, step: StepId) -> &'static StepRule {
    table(kind).iter().find(|row| row.step == step).unwrap_or(&FOREIGN)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_step_has_its_row_and_waits_only_for_earlier_ones() {
        for kind in RunKind::ALL {
            let steps: Vec<StepId> = table(kind).iter().map(|row| row.step).collect();
            assert_eq!(steps, kind.steps(), "{kind}");
            for row in table(kind) {
                let waits_for_earlier =
                    row.after.iter().all(|earlier| earlier < &row.step && steps.contains(earlier));
                assert!(waits_for_earlier, "{kind}: {} waits for a later step", row.step);
                assert!(row.attempts > 0);
                assert!(row.maker == Maker::Journal || row.limit_ms > 0, "{} may wait for ever", row.step);
            }
        }
    }

    #[test]
    fn completion_waits_for_every_step_directly_or_not() {
        fn waits_for(kind: RunKind, step: StepId, seen: &mut BTreeSet<StepId>) {
            for earlier in rule(kind, step).after {
                if seen.insert(*earlier) {
                    waits_for(kind, *earlier, seen);
                }
            }
        }
        for kind in RunKind::ALL {
            let mut seen = [StepId::RecordCompletion].into();
            waits_for(kind, StepId::RecordCompletion, &mut seen);
            assert_eq!(seen.len(), table(kind).len(), "{kind}");
        }
    }

    #[test]
    fn nothing_is_taken_back_after_the_point_of_no_return() {
        for kind in RunKind::ALL {
            let late = |row: &&StepRule| row.undo.is_some() && row.step > kind.point_of_no_return();
            assert_eq!(table(kind).iter().find(late).map(|row| row.step), None, "{kind}");
        }
    }
}
