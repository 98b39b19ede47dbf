//! All that can be known of the cluster at this moment: the story, and what live supervisors say of themselves.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, SubsecRound as _, Utc};
use interrex_actors::report::NodeReport;
use interrex_events::{Epoch, NodeId, journal::Identity};
use serde::Serialize;

use super::{
    arguments::Reading,
    failure::Failure,
    outside::{Answer, Outside},
    source::Source,
    story::Story,
};
use crate::config::Config;

/// The story and the live answers, as of one moment.
pub(super) struct Sight {
    /// The moment.
    pub(super) now: DateTime<Utc>,
    /// Whose journal was read.
    pub(super) identity: Identity,
    /// What the journal says.
    pub(super) story: Story,
    /// The configuration; nothing where a journal is read alone.
    pub(super) config: Option<Config>,
    /// What everyone who was asked said.
    pub(super) answers: BTreeMap<NodeId, Answer>,
}

/// Whether this node's supervisor runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "detail")]
pub(super) enum Supervisor {
    /// It answers.
    Running,
    /// Nothing listens where it would.
    NotRunning(String),
    /// It may run, and does not answer.
    NotAnswering(String),
    /// A journal is read alone.
    NotAsked,
}

impl Sight {
    /// Reads the journal and asks whoever can be asked.
    pub(super) fn take(reading: &Reading, outside: &dyn Outside) -> Result<Self, Failure> {
        let source = Source::open(reading)?;
        // no event is more exact
        let now = outside.now().trunc_subsecs(3);
        let answers = source.ask(outside);
        let story = source.fold()?;
        Ok(Self { now, identity: source.identity(), story, config: source.config, answers })
    }

    /// Every node that the journal or the configuration names.
    pub(super) fn nodes(&self) -> BTreeSet<NodeId> {
        let configured = self.config.iter().flat_map(|config| config.peers.iter().map(|peer| peer.id));
        let known = self.story.cluster.nodes.nodes.keys().copied();
        known.chain(configured).chain([self.identity.node_id]).collect()
    }

    /// A node's name, or its number where nothing names it.
    pub(super) fn name(&self, node: NodeId) -> String {
        let told = self.story.cluster.nodes.get(node).map(|row| row.name.clone());
        let configured = || {
            let config = self.config.as_ref()?;
            let peer = config.peers.iter().find(|peer| peer.id == node).map(|peer| peer.name.clone());
            peer.or_else(|| (config.node.id == node).then(|| config.node.name.clone()))
        };
        told.or_else(configured).unwrap_or_else(|| format!("node {node}"))
    }

    /// What a node's supervisor says of itself, where it answers.
    pub(super) fn report(&self, node: NodeId) -> Option<&NodeReport> {
        self.answers.get(&node).and_then(|answer| answer.as_ref().ok())
    }

    /// Everyone who answers.
    pub(super) fn reports(&self) -> impl Iterator<Item = &NodeReport> {
        self.answers.values().filter_map(|answer| answer.as_ref().ok())
    }

    /// Why a node that was asked said nothing.
    pub(super) fn silence(&self, node: NodeId) -> Option<&str> {
        self.answers.get(&node).and_then(|answer| answer.as_ref().err()).map(|silence| silence.words.as_str())
    }

    /// Who is main and in which epoch: the newest epoch that the journal or any answer knows.
    pub(super) fn reign(&self) -> (Option<NodeId>, Epoch) {
        let told = (self.story.cluster.nodes.main, self.story.cluster.nodes.epoch);
        self.reports().fold(told, |best, report| {
            let newer = report.epoch > best.1 || (best.0.is_none() && report.epoch == best.1);
            if newer { (report.main, report.epoch) } else { best }
        })
    }

    /// Whether this node's supervisor runs.
    pub(super) fn supervisor(&self) -> Supervisor {
        match self.answers.get(&self.identity.node_id) {
            Some(Ok(_)) => Supervisor::Running,
            Some(Err(silence)) if silence.not_running => Supervisor::NotRunning(silence.words.clone()),
            Some(Err(silence)) => Supervisor::NotAnswering(silence.words.clone()),
            None => Supervisor::NotAsked,
        }
    }
}

impl Supervisor {
    /// In words, unless all is as it should be.
    pub(super) fn warning(&self, name: &str) -> Option<String> {
        match self {
            Self::Running => None,
            Self::NotRunning(detail) => {
                Some(format!("{name}'s supervisor is not running (journal only): {detail}"))
            }
            Self::NotAnswering(detail) => {
                Some(format!("{name}'s supervisor does not answer (journal only): {detail}"))
            }
            Self::NotAsked => Some("a journal is read alone; nobody was asked".to_owned()),
        }
    }
}
