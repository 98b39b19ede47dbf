//! Facts about switchovers: main hands its role to a target, and proves that nothing was lost.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{health::shown_in_words, run::Request, step::StepId};
use crate::{ChainHash, Epoch, Head, Lsn, NodeId, NodeSeq, RunId, TimelineId};

/// Payload of `switchover_started`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchoverStarted {
    /// The main that hands its role over.
    pub old_main: NodeId,
    /// The target.
    pub new_main: NodeId,
    /// The epoch that the target opens.
    pub epoch: Epoch,
    /// How long open transactions may take to finish, in milliseconds.
    pub drain_ms: u64,
    /// What the person asked for.
    pub request: Request,
}

/// Payload of `switchover_scheduled`: main begins the switchover by itself when it is due, also after a restart. A node
/// has at most one schedule at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchoverScheduled {
    /// The target.
    pub target: NodeId,
    /// When it is due, by main's wall clock.
    pub due: DateTime<Utc>,
    /// How long open transactions may take to finish, in milliseconds.
    pub drain_ms: u64,
    /// What the person asked for.
    pub request: Request,
}

/// Why a switchover is no longer scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unscheduling {
    /// It was due, and began.
    Begun,
    /// A person cancelled it.
    Cancelled,
    /// It was due, and was refused.
    Refused,
    /// It was due while this node could not begin it. It is not begun late, at a time that no operator expects.
    Missed,
}

shown_in_words!(Unscheduling {
    Begun => "begun", Cancelled => "cancelled", Refused => "refused", Missed => "missed"
});

/// Payload of `switchover_unscheduled`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchoverUnscheduled {
    /// The target.
    pub target: NodeId,
    /// When it was due.
    pub due: DateTime<Utc>,
    /// Why it is no longer scheduled.
    pub because: Unscheduling,
    /// The details, in a sentence.
    pub detail: String,
}

/// What main proved after it had stopped in good order, before it offered its role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// The switchover.
    pub run: RunId,
    /// PostgreSQL's system identifier, as text: a JSON number may lose its last digits.
    pub system_id: String,
    /// The timeline that ended.
    pub timeline: TimelineId,
    /// Where the record of the shutdown checkpoint begins: the last record in main's WAL.
    pub checkpoint: Lsn,
    /// Where that record ends: every write that main ever acknowledged lies before it.
    pub end: Lsn,
}

/// Payload of `handover_accepted`: main may stop for its switchover to this node. It has no effect on this node: until
/// main's offer arrives, main alone decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoverAccepted {
    /// The main.
    pub from: NodeId,
    /// The epoch that this node is to open.
    pub epoch: Epoch,
    /// The switchover.
    pub run: RunId,
}

/// Payload of `handover_offered`: recorded before the target is asked. From then on this node's PostgreSQL does not
/// start as a primary, unless the offer is withdrawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoverOffered {
    /// The target.
    pub to: NodeId,
    /// The epoch that the target is to open.
    pub epoch: Epoch,
    /// What main proved.
    pub handover: Handover,
}

/// Payload of `handover_withdrawn`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoverWithdrawn {
    /// The target.
    pub to: NodeId,
    /// Why the role stays with this node.
    pub reason: String,
}

/// How a data directory was made to follow main only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Demotion {
    /// The directory has no WAL that the new main lacks.
    Unchanged,
    /// The directory was rewound to the new main's WAL.
    Rewound,
    /// The directory was replaced by a copy of the new main's.
    Copied,
}

shown_in_words!(Demotion { Unchanged => "unchanged", Rewound => "rewound", Copied => "copied from main" });

/// Payload of `node_demoted`: recorded when the data directory can no longer start as a primary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDemoted {
    /// The main that hands its role over.
    pub main: NodeId,
    /// Its epoch.
    pub epoch: Epoch,
    /// How that was reached.
    pub by: Demotion,
}

/// The newest event of a journal, at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// The node whose journal it is.
    pub node: NodeId,
    /// The event's number in that journal.
    pub node_seq: NodeSeq,
    /// Its hash, which covers all events before it.
    pub hash: ChainHash,
}

impl From<Head> for Anchor {
    fn from(head: Head) -> Self {
        Self { node: head.node_id, node_seq: head.node_seq, hash: head.hash }
    }
}

/// The proof that a switchover lost nothing. Every value can be checked again with PostgreSQL's own tools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// PostgreSQL's system identifier, the same on both nodes.
    pub system_id: String,
    /// The timeline that ended.
    pub old_timeline: TimelineId,
    /// The timeline that began.
    pub new_timeline: TimelineId,
    /// Where the record of the old main's shutdown checkpoint begins, by its control file.
    pub checkpoint: Lsn,
    /// Where that record ends.
    pub end: Lsn,
    /// The end of the WAL that the target had received when it was asked.
    pub received: Lsn,
    /// Where the new timeline left the old one, by the new main's history file.
    pub switchpoint: Lsn,
    /// The newest event of the old main's journal when it offered its role.
    pub old_main_head: Anchor,
    /// The newest event of the new main's journal when it had taken the role.
    pub new_main_head: Anchor,
}

/// Payload of `switchover_completed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchoverCompleted {
    /// The new main.
    pub main: NodeId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Best-effort steps that failed.
    pub degraded: Vec<StepId>,
    /// The time from the request to stop PostgreSQL until the new main proved a write, in milliseconds.
    pub without_writes_ms: u64,
    /// The proof that nothing was lost.
    pub certificate: Option<Certificate>,
    /// The folder that keeps a copy of the old main's Redis data, if Redis did not change roles in good order; left out if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_redis: Option<String>,
}
