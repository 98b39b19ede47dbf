//! Retention: old events are sealed into files, a segment at a time, once they are stored safely elsewhere.
//!
//! ```text
//! older than `keep`, enough of them ─> a settled place ─> held safely? ─> file ─> Seal(segment) to the JournalActor
//!   (one look at one row)              (a fold)            (PostgreSQL)    (fsync)  (one transaction, ADR 11)
//! ```
//!
//! It is done by each node for every journal that it holds. Whatever fails leaves the events where they are, and is
//! tried again at the next pass.

use std::{path::PathBuf, sync::Arc, time::Duration};

use interrex_events::{
    Base, Bases, Hlc, NodeId, NodeSeq,
    journal::{JournalError, JournalReader, Segment, segment_file},
};
use interrex_projections::{Projection as _, carried, is_settled};

use super::Belief;
use crate::{env::ms, messages::Seal, node::Shared, ports::StreamPort};

/// How often old events are looked for, where they do not grow old faster.
const EVERY: Duration = Duration::from_secs(3_600);
/// How soon after the start: a node has better things to do then.
const FIRST: Duration = Duration::from_secs(60);
/// Events that are read at a time.
const PAGE: u32 = 500;

/// Which events are sealed, and into which folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// Events younger than this stay in the journal.
    pub keep: Duration,
    /// Events in a segment, at least.
    pub segment_events: u64,
    /// Folder of the segments' files.
    pub folder: PathBuf,
}

impl RetentionPolicy {
    /// Pause before the next pass.
    #[must_use]
    pub fn pause(&self, is_first: bool) -> Duration {
        let longest = if is_first { FIRST } else { EVERY };
        (self.keep / 4).clamp(Duration::from_millis(250), longest)
    }
}

/// Seals everything that may be sealed now. Returns the number of segments, and what prevented more.
pub async fn pass(
    shared: &Arc<Shared>,
    stream: &dyn StreamPort,
    policy: &RetentionPolicy,
) -> (usize, Vec<String>) {
    let (mut sealed, mut problems) = (0, Vec::new());
    for head in shared.journal.heads() {
        loop {
            match seal_next(shared, stream, policy, head.node_id).await {
                Ok(true) => sealed += 1,
                Ok(false) => break,
                Err(problem) => {
                    problems.push(format!("events of node {} stay in the journal: {problem}", head.node_id));
                    break;
                }
            }
        }
    }
    (sealed, problems)
}

/// Seals the next segment of one node's events. Returns whether there was one.
async fn seal_next(
    shared: &Arc<Shared>,
    stream: &dyn StreamPort,
    policy: &RetentionPolicy,
    node: NodeId,
) -> Result<bool, String> {
    let now = shared.env.moment().wall;
    let keep_ms = i64::try_from(ms(policy.keep)).unwrap_or(i64::MAX);
    let until = Hlc::from_wall_ms(now.timestamp_millis().saturating_sub(keep_ms).max(0));
    let least = policy.segment_events;
    let find =
        move |reader: &JournalReader| next_segment(reader, node, least, until).map_err(|it| it.to_string());
    let Some((first, end)) = reading(shared, find).await? else { return Ok(false) };
    stream.holds_safely(end.head).await.map_err(|error| error.to_string())?;
    let (events, folder) = (first..=end.head.node_seq, policy.folder.clone());
    let write = move |reader: &JournalReader| {
        segment_file::write(reader, node, &events, &folder).map_err(|it| it.to_string())
    };
    let file = reading(shared, write).await?;
    tracing::info!(file = file.name, "a segment of the journal is exported");
    match shared.lines.seal.ask(Seal(Segment { first, end, file: Some(file) })).await {
        Ok(Ok(Ok(()))) => Ok(true),
        Ok(Ok(Err(refused))) => Err(refused.to_string()),
        _ => Err("the journal's actor is being restarted".to_owned()),
    }
}

/// Reads the journal elsewhere than on the one thread that everything else runs on.
async fn reading<T: Send + 'static>(
    shared: &Arc<Shared>,
    read: impl FnOnce(&JournalReader) -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let reading =
        shared.journal.read_aside(|journal| read(&journal.reader().map_err(|error| error.to_string())?));
    reading.await.unwrap_or_else(|| Err("the reading was cut off".to_owned()))
}

/// The next events of a node that are old enough, up to the first place behind at least `least` of them where its
/// own story is settled. The same wherever the journal is held, so that all nodes have the same segments.
fn next_segment(
    reader: &JournalReader,
    node: NodeId,
    least: u64,
    until: Hlc,
) -> Result<Option<(NodeSeq, Base)>, JournalError> {
    let base: Bases = reader.bases()?.into_iter().filter(|(of, _)| *of == node).collect();
    let mut story = Belief::default();
    story.begin_after(&base);
    let first = story.folded.next();
    let enough = NodeSeq(story.folded.0 + least.max(1));
    // one row shows that nothing is due, which is nearly always so
    if !reader.page(node, NodeSeq(enough.0 - 1), 1)?.iter().any(|record| record.hlc < until) {
        return Ok(None);
    }
    loop {
        let page = reader.page(node, story.folded, PAGE)?;
        let is_last_page = page.len() < PAGE as usize;
        // the newest event stays
        let candidates = page.len().saturating_sub(usize::from(is_last_page));
        for record in &page[..candidates] {
            if record.hlc >= until {
                return Ok(None);
            }
            story.apply(&record.open());
            if story.folded >= enough && is_settled(node, &story.cluster, &story.standpoint) {
                let carried = carried(&story.cluster, &story.standpoint);
                return Ok(Some((first, Base { head: record.as_head(), moment: record.hlc, carried })));
            }
        }
        if is_last_page {
            return Ok(None);
        }
    }
}

#[cfg(test)]
#[path = "retention_tests.rs"]
mod tests;
