//! What comes next in a run, seen from the run alone: one piece of code for starting, going on, repeating, taking back and
//! resuming.

use interrex_events::{FailedEnd, StepId, StepOutcome};
use interrex_projections::{Run, StepState, Undo};

use crate::failover::steps::{Maker, Need, StepRule, rule, table};

/// What comes next in a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Move {
    /// Begin an attempt at a step.
    Start(StepId, u32),
    /// Begin to take a step back.
    Undo(StepId),
    /// Every step has ended: a new main is in service.
    Complete,
    /// Policy refused before anything changed.
    Refuse(StepId),
    /// A required step failed.
    GiveUp(StepId, FailedEnd),
}

/// What comes next, seen from the run alone. Nothing, while steps are running that others wait for.
#[must_use]
pub fn plan(run: &Run) -> Vec<Move> {
    if !run.is_running() {
        return Vec::new();
    }
    let settled = |step: StepId| settled(run, step);
    let failed = table(run.kind).iter().map(|row| row.step).find(|step| has_failed(run, *step));
    if let Some(failed) = failed.or_else(|| cancelled_at(run)) {
        return give_up(run, failed);
    }
    if run.steps.keys().all(|step| *step == StepId::RecordCompletion || settled(*step)) {
        return vec![Move::Complete];
    }
    table(run.kind)
        .iter()
        .filter(|row| row.maker != Maker::Journal && row.after.iter().all(|earlier| settled(*earlier)))
        .filter_map(|row| {
            let step = run.step(row.step);
            match step.state {
                StepState::Pending => Some(Move::Start(row.step, 1)),
                StepState::Ended(outcome)
                    if !outcome.is_success()
                        && (step.attempts < row.attempts || looks_again(run, row.step)) =>
                {
                    Some(Move::Start(row.step, step.attempts + 1))
                }
                _ => None,
            }
        })
        .collect()
}

/// Whether the steps that wait for it may begin: it succeeded, or the run does without it.
fn settled(run: &Run, step: StepId) -> bool {
    run.step(step).succeeded() || (exhausted(run, step) && !has_failed(run, step))
}

/// Whether the run cannot go on because of it. What refuses before the promotion refuses the run, needed or not.
fn has_failed(run: &Run, step: StepId) -> bool {
    let refused = has_refused(run, step) && step <= run.kind.point_of_no_return();
    exhausted(run, step) && (refused || rule(run.kind, step).need == Need::Required)
}

fn has_refused(run: &Run, step: StepId) -> bool {
    run.step(step).state == StepState::Ended(StepOutcome::Refused)
}

/// The current step of a run that was cancelled, as long as the run can be given up.
fn cancelled_at(run: &Run) -> Option<StepId> {
    let begun = run.steps.iter().rev().find(|(_, step)| step.state != StepState::Pending);
    begun.map(|(id, _)| *id).filter(|_| run.cancelled.is_some() && !run.is_past_no_return())
}

fn exhausted(run: &Run, step: StepId) -> bool {
    let state = run.step(step);
    match state.state {
        StepState::Ended(StepOutcome::Refused) => true,
        StepState::Ended(outcome) => {
            let spent = state.attempts >= rule(run.kind, step).attempts;
            !outcome.is_success() && spent && !looks_again(run, step)
        }
        _ => false,
    }
}

/// Whether a step whose observation does not read is tried again without an end: past the point of no return no run ends for
/// that.
fn looks_again(run: &Run, step: StepId) -> bool {
    run.step(step).unread && run.is_past_no_return()
}

/// After the point of no return a person must look; before it, everything is taken back first.
fn give_up(run: &Run, failed: StepId) -> Vec<Move> {
    // other steps may still be running: their outcome belongs into the record
    if run.steps.values().any(interrex_projections::Step::is_running) {
        return Vec::new();
    }
    if run.is_past_no_return() && !can_be_withdrawn(run, failed) {
        return vec![Move::GiveUp(failed, FailedEnd::NeedsOperator)];
    }
    // an attempt that failed may have done half of its work, so it is taken back too
    let touched = |row: &&StepRule| row.undo.is_some() && run.step(row.step).attempts > 0;
    for step in table(run.kind).iter().rev().filter(touched).map(|row| row.step) {
        match run.step(step).undo {
            Undo::NotAsked => return vec![Move::Undo(step)],
            Undo::Running => return Vec::new(),
            Undo::Done | Undo::Failed => {}
        }
    }
    let stuck = run.steps.values().any(|step| step.undo == Undo::Failed);
    let end = match has_refused(run, failed) {
        true if !stuck => return vec![Move::Refuse(failed)],
        // it did not do what it was asked for until that was withdrawn: asked again, it would not either
        false if failed == run.kind.point_of_no_return() => FailedEnd::NeedsOperator,
        _ if stuck => FailedEnd::Failed,
        _ => FailedEnd::RolledBack,
    };
    vec![Move::GiveUp(failed, end)]
}

/// Whether what the point of no return asked for may still be pending: it was not observed, and no attempt to withdraw it has
/// failed yet.
fn can_be_withdrawn(run: &Run, failed: StepId) -> bool {
    let undone = rule(run.kind, failed).undo.is_some() && run.step(failed).undo != Undo::Failed;
    failed == run.kind.point_of_no_return() && undone && !run.promoted
}
