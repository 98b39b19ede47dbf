//! How runs begin: a verdict that no rule speaks against, and what people ask for.

use interrex_events::{
    Cause, Draft, Event, Evidence, FailoverStarted, FailoverWithheld, Finding, MainLost, NodeId,
    PostgresStatus, RunCancelRequested, RunId, RunKind, StepId, SwitchoverStarted, Trigger, WithheldRule,
};
use interrex_projections::{Run, Standing};

use super::{
    Situation,
    carrying_on::{carry_on, in_run, started_step},
};
use crate::messages::{Declined, Operation};

/// A standing verdict becomes a run, unless a rule says no; a rule is recorded once per verdict.
pub(super) fn look(situation: Situation<'_>) -> Vec<Draft> {
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
    // what a person planned is no flapping
    let unplanned = |run: &&Run| matches!(run.kind, RunKind::Failover | RunKind::Promotion);
    let last = cluster.runs.runs.values().rev().find(unplanned)?;
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
        request: None,
        handover: None,
    };
    [Event::from(started), started_step(RunKind::Failover, StepId::WinEpoch, 1).into()]
        .into_iter()
        .map(|event| Draft::new(cluster.nodes.epoch, event).in_run(fresh_run).because_of(verdict.lineage))
        .collect()
}

/// What follows from what somebody asks for: the run that is made, and the facts; or why not.
pub fn asked(
    situation: Situation<'_>,
    operation: &Operation,
    asker: &Cause,
) -> Result<(RunId, Vec<Draft>), Declined> {
    let (run, drafts) = match operation {
        Operation::Switchover { to, drain_ms, request } => {
            let started = may_hand_over(situation, *to)?;
            let started = SwitchoverStarted { drain_ms: *drain_ms, request: request.clone(), ..started };
            begin(situation, RunKind::Switchover, StepId::CheckHandover, started.into())
        }
        Operation::TakeOver(offer) => match already_taken(situation, offer.handover.run) {
            Some(run) => return Ok((run, Vec::new())),
            None => {
                let started = may_take_over(situation, offer)?;
                begin(situation, RunKind::Takeover, StepId::WinEpoch, started.into())
            }
        },
        Operation::Cancel { reason } => cancel(situation, reason.clone())?,
    };
    Ok((run, drafts.into_iter().map(|draft| Draft { actor: asker.clone(), ..draft }).collect()))
}

fn begin(situation: Situation<'_>, kind: RunKind, first: StepId, started: Event) -> (RunId, Vec<Draft>) {
    let Situation { cluster, fresh_run, .. } = situation;
    let drafts = [started, started_step(kind, first, 1).into()]
        .map(|event| Draft::new(cluster.nodes.epoch, event).in_run(fresh_run));
    (fresh_run, drafts.into())
}

/// One run at a time: two would undo each other.
fn nothing_runs(situation: Situation<'_>) -> Result<(), Declined> {
    match situation.cluster.runs.active(situation.me) {
        None => Ok(()),
        Some(run) => Err(Declined::new(
            "run_active",
            format!(
                "{} {} is under way on this node: wait for it (interrex run show {}), or end it (interrex run cancel)",
                run.kind,
                run.id.short(),
                run.id.short()
            ),
        )),
    }
}

fn may_hand_over(situation: Situation<'_>, to: NodeId) -> Result<SwitchoverStarted, Declined> {
    let Situation { me, cluster, .. } = situation;
    nothing_runs(situation)?;
    let nodes = &cluster.nodes;
    if !nodes.is_main(me) || nodes.is_superseded(me) || nodes.is_handing_over(me) {
        let main = nodes.main.map_or("nobody".to_owned(), |main| nodes.name(main));
        let message = format!("this node is not main, {main} is: a switchover begins there");
        return Err(Declined::new("not_main", message));
    }
    if to == me || nodes.get(to).is_none() {
        let others: Vec<String> = nodes
            .nodes
            .values()
            .filter(|row| row.node != me)
            .map(|row| format!("{} ({})", row.name, row.node))
            .collect();
        let message = format!("node {to} cannot take over from this one; others are {}", others.join(", "));
        return Err(Declined::new("no_such_target", message));
    }
    Ok(SwitchoverStarted {
        old_main: me,
        new_main: to,
        epoch: nodes.epoch.next(),
        drain_ms: 0,
        request: interrex_events::Request::default(),
    })
}

/// An offer that was heard before: its run, whatever became of it.
fn already_taken(situation: Situation<'_>, switchover: RunId) -> Option<RunId> {
    let heard = |run: &&Run| run.handover.as_ref().is_some_and(|handover| handover.run == switchover);
    situation.cluster.runs.runs.values().rev().find(heard).map(|run| run.id)
}

fn may_take_over(
    situation: Situation<'_>,
    offer: &crate::messages::HandoverOffer,
) -> Result<FailoverStarted, Declined> {
    let Situation { me, cluster, policy, .. } = situation;
    nothing_runs(situation)?;
    let nodes = &cluster.nodes;
    if nodes.main != Some(offer.from) || offer.epoch != nodes.epoch.next() {
        let message = format!(
            "epoch {} cannot be taken over from {}: this node knows epoch {}",
            offer.epoch,
            nodes.name(offer.from),
            nodes.epoch
        );
        return Err(Declined::new("older_epoch", message));
    }
    // whether this node can is found out by the run, and so recorded: only that is an answer for good
    let told = || Finding::unknown("it stopped in good order, and offers its role");
    Ok(FailoverStarted {
        trigger: Trigger::Switchover,
        old_main: offer.from,
        new_main: me,
        epoch: offer.epoch,
        evidence: Evidence {
            supervisor: told(),
            postgres: told(),
            redis: told(),
            wal_receiver: told(),
            last_good_at: None,
            missed_probes: 0,
        },
        silent_ms: 0,
        threshold_ms: policy.threshold_ms,
        last_report: None,
        quorum: policy.quorum.to_owned(),
        request: None,
        handover: Some(offer.handover.clone()),
    })
}

fn cancel(situation: Situation<'_>, reason: Option<String>) -> Result<(RunId, Vec<Draft>), Declined> {
    let Situation { me, cluster, .. } = situation;
    let Some(run) = cluster.runs.active(me) else {
        return Err(Declined::new("no_run", "no run is under way on this node".to_owned()));
    };
    if run.is_past_no_return() {
        let message = format!(
            "{} {} is past its point of no return ({}): it only goes forward",
            run.kind,
            run.id.short(),
            run.kind.point_of_no_return()
        );
        return Err(Declined::new("past_no_return", message));
    }
    let mut after = run.clone();
    after.cancelled = Some(reason.clone().unwrap_or_default());
    let mut events = vec![Event::from(RunCancelRequested { reason })];
    events.extend(carry_on(situation, &after));
    Ok((run.id, in_run(situation, run, events)))
}
