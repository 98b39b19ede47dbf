//! `interrex events`: the events themselves, one a line.

use std::ops::ControlFlow;

use interrex_events::{KINDS, Record, journal::Selection};

use super::super::{
    arguments,
    exit::Exit,
    failure::Failure,
    follow,
    output::{Output, Style, harmless},
    outside::Outside,
    source::Source,
    table, when,
};

/// Shows them; with `--follow`, also those to come.
pub(in crate::cli) fn show(
    arguments: &arguments::Events,
    outside: &dyn Outside,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let source = Source::open(&arguments.reading)?;
    demand_known(&arguments.kinds, &source)?;
    let mut selection = super::selection(&arguments.span, &source, outside)?;
    selection.kinds.clone_from(&arguments.kinds);
    if arguments.follow {
        source.journal()?;
    }
    let json = arguments.reading.json;
    let mut newest = None;
    source.for_each(&selection, |record| {
        newest = Some(record.place());
        write(&record, json, output).map(ControlFlow::Continue)
    })?;
    if arguments.follow {
        output.flush()?;
        selection.after = newest;
        follow::follow(source.journal()?, selection, |records| {
            records.iter().try_for_each(|record| write(record, json, output))?;
            output.flush()
        })?;
    }
    Ok(Exit::Fine)
}

fn write(record: &Record, json: bool, output: &mut Output<'_>) -> Result<(), Failure> {
    if json {
        output.json_line(record)
    } else {
        let line = in_text(record, output.style);
        output.line(&line)
    }
}

fn in_text(record: &Record, style: Style) -> String {
    let identity = format!("{}/{}", record.node_id, record.node_seq);
    let line = format!(
        "{}  {identity:<8} {:<20} {}",
        when::date_and_time_utc(record.recorded_at),
        record.kind,
        record.payload
    );
    table::cut(harmless(&line), style.width)
}

/// A kind that nothing knows is a slip of the pen, and silence would look like an answer. A kind that only the
/// journal knows is from another version, and is as good as any.
fn demand_known(kinds: &[String], source: &Source) -> Result<(), Failure> {
    for kind in kinds {
        if KINDS.iter().any(|known| known.name == kind) {
            continue;
        }
        let selection = Selection { kinds: vec![kind.clone()], ..Selection::default() };
        let mut is_there = false;
        source.for_each(&selection, |_| {
            is_there = true;
            Ok(ControlFlow::Break(()))
        })?;
        if !is_there {
            let likeness = |known: &str| strsim::jaro_winkler(kind, known);
            let nearest = KINDS.iter().max_by(|a, b| likeness(a.name).total_cmp(&likeness(b.name)));
            let nearest = nearest.map_or("", |known| known.name);
            return Err(Failure::Usage(format!(
                "there is no kind `{kind}`; did you mean `{nearest}`? `interrex events --help` lists them all"
            )));
        }
    }
    Ok(())
}
