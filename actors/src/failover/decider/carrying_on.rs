//! The facts that carry out what comes next.

use interrex_events::{
    Draft, Event, FailedEnd, FailoverFailed, FailoverRefused, HandoverOffered, RunFailed, RunKind,
    RunRefused, StepId, StepStarted, StepUndoStarted,
};
use interrex_projections::{Run, Undo};

use super::{
    Situation,
    ending::{completed, handover},
    planning::{Move, plan},
};
use crate::failover::steps::rule;

/// The facts that carry out the plan.
pub(super) fn carry_on(situation: Situation<'_>, run: &Run) -> Vec<Event> {
    plan(run)
        .into_iter()
        .flat_map(|next| match next {
            Move::Start(step, attempt) => begin_step(run, step, attempt),
            Move::Undo(step) => vec![StepUndoStarted { step }.into()],
            Move::Complete => vec![completed(run)],
            Move::Refuse(step) => vec![refused(situation, run, step)],
            Move::GiveUp(step, end) => vec![gave_up(situation, run, step, end)],
        })
        .collect()
}

pub(super) fn started_step(kind: RunKind, step: StepId, attempt: u32) -> StepStarted {
    StepStarted { step, attempt, limit_ms: rule(kind, step).limit_ms }
}

fn begin_step(run: &Run, step: StepId, attempt: u32) -> Vec<Event> {
    let started = Event::from(started_step(run.kind, step, attempt));
    let offered = (step == StepId::HandOver && run.handover.is_none()).then(|| handover(run)).flatten();
    match offered {
        // from here on this node must not start as a primary, whatever becomes of it
        Some(handover) => {
            vec![HandoverOffered { to: run.new_main, epoch: run.epoch, handover }.into(), started]
        }
        None => vec![started],
    }
}

fn refused(situation: Situation<'_>, run: &Run, step: StepId) -> Event {
    let reason = in_words(run, step);
    let shown = format!("interrex run show {}", run.id.short());
    let next = match run.kind {
        RunKind::Switchover if !situation.cluster.nodes.is_main(run.node) => {
            format!("{shown}; another node became main meanwhile: interrex status")
        }
        RunKind::Switchover => format!("{shown}; fix the problem that it shows and ask again; this node is still main"),
        RunKind::Rejoin => format!("{shown}; the data directory is unchanged"),
        RunKind::Promotion if step == StepId::MeasureLoss => {
            "bring the old main back, or accept the loss: interrex promote --force --reason TEXT".to_owned()
        }
        _ if step == StepId::MeasureLoss => {
            "raise failover.maximum_lag_bytes and restart this supervisor to accept the loss, or bring the old main back"
                .to_owned()
        }
        _ => format!("{shown}; this node is a standby again"),
    };
    match run.kind {
        RunKind::Switchover | RunKind::Rejoin => RunRefused { step, reason, next }.into(),
        _ => FailoverRefused { step, reason, next }.into(),
    }
}

fn gave_up(situation: Situation<'_>, run: &Run, step: StepId, end: FailedEnd) -> Event {
    let shown = format!("interrex run show {}", run.id.short());
    let (old_main, new_main) =
        (situation.cluster.nodes.name(run.old_main), situation.cluster.nodes.name(run.new_main));
    let next = match (run.kind, end) {
        (RunKind::Switchover, FailedEnd::RolledBack) => {
            format!("{shown}; this node is still main, and serves")
        }
        (RunKind::Switchover, FailedEnd::Failed) => {
            format!(
                "{shown}, and interrex timeline, which shows why this node's PostgreSQL was not started again. Restart this node's \
                 supervisor, which asks {new_main} first. Never start PostgreSQL by hand before it is certain that {new_main} is \
                 not main"
            )
        }
        (RunKind::Rejoin, FailedEnd::NeedsOperator) => format!(
            "{shown}; fix the problem that it shows, then: interrex rejoin, or with a copy of {new_main}'s data: interrex rejoin \
             --copy"
        ),
        (RunKind::Rejoin, _) => {
            format!(
                "{shown}; the data directory has lost nothing. Fix the problem that it shows, then: interrex rejoin"
            )
        }
        (_, FailedEnd::NeedsOperator) if run.kind.number(step) > run.kind.number(StepId::OpenEpoch) => {
            format!("{shown}; this node is main: finish that step by hand")
        }
        (_, FailedEnd::NeedsOperator) => after_the_promotion(situation, run, &shown),
        (_, FailedEnd::Failed) => {
            format!(
                "{shown}; this node's standby follows {old_main} again by itself when both answer; check whether {old_main} was \
                 fenced"
            )
        }
        (_, FailedEnd::RolledBack) => format!("{shown}; this node is a standby again"),
    };
    let error = match &run.cancelled {
        Some(reason) if end != FailedEnd::NeedsOperator => format!("the run was cancelled: {reason}"),
        _ => in_words(run, step),
    };
    match run.kind {
        RunKind::Switchover | RunKind::Rejoin => RunFailed { end, step, error, next }.into(),
        _ => FailoverFailed { end, step, error, next }.into(),
    }
}

/// How a step ended, and what became of it since.
fn in_words(run: &Run, step: StepId) -> String {
    let step = run.step(step);
    if step.undo_detail.is_empty() { step.detail } else { format!("{}; {}", step.detail, step.undo_detail) }
}

/// The next step of a person after a promotion that did not succeed: the message says whether it may still happen (ADR 15).
fn after_the_promotion(situation: Situation<'_>, run: &Run, shown: &str) -> String {
    let nodes = &situation.cluster.nodes;
    let (old_main, new_main) = (nodes.name(run.old_main), nodes.name(run.new_main));
    match run.step(StepId::Promote).undo {
        _ if run.promoted && nodes.epoch >= run.epoch && !nodes.is_main(run.new_main) => {
            format!("{shown}; this node is stopped, because another node is main: interrex rejoin {new_main}")
        }
        Undo::Done => format!(
            "{shown}; nothing is pending. Fix the problem that is in this node's PostgreSQL log; then, if {old_main} does not \
             serve: interrex promote"
        ),
        Undo::Failed if !run.promoted => format!(
            "{shown}; THE PROMOTION ASKED FOR IS PENDING, and makes this node a second main if it succeeds while {old_main} \
             serves: do not start {old_main}. Stop PostgreSQL on this node until none of its processes is left, if necessary by a \
             restart of the machine. Restart this supervisor, which starts PostgreSQL as a standby, then: interrex promote"
        ),
        _ => {
            format!("{shown}; fix the problem that is in this node's PostgreSQL log, then: interrex promote")
        }
    }
}

pub(super) fn in_run(situation: Situation<'_>, run: &Run, events: Vec<Event>) -> Vec<Draft> {
    // from the promotion on, what this node says is said in the epoch it opened
    let mut epoch = situation.cluster.nodes.epoch;
    events
        .into_iter()
        .map(|event| {
            if let Event::EpochOpened(opened) = &event {
                epoch = opened.epoch;
            }
            Draft::new(epoch, event).in_run(run.id).because_of(run.lineage)
        })
        .collect()
}
