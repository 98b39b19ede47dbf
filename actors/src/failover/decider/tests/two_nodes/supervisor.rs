//! One supervisor: what it stored, what it believes because of that, and what it is about to do.

use std::collections::VecDeque;

use interrex_events::{Epoch, LearnedBy, MainAnnounced, NodeId, PostgresStatus, RedisStatus};
use interrex_projections::{NodeStatus, Run};

use super::super::Node;
use crate::failover::decider::Effect;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Process {
    Up,
    /// It asks its peer before it starts anything, for so many rounds in vain.
    Starting(u32),
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

pub(super) struct Supervisor {
    pub node: Node,
    pub process: Process,
    pub orders: VecDeque<Order>,
    pub silent: u32,
    pub measured: (Option<PostgresStatus>, Option<RedisStatus>),
    pub followed: Option<bool>,
}

impl Supervisor {
    pub(super) fn new(node: Node) -> Self {
        let process = Process::Up;
        Self { node, process, orders: VecDeque::new(), silent: 0, measured: (None, None), followed: None }
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

    pub(super) fn claim(&self) -> MainAnnounced {
        let nodes = &self.node.belief.cluster.nodes;
        MainAnnounced {
            main: nodes.main.unwrap(),
            epoch: nodes.epoch,
            timeline: nodes.timeline.filter(|_| nodes.is_main(self.node.me)),
            switchpoint: self.node.belief.standpoint.switchpoint,
            announced_by: self.node.me,
            learned_by: LearnedBy::Heartbeat,
            planned: None,
        }
    }
}
