//! A node that is not main takes no writes, whatever made its PostgreSQL a primary: a person, a setting that was left, a removed
//! `standby.signal`.
//!
//! ```text
//! PostgreSQL takes writes, and this node is not main ─┬─ main lives ──────────────> stopped, fenced until it rejoins
//!                                                     ├─ main is silent ──────────> watched
//!                                                     └─ ... for its threshold ───> taken over, as a promotion
//! ```
//!
//! A run of this node that promotes it is exempt: from its promote request to `epoch_opened`, or to its withdrawal.

use interrex_events::{
    Draft, Event, FailoverStarted, NodeId, PostgresStatus, RunKind, StepId, StrayAnswer, StrayPrimaryFound,
    Trigger,
};
use interrex_projections::human_ms;

use super::{Situation, starting::begin};
use crate::{journal::Belief, messages::MainSight};

/// Pause after a takeover that came to nothing, before the next one.
const AGAIN_AFTER_MS: i64 = 10_000;

/// The main, if this node's PostgreSQL takes writes although another node is main.
#[must_use]
pub fn main_beside(me: NodeId, belief: &Belief) -> Option<NodeId> {
    let Belief { cluster, standpoint, .. } = belief;
    beside(me, cluster, standpoint)
}

fn beside(
    me: NodeId,
    cluster: &interrex_projections::Cluster,
    standpoint: &interrex_projections::Standpoint,
) -> Option<NodeId> {
    let nodes = &cluster.nodes;
    let is_primary = standpoint.postgres == Some(PostgresStatus::Primary);
    // a superseded node, or one that hands over, is stopped for that reason; a run that is under way decides what runs
    let judged = !nodes.is_superseded(me) && !nodes.is_handing_over(me) && cluster.runs.active(me).is_none();
    nodes.main.filter(|main| is_primary && judged && *main != me)
}

/// The facts that follow from a stray primary; `None` if there is no stray.
pub(super) fn look(situation: Situation<'_>) -> Option<Vec<Draft>> {
    let Situation { me, cluster, standpoint, policy, sight, now, .. } = situation;
    let main = beside(me, cluster, standpoint)?;
    let Some(sight) = sight.filter(|sight| sight.main == main) else { return Some(Vec::new()) };
    let name = cluster.nodes.name(main);
    let silent_ms = now.ms_since(sight.silent_since);
    if sight.answers() {
        let detail = format!(
            "{name} is main of epoch {} and is alive; every server on this node is stopped, and what was written here is kept",
            cluster.nodes.epoch
        );
        let next = "bring this node back, which keeps what only this node has: interrex rejoin. To work on a server by hand, first \
                    stop its supervisor and cut the server off from clients; to move the role: interrex switchover";
        return Some(found(situation, main, StrayAnswer::Stopped, detail, next));
    }
    if silent_ms < policy.threshold_ms {
        let detail = format!(
            "{name}, which is main, has been silent for {} of {}: this node's PostgreSQL serves until {name} answers, and is then \
             stopped; if {name} is lost, this node takes its role over",
            human_ms(silent_ms),
            human_ms(policy.threshold_ms)
        );
        let next = format!("make sure that {name} is down and stays down");
        return Some(found(situation, main, StrayAnswer::Watched, detail, &next));
    }
    Some(take_over(situation, main, sight, silent_ms))
}

fn found(
    situation: Situation<'_>,
    main: NodeId,
    answer: StrayAnswer,
    detail: String,
    next: &str,
) -> Vec<Draft> {
    let Situation { me, cluster, standpoint, .. } = situation;
    if standpoint.stray == Some(answer) {
        return Vec::new();
    }
    let row = cluster.nodes.get(me);
    let event = StrayPrimaryFound {
        main,
        epoch: cluster.nodes.epoch,
        timeline: row.and_then(|row| row.timeline),
        lsn: row.and_then(|row| row.lsn),
        answer,
        detail,
        next: next.to_owned(),
    };
    vec![Draft::new(cluster.nodes.epoch, event)]
}

/// By the rules of `interrex promote`: the run asks the other nodes and main again, opens the epoch, and notifies every peer.
fn take_over(situation: Situation<'_>, main: NodeId, sight: &MainSight, silent_ms: u64) -> Vec<Draft> {
    let Situation { me, cluster, policy, now, .. } = situation;
    let last = cluster.runs.runs.values().filter(|run| run.node == me).filter_map(|run| run.ended_at).max();
    if last.is_some_and(|at| (now.wall - at).num_milliseconds().abs() < AGAIN_AFTER_MS) {
        return Vec::new();
    }
    let started = FailoverStarted {
        trigger: Trigger::ByHand,
        old_main: main,
        new_main: me,
        epoch: cluster.nodes.epoch.next(),
        evidence: sight.evidence.clone(),
        silent_ms,
        threshold_ms: policy.threshold_ms,
        last_report: sight.last_report.clone(),
        quorum: policy.quorum.to_owned(),
        request: None,
        handover: None,
    };
    begin(situation, RunKind::Promotion, StepId::WinEpoch, Event::from(started)).1
}
