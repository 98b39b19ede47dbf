//! What a main offers that hands its role over, and what a peer says to it.

use interrex_events::{Epoch, Handover, Head, Lsn, NodeId, TimelineId};
use serde::{Deserialize, Serialize};

/// What a main that has stopped offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoverOffer {
    /// Who offers its role.
    pub from: NodeId,
    /// The epoch that is to be opened.
    pub epoch: Epoch,
    /// What it proved.
    pub handover: Handover,
}

/// What a peer says to an offer of the role of main.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer")]
pub enum OfferAnswer {
    /// It is main.
    Taken {
        /// The timeline that its PostgreSQL writes.
        timeline: TimelineId,
        /// Where that left the old one.
        switchpoint: Option<Lsn>,
        /// The newest event of its journal.
        head: Head,
    },
    /// It has not taken the role, and never will by this offer.
    Refused {
        /// Why.
        reason: String,
    },
    /// It is at it.
    Pending,
}
