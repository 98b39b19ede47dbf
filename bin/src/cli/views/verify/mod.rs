//! `interrex journal verify`: whether a journal or an export is what was recorded, and what others hold of it.

mod copies;
mod sealed;

use interrex_events::{Broken, ClusterId, Head, NodeId};
use serde::Serialize;

use self::{copies::Copies, sealed::Sealed};
use super::super::{
    arguments::Reading,
    exit::Exit,
    failure::Failure,
    output::{Output, Style, Tone},
    outside::Outside,
    progress::Progress,
    source::Source,
    store::Store,
    table::Table,
};

#[derive(Serialize)]
struct Verified {
    journal: String,
    kind: &'static str,
    cluster_id: ClusterId,
    node: NodeId,
    /// Whether every chain here is what was recorded.
    sound: bool,
    /// Whether the chains have gaps, as in the export of one run.
    has_gaps: bool,
    events: u64,
    heads: Vec<Head>,
    broken: Option<Broken>,
    problem: Option<String>,
    /// Events that are in files of their own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sealed: Vec<Sealed>,
    /// What live supervisors hold of the same journals; `None` if no supervisor was asked.
    copies: Option<Copies>,
}

/// Walks every chain, and compares where it ends with what live supervisors hold.
pub(in crate::cli) fn show(
    reading: &Reading,
    outside: &dyn Outside,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let source = Source::open_in_silence(reading, [])?;
    // asked before the walk: what others hold by now, this journal must hold too
    let answers = source.ask(outside);
    let stream = match (&source.config, &source.store) {
        (Some(config), Store::Journal(_)) => Some(outside.verify_cluster_events(config)),
        _ => None,
    };
    let progress = Progress::of(format!("checking {}", source.path.display()), None);
    let walked = source.store.verify()?;
    let sealed = sealed::check(&source.store.segments()?, &source.segments_folder());
    drop(progress);
    let sound = walked.problem.is_none();
    let copies = match &source.config {
        Some(config) => Some(Copies::compare(&source, config, &walked, &answers, stream)?),
        None => None,
    };
    let identity = source.identity();
    let verified = Verified {
        journal: source.path.display().to_string(),
        kind: source.store.kind(),
        cluster_id: identity.cluster_id,
        node: identity.node_id,
        sound,
        has_gaps: source.store.has_gaps(),
        events: walked.events,
        heads: walked.heads,
        broken: walked.broken,
        problem: walked.problem,
        sealed,
        copies,
    };
    if reading.json {
        output.json(&verified)?;
    } else {
        let text = in_text(&verified, output.style);
        output.text(&text)?;
    }
    let alarmed = verified.copies.as_ref().is_some_and(Copies::alarmed) || sealed::alarmed(&verified.sealed);
    Ok(if sound && !alarmed { Exit::Fine } else { Exit::JournalUnusable })
}

fn in_text(verified: &Verified, style: Style) -> String {
    let title = match verified.kind {
        "export" => "Export of the events of",
        "cluster_events" => "cluster_events as read by",
        _ => "Journal of",
    };
    let mut text = format!("{title} node {}, cluster {}\n", verified.node, verified.cluster_id);
    text.push_str(&chains(verified, style));
    if !verified.sealed.is_empty() {
        text.push('\n');
        text.push_str(&sealed::in_text(&verified.sealed, style));
    }
    if let Some(copies) = &verified.copies {
        text.push('\n');
        text.push_str(&copies.in_text(style));
    }
    text
}

fn chains(verified: &Verified, style: Style) -> String {
    let verdict = match &verified.problem {
        None if verified.has_gaps => style.paint(
            Tone::Good,
            "SOUND: every event is as it was recorded; events between them are not in this export",
        ),
        None => style
            .paint(Tone::Good, "SOUND: every event is as it was recorded, and none is missing between them"),
        Some(problem) => style.paint(Tone::Bad, &format!("DAMAGED: {problem}")),
    };
    let mut heads = Table::headed(["NODE", "EVENTS", "HASH OF THE NEWEST"]).right([0, 1]);
    for head in &verified.heads {
        heads.row([
            head.node_id.to_string().into(),
            head.node_seq.to_string().into(),
            head.hash.to_string().into(),
        ]);
    }
    let next = match (&verified.problem, verified.kind) {
        (None, _) => "",
        (Some(_), "export") => "\nKeep the file as evidence, and export the events again.\n",
        (Some(_), _) => "\nKeep the file as evidence, and restore the journal from a copy or from a peer.\n",
    };
    format!("{verdict}\n{} events checked\n\n{}{next}", verified.events, heads.render(style))
}
