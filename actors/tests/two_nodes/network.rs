//! Requests between supervisors, without a socket: each call runs the handler of the node that is asked, after the way there.

use std::{cell::RefCell, collections::BTreeMap, future::pending, rc::Rc, sync::Arc, time::Duration};

use async_trait::async_trait;
use interrex_actors::{
    handlers::{self, Handled, Refusal, peers},
    node::Shared,
    ports::{NoReply, NotAccepted, NotFenced, PeersPort},
    wire::{
        AcceptHandoverBody, Asked, FenceBody, HandoverOffer, JournalBody, JournalPage, LiftFenceBody,
        MainPostgres, NodeReport, Notice, OfferAnswer, TakeOverBody,
    },
};
use interrex_events::{HandoverAccepted, Lsn, NodeId, NodeSeq};
use interrex_projections::Run;

use crate::servers::World;

/// How long one way takes.
const WAY: Duration = Duration::from_millis(1);

/// The supervisors that listen, by node.
#[derive(Clone, Default)]
pub(crate) struct Network(Rc<RefCell<BTreeMap<NodeId, Arc<Shared>>>>);

/// A supervisor's place in the network, given up with the value.
struct Place(Network, NodeId);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.borrow_mut().remove(&self.1);
    }
}

impl Network {
    /// The listener of a node: it can be asked as long as this is not dropped.
    pub(crate) async fn listen(self, shared: Arc<Shared>) {
        let node = shared.settings.me;
        self.0.borrow_mut().insert(node, shared);
        let _place = Place(self, node);
        pending::<()>().await;
    }

    pub(crate) fn supervisor(&self, node: NodeId) -> Option<Arc<Shared>> {
        self.0.borrow().get(&node).cloned()
    }
}

/// The other nodes, as one node reaches them.
pub(crate) struct SimulatedPeers {
    pub(crate) network: Network,
    pub(crate) world: World,
}

impl SimulatedPeers {
    async fn reach(&self, peer: NodeId) -> Result<Arc<Shared>, NoReply> {
        tokio::time::sleep(WAY).await;
        self.network.supervisor(peer).ok_or_else(|| NoReply::Silent("connection refused".to_owned()))
    }

    async fn admitted(&self, peer: NodeId, body: &impl Asked) -> Result<Arc<Shared>, NoReply> {
        let shared = self.reach(peer).await?;
        handlers::admit(&shared, body).map_err(refused)?;
        Ok(shared)
    }
}

fn refused(Refusal { code, message, .. }: Refusal) -> NoReply {
    NoReply::Refused { code: code.to_owned(), words: message }
}

fn answered<T>(handled: Handled<T>) -> Result<T, NoReply> {
    handled.map_err(refused)
}

#[async_trait(?Send)]
impl PeersPort for SimulatedPeers {
    async fn exchange(&self, peer: NodeId, own: &NodeReport) -> Result<Arc<NodeReport>, NoReply> {
        let shared = self.admitted(peer, own).await?;
        Ok(Arc::new(peers::heartbeat(&shared, own)))
    }

    async fn postgres(&self, peer: NodeId) -> Result<MainPostgres, NoReply> {
        tokio::time::sleep(WAY).await;
        self.world.asked_by_a_peer(peer)
    }

    async fn admits(&self, peer: NodeId) -> Result<(), NoReply> {
        self.postgres(peer).await.map(drop)
    }

    async fn redis(&self, _: NodeId) -> Option<Result<String, NoReply>> {
        None
    }

    async fn journal(&self, peer: NodeId, node: NodeId, after: NodeSeq) -> Result<JournalPage, String> {
        let shared = self.reach(peer).await.map_err(|reply| reply.to_string())?;
        let body = JournalBody { cluster_id: shared.settings.cluster_id, node, after };
        answered(peers::journal(&shared, &body)).map_err(|reply| reply.to_string())
    }

    async fn notify(&self, peer: NodeId, notice: &Notice) -> Result<(), String> {
        let shared = self.admitted(peer, notice).await.map_err(|reply| reply.to_string())?;
        answered(peers::notify(&shared, notice.clone()).await).map(drop).map_err(|reply| reply.to_string())
    }

    async fn received(&self, peer: NodeId) -> Result<Lsn, String> {
        self.world.received_by(peer)
    }

    async fn accept_handover(&self, peer: NodeId, asked: &HandoverAccepted) -> Result<(), NotAccepted> {
        let shared = self.reach(peer).await.map_err(|reply| NotAccepted::NoAnswer(reply.to_string()))?;
        let body = AcceptHandoverBody { cluster_id: shared.settings.cluster_id, asked: asked.clone() };
        let accepted = peers::accept_handover(&shared, body).await;
        accepted.map(drop).map_err(|refusal| NotAccepted::Declined(refusal.message))
    }

    async fn take_over(&self, peer: NodeId, offer: &HandoverOffer) -> Result<OfferAnswer, String> {
        let shared = self.reach(peer).await.map_err(|reply| reply.to_string())?;
        let body = TakeOverBody { cluster_id: shared.settings.cluster_id, offer: offer.clone() };
        peers::take_over(&shared, body).await.map_err(|refusal| refusal.message)
    }

    async fn fence(&self, peer: NodeId, run: &Run) -> Result<String, NotFenced> {
        let shared = self.reach(peer).await.map_err(|reply| NotFenced::NoAnswer(reply.to_string()))?;
        let body =
            FenceBody { cluster_id: shared.settings.cluster_id, by: run.node, epoch: run.epoch, run: run.id };
        let fenced = peers::fence(&shared, body).await;
        fenced
            .map(|proof| proof.map(|proof| proof.postgres).unwrap_or_default())
            .map_err(|refusal| NotFenced::NotProved(refusal.message))
    }

    async fn lift_fence(&self, peer: NodeId, run: &Run) -> Result<String, String> {
        let shared = self.reach(peer).await.map_err(|reply| reply.to_string())?;
        let body = LiftFenceBody { cluster_id: shared.settings.cluster_id, by: run.node, run: run.id };
        peers::lift_fence(&shared, body).await.map(|lifted| lifted.words).map_err(|refusal| refusal.message)
    }
}
