//! What must be done because of an event, and what a restarted supervisor finds outstanding.

use interrex_events::{Epoch, Event, NodeId, PostgresStatus, RedisStatus, RunId, StepId, StrayAnswer};
use interrex_projections::{Cluster, NodeStatus};

use super::returning::is_returning;
use crate::journal::Belief;

/// What must be done because this event is stored. A restart derives the same from the fold.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Make an attempt at a step.
    RunStep(RunId, StepId, u32),
    /// Take a step back.
    UndoStep(RunId, StepId),
    /// Stop every server of this node.
    Fence {
        /// The epoch that superseded this node's.
        epoch: Epoch,
        /// Whether an attempt at it failed just now.
        again: bool,
    },
    /// Start every server of this node, which is main as before.
    ServeAgain,
    /// Let this node's standbys follow another main.
    Follow(NodeId),
    /// Let this node's standby follow main again, after a failed run had detached it.
    ReturnTo(NodeId),
    /// [`Self::Follow`] or [`Self::ReturnTo`] after a pause: the last attempt failed.
    FollowLater(NodeId),
    /// Check whether a verdict should become a run.
    Look,
}

impl Effect {
    /// Whether the effect is made even while this node starts.
    #[must_use]
    pub fn is_fence(&self) -> bool {
        matches!(self, Self::Fence { .. })
    }
}

/// The effects of one stored event of this node.
#[must_use]
pub fn effects(me: NodeId, belief: &Belief, run: Option<RunId>, event: &Event) -> Vec<Effect> {
    let Belief { cluster, standpoint, .. } = belief;
    // its run begins by stopping what runs, and ends by starting it; a server that is started by other means meanwhile is stopped
    let goes_on = matches!(
        event,
        Event::StepStarted(_)
            | Event::StepUndoStarted(_)
            | Event::PostgresChanged(_)
            | Event::RedisChanged(_)
            | Event::FencingFailed(_)
    );
    if is_returning(cluster, me) && !goes_on {
        return Vec::new();
    }
    match (event, run) {
        (Event::StepStarted(started), Some(run)) => {
            vec![Effect::RunStep(run, started.step, started.attempt)]
        }
        (Event::StepUndoStarted(undo), Some(run)) => vec![Effect::UndoStep(run, undo.step)],
        (Event::FencingStarted(fencing), _) => vec![Effect::Fence { epoch: fencing.epoch, again: false }],
        (Event::StrayPrimaryFound(stray), _) if stray.answer == StrayAnswer::Stopped => {
            vec![Effect::Fence { epoch: stray.epoch, again: false }]
        }
        (Event::FencingFailed(failed), _) => vec![Effect::Fence { epoch: failed.epoch, again: true }],
        (Event::FenceLifted(_), _) if !cluster.nodes.is_superseded(me) => vec![Effect::ServeAgain],
        // its run takes it from there
        (Event::MainAnnounced(_), _) if cluster.nodes.is_handing_over(me) => Vec::new(),
        // it has proved that nothing of it runs, for the run that made the new main
        (Event::MainAnnounced(_), _) if is_fenced(cluster, me) => Vec::new(),
        (Event::MainAnnounced(announced), _) if announced.main != me => {
            if cluster.nodes.is_superseded(me) {
                vec![Effect::Fence { epoch: announced.epoch, again: false }]
            } else {
                vec![Effect::Follow(announced.main)]
            }
        }
        (Event::FollowFinished(follow), _) if !follow.streaming => {
            let left = standpoint.is_left_alone.then_some(follow.main);
            standpoint.to_follow.or(left).map(Effect::FollowLater).into_iter().collect()
        }
        // a server of a fenced node is stopped again, however it was started
        (Event::PostgresChanged(changed), _)
            if changed.status != PostgresStatus::Stopped && cluster.nodes.is_superseded(me) =>
        {
            vec![Effect::Fence { epoch: cluster.nodes.epoch, again: false }]
        }
        (Event::RedisChanged(changed), _)
            if changed.status != RedisStatus::Stopped && cluster.nodes.is_superseded(me) =>
        {
            vec![Effect::Fence { epoch: cluster.nodes.epoch, again: false }]
        }
        (
            Event::RunFailed(_)
            | Event::RunRefused(_)
            | Event::SwitchoverCompleted(_)
            | Event::RejoinCompleted(_)
            | Event::HandoverWithdrawn(_),
            _,
        ) if cluster.nodes.is_superseded(me) => {
            vec![Effect::Fence { epoch: cluster.nodes.epoch, again: false }]
        }
        // another node may have become main meanwhile, and was not followed then
        (Event::RejoinCompleted(_) | Event::RunRefused(_) | Event::RunFailed(_), _) => {
            standpoint.to_follow.map(Effect::Follow).into_iter().collect()
        }
        // what the run could not take back; it was down then, and answers again now
        (Event::FailoverFailed(_) | Event::FailoverRefused(_), _) => return_to(me, belief),
        (Event::PostgresChanged(changed), _) if changed.status == PostgresStatus::Detached => {
            return_to(me, belief)
        }
        // it may be a stray primary
        (Event::PostgresChanged(changed), _) if changed.status == PostgresStatus::Primary => {
            vec![Effect::Look]
        }
        (Event::MainLost(_), _) => vec![Effect::Look],
        _ => Vec::new(),
    }
}

fn is_fenced(cluster: &Cluster, me: NodeId) -> bool {
    cluster.nodes.get(me).is_some_and(|row| row.status == NodeStatus::Fenced)
}

/// The effects that a restarted supervisor finds outstanding: a fence, or a main that is not followed yet, or not any longer.
#[must_use]
pub fn outstanding(me: NodeId, belief: &Belief) -> Vec<Effect> {
    let Belief { cluster, standpoint, .. } = belief;
    match cluster.nodes.get(me).map(|row| row.status) {
        // its run sees to that
        _ if is_returning(cluster, me) => Vec::new(),
        // also when it was proved before: servers that were started since are stopped again
        Some(NodeStatus::Fencing | NodeStatus::Fenced) => {
            vec![Effect::Fence { epoch: cluster.nodes.epoch, again: false }]
        }
        Some(NodeStatus::HandingOver) => Vec::new(),
        _ => match standpoint.to_follow.filter(|main| *main != me) {
            Some(main) => vec![Effect::Follow(main)],
            None => return_to(me, belief),
        },
    }
}

/// A standby that a run left without a main follows again, unless another run is at it, or the role has moved since. One
/// that a person has detached is left alone.
fn return_to(me: NodeId, belief: &Belief) -> Vec<Effect> {
    let Belief { cluster, standpoint, .. } = belief;
    let nodes = &cluster.nodes;
    let may = cluster.runs.active(me).is_none() && !nodes.is_superseded(me);
    let main = nodes.main.filter(|main| may && standpoint.is_left_alone && *main != me);
    main.map(Effect::ReturnTo).into_iter().collect()
}
