//! The other nodes.

use std::sync::Arc;

use async_trait::async_trait;
use interrex_events::{HandoverAccepted, Lsn, NodeId, NodeSeq};
use interrex_projections::Run;

use super::NoReply;
use crate::wire::{HandoverOffer, JournalPage, MainPostgres, NodeReport, Notice, OfferAnswer};

/// Why a peer is not known to be fenced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotFenced {
    /// No answer: the peer may be dead, or cut off.
    #[error("{0}")]
    NoAnswer(String),
    /// The peer knows a later epoch: the run that asks must end.
    #[error("{0}")]
    LaterEpoch(String),
    /// The peer answered, but its servers are not proved to be stopped.
    #[error("{0}")]
    NotProved(String),
}

/// Why a peer has not recorded that it would take the role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAccepted {
    /// No answer: the acceptance may be recorded, or not.
    #[error("{0}")]
    NoAnswer(String),
    /// The peer refuses.
    #[error("{0}")]
    Declined(String),
}

/// The other nodes.
#[async_trait(?Send)]
pub trait PeersPort {
    /// Exchanges reports with a peer's supervisor.
    async fn exchange(&self, peer: NodeId, own: &NodeReport) -> Result<Arc<NodeReport>, NoReply>;
    /// Asks a peer's PostgreSQL whether it serves.
    async fn postgres(&self, peer: NodeId) -> Result<MainPostgres, NoReply>;
    /// Whether a peer's PostgreSQL admits a new session.
    async fn admits(&self, peer: NodeId) -> Result<(), NoReply>;
    /// Asks a peer's Redis for its role; nothing if none is configured.
    async fn redis(&self, peer: NodeId) -> Option<Result<String, NoReply>>;
    /// Events of a node from a peer's journal, after a place, in that node's order, at most one page.
    async fn journal(&self, peer: NodeId, node: NodeId, after: NodeSeq) -> Result<JournalPage, String>;
    /// Notifies a peer's supervisor of the new main.
    async fn notify(&self, peer: NodeId, notice: &Notice) -> Result<(), String>;
    /// The end of the WAL that a peer's standby has received.
    async fn received(&self, peer: NodeId) -> Result<Lsn, String>;
    /// Asks a peer to record that it would take the role in this switchover. The record is on the peer's disk when the answer
    /// comes.
    async fn accept_handover(&self, peer: NodeId, asked: &HandoverAccepted) -> Result<(), NotAccepted>;
    /// Offers a peer the role of main, and waits until it has taken it or says that it will not.
    async fn take_over(&self, peer: NodeId, offer: &HandoverOffer) -> Result<OfferAnswer, String>;
    /// Asks a peer's supervisor to stop its servers, and waits for the proof.
    async fn fence(&self, peer: NodeId, run: &Run) -> Result<String, NotFenced>;
    /// Notifies a peer that the run for which it was fenced has ended without a promotion: the peer serves again, as main.
    async fn lift_fence(&self, peer: NodeId, run: &Run) -> Result<String, String>;
}
