//! `interrex timeline`: the story, one sentence an event.

use std::ops::ControlFlow;

use interrex_events::{RunId, journal::Selection};
use interrex_projections::{Entry, Level, Projection as _, Timeline};

use super::super::{
    arguments,
    exit::Exit,
    failure::Failure,
    output::{Output, Style, Tone},
    outside::Outside,
    source::Source,
    store,
    table::{Cell, Table},
    when,
};

/// Shows it.
pub(in crate::cli) fn show(
    arguments: &arguments::Timeline,
    outside: &dyn Outside,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let source = Source::open(&arguments.reading)?;
    let selection = super::selection(&arguments.span, &source, outside)?;
    let entries = entries(&source, &selection)?;
    if arguments.reading.json {
        entries.iter().try_for_each(|entry| output.json_line(entry))?;
    } else if entries.is_empty() {
        output.line("Nothing was recorded there.")?;
    } else {
        let text = in_text(&entries, selection.run.is_none(), output.style);
        output.text(&text)?;
    }
    Ok(Exit::Fine)
}

/// The selected lines. Names come from the whole stream: a run alone does not say who its nodes are.
fn entries(source: &Source, selection: &Selection) -> Result<Vec<Entry>, Failure> {
    let mut timeline: Timeline = source.beginning();
    let mut entries = Vec::new();
    source.whole(|record| {
        timeline.apply(&record.open());
        if store::is_selected(&record, selection) {
            entries.append(&mut timeline.entries);
        } else {
            timeline.entries.clear();
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(entries)
}

fn in_text(entries: &[Entry], with_run: bool, style: Style) -> String {
    let with_run = with_run && entries.iter().any(|entry| entry.run_id.is_some());
    let mut headings = vec!["TIME (UTC)", "NODE", "", "WHAT HAPPENED  (* a change, ! something wrong)"];
    if with_run {
        headings.insert(2, "RUN");
    }
    let mut table = Table::headed(headings);
    let mut day = None;
    for entry in entries {
        let date = entry.at.date_naive();
        if day.replace(date) != Some(date) {
            table.row([Cell::toned(Tone::Strong, date.to_string())]);
        }
        let mut cells = vec![
            Cell::from(when::time(entry.at)),
            Cell::from(&entry.node_name),
            mark(entry.level),
            sentence(entry),
        ];
        if with_run {
            let run = entry.run_id.map(RunId::short).unwrap_or_default();
            cells.insert(2, Cell::toned(Tone::Faint, run));
        }
        table.row(cells);
    }
    table.render(style)
}

fn mark(level: Level) -> Cell {
    match level {
        Level::Info => Cell::default(),
        Level::Notice => Cell::toned(Tone::Warning, "*"),
        Level::Alarm => Cell::toned(Tone::Bad, "!"),
    }
}

fn sentence(entry: &Entry) -> Cell {
    let tone = match entry.level {
        Level::Info => Tone::Plain,
        Level::Notice => Tone::Strong,
        Level::Alarm => Tone::Bad,
    };
    let by = entry.actor.as_ref().map(|actor| format!(" (by {actor})")).unwrap_or_default();
    // an old main's last events: no node acted on them, because no other node knew them at the time
    let later = if entry.learned_later { " (learned later)" } else { "" };
    Cell::toned(tone, format!("{}{by}{later}", entry.text))
}
