//! Bodies of requests between supervisors and from people, and the envelope of every answer.

use chrono::{DateTime, Utc};
use interrex_events::{Cause, ClusterId, Epoch, Evidence, HandoverAccepted, NodeId, NodeSeq, RunId};
use serde::{Deserialize, Serialize};

use super::{HandoverOffer, NodeReport, Notice};

/// Header that carries the cluster's secret, as in the runbook.
pub const SECRET_HEADER: &str = "x-cluster-secret";

/// The envelope of every answer over HTTP.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApiAnswer<T> {
    /// Whether the request was carried out.
    pub success: bool,
    /// The answer, if it was.
    #[serde(skip_serializing_if = "Option::is_none", default = "none")]
    pub data: Option<T>,
    /// The error, if it was not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<ApiError>,
}

fn none<T>() -> Option<T> {
    None
}

/// An error.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApiError {
    /// A code, for programs.
    pub code: String,
    /// A message, for people.
    pub message: String,
}

/// Body of `POST /api/cluster/fence`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FenceBody {
    /// The cluster for which the request is meant.
    pub cluster_id: ClusterId,
    /// The node that asks.
    pub by: NodeId,
    /// The epoch that it won.
    pub epoch: Epoch,
    /// Its run.
    pub run: RunId,
}

/// Body of `POST /api/cluster/lift-fence`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LiftFenceBody {
    /// The cluster for which the request is meant.
    pub cluster_id: ClusterId,
    /// The node that asks.
    pub by: NodeId,
    /// Its run, which asked for the fence.
    pub run: RunId,
}

/// Body of `POST /api/cluster/accept-handover`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AcceptHandoverBody {
    /// The cluster for which the request is meant.
    pub cluster_id: ClusterId,
    /// The acceptance to record.
    pub asked: HandoverAccepted,
}

/// Body of `POST /api/cluster/take-over`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TakeOverBody {
    /// The cluster for which the request is meant.
    pub cluster_id: ClusterId,
    /// The offer.
    pub offer: HandoverOffer,
}

/// Body of `POST /api/cluster/failover`, as in the runbook, with optional fields.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SwitchoverBody {
    /// The target.
    pub target_node_id: NodeId,
    /// How long open transactions may take to finish, in milliseconds.
    #[serde(default)]
    pub drain_ms: u64,
    /// The reason.
    #[serde(default)]
    pub reason: Option<String>,
    /// The person or program that asks.
    #[serde(default)]
    pub asker: Cause,
}

/// Body of `POST /api/cluster/schedule`: a switchover at a time. It has a path of its own, so that a supervisor that does
/// not know it refuses it, and does not begin at once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ScheduleBody {
    /// When it begins.
    pub due: DateTime<Utc>,
    /// The request.
    #[serde(flatten)]
    pub switchover: SwitchoverBody,
}

/// Body of `POST /api/cluster/plan`: what a run would do. It has a path of its own, so that a supervisor that does not
/// know it refuses it, and begins nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PlanBody {
    /// Main hands its role over.
    Switchover {
        /// The target.
        target_node_id: NodeId,
        /// How long open transactions could take to finish, in milliseconds.
        #[serde(default)]
        drain_ms: u64,
    },
    /// The node that is asked becomes main.
    Promotion {
        /// Whether it would be done although main answers.
        #[serde(default)]
        force: bool,
        /// The reason.
        #[serde(default)]
        reason: Option<String>,
    },
    /// The node that is asked comes back as a secondary.
    Rejoin {
        /// Whether to copy main's data even if this node's data could be rewound.
        #[serde(default)]
        copy: bool,
    },
}

/// Body of `POST /api/cluster/promote-to-main`; it may be left out, as in the runbook.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PromoteBody {
    /// Whether it is to be done although main answers.
    #[serde(default)]
    pub force: bool,
    /// The reason.
    #[serde(default)]
    pub reason: Option<String>,
    /// The person or program that asks.
    #[serde(default)]
    pub asker: Cause,
}

/// Body of `POST /api/cluster/rejoin`; it may be left out.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RejoinBody {
    /// Whether to copy main's data even if the node's own could be rewound.
    #[serde(default)]
    pub copy: bool,
    /// The reason.
    #[serde(default)]
    pub reason: Option<String>,
    /// The person or program that asks.
    #[serde(default)]
    pub asker: Cause,
}

/// Body of `POST /api/cluster/run/cancel`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CancelBody {
    /// Whether an offer without an answer is withdrawn on a person's statement.
    #[serde(default)]
    pub force: bool,
    /// The reason.
    #[serde(default)]
    pub reason: Option<String>,
    /// The person or program that asks.
    #[serde(default)]
    pub asker: Cause,
}

/// Body of `POST /api/cluster/journal`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JournalBody {
    /// The cluster for which the request is meant.
    pub cluster_id: ClusterId,
    /// The node whose events are asked for.
    pub node: NodeId,
    /// The event after which they begin.
    pub after: NodeSeq,
}

/// The answer to a [`Notice`].
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct NoticeTaken {
    /// The notice is stored.
    pub accepted: bool,
    /// The epoch of the notice.
    pub epoch: Epoch,
}

/// The answer to a [`LiftFenceBody`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FenceLifted {
    /// The result, in a sentence.
    pub words: String,
}

/// The answer of `GET /api/cluster/check-main-status`: the evidence that a promotion on this node would use.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MainStatus {
    /// The main node.
    pub main: Option<NodeId>,
    /// Its name.
    pub name: Option<String>,
    /// The newest epoch.
    pub epoch: Epoch,
    /// Whether that is the node that was asked.
    pub is_this_node: bool,
    /// Whether main gives any sign of life; nothing if this node does not watch it.
    pub answers: Option<bool>,
    /// How long it has been silent, in milliseconds.
    pub silent_ms: Option<u64>,
    /// How long it may be silent, in milliseconds.
    pub threshold_ms: u64,
    /// The evidence about it.
    pub evidence: Option<Evidence>,
}

/// What every request says about its sender and its cluster.
pub trait Asked {
    /// Whether a request without a body means the default.
    const MAY_BE_EMPTY: bool = false;

    /// The cluster for which it is meant, if it names one.
    fn cluster(&self) -> Option<ClusterId> {
        None
    }

    /// The node that sends it, if only requests of members are accepted.
    fn sender(&self) -> Option<NodeId> {
        None
    }
}

macro_rules! from_a_member {
    ($($body:ty: $($sender:ident).+;)+) => {
        $(impl Asked for $body {
            fn cluster(&self) -> Option<ClusterId> {
                Some(self.cluster_id)
            }

            fn sender(&self) -> Option<NodeId> {
                Some(self.$($sender).+)
            }
        })+
    };
}

from_a_member! {
    NodeReport: node;
    Notice: from;
    FenceBody: by;
    LiftFenceBody: by;
    TakeOverBody: offer.from;
}

impl Asked for AcceptHandoverBody {
    fn cluster(&self) -> Option<ClusterId> {
        Some(self.cluster_id)
    }
}

impl Asked for JournalBody {
    fn cluster(&self) -> Option<ClusterId> {
        Some(self.cluster_id)
    }
}

impl Asked for SwitchoverBody {}
impl Asked for ScheduleBody {}
impl Asked for PlanBody {}
impl Asked for CancelBody {}

impl Asked for PromoteBody {
    const MAY_BE_EMPTY: bool = true;
}

impl Asked for RejoinBody {
    const MAY_BE_EMPTY: bool = true;
}
