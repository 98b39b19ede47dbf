//! What was sealed: events that are in files of their own, and whether those files are what was recorded.

use std::{collections::BTreeMap, path::Path};

use interrex_events::{
    Head, NodeId, NodeSeq,
    journal::{Segment, segment_file},
};
use serde::Serialize;

use crate::cli::{
    output::{Style, Tone},
    table::{Cell, Table},
};

/// A run of sealed events of one node.
#[derive(Serialize)]
pub(super) struct Sealed {
    node: NodeId,
    first: NodeSeq,
    last: NodeSeq,
    /// Its file; `None` if this node's copies began after these events.
    file: Option<String>,
    found: Found,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Serialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Found {
    /// The file is there, and every event in it is what was recorded.
    Sound,
    /// The file is not in the folder of segments.
    NotThere,
    /// The file is something else.
    Wrong,
    /// They were sealed by another node, before this one began its copy.
    Elsewhere,
}

/// Looks for the file of every segment, and checks those that are there.
pub(super) fn check(segments: &[Segment], folder: &Path) -> Vec<Sealed> {
    let mut ends: BTreeMap<NodeId, Head> = BTreeMap::new();
    segments
        .iter()
        .map(|segment| {
            let before = ends.insert(segment.node(), segment.end.head).unwrap_or(Head::empty(segment.node()));
            let (found, problem) = match &segment.file {
                None => (Found::Elsewhere, None),
                Some(file) => match segment_file::check(folder, file, segment, Some(before)) {
                    segment_file::Found::Sound => (Found::Sound, None),
                    segment_file::Found::Missing => (Found::NotThere, None),
                    segment_file::Found::Wrong(error) => (Found::Wrong, Some(error.to_string())),
                },
            };
            Sealed {
                node: segment.node(),
                first: segment.first,
                last: segment.last(),
                file: segment.file.as_ref().map(|file| folder.join(&file.name).display().to_string()),
                found,
                problem,
            }
        })
        .collect()
}

/// Whether a file is not what was sealed.
pub(super) fn alarmed(sealed: &[Sealed]) -> bool {
    sealed.iter().any(|segment| segment.found == Found::Wrong)
}

pub(super) fn in_text(sealed: &[Sealed], style: Style) -> String {
    let mut table = Table::headed(["NODE", "SEALED EVENTS", "IN", ""]).right([0]);
    for segment in sealed {
        let (tone, words) = match segment.found {
            Found::Sound => (Tone::Good, "every event is as it was recorded".to_owned()),
            Found::NotThere => (Tone::Plain, "not there: it may have been moved elsewhere".to_owned()),
            Found::Wrong => {
                (Tone::Bad, format!("DAMAGED: {}", segment.problem.as_deref().unwrap_or_default()))
            }
            Found::Elsewhere => (Tone::Plain, "this node's copy begins after them".to_owned()),
        };
        table.row([
            segment.node.to_string().into(),
            format!("{} to {}", segment.first, segment.last).into(),
            segment.file.as_deref().unwrap_or("another node's files").into(),
            Cell::toned(tone, words),
        ]);
    }
    table.render(style)
}
