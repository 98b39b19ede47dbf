//! Facts about rejoins: a node that comes back as a secondary, and what becomes of what only it has.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{handover::Demotion, run::Request, step::StepId};
use crate::{Epoch, Lsn, NodeId};

/// Payload of `rejoin_started`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejoinStarted {
    /// Who is main.
    pub main: NodeId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Whether the data directory is to be copied anew even where it could be rewound.
    pub copy: bool,
    /// What the person said who asked for it; nothing where it began by itself.
    pub request: Option<Request>,
}

/// What a node holds and main lacks, by the node's own log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stranded {
    /// The last place that both share.
    pub switchpoint: Lsn,
    /// Where the node's log ends.
    pub end: Lsn,
    /// Bytes of log in between.
    pub bytes: u64,
    /// Transactions that committed there.
    pub committed: u64,
    /// Rows that they inserted, updated or deleted in tables of users.
    pub rows: u64,
    /// When the first of them committed, by the node's clock.
    pub first_commit: Option<DateTime<Utc>>,
    /// When the last one did.
    pub last_commit: Option<DateTime<Utc>>,
}

/// Payload of `rejoin_completed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejoinCompleted {
    /// Who is main.
    pub main: NodeId,
    /// Its epoch.
    pub epoch: Epoch,
    /// How the data directory came to follow it.
    pub by: Demotion,
    /// What only this node had, where it had parted from main.
    pub stranded: Option<Stranded>,
    /// The folder in which that is kept.
    pub kept: Option<String>,
    /// Steps that the run could do without and had to.
    pub degraded: Vec<StepId>,
}
