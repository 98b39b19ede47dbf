//! Before a promotion, every node that can be reached except the old main is asked: does it take the role, or hear main?
//!
//! Each node records that it takes over before it asks (its run is in its journal and in its report). So of two that do it
//! at the same time one at least sees the other: the one with the lower node id waits until the other has given up or
//! become main, and the other gives up.

use std::{sync::Arc, time::Duration};

use interrex_events::{Epoch, NodeId, PostgresStatus, RunKind};
use interrex_projections::{Run, human_ms};

use crate::{env::ms, node::Shared, ports::PeersPort, wire::NodeReport};

/// Pause before a node that takes over too is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// When the wait for it ends: less than the limit of the step.
const WAIT_LIMIT: Duration = Duration::from_secs(4);

/// What a peer's report says about a run that is to make this node main.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Nothing speaks against it.
    Agrees,
    /// It takes over too, and is to give up.
    Wait(String),
    /// It speaks against it.
    Objects(String),
}

/// What is compared with a report.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) me: NodeId,
    pub(crate) run: &'a Run,
    /// How long this node has not heard of main.
    pub(crate) silent_ms: u64,
    /// By how much two nodes may differ in that although they heard the same.
    pub(crate) slack_ms: u64,
}

/// What all reports come to: an objection outweighs a wait, and a wait outweighs every agreement.
pub(crate) fn weigh(asked: Asked<'_>, reports: &[Arc<NodeReport>]) -> Answer {
    let weight = |answer: &Answer| match answer {
        Answer::Objects(_) => 0,
        Answer::Wait(_) => 1,
        Answer::Agrees => 2,
    };
    reports.iter().map(|report| judge(asked, report)).min_by_key(weight).unwrap_or(Answer::Agrees)
}

fn judge(asked: Asked<'_>, report: &NodeReport) -> Answer {
    let Asked { me, run, .. } = asked;
    let forced = run.request.as_ref().is_some_and(|request| request.forced);
    let name = &report.name;
    if let Some(main) =
        report.main.filter(|main| report.epoch >= run.epoch && *main != me && report.epoch <= Epoch::HIGHEST)
    {
        return Answer::Objects(format!("{name} knows epoch {}, of which node {main} is main", report.epoch));
    }
    if report.taking_over == Some(true) {
        let words = format!("{name} takes over as well");
        return if report.node < me {
            Answer::Objects(format!("{words}, and goes first: its node id is lower"))
        } else {
            Answer::Wait(words)
        };
    }
    if forced {
        return Answer::Agrees;
    }
    if report.postgres.status == PostgresStatus::Primary {
        return Answer::Objects(format!("PostgreSQL of {name} takes writes"));
    }
    if let Some(candidate) = report.candidate.filter(|node| run.kind == RunKind::Failover && *node != me) {
        return Answer::Objects(format!("failover.candidate of {name} is node {candidate}, not this node"));
    }
    let heard_later = report.main_silent_ms.filter(|silent_ms| {
        // a supervisor that has not seen main yet counts from its own begin
        !report.main_unseen
            && report.main == Some(run.old_main)
            && silent_ms.saturating_add(asked.slack_ms) < asked.silent_ms
            && *silent_ms < report.threshold_ms
    });
    match heard_later {
        Some(silent_ms) => Answer::Objects(format!(
            "{name} had a sign of life from main {} ago, this node {} ago: the network between this node and main is broken, not \
             main",
            human_ms(silent_ms),
            human_ms(asked.silent_ms)
        )),
        None => Answer::Agrees,
    }
}

/// Asks the other nodes about a run that is to make this node main. Returns the names of those that agree, or the objection. The
/// old main is not asked here: the run asks it for its fence.
pub(crate) async fn ask_the_others(
    shared: &Shared,
    peers: &dyn PeersPort,
    run: &Run,
) -> Result<Vec<String>, String> {
    let began = shared.env.moment();
    loop {
        let now = shared.env.moment();
        let settings = &shared.settings;
        let since_start = (now.wall - run.started_at).num_milliseconds().max(0).cast_unsigned();
        let asked = Asked {
            me: settings.me,
            run,
            silent_ms: run.silent_ms.saturating_add(since_start),
            slack_ms: ms(settings.probe_interval + settings.probe_timeout),
        };
        let reports = reports(shared, peers, run.old_main).await;
        let words = match weigh(asked, &reports) {
            Answer::Agrees => return Ok(reports.iter().map(|report| report.name.clone()).collect()),
            Answer::Objects(words) => return Err(words),
            Answer::Wait(words) => words,
        };
        if shared.env.moment().monotonic.saturating_sub(began.monotonic) > WAIT_LIMIT {
            return Err(format!("{words}, and has not given up within {WAIT_LIMIT:?}"));
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

async fn reports(shared: &Shared, peers: &dyn PeersPort, old_main: NodeId) -> Vec<Arc<NodeReport>> {
    let own = shared.report();
    let limit = shared.settings.probe_timeout;
    let others = shared.settings.peers().filter(|peer| peer.node != old_main);
    let asked = others.map(|peer| {
        let exchange = peers.exchange(peer.node, &own);
        async move { tokio::time::timeout(limit, exchange).await.ok().and_then(Result::ok) }
    });
    futures_util::future::join_all(asked).await.into_iter().flatten().collect()
}
