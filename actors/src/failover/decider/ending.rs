//! The end of a run, from what its steps observed.

use interrex_events::{
    Certificate, EpochOpened, Event, FailoverCompleted, ForkReported, Handover, HandoverProved, LearnedBy,
    Loss, LossMeasured, MainAnnounced, PRICE, Promoted, RecoveryTime, RejoinCompleted, RoleTaken, RunKind,
    StepId, SwitchoverCompleted,
};
use interrex_projections::{Run, Step};

use crate::replication::rejoin::{demotion, kept, kept_redis};

/// What the promotion observed; nothing if that was not seen.
pub(super) fn epoch_opened(run: &Run) -> Option<EpochOpened> {
    let Promoted { timeline, switchpoint } = run.observed(StepId::Promote)?;
    Some(EpochOpened {
        epoch: run.epoch,
        main: run.new_main,
        old_main: Some(run.old_main),
        timeline,
        switchpoint: Some(switchpoint),
    })
}

/// That this node knows who took its role, by the answer of the node that took it.
pub(super) fn taken_over(run: &Run) -> Option<MainAnnounced> {
    let RoleTaken { timeline, switchpoint, .. } = run.observed(StepId::HandOver)?;
    Some(MainAnnounced {
        main: run.new_main,
        epoch: run.epoch,
        timeline: Some(timeline),
        switchpoint,
        announced_by: run.new_main,
        learned_by: LearnedBy::Handover,
        planned: Some(true),
    })
}

/// What ends a run whose steps have all ended.
pub(super) fn completed(run: &Run) -> Event {
    let degraded: Vec<StepId> = run
        .steps
        .iter()
        .filter(|(id, step)| **id != StepId::RecordCompletion && !(step.succeeded() && is_whole(step)))
        .map(|(id, _)| *id)
        .collect();
    let (main, epoch) = (run.new_main, run.epoch);
    match run.kind {
        RunKind::Failover | RunKind::Promotion | RunKind::Takeover => FailoverCompleted {
            main,
            epoch,
            degraded,
            recovery_time: recovery_time(run),
            loss: final_loss(run),
        }
        .into(),
        RunKind::Rejoin => RejoinCompleted {
            main,
            epoch,
            by: demotion(run),
            stranded: run.observed(StepId::ReportFork).map(|ForkReported { stranded, .. }| stranded),
            kept: kept(run),
            degraded,
            kept_redis: kept_redis(run),
        }
        .into(),
        RunKind::Switchover => SwitchoverCompleted {
            main,
            epoch,
            degraded,
            without_writes_ms: without_writes_ms(run),
            certificate: certificate(run),
            kept_redis: kept_redis(run),
        }
        .into(),
    }
}

/// Whether it cost nothing.
fn is_whole(step: &Step) -> bool {
    !step.observed.contains_key(PRICE)
}

/// What a stopped main proved.
pub(super) fn handover(run: &Run) -> Option<Handover> {
    let HandoverProved { system_id, timeline, checkpoint, end, .. } = run.observed(StepId::ProveHandover)?;
    Some(Handover { run: run.id, system_id, timeline, checkpoint, end })
}

fn certificate(run: &Run) -> Option<Certificate> {
    let handover = run.handover.clone()?;
    let proof: HandoverProved = run.observed(StepId::ProveHandover)?;
    let taken: RoleTaken = run.observed(StepId::HandOver)?;
    Some(Certificate {
        system_id: handover.system_id,
        old_timeline: handover.timeline,
        new_timeline: taken.timeline,
        checkpoint: handover.checkpoint,
        end: handover.end,
        received: proof.received,
        switchpoint: taken.switchpoint?,
        old_main_head: proof.head,
        new_main_head: taken.head,
    })
}

/// From the request to stop to the proved write, by the clock of the old main.
fn without_writes_ms(run: &Run) -> u64 {
    let (stop, taken) = (run.step(StepId::StopMain).started_at, run.step(StepId::HandOver).ended_at);
    stop.zip(taken).map_or(0, |(from, until)| (until - from).num_milliseconds().max(0).cast_unsigned())
}

fn recovery_time(run: &Run) -> RecoveryTime {
    let (promote, dependents) = (run.step(StepId::Promote), run.step(StepId::RestartDependents));
    let began = promote.started_at.map_or(0, |at| run.ms_until(at));
    let promoted = promote.ended_at.map_or(began, |at| run.ms_until(at));
    let ready = dependents.ended_at.map_or(promoted, |at| run.ms_until(at));
    RecoveryTime {
        detect_ms: run.silent_ms,
        decide_ms: began,
        promote_ms: promoted.saturating_sub(began),
        dependents_ms: ready.saturating_sub(promoted),
    }
}

/// The loss as measured, against the exact place where the new timeline left the old one.
fn final_loss(run: &Run) -> Option<Loss> {
    let LossMeasured { mut loss } = run.observed(StepId::MeasureLoss)?;
    if let Some(Promoted { switchpoint, .. }) = run.observed(StepId::Promote) {
        loss.own_lsn = switchpoint;
        loss.bytes = loss.main_lsn.map(|main| main.bytes_ahead_of(switchpoint));
    }
    Some(loss)
}
