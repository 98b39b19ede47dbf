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
    /// Whether it was done.
    pub success: bool,
    /// The answer, if so.
    #[serde(skip_serializing_if = "Option::is_none", default = "none")]
    pub data: Option<T>,
    /// The error, if not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<ApiError>,
}

fn none<T>() -> Option<T> {
    None
}

/// What went wrong.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApiError {
    /// For programs.
    pub code: String,
    /// For people.
    pub message: String,
}

/// Body of `POST /api/cluster/fence`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FenceBody {
    /// The cluster it is meant for.
    pub cluster_id: ClusterId,
    /// Who asks.
    pub by: NodeId,
    /// The epoch it won.
    pub epoch: Epoch,
    /// Its run.
    pub run: RunId,
}

/// Body of `POST /api/cluster/lift-fence`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LiftFenceBody {
    /// The cluster it is meant for.
    pub cluster_id: ClusterId,
    /// Who asks.
    pub by: NodeId,
    /// Its run, which had asked for the fence.
    pub run: RunId,
}

/// Body of `POST /api/cluster/accept-handover`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AcceptHandoverBody {
    /// The cluster it is meant for.
    pub cluster_id: ClusterId,
    /// What is to be recorded.
    pub asked: HandoverAccepted,
}

/// Body of `POST /api/cluster/take-over`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TakeOverBody {
    /// The cluster it is meant for.
    pub cluster_id: ClusterId,
    /// What is offered.
    pub offer: HandoverOffer,
}

/// Body of `POST /api/cluster/failover`, as in the runbook, and what it may say beside.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SwitchoverBody {
    /// Who shall be main.
    pub target_node_id: NodeId,
    /// How long open transactions may take to finish, in milliseconds.
    #[serde(default)]
    pub drain_ms: u64,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// Who asks.
    #[serde(default)]
    pub asker: Cause,
}

/// Body of `POST /api/cluster/schedule`: a switchover at a time. It has a path of its own, so that a supervisor that does
/// not know it refuses it, and does not begin at once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ScheduleBody {
    /// When.
    pub due: DateTime<Utc>,
    /// What.
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
        /// Who would be main.
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
        /// Why.
        #[serde(default)]
        reason: Option<String>,
    },
    /// The node that is asked comes back as a secondary.
    Rejoin {
        /// By a copy of main's data, even where its own could be rewound.
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
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// Who asks.
    #[serde(default)]
    pub asker: Cause,
}

/// Body of `POST /api/cluster/rejoin`; it may be left out.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RejoinBody {
    /// By a copy of main's data, even where the node's own could be rewound.
    #[serde(default)]
    pub copy: bool,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// Who asks.
    #[serde(default)]
    pub asker: Cause,
}

/// Body of `POST /api/cluster/run/cancel`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CancelBody {
    /// Whether an offer that nobody answers is withdrawn on a person's word.
    #[serde(default)]
    pub force: bool,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// Who asks.
    #[serde(default)]
    pub asker: Cause,
}

/// Body of `POST /api/cluster/journal`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JournalBody {
    /// The cluster it is meant for.
    pub cluster_id: ClusterId,
    /// Whose events.
    pub node: NodeId,
    /// After which one.
    pub after: NodeSeq,
}

/// The answer to a [`Notice`].
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct NoticeTaken {
    /// It is stored.
    pub accepted: bool,
    /// The epoch that it spoke of.
    pub epoch: Epoch,
}

/// The answer to a [`LiftFenceBody`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FenceLifted {
    /// What was found or done, in a sentence.
    pub words: String,
}

/// The answer of `GET /api/cluster/check-main-status`: what a promotion from this node would go by.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MainStatus {
    /// Who is main.
    pub main: Option<NodeId>,
    /// Its name.
    pub name: Option<String>,
    /// The newest epoch.
    pub epoch: Epoch,
    /// Whether that is the node that was asked.
    pub is_this_node: bool,
    /// Whether main gives any sign of life; nothing where this node does not watch it.
    pub answers: Option<bool>,
    /// How long it has been silent.
    pub silent_ms: Option<u64>,
    /// How long it may be.
    pub threshold_ms: u64,
    /// What was seen of it.
    pub evidence: Option<Evidence>,
}

/// What every request says of where it comes from and whom it is for.
pub trait Asked {
    /// Whether a request without a body means the default.
    const MAY_BE_EMPTY: bool = false;

    /// The cluster that it is meant for, where it says so.
    fn cluster(&self) -> Option<ClusterId> {
        None
    }

    /// The node that sends it, where only a member's is heard.
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
