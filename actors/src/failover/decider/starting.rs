//! How runs begin: a verdict that no rule speaks against, and what people ask for.

use interrex_events::{
    Cause, Draft, Epoch, Event, Evidence, FailoverStarted, FailoverWithheld, Finding, HandoverAccepted,
    HandoverWithdrawn, NodeId, PostgresStatus, Request, RunCancelRequested, RunId, RunKind, StepFinished,
    StepId, StepOutcome, SwitchoverStarted, Trigger, WithheldRule,
};
use interrex_projections::{Cluster, NodeStatus, Run, RunEnd, Standing, human_ms};

use super::{
    Situation,
    carrying_on::{carry_on, in_run, started_step},
    fencing,
    outcomes::still_main,
    returning::{rejoin, return_by_itself},
    stray,
};
use crate::{
    failover::resting::why_it_rests,
    messages::{Declined, MainSight, Operation},
};

/// A standing verdict becomes a run, unless a rule says no; a rule is recorded once per verdict.
pub(super) fn look(situation: Situation<'_>) -> Vec<Draft> {
    let Situation { me, cluster, standpoint, policy, .. } = situation;
    if cluster.runs.active(me).is_some() {
        return Vec::new();
    }
    if let Some(facts) = stray::look(situation) {
        return facts;
    }
    let Some(verdict) = &standpoint.verdict else { return return_by_itself(situation) };
    let Some(sight) = still_lost(situation, verdict) else { return Vec::new() };
    match reason_against(situation, verdict) {
        None => start(situation, verdict, sight),
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

/// What is seen of a lost main now, if that bears the verdict out: it may be old, for a rule held it back since.
fn still_lost<'a>(situation: Situation<'a>, verdict: &Standing) -> Option<&'a MainSight> {
    let Situation { policy, sight, now, .. } = situation;
    sight.filter(|sight| {
        sight.main == verdict.lost.main
            && !sight.answers()
            && now.ms_since(sight.silent_since) >= policy.threshold_ms
    })
}

fn reason_against(situation: Situation<'_>, verdict: &Standing) -> Option<(WithheldRule, String)> {
    let Situation { me, cluster, standpoint, policy, resting, .. } = situation;
    if !policy.auto_enabled {
        let detail = "failover.auto_failover_enabled is false on this node".to_owned();
        return Some((WithheldRule::AutoFailoverDisabled, detail));
    }
    if let Some(detail) = other_candidate(situation) {
        return Some((WithheldRule::OtherCandidate, detail));
    }
    let Some(row) = cluster.nodes.get(me) else {
        return Some((WithheldRule::NotPromotable, "this node is not in its own journal".to_owned()));
    };
    let standby = is_standby(row.postgres);
    if cluster.nodes.is_main(me) || cluster.nodes.is_superseded(me) || !standby {
        let state = row.postgres.map_or("not measured yet".to_owned(), |status| status.to_string());
        let detail = format!(
            "this node is {} ({}), and its PostgreSQL is {state}, not a standby",
            row.role, row.status
        );
        return Some((WithheldRule::NotPromotable, detail));
    }
    let (_, because) = why_it_rests(&standpoint.rests, &cluster.nodes, resting)?;
    let main = cluster.nodes.name(verdict.lost.main);
    Some(if resting.cool_down_ms >= resting.pause_ms {
        let left = human_ms(resting.cool_down_ms);
        let detail = format!(
            "{because}; no automatic failover begins for another {left} (failover.cool_down); main {main} is still lost. To make \
             this node main now: interrex promote"
        );
        (WithheldRule::CoolDown, detail)
    } else {
        let left = human_ms(resting.pause_ms);
        let detail =
            format!("{because}; the next automatic failover begins in {left}; main {main} is still lost");
        (WithheldRule::RunInVain, detail)
    })
}

/// Without a third opinion two secondaries would both promote themselves: one node at most does, and all name the same.
fn other_candidate(situation: Situation<'_>) -> Option<String> {
    let Situation { me, cluster: Cluster { nodes, .. }, policy, candidates, .. } = situation;
    match policy.candidate {
        Some(candidate) if candidate != me => {
            let name = nodes.name(candidate);
            return Some(format!(
                "failover.candidate is {name}: this node does not promote itself; a person may: interrex promote"
            ));
        }
        None if policy.nodes > 2 => {
            let count = policy.nodes;
            return Some(format!(
                "the cluster has {count} nodes and no failover.candidate: with quorum none, two of them could promote themselves. \
                 Set failover.candidate to the same node on every node; until then a person decides: interrex promote"
            ));
        }
        _ => {}
    }
    let other =
        candidates.iter().find_map(|(peer, named)| Some((*peer, named.filter(|named| *named != me)?)));
    other.map(|(peer, named)| {
        format!(
            "failover.candidate on {} is {}, and on this node it is another node: set it to the same node on every node",
            nodes.name(peer),
            nodes.name(named)
        )
    })
}

/// The run goes by what is seen now, not by what was when the verdict fell.
fn start(situation: Situation<'_>, verdict: &Standing, sight: &MainSight) -> Vec<Draft> {
    let Situation { me, cluster, policy, now, fresh_run, .. } = situation;
    let MainSight { main, evidence, last_report, .. } = sight.clone();
    let (silent_ms, threshold_ms) = (now.ms_since(sight.silent_since), policy.threshold_ms);
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

/// The result of a request: the run that begins, and the facts; or the refusal.
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
        Operation::AcceptHandover(asked) => {
            may_accept(situation, asked)?;
            (asked.run, vec![Draft::new(situation.cluster.nodes.epoch, asked.clone())])
        }
        Operation::TakeOver(offer) => match already_taken(situation, offer) {
            Some(run) => return Ok((run, Vec::new())),
            None => {
                let started = may_take_over(situation, offer)?;
                begin(situation, RunKind::Takeover, StepId::WinEpoch, started.into())
            }
        },
        Operation::Promote { request, sight } => {
            let started = may_promote(situation, request, sight.as_ref())?;
            begin(situation, RunKind::Promotion, StepId::WinEpoch, started.into())
        }
        Operation::Rejoin { copy, request } => rejoin(situation, *copy, request)?,
        Operation::Cancel { reason, force: true } => withdraw(situation, reason.clone())?,
        Operation::Cancel { reason, force: false } => cancel(situation, reason.clone())?,
    };
    Ok((run, drafts.into_iter().map(|draft| Draft { actor: asker.clone(), ..draft }).collect()))
}

pub(super) fn begin(
    situation: Situation<'_>,
    kind: RunKind,
    first: StepId,
    started: Event,
) -> (RunId, Vec<Draft>) {
    let Situation { cluster, fresh_run, .. } = situation;
    let drafts = [started, started_step(kind, first, 1).into()]
        .map(|event| Draft::new(cluster.nodes.epoch, event).in_run(fresh_run));
    (fresh_run, drafts.into())
}

/// One run at a time: two would undo each other.
pub(super) fn nothing_runs(situation: Situation<'_>) -> Result<(), Declined> {
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
        let main = nodes.main.map_or("not known".to_owned(), |main| nodes.name(main));
        let message = format!("this node is not main (main: {main}): ask for the switchover on main");
        return Err(Declined::new("not_main", message));
    }
    if to == me {
        let message = format!("{} is main already: there is nothing to hand over", nodes.name(me));
        return Err(Declined::new("already_main", message));
    }
    if nodes.get(to).is_none() {
        let others: Vec<String> = nodes
            .nodes
            .values()
            .filter(|row| row.node != me)
            .map(|row| format!("{} ({})", row.name, row.node))
            .collect();
        let message = format!("no node {to} can take over; the other nodes are {}", others.join(", "));
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

/// The run of an offer that was received before, however it ended. The same for an offer whose epoch this node opened by itself
/// before it received the offer: the old main must learn that the role is taken, or would ask for ever.
fn already_taken(situation: Situation<'_>, offer: &crate::wire::HandoverOffer) -> Option<RunId> {
    let Situation { me, cluster, .. } = situation;
    let heard = |run: &&Run| run.handover.as_ref().is_some_and(|handover| handover.run == offer.handover.run);
    let is_main = cluster.nodes.is_main(me) && cluster.nodes.epoch >= offer.epoch;
    let opened = |run: &&Run| is_main && run.new_main == me && run.epoch == offer.epoch;
    let newest_first = || cluster.runs.newest_first().into_iter();
    newest_first().find(heard).or_else(|| newest_first().find(opened)).map(|run| run.id)
}

/// Checks that no event recorded here keeps this node from being main's successor.
fn may_succeed(situation: Situation<'_>, from: NodeId, epoch: Epoch) -> Result<(), Declined> {
    nothing_runs(situation)?;
    let nodes = &situation.cluster.nodes;
    if nodes.main == Some(from) && epoch == nodes.epoch.next() {
        return Ok(());
    }
    let message = format!(
        "epoch {epoch} cannot be taken over from {}: this node knows epoch {}",
        nodes.name(from),
        nodes.epoch
    );
    Err(Declined::new("older_epoch", message))
}

/// Main asks before it stops, and again before it offers its role: what is stored here then proves that this node can take part.
fn may_accept(situation: Situation<'_>, asked: &HandoverAccepted) -> Result<(), Declined> {
    let Situation { me, cluster, .. } = situation;
    may_succeed(situation, asked.from, asked.epoch)?;
    let postgres = cluster.nodes.get(me).and_then(|row| row.postgres);
    if is_standby(postgres) {
        return Ok(());
    }
    let state = postgres.map_or("not measured yet".to_owned(), |status| status.to_string());
    Err(Declined::new("not_promotable", format!("PostgreSQL here is {state}, not a standby")))
}

fn may_take_over(
    situation: Situation<'_>,
    offer: &crate::wire::HandoverOffer,
) -> Result<FailoverStarted, Declined> {
    let Situation { me, policy, .. } = situation;
    may_succeed(situation, offer.from, offer.epoch)?;
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

/// A person makes this node main: the evidence may speak against it, and then needs a person's reason.
fn may_promote(
    situation: Situation<'_>,
    request: &Request,
    sight: Option<&MainSight>,
) -> Result<FailoverStarted, Declined> {
    let Situation { me, cluster, policy, now, .. } = situation;
    nothing_runs(situation)?;
    let nodes = &cluster.nodes;
    fencing::not_fenced_as_main(situation)?;
    if nodes.is_superseded(me) || nodes.is_handing_over(me) {
        let message = "this node was main, and another node takes its role or has taken it: its data may be of an older timeline. \
                       This node is not a standby that could be promoted";
        return Err(Declined::new("not_promotable", message.to_owned()));
    }
    let Some(main) = nodes.main else {
        let message = "this node does not know which node is main: there is no role that it could take over";
        return Err(Declined::new("no_main", message.to_owned()));
    };
    if main == me {
        let message = "this node is main already: there is nothing to promote";
        return Err(Declined::new("already_main", message.to_owned()));
    }
    let postgres = nodes.get(me).and_then(|row| row.postgres);
    if !is_standby(postgres) {
        let state = postgres.map_or("not measured yet".to_owned(), |status| status.to_string());
        let message =
            format!("PostgreSQL here is {state}, not a standby: only a running standby can be promoted");
        return Err(Declined::new("not_promotable", message));
    }
    let reasoned = request.reason.as_ref().is_some_and(|reason| !reason.trim().is_empty());
    if request.forced && !reasoned {
        let message =
            "a promotion against the evidence needs a reason, which is stored for good: --reason TEXT";
        return Err(Declined::new("reason_needed", message.to_owned()));
    }
    let name = nodes.name(main);
    let sight = sight.filter(|sight| sight.main == main);
    let offered = waits_for_a_person(situation, main);
    let alive = |sight: &&MainSight| sight.answers() && !(offered && sight.offers);
    if let Some(sight) = sight.filter(alive).filter(|_| !request.forced) {
        let Evidence { supervisor, postgres, wal_receiver, .. } = &sight.evidence;
        let message = format!(
            "main {name} is alive: its supervisor {}; its PostgreSQL {}; its WAL: {}. To move the role without loss: interrex \
             switchover --to {}. To take the role anyway, and lose what {name} acknowledged and this node does not have: interrex \
             promote --force --reason TEXT",
            supervisor.detail,
            postgres.detail,
            wal_receiver.detail,
            nodes.name(me),
        );
        return Err(Declined::new("main_answers", message));
    }
    let unseen = || Finding::unknown("not asked yet");
    Ok(FailoverStarted {
        trigger: Trigger::Operator,
        old_main: main,
        new_main: me,
        epoch: nodes.epoch.next(),
        evidence: sight.map_or_else(
            || Evidence {
                supervisor: unseen(),
                postgres: unseen(),
                redis: unseen(),
                wal_receiver: unseen(),
                last_good_at: None,
                missed_probes: 0,
            },
            |sight| sight.evidence.clone(),
        ),
        silent_ms: sight.map_or(0, |sight| now.ms_since(sight.silent_since)),
        threshold_ms: policy.threshold_ms,
        last_report: sight.and_then(|sight| sight.last_report.clone()),
        quorum: policy.quorum.to_owned(),
        request: Some(request.clone()),
        handover: None,
    })
}

/// Whether this node took an offer of main's and failed past the point of no return: only a person continues from there.
fn waits_for_a_person(situation: Situation<'_>, main: NodeId) -> bool {
    let Situation { me, cluster, .. } = situation;
    let own = cluster.runs.newest_first().into_iter().find(|run| run.node == me);
    own.is_some_and(|run| {
        run.kind == RunKind::Takeover && run.old_main == main && run.end == RunEnd::NeedsOperator
    })
}

fn is_standby(postgres: Option<PostgresStatus>) -> bool {
    matches!(postgres, Some(PostgresStatus::Streaming | PostgresStatus::Detached))
}

/// An offer without an answer ends only by a person's statement: the target can no longer say that it did not take the role.
fn withdraw(situation: Situation<'_>, reason: Option<String>) -> Result<(RunId, Vec<Draft>), Declined> {
    let Situation { me, cluster, now, .. } = situation;
    let offers = |run: &&Run| {
        run.kind == RunKind::Switchover && run.is_past_no_return() && !run.step(StepId::HandOver).succeeded()
    };
    let Some(run) = cluster.runs.active(me).filter(offers) else { return cancel(situation, reason) };
    let Some(reason) = reason.filter(|reason| !reason.trim().is_empty()) else {
        let message =
            "a statement about another node needs a reason, which is stored for good: --reason TEXT";
        return Err(Declined::new("reason_needed", message.to_owned()));
    };
    if !still_main(situation, run) {
        let message = "another node became main meanwhile: there is nothing left to withdraw";
        return Err(Declined::new("other_main", message.to_owned()));
    }
    let target = cluster.nodes.get(run.new_main);
    if target.is_none_or(|target| target.status == NodeStatus::Online) {
        let message = format!(
            "the supervisor of {name} answers, and decides itself whether {name} takes over: wait for it. If its run needs an \
             operator (on {name}: interrex run list), fix the problem that the run shows, then on {name}: interrex promote",
            name = cluster.nodes.name(run.new_main)
        );
        return Err(Declined::new("target_answers", message));
    }
    let took_ms = run.step(StepId::HandOver).started_at.map_or(0, |at| (now.wall - at).num_milliseconds());
    let finished = StepFinished {
        step: StepId::HandOver,
        attempt: run.step(StepId::HandOver).attempts,
        outcome: StepOutcome::Refused,
        detail: format!("a person says that {} never takes over: {reason}", cluster.nodes.name(run.new_main)),
        observed: serde_json::Map::new(),
        took_ms: took_ms.max(0).cast_unsigned(),
    };
    let after = run.with_outcome(StepId::HandOver, StepOutcome::Refused);
    let withdrawn = HandoverWithdrawn { to: run.new_main, reason: reason.clone() };
    let mut events =
        vec![RunCancelRequested { reason: Some(reason) }.into(), finished.into(), withdrawn.into()];
    events.extend(carry_on(situation, &after));
    Ok((run.id, in_run(situation, run, events)))
}

fn cancel(situation: Situation<'_>, reason: Option<String>) -> Result<(RunId, Vec<Draft>), Declined> {
    let Situation { me, cluster, .. } = situation;
    let Some(run) = cluster.runs.active(me) else {
        fencing::not_fenced_as_main(situation)?;
        return Err(Declined::new("no_run", "no run is under way on this node".to_owned()));
    };
    if run.is_past_no_return() {
        let message = format!(
            "{} {} is past its point of no return ({}): it only goes forward{}",
            run.kind,
            run.id.short(),
            run.kind.point_of_no_return(),
            if run.kind == RunKind::Switchover && !run.step(StepId::HandOver).succeeded() {
                "; to withdraw an offer to a node that is gone for good, use --force --reason TEXT"
            } else {
                ""
            }
        );
        return Err(Declined::new("past_no_return", message));
    }
    let mut after = run.clone();
    after.cancelled = Some(reason.clone().unwrap_or_default());
    let mut events = vec![Event::from(RunCancelRequested { reason })];
    events.extend(carry_on(situation, &after));
    Ok((run.id, in_run(situation, run, events)))
}
