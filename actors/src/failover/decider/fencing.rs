//! A superseded node stops serving, and proves that its servers are stopped.

use interrex_events::{Draft, FenceLifted, FencingFailed, FencingStarted, NodeFenced, RunId};
use interrex_projections::NodeStatus;

use super::Situation;
use crate::messages::{Declined, FenceEnded, FenceRequest, LiftRequest};

pub(super) fn fence_requested(situation: Situation<'_>, request: &FenceRequest) -> Vec<Draft> {
    let Situation { me, cluster, standpoint, .. } = situation;
    let nodes = &cluster.nodes;
    let known = nodes.is_superseded(me) && standpoint.fenced_for == Some(request.run);
    // a main is fenced for the next epoch; the events that opened other epochs show that it missed them
    if request.epoch != nodes.epoch.next() || known || !nodes.is_main(me) || nodes.get(request.by).is_none() {
        return Vec::new();
    }
    let event = FencingStarted {
        superseded_by: request.by,
        epoch: request.epoch,
        own_epoch: nodes.epoch,
        // a later fence replaces an earlier one, which can then no longer be taken back
        run: Some(request.run),
    };
    vec![Draft::new(nodes.epoch, event)]
}

/// Only the last run that asked for the fence can take it back, and only as long as no other main is known.
pub(super) fn lift_requested(situation: Situation<'_>, request: &LiftRequest) -> Vec<Draft> {
    let fact = FenceLifted { run: request.run, by: request.by, reason: None };
    if can_be_lifted(situation) == Some(request.run) {
        vec![Draft::new(situation.cluster.nodes.epoch, fact)]
    } else {
        Vec::new()
    }
}

/// The same on a person's statement, if the node that asked for the fence can no longer say that it did not take over.
pub(super) fn lift_by_hand(
    situation: Situation<'_>,
    run: RunId,
    reason: Option<&str>,
) -> Result<Draft, Declined> {
    let Some(reason) = reason.filter(|reason| !reason.trim().is_empty()) else {
        let message =
            "a statement about another node needs a reason, which is stored for good: --reason TEXT";
        return Err(Declined::new("reason_needed", message.to_owned()));
    };
    let fact = FenceLifted { run, by: situation.me, reason: Some(reason.to_owned()) };
    Ok(Draft::new(situation.cluster.nodes.epoch, fact))
}

/// A fenced main refuses every request of a person except the one that lets it serve again.
pub(super) fn not_fenced_as_main(situation: Situation<'_>) -> Result<(), Declined> {
    if can_be_lifted(situation).is_none() {
        return Ok(());
    }
    let message = "this node is main, and fenced for a run of another node. If that node did not become main and never will, let \
                   this node serve again: interrex run cancel --force --reason TEXT";
    Err(Declined::new("fenced_main", message.to_owned()))
}

/// The run for which this node is fenced, if it is still main as far as it knows.
pub(super) fn can_be_lifted(situation: Situation<'_>) -> Option<RunId> {
    let Situation { me, cluster, standpoint, .. } = situation;
    let fenced = cluster.nodes.get(me).is_some_and(|row| row.status == NodeStatus::Fenced);
    standpoint.fenced_for.filter(|_| fenced && cluster.nodes.is_main(me))
}

pub(super) fn fence_ended(situation: Situation<'_>, ended: &FenceEnded) -> Vec<Draft> {
    let Situation { me, cluster, standpoint, .. } = situation;
    let status = cluster.nodes.get(me).map(|row| row.status);
    match &ended.result {
        Ok(_) if status == Some(NodeStatus::Fenced) => Vec::new(),
        Ok(proof) => {
            let event = NodeFenced {
                epoch: ended.epoch,
                postgres: proof.postgres.clone(),
                redis: proof.redis.clone(),
                dependents: proof.dependents.clone(),
                next: "keep this data directory: it may have rows that the new main does not have; `interrex rejoin` keeps them, \
                       and brings this node back as a secondary of the new main"
                    .to_owned(),
                run: standpoint.fenced_for.filter(|_| cluster.nodes.is_main(me)),
            };
            vec![Draft::new(cluster.nodes.epoch, event)]
        }
        Err(error) => {
            let event = FencingFailed { epoch: ended.epoch, error: error.clone() };
            vec![Draft::new(cluster.nodes.epoch, event)]
        }
    }
}
