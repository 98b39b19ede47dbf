//! Where a command's answer comes from: a node's configuration, its journal, and the supervisors that answer.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use interrex_events::{
    Bases, Head, NodeId, Record, Role,
    journal::{Identity, JournalError, JournalReader, Selection},
};
use interrex_projections::{ClusterNodes, NodeStatus, Projection};

use super::{
    arguments::Reading,
    cluster_events::ClusterEvents,
    failure::Failure,
    live,
    moment::{Cut, Moment},
    output,
    outside::{Answer, Outside, Question, Silence},
    progress::Progress,
    store::Store,
};
use crate::config::{Config, SEGMENTS_FOLDER};

const VARIABLE: &str = "INTERREX_CONFIG";
const LOOKED_AT: [&str; 2] = ["./interrex.toml", "/etc/interrex/interrex.toml"];

/// The configuration to use: the file that is named, or the first file at the usual places. It is absolute,
/// and with it the paths inside: servers that are started elsewhere must find them too.
pub(super) fn config_path(named: Option<&Path>) -> Result<PathBuf, Failure> {
    std::path::absolute(find_config(named)?).map_err(no_folder)
}

fn no_folder(error: std::io::Error) -> Failure {
    Failure::Other { what: "cannot find the current folder".to_owned(), source: Some(error.into()) }
}

fn find_config(named: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let looked_at = LOOKED_AT.map(PathBuf::from);
    match looked_at.iter().find(|path| path.exists()) {
        Some(path) => Ok(path.clone()),
        None => Err(Failure::NoConfig { looked_at: looked_at.to_vec() }),
    }
}

/// What the journal here says that this node is for, and how it is; `None` if no journal can be read.
pub(crate) fn role_told(config: &Config) -> Option<(Role, NodeStatus)> {
    let reading = Reading { journal: Some(config.node.journal.clone()), ..Reading::default() };
    let nodes: ClusterNodes = Source::open_in_silence(&reading, []).and_then(|source| source.fold()).ok()?;
    nodes.get(config.node.id).map(|node| (node.role, node.status))
}

/// An open store, and the configuration that named it, if one did.
pub(super) struct Source {
    /// The configuration; `None` if only a journal or an export is read.
    pub(super) config: Option<Config>,
    /// The store's file.
    pub(super) path: PathBuf,
    /// The store.
    pub(super) store: Store,
    /// What its sealed begin said in the end.
    bases: Bases,
}

/// What the stream said at a place.
pub(super) struct Past<P> {
    /// The state.
    pub(super) folded: P,
    /// How many events it is rebuilt from.
    pub(super) events: u64,
    /// The last of them.
    pub(super) newest: Option<Record>,
    /// The first event that came after the place.
    pub(super) next: Option<Record>,
}

impl Source {
    /// Opens what the arguments name; on standard error it says so if the begin of the story is not there.
    pub(super) fn open(reading: &Reading) -> Result<Self, Failure> {
        Self::open_for(reading, [])
    }

    /// The same for what is asked about some moments: of positions only `cluster_events` knows.
    pub(super) fn open_for<'a>(
        reading: &Reading,
        moments: impl IntoIterator<Item = &'a Moment>,
    ) -> Result<Self, Failure> {
        let source = Self::open_in_silence(reading, moments)?;
        let places = |heads: &mut dyn Iterator<Item = Head>| {
            heads.map(|head| format!("{}/{}", head.node_id, head.node_seq)).collect::<Vec<_>>().join(" and ")
        };
        let sealed = places(&mut source.bases.values().map(|base| base.head));
        let cut = places(&mut source.store.cut_at().into_iter());
        if !sealed.is_empty() {
            output::say(&format!(
                "The story begins after {sealed}: earlier events are sealed; --cluster-events has all of them, interrex journal \
                 verify names their files"
            ));
        }
        if !cut.is_empty() {
            output::say(&format!(
                "The export begins after {cut}: what only earlier events say is not known here; an export without --since, \
                 --until and --run has all events"
            ));
        }
        Ok(source)
    }

    /// The same without a word.
    pub(super) fn open_in_silence<'a>(
        reading: &Reading,
        moments: impl IntoIterator<Item = &'a Moment>,
    ) -> Result<Self, Failure> {
        let config = match &reading.journal {
            Some(_) => None,
            None => Some(Config::load(&config_path(reading.config.as_deref())?)?),
        };
        let asks_for_positions = moments.into_iter().any(|moment| matches!(moment, Moment::Position(..)));
        if let Some(config) = &config
            && (reading.cluster_events || asks_for_positions)
        {
            let stream = ClusterEvents::connect(config)?;
            let path = format!("cluster_events at {}", stream.address()).into();
            return Ok(Self {
                config: Some(config.clone()),
                path,
                store: Store::ClusterEvents(Box::new(stream)),
                bases: Bases::new(),
            });
        }
        let path = match (&reading.journal, &config) {
            (Some(path), _) => path.clone(),
            (None, Some(config)) => config.node.journal.clone(),
            (None, None) => PathBuf::new(),
        };
        let store = Store::open(&path)?;
        if let Some(config) = &config {
            demand_identity(&path, store.identity(), config)?;
        }
        let segments = store.segments()?;
        let bases = segments.into_iter().map(|segment| (segment.node(), segment.end)).collect();
        Ok(Self { config, path, store, bases })
    }

    /// The folder in which this node's segments are.
    pub(super) fn segments_folder(&self) -> PathBuf {
        self.config
            .as_ref()
            .map_or_else(|| self.path.with_file_name(SEGMENTS_FOLDER), Config::segments_folder)
    }

    /// A fold that has no event yet, but the state at the end of the sealed events.
    pub(super) fn beginning<P: Projection + Default>(&self) -> P {
        let mut projection = P::default();
        if !self.bases.is_empty() {
            projection.begin_after(&self.bases);
        }
        projection
    }

    /// Whose store it is.
    pub(super) fn identity(&self) -> Identity {
        self.store.identity()
    }

    /// The journal, which goes on; an export does not.
    pub(super) fn journal(&self) -> Result<&JournalReader, Failure> {
        match &self.store {
            Store::Journal(reader) => Ok(reader),
            Store::ClusterEvents(_) => {
                Err(Failure::Usage("--follow reads the journal: leave --cluster-events out".to_owned()))
            }
            Store::Export { path, .. } => Err(Failure::Usage(format!(
                "{} is an export, which gets no new events: leave --follow out, or follow a live node",
                path.display()
            ))),
        }
    }

    /// Hands every selected event to `visit`, in story order, until that breaks off or fails.
    pub(super) fn for_each(
        &self,
        selection: &Selection,
        mut visit: impl FnMut(Record) -> Result<ControlFlow<()>, Failure>,
    ) -> Result<(), Failure> {
        let flow = self.store.try_for_each(selection, |record| match visit(record) {
            Ok(ControlFlow::Continue(())) => ControlFlow::Continue(()),
            Ok(ControlFlow::Break(())) => ControlFlow::Break(Ok(())),
            Err(failure) => ControlFlow::Break(Err(failure)),
        })?;
        flow.break_value().unwrap_or(Ok(()))
    }

    /// The whole stream, with a progress message if it takes a while.
    pub(super) fn whole(
        &self,
        mut visit: impl FnMut(Record) -> Result<ControlFlow<()>, Failure>,
    ) -> Result<(), Failure> {
        let progress = self.progress();
        self.for_each(&Selection::default(), |record| {
            progress.step();
            visit(record)
        })
    }

    /// Folds the whole stream.
    pub(super) fn fold<P: Projection + Default>(&self) -> Result<P, Failure> {
        let progress = self.progress();
        self.store.fold(self.beginning(), || progress.step())
    }

    fn progress(&self) -> Progress {
        Progress::of(format!("reading {}", self.path.display()), None)
    }

    /// Folds the stream up to a moment, and the event at it. Up to a position, it is what the stream held then: what
    /// it learned later is not in it, wherever in the story that belongs.
    pub(super) fn fold_up_to<P: Projection + Default>(&self, cut: &Cut) -> Result<Past<P>, Failure> {
        self.demand_told(cut)?;
        let mut past: Past<P> = Past { folded: self.beginning(), events: 0, newest: None, next: None };
        let mut take = |record: Record| {
            past.folded.apply_stored(&record.borrowed());
            past.events += 1;
            past.newest = Some(record);
        };
        if let (Store::ClusterEvents(stream), Some(pos)) = (&self.store, cut.pos) {
            let progress = self.progress();
            let _: ControlFlow<()> = stream.try_for_each(Some(pos), |record| {
                progress.step();
                take(record);
                ControlFlow::Continue(())
            })?;
            return Ok(past);
        }
        let mut next = None;
        self.whole(|record| {
            if record.place() > cut.last {
                next = Some(record);
                return Ok(ControlFlow::Break(()));
            }
            take(record);
            Ok(ControlFlow::Continue(()))
        })?;
        past.next = next;
        Ok(past)
    }

    /// Of what was sealed only the end is known here.
    fn demand_told(&self, cut: &Cut) -> Result<(), Failure> {
        let places = self.bases.values().map(|base| (base.moment, base.head.node_id, base.head.node_seq));
        match places.max() {
            Some(begin) if cut.last < begin => Err(Failure::NoSuchEvent(format!(
                "that moment is before event {}/{}, and up to that event the story in {} is sealed: add --cluster-events, or \
                 import the segments into another journal (interrex journal verify names them)",
                begin.1,
                begin.2,
                self.path.display()
            ))),
            _ => Ok(()),
        }
    }

    /// Asks this node's supervisor and its peers for their reports; none if only a journal is read.
    pub(super) fn ask(&self, outside: &dyn Outside) -> BTreeMap<NodeId, Answer> {
        let Some(config) = &self.config else { return BTreeMap::new() };
        let this = Question { node: config.node.id, address: live::reachable(config.node.listen) };
        let peers = config.peers.iter().map(|peer| Question { node: peer.id, address: peer.address.clone() });
        let questions: Vec<Question> = std::iter::once(this).chain(peers).collect();
        let mut answers = outside.ask(&questions);
        for question in questions {
            if let Some(answer) = answers.get_mut(&question.node) {
                refuse_a_stranger(answer, &question, config);
            }
        }
        answers
    }
}

/// A port may have been taken by another cluster's supervisor, such as a second copy of the demo.
fn refuse_a_stranger(answer: &mut Answer, question: &Question, config: &Config) {
    if let Ok(report) = answer
        && (report.cluster_id, report.node) != (config.cluster.id, question.node)
    {
        let words = format!(
            "{} is answered by node {} of cluster {}, not by node {} of this cluster",
            question.address, report.node, report.cluster_id, question.node
        );
        *answer = Err(Silence { not_running: true, words });
    }
}

fn demand_identity(path: &Path, found: Identity, config: &Config) -> Result<(), JournalError> {
    if (found.cluster_id, found.node_id) == (config.cluster.id, config.node.id) {
        return Ok(());
    }
    Err(JournalError::OtherIdentity {
        path: path.to_owned(),
        found_node: found.node_id,
        found_cluster: found.cluster_id,
        node: config.node.id,
        cluster: config.cluster.id,
    })
}
