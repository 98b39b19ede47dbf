//! The failover as a table of data: from it come the executor, the resume, the tests and the documentation.
//!
//! Order and content: the runbook's page with the corrections of design section 3.4. Steps 1 and 14 are
//! events themselves (`failover_started`, `failover_completed`, `failover_refused`, `failover_failed`);
//! all others are recorded as intent (`step_started`) and outcome (`step_finished`).

use std::time::Duration;

use interrex_events::StepId;

/// Who makes a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    /// It is an event and needs no maker.
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
    /// It cannot.
    Required,
    /// It can, and is then `completed_degraded`.
    BestEffort,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct StepRule {
    /// Which step.
    pub step: StepId,
    /// Who makes it.
    pub maker: Maker,
    /// The steps that must have ended before it begins.
    pub after: &'static [StepId],
    /// What it does.
    pub effect: &'static str,
    /// What proves that it is done.
    pub success: &'static str,
    /// When one attempt is given up, in milliseconds.
    pub limit_ms: u64,
    /// Attempts before it counts as failed.
    pub attempts: u32,
    /// Whether the run can complete without it.
    pub need: Need,
    /// Whether it can be taken back before the point of no return.
    pub undo: bool,
}

impl StepRule {
    /// When one attempt is given up.
    #[must_use]
    pub fn limit(&self) -> Duration {
        Duration::from_millis(self.limit_ms)
    }
}

/// Pause before a repeated attempt.
pub const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// The step after which a run only goes forward.
pub const POINT_OF_NO_RETURN: StepId = StepId::Promote;

use Maker::{Heartbeat, Journal, Notifier, Replication};
use Need::{BestEffort, Required};

/// The failover.
pub const FAILOVER: [StepRule; 14] = [
    StepRule {
        step: StepId::RecordStart,
        maker: Journal,
        after: &[],
        effect: "append failover_started with the evidence",
        success: "the append is answered: the event is on disk",
        limit_ms: 0,
        attempts: 1,
        need: Required,
        undo: false,
    },
    StepRule {
        step: StepId::WinEpoch,
        maker: Heartbeat,
        after: &[StepId::RecordStart],
        effect: "ask the quorum for the next epoch; with quorum `none` nobody is asked",
        success: "the lease is granted, or there is nobody to grant it",
        limit_ms: 5_000,
        attempts: 3,
        need: Required,
        undo: false,
    },
    StepRule {
        step: StepId::MeasureLoss,
        maker: Replication,
        after: &[StepId::WinEpoch],
        effect: "compare the end of the local log with main's last reported one; policy may refuse",
        success: "both positions are known, or main never reported one",
        limit_ms: 5_000,
        attempts: 2,
        need: Required,
        undo: false,
    },
    StepRule {
        step: StepId::FenceOldMain,
        maker: Notifier,
        after: &[StepId::MeasureLoss],
        effect: "ask the old main's supervisor to stop its servers",
        success: "it answers that its servers are stopped. No answer at all does not hold up the run; an answer that they \
                  are not stopped ends it",
        limit_ms: 10_000,
        attempts: 2,
        need: Required,
        undo: false,
    },
    StepRule {
        step: StepId::Detach,
        maker: Replication,
        after: &[StepId::FenceOldMain],
        effect: "clear primary_conninfo, wait until nothing is received and all that was received is replayed",
        success: "the log receiver is gone, and replay has reached the end of what was received",
        limit_ms: 60_000,
        attempts: 2,
        need: Required,
        undo: true,
    },
    StepRule {
        step: StepId::SanitiseSettings,
        maker: Replication,
        after: &[StepId::Detach],
        effect: "clear synchronous_standby_names and default_transaction_read_only where they were inherited",
        success: "the server reports the cleared values",
        limit_ms: 5_000,
        attempts: 2,
        need: Required,
        undo: false,
    },
    StepRule {
        step: StepId::Promote,
        maker: Replication,
        after: &[StepId::SanitiseSettings],
        effect: "pg_promote(), asked again every 50 ms until recovery has ended",
        success: "a new timeline, its history file, and a committed write",
        limit_ms: 60_000,
        // a server that restarts on the way fails at once, again and again: together a minute of that
        attempts: 240,
        need: Required,
        undo: false,
    },
    StepRule {
        step: StepId::PromoteRedis,
        maker: Replication,
        after: &[StepId::Promote],
        effect: "REPLICAOF NO ONE, CLIENT KILL TYPE normal, CONFIG REWRITE",
        success: "ROLE says master, and the configuration file names no other master",
        limit_ms: 5_000,
        attempts: 3,
        need: BestEffort,
        undo: false,
    },
    StepRule {
        step: StepId::OpenEpoch,
        maker: Replication,
        after: &[StepId::Promote],
        effect: "relay every journal into cluster_events, and with it cluster_nodes and cluster_config",
        success: "the transaction is committed at a position of the new epoch",
        limit_ms: 30_000,
        attempts: 5,
        need: BestEffort,
        undo: false,
    },
    StepRule {
        step: StepId::RestartDependents,
        maker: Notifier,
        after: &[StepId::Promote],
        effect: "restart RADIUS and every other dependent",
        success: "each one's readiness check passes",
        limit_ms: 120_000,
        attempts: 2,
        need: BestEffort,
        undo: false,
    },
    StepRule {
        step: StepId::NotifyPeers,
        maker: Notifier,
        after: &[StepId::PromoteRedis],
        effect: "POST /api/cluster/notify to every peer, with the epoch",
        success: "every peer that answers has accepted it; the others learn it from the next heartbeat",
        limit_ms: 5_000,
        attempts: 1,
        need: BestEffort,
        undo: false,
    },
    StepRule {
        step: StepId::PrepareRejoin,
        maker: Replication,
        after: &[StepId::Promote],
        effect: "a replication slot for every peer, and a CHECKPOINT so that pg_rewind sees the new timeline",
        success: "the slots are there, and the control file names the new timeline",
        limit_ms: 120_000,
        attempts: 2,
        need: BestEffort,
        undo: false,
    },
    StepRule {
        step: StepId::RunHooks,
        maker: Notifier,
        after: &[StepId::PromoteRedis, StepId::OpenEpoch, StepId::RestartDependents],
        effect: "run the operator's hooks, such as DNS or a virtual address",
        success: "each one exits with 0",
        limit_ms: 120_000,
        attempts: 1,
        need: BestEffort,
        undo: false,
    },
    StepRule {
        step: StepId::RecordCompletion,
        maker: Journal,
        after: &[StepId::NotifyPeers, StepId::PrepareRejoin, StepId::RunHooks],
        effect: "append failover_completed with the times and the loss",
        success: "the append is answered: the event is on disk",
        limit_ms: 0,
        attempts: 1,
        need: Required,
        undo: false,
    },
];

/// A step's row. Every [`StepId`] has one; a test proves it.
#[must_use]
pub fn rule(step: StepId) -> &'static StepRule {
    &FAILOVER[step as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_its_row_and_waits_only_for_earlier_ones() {
        for (index, row) in FAILOVER.iter().enumerate() {
            assert_eq!(row.step, StepId::ALL[index]);
            assert_eq!(rule(row.step).step, row.step);
            assert!(
                row.after.iter().all(|earlier| earlier < &row.step),
                "{} waits for a later step",
                row.step
            );
            assert!(row.attempts > 0);
            assert!(row.maker == Journal || row.limit_ms > 0, "{} may wait for ever", row.step);
        }
    }

    #[test]
    fn completion_waits_for_every_step_directly_or_not() {
        fn waits_for(step: StepId, seen: &mut std::collections::BTreeSet<StepId>) {
            for earlier in rule(step).after {
                if seen.insert(*earlier) {
                    waits_for(*earlier, seen);
                }
            }
        }
        let mut seen = [StepId::RecordCompletion].into();
        waits_for(StepId::RecordCompletion, &mut seen);
        assert_eq!(seen.len(), FAILOVER.len());
    }

    #[test]
    fn nothing_is_taken_back_after_the_point_of_no_return() {
        assert!(FAILOVER.iter().all(|row| !row.undo || row.step < POINT_OF_NO_RETURN));
    }
}
