//! `interrex import`: an export back into a journal.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use interrex_actors::env::SystemEnv;
use interrex_events::{
    Broken, Epoch, Head, NodeId, NodeSeq, Record,
    export::{Part, Survey},
    journal::{Identity, Journal, JournalError, Selection},
};
use serde::Serialize;
use tempfile::{NamedTempFile, TempPath};

use super::super::{
    arguments,
    exit::Exit,
    failure::Failure,
    interrupt::Interrupt,
    output::{self, Output},
    progress::Progress,
    store::Store,
};

/// Events that share a transaction.
const BATCH: usize = 1000;

/// What became of it.
#[derive(Serialize)]
struct Imported {
    journal: String,
    /// Whether the journal was made.
    created: bool,
    added: u64,
    /// Events that were there already.
    known: u64,
    heads: Vec<Head>,
}

/// Imports it.
pub(in crate::cli) fn run(arguments: &arguments::Import, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let interrupt = Interrupt::listen()?;
    let path = &arguments.journal;
    let folder = super::folder_of(path);
    let spooled = match arguments.file.as_path() {
        file if file == Path::new("-") => Some(spool(folder, &interrupt)?),
        _ => None,
    };
    let file = spooled.as_ref().map_or(arguments.file.as_path(), |spooled| spooled.path());
    if !file.exists() {
        return Err(Failure::Usage(format!("there is no file {} to import", file.display())));
    }
    let from = Store::open(file)?;
    let there = if path.exists() { Some(Store::open(path)?) } else { None };
    let job = Job::look(&from, there.as_ref(), path, &interrupt)?;
    let created = there.is_none();
    drop(there);
    let heads = match created {
        true => job.create(path, folder)?,
        false if job.new == 0 => job.there.clone(),
        false => job.add_to(path)?,
    };
    let imported =
        Imported { journal: path.display().to_string(), created, added: job.new, known: job.known, heads };
    if arguments.json {
        output.json(&imported)?;
    } else {
        output.line(&imported.in_words())?;
    }
    Ok(Exit::Fine)
}

/// What comes through a pipe is read twice, and so it is kept for as long as that takes.
fn spool(folder: &Path, interrupt: &Interrupt) -> Result<NamedTempFile, Failure> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Err(Failure::Usage(
            "standard input is a terminal: name a file, or write `... | interrex import -`".to_owned(),
        ));
    }
    let mut file =
        tempfile::Builder::new().prefix(".interrex-import-").tempfile_in(folder).map_err(failed)?;
    let mut stdin = stdin.lock();
    loop {
        interrupt.check()?;
        let part = io::copy(&mut io::Read::take(&mut stdin, 1 << 20), &mut file).map_err(failed)?;
        if part == 0 {
            return Ok(file);
        }
    }
}

fn failed(error: io::Error) -> Failure {
    Failure::Other { what: "cannot write the journal".to_owned(), source: Some(error.into()) }
}

/// An import that was found to fit.
struct Job<'a> {
    from: &'a Store,
    interrupt: &'a Interrupt,
    identity: Identity,
    new: u64,
    known: u64,
    /// The newest event of each node in the journal that is there.
    there: Vec<Head>,
}

impl<'a> Job<'a> {
    /// Reads all of it before anything is written: a damaged export, a gap and a fork are found here.
    fn look(
        from: &'a Store,
        there: Option<&Store>,
        path: &Path,
        interrupt: &'a Interrupt,
    ) -> Result<Self, Failure> {
        let identity = from.identity();
        if from.has_gaps() {
            return Err(Failure::Usage(
                "the export holds the events of one run only, and a journal has all events: export again without --run"
                    .to_owned(),
            ));
        }
        let heads = match there {
            Some(there) => demand_sound(there, identity, path)?,
            None => Vec::new(),
        };
        let newest_there = |node: NodeId| {
            let head = heads.iter().find(|head| head.node_id == node);
            head.map_or(NodeSeq(0), |head| head.node_seq)
        };
        let mut survey = Survey::of(Part::default());
        let mut new = 0;
        let progress = Progress::of("checking the import".to_owned(), None);
        visit(from, |record| {
            interrupt.check()?;
            progress.step();
            let broken = |broken: Broken| Failure::Unusable(format!("nothing was imported: {broken}"));
            survey.take(&record).map_err(broken)?;
            match there.filter(|_| record.node_seq <= newest_there(record.node_id)) {
                Some(there) => demand_same(&record, there)?,
                None => new += 1,
            }
            Ok(())
        })?;
        let gap = survey.begins().into_iter().find(|begin| begin.node_seq > newest_there(begin.node_id));
        if let Some(begin) = gap {
            let first_missing = newest_there(begin.node_id).next();
            return Err(Failure::Unusable(format!(
                "events {first_missing} to {} of node {} are missing: they are neither in the export nor in {}; import \
                 an export that holds them first",
                begin.node_seq,
                begin.node_id,
                path.display()
            )));
        }
        Ok(Self { from, interrupt, identity, new, known: survey.events() - new, there: heads })
    }

    /// Makes the journal in a temporary folder next to its place, and moves it there once it is complete.
    fn create(&self, path: &Path, folder: &Path) -> Result<Vec<Head>, Failure> {
        let beside =
            tempfile::Builder::new().prefix(".interrex-import-").tempdir_in(folder).map_err(failed)?;
        let file = beside.path().join("journal.db");
        let heads = self.add_to(&file)?;
        std::fs::File::open(&file).and_then(|file| file.sync_all()).map_err(failed)?;
        let moved = TempPath::try_from_path(file).and_then(|file| Ok(file.persist_noclobber(path)?));
        moved.map_err(failed)?;
        std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(heads)
    }

    fn add_to(&self, path: &Path) -> Result<Vec<Head>, Failure> {
        let journal = Journal::open(path, self.identity, Arc::new(SystemEnv))?;
        let progress = Progress::of(format!("writing {}", path.display()), Some(self.new + self.known));
        let mut batch = Vec::with_capacity(BATCH);
        visit(self.from, |record| {
            self.interrupt.check()?;
            progress.step();
            batch.push(record);
            if batch.len() == BATCH { store(&journal, std::mem::take(&mut batch)) } else { Ok(()) }
        })?;
        store(&journal, batch)?;
        Ok(journal.heads())
    }
}

fn visit(from: &Store, mut visit: impl FnMut(Record) -> Result<(), Failure>) -> Result<(), Failure> {
    let flow = from.try_for_each(&Selection::default(), |record| {
        visit(record).map_or_else(ControlFlow::Break, ControlFlow::Continue)
    })?;
    flow.break_value().map_or(Ok(()), Err)
}

/// The journal that is there: the same node's, and sound. How far it goes.
fn demand_sound(there: &Store, identity: Identity, path: &Path) -> Result<Vec<Head>, Failure> {
    let found = there.identity();
    if !matches!(there, Store::Journal(_)) {
        return Err(Failure::Usage(format!("{} is an export: name a journal to make", path.display())));
    }
    if found != identity {
        return Err(Failure::Unusable(format!(
            "{} belongs to node {} of cluster {}, and the import to node {} of cluster {}",
            path.display(),
            found.node_id,
            found.cluster_id,
            identity.node_id,
            identity.cluster_id
        )));
    }
    let walked = there.verify()?;
    if let Some(broken) = walked.broken {
        return Err(JournalError::Damaged { path: path.to_owned(), broken }.into());
    }
    Ok(walked.heads)
}

/// An event that is there already must be the same one.
fn demand_same(record: &Record, there: &Store) -> Result<(), Failure> {
    match there.find(record.node_id, record.node_seq)? {
        Some(other) if other.hash != record.hash => Err(Failure::Unusable(format!(
            "the import and the journal are not parts of one story: event {} of node {} is {} in the import and {} in the \
             journal; nothing was changed, keep both",
            record.node_seq,
            record.node_id,
            record.hash.short(),
            other.hash.short()
        ))),
        _ => Ok(()),
    }
}

/// Stores events, each node's in its order, and waits until they are on disk.
fn store(journal: &Journal, records: Vec<Record>) -> Result<(), Failure> {
    let mut answers = Vec::new();
    for (learned_in, records) in of_one_node_each(records) {
        answers.push(journal.store_copies(records, learned_in)?);
    }
    let ended = || JournalError::Failed {
        path: PathBuf::from("the journal"),
        detail: "its writer ended unexpectedly".to_owned(),
    };
    for answer in answers {
        answer.blocking_recv().map_err(|_| ended())??;
    }
    Ok(())
}

/// The events node by node, with the epoch in which the exported store learned of them.
fn of_one_node_each(records: Vec<Record>) -> Vec<(Epoch, Vec<Record>)> {
    let mut groups: Vec<(Epoch, Vec<Record>)> = Vec::new();
    let mut newest: BTreeMap<NodeId, usize> = BTreeMap::new();
    for record in records {
        let group =
            newest.get(&record.node_id).filter(|index| groups[**index].0 == record.learned_in).copied();
        let index = group.unwrap_or_else(|| {
            groups.push((record.learned_in, Vec::new()));
            groups.len() - 1
        });
        newest.insert(record.node_id, index);
        groups[index].1.push(record);
    }
    groups
}

impl Imported {
    fn in_words(&self) -> String {
        let heads: Vec<String> =
            self.heads.iter().map(|head| format!("{}/{}", head.node_id, head.node_seq)).collect();
        let up_to = if heads.is_empty() { "no event".to_owned() } else { heads.join(" and ") };
        let words = match (self.created, self.added) {
            (true, added) => format!("{}: made, with {added} events, up to {up_to}", self.journal),
            (false, 0) => format!("{}: nothing was missing", self.journal),
            (false, added) => {
                format!(
                    "{}: {added} events added, {} were there already, up to {up_to}",
                    self.journal, self.known
                )
            }
        };
        output::harmless(&words)
    }
}
