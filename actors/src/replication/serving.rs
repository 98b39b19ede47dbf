//! A main that is fenced, and one that was fenced for nothing and serves again.

use std::time::Duration;

use interrex_events::{PostgresStatus, StepId, StepOutcome};
use interrex_projections::{Run, StepState};

use super::{Servers, switchover};
use crate::{
    messages::FenceProof,
    node::Shared,
    ports::{Answer, PeersPort, PortError, StopMode},
};

/// Pause before an old main is told once more.
const TELL_AGAIN: Duration = Duration::from_millis(500);
/// When that is given up: before the undo's own limit, so that the last words are told.
const TELL_LIMIT: Duration = Duration::from_secs(9);
/// Pause before a start is tried once more.
const START_AGAIN: Duration = Duration::from_secs(2);
/// When starting is left to a person: the node is shown as a main that does not serve.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long a main that serves may take to give its standbys the rest of its log.
const REST_OF_THE_LOG: Duration = Duration::from_secs(3);

/// Stops every server. One that still serves, for a person who promotes another, stops in good order if it can: the node
/// that takes over receives until then, and what was acknowledged last is not lost. What a main that is superseded already
/// would flush to nobody is of no use.
pub(super) async fn fence(shared: &Shared, servers: &Servers) -> Answer<FenceProof> {
    let main = shared.look(|view| {
        view.cluster.nodes.is_main(shared.settings.me) && view.postgres.status == PostgresStatus::Primary
    });
    let in_good_order = async {
        let stop = servers.postgres.stop(StopMode::Fast);
        tokio::time::timeout(REST_OF_THE_LOG, stop).await.ok().and_then(Result::ok)
    };
    let stopped = if main { in_good_order.await } else { None };
    // whatever came of it, what is left is stopped at once
    let proof = servers.stop(StopMode::Immediate).await?;
    Ok(FenceProof { postgres: stopped.map_or(proof.postgres, |end| end.words), ..proof })
}

/// The old main is told that nobody was promoted. One that could not be asked for the fence need not answer now.
pub(super) async fn undo_fence(peers: &dyn PeersPort, run: &Run) -> Answer<String> {
    if run.handover.is_some() {
        return Ok("the old main had offered its role, and takes the offer back by itself".to_owned());
    }
    let may_be_fenced = !matches!(
        run.step(StepId::FenceOldMain).state,
        StepState::Ended(StepOutcome::Skipped | StepOutcome::Refused)
    );
    let mut last = "no answer".to_owned();
    let asking = async {
        loop {
            match peers.lift_fence(run.old_main, run).await {
                Ok(words) => return Ok(words),
                Err(words) if may_be_fenced => last = words,
                Err(words) => {
                    return Ok(format!("the old main was not fenced, and does not answer: {words}"));
                }
            }
            tokio::time::sleep(TELL_AGAIN).await;
        }
    };
    let asked = tokio::time::timeout(TELL_LIMIT, asking).await;
    asked.unwrap_or_else(|_| {
        Err(PortError(format!(
            "the old main may be fenced, and cannot be told that nobody took over ({last}); when it answers again, \
             there: interrex run cancel --force --reason TEXT"
        )))
    })
}

/// Starts every server of this node, unless it is main no more or another one is about to be.
pub(super) async fn serve_again(shared: &Shared, servers: &Servers, peers: &dyn PeersPort) {
    let trying = async {
        while let Err(error) = start(shared, servers, peers).await {
            tracing::warn!(%error, "this node is main again, and does not serve yet");
            tokio::time::sleep(START_AGAIN).await;
        }
    };
    if tokio::time::timeout(START_LIMIT, trying).await.is_err() {
        tracing::error!("this node is main again, and does not serve: mend that, and restart its supervisor");
    }
}

async fn start(shared: &Shared, servers: &Servers, peers: &dyn PeersPort) -> Answer<()> {
    let me = shared.settings.me;
    if shared.look(|view| view.cluster.nodes.is_superseded(me) || !view.cluster.nodes.is_main(me)) {
        return Ok(());
    }
    switchover::undo_stop_main(shared, servers, peers).await?;
    servers.start_redis().await;
    servers.dependents.start().await.map(drop)
}
