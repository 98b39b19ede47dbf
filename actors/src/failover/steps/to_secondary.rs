//! How a node comes back as a secondary: a rejoin. What only this node has is kept.

use interrex_events::StepId;

use super::{
    Maker::{Journal, Notifier, Replication},
    Need::{BestEffort, Required},
    StepRule,
};

/// How long copying may take: a large directory over a slow network takes hours.
const COPY_LIMIT_MS: u64 = 86_400_000;

/// The steps.
pub(super) const TO_SECONDARY: [StepRule; 10] = [
    StepRule {
        step: StepId::RecordStart,
        maker: Journal,
        after: &[],
        effect: "append rejoin_started",
        success: "the journal confirms the append: the event is on disk",
        limit_ms: 0,
        attempts: 1,
        need: Required,
        undo: None,
    },
    StepRule {
        step: StepId::CheckLineage,
        maker: Replication,
        after: &[StepId::RecordStart],
        effect: "stop PostgreSQL on this node if it runs, and compare its lineage (system identifier, timelines, switchpoints) \
                 with main's; meanwhile, log in to main as a standby does",
        success: "the lineage is a part of main's, or the place at which the two diverged is known; any other result needs --copy. \
                  Main has a slot for this node, or room for one, and accepts this node's login for replication",
        limit_ms: 120_000,
        attempts: 2,
        need: Required,
        undo: Some("start PostgreSQL again if it was a standby; on a fenced node it stays stopped"),
    },
    StepRule {
        step: StepId::ReserveSlot,
        maker: Replication,
        after: &[StepId::CheckLineage],
        effect: "make a replication slot for this node on main, and a CHECKPOINT there if main's control file, which a rewind \
                 reads, does not name main's timeline yet",
        success: "main keeps the WAL from now on, and its control file names its timeline",
        limit_ms: 600_000,
        attempts: 3,
        need: Required,
        undo: None,
    },
    StepRule {
        step: StepId::ReportFork,
        maker: Replication,
        after: &[StepId::CheckLineage],
        effect: "read from the WAL what was committed on this node after the two diverged, and ask main for the names of its \
                 tables",
        success: "transactions, times and the rows of each table are counted; a table that main does not name is shown by its file",
        limit_ms: 600_000,
        attempts: 1,
        need: BestEffort,
        undo: None,
    },
    StepRule {
        step: StepId::KeepDiverged,
        maker: Replication,
        // at the same time as a CHECKPOINT on main, which may take minutes, and the report's questions to main
        after: &[StepId::CheckLineage],
        effect: "copy the directory aside if it is to be rewound and its WAL has what main does not have",
        success: "the copy is complete and on disk, with its manifest",
        limit_ms: COPY_LIMIT_MS,
        attempts: 1,
        need: Required,
        undo: None,
    },
    StepRule {
        step: StepId::Rebuild,
        maker: Replication,
        after: &[StepId::ReserveSlot, StepId::ReportFork, StepId::KeepDiverged],
        effect: "pg_rewind if it can be used, else pg_basebackup into a new directory, which then takes the place of the old one; \
                 the old one is kept",
        success: "the directory has main's lineage, and can only start as a standby",
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
        success: "main reports that it streams to this node, on main's timeline",
        limit_ms: 600_000,
        attempts: 2,
        need: Required,
        undo: None,
    },
    StepRule {
        step: StepId::FollowRedis,
        maker: Replication,
        after: &[StepId::BecomeStandby],
        effect: "start Redis, REPLICAOF main's Redis",
        success: "the link to main's Redis is up, and the copy is complete",
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
        success: "the readiness check of each dependent passes",
        limit_ms: 120_000,
        attempts: 2,
        need: BestEffort,
        undo: None,
    },
    StepRule {
        step: StepId::RecordCompletion,
        maker: Journal,
        after: &[StepId::RestartDependents],
        effect: "append rejoin_completed with what only this node had, and where that is kept",
        success: "the journal confirms the append: the event is on disk",
        limit_ms: 0,
        attempts: 1,
        need: Required,
        undo: None,
    },
];
