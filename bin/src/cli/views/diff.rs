//! `interrex diff`: what is different between two moments, in the whole state.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use interrex_events::{Envelope, Hlc, NodeId, NodeSeq};
use interrex_projections::{Cluster, Projection};
use serde::Serialize;

use super::super::{
    arguments,
    changes::{self, Change},
    exit::Exit,
    failure::Failure,
    moment::Cut,
    output::{Output, Style, Tone},
    outside::Outside,
    sight::Rebuilt,
    source::{Past, Source},
    table::{Cell, Table},
    when,
};

/// The state, and how many events of each kind made it.
#[derive(Default)]
struct Tally {
    cluster: Cluster,
    kinds: BTreeMap<String, u64>,
}

impl Projection for Tally {
    fn apply(&mut self, envelope: &Envelope) {
        self.cluster.apply(envelope);
        *self.kinds.entry(envelope.event.kind().to_owned()).or_default() += 1;
    }
}

/// One of the two moments.
#[derive(Serialize)]
struct Side {
    at: DateTime<Utc>,
    #[serde(flatten)]
    rebuilt: Rebuilt,
}

#[derive(Serialize)]
struct Diff {
    from: Side,
    to: Side,
    /// Events between the two.
    events: u64,
    /// Of each kind.
    kinds: BTreeMap<String, u64>,
    changes: Vec<Change>,
}

/// Shows it; the earlier moment is always the first.
pub(in crate::cli) fn show(
    arguments: &arguments::Diff,
    outside: &dyn Outside,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let source = Source::open_for(&arguments.reading, &arguments.at)?;
    let now = outside.now();
    let find = |moment: &super::Moment| moment.find(&source, now);
    let (one, other) = match arguments.at.as_slice() {
        [one] => (find(one)?, newest(now)),
        [one, other] => (find(one)?, find(other)?),
        more => {
            return Err(Failure::Usage(format!(
                "diff compares two moments, and {} are given: write --at A --at B",
                more.len()
            )));
        }
    };
    let earlier = match (one.pos, other.pos) {
        (Some(one), Some(other)) => one <= other,
        _ => one.last <= other.last,
    };
    let (first, second) = if earlier { (one, other) } else { (other, one) };
    let before: Past<Tally> = source.fold_up_to(&first)?;
    let after: Past<Tally> = source.fold_up_to(&second)?;
    let diff = Diff {
        events: after.events.saturating_sub(before.events),
        kinds: kinds_between(&before.folded.kinds, &after.folded.kinds),
        changes: changes::between(&before.folded.cluster, &after.folded.cluster),
        from: Side { at: first.at, rebuilt: Rebuilt::of(&before, &first, now) },
        to: Side { at: second.at, rebuilt: Rebuilt::of(&after, &second, now) },
    };
    if arguments.reading.json {
        output.json(&diff)?;
    } else {
        let text = in_text(&diff, &after.folded.cluster, output.style);
        output.text(&text)?;
    }
    Ok(Exit::Fine)
}

/// All there is, now.
fn newest(now: DateTime<Utc>) -> Cut {
    let end = (Hlc(i64::MAX), NodeId(u32::MAX), NodeSeq(u64::MAX));
    Cut { first: end, last: end, at: now, pos: None }
}

fn kinds_between(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let more = after.iter().map(|(kind, count)| {
        let known = before.get(kind).copied().unwrap_or_default();
        (kind.clone(), count.saturating_sub(known))
    });
    more.filter(|(_, count)| *count > 0).collect()
}

fn in_text(diff: &Diff, after: &Cluster, style: Style) -> String {
    let mut sides = Table::plain();
    for (label, side) in [("FROM", &diff.from), ("TO", &diff.to)] {
        let moment = format!("{}, {}", when::date_and_time_utc(side.at), side.rebuilt.in_words());
        sides.row([Cell::toned(Tone::Strong, label), moment.into()]);
        if let Some(note) = &side.rebuilt.note {
            sides.row([Cell::default(), Cell::toned(Tone::Warning, note)]);
        }
    }
    let mut table = Table::plain();
    for change in &diff.changes {
        let mut name = change.subject.name();
        for (field, words) in change.in_words(&after.nodes) {
            table.row([Cell::toned(Tone::Strong, std::mem::take(&mut name)), field.into(), words.into()]);
        }
    }
    if diff.changes.is_empty() {
        table.row(["Nothing is different.".into()]);
    }
    let mut events = Table::plain();
    let kinds: Vec<String> = diff.kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let words = match diff.events {
        0 => "none between the two".to_owned(),
        count => format!("{count} between the two: {}", kinds.join(", ")),
    };
    events.row([Cell::toned(Tone::Strong, "EVENTS"), words.into()]);
    format!("{}\n{}\n{}", sides.render(style), table.render(style), events.render(style))
}
