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
    /// Nobody answered: it may be dead, or cut off.
    #[error("{0}")]
    NoAnswer(String),
    /// It knows a later epoch: whoever asks has lost.
    #[error("{0}")]
    LaterEpoch(String),
    /// It answered, and its servers are not proved to be stopped.
    #[error("{0}")]
    NotProved(String),
}

/// Why a peer has not recorded that it would take the role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAccepted {
    /// No answer: it may be recorded, or not.
    #[error("{0}")]
    NoAnswer(String),
    /// It says no.
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
    /// Asks a peer's Redis for its role; nothing where none is configured.
    async fn redis(&self, peer: NodeId) -> Option<Result<String, NoReply>>;
    /// Events of a node that a peer's journal holds, after a place, in that node's order; not more than a page.
    async fn journal(&self, peer: NodeId, node: NodeId, after: NodeSeq) -> Result<JournalPage, String>;
    /// Tells a peer's supervisor who is main.
    async fn notify(&self, peer: NodeId, notice: &Notice) -> Result<(), String>;
    /// How far a peer's standby has received the log.
    async fn received(&self, peer: NodeId) -> Result<Lsn, String>;
    /// Asks a peer to record that it would take the role by this switchover. It is on its disk when the answer comes.
    async fn accept_handover(&self, peer: NodeId, asked: &HandoverAccepted) -> Result<(), NotAccepted>;
    /// Offers a peer the role of main, and waits until it has taken it or says that it will not.
    async fn take_over(&self, peer: NodeId, offer: &HandoverOffer) -> Result<OfferAnswer, String>;
    /// Asks a peer's supervisor to stop its servers, and waits for the proof.
    async fn fence(&self, peer: NodeId, run: &Run) -> Result<String, NotFenced>;
    /// Tells a peer that the run for which it was fenced has ended and promoted nobody: it serves again, as main.
    async fn lift_fence(&self, peer: NodeId, run: &Run) -> Result<String, String>;
}
