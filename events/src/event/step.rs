//! The steps of runs: their names, and which run takes which, in which order.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::health::shown_in_words;

/// A step of a run. What it does, its limits and its rules are in the step tables of the `actors` crate.
///
/// They are declared such that every run takes its own in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepId {
    /// The run and its evidence are written down.
    RecordStart,
    /// Whether the target could take over now, without loss: in good time before anything is stopped.
    CheckHandover,
    /// Main writes a checkpoint, so that the one at its stop is short.
    WriteCheckpoint,
    /// Transactions that are open may finish, until a deadline; clients are served meanwhile.
    Drain,
    /// Main's PostgreSQL stops in good order: from here on nothing is acknowledged.
    StopMain,
    /// The target has all of the stopped main's log, to the byte.
    ProveHandover,
    /// The target is asked to take over. The point of no return of a switchover.
    HandOver,
    /// The right to be main of the next epoch.
    WinEpoch,
    /// How much of what main acknowledged is not here.
    MeasureLoss,
    /// The old main stops acknowledging writes, if it answers at all.
    FenceOldMain,
    /// Receive nothing more from the old main, replay all that was received.
    Detach,
    /// Settings inherited from the old main that would hinder a new one.
    SanitiseSettings,
    /// PostgreSQL becomes a primary. The point of no return of a failover.
    Promote,
    /// Redis becomes a master, durably.
    PromoteRedis,
    /// `cluster_events`, `cluster_config` and `cluster_nodes` say so.
    OpenEpoch,
    /// What this node's data are to main: a part of its line, or another one.
    CheckLineage,
    /// Main keeps the log that this node will need.
    ReserveSlot,
    /// What only this node has, by its own log.
    ReportFork,
    /// That is kept.
    KeepDiverged,
    /// The data directory is brought to main's line: rewound, or copied anew. The point of no return of a rejoin.
    Rebuild,
    /// PostgreSQL here receives main's log, as main sees it.
    BecomeStandby,
    /// Redis here hands its role to the target's, with all its data.
    HandOverRedis,
    /// Redis here is a replica of main's.
    FollowRedis,
    /// RADIUS and other dependents restart and prove ready.
    RestartDependents,
    /// Every peer is told.
    NotifyPeers,
    /// The nodes to come back find their replication slots and a checkpoint.
    PrepareRejoin,
    /// The operator's hooks.
    RunHooks,
    /// The run's end and its times are written down.
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

/// What a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunKind {
    /// Main was lost, and a secondary takes its place by itself.
    Failover,
    /// The same, because a person asked for it.
    Promotion,
    /// Main hands its role over, and loses nothing.
    Switchover,
    /// The other half of a switchover: the target takes the role.
    Takeover,
    /// A node comes back as a secondary.
    Rejoin,
}

shown_in_words!(RunKind {
    Failover => "failover", Promotion => "promotion", Switchover => "switchover", Takeover => "takeover",
    Rejoin => "rejoin",
});

/// The steps by which a node becomes main: the runbook's page, corrected.
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

    /// The step after which it only goes forward.
    #[must_use]
    pub fn point_of_no_return(self) -> StepId {
        match self {
            Self::Failover | Self::Promotion | Self::Takeover => StepId::Promote,
            Self::Switchover => StepId::HandOver,
            Self::Rejoin => StepId::Rebuild,
        }
    }

    /// It, with the names of who was main, or comes back, and of who shall be, or is.
    #[must_use]
    pub fn of_nodes(self, old_main: &str, new_main: &str) -> String {
        match self {
            Self::Rejoin => format!("{self} of {old_main} behind {new_main}"),
            _ => format!("{self} from {old_main} to {new_main}"),
        }
    }

    /// The number of a step in it, from 1; 0 if it has no such step.
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
