//! What each command shows.

pub(super) mod config;
pub(super) mod diff;
pub(super) mod doctor;
pub(super) mod events;
pub(super) mod export;
pub(super) mod import;
pub(super) mod nodes;
pub(super) mod plan;
pub(super) mod replay;
pub(super) mod run;
pub(super) mod runs;
pub(super) mod status;
pub(super) mod timeline;
pub(super) mod verify;

use std::path::Path;

use interrex_events::journal::Selection;

use super::{
    arguments::Span, failure::Failure, moment::Moment, outside::Outside, source::Source, story::Story,
};

/// The part of the stream that the arguments mean.
fn selection(span: &Span, source: &Source, outside: &dyn Outside) -> Result<Selection, Failure> {
    let now = outside.now();
    let since = span.since.map(|when| when.at(now));
    let until = span.until.map(|when| when.at(now));
    if let (Some(since), Some(until)) = (since, until)
        && since > until
    {
        return Err(Failure::Usage(format!("--since ({since}) is later than --until ({until})")));
    }
    let run = match &span.run {
        Some(text) => Some(source.fold::<Story>()?.find_run(text)?),
        None => None,
    };
    Ok(Selection { run, since, until, ..Selection::default() })
}

/// The folder in which a file is, or will be.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}
