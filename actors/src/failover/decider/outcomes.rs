//! What follows when a step or its undo ends, or when a supervisor finds a run that a dead one left behind.

use interrex_events::{
    Draft, Event, FencingStarted, HandoverWithdrawn, RunKind, RunResumed, StepFinished, StepId, StepOutcome,
    StepUndoStarted, StepUndone,
};
use interrex_projections::{Cluster, Run, StepState, Undo};

use super::{
    Situation,
    carrying_on::{carry_on, in_run, started_step},
    ending::{epoch_opened, taken_over},
    starting::look,
};
use crate::{
    failover::steps::rule,
    messages::{StepEnded, StepReport, UndoEnded},
};

pub(super) fn step_ended(situation: Situation<'_>, ended: &StepEnded) -> Vec<Draft> {
    let cluster = situation.cluster;
    let Some(run) = cluster.runs.get(ended.run).filter(|run| run.is_running()) else { return Vec::new() };
    let step = run.step(ended.step);
    // an answer to an attempt that was given up already changes nothing: the servers are looked at again
    if !step.is_running() || step.attempts != ended.attempt {
        return Vec::new();
    }
    let report = overtaken(situation, run, ended)
        .or_else(|| given_to_a_third(cluster, run, ended))
        .unwrap_or_else(|| ended.report.clone());
    let finished = StepFinished {
        step: ended.step,
        attempt: ended.attempt,
        outcome: report.outcome,
        observed: report.stored(),
        detail: report.detail,
        took_ms: ended.took_ms,
    };
    let outcome = finished.settled();
    let mut after = run.with_outcome(ended.step, outcome);
    if let Some(step) = after.steps.get_mut(&ended.step) {
        (step.detail, step.observed) = (finished.detail.clone(), finished.observed.clone());
        (step.unread, step.ended_at) = (outcome != finished.outcome, Some(situation.now.wall));
    }
    let seen = finished.shows_a_promotion();
    after.promoted |= seen;
    let mut events = vec![Event::from(finished)];
    if ended.step == StepId::HandOver {
        events.extend(answer_to_offer(situation, &after, outcome));
    }
    // open as soon as the promotion was seen, proved writable or not: there is no way back
    if seen && cluster.nodes.epoch < run.epoch {
        events.extend(epoch_opened(&after).map(Event::from));
    } else if seen {
        events.extend(second_main_stopped(situation, run));
    }
    events.extend(carry_on(situation, &after));
    in_run(situation, run, events)
}

/// The target has taken the role, or says that it never will by this offer. No other outcome decides.
fn answer_to_offer(situation: Situation<'_>, run: &Run, outcome: StepOutcome) -> Option<Event> {
    let nodes = &situation.cluster.nodes;
    match outcome {
        StepOutcome::Refused if still_main(situation, run) => {
            let reason = run.step(StepId::HandOver).detail;
            Some(HandoverWithdrawn { to: run.new_main, reason }.into())
        }
        // its own notice may have come first
        _ if outcome.is_success() && nodes.epoch < run.epoch => taken_over(run).map(Event::from),
        _ => None,
    }
}

/// Whether the role that a run offers is still this node's.
pub(super) fn still_main(situation: Situation<'_>, run: &Run) -> bool {
    let Situation { me, cluster: Cluster { nodes, .. }, .. } = situation;
    nodes.is_main(me) && nodes.epoch < run.epoch && !nodes.is_superseded(me)
}

/// A run whose promotion was not observed yields to the node that opened its epoch meanwhile.
fn overtaken(situation: Situation<'_>, run: &Run, ended: &StepEnded) -> Option<StepReport> {
    let nodes = &situation.cluster.nodes;
    // what was asked for may still be withdrawn, and what happened too late is stopped
    let promotes = ended.step == StepId::Promote && !run.promoted;
    if run.is_past_no_return() && !promotes {
        return None;
    }
    // a node that comes back was superseded long ago
    let returns = run.kind == RunKind::Rejoin;
    if nodes.is_superseded(run.node) && !returns {
        let words = "this node was fenced meanwhile: another node takes over";
        return Some(StepReport::new(StepOutcome::Refused, words));
    }
    // by itself this node takes nothing from a main that is back; from the fence on, main says so itself
    let is_back = situation.standpoint.main_is_back == Some(run.old_main);
    if run.kind == RunKind::Failover && ended.step < StepId::FenceOldMain && is_back {
        let words = format!(
            "main {} is back: it has given a sign of life since the verdict",
            nodes.name(run.old_main)
        );
        return Some(StepReport::new(StepOutcome::Refused, words));
    }
    (nodes.epoch > run.epoch || (nodes.epoch == run.epoch && !returns)).then(|| {
        let main = nodes.main.map_or("another node".to_owned(), |main| nodes.name(main));
        let words = format!("{main} opened epoch {} meanwhile", nodes.epoch);
        StepReport { observed: ended.report.observed.clone(), ..StepReport::new(StepOutcome::Refused, words) }
    })
}

/// A promotion that came to be after another node had opened its epoch, or a later one: this node is not main, and its
/// PostgreSQL must not run as one.
fn second_main_stopped(situation: Situation<'_>, run: &Run) -> Option<Event> {
    let Situation { me, cluster: Cluster { nodes, .. }, .. } = situation;
    let main = nodes.main.filter(|main| *main != me)?;
    let (epoch, own_epoch) = (nodes.epoch, run.epoch);
    Some(FencingStarted { superseded_by: main, epoch, own_epoch, run: None }.into())
}

/// An offer that its target does not answer has no purpose any longer once a third node is main of its epoch, or of a later
/// one: neither of the two is.
fn given_to_a_third(cluster: &Cluster, run: &Run, ended: &StepEnded) -> Option<StepReport> {
    let nodes = &cluster.nodes;
    let third = nodes.main.filter(|main| *main != run.old_main && *main != run.new_main)?;
    let unanswered = ended.step == StepId::HandOver && !ended.report.outcome.is_success();
    (unanswered && nodes.epoch >= run.epoch).then(|| {
        let words = format!("{} opened epoch {} meanwhile", nodes.name(third), nodes.epoch);
        StepReport::new(StepOutcome::Refused, words)
    })
}

pub(super) fn undo_ended(situation: Situation<'_>, ended: &UndoEnded) -> Vec<Draft> {
    let cluster = situation.cluster;
    let Some(run) = cluster.runs.get(ended.run).filter(|run| run.is_running()) else { return Vec::new() };
    let mut after = run.clone();
    if let Some(step) = after.steps.get_mut(&ended.step) {
        step.undo = if ended.undone { Undo::Done } else { Undo::Failed };
        step.undo_detail.clone_from(&ended.detail);
    }
    let undone = StepUndone { step: ended.step, undone: ended.undone, detail: ended.detail.clone() };
    let mut events = vec![Event::from(undone)];
    if !ended.undone && ended.step == run.kind.point_of_no_return() {
        // what cannot be withdrawn may have happened: that is looked at once more
        events.push(started_step(run.kind, ended.step, run.step(ended.step).attempts + 1).into());
    } else {
        events.extend(carry_on(situation, &after));
    }
    in_run(situation, run, events)
}

/// A supervisor that died left intents without outcomes. They are unknown, and each is looked at again: every
/// step begins by observing whether it is done already.
pub(super) fn resume(situation: Situation<'_>) -> Vec<Draft> {
    let Situation { me, cluster, .. } = situation;
    let Some(run) = cluster.runs.active(me) else { return look(situation) };
    let interrupted: Vec<StepId> =
        run.steps.iter().filter(|(_, step)| step.is_running()).map(|(id, _)| *id).collect();
    let mut events = vec![Event::from(RunResumed { interrupted: interrupted.clone() })];
    let mut after = run.clone();
    for id in interrupted {
        let attempt = run.step(id).attempts;
        events.push(
            StepFinished {
                step: id,
                attempt,
                outcome: StepOutcome::Unknown,
                detail: "the supervisor ended before it could record the outcome".to_owned(),
                observed: serde_json::Map::new(),
                took_ms: 0,
            }
            .into(),
        );
        after = after.with_outcome(id, StepOutcome::Unknown);
        // a death of the supervisor says nothing against the step: it does not use up an attempt
        let given_up = run.cancelled.is_some() && !run.is_past_no_return();
        if let Some(step) = after.steps.get_mut(&id)
            && !given_up
            && step.attempts >= rule(run.kind, id).attempts
        {
            events.push(started_step(run.kind, id, attempt + 1).into());
            step.state = StepState::Running;
        }
    }
    // an undo that was interrupted is simply made again
    for (id, step) in &mut after.steps {
        if step.undo == Undo::Running {
            events.push(StepUndoStarted { step: *id }.into());
        }
    }
    events.extend(carry_on(situation, &after));
    in_run(situation, run, events)
}
