//! The offer of a main that hands its role over, and the peer's answer.

use interrex_events::{Epoch, Handover, Head, Lsn, NodeId, TimelineId};
use serde::{Deserialize, Serialize};

/// The offer of a main that has stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoverOffer {
    /// The main that offers its role.
    pub from: NodeId,
    /// The epoch to open.
    pub epoch: Epoch,
    /// The proof of its stop.
    pub handover: Handover,
}

/// A peer's answer to an offer of the role of main.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer")]
pub enum OfferAnswer {
    /// The peer is main.
    Taken {
        /// The timeline that its PostgreSQL writes.
        timeline: TimelineId,
        /// The switchpoint at which that timeline left the old one.
        switchpoint: Option<Lsn>,
        /// The newest event of its journal.
        head: Head,
    },
    /// The peer has not taken the role, and never will by this offer.
    Refused {
        /// The reason.
        reason: String,
    },
    /// The peer has not decided yet.
    Pending,
}
