//! Before the first event of a process: checks that its journal has not lost its newest events.

use std::{sync::Arc, time::Duration};

use interrex_events::{Draft, JournalRestored};

use super::record;
use crate::{
    journal::copies::{self, NotFetched},
    messages::KeepCopies,
    node::{Fatal, NodeError, Shared},
    ports::{PeersPort, PortError},
    replication::Servers,
    wire::JournalPage,
};

/// How long this node's own PostgreSQL may take for a page of `cluster_events`.
const HELD_LIMIT: Duration = Duration::from_secs(5);

/// Before the first event of this process: a journal that lost its newest events, for example because a disk image was restored,
/// takes them back from whichever peer answers. Appending without them would fork the journal.
///
/// # Errors
/// The events cannot be taken back, or the journal has two continuations.
pub async fn take_back_own_events(
    shared: &Arc<Shared>,
    servers: &Servers,
    peers: &dyn PeersPort,
) -> Result<(), NodeError> {
    // the journal's actor binds its line when it is first polled
    tokio::task::yield_now().await;
    let own = shared.report();
    let limit = shared.settings.probe_timeout;
    let asked = shared.settings.peers().map(|peer| {
        let exchange = peers.exchange(peer.node, &own);
        async move { tokio::time::timeout(limit, exchange).await.ok().and_then(Result::ok) }
    });
    let reports: Vec<_> = futures_util::future::join_all(asked).await.into_iter().flatten().collect();
    let (mut restored, mut cut_off) = (Vec::new(), None);
    for report in &reports {
        match copies::take_back(shared, peers, report).await {
            Ok(taken) => restored.extend(taken),
            // another peer may hold the rest
            Err(NotFetched::CutOff(problem)) => cut_off = Some(problem),
            // forked, as the comparison shows
            Err(NotFetched::Refused(problem)) => {
                tracing::warn!(problem, "a peer holds other events of this node");
            }
        }
    }
    for report in &reports {
        let forked = copies::compare(shared, report).map_err(Fatal::Journal).map_err(NodeError::Fatal)?;
        let Some(own) = forked.into_iter().find(|forked| forked.node == shared.settings.me) else { continue };
        return Err(match cut_off {
            Some(problem) => NodeError::Server(PortError(format!(
                "this node's journal lost events that {} holds, and they could not be taken back: {problem}; nothing was \
                 recorded meanwhile: start again",
                report.name
            ))),
            None => NodeError::Fatal(Fatal::Forked(own)),
        });
    }
    restored.extend(take_back_from_postgres(shared, servers).await?);
    let facts = restored.into_iter().map(|event| Draft::new(shared.epoch(), event)).collect::<Vec<_>>();
    if facts.is_empty() { Ok(()) } else { record(shared, facts).await }
}

/// The same from `cluster_events` in this node's own PostgreSQL, where that runs: a node alone has no peers to ask.
async fn take_back_from_postgres(
    shared: &Arc<Shared>,
    servers: &Servers,
) -> Result<Option<JournalRestored>, NodeError> {
    let me = shared.settings.me;
    let mut events = 0;
    loop {
        let held = servers.stream.held(me, shared.journal.head().node_seq);
        let page = match tokio::time::timeout(HELD_LIMIT, held).await {
            Ok(Ok(page)) if !page.is_empty() => page,
            // nothing more, or no server to ask: servers are started later
            _ => break,
        };
        match shared.lines.keep_copies.ask(KeepCopies(JournalPage { base: None, records: page })).await {
            Ok(Ok(Ok(new))) if new > 0 => events += new as u64,
            Ok(Ok(Err(refused))) => {
                return Err(NodeError::Server(PortError(format!(
                    "this node's journal and cluster_events have two continuations ({refused}): keep the journal as evidence and \
                     move it away; the next start takes this node's events back"
                ))));
            }
            _ => break,
        }
    }
    let last = shared.journal.head().node_seq;
    Ok((events > 0).then_some(JournalRestored { from: me, events, last }))
}
