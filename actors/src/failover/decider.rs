//! What to do about a lost main, a finished step, a later epoch: a pure function of the fold and the input.
//!
//! A run is never stepped through from memory. [`plan`] looks at the run as folded and says what comes next,
//! so starting, going on, repeating and resuming after a crash are one piece of code.

use interrex_events::{
    Draft, Epoch, EpochOpened, Event, FailedEnd, FailoverCompleted, FailoverFailed, FailoverRefused,
    FailoverStarted, FailoverWithheld, FencingFailed, FencingStarted, Loss, Lsn, MainLost, NodeFenced,
    NodeId, PostgresStatus, RecoveryTime, RedisStatus, RunId, RunResumed, StepFinished, StepId, StepOutcome,
    StepStarted, StepUndoStarted, StepUndone, TimelineId, Trigger, WithheldRule,
};
use interrex_projections::{Cluster, NodeStatus, Run, Standing, Standpoint, StepState, Undo};
use serde_json::Value;

use super::{
    policy::FailoverPolicy,
    steps::{FAILOVER, Maker, Need, POINT_OF_NO_RETURN, rule},
};
use crate::{
    env::Moment,
    journal::Belief,
    messages::{FenceEnded, FenceRequest, StepEnded, StepReport, UndoEnded},
};

/// What a decision is made from, beside the input.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// This node.
    pub me: NodeId,
    /// The fold of this node's own events.
    pub cluster: &'a Cluster,
    /// What this node has seen and still has to do.
    pub standpoint: &'a Standpoint,
    /// What the operator configured.
    pub policy: &'a FailoverPolicy,
    /// Now.
    pub now: Moment,
    /// The id that a run begun now would get.
    pub fresh_run: RunId,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// The actor started, or started again.
    Booted,
    /// Time passed, or something that matters to a verdict was stored.
    Looked,
    /// A step ended.
    StepEnded(StepEnded),
    /// An undo ended.
    UndoEnded(UndoEnded),
    /// A peer with a later epoch asks this node to stop serving.
    FenceRequested(FenceRequest),
    /// Fencing ended.
    FenceEnded(FenceEnded),
}

/// The facts that follow.
#[must_use]
pub fn decide(situation: Situation<'_>, input: &Input) -> Vec<Draft> {
    match input {
        Input::Booted => resume(situation),
        Input::Looked => look(situation),
        Input::StepEnded(ended) => step_ended(situation, ended),
        Input::UndoEnded(ended) => undo_ended(situation, ended),
        Input::FenceRequested(request) => fence_requested(situation, request),
        Input::FenceEnded(ended) => fence_ended(situation, ended),
    }
}

// ---- starting ----------------------------------------------------------------------------------------------

/// A standing verdict becomes a run, unless a rule says no; a rule is recorded once per verdict.
fn look(situation: Situation<'_>) -> Vec<Draft> {
    let Situation { me, cluster, standpoint, policy, .. } = situation;
    if cluster.runs.active(me).is_some() {
        return Vec::new();
    }
    let Some(verdict) = &standpoint.verdict else { return Vec::new() };
    match reason_against(situation, verdict) {
        None => start(situation, verdict),
        Some((rule, _)) if verdict.withheld == Some(rule) => Vec::new(),
        Some((rule, detail)) => {
            let event = FailoverWithheld {
                main: verdict.lost.main,
                rule,
                detail,
                silent_ms: Some(verdict.lost.silent_ms),
                threshold_ms: policy.threshold_ms,
                evidence: Some(verdict.lost.evidence.clone()),
            };
            vec![Draft::new(cluster.nodes.epoch, event).because_of(verdict.lineage)]
        }
    }
}

fn reason_against(situation: Situation<'_>, verdict: &Standing) -> Option<(WithheldRule, String)> {
    let Situation { me, cluster, policy, now, .. } = situation;
    if !policy.auto_enabled {
        let detail = "failover.auto_failover_enabled is false on this node".to_owned();
        return Some((WithheldRule::AutoFailoverDisabled, detail));
    }
    let Some(row) = cluster.nodes.get(me) else {
        return Some((WithheldRule::NotPromotable, "this node is not in its own journal".to_owned()));
    };
    let standby = matches!(row.postgres, Some(PostgresStatus::Streaming | PostgresStatus::Detached));
    if cluster.nodes.is_main(me) || cluster.nodes.is_superseded(me) || !standby {
        let state = row.postgres.map_or("not measured yet".to_owned(), |status| status.to_string());
        let detail = format!(
            "this node is {} ({}), and its PostgreSQL is {state}, not a standby",
            row.role, row.status
        );
        return Some((WithheldRule::NotPromotable, detail));
    }
    let last = cluster.runs.newest().filter(|run| run.end != interrex_projections::RunEnd::Running)?;
    let ended_at = last.ended_at?;
    let since_ms = (now.wall - ended_at).num_milliseconds().max(0).cast_unsigned();
    (since_ms < policy.cool_down_ms).then(|| {
        let detail = format!(
            "run {} ended {} {} s ago; no other begins by itself within {} s (failover.cool_down); main {} stays lost",
            last.id.short(),
            last.end,
            since_ms / 1000,
            policy.cool_down_ms / 1000,
            cluster.nodes.name(verdict.lost.main)
        );
        (WithheldRule::CoolDown, detail)
    })
}

fn start(situation: Situation<'_>, verdict: &Standing) -> Vec<Draft> {
    let Situation { me, cluster, policy, fresh_run, .. } = situation;
    let MainLost { main, silent_ms, threshold_ms, evidence, last_report } = verdict.lost.clone();
    let started = FailoverStarted {
        trigger: Trigger::Automatic,
        old_main: main,
        new_main: me,
        epoch: cluster.nodes.epoch.next(),
        evidence,
        silent_ms,
        threshold_ms,
        last_report,
        quorum: policy.quorum.to_owned(),
    };
    let first = started_step(StepId::WinEpoch, 1);
    [Event::from(started), first.into()]
        .into_iter()
        .map(|event| Draft::new(cluster.nodes.epoch, event).in_run(fresh_run).because_of(verdict.lineage))
        .collect()
}

// ---- going on ----------------------------------------------------------------------------------------------

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
    if let Some(failed) = FAILOVER.iter().map(|row| row.step).find(|step| has_failed(run, *step)) {
        return give_up(run, failed);
    }
    if run.steps.keys().all(|step| *step == StepId::RecordCompletion || settled(*step)) {
        return vec![Move::Complete];
    }
    FAILOVER
        .iter()
        .filter(|row| row.maker != Maker::Journal && row.after.iter().all(|earlier| settled(*earlier)))
        .filter_map(|row| {
            let step = run.step(row.step);
            match step.state {
                StepState::Pending => Some(Move::Start(row.step, 1)),
                StepState::Ended(outcome) if !outcome.is_success() && step.attempts < row.attempts => {
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
    let refused =
        run.step(step).state == StepState::Ended(StepOutcome::Refused) && step <= POINT_OF_NO_RETURN;
    exhausted(run, step) && (refused || rule(step).need == Need::Required)
}

fn exhausted(run: &Run, step: StepId) -> bool {
    let state = run.step(step);
    match state.state {
        StepState::Ended(StepOutcome::Refused) => true,
        StepState::Ended(outcome) => !outcome.is_success() && state.attempts >= rule(step).attempts,
        _ => false,
    }
}

/// After the point of no return a person must look; before it, everything is taken back first.
fn give_up(run: &Run, failed: StepId) -> Vec<Move> {
    // steps beside it may still be running: their outcome belongs into the record
    if run.steps.values().any(interrex_projections::Step::is_running) {
        return Vec::new();
    }
    // a promotion that was refused was never asked for
    let refused = run.step(failed).state == StepState::Ended(StepOutcome::Refused);
    if run.is_past_no_return() && !(refused && failed == POINT_OF_NO_RETURN) {
        return vec![Move::GiveUp(failed, FailedEnd::NeedsOperator)];
    }
    // an attempt that failed may have done half of its work, so it is taken back too
    let touched = |step: StepId| rule(step).undo && run.step(step).attempts > 0;
    for step in StepId::ALL.into_iter().rev().filter(|step| touched(*step)) {
        match run.step(step).undo {
            Undo::NotAsked => return vec![Move::Undo(step)],
            Undo::Running => return Vec::new(),
            Undo::Done | Undo::Failed => {}
        }
    }
    if refused {
        return vec![Move::Refuse(failed)];
    }
    let stuck = run.steps.values().any(|step| step.undo == Undo::Failed);
    // a fenced old main stays fenced: nobody here can start its servers again
    let fenced = run.step(StepId::FenceOldMain).state == StepState::Ended(StepOutcome::Succeeded);
    let end = if stuck || fenced { FailedEnd::Failed } else { FailedEnd::RolledBack };
    vec![Move::GiveUp(failed, end)]
}

fn started_step(step: StepId, attempt: u32) -> StepStarted {
    StepStarted { step, attempt, limit_ms: rule(step).limit_ms }
}

/// The facts that carry out the plan.
fn carry_on(situation: Situation<'_>, run: &Run) -> Vec<Event> {
    plan(run)
        .into_iter()
        .map(|next| match next {
            Move::Start(step, attempt) => started_step(step, attempt).into(),
            Move::Undo(step) => StepUndoStarted { step }.into(),
            Move::Complete => completed(run).into(),
            Move::Refuse(step) => FailoverRefused {
                step,
                reason: run.step(step).detail,
                next: match step {
                    StepId::MeasureLoss => {
                        "raise failover.maximum_lag_bytes and restart this supervisor to accept the loss, \
                                            or bring the old main back"
                            .to_owned()
                    }
                    _ => format!("interrex run show {}; this node is a standby again", run.id.short()),
                },
            }
            .into(),
            Move::GiveUp(step, end) => gave_up(situation, run, step, end).into(),
        })
        .collect()
}

fn gave_up(situation: Situation<'_>, run: &Run, step: StepId, end: FailedEnd) -> FailoverFailed {
    let next = match end {
        FailedEnd::NeedsOperator => {
            format!("interrex run show {}; then look at this node's PostgreSQL", run.id.short())
        }
        FailedEnd::Failed => format!(
            "interrex run show {}; check primary_conninfo here, and whether {} was fenced",
            run.id.short(),
            situation.cluster.nodes.name(run.old_main)
        ),
        FailedEnd::RolledBack => {
            format!("interrex run show {}; this node is a standby again", run.id.short())
        }
    };
    let error = run.step(step).detail;
    FailoverFailed { end, step, error, next }
}

fn step_ended(situation: Situation<'_>, ended: &StepEnded) -> Vec<Draft> {
    let cluster = situation.cluster;
    let Some(run) = cluster.runs.get(ended.run).filter(|run| run.is_running()) else { return Vec::new() };
    let step = run.step(ended.step);
    // an answer to an attempt that was given up already changes nothing: the world is looked at anew
    if !step.is_running() || step.attempts != ended.attempt {
        return Vec::new();
    }
    let StepReport { outcome, detail, observed } =
        overtaken(cluster, run).unwrap_or_else(|| ended.report.clone());
    let mut after = run.with_outcome(ended.step, outcome);
    if let Some(step) = after.steps.get_mut(&ended.step) {
        (step.detail, step.observed, step.ended_at) =
            (detail.clone(), observed.clone(), Some(situation.now.wall));
    }
    let finished = StepFinished {
        step: ended.step,
        attempt: ended.attempt,
        outcome,
        detail,
        observed,
        took_ms: ended.took_ms,
    };
    let mut events = vec![Event::from(finished)];
    // open as soon as the promotion was seen, proved writable or not: there is no way back
    let seen = after.step(StepId::Promote).observed.contains_key("timeline");
    if ended.step == StepId::Promote && seen && cluster.nodes.epoch < run.epoch {
        events.push(epoch_opened(&after).into());
    }
    events.extend(carry_on(situation, &after));
    in_run(situation, run, events)
}

/// A run that has not promoted yet yields to whoever opened its epoch meanwhile.
fn overtaken(cluster: &Cluster, run: &Run) -> Option<StepReport> {
    let nodes = &cluster.nodes;
    (nodes.epoch >= run.epoch && !run.is_past_no_return()).then(|| {
        let main = nodes.main.map_or("another node".to_owned(), |main| nodes.name(main));
        StepReport::new(StepOutcome::Refused, format!("{main} opened epoch {} meanwhile", nodes.epoch))
    })
}

fn undo_ended(situation: Situation<'_>, ended: &UndoEnded) -> Vec<Draft> {
    let cluster = situation.cluster;
    let Some(run) = cluster.runs.get(ended.run).filter(|run| run.is_running()) else { return Vec::new() };
    let mut after = run.clone();
    if let Some(step) = after.steps.get_mut(&ended.step) {
        step.undo = if ended.undone { Undo::Done } else { Undo::Failed };
    }
    let undone = StepUndone { step: ended.step, undone: ended.undone, detail: ended.detail.clone() };
    let mut events = vec![Event::from(undone)];
    events.extend(carry_on(situation, &after));
    in_run(situation, run, events)
}

fn in_run(situation: Situation<'_>, run: &Run, events: Vec<Event>) -> Vec<Draft> {
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

/// What the promotion observed. Names as the ReplicationActor reports them.
fn epoch_opened(run: &Run) -> EpochOpened {
    let observed = run.step(StepId::Promote).observed;
    let timeline = observed.get("timeline").and_then(Value::as_u64).unwrap_or_default();
    EpochOpened {
        epoch: run.epoch,
        main: run.new_main,
        old_main: Some(run.old_main),
        timeline: TimelineId(u32::try_from(timeline).unwrap_or_default()),
        switchpoint: lsn(observed.get("switchpoint")),
    }
}

fn lsn(value: Option<&Value>) -> Option<Lsn> {
    value.and_then(Value::as_str).and_then(|text| text.parse().ok())
}

fn completed(run: &Run) -> FailoverCompleted {
    let degraded = run
        .steps
        .iter()
        .filter(|(id, step)| **id != StepId::RecordCompletion && !step.succeeded())
        .map(|(id, _)| *id)
        .collect();
    FailoverCompleted {
        main: run.new_main,
        epoch: run.epoch,
        degraded,
        recovery_time: recovery_time(run),
        loss: final_loss(run),
    }
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

// ---- resuming ----------------------------------------------------------------------------------------------

/// A supervisor that died left intents without outcomes. They are unknown, and each is looked at anew: every
/// step begins by observing whether it is done already.
fn resume(situation: Situation<'_>) -> Vec<Draft> {
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
        if let Some(step) = after.steps.get_mut(&id)
            && step.attempts >= rule(id).attempts
        {
            events.push(started_step(id, attempt + 1).into());
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

// ---- fencing -----------------------------------------------------------------------------------------------

fn fence_requested(situation: Situation<'_>, request: &FenceRequest) -> Vec<Draft> {
    let Situation { me, cluster, .. } = situation;
    let nodes = &cluster.nodes;
    if request.epoch <= nodes.epoch || nodes.is_superseded(me) || !nodes.is_main(me) {
        return Vec::new();
    }
    let event = FencingStarted { superseded_by: request.by, epoch: request.epoch, own_epoch: nodes.epoch };
    vec![Draft::new(nodes.epoch, event)]
}

fn fence_ended(situation: Situation<'_>, ended: &FenceEnded) -> Vec<Draft> {
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
                next: "keep this data directory: it may hold rows that the new main lacks; re-attach it as a secondary \
                       of the new main (docs/OPERATIONS.md, \"The old main comes back\")"
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
    /// Let this node's standbys follow another main.
    Follow(NodeId),
    /// The same, some time later: it did not succeed just now.
    FollowLater(NodeId),
    /// Look whether a verdict should become a run.
    Look,
}

/// The effects of one stored event of this node.
#[must_use]
pub fn effects(me: NodeId, belief: &Belief, run: Option<RunId>, event: &Event) -> Vec<Effect> {
    let Belief { cluster, standpoint, .. } = belief;
    match (event, run) {
        (Event::StepStarted(started), Some(run)) => {
            vec![Effect::RunStep(run, started.step, started.attempt)]
        }
        (Event::StepUndoStarted(undo), Some(run)) => vec![Effect::UndoStep(run, undo.step)],
        (Event::FencingStarted(fencing), _) => vec![Effect::Fence { epoch: fencing.epoch, again: false }],
        (Event::FencingFailed(failed), _) => vec![Effect::Fence { epoch: failed.epoch, again: true }],
        (Event::MainAnnounced(announced), _) if announced.main != me => {
            if cluster.nodes.is_superseded(me) {
                vec![Effect::Fence { epoch: announced.epoch, again: false }]
            } else {
                vec![Effect::Follow(announced.main)]
            }
        }
        (Event::FollowFinished(follow), _) if !follow.streaming => {
            standpoint.to_follow.map(Effect::FollowLater).into_iter().collect()
        }
        // whoever started a server of a fenced node, it is stopped again
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
        (Event::MainLost(_), _) => vec![Effect::Look],
        _ => Vec::new(),
    }
}

/// The effects that a restarted supervisor finds outstanding: a fence, or a main that is not followed yet.
#[must_use]
pub fn outstanding(me: NodeId, belief: &Belief) -> Vec<Effect> {
    let Belief { cluster, standpoint, .. } = belief;
    match cluster.nodes.get(me).map(|row| row.status) {
        // also when it was proved before: whoever started the servers since, they are stopped again
        Some(NodeStatus::Fencing | NodeStatus::Fenced) => {
            vec![Effect::Fence { epoch: cluster.nodes.epoch, again: false }]
        }
        _ => standpoint.to_follow.filter(|main| *main != me).map(Effect::Follow).into_iter().collect(),
    }
}

#[cfg(test)]
#[path = "decider_tests.rs"]
mod tests;
