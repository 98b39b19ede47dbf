//! `interrex export`: the events in a file of their own, or on standard output.

use std::{
    io::{self, Write},
    ops::ControlFlow,
    path::Path,
};

use interrex_events::{
    Head, Record,
    export::{ExportHeader, ExportReader, ExportWriter, Packing, Part, Survey},
    journal::{JournalError, Selection},
};
use interrex_projections::human_bytes;
use serde::Serialize;
use tempfile::NamedTempFile;

use super::super::{
    arguments,
    exit::Exit,
    failure::Failure,
    interrupt::Interrupt,
    output::{self, Output},
    outside::Outside,
    progress::Progress,
    source::Source,
};

/// What was written.
#[derive(Serialize)]
struct Exported<'a> {
    file: String,
    bytes: u64,
    #[serde(flatten)]
    header: &'a ExportHeader,
}

/// Writes it.
pub(in crate::cli) fn run(
    arguments: &arguments::Export,
    outside: &dyn Outside,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let source = Source::open(&arguments.reading)?;
    let selection = super::selection(&arguments.span, &source, outside)?;
    let file = arguments.output.as_deref().filter(|path| *path != Path::new("-"));
    let to = Destination::of(file, &source)?;
    let job = Job::survey(&source, selection, outside)?;
    match to {
        Destination::Standard => {
            job.write(output.writer(), Packing::Plain, || Ok(()))?;
        }
        Destination::Device(path) => {
            let device = std::fs::OpenOptions::new().write(true).open(path)?;
            job.write(device, Packing::named(path), || Ok(()))?;
        }
        Destination::File(path) => {
            let bytes = job.write_file(path)?;
            let exported = Exported { file: path.display().to_string(), bytes, header: &job.header };
            if arguments.reading.json {
                output.json(&exported)?;
            } else {
                output.line(&exported.in_words())?;
            }
        }
    }
    Ok(Exit::Fine)
}

/// Where it goes.
enum Destination<'a> {
    Standard,
    /// Something that cannot be replaced by another file, such as /dev/null.
    Device(&'a Path),
    File(&'a Path),
}

impl<'a> Destination<'a> {
    /// An export is replaced by a newer one of the same node; anything else that is there is left alone.
    fn of(path: Option<&'a Path>, source: &Source) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self::Standard) };
        if path.is_dir() {
            return Err(Failure::Usage(format!(
                "{} is a folder: name a file in it, such as {}",
                path.display(),
                path.join("events.jsonl.zst").display()
            )));
        }
        if !path.exists() {
            return Ok(Self::File(path));
        }
        if !path.is_file() {
            return Ok(Self::Device(path));
        }
        let identity = source.identity();
        let is_older_export = ExportReader::open(path).is_ok_and(|there| {
            (there.header().cluster_id, there.header().node) == (identity.cluster_id, identity.node_id)
        });
        if is_older_export {
            return Ok(Self::File(path));
        }
        Err(Failure::Usage(format!(
            "{} exists and is not an export of node {}: name another file, or remove that file first",
            path.display(),
            identity.node_id
        )))
    }
}

/// All that is to be written.
struct Job<'a> {
    source: &'a Source,
    selection: Selection,
    survey: Survey,
    header: ExportHeader,
}

impl<'a> Job<'a> {
    /// Reads every event first: the header says how many there are and where they end, and a damaged journal
    /// is not exported.
    fn survey(source: &'a Source, selection: Selection, outside: &dyn Outside) -> Result<Self, Failure> {
        let Selection { run, since, until, .. } = selection;
        let mut survey = Survey::of(Part { run, since, until });
        let progress = Progress::of(format!("checking {}", source.path.display()), None);
        source.for_each(&selection, |record| {
            progress.step();
            let damaged = |broken| JournalError::Damaged { path: source.path.clone(), broken };
            survey.take(&record).map_err(damaged)?;
            Ok(ControlFlow::Continue(()))
        })?;
        let identity = source.identity();
        let header = survey.header(identity.cluster_id, identity.node_id, outside.now());
        Ok(Self { source, selection, survey, header })
    }

    /// Writes header and records; `go_on` is asked before each.
    fn write<W: Write>(
        &self,
        sink: W,
        packing: Packing,
        go_on: impl Fn() -> Result<(), Failure>,
    ) -> Result<W, Failure> {
        let progress =
            Progress::of(format!("exporting {}", self.source.path.display()), Some(self.header.events));
        let mut writer = ExportWriter::begin(sink, packing, &self.header)?;
        self.source.for_each(&self.selection, |record: Record| {
            go_on()?;
            if self.survey.covers(&record) {
                progress.step();
                writer.write(&record)?;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(writer.finish()?)
    }

    /// Writes a temporary file in the same folder, and renames it once it is complete and on disk.
    fn write_file(&self, path: &Path) -> Result<u64, Failure> {
        let failed = |error: io::Error| Failure::Other {
            what: format!("cannot write {}", path.display()),
            source: Some(error.into()),
        };
        let interrupt = Interrupt::listen()?;
        let folder = super::folder_of(path);
        let beside = tempfile::Builder::new().prefix(".interrex-export-").tempfile_in(folder);
        let written = self.write(beside.map_err(failed)?, Packing::named(path), || interrupt.check());
        let file: NamedTempFile = written.map_err(|failure| match failure {
            Failure::Output(error) => failed(error),
            other => other,
        })?;
        file.as_file().sync_all().map_err(failed)?;
        let bytes = file.as_file().metadata().map_err(failed)?.len();
        file.persist(path).map_err(|error| failed(error.error))?;
        std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(bytes)
    }
}

impl Exported<'_> {
    fn in_words(&self) -> String {
        let heads: Vec<String> = self
            .header
            .heads
            .iter()
            .map(|head: &Head| format!("{}/{}", head.node_id, head.node_seq))
            .collect();
        let up_to = if heads.is_empty() { String::new() } else { format!(", up to {}", heads.join(" and ")) };
        let line = format!(
            "{}: {} events of node {}'s store{up_to}, {}",
            self.file,
            self.header.events,
            self.header.node,
            human_bytes(self.bytes)
        );
        output::harmless(&line)
    }
}
