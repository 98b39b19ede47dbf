//! The relay: a main copies every journal that it holds to `cluster_events`, and handles the requests that are stored there.

use interrex_events::{
    Cause, Draft, Head, JournalForked, NodeId, NodeSeq, SettingsChanged, journal::JournalError,
};

use super::Servers;
use crate::{
    messages::Append,
    node::{Fatal, Shared},
    ports::{Answer, NotRelayed, PortError, SettingsRequest, StreamState},
    wire::StreamFacts,
};

/// Events in one transaction of the relay.
const PAGE: u32 = 500;

/// Relays what `cluster_events` does not have, this node's own journal first, because it opens the epoch. Returns what it holds
/// then.
///
/// # Errors
/// PostgreSQL failed, or this node's own journal cannot be relayed.
pub(super) async fn relay(shared: &Shared, servers: &Servers) -> Answer<StreamFacts> {
    // one at a time: the step that opens an epoch and the periodic relay together would answer a request twice
    let _alone = servers.in_use.relaying.lock().await;
    let state = servers.stream.look().await?;
    record_rebuilt(shared, &state);
    answer_requests(shared, &state.requests).await?;
    let me = shared.settings.me;
    let mut facts = StreamFacts {
        position: Some(state.position),
        paused: state.paused.clone(),
        problems: state.refused.clone(),
        notes: Vec::new(),
    };
    let mut heads = shared.journal.heads();
    heads.sort_by_key(|head| (head.node_id != me, head.node_id));
    for head in heads {
        match relay_journal(shared, servers, &state, head, &mut facts).await {
            Ok(()) => {}
            Err(NotRelayed::Forked(forked)) if head.node_id == me => {
                let in_a_run = shared.look(|view| view.cluster.runs.active(me).is_some());
                // a run that has promoted must go on: Redis, dependents, hooks and peers wait for it
                if !in_a_run {
                    shared.record(Draft::new(shared.epoch(), forked.clone()));
                    shared.give_up(Fatal::Forked(forked.clone()));
                }
                return Err(PortError(forked.in_words()));
            }
            Err(NotRelayed::Forked(forked)) => facts.notes.push(forked.in_words()),
            Err(NotRelayed::Failed(error)) if head.node_id == me => return Err(error),
            Err(NotRelayed::Failed(error)) => {
                facts.notes.push(format!("events of node {} are not relayed: {error}", head.node_id));
            }
        }
    }
    Ok(facts)
}

async fn relay_journal(
    shared: &Shared,
    servers: &Servers,
    state: &StreamState,
    here: Head,
    facts: &mut StreamFacts,
) -> Result<(), NotRelayed> {
    let node = here.node_id;
    let there = state.heads.get(&node).copied().unwrap_or(Head::empty(node));
    if let Some(forked) = fork(shared.settings.me, there, here) {
        return Err(NotRelayed::Forked(forked));
    }
    if there.node_seq >= here.node_seq {
        return Ok(());
    }
    let epoch = shared.epoch();
    // the first transaction of an epoch holds the event that opened it, however much came before; an empty stream
    // has none to close, and a journal of years does not fit into one transaction
    let opens = state.position.pos > 0 && state.position.epoch < epoch;
    let limit = if node == shared.settings.me && opens { u32::MAX } else { PAGE };
    let reader = shared.journal.reader().map_err(reading)?;
    let mut relayed = there.node_seq;
    while relayed < here.node_seq {
        let mut page = reader.page(node, relayed, limit).map_err(reading)?;
        // an event can be read from the file before the journal reports its head: a relayed event must be in the reported head, or
        // the next look would take the stream for ahead of this journal
        page.retain(|record| record.node_seq <= here.node_seq);
        let (Some(first), Some(last)) = (page.first(), page.last().map(|record| record.node_seq)) else {
            break;
        };
        if first.node_seq != relayed.next() {
            return Err(NotRelayed::Failed(sealed_and_missing(node, relayed, first.node_seq)));
        }
        let done = servers.stream.relay(epoch, &page).await?;
        facts.position = Some(done.position);
        for paused in done.paused {
            facts.paused.push(paused.projection.clone());
            shared.record(Draft::new(epoch, paused));
        }
        relayed = last;
    }
    Ok(())
}

/// Only what `cluster_events` holds is ever sealed: if it is missing there, the database is an older copy.
fn sealed_and_missing(node: NodeId, there: NodeSeq, begin: NodeSeq) -> PortError {
    PortError(format!(
        "cluster_events ends at event {there} of node {node}, and the journal begins with {begin}: the events between the two are \
         sealed; restore a newer backup of PostgreSQL"
    ))
}

/// Two continuations of one journal, as far as the heads show them. That a copy of a peer's journal is behind is
/// none; that this node's own journal is behind means that it lost events.
fn fork(me: NodeId, there: Head, here: Head) -> Option<JournalForked> {
    let differs = there.node_seq == here.node_seq && there.hash != here.hash;
    let lost = there.node_id == me && there.node_seq > here.node_seq;
    (differs || lost).then(|| JournalForked {
        node: there.node_id,
        node_seq: there.node_seq,
        here: here.hash,
        there: there.hash,
        found_at: "cluster_events".to_owned(),
    })
}

fn record_rebuilt(shared: &Shared, state: &StreamState) {
    for rebuilt in &state.rebuilt {
        shared.record(Draft::new(shared.epoch(), rebuilt.clone()));
    }
}

/// A request that was made in SQL becomes an event of this node, with that person's name; the event is then relayed, and
/// the request is deleted with that.
async fn answer_requests(shared: &Shared, requests: &[SettingsRequest]) -> Answer<()> {
    for request in requests {
        let (answered, before) = shared.look(|view| {
            let settings = &view.cluster.settings;
            // by this node, or by the main before it, whose answer this database may not have got
            let answered = settings.answered(request.id) || view.story.folded().settings.answered(request.id);
            (answered, shared.settings.failover.with(settings).settings())
        });
        if answered {
            continue;
        }
        let settings = request.applied_to(before);
        let changed = SettingsChanged { settings, before, request: request.id };
        let asker = Cause::Person { name: request.requested_by.clone(), source: request.source.clone() };
        let draft = Draft { actor: asker, ..Draft::new(shared.epoch(), changed) };
        let stored = shared.lines.append.ask(Append(vec![draft])).await;
        if !matches!(stored, Ok(Ok(_))) {
            return Err(PortError("a change of settings was not stored; it is tried again".to_owned()));
        }
    }
    Ok(())
}

fn reading(error: JournalError) -> NotRelayed {
    NotRelayed::Failed(PortError::new("reading the journal", error))
}
