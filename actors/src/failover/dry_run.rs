//! `--dry-run`: what a run would do, by the decider's rules and the checks of the run's first step. It journals nothing and
//! changes nothing.

use interrex_events::{Cause, NodeId, RunKind};

use super::{
    decider::{self, Situation},
    plan::{Findings, Plan, plan},
    resting::Resting,
};
use crate::{
    line::Gone,
    messages::{Declined, LookAhead, Operation},
    node::Shared,
    wire::Check,
};

/// What an operation would do if it were asked for now.
///
/// # Errors
/// The actor that makes the checks is being restarted.
pub async fn dry_run(
    shared: &Shared,
    kind: RunKind,
    operation: &Operation,
    new_main: NodeId,
) -> Result<Plan, Gone> {
    let me = shared.settings.me;
    let (drain_ms, insists) = match operation {
        Operation::Switchover { drain_ms, .. } => (*drain_ms, false),
        Operation::Promote { request, .. } => (0, request.forced),
        Operation::Rejoin { copy, .. } => (0, *copy),
        _ => (0, false),
    };
    let looks_at_itself = matches!(kind, RunKind::Promotion | RunKind::Rejoin);
    let declined = declined(shared, operation);
    let looks =
        shared.look(|view| view.cluster.nodes.get(new_main).is_some()) && (looks_at_itself || new_main != me);
    let mut checks: Vec<Check> = declined.into_iter().collect();
    if looks {
        checks.extend(shared.lines.look_ahead.ask(LookAhead { kind, new_main, insists }).await?);
    }
    Ok(shared.look(|view| {
        let nodes = &view.cluster.nodes;
        let findings = Findings {
            old_main: if kind == RunKind::Rejoin { me } else { nodes.main.unwrap_or(me) },
            new_main,
            epoch: if kind == RunKind::Rejoin { nodes.epoch } else { nodes.epoch.next() },
            drain_ms,
            // of a promotion the looks say it, as far as anyone here can know
            loss_bytes: matches!(kind, RunKind::Switchover | RunKind::Rejoin)
                .then_some(0)
                .or_else(|| checks.iter().find_map(|check| check.observed.get("loss_bytes")?.as_u64())),
            checks,
        };
        plan(kind, findings, &view.story.folded().runs)
    }))
}

/// Why the decider would refuse the run now.
fn declined(shared: &Shared, operation: &Operation) -> Option<Check> {
    let answer = shared.look(|view| {
        let policy = shared.settings.failover.with(&view.cluster.settings);
        let situation = Situation {
            me: shared.settings.me,
            cluster: &view.cluster,
            standpoint: &view.standpoint,
            policy: &policy,
            candidates: &view.candidates,
            sight: view.main_sight.as_ref(),
            resting: Resting::default(),
            now: shared.env.moment(),
            fresh_run: shared.env.run_id(),
        };
        decider::asked(situation, operation, &Cause::System)
    });
    let Declined { code, message } = answer.err()?;
    Some(Check::bad("this node", message).with("code", code))
}
