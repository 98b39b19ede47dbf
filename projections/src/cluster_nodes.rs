//! `cluster_nodes`: who is main, in which epoch, and how every node is.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use interrex_events::{
    Address, Bases, DependentStatus, Envelope, Epoch, Event, Lsn, NodeId, NodeStatus, PostgresStatus,
    RedisStatus, Role, StrayAnswer, TimelineId,
};
use serde::{Deserialize, Serialize};

use crate::{Cluster, Projection};

/// A row of `cluster_nodes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its number.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// `host:port` of its supervisor.
    pub address: Address,
    /// `host:port` of its PostgreSQL.
    pub postgres_address: Address,
    /// `host:port` of its Redis.
    pub redis_address: Option<Address>,
    /// What it is for.
    pub role: Role,
    /// How it is.
    pub status: NodeStatus,
    /// When that status began, by the clock of the node that recorded it.
    pub status_since: Option<DateTime<Utc>>,
    /// The state of its PostgreSQL, if the stream has it.
    pub postgres: Option<PostgresStatus>,
    /// Its timeline, if the stream has it.
    pub timeline: Option<TimelineId>,
    /// The end of its WAL when its PostgreSQL last changed state.
    pub lsn: Option<Lsn>,
    /// The state of its Redis, if the stream has it.
    pub redis: Option<RedisStatus>,
    /// What its dependents do, by name.
    pub dependents: BTreeMap<String, DependentStatus>,
    /// Actors restarted after a panic, since the supervisor's last start.
    pub actor_restarts: u32,
    /// The newest epoch that this node itself recorded as opened: what proves that it is or was main of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened: Option<Epoch>,
}

/// The fold.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ClusterNodes {
    /// Every node, by number.
    pub nodes: BTreeMap<NodeId, Node>,
    /// Who is main.
    pub main: Option<NodeId>,
    /// The newest epoch that was opened, as far as the stream says.
    pub epoch: Epoch,
    /// The timeline of that epoch, if the stream has it.
    pub timeline: Option<TimelineId>,
}

impl ClusterNodes {
    /// A node's row.
    #[must_use]
    pub fn get(&self, node: NodeId) -> Option<&Node> {
        self.nodes.get(&node)
    }

    /// A node's name, or its number if it has none.
    #[must_use]
    pub fn name(&self, node: NodeId) -> String {
        self.get(node).map_or_else(|| format!("node {node}"), |row| row.name.clone())
    }

    /// Whether a node is main.
    #[must_use]
    pub fn is_main(&self, node: NodeId) -> bool {
        self.main == Some(node)
    }

    /// Whether a node was superseded and has not rejoined: it must serve no client.
    #[must_use]
    pub fn is_superseded(&self, node: NodeId) -> bool {
        self.get(node).is_some_and(|row| matches!(row.status, NodeStatus::Fencing | NodeStatus::Fenced))
    }

    /// Whether a node offers its role to another one: its PostgreSQL must not start as a primary.
    #[must_use]
    pub fn is_handing_over(&self, node: NodeId) -> bool {
        self.get(node).is_some_and(|row| row.status == NodeStatus::HandingOver)
    }

    fn set_status(&mut self, node: NodeId, status: NodeStatus, at: DateTime<Utc>) {
        if let Some(row) = self.nodes.get_mut(&node)
            && row.status != status
        {
            row.status = status;
            row.status_since = Some(at);
        }
    }

    /// What one node observes of another. It does not outweigh what that one said of itself: being fenced ends
    /// with a rejoin, and a supervisor that ended in good order is not lost.
    fn observed(&mut self, node: NodeId, status: NodeStatus, at: DateTime<Utc>) {
        let its_own = match self.get(node).map(|row| row.status) {
            Some(NodeStatus::HandingOver | NodeStatus::Fencing | NodeStatus::Fenced) => true,
            Some(NodeStatus::Stopped) => status == NodeStatus::Offline,
            _ => false,
        };
        if !its_own {
            self.set_status(node, status, at);
        }
    }

    /// A proof of fencing holds only as long as the servers stay stopped.
    fn unfence(&mut self, me: NodeId, runs: bool, at: DateTime<Utc>) {
        if runs && self.get(me).is_some_and(|row| row.status == NodeStatus::Fenced) {
            self.set_status(me, NodeStatus::Fencing, at);
        }
    }

    /// Whether a main of an epoch takes the place of the one that is known. Of two mains of one epoch the node with the
    /// lower number keeps it: a fixed rule, so that every node comes to the same answer without asking.
    #[must_use]
    pub fn yields_to(&self, main: NodeId, epoch: Epoch) -> bool {
        let known = self.main.is_none_or(|known| main <= known);
        epoch <= Epoch::HIGHEST && (epoch > self.epoch || (epoch == self.epoch && known))
    }

    /// Takes a main for granted, unless a later epoch is known, or a main of this one that goes before it. Whether it was
    /// taken.
    fn crown(&mut self, main: NodeId, epoch: Epoch, timeline: Option<TimelineId>, at: DateTime<Utc>) -> bool {
        if !self.yields_to(main, epoch) {
            return false;
        }
        (self.main, self.epoch) = (Some(main), epoch);
        self.timeline = timeline.or(self.timeline);
        for row in self.nodes.values_mut() {
            row.role = match row.role {
                _ if row.node == main => Role::Main,
                Role::Main => Role::Secondary,
                role => role,
            };
        }
        self.set_status(main, NodeStatus::Online, at);
        true
    }
}

impl Projection for ClusterNodes {
    fn begin_after(&mut self, bases: &Bases) {
        *self = Cluster::sealed(bases).nodes;
    }

    fn apply(&mut self, envelope: &Envelope) {
        let (me, at) = (envelope.node_id, envelope.recorded_at);
        match &envelope.event {
            Event::SupervisorStarted(started) => {
                for spec in &started.nodes {
                    let is_main = started.main == Some(spec.node);
                    let row = self.nodes.entry(spec.node).or_insert_with(|| Node {
                        node: spec.node,
                        name: String::new(),
                        address: spec.address.clone(),
                        postgres_address: spec.postgres.clone(),
                        redis_address: None,
                        role: if is_main { Role::Main } else { Role::Secondary },
                        status: NodeStatus::Unknown,
                        status_since: None,
                        postgres: None,
                        timeline: None,
                        lsn: None,
                        redis: None,
                        dependents: BTreeMap::new(),
                        actor_restarts: 0,
                        opened: None,
                    });
                    row.name.clone_from(&spec.name);
                    row.address.clone_from(&spec.address);
                    row.postgres_address.clone_from(&spec.postgres);
                    row.redis_address.clone_from(&spec.redis);
                }
                if self.main.is_none() {
                    (self.main, self.epoch) = (started.main, envelope.epoch);
                }
                // a node that does not know the newest epoch yet may still think that it is main
                let outdated = envelope.epoch < self.epoch && self.main != Some(me);
                if let Some(row) = self.nodes.get_mut(&me) {
                    row.role = if outdated { Role::Secondary } else { started.role };
                    row.actor_restarts = 0;
                }
                // being fenced outlives the supervisor: only a rejoin ends it; and so does an offer
                if !self.is_superseded(me) && !self.is_handing_over(me) {
                    self.set_status(me, NodeStatus::Online, at);
                }
            }
            Event::SupervisorStopped(_) => {
                if !self.is_superseded(me) && !self.is_handing_over(me) {
                    self.set_status(me, NodeStatus::Stopped, at);
                }
            }
            Event::ActorRestarted(_) => {
                if let Some(row) = self.nodes.get_mut(&me) {
                    row.actor_restarts += 1;
                }
            }
            Event::PostgresChanged(changed) => {
                if let Some(row) = self.nodes.get_mut(&me) {
                    row.postgres = Some(changed.status);
                    row.timeline = changed.timeline.or(row.timeline);
                    row.lsn = changed.lsn.or(row.lsn);
                }
                self.unfence(me, changed.status != PostgresStatus::Stopped, at);
            }
            Event::RedisChanged(changed) => {
                if let Some(row) = self.nodes.get_mut(&me) {
                    row.redis = Some(changed.status);
                }
                self.unfence(me, changed.status != RedisStatus::Stopped, at);
            }
            Event::DependentChanged(changed) => {
                if let Some(row) = self.nodes.get_mut(&me) {
                    row.dependents.insert(changed.name.clone(), changed.status);
                }
            }
            Event::MainSeen(seen) => self.observed(seen.main, NodeStatus::Online, at),
            Event::MainSuspected(suspected) => self.observed(suspected.main, NodeStatus::Suspected, at),
            Event::MainRecovered(recovered) => self.observed(recovered.main, NodeStatus::Online, at),
            Event::MainLost(lost) => self.observed(lost.main, NodeStatus::Offline, at),
            Event::PeerUnreachable(peer) => self.observed(peer.peer, NodeStatus::Offline, at),
            Event::PeerReachable(peer) => self.observed(peer.peer, NodeStatus::Online, at),
            Event::EpochOpened(opened) => {
                if let Some(row) = self.nodes.get_mut(&me).filter(|_| opened.main == me) {
                    row.opened = row.opened.max(Some(opened.epoch));
                }
                let is_main = self.crown(opened.main, opened.epoch, Some(opened.timeline), at);
                if let Some(old) = opened.old_main.filter(|old| is_main && *old != opened.main) {
                    self.observed(old, NodeStatus::Offline, at);
                }
            }
            // only a node itself makes itself main, by opening an epoch
            Event::MainAnnounced(announced) if announced.main == me => {}
            Event::MainAnnounced(announced) => {
                // a main that learns of another one is superseded from this very event on
                let was_main = self.is_main(me) && announced.main != me;
                let taken = self.crown(announced.main, announced.epoch, announced.timeline, at);
                let superseded = was_main && taken;
                // one that hands over has stopped already, and its run takes it from there; one that was fenced for the run
                // that made the new main has proved it
                if superseded && !self.is_handing_over(me) && !self.is_superseded(me) {
                    self.set_status(me, NodeStatus::Fencing, at);
                }
            }
            Event::FencingStarted(_) => self.set_status(me, NodeStatus::Fencing, at),
            // what it wrote is on a line of its own: it serves no client until it has rejoined
            Event::StrayPrimaryFound(stray) if stray.answer == StrayAnswer::Stopped => {
                self.set_status(me, NodeStatus::Fencing, at);
            }
            Event::NodeFenced(_) => self.set_status(me, NodeStatus::Fenced, at),
            Event::FenceLifted(_) if self.is_main(me) && self.is_superseded(me) => {
                self.set_status(me, NodeStatus::Online, at);
            }
            Event::HandoverOffered(_) if !self.is_superseded(me) => {
                self.set_status(me, NodeStatus::HandingOver, at);
            }
            Event::HandoverWithdrawn(_) if self.is_handing_over(me) => {
                let status = if self.is_main(me) { NodeStatus::Online } else { NodeStatus::Fencing };
                self.set_status(me, status, at);
            }
            Event::NodeDemoted(demoted) => {
                // behind a main that was superseded itself, it must not serve
                if self.crown(demoted.main, demoted.epoch, None, at) {
                    self.set_status(me, NodeStatus::Online, at);
                }
            }
            // its run ended with the role handed over, or that is unknown, and the directory can still start as a primary
            Event::RunFailed(_) | Event::RunRefused(_) | Event::SwitchoverCompleted(_)
                if self.is_handing_over(me) =>
            {
                self.set_status(me, NodeStatus::Fencing, at);
            }
            Event::SupervisorStalled(_)
            | Event::AdmissionChanged(_)
            | Event::ClockJumped(_)
            | Event::HeartbeatsObserved(_)
            | Event::FailoverWithheld(_)
            | Event::FailoverStarted(_)
            | Event::FailoverRefused(_)
            | Event::RunResumed(_)
            | Event::RunRefused(_)
            | Event::RunFailed(_)
            | Event::RunCancelRequested(_)
            | Event::HandoverAccepted(_)
            | Event::HandoverOffered(_)
            | Event::SwitchoverScheduled(_)
            | Event::SwitchoverUnscheduled(_)
            | Event::HandoverWithdrawn(_)
            | Event::RejoinStarted(_)
            | Event::RejoinCompleted(_)
            | Event::SwitchoverStarted(_)
            | Event::SwitchoverCompleted(_)
            | Event::StepStarted(_)
            | Event::StepFinished(_)
            | Event::StepUndoStarted(_)
            | Event::StepUndone(_)
            | Event::FailoverCompleted(_)
            | Event::FailoverFailed(_)
            | Event::NoticeRefused(_)
            | Event::StartedUnconfirmed(_)
            | Event::StrayPrimaryFound(_)
            | Event::StartHeldUp(_)
            | Event::FencingFailed(_)
            | Event::FenceLifted(_)
            | Event::FollowFinished(_)
            | Event::SettingsChanged(_)
            | Event::SettingsAdopted(_)
            | Event::ClockSkewObserved(_)
            | Event::JournalForked(_)
            | Event::JournalRestored(_)
            | Event::ProjectionPaused(_)
            | Event::ProjectionRebuilt(_)
            | Event::JournalSealed(_)
            | Event::Unknown(_) => {}
        }
    }
}
