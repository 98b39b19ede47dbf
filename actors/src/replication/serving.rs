//! Fencing a main, and letting a main that was fenced for nothing serve again.

use std::time::Duration;

use interrex_events::{PostgresStatus, StepId, StepOutcome};
use interrex_projections::{Run, StepState};

use super::{Servers, switchover};
use crate::{
    messages::FenceProof,
    node::Shared,
    ports::{Answer, PeersPort, PortError, StopMode},
};

/// Pause before an old main is notified again.
const REBUILD_AGAIN: Duration = Duration::from_millis(500);
/// When that is given up: before the undo's own limit, so that the last message is recorded.
const TELL_LIMIT: Duration = Duration::from_secs(9);
/// Pause before a start is tried once more.
const START_AGAIN: Duration = Duration::from_secs(2);
/// When starting is left to a person: the node is shown as a main that does not serve.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long a serving main may take to send the rest of its WAL to its standbys.
const REST_OF_THE_LOG: Duration = Duration::from_secs(3);

/// Stops every server. A PostgreSQL that still serves, because a person promotes another node, stops in good order if it can: the
/// node that takes over receives until then, and the last acknowledged writes are not lost. A main that is superseded already has
/// no standby that needs its last WAL.
pub(super) async fn fence(shared: &Shared, servers: &Servers) -> Answer<FenceProof> {
    let main = shared.look(|view| {
        view.cluster.nodes.is_main(shared.settings.me) && view.postgres.status == PostgresStatus::Primary
    });
    let in_good_order = async {
        let stop = servers.postgres.stop(StopMode::Fast);
        tokio::time::timeout(REST_OF_THE_LOG, stop).await.ok().and_then(Result::ok)
    };
    let stopped = if main { in_good_order.await } else { None };
    // whatever the result, what is left is stopped at once
    let proof = servers.stop(StopMode::Immediate).await?;
    Ok(FenceProof { postgres: stopped.map_or(proof.postgres, |end| end.words), ..proof })
}

/// Notifies the old main that no node was promoted. An old main that could not be asked for the fence need not answer now.
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
            tokio::time::sleep(REBUILD_AGAIN).await;
        }
    };
    let asked = tokio::time::timeout(TELL_LIMIT, asking).await;
    asked.unwrap_or_else(|_| {
        Err(PortError(format!(
            "the old main may be fenced, and cannot be informed that no node took over ({last}); when it answers again, on that \
             node: interrex run cancel --force --reason TEXT"
        )))
    })
}

/// Starts every server of this node, unless it is no longer main or another node is about to be.
pub(super) async fn serve_again(shared: &Shared, servers: &Servers, peers: &dyn PeersPort) {
    let trying = async {
        while let Err(error) = start(shared, servers, peers).await {
            tracing::warn!(%error, "this node is main again, and does not serve yet");
            tokio::time::sleep(START_AGAIN).await;
        }
    };
    if tokio::time::timeout(START_LIMIT, trying).await.is_err() {
        tracing::error!("this node is main again, and does not serve: fix that, and restart its supervisor");
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
