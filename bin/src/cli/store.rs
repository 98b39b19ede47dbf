//! What is read: a journal, an export, or `cluster_events` in PostgreSQL. Whether a file is a journal or an export,
//! its first bytes tell, not its name.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use interrex_events::{
    Broken, Head, Hlc, NodeId, NodeSeq, Record,
    export::{ExportError, ExportHeader, ExportReader, looks_like_an_export},
    journal::{Identity, JournalError, JournalReader, Segment, Selection, Verify},
};
use interrex_projections::Projection;

use super::{cluster_events::ClusterEvents, failure::Failure};

/// The events of a cluster, in story order.
pub(super) enum Store {
    /// A journal, with or without a running supervisor.
    Journal(JournalReader),
    /// `cluster_events` in PostgreSQL, which has positions.
    ClusterEvents(Box<ClusterEvents>),
    /// An exported file. It is opened again for each reading, and checked each time.
    Export {
        /// The file.
        path: PathBuf,
        /// What it says of itself.
        header: ExportHeader,
    },
}

/// What a walk over every chain of a store found.
pub(super) struct Walked {
    /// Events that were found sound.
    pub(super) events: u64,
    /// The newest sound event of each node.
    pub(super) heads: Vec<Head>,
    /// The first bad event, if it is known.
    pub(super) broken: Option<Broken>,
    /// What is wrong, in a sentence.
    pub(super) problem: Option<String>,
}

impl Store {
    /// Opens a file.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        if !path.exists() {
            return Err(JournalError::Missing(path.to_owned()).into());
        }
        if path.is_dir() {
            return Err(Failure::Usage(format!(
                "{} is a folder: name the journal or the export in it",
                path.display()
            )));
        }
        if !path.is_file() {
            return Err(Failure::Usage(format!(
                "{} is not a file that can be read more than once: name a journal, or save the export first",
                path.display()
            )));
        }
        let unreadable = |error: std::io::Error| ExportError::Unreadable {
            file: path.display().to_string(),
            detail: error.to_string(),
        };
        if looks_like_an_export(path).map_err(unreadable)? {
            let header = ExportReader::open(path)?.header().clone();
            return Ok(Self::Export { path: path.to_owned(), header });
        }
        JournalReader::open(path).map(Self::Journal).map_err(|error| match error {
            JournalError::Failed { detail, .. } if detail.contains("not a database") => Failure::Unusable(format!(
                "{} is neither a journal nor an export: it is not an SQLite file, and does not begin like JSON, gzip or zstd",
                path.display()
            )),
            other => other.into(),
        })
    }

    /// Whose store it is.
    pub(super) fn identity(&self) -> Identity {
        match self {
            Self::Journal(reader) => reader.identity(),
            Self::ClusterEvents(stream) => stream.identity(),
            Self::Export { header, .. } => Identity { cluster_id: header.cluster_id, node_id: header.node },
        }
    }

    /// What it is, for people.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Journal(_) => "journal",
            Self::ClusterEvents(_) => "cluster_events",
            Self::Export { .. } => "export",
        }
    }

    /// A journal's events that are in files of their own.
    pub(super) fn segments(&self) -> Result<Vec<Segment>, Failure> {
        match self {
            Self::Journal(reader) => Ok(reader.segments()?),
            Self::ClusterEvents(_) | Self::Export { .. } => Ok(Vec::new()),
        }
    }

    /// Where an export begins that has not all of its nodes' events.
    pub(super) fn cut_at(&self) -> Vec<Head> {
        match self {
            Self::Export { header, .. } => {
                header.begins.iter().filter(|head| head.node_seq > NodeSeq(0)).copied().collect()
            }
            Self::Journal(_) | Self::ClusterEvents(_) => Vec::new(),
        }
    }

    /// Whether events were left out between two of the same node.
    pub(super) fn has_gaps(&self) -> bool {
        matches!(self, Self::Export { header, .. } if header.part.has_gaps())
    }

    /// Hands every selected event to `visit`, in story order, until that breaks off.
    pub(super) fn try_for_each<B>(
        &self,
        selection: &Selection,
        mut visit: impl FnMut(Record) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, Failure> {
        let path = match self {
            Self::Journal(reader) => return Ok(reader.try_for_each(selection, visit)?),
            Self::ClusterEvents(stream) => {
                return stream.try_for_each(None, |record| {
                    if is_selected(&record, selection) { visit(record) } else { ControlFlow::Continue(()) }
                });
            }
            Self::Export { path, .. } => path,
        };
        for record in ExportReader::open(path)? {
            let record = record?;
            if is_selected(&record, selection)
                && let ControlFlow::Break(value) = visit(record)
            {
                return Ok(ControlFlow::Break(value));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Folds every event, in story order, and says after each that it did.
    pub(super) fn fold<P: Projection>(
        &self,
        mut projection: P,
        mut folded: impl FnMut(),
    ) -> Result<P, Failure> {
        if let Self::Journal(reader) = self {
            // without a copy of any event: that would take longer than its fold
            reader.see_all(None, Verify::Nothing, P::folds, |seen| {
                projection.see(seen);
                folded();
            })?;
            return Ok(projection);
        }
        let _: ControlFlow<()> = self.try_for_each(&Selection::default(), |record| {
            projection.apply_stored(&record.borrowed());
            folded();
            ControlFlow::Continue(())
        })?;
        Ok(projection)
    }

    /// One event.
    pub(super) fn find(&self, node: NodeId, seq: NodeSeq) -> Result<Option<Record>, Failure> {
        if let Self::ClusterEvents(stream) = self {
            return stream.find(node, seq);
        }
        let is_it = |record: &Record| (record.node_id, record.node_seq) == (node, seq);
        if let Self::Journal(reader) = self {
            let page = reader.page(node, NodeSeq(seq.0.saturating_sub(1)), 1)?;
            return Ok(page.into_iter().find(is_it));
        }
        let found = self.try_for_each(&Selection::default(), |record| {
            if is_it(&record) { ControlFlow::Break(record) } else { ControlFlow::Continue(()) }
        })?;
        Ok(found.break_value())
    }

    /// Walks every chain.
    pub(super) fn verify(&self) -> Result<Walked, Failure> {
        match self {
            Self::Journal(reader) => {
                let found = reader.verify()?;
                let problem = found.broken.as_ref().map(ToString::to_string);
                Ok(Walked { events: found.events, heads: found.heads, broken: found.broken, problem })
            }
            Self::ClusterEvents(stream) => {
                let found = stream.verify()?;
                let problem = found.broken.as_ref().map(ToString::to_string).or(found.positions);
                Ok(Walked { events: found.events, heads: found.heads, broken: found.broken, problem })
            }
            Self::Export { path, .. } => verify_export(path),
        }
    }
}

fn verify_export(path: &Path) -> Result<Walked, Failure> {
    let mut reader = ExportReader::open(path)?;
    let mut events = 0;
    let error = loop {
        match reader.next() {
            Some(Ok(_)) => events += 1,
            Some(Err(error)) => break Some(error),
            None => break None,
        }
    };
    let problem = error.as_ref().map(ToString::to_string);
    let broken = match error {
        Some(ExportError::Broken { broken, .. }) => Some(broken),
        _ => None,
    };
    Ok(Walked { events, heads: reader.heads(), broken, problem })
}

/// The same choice as the journal's reader makes.
pub(super) fn is_selected(record: &Record, selection: &Selection) -> bool {
    let begin = selection.since.map(|since| Hlc::from_wall_ms(since.timestamp_millis()));
    let end = selection.until.map(|until| Hlc::from_wall_ms(until.timestamp_millis() + 1));
    selection.run.is_none_or(|run| record.run_id == Some(run))
        && (selection.kinds.is_empty() || selection.kinds.contains(&record.kind))
        && begin.is_none_or(|begin| record.hlc >= begin)
        && end.is_none_or(|end| record.hlc < end)
        && selection.after.is_none_or(|after| record.place() > after)
}
