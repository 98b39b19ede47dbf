//! How a node comes back as a secondary: on request, or automatically if that is configured.

use interrex_events::{Draft, Event, NodeId, PostgresStatus, RejoinStarted, Request, RunId, RunKind, StepId};
use interrex_projections::{Cluster, NodeStatus};

use super::{
    Situation,
    fencing::not_fenced_as_main,
    starting::{begin, nothing_runs},
};
use crate::messages::Declined;

/// Whether a node is making its way back: its run decides what may run there meanwhile.
pub(super) fn is_returning(cluster: &Cluster, me: NodeId) -> bool {
    cluster.runs.active(me).is_some_and(|run| run.kind == RunKind::Rejoin)
}

/// A request.
pub(super) fn rejoin(
    situation: Situation<'_>,
    copy: bool,
    request: &Request,
) -> Result<(RunId, Vec<Draft>), Declined> {
    let Situation { me, cluster, .. } = situation;
    nothing_runs(situation)?;
    let nodes = &cluster.nodes;
    let Some(main) = nodes.main.filter(|main| *main != me) else {
        not_fenced_as_main(situation)?;
        let message = "this node is main: there is no other main that it could rejoin";
        return Err(Declined::new("is_main", message.to_owned()));
    };
    let row = nodes.get(me);
    match row.map(|row| row.status) {
        Some(NodeStatus::HandingOver) => {
            let message = "this node has offered its role, and has no final answer yet: wait";
            return Err(Declined::new("handing_over", message.to_owned()));
        }
        Some(NodeStatus::Fencing) => {
            let message = "the servers of this node are still being stopped: ask again in a few seconds";
            return Err(Declined::new("fencing", message.to_owned()));
        }
        _ => {}
    }
    let streams = row.is_some_and(|row| row.postgres == Some(PostgresStatus::Streaming));
    if streams && !copy && !nodes.is_superseded(me) {
        let message = format!("this node streams from {} already: there is nothing to do", nodes.name(main));
        return Err(Declined::new("already_follows", message));
    }
    Ok(begin_rejoin(situation, main, copy, Some(request.clone())))
}

fn begin_rejoin(
    situation: Situation<'_>,
    main: NodeId,
    copy: bool,
    request: Option<Request>,
) -> (RunId, Vec<Draft>) {
    let started = RejoinStarted { main, epoch: situation.cluster.nodes.epoch, copy, request };
    begin(situation, RunKind::Rejoin, StepId::CheckLineage, Event::from(started))
}

/// A node that is proved to be fenced comes back automatically if that is configured, once in an epoch: after a failure a
/// person has to ask.
pub(super) fn return_by_itself(situation: Situation<'_>) -> Vec<Draft> {
    let Situation { me, cluster, policy, .. } = situation;
    let nodes = &cluster.nodes;
    let fenced = nodes.get(me).is_some_and(|row| row.status == NodeStatus::Fenced);
    let Some(main) = nodes.main.filter(|main| *main != me && fenced && policy.rejoin_automatically) else {
        return Vec::new();
    };
    let tried = cluster
        .runs
        .runs
        .values()
        .any(|run| run.kind == RunKind::Rejoin && run.node == me && run.epoch == nodes.epoch);
    if tried { Vec::new() } else { begin_rejoin(situation, main, false, None).1 }
}
