//! The steps of runs: their names, and the steps of every kind of run in order.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::health::shown_in_words;

/// A step of a run. Its effect, limits and rules are in the step tables of the `actors` crate.
///
/// Every kind of run takes its steps in the order of this declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepId {
    /// Record the run and its evidence.
    RecordStart,
    /// Check that the target could take over now without loss, before anything is stopped.
    CheckHandover,
    /// Main writes a checkpoint, so that its shutdown checkpoint is short.
    WriteCheckpoint,
    /// Open transactions may finish until a deadline. Clients are served meanwhile.
    Drain,
    /// Main's PostgreSQL stops in good order. From then on no write is acknowledged.
    StopMain,
    /// Prove that the target has all of the stopped main's WAL, to the byte.
    ProveHandover,
    /// Ask the target to take over. The point of no return of a switchover.
    HandOver,
    /// Get the right to be main of the next epoch.
    WinEpoch,
    /// Measure how much of what main acknowledged this node lacks.
    MeasureLoss,
    /// Fence the old main, if it answers.
    FenceOldMain,
    /// Stop receiving from the old main, and replay all that was received.
    Detach,
    /// Reset settings that were inherited from the old main and would hinder a new main.
    SanitiseSettings,
    /// Promote PostgreSQL. The point of no return of a failover.
    Promote,
    /// Make Redis a master, also after a restart.
    PromoteRedis,
    /// Record the new epoch in `cluster_events`, `cluster_config` and `cluster_nodes`.
    OpenEpoch,
    /// Compare this node's data directory with main's WAL: has it diverged?
    CheckLineage,
    /// Main keeps the WAL that this node will need, with a replication slot.
    ReserveSlot,
    /// Report what only this node has, by its own WAL.
    ReportFork,
    /// Keep what only this node has.
    KeepDiverged,
    /// Bring the data directory to main's WAL: rewind it, or copy main's. The point of no return of a rejoin.
    Rebuild,
    /// Start PostgreSQL as a standby; main confirms that it streams to this node.
    BecomeStandby,
    /// This node's Redis hands its role to the target's Redis, with all its data.
    HandOverRedis,
    /// Make Redis a replica of main's Redis.
    FollowRedis,
    /// Restart RADIUS and other dependents until each is ready.
    RestartDependents,
    /// Inform every peer.
    NotifyPeers,
    /// Prepare replication slots and a checkpoint for the nodes that come back.
    PrepareRejoin,
    /// Run the operator's hooks.
    RunHooks,
    /// Record the end of the run and its times.
    RecordCompletion,
}

impl StepId {
    /// Every step of every run.
    pub const ALL: [Self; 28] = [
        Self::RecordStart,
        Self::CheckHandover,
        Self::WriteCheckpoint,
        Self::Drain,
        Self::StopMain,
        Self::ProveHandover,
        Self::HandOver,
        Self::WinEpoch,
        Self::MeasureLoss,
        Self::FenceOldMain,
        Self::Detach,
        Self::SanitiseSettings,
        Self::Promote,
        Self::PromoteRedis,
        Self::OpenEpoch,
        Self::CheckLineage,
        Self::ReserveSlot,
        Self::ReportFork,
        Self::KeepDiverged,
        Self::Rebuild,
        Self::BecomeStandby,
        Self::HandOverRedis,
        Self::FollowRedis,
        Self::RestartDependents,
        Self::NotifyPeers,
        Self::PrepareRejoin,
        Self::RunHooks,
        Self::RecordCompletion,
    ];

    /// Its name in snake_case, as stored.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RecordStart => "record_start",
            Self::CheckHandover => "check_handover",
            Self::WriteCheckpoint => "write_checkpoint",
            Self::Drain => "drain",
            Self::StopMain => "stop_main",
            Self::ProveHandover => "prove_handover",
            Self::HandOver => "hand_over",
            Self::WinEpoch => "win_epoch",
            Self::MeasureLoss => "measure_loss",
            Self::FenceOldMain => "fence_old_main",
            Self::Detach => "detach",
            Self::SanitiseSettings => "sanitise_settings",
            Self::Promote => "promote",
            Self::PromoteRedis => "promote_redis",
            Self::OpenEpoch => "open_epoch",
            Self::CheckLineage => "check_lineage",
            Self::ReserveSlot => "reserve_slot",
            Self::ReportFork => "report_fork",
            Self::KeepDiverged => "keep_diverged",
            Self::Rebuild => "rebuild",
            Self::BecomeStandby => "become_standby",
            Self::HandOverRedis => "hand_over_redis",
            Self::FollowRedis => "follow_redis",
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

/// The kind of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunKind {
    /// Main is lost, and a secondary takes over by itself.
    Failover,
    /// A secondary takes over because a person asked for it.
    Promotion,
    /// Main hands its role to a target, without loss.
    Switchover,
    /// The target's part of a switchover: it takes the role.
    Takeover,
    /// A node comes back as a secondary.
    Rejoin,
}

shown_in_words!(RunKind {
    Failover => "failover", Promotion => "promotion", Switchover => "switchover", Takeover => "takeover",
    Rejoin => "rejoin",
});

/// The steps by which a node becomes main: those of the runbook, corrected.
const TO_MAIN: &[StepId] = &[
    StepId::RecordStart,
    StepId::WinEpoch,
    StepId::MeasureLoss,
    StepId::FenceOldMain,
    StepId::Detach,
    StepId::SanitiseSettings,
    StepId::Promote,
    StepId::PromoteRedis,
    StepId::OpenEpoch,
    StepId::RestartDependents,
    StepId::NotifyPeers,
    StepId::PrepareRejoin,
    StepId::RunHooks,
    StepId::RecordCompletion,
];

/// The steps by which main hands its role over and follows.
const TO_SUCCESSOR: &[StepId] = &[
    StepId::RecordStart,
    StepId::CheckHandover,
    StepId::WriteCheckpoint,
    StepId::Drain,
    StepId::StopMain,
    StepId::ProveHandover,
    StepId::HandOver,
    StepId::BecomeStandby,
    StepId::HandOverRedis,
    StepId::RestartDependents,
    StepId::RecordCompletion,
];

/// The steps by which a node comes back as a secondary.
const TO_SECONDARY: &[StepId] = &[
    StepId::RecordStart,
    StepId::CheckLineage,
    StepId::ReserveSlot,
    StepId::ReportFork,
    StepId::KeepDiverged,
    StepId::Rebuild,
    StepId::BecomeStandby,
    StepId::FollowRedis,
    StepId::RestartDependents,
    StepId::RecordCompletion,
];

impl RunKind {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Failover, Self::Promotion, Self::Switchover, Self::Takeover, Self::Rejoin];

    /// Its steps, in order.
    #[must_use]
    pub fn steps(self) -> &'static [StepId] {
        match self {
            Self::Failover | Self::Promotion | Self::Takeover => TO_MAIN,
            Self::Switchover => TO_SUCCESSOR,
            Self::Rejoin => TO_SECONDARY,
        }
    }

    /// The step after which a run only goes forward.
    #[must_use]
    pub fn point_of_no_return(self) -> StepId {
        match self {
            Self::Failover | Self::Promotion | Self::Takeover => StepId::Promote,
            Self::Switchover => StepId::HandOver,
            Self::Rejoin => StepId::Rebuild,
        }
    }

    /// The run as a text, with the names of the old main (or the node that comes back) and the new main.
    #[must_use]
    pub fn of_nodes(self, old_main: &str, new_main: &str) -> String {
        match self {
            Self::Rejoin => format!("{self} of {old_main} behind {new_main}"),
            _ => format!("{self} from {old_main} to {new_main}"),
        }
    }

    /// The number of a step in this kind of run, from 1; 0 if it has no such step.
    #[must_use]
    pub fn number(self, step: StepId) -> usize {
        self.steps().iter().position(|own| *own == step).map_or(0, |index| index + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_stored_by_name_and_every_run_takes_its_own_in_their_order() {
        for step in StepId::ALL {
            assert_eq!(serde_json::to_value(step).unwrap(), step.name());
        }
        for kind in RunKind::ALL {
            assert!(kind.steps().is_sorted(), "{kind}");
            assert!(kind.steps().contains(&kind.point_of_no_return()), "{kind}");
        }
        assert_eq!(RunKind::Failover.number(StepId::Promote), 7, "as on the runbook's page");
    }
}
