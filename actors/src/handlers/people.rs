//! Requests of people, from the command line, a web page or a program.

use std::time::Duration;

use chrono::{DateTime, Utc};
use interrex_events::{Cause, Request, RunKind};

use super::{Handled, Refusal, RefusalKind, is_settled, operate, still_starting};
use crate::{
    failover::{dry_run, plan::Plan},
    messages::{Accepted, MainSight, Operation},
    node::Shared,
    wire::{CancelBody, MainStatus, PlanBody, PromoteBody, RejoinBody, ScheduleBody, SwitchoverBody},
};

/// How long the look before a run may take; each of its questions has a limit of its own.
const PLAN_LIMIT: Duration = Duration::from_secs(9);
/// How long open transactions may be given to finish, at most: an hour.
const DRAIN_LIMIT_MS: u64 = 3_600_000;

async fn begin(
    shared: &Shared,
    operation: Operation,
    due: Option<DateTime<Utc>>,
    asker: Cause,
) -> Handled<Accepted> {
    operate(shared, operation, due, asker).await.map_err(|unanswered| unanswered.refusal(shared))
}

/// The runbook's planned failover: main hands its role to the target.
///
/// # Errors
/// The decider refuses the request, its body has impossible values, or the node is starting.
pub async fn switchover(shared: &Shared, wanted: SwitchoverBody) -> Handled<Accepted> {
    let (operation, asker) = asked_for(wanted)?;
    begin(shared, operation, None, asker).await
}

/// The request in a body, and its sender.
fn asked_for(wanted: SwitchoverBody) -> Handled<(Operation, Cause)> {
    if wanted.drain_ms > DRAIN_LIMIT_MS {
        let message = format!("drain_ms is {}: the limit is {DRAIN_LIMIT_MS}, an hour", wanted.drain_ms);
        return Err(Refusal::new(RefusalKind::BadRequest, "bad_body", message));
    }
    let operation = Operation::Switchover {
        to: wanted.target_node_id,
        drain_ms: wanted.drain_ms,
        request: Request { forced: false, reason: wanted.reason },
    };
    Ok((operation, wanted.asker))
}

/// The same, at a time.
///
/// # Errors
/// As [`switchover`].
pub async fn schedule(shared: &Shared, ScheduleBody { due, switchover }: ScheduleBody) -> Handled<Accepted> {
    let (operation, asker) = asked_for(switchover)?;
    begin(shared, operation, Some(due), asker).await
}

/// What a run would do, and what would stop it; no run begins.
///
/// # Errors
/// The node is starting, or the body has impossible values.
pub async fn planned(shared: &Shared, wanted: PlanBody) -> Handled<Plan> {
    if !is_settled(shared).await {
        return Err(still_starting(shared));
    }
    let me = shared.settings.me;
    let main = shared.look(|view| view.cluster.nodes.main).unwrap_or(me);
    let (kind, operation, new_main) = match wanted {
        PlanBody::Switchover { target_node_id: to, drain_ms } => {
            let body = SwitchoverBody { target_node_id: to, drain_ms, reason: None, asker: Cause::System };
            (RunKind::Switchover, asked_for(body)?.0, to)
        }
        PlanBody::Promotion { force, reason } => {
            let sight = shared.look(|view| view.main_sight.clone());
            let request = Request { forced: force, reason };
            (RunKind::Promotion, Operation::Promote { request, sight }, me)
        }
        PlanBody::Rejoin { copy } => {
            (RunKind::Rejoin, Operation::Rejoin { copy, request: Request::default() }, main)
        }
    };
    let plan = dry_run(shared, kind, &operation, new_main);
    match tokio::time::timeout(PLAN_LIMIT, plan).await {
        Ok(Ok(plan)) => Ok(plan),
        Ok(Err(_)) | Err(_) => Err(still_starting(shared)),
    }
}

/// This node comes back as a secondary.
///
/// # Errors
/// As [`switchover`].
pub async fn rejoin(shared: &Shared, wanted: RejoinBody) -> Handled<Accepted> {
    let request = Request { forced: false, reason: wanted.reason };
    begin(shared, Operation::Rejoin { copy: wanted.copy, request }, None, wanted.asker).await
}

/// The runbook's emergency path: this secondary becomes main. Without a body it is done only while main is silent.
///
/// # Errors
/// As [`switchover`].
pub async fn promote(shared: &Shared, wanted: PromoteBody) -> Handled<Accepted> {
    let request = Request { forced: wanted.force, reason: wanted.reason };
    let sight = shared.look(|view| view.main_sight.clone());
    begin(shared, Operation::Promote { request, sight }, None, wanted.asker).await
}

/// Gives up the run of this node.
///
/// # Errors
/// As [`switchover`].
pub async fn cancel(shared: &Shared, wanted: CancelBody) -> Handled<Accepted> {
    let operation = Operation::Cancel { reason: wanted.reason, force: wanted.force };
    begin(shared, operation, None, wanted.asker).await
}

/// What this node sees of main: the evidence that a promotion on this node would use.
#[must_use]
pub fn main_status(shared: &Shared) -> MainStatus {
    let now = shared.env.moment();
    let (me, threshold_ms) = (shared.settings.me, shared.report().threshold_ms);
    let (nodes, sight) = shared.look(|view| (view.cluster.nodes.clone(), view.main_sight.clone()));
    let sight = sight.filter(|sight| nodes.is_main(sight.main));
    let seen = sight.as_ref();
    MainStatus {
        main: nodes.main,
        name: nodes.main.map(|main| nodes.name(main)),
        epoch: nodes.epoch,
        is_this_node: nodes.is_main(me),
        answers: seen.map(MainSight::answers),
        silent_ms: seen.map(|sight| now.ms_since(sight.silent_since)),
        threshold_ms,
        evidence: seen.map(|sight| sight.evidence.clone()),
    }
}
