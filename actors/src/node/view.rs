//! What a node shows outside: the fold of its journal, and what was measured last.

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

/// How far the start of this supervisor is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StartFacts {
    /// Whether it holds up everything but a fence: no run is made, and nothing is asked for in vain.
    pub under_way: bool,
    /// What keeps servers from running that should, in a sentence.
    pub problem: Option<String>,
}

/// What is shown outside: the fold of the journal, and what was measured last.
#[derive(Debug, Clone)]
pub struct View {
    /// The fold of this node's own events: what it acts on.
    pub cluster: Cluster,
    /// What this node has seen and still has to do, by the same events.
    pub standpoint: Standpoint,
    /// The fold of every node's events that are held here, in story order: what it shows.
    pub story: InStoryOrder<Cluster>,
    /// The newest own event in it.
    pub folded: NodeSeq,
    /// The local PostgreSQL.
    pub postgres: PostgresFacts,
    /// When it was asked for that; nothing while it has not answered yet.
    pub postgres_asked_at: Option<Moment>,
    /// The local Redis.
    pub redis: RedisFacts,
    /// Whether that follows another Redis than main's.
    pub redis_astray: bool,
    /// The local dependents.
    pub dependents: BTreeMap<String, DependentFacts>,
    /// How far this node is behind main.
    pub lag: Option<Lag>,
    /// What this node sees of main.
    pub main_sight: Option<MainSight>,
    /// What main last saw of `cluster_events`.
    pub stream: Option<StreamFacts>,
    /// How far this node is with copying main's data, or its own aside.
    pub copying: Option<CopyProgress>,
    /// Which node each peer says may promote itself, as last heard.
    pub candidates: BTreeMap<NodeId, Option<NodeId>>,
    /// Nodes whose PostgreSQL takes writes beside this main, while their supervisors are silent.
    pub writers: BTreeSet<NodeId>,
    /// Why peers' supervisors refuse what this one asks, each in words.
    pub refusals: BTreeMap<NodeId, String>,
    /// Why this node's PostgreSQL admits no new session, where it answers and admits none.
    pub no_session: Option<String>,
    /// Why main's admits none, by its supervisor's word or its own refusal of the last probe.
    pub main_refuses: Option<String>,
    /// Why main's admits none, as two attempts in a row found, on a secondary.
    pub main_no_session: Option<String>,
    /// Until when this node does not promote itself.
    pub deadlines: Deadlines,
    /// How far the start is.
    pub start: StartFacts,
}

impl View {
    /// What is known before anything was measured.
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
