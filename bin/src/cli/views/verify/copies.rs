//! What live supervisors and `cluster_events` hold of the journals that were checked. A chain cannot show that its
//! newest events were cut off; a copy elsewhere that goes further can.

use std::collections::BTreeMap;

use interrex_events::{Head, NodeId, NodeSeq, cluster_events::StreamVerification};
use serde::Serialize;

use crate::{
    cli::{
        failure::Failure,
        output::{Style, Tone},
        outside::Answer,
        source::Source,
        store::{Store, Walked},
        table::{Cell, Table},
    },
    config::Config,
};

/// What the merged stream is called as a holder of copies.
const STREAM: &str = "cluster_events";

/// Every copy that was reported.
#[derive(Serialize)]
pub(super) struct Copies {
    copies: Vec<Copy>,
    silent: Vec<Silent>,
    /// What is wrong inside `cluster_events`.
    stream_problem: Option<String>,
}

/// One node's copy of one journal.
#[derive(Serialize)]
struct Copy {
    /// Nothing for `cluster_events`.
    held_by: Option<NodeId>,
    holder: String,
    of: NodeId,
    owner: String,
    /// How far the copy goes.
    node_seq: NodeSeq,
    /// How far that journal goes here.
    here: NodeSeq,
    verdict: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    alarm: Option<String>,
}

/// A node that said nothing.
#[derive(Serialize)]
struct Silent {
    /// Nothing for `cluster_events`.
    node: Option<NodeId>,
    name: String,
    words: String,
}

#[derive(Serialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// It ends where the one here ends.
    Same,
    /// It ends earlier, as copies do for a moment.
    Behind,
    /// It goes further than the copy here, which may still get there.
    Ahead,
    /// It goes further than the original: this node's own journal has lost events.
    LostHere,
    /// It has another event at the same place.
    Forked,
    /// The journal here is damaged, and does not tell how far it went.
    NotCompared,
}

impl Copies {
    /// Compares what was walked with what was answered before the walk.
    pub(super) fn compare(
        source: &Source,
        config: &Config,
        walked: &Walked,
        answers: &BTreeMap<NodeId, Answer>,
        stream: Option<Result<StreamVerification, Failure>>,
    ) -> Result<Self, Failure> {
        let mut copies = Vec::new();
        let mut silent = Vec::new();
        for (node, answer) in answers {
            match answer {
                Ok(report) => {
                    for head in report.journal_heads.iter().filter(|head| head.node_seq.0 > 0) {
                        copies.push(Copy::of(*head, Some(*node), source, config, walked)?);
                    }
                }
                Err(silence) => {
                    let name = name(config, *node);
                    silent.push(Silent { node: Some(*node), name, words: silence.words.clone() });
                }
            }
        }
        let mut stream_problem = None;
        match stream {
            Some(Ok(found)) => {
                for head in &found.heads {
                    copies.push(Copy::of(*head, None, source, config, walked)?);
                }
                stream_problem = found.broken.map(|broken| broken.to_string()).or(found.positions);
            }
            Some(Err(failure)) => {
                let name = STREAM.to_owned();
                silent.push(Silent { node: None, name, words: failure.to_string() });
            }
            None => {}
        }
        Ok(Self { copies, silent, stream_problem })
    }

    /// Whether a copy shows that something is wrong here.
    pub(super) fn alarmed(&self) -> bool {
        self.stream_problem.is_some() || self.copies.iter().any(|copy| copy.alarm.is_some())
    }

    pub(super) fn in_text(&self, style: Style) -> String {
        let mut table = Table::headed(["HELD BY", "OF", "EVENTS", "HERE", ""]).right([2, 3]);
        for copy in &self.copies {
            let (tone, words) = copy.verdict.in_words();
            table.row([
                copy.holder.as_str().into(),
                copy.owner.as_str().into(),
                copy.node_seq.to_string().into(),
                copy.here.to_string().into(),
                Cell::toned(tone, words),
            ]);
        }
        let mut text = if self.copies.is_empty() { String::new() } else { table.render(style) };
        let mut notes = Table::plain();
        for silent in &self.silent {
            let words = format!("{}: {}", silent.name, silent.words);
            notes.row(["NOT COMPARED".into(), Cell::toned(Tone::Warning, words)]);
        }
        if let Some(problem) = &self.stream_problem {
            let words = format!("{STREAM} is damaged: {problem}");
            notes.row([Cell::toned(Tone::Bad, "ALARM"), Cell::toned(Tone::Bad, words)]);
        }
        for alarm in self.copies.iter().filter_map(|copy| copy.alarm.as_ref()) {
            notes.row([Cell::toned(Tone::Bad, "ALARM"), Cell::toned(Tone::Bad, alarm)]);
        }
        text.push_str(&notes.render(style));
        text
    }
}

impl Copy {
    fn of(
        head: Head,
        held_by: Option<NodeId>,
        source: &Source,
        config: &Config,
        walked: &Walked,
    ) -> Result<Self, Failure> {
        let holder = held_by.map_or_else(|| STREAM.to_owned(), |node| name(config, node));
        let owner = name(config, head.node_id);
        let newest = walked.heads.iter().find(|here| here.node_id == head.node_id);
        let here = newest.map_or(NodeSeq(0), |here| here.node_seq);
        let is_mine = head.node_id == source.identity().node_id;
        let verdict = if walked.problem.is_some() {
            Verdict::NotCompared
        } else if head.node_seq > here {
            if is_mine { Verdict::LostHere } else { Verdict::Ahead }
        } else if !is_same_here(&head, &source.store)? {
            Verdict::Forked
        } else if head.node_seq == here {
            Verdict::Same
        } else {
            Verdict::Behind
        };
        let alarm = match verdict {
            Verdict::LostHere => Some(format!(
                "{holder} holds {} events of {owner}, whose own journal ends at {here}: its newest events were lost, \
                 by an old disk image or a restored file; take them from that copy before this node serves",
                head.node_seq
            )),
            Verdict::Forked => Some(format!(
                "event {} of {owner} differs at {holder} ({} there): two machines use its number, or an old disk image was \
                 restored; keep both journals, and let only one of the two nodes continue",
                head.node_seq,
                head.hash.short()
            )),
            Verdict::Same | Verdict::Behind | Verdict::Ahead | Verdict::NotCompared => None,
        };
        Ok(Self { held_by, holder, of: head.node_id, owner, node_seq: head.node_seq, here, verdict, alarm })
    }
}

/// Whether the event at a head's place is the same one here; of a place that is no longer kept here nothing is said.
fn is_same_here(head: &Head, store: &Store) -> Result<bool, Failure> {
    let record = store.find(head.node_id, head.node_seq)?;
    Ok(record.is_none_or(|record| record.hash == head.hash))
}

impl Verdict {
    fn in_words(self) -> (Tone, &'static str) {
        match self {
            Self::Same => (Tone::Good, "the same"),
            Self::Behind => (Tone::Plain, "the same as far as it goes"),
            Self::Ahead => (Tone::Plain, "goes further than the copy here"),
            Self::LostHere => (Tone::Bad, "goes further than the original here"),
            Self::Forked => (Tone::Bad, "another story"),
            Self::NotCompared => (Tone::Warning, "not compared with a damaged journal"),
        }
    }
}

fn name(config: &Config, node: NodeId) -> String {
    if node == config.node.id {
        return config.node.name.clone();
    }
    let peer = config.peers.iter().find(|peer| peer.id == node);
    peer.map_or_else(|| format!("node {node}"), |peer| peer.name.clone())
}
