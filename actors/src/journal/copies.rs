//! Copies of peers' journals: every node holds every node's events, so that an old main's last events survive it.
//!
//! Heartbeats carry the heads of all journals that a node holds. What is lacking is fetched in pages, in order,
//! and checked against the chain before it is stored; an interrupted round is continued by the next heartbeat.

use std::time::Duration;

use interrex_events::{
    Base, Head, JournalForked, JournalRestored, NodeId, NodeSeq, Record, journal::JournalError,
};

use crate::{messages::KeepCopies, node::Shared, ports::PeersPort, wire::NodeReport};

/// When one round with one peer is given up; the next heartbeat goes on.
const ROUND_LIMIT: Duration = Duration::from_secs(60);

/// The result of a round with a peer.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Events that are new here.
    pub stored: usize,
    /// Journals for which the peer holds other events than this node.
    pub forked: Vec<JournalForked>,
    /// The error; the next round tries again.
    pub problems: Vec<String>,
}

/// Why a peer's copy of a journal was not fetched to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotFetched {
    /// The copy does not continue the events here.
    #[error("{0}")]
    Refused(String),
    /// The fetch broke off, and may be continued.
    #[error("{0}")]
    CutOff(String),
}

/// Fetches the events that a peer holds and this node does not.
pub async fn take_over(shared: &Shared, peers: &dyn PeersPort, report: &NodeReport) -> Outcome {
    let mut outcome = Outcome::default();
    let me = shared.settings.me;
    for there in report.journal_heads.iter().filter(|there| there.node_id != me) {
        let round = fetch(shared, peers, report.node, *there, &mut outcome.stored);
        match tokio::time::timeout(ROUND_LIMIT, round).await {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => outcome.problems.push(problem.to_string()),
            Err(_) => outcome.problems.push(format!("not done within {ROUND_LIMIT:?}")),
        }
    }
    match compare(shared, report) {
        Ok(forked) => outcome.forked = forked,
        Err(error) => outcome.problems.push(error.to_string()),
    }
    outcome
}

/// Fetches a peer's copy of one journal up to a head, page by page.
async fn fetch(
    shared: &Shared,
    peers: &dyn PeersPort,
    peer: NodeId,
    there: Head,
    stored: &mut usize,
) -> Result<(), NotFetched> {
    let node = there.node_id;
    loop {
        let here = held(shared, node).node_seq;
        if here >= there.node_seq {
            return Ok(());
        }
        let page = peers.journal(peer, node, here).await.map_err(NotFetched::CutOff)?;
        let of_another = |record: &Record| record.node_id != node;
        if page.base.as_ref().is_some_and(|base| base.head.node_id != node)
            || page.records.iter().any(of_another)
        {
            let problem = format!("node {peer} sent events of other nodes than node {node}");
            return Err(NotFetched::CutOff(problem));
        }
        match &page.base {
            Some(base) if here > NodeSeq(0) => {
                return Err(NotFetched::CutOff(behind_the_seal(peer, here, base)));
            }
            None if page.records.is_empty() => {
                let problem = format!("node {peer} sent no events of node {node} after {here}");
                return Err(NotFetched::CutOff(problem));
            }
            _ => {}
        }
        match shared.lines.keep_copies.ask(KeepCopies(page)).await {
            Ok(Ok(Ok(new))) => *stored += new,
            Ok(Ok(Err(refused))) => {
                return Err(NotFetched::Refused(format!("from node {peer}: {refused}")));
            }
            _ => return Err(NotFetched::CutOff("the journal's actor is being restarted".to_owned())),
        }
        if held(shared, node).node_seq == here {
            // another round with another peer stored the same meanwhile, or nothing moves: the next heartbeat shows which
            return Ok(());
        }
    }
}

/// A copy has no holes: what lies between its end and the begin of the peer's is in that one's files alone.
fn behind_the_seal(peer: NodeId, here: NodeSeq, base: &Base) -> String {
    let Head { node_id, node_seq, .. } = base.head;
    format!(
        "events {} to {node_seq} of node {node_id} are sealed on node {peer}, and this journal has them only up to {here}: stop \
         this supervisor, keep its journal as evidence and move it away; the next start takes this node's events back and begins \
         its copies again",
        here.next()
    )
}

fn held(shared: &Shared, node: NodeId) -> Head {
    let heads = shared.journal.heads();
    heads.into_iter().find(|head| head.node_id == node).unwrap_or(Head::empty(node))
}

/// Compares the heads that a peer reports with the journals here. A peer that holds more of this node's own journal than this
/// node shows that this node lost events, or that another machine has its number.
///
/// # Errors
/// The journal cannot be read.
pub fn compare(shared: &Shared, report: &NodeReport) -> Result<Vec<JournalForked>, JournalError> {
    let mut forked = Vec::new();
    let mut reader = None;
    for there in report.journal_heads.iter().filter(|head| head.node_seq > NodeSeq(0)) {
        let node = there.node_id;
        let here = held(shared, node);
        let hash_here = if there.node_seq == here.node_seq {
            here.hash
        } else if there.node_seq > here.node_seq {
            if node != shared.settings.me {
                continue;
            }
            here.hash
        } else {
            let reader = match &reader {
                Some(reader) => reader,
                None => reader.insert(shared.journal.reader()?),
            };
            let before = NodeSeq(there.node_seq.0 - 1);
            let found = reader.page(node, before, 1)?.pop();
            // of what was sealed, nothing is left to compare with
            let Some(record) = found.filter(|record| record.node_seq == there.node_seq) else { continue };
            record.hash
        };
        if hash_here != there.hash {
            forked.push(JournalForked {
                node,
                node_seq: there.node_seq,
                here: hash_here,
                there: there.hash,
                found_at: format!("the copy of {}", report.name),
            });
        }
    }
    Ok(forked)
}

/// Takes this node's own events back from a peer that holds more of them than its journal: an old disk image was
/// restored, or the journal was lost. It must happen before anything is appended.
///
/// # Errors
/// The peer's copy does not continue this journal, or could not be fetched.
pub async fn take_back(
    shared: &Shared,
    peers: &dyn PeersPort,
    report: &NodeReport,
) -> Result<Option<JournalRestored>, NotFetched> {
    let me = shared.settings.me;
    let before = shared.journal.head().node_seq;
    let own = report.journal_heads.iter().find(|head| head.node_id == me);
    let Some(there) = own.filter(|there| there.node_seq > before) else { return Ok(None) };
    let mut stored = 0;
    fetch(shared, peers, report.node, *there, &mut stored).await?;
    let last = shared.journal.head().node_seq;
    Ok((stored > 0).then_some(JournalRestored { from: report.node, events: stored as u64, last }))
}
