//! What a node shows to other nodes and people: the fold of its journal, and the last measurements.

use std::collections::{BTreeMap, BTreeSet};

use interrex_events::{NodeId, NodeSeq, PostgresStatus};
use interrex_projections::{Cluster, InStoryOrder, Standpoint};

use crate::{
    env::Moment,
    failover::resting::Deadlines,
    journal::Belief,
    messages::MainSight,
    wire::{CopyProgress, DependentFacts, Lag, PostgresFacts, RedisFacts, StreamFacts},
};

/// The state of this supervisor's start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StartFacts {
    /// Whether the start holds up everything but a fence: no run begins, and requests wait.
    pub under_way: bool,
    /// What keeps servers stopped that should run, in a sentence.
    pub problem: Option<String>,
}

/// What is shown to other nodes and people: the fold of the journal, and the last measurements.
#[derive(Debug, Clone)]
pub struct View {
    /// The fold of this node's own events; the node acts on it.
    pub cluster: Cluster,
    /// What this node has seen and still has to do, by the same events.
    pub standpoint: Standpoint,
    /// The fold of all nodes' events on this node, in story order; the node shows it.
    pub story: InStoryOrder<Cluster>,
    /// The newest own event in it.
    pub folded: NodeSeq,
    /// The local PostgreSQL.
    pub postgres: PostgresFacts,
    /// When that was measured; nothing before the first answer.
    pub postgres_asked_at: Option<Moment>,
    /// The local Redis.
    pub redis: RedisFacts,
    /// Whether the local Redis follows another Redis than main's.
    pub redis_astray: bool,
    /// The local dependents.
    pub dependents: BTreeMap<String, DependentFacts>,
    /// How far this node is behind main.
    pub lag: Option<Lag>,
    /// What this node sees of main.
    pub main_sight: Option<MainSight>,
    /// Main's last look at `cluster_events`.
    pub stream: Option<StreamFacts>,
    /// The progress of copying main's data, or this node's data aside.
    pub copying: Option<CopyProgress>,
    /// The node that may promote itself, by the last report of each peer.
    pub candidates: BTreeMap<NodeId, Option<NodeId>>,
    /// Nodes whose PostgreSQL takes writes although this node is main, while their supervisors are silent.
    pub writers: BTreeSet<NodeId>,
    /// Why peers' supervisors refuse the requests of this one, each as a message.
    pub refusals: BTreeMap<NodeId, String>,
    /// Why this node's PostgreSQL admits no new session, if it answers open ones.
    pub no_session: Option<String>,
    /// Why main's PostgreSQL admits none, from its supervisor's report or its own refusal of the last probe.
    pub main_refuses: Option<String>,
    /// On a secondary: why main's PostgreSQL admits none, by two attempts in a row.
    pub main_no_session: Option<String>,
    /// Until when this node does not promote itself.
    pub deadlines: Deadlines,
    /// The state of the start.
    pub start: StartFacts,
}

impl View {
    /// The view before the first measurement.
    pub(super) fn of(own: Belief, story: InStoryOrder<Cluster>, deadlines: Deadlines) -> Self {
        Self {
            cluster: own.cluster,
            standpoint: own.standpoint,
            story,
            folded: own.folded,
            postgres: PostgresFacts::silent(PostgresStatus::Unreachable, "not measured yet"),
            postgres_asked_at: None,
            redis: RedisFacts::none(),
            redis_astray: false,
            dependents: BTreeMap::new(),
            lag: None,
            main_sight: None,
            stream: None,
            copying: None,
            candidates: BTreeMap::new(),
            writers: BTreeSet::new(),
            refusals: BTreeMap::new(),
            no_session: None,
            main_refuses: None,
            main_no_session: None,
            deadlines,
            start: StartFacts::default(),
        }
    }
}
