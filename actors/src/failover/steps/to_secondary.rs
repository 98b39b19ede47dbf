//! How a node comes back as a secondary: a rejoin. Nothing that only it has is lost on the way.

use interrex_events::StepId;

use super::{
    Maker::{Journal, Notifier, Replication},
    Need::{BestEffort, Required},
    StepRule,
};

/// How long copying may take: a large directory over a slow line takes hours.
const COPY_LIMIT_MS: u64 = 86_400_000;

/// The steps.
pub(super) const TO_SECONDARY: [StepRule; 10] = [
    StepRule {
        step: StepId::RecordStart,
        maker: Journal,
        after: &[],
        effect: "append rejoin_started",
        success: "the append is answered: the event is on disk",
        limit_ms: 0,
        attempts: 1,
        need: Required,
        undo: None,
    },
    StepRule {
        step: StepId::CheckLineage,
        maker: Replication,
        after: &[StepId::RecordStart],
        effect: "stop PostgreSQL here if it runs, and compare its line (system identifier, timelines, switchpoints) with main's; \
                 meanwhile, log in to main as a standby will",
        success: "it is a part of main's line, or where the two part is known; anything else only with --copy. Main has a slot for it, or \
                  room for one, and lets this node log in for replication",
        limit_ms: 120_000,
        attempts: 2,
        need: Required,
        undo: Some("start PostgreSQL again where it was a standby, and not that of a fenced node"),
    },
    StepRule {
        step: StepId::ReserveSlot,
        maker: Replication,
        after: &[StepId::CheckLineage],
        effect: "a replication slot for this node on main, and a CHECKPOINT there where its control file, which a rewind reads, does \
                 not name its timeline yet",
        success: "main keeps the log from here on, and its control file names its timeline",
        limit_ms: 600_000,
        attempts: 3,
        need: Required,
        undo: None,
    },
    StepRule {
        step: StepId::ReportFork,
        maker: Replication,
        after: &[StepId::CheckLineage],
        effect: "read what was committed here after the two parted, from the log, and ask main which tables that is",
        success: "transactions, times and the rows of each table are counted, by file where main gives no name",
        limit_ms: 600_000,
        attempts: 1,
        need: BestEffort,
        undo: None,
    },
    StepRule {
        step: StepId::KeepDiverged,
        maker: Replication,
        // beside a CHECKPOINT on main, which may take minutes, and the report's questions to main
        after: &[StepId::CheckLineage],
        effect: "copy the directory aside where it is to be rewound and its log holds what main lacks",
        success: "the copy is whole and on disk, with its manifest",
        limit_ms: COPY_LIMIT_MS,
        attempts: 1,
        need: Required,
        undo: None,
    },
    StepRule {
        step: StepId::Rebuild,
        maker: Replication,
        after: &[StepId::ReserveSlot, StepId::ReportFork, StepId::KeepDiverged],
        effect: "pg_rewind where it can, else pg_basebackup into a new directory that then takes the place of the old one, \
                 which is kept",
        success: "the directory is on main's line, and can only start as a standby",
        limit_ms: COPY_LIMIT_MS,
        attempts: 3,
        need: Required,
        undo: None,
    },
    StepRule {
        step: StepId::BecomeStandby,
        maker: Replication,
        after: &[StepId::Rebuild],
        effect: "make the data directory a standby of main, and start it",
        success: "main says that it streams to it, on main's timeline",
        limit_ms: 600_000,
        attempts: 2,
        need: Required,
        undo: None,
    },
    StepRule {
        step: StepId::FollowRedis,
        maker: Replication,
        after: &[StepId::BecomeStandby],
        effect: "start Redis, REPLICAOF main's",
        success: "its link is up and the copy is complete",
        limit_ms: 3_600_000,
        attempts: 1,
        need: BestEffort,
        undo: None,
    },
    StepRule {
        step: StepId::RestartDependents,
        maker: Notifier,
        after: &[StepId::FollowRedis],
        effect: "restart RADIUS and every other dependent",
        success: "each one's readiness check passes",
        limit_ms: 120_000,
        attempts: 2,
        need: BestEffort,
        undo: None,
    },
    StepRule {
        step: StepId::RecordCompletion,
        maker: Journal,
        after: &[StepId::RestartDependents],
        effect: "append rejoin_completed with what only this node had, and where it is kept",
        success: "the append is answered: the event is on disk",
        limit_ms: 0,
        attempts: 1,
        need: Required,
        undo: None,
    },
];
