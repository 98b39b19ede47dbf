//! What a run's events say, in a sentence.

use interrex_events::{Event, NodeId, Request, RunKind, StepId, StepOutcome, Trigger, Unscheduling};

use super::{Level, date_and_time, with_detail};
use crate::{ClusterNodes, counted, human_bytes, human_ms};

/// The sentence of an event of a run of that kind.
pub(super) fn sentence(event: &Event, kind: RunKind, nodes: &ClusterNodes) -> (Level, String) {
    let name = |node: NodeId| nodes.name(node);
    match event {
        Event::FailoverWithheld(withheld) => {
            (Level::Notice, format!("no failover, rule {}: {}", withheld.rule, withheld.detail))
        }
        Event::FailoverStarted(started) if started.trigger == Trigger::Switchover => (
            Level::Notice,
            format!(
                "{} takes over from {} for epoch {}; the old main's WAL ended at {}",
                name(started.new_main),
                name(started.old_main),
                started.epoch,
                started
                    .handover
                    .as_ref()
                    .map_or_else(|| "an unknown place".to_owned(), |it| it.end.to_string())
            ),
        ),
        Event::FailoverStarted(started) if started.trigger == Trigger::Operator => (
            Level::Alarm,
            format!(
                "promotion of {} in place of {} started for epoch {}{}; quorum {}",
                name(started.new_main),
                name(started.old_main),
                started.epoch,
                asked(started.request.as_ref()),
                started.quorum
            ),
        ),
        Event::FailoverStarted(started) if started.trigger == Trigger::ByHand => (
            Level::Alarm,
            format!(
                "PostgreSQL of {} was promoted by hand, and {} has been silent for {} (allowed {}): its supervisor takes it over \
                 as a promotion for epoch {}; quorum {}",
                name(started.new_main),
                name(started.old_main),
                human_ms(started.silent_ms),
                human_ms(started.threshold_ms),
                started.epoch,
                started.quorum
            ),
        ),
        Event::FailoverStarted(started) => (
            Level::Alarm,
            format!(
                "failover from {} to {} started for epoch {}, after {} of silence (allowed {}); quorum {}",
                name(started.old_main),
                name(started.new_main),
                started.epoch,
                human_ms(started.silent_ms),
                human_ms(started.threshold_ms),
                started.quorum
            ),
        ),
        Event::FailoverRefused(refused) => (
            Level::Alarm,
            format!("{kind} refused at {}: {}; next: {}", refused.step, refused.reason, refused.next),
        ),
        Event::RunRefused(refused) => (
            Level::Alarm,
            format!("{kind} refused at {}: {}; next: {}", refused.step, refused.reason, refused.next),
        ),
        Event::RunFailed(failed) => (
            Level::Alarm,
            format!("{kind} {} at {}: {}; next: {}", failed.end, failed.step, failed.error, failed.next),
        ),
        Event::RunCancelRequested(cancel) => {
            let why = cancel.reason.as_deref().unwrap_or_default();
            (Level::Notice, with_detail("cancellation of the run was requested".to_owned(), why))
        }
        Event::SwitchoverStarted(started) => (
            Level::Notice,
            format!(
                "switchover from {} to {} started for epoch {}{}",
                name(started.old_main),
                name(started.new_main),
                started.epoch,
                asked(Some(&started.request))
            ),
        ),
        Event::SwitchoverScheduled(scheduled) => (
            Level::Notice,
            format!(
                "a switchover to {} is scheduled for {}{}",
                name(scheduled.target),
                date_and_time(scheduled.due),
                asked(Some(&scheduled.request))
            ),
        ),
        Event::SwitchoverUnscheduled(gone) => {
            let level = match gone.because {
                Unscheduling::Begun | Unscheduling::Cancelled => Level::Notice,
                Unscheduling::Refused | Unscheduling::Missed => Level::Alarm,
            };
            let text = format!(
                "the switchover to {} that was scheduled for {} is {}",
                name(gone.target),
                date_and_time(gone.due),
                gone.because
            );
            (level, with_detail(text, &gone.detail))
        }
        Event::HandoverAccepted(accepted) => (
            Level::Info,
            format!(
                "the switchover {} of {} to this node is accepted: main may stop for it, and decides alone until it offers epoch \
                 {}",
                accepted.run.short(),
                name(accepted.from),
                accepted.epoch
            ),
        ),
        Event::HandoverOffered(offered) => (
            Level::Notice,
            format!(
                "{} is offered the role of main of epoch {}: timeline {} ended at {}",
                name(offered.to),
                offered.epoch,
                offered.handover.timeline,
                offered.handover.end
            ),
        ),
        Event::HandoverWithdrawn(withdrawn) => {
            (Level::Alarm, format!("the offer to {} is withdrawn: {}", name(withdrawn.to), withdrawn.reason))
        }
        Event::RejoinStarted(started) => {
            let how = if started.copy { ", by a copy of its data" } else { "" };
            let text = format!(
                "rejoin started: to follow {} of epoch {}{how}{}",
                name(started.main),
                started.epoch,
                asked(started.request.as_ref())
            );
            (Level::Notice, text)
        }
        Event::RejoinCompleted(completed) => {
            let stranded = completed.stranded.as_ref().map(|it| {
                let kept =
                    completed.kept.as_ref().map(|kept| format!(", kept in {kept}")).unwrap_or_default();
                let tables = it.tables.as_ref().map(|tables| format!(" ({tables})")).unwrap_or_default();
                format!(
                    "; only here: {} with {} after {}{tables}{kept}",
                    counted(it.committed, "committed transaction"),
                    counted(it.rows, "row"),
                    it.switchpoint
                )
            });
            let redis = completed.kept_redis.as_ref().map(|kept| {
                format!("; to see the keys that only its Redis had: interrex salvage --kept-redis {kept} --output stranded-keys")
            });
            let text = format!(
                "rejoin completed{}: secondary of {}, its data {}{}{}",
                without(&completed.degraded),
                name(completed.main),
                completed.by,
                stranded.unwrap_or_default(),
                redis.unwrap_or_default()
            );
            (Level::Notice, text)
        }
        Event::SwitchoverCompleted(completed) => {
            let by_force = completed.degraded.contains(&StepId::HandOverRedis);
            let of_postgres = if by_force { " of PostgreSQL" } else { "" };
            let proof = match &completed.certificate {
                Some(it) => format!(
                    "nothing{of_postgres} is lost: timeline {} begins at {}, where timeline {} ended",
                    it.new_timeline, it.switchpoint, it.old_timeline
                ),
                None => "without a certificate".to_owned(),
            };
            let redis = completed.kept_redis.as_ref().map(|kept| {
                format!(
                    "; Redis did not change roles in good order; to see the keys that only the old one had: interrex salvage \
                     --kept-redis {kept} --output stranded-keys"
                )
            });
            let text = format!(
                "switchover completed{}: {} is main of epoch {}; {} without writes; {proof}{}",
                without(&completed.degraded),
                name(completed.main),
                completed.epoch,
                human_ms(completed.without_writes_ms),
                redis.unwrap_or_default()
            );
            (Level::Notice, text)
        }
        Event::NodeDemoted(demoted) => (
            Level::Notice,
            format!(
                "from now on the data directory can only follow {} of epoch {} ({})",
                name(demoted.main),
                demoted.epoch,
                demoted.by
            ),
        ),
        Event::RunResumed(resumed) => {
            let steps: Vec<_> = resumed.interrupted.iter().map(|step| step.name()).collect();
            let steps = if steps.is_empty() { "between two steps".to_owned() } else { steps.join(", ") };
            (Level::Notice, format!("run resumed, interrupted at: {steps}"))
        }
        Event::StepStarted(started) => {
            let again =
                if started.attempt > 1 { format!(", attempt {}", started.attempt) } else { String::new() };
            (Level::Info, format!("step {} begins{again}", started.step))
        }
        Event::StepFinished(finished) => {
            let level = match finished.outcome {
                StepOutcome::Failed | StepOutcome::Unknown | StepOutcome::Refused => Level::Alarm,
                _ => Level::Info,
            };
            let text =
                format!("step {} {} in {}", finished.step, finished.outcome, human_ms(finished.took_ms));
            (level, with_detail(text, &finished.detail))
        }
        Event::StepUndoStarted(undo) => (Level::Notice, format!("step {} is being taken back", undo.step)),
        Event::StepUndone(undone) => {
            let how = if undone.undone { "taken back" } else { "could not be taken back" };
            (Level::Notice, with_detail(format!("step {} {how}", undone.step), &undone.detail))
        }
        Event::FailoverCompleted(completed) => {
            let time = completed.recovery_time;
            let degraded = without(&completed.degraded);
            let loss = match completed.loss.as_ref().and_then(|loss| loss.bytes) {
                Some(0) => "this node has all that main had reported".to_owned(),
                Some(bytes) => format!("at least {} of WAL lost", human_bytes(bytes)),
                None => "loss unknown, because main never reported its position".to_owned(),
            };
            let text = format!(
                "{kind} completed{degraded}: {} is main of epoch {}; {} without writes (detect {}, decide {}, \
                 promote {}); {loss}",
                name(completed.main),
                completed.epoch,
                human_ms(time.without_writes_ms()),
                human_ms(time.detect_ms),
                human_ms(time.decide_ms),
                human_ms(time.promote_ms),
            );
            (Level::Notice, text)
        }
        Event::FailoverFailed(failed) => (
            Level::Alarm,
            format!("{kind} {} at {}: {}; next: {}", failed.end, failed.step, failed.error, failed.next),
        ),
        other => (Level::Info, other.kind().to_owned()),
    }
}

fn without(degraded: &[StepId]) -> String {
    if degraded.is_empty() {
        return String::new();
    }
    let steps: Vec<_> = degraded.iter().map(|step| step.name()).collect();
    format!(", without {}", steps.join(", "))
}

/// What a person said when asking for it.
fn asked(request: Option<&Request>) -> String {
    let Some(request) = request else { return String::new() };
    let forced = if request.forced { ", forced" } else { "" };
    let why = request.reason.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    format!("{forced}{why}")
}
