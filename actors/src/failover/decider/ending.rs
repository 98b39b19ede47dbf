//! What a run comes to, from what its steps observed.

use interrex_events::{
    Certificate, EpochOpened, Event, FailoverCompleted, Handover, LearnedBy, Loss, Lsn, MainAnnounced,
    RecoveryTime, RejoinCompleted, RunKind, StepId, SwitchoverCompleted, TimelineId,
};
use interrex_projections::{Run, Step};
use serde_json::{Map, Value};

use crate::{
    messages::PRICE_OBSERVED,
    replication::{
        fork_report::stranded,
        rejoin::{demotion, kept, kept_redis},
    },
};

/// What the promotion observed. Names as the ReplicationActor reports them.
pub(super) fn epoch_opened(run: &Run) -> EpochOpened {
    let observed = run.step(StepId::Promote).observed;
    EpochOpened {
        epoch: run.epoch,
        main: run.new_main,
        old_main: Some(run.old_main),
        timeline: timeline(observed.get("timeline")),
        switchpoint: lsn(observed.get("switchpoint")),
    }
}

/// That this node knows who took its role, from whoever took it.
pub(super) fn taken_over(run: &Run) -> MainAnnounced {
    let observed = run.step(StepId::HandOver).observed;
    MainAnnounced {
        main: run.new_main,
        epoch: run.epoch,
        timeline: Some(timeline(observed.get("timeline"))),
        switchpoint: lsn(observed.get("switchpoint")),
        announced_by: run.new_main,
        learned_by: LearnedBy::Handover,
        planned: Some(true),
    }
}

fn timeline(value: Option<&Value>) -> TimelineId {
    let number = value.and_then(Value::as_u64).unwrap_or_default();
    TimelineId(u32::try_from(number).unwrap_or_default())
}

fn lsn(value: Option<&Value>) -> Option<Lsn> {
    value.and_then(Value::as_str).and_then(|text| text.parse().ok())
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
            stranded: stranded(&run.step(StepId::ReportFork).observed),
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
    !step.observed.contains_key(PRICE_OBSERVED)
}

/// What a stopped main proved. Names as the ReplicationActor reports them.
pub(super) fn handover(run: &Run) -> Option<Handover> {
    let proof = run.step(StepId::ProveHandover).observed;
    Some(Handover {
        run: run.id,
        system_id: proof.get("system_id")?.as_str()?.to_owned(),
        timeline: timeline(proof.get("timeline")),
        checkpoint: lsn(proof.get("checkpoint"))?,
        end: lsn(proof.get("end"))?,
    })
}

fn certificate(run: &Run) -> Option<Certificate> {
    let handover = run.handover.clone()?;
    let (proof, taken) = (run.step(StepId::ProveHandover).observed, run.step(StepId::HandOver).observed);
    let head = |observed: &Map<String, Value>| serde_json::from_value(observed.get("head")?.clone()).ok();
    Some(Certificate {
        system_id: handover.system_id,
        old_timeline: handover.timeline,
        new_timeline: timeline(taken.get("timeline")),
        checkpoint: handover.checkpoint,
        end: handover.end,
        received: lsn(proof.get("received"))?,
        switchpoint: lsn(taken.get("switchpoint"))?,
        old_main_head: head(&proof)?,
        new_main_head: head(&taken)?,
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
    let measured = run.step(StepId::MeasureLoss).observed.get("loss")?.clone();
    let mut loss: Loss = serde_json::from_value(measured).ok()?;
    if let Some(switchpoint) = lsn(run.step(StepId::Promote).observed.get("switchpoint")) {
        loss.own_lsn = switchpoint;
        loss.bytes = loss.main_lsn.map(|main| main.bytes_ahead_of(switchpoint));
    }
    Some(loss)
}
