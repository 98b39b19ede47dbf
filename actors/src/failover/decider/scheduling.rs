//! A switchover at a time: kept in the journal, begun when it is due, or given up with the reason.

use chrono::{DateTime, TimeDelta, Utc};
use interrex_events::{Cause, Draft, Event, SwitchoverScheduled, SwitchoverUnscheduled, Unscheduling};
use interrex_projections::{Scheduled, human_ms};

use super::{Situation, fencing, starting::asked};
use crate::messages::{Accepted, Declined, Operate, Operation};

/// How late a switchover may still begin, for example after a restart. After that it is no longer expected, and is given up.
const GRACE: TimeDelta = TimeDelta::minutes(5);
/// How far ahead it may be: no event is sealed while something is scheduled.
const HORIZON: TimeDelta = TimeDelta::days(30);

/// The result of a request, now or at a time: its answer and the facts; or the refusal.
pub fn answer(situation: Situation<'_>, request: &Operate) -> Result<(Accepted, Vec<Draft>), Declined> {
    let Operate { operation, due, asker } = request;
    let scheduled = situation.cluster.runs.scheduled(situation.me);
    let is_idle = situation.cluster.runs.active(situation.me).is_none();
    if let (Operation::Cancel { reason, force: true }, Some(run)) =
        (operation, fencing::can_be_lifted(situation).filter(|_| is_idle))
    {
        let fact = fencing::lift_by_hand(situation, run, reason.as_deref())?;
        return Ok((Accepted::FenceLifted(run), vec![Draft { actor: asker.clone(), ..fact }]));
    }
    match (operation, due, scheduled) {
        (_, Some(due), _) => schedule(situation, operation, *due, asker),
        (Operation::Cancel { reason, .. }, None, Some(scheduled)) if is_idle => {
            let why = reason.clone().unwrap_or_else(|| "no reason was given".to_owned());
            let fact = unscheduled(situation, scheduled, Unscheduling::Cancelled, why);
            let fact = Draft { actor: asker.clone(), ..fact };
            Ok((Accepted::Unscheduled(scheduled.switchover.due), vec![fact]))
        }
        (_, None, _) => asked(situation, operation, asker).map(|(run, facts)| (Accepted::Run(run), facts)),
    }
}

fn schedule(
    situation: Situation<'_>,
    operation: &Operation,
    due: DateTime<Utc>,
    asker: &Cause,
) -> Result<(Accepted, Vec<Draft>), Declined> {
    let Situation { me, cluster, now, .. } = situation;
    let Operation::Switchover { to, drain_ms, request } = operation else {
        return Err(Declined::new("not_schedulable", "only a switchover can be scheduled".to_owned()));
    };
    if due <= now.wall {
        let message = format!("{} is in the past: the time on this node is {}", shown(due), shown(now.wall));
        return Err(Declined::new("in_the_past", message));
    }
    if due > now.wall + HORIZON {
        let message =
            format!("{} is more than {} days ahead: schedule it later", shown(due), HORIZON.num_days());
        return Err(Declined::new("too_far_ahead", message));
    }
    if let Some(Scheduled { switchover, asker, .. }) = cluster.runs.scheduled(me) {
        let by = match asker {
            Cause::Person { name, .. } => format!(", by {name}"),
            Cause::System => String::new(),
        };
        let message = format!(
            "a switchover to {} is scheduled for {} already{by}: cancel it first (interrex run cancel)",
            cluster.nodes.name(switchover.target),
            shown(switchover.due)
        );
        return Err(Declined::new("already_scheduled", message));
    }
    // what could not begin now for a reason that is known is not put off
    asked(situation, operation, asker)?;
    let (target, drain_ms, request) = (*to, *drain_ms, request.clone());
    let fact = SwitchoverScheduled { target, due, drain_ms, request };
    let fact = Draft { actor: asker.clone(), ..Draft::new(cluster.nodes.epoch, fact) };
    Ok((Accepted::Scheduled(due), vec![fact]))
}

/// What is scheduled and due begins, or is given up. Nothing, as long as nothing is due.
pub(super) fn begin_what_is_due(situation: Situation<'_>) -> Vec<Draft> {
    let Situation { me, cluster, now, .. } = situation;
    let Some(scheduled) = cluster.runs.scheduled(me).filter(|it| it.switchover.due <= now.wall) else {
        return Vec::new();
    };
    let SwitchoverScheduled { target, due, drain_ms, request } = scheduled.switchover.clone();
    let late = now.wall - due;
    if late > GRACE {
        let late = human_ms(late.num_milliseconds().max(0).cast_unsigned());
        let detail = format!("the switchover was due {late} ago, when this node could not begin it");
        return vec![unscheduled(situation, scheduled, Unscheduling::Missed, detail)];
    }
    let operation = Operation::Switchover { to: target, drain_ms, request };
    match asked(situation, &operation, &scheduled.asker) {
        Ok((run, facts)) => {
            let detail = format!("the switchover begins as run {}", run.short());
            let begun = unscheduled(situation, scheduled, Unscheduling::Begun, detail);
            let facts = facts.into_iter().map(|fact| fact.because_of(scheduled.lineage));
            [begun].into_iter().chain(facts).collect()
        }
        Err(declined) => {
            vec![unscheduled(situation, scheduled, Unscheduling::Refused, declined.message)]
        }
    }
}

fn unscheduled(
    situation: Situation<'_>,
    scheduled: &Scheduled,
    because: Unscheduling,
    detail: String,
) -> Draft {
    let SwitchoverScheduled { target, due, .. } = scheduled.switchover;
    let fact = Event::from(SwitchoverUnscheduled { target, due, because, detail });
    Draft::new(situation.cluster.nodes.epoch, fact).because_of(scheduled.lineage)
}

fn shown(moment: DateTime<Utc>) -> String {
    moment.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}
