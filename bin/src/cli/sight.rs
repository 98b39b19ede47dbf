//! All that can be known of the cluster at this moment: the story, and what live supervisors say of themselves.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, SubsecRound as _, Utc};
use interrex_actors::wire::NodeReport;
use interrex_events::{Epoch, NodeId, Record, journal::Identity};
use serde::Serialize;

use super::{
    arguments::Looking,
    failure::Failure,
    moment::{Cut, Moment},
    outside::{Answer, Outside},
    source::{Past, Source},
    story::Story,
    when,
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
    /// The configuration; `None` if only a journal is read.
    pub(super) config: Option<Config>,
    /// The answers of all supervisors that were asked.
    pub(super) answers: BTreeMap<NodeId, Answer>,
    /// What it was rebuilt from, if a past moment is shown.
    pub(super) rebuilt: Option<Rebuilt>,
}

/// From what a past moment was rebuilt.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Rebuilt {
    /// From how many events.
    pub(super) events: u64,
    /// The last of them, `NODE/SEQ`.
    pub(super) newest_event: Option<String>,
    /// A note, if the moment is outside the stream.
    pub(super) note: Option<String>,
}

/// Whether this node's supervisor runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state", content = "detail")]
pub(super) enum Supervisor {
    /// It answers.
    Running,
    /// Nothing listens at its address.
    NotRunning(String),
    /// It may run, and does not answer.
    NotAnswering(String),
    /// A journal is read alone.
    NotAsked,
    /// A past moment is shown.
    Past,
}

impl Sight {
    /// Reads the journal and asks the supervisors; for a past moment, reads only the journal.
    pub(super) fn take(looking: &Looking, outside: &dyn Outside) -> Result<Self, Failure> {
        let source = Source::open_for(&looking.reading, &looking.at)?;
        if let Some(moment) = looking.at {
            return Self::back_then(&source, moment, outside.now());
        }
        // no event is more exact
        let now = outside.now().trunc_subsecs(3);
        let answers = source.ask(outside);
        let story = source.fold()?;
        Ok(Self { now, identity: source.identity(), story, config: source.config, answers, rebuilt: None })
    }

    /// What the events up to a moment say. Today's configuration says nothing about it, nor does anybody's answer.
    fn back_then(source: &Source, moment: Moment, now: DateTime<Utc>) -> Result<Self, Failure> {
        let cut = moment.find(source, now)?;
        let past: Past<Story> = source.fold_up_to(&cut)?;
        let rebuilt = Rebuilt::of(&past, &cut, now);
        Ok(Self {
            now: cut.at,
            identity: source.identity(),
            story: past.folded,
            config: None,
            answers: BTreeMap::new(),
            rebuilt: Some(rebuilt),
        })
    }

    /// The moment that is shown, and from what it was rebuilt.
    pub(super) fn as_of(&self) -> String {
        let moment = when::date_and_time_utc(self.now);
        match &self.rebuilt {
            None => moment,
            Some(rebuilt) => format!("{moment} ({})", rebuilt.in_words()),
        }
    }

    /// Every node that the journal or the configuration names.
    pub(super) fn nodes(&self) -> BTreeSet<NodeId> {
        let configured = self.config.iter().flat_map(|config| config.peers.iter().map(|peer| peer.id));
        let known = self.story.cluster.nodes.nodes.keys().copied();
        known.chain(configured).chain([self.identity.node_id]).collect()
    }

    /// A node's name, or its number if it has none.
    pub(super) fn name(&self, node: NodeId) -> String {
        let told = self.story.cluster.nodes.get(node).map(|row| row.name.clone());
        let configured = || {
            let config = self.config.as_ref()?;
            let peer = config.peers.iter().find(|peer| peer.id == node).map(|peer| peer.name.clone());
            peer.or_else(|| (config.node.id == node).then(|| config.node.name.clone()))
        };
        told.or_else(configured).unwrap_or_else(|| format!("node {node}"))
    }

    /// The report of a node's supervisor, if it answers.
    pub(super) fn report(&self, node: NodeId) -> Option<&NodeReport> {
        self.answers.get(&node).and_then(|answer| answer.as_ref().ok())
    }

    /// All supervisors that answer.
    pub(super) fn reports(&self) -> impl Iterator<Item = &NodeReport> {
        self.answers.values().filter_map(|answer| answer.as_ref().ok())
    }

    /// Why a node that was asked said nothing.
    pub(super) fn silence(&self, node: NodeId) -> Option<&str> {
        self.answers.get(&node).and_then(|answer| answer.as_ref().err()).map(|silence| silence.words.as_str())
    }

    /// Who is main and in which epoch: the newest epoch that the journal or any answer knows. Of nodes that hold the same one,
    /// the lowest id keeps it.
    pub(super) fn reign(&self) -> (Option<NodeId>, Epoch) {
        let told = (self.story.cluster.nodes.main, self.story.cluster.nodes.epoch);
        self.reports().fold(told, |(main, epoch), report| {
            let holds = report.main == Some(report.node);
            let wins = holds && main.is_some_and(|main| main != report.node && report.node < main);
            let says = report.epoch > epoch || (report.epoch == epoch && (main.is_none() || wins));
            if says { (report.main, report.epoch) } else { (main, epoch) }
        })
    }

    /// Whether this node's supervisor runs.
    pub(super) fn supervisor(&self) -> Supervisor {
        match self.answers.get(&self.identity.node_id) {
            Some(Ok(_)) => Supervisor::Running,
            Some(Err(silence)) if silence.not_running => Supervisor::NotRunning(silence.words.clone()),
            Some(Err(silence)) => Supervisor::NotAnswering(silence.words.clone()),
            None if self.rebuilt.is_some() => Supervisor::Past,
            None => Supervisor::NotAsked,
        }
    }
}

impl Rebuilt {
    /// From what a past moment was rebuilt.
    pub(super) fn of<P>(past: &Past<P>, cut: &Cut, now: DateTime<Utc>) -> Self {
        let newest = past.newest.as_ref();
        Self {
            events: past.events,
            newest_event: newest.map(|event| format!("{}/{}", event.node_id, event.node_seq)),
            note: note(past, cut, now),
        }
    }

    /// As a short text.
    pub(super) fn in_words(&self) -> String {
        match &self.newest_event {
            Some(newest) if self.events == 1 => format!("rebuilt from one event, {newest}"),
            Some(newest) => format!("rebuilt from {} events, up to {newest}", self.events),
            None => "rebuilt from no event".to_owned(),
        }
    }
}

/// Before the first event nothing is known, and after the newest one nothing more.
fn note<P>(past: &Past<P>, cut: &Cut, now: DateTime<Utc>) -> Option<String> {
    let at = |event: &Record| when::date_and_time_utc(event.recorded_at);
    match (&past.newest, &past.next) {
        (None, None) => Some("no event was ever recorded here".to_owned()),
        (None, Some(first)) => {
            Some(format!("no event was recorded up to then: the first event here is of {}", at(first)))
        }
        (Some(newest), None) if cut.at > now => {
            Some(format!("that moment is in the future: this is the newest state, of {}", at(newest)))
        }
        (Some(newest), None) if newest.place() < cut.first => {
            Some(format!("the newest event here is of {}: nothing is known after it", at(newest)))
        }
        (Some(_), _) => None,
    }
}

impl Supervisor {
    /// As text, unless all is well.
    pub(super) fn warning(&self, name: &str) -> Option<String> {
        match self {
            Self::Running | Self::Past => None,
            Self::NotRunning(detail) => {
                Some(format!("{name}'s supervisor is not running (journal only): {detail}"))
            }
            Self::NotAnswering(detail) => {
                Some(format!("{name}'s supervisor does not answer (journal only): {detail}"))
            }
            Self::NotAsked => Some("only the journal was read; no supervisor was asked".to_owned()),
        }
    }
}
