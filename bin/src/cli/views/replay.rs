//! `interrex replay`: how the state changed, change by change, each with the event that made it.

use std::{ops::ControlFlow, time::Duration};

use chrono::{DateTime, NaiveDate, Utc};
use interrex_events::{EventId, Place, Record, journal::Selection};
use interrex_projections::{Cluster, ClusterNodes, Entry, Level, Projection as _};
use serde::Serialize;

use super::super::{
    arguments,
    changes::{Before, Change, Subject},
    exit::Exit,
    failure::Failure,
    output::{Output, Style, Tone},
    outside::Outside,
    progress::Progress,
    source::Source,
    table::{Cell, Table},
    when,
};

/// An event that changed something, and what it changed.
#[derive(Serialize)]
struct Changed {
    event_id: EventId,
    #[serde(flatten)]
    entry: Entry,
    changes: Vec<Change>,
}

/// How fast the changes follow each other.
#[derive(Clone, Copy)]
enum Pace {
    AtOnce,
    /// So many times as fast as it happened.
    Times(f64),
    /// One change each time a person presses Enter.
    Step,
}

/// Shows them.
pub(in crate::cli) fn show(
    arguments: &arguments::Replay,
    outside: &dyn Outside,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let moments = arguments.from.iter().chain(&arguments.until);
    let source = Source::open_for(&arguments.reading, moments)?;
    let (first, last) = span(arguments, &source, outside)?;
    let pace = match (arguments.step, arguments.speed) {
        (true, _) if !outside.has_keyboard() => {
            return Err(Failure::Usage(
                "--step waits for Enter, and standard input is not a terminal: leave --step out, or use --speed"
                    .to_owned(),
            ));
        }
        (true, _) => Pace::Step,
        (false, Some(speed)) => Pace::Times(speed),
        (false, None) => Pace::AtOnce,
    };
    let mut replay =
        Replay { pace, json: arguments.reading.json, outside, output, shown: 0, events: 0, last_shown: None };
    replay.run(&source, first, last)?;
    let Replay { shown, events, .. } = replay;
    if !arguments.reading.json {
        output.line(&format!("{shown} of {events} events changed something."))?;
    }
    Ok(Exit::Fine)
}

/// The places between which the story is shown; `None` is the beginning, or the end.
fn span(
    arguments: &arguments::Replay,
    source: &Source,
    outside: &dyn Outside,
) -> Result<(Option<Place>, Option<Place>), Failure> {
    let now = outside.now();
    let find = |moment: Option<_>| moment.map(|moment: super::Moment| moment.find(source, now)).transpose();
    let (from, until) = (find(arguments.from)?, find(arguments.until)?);
    if let (Some(from), Some(until)) = (from, until)
        && from.first > until.last
    {
        return Err(Failure::Usage(format!("--from ({}) is later than --until ({})", from.at, until.at)));
    }
    Ok((from.map(|cut| cut.first), until.map(|cut| cut.last)))
}

struct Replay<'a, 'b> {
    pace: Pace,
    json: bool,
    outside: &'a dyn Outside,
    output: &'a mut Output<'b>,
    shown: u64,
    events: u64,
    last_shown: Option<DateTime<Utc>>,
}

impl Replay<'_, '_> {
    /// Folds the stream from its beginning, and shows what changes from `first` to `last`.
    fn run(&mut self, source: &Source, first: Option<Place>, last: Option<Place>) -> Result<(), Failure> {
        let mut cluster: Cluster = source.beginning();
        let mut progress = Some(Progress::of(format!("reading {}", source.path.display()), None));
        source.for_each(&Selection::default(), |record| {
            if last.is_some_and(|last| record.place() > last) {
                return Ok(ControlFlow::Break(()));
            }
            let envelope = record.open();
            if first.is_some_and(|first| record.place() < first) {
                cluster.apply(&envelope);
                progress.iter().for_each(Progress::step);
                return Ok(ControlFlow::Continue(()));
            }
            progress = None;
            let before = Before::event(&cluster, record.run_id);
            cluster.apply(&envelope);
            self.events += 1;
            let changes = before.changes_to(&cluster, record.run_id);
            if changes.is_empty() {
                return Ok(ControlFlow::Continue(()));
            }
            let entry = Entry::of(&envelope, &cluster.nodes, &cluster.runs);
            self.show(&record, &Changed { event_id: record.event_id, entry, changes }, &cluster.nodes)
        })
    }

    fn show(
        &mut self,
        record: &Record,
        changed: &Changed,
        nodes: &ClusterNodes,
    ) -> Result<ControlFlow<()>, Failure> {
        if self.wait(record.recorded_at)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        if self.json {
            self.output.json_line(changed)?;
        } else {
            let last_day = self.last_shown.map(|last| last.date_naive());
            let text = in_text(changed, nodes, last_day, self.output.style);
            self.output.text(&text)?;
        }
        self.shown += 1;
        self.last_shown = Some(record.recorded_at);
        Ok(ControlFlow::Continue(()))
    }

    /// Until it is the next change's turn; breaks off when the reader is gone.
    fn wait(&mut self, next: DateTime<Utc>) -> Result<ControlFlow<()>, Failure> {
        let Some(last) = self.last_shown else { return Ok(ControlFlow::Continue(())) };
        let goes_on = match self.pace {
            Pace::AtOnce => true,
            Pace::Times(speed) => {
                self.output.flush()?;
                let between = (next - last).to_std().unwrap_or(Duration::ZERO);
                self.outside.wait(between.div_f64(speed))?
            }
            Pace::Step => {
                self.output.flush()?;
                self.outside.wait_for_enter()?
            }
        };
        Ok(if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    }
}

/// The event in a sentence, and beneath it what it changed, a line a subject.
fn in_text(changed: &Changed, nodes: &ClusterNodes, last_day: Option<NaiveDate>, style: Style) -> String {
    let entry = &changed.entry;
    let mut table = Table::plain();
    let day = entry.at.date_naive();
    if last_day != Some(day) {
        table.row([Cell::toned(Tone::Strong, day.to_string())]);
    }
    let tone = match entry.level {
        Level::Info => Tone::Plain,
        Level::Notice => Tone::Strong,
        Level::Alarm => Tone::Bad,
    };
    let event = format!("{:>7}", format!("{}/{}", entry.node, entry.node_seq));
    table.row([when::time(entry.at).into(), Cell::toned(Tone::Faint, event), Cell::toned(tone, &entry.text)]);
    for change in &changed.changes {
        let fields = change.in_words(nodes).into_iter().map(|(field, words)| format!("{field}: {words}"));
        let fields = fields.collect::<Vec<_>>().join("; ");
        let line = match &change.subject {
            Subject::Cluster => fields,
            subject => format!("{}: {fields}", subject.name()),
        };
        table.row([Cell::default(), Cell::default(), Cell::toned(Tone::Good, format!("=> {line}"))]);
    }
    table.render(style)
}
