//! A node that was superseded stops serving, and proves it.

use interrex_events::{Draft, FencingFailed, FencingStarted, NodeFenced};
use interrex_projections::NodeStatus;

use super::Situation;
use crate::messages::{FenceEnded, FenceRequest};

pub(super) fn fence_requested(situation: Situation<'_>, request: &FenceRequest) -> Vec<Draft> {
    let Situation { me, cluster, .. } = situation;
    let nodes = &cluster.nodes;
    if request.epoch <= nodes.epoch || nodes.is_superseded(me) || !nodes.is_main(me) {
        return Vec::new();
    }
    let event = FencingStarted { superseded_by: request.by, epoch: request.epoch, own_epoch: nodes.epoch };
    vec![Draft::new(nodes.epoch, event)]
}

pub(super) fn fence_ended(situation: Situation<'_>, ended: &FenceEnded) -> Vec<Draft> {
    let Situation { me, cluster, .. } = situation;
    let status = cluster.nodes.get(me).map(|row| row.status);
    match &ended.result {
        Ok(_) if status == Some(NodeStatus::Fenced) => Vec::new(),
        Ok(proof) => {
            let event = NodeFenced {
                epoch: ended.epoch,
                postgres: proof.postgres.clone(),
                redis: proof.redis.clone(),
                dependents: proof.dependents.clone(),
                next: "keep this data directory: it may hold rows that the new main lacks; `interrex rejoin` keeps them, and \
                       brings this node back as a secondary of the new main"
                    .to_owned(),
            };
            vec![Draft::new(cluster.nodes.epoch, event)]
        }
        Err(error) => {
            let event = FencingFailed { epoch: ended.epoch, error: error.clone() };
            vec![Draft::new(cluster.nodes.epoch, event)]
        }
    }
}
