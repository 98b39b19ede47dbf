//! Facts about switchovers: a main that gives its role away, and what proves that nothing was lost.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{health::shown_in_words, run::Request, step::StepId};
use crate::{ChainHash, Epoch, Head, Lsn, NodeId, NodeSeq, RunId, TimelineId};

/// Payload of `switchover_started`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchoverStarted {
    /// Who is main.
    pub old_main: NodeId,
    /// Who shall be.
    pub new_main: NodeId,
    /// The epoch that the target will open.
    pub epoch: Epoch,
    /// How long open transactions may take to finish, in milliseconds.
    pub drain_ms: u64,
    /// What the person said.
    pub request: Request,
}

/// Payload of `switchover_scheduled`: main begins it by itself when it is due, also after a restart. A node has one at a
/// time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchoverScheduled {
    /// Who shall be main.
    pub target: NodeId,
    /// When it is due, by main's wall clock.
    pub due: DateTime<Utc>,
    /// How long open transactions may take to finish, in milliseconds.
    pub drain_ms: u64,
    /// What the person said.
    pub request: Request,
}

/// Why a switchover is scheduled no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unscheduling {
    /// It was due, and began.
    Begun,
    /// Somebody cancelled it.
    Cancelled,
    /// It was due, and something spoke against its begin.
    Refused,
    /// It was due while this node could not begin it, and is not begun late at a time that nobody expects.
    Missed,
}

shown_in_words!(Unscheduling {
    Begun => "begun", Cancelled => "cancelled", Refused => "refused", Missed => "missed"
});

/// Payload of `switchover_unscheduled`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchoverUnscheduled {
    /// Who should have been main.
    pub target: NodeId,
    /// When it was due.
    pub due: DateTime<Utc>,
    /// Why it is scheduled no more.
    pub because: Unscheduling,
    /// In a sentence.
    pub detail: String,
}

/// What a main that stopped in good order proved, before it offered its role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// The switchover.
    pub run: RunId,
    /// PostgreSQL's system identifier, as text: it is longer than a double is exact.
    pub system_id: String,
    /// The timeline that ended.
    pub timeline: TimelineId,
    /// Where the record of the shutdown checkpoint begins: the last thing in main's log.
    pub checkpoint: Lsn,
    /// Where it ends: all that main ever acknowledged lies before.
    pub end: Lsn,
}

/// Payload of `handover_accepted`: main may stop for its switchover to this node. Nothing follows from it here: until main's offer is
/// heard, main decides alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoverAccepted {
    /// Main.
    pub from: NodeId,
    /// The epoch that this node shall open.
    pub epoch: Epoch,
    /// The switchover.
    pub run: RunId,
}

/// Payload of `handover_offered`: recorded before the target is asked. From here on this node's PostgreSQL does not
/// start as a primary, unless the offer is withdrawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoverOffered {
    /// To whom.
    pub to: NodeId,
    /// The epoch that it shall open.
    pub epoch: Epoch,
    /// What was proved.
    pub handover: Handover,
}

/// Payload of `handover_withdrawn`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoverWithdrawn {
    /// Who was asked to take over.
    pub to: NodeId,
    /// Why the role stays here.
    pub reason: String,
}

/// How a data directory became one that can only follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Demotion {
    /// It holds nothing that the new main lacks.
    Unchanged,
    /// What the new main lacks was rewound.
    Rewound,
    /// It was copied anew from the new main.
    Copied,
}

shown_in_words!(Demotion { Unchanged => "unchanged", Rewound => "rewound", Copied => "copied anew" });

/// Payload of `node_demoted`: recorded when the data directory cannot start as a primary any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDemoted {
    /// Who is main.
    pub main: NodeId,
    /// Its epoch.
    pub epoch: Epoch,
    /// How the directory came to that.
    pub by: Demotion,
}

/// The newest event of a journal, at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// Whose journal.
    pub node: NodeId,
    /// Its place there.
    pub node_seq: NodeSeq,
    /// Its hash, which covers all that came before.
    pub hash: ChainHash,
}

impl From<Head> for Anchor {
    fn from(head: Head) -> Self {
        Self { node: head.node_id, node_seq: head.node_seq, hash: head.hash }
    }
}

/// What proves that a switchover lost nothing. Everything in it can be checked again with PostgreSQL's own tools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// PostgreSQL's system identifier, the same on both nodes.
    pub system_id: String,
    /// The timeline that ended.
    pub old_timeline: TimelineId,
    /// The one that began.
    pub new_timeline: TimelineId,
    /// Where the record of the old main's shutdown checkpoint begins, as its control file says.
    pub checkpoint: Lsn,
    /// Where that record ends.
    pub end: Lsn,
    /// What the target had received when it was asked.
    pub received: Lsn,
    /// Where the new timeline left the old one, as the new main's history file says.
    pub switchpoint: Lsn,
    /// The newest event of the old main's journal when it offered its role.
    pub old_main_head: Anchor,
    /// The newest event of the new main's journal when it had taken it.
    pub new_main_head: Anchor,
}

/// Payload of `switchover_completed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchoverCompleted {
    /// The new main.
    pub main: NodeId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Steps that the run could do without and had to.
    pub degraded: Vec<StepId>,
    /// From the request to stop until the new main proved a write, in milliseconds.
    pub without_writes_ms: u64,
    /// The proof.
    pub certificate: Option<Certificate>,
    /// The folder in which what Redis had is kept, where it did not change places in good order; left out where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_redis: Option<String>,
}
