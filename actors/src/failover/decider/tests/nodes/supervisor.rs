//! One supervisor: what it stored, what it believes because of that, and what it is about to do.

use std::collections::VecDeque;

use interrex_events::{Epoch, NodeId, PostgresStatus, RedisStatus};
use interrex_projections::{NodeStatus, Run};

use super::super::Node;
use crate::{
    failover::decider::Effect,
    heartbeat::decider::Watch,
    starting::decider::{self as start, Starting},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Process {
    Alive,
    /// It is started again after so many rounds, or only when everything is mended.
    Down(Option<u32>),
}

/// An effect that is to be made, and how long it has waited.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub effect: Effect,
    pub run: Option<Box<Run>>,
    pub waited: u32,
    pub pause: u32,
}

/// A start, what it does next, and in how many rounds.
pub(super) struct Start {
    pub starting: Starting,
    pub effect: start::Effect,
    pub rounds: u32,
}

pub(super) struct Supervisor {
    pub node: Node,
    pub process: Process,
    /// As long as its servers are being started.
    pub start: Option<Start>,
    pub orders: VecDeque<Order>,
    pub watch: Watch,
    pub measured: (Option<PostgresStatus>, Option<RedisStatus>),
    pub followed: Option<bool>,
}

impl Supervisor {
    pub(super) fn new(node: Node) -> Self {
        Self {
            node,
            process: Process::Alive,
            start: None,
            orders: VecDeque::new(),
            watch: Watch::default(),
            measured: (None, None),
            followed: None,
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.process == Process::Alive
    }

    /// Whether it decides nothing yet but what concerns a fence.
    pub(super) fn is_held(&self) -> bool {
        self.start.as_ref().is_some_and(|start| !start.starting.is_settled())
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.node.belief.cluster.nodes.epoch
    }

    pub(super) fn main(&self) -> Option<NodeId> {
        self.node.belief.cluster.nodes.main
    }

    pub(super) fn status(&self) -> NodeStatus {
        self.node.belief.cluster.nodes.get(self.node.me).unwrap().status
    }

    pub(super) fn is_superseded(&self) -> bool {
        self.node.belief.cluster.nodes.is_superseded(self.node.me)
    }

    pub(super) fn active(&self) -> Option<&Run> {
        self.node.belief.cluster.runs.active(self.node.me)
    }

    pub(super) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.node.belief.cluster.runs.runs.values()
    }

    /// The epoch in which it is main, if it is: its run opens one by its promotion.
    pub(super) fn reign(&self) -> Option<Epoch> {
        let opens = self.active().filter(|run| run.new_main == self.node.me && run.is_past_no_return());
        let own = (self.main() == Some(self.node.me)).then(|| self.epoch());
        opens.map(|run| run.epoch).or(own)
    }

    /// It is recorded that this node cannot follow, and it is tried again and again.
    pub(super) fn follows_in_vain(&self, order: &Order) -> bool {
        let follows =
            matches!(order.effect, Effect::Follow(_) | Effect::ReturnTo(_) | Effect::FollowLater(_));
        follows && self.followed == Some(false)
    }
}
