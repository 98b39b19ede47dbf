//! `--dry-run`: what a switchover would do, by the decider's own rule and the look of its own first step. Nothing is
//! journalled, and nothing is changed.

use interrex_events::{Cause, NodeId, RunKind};

use super::{
    decider::{self, Situation},
    plan::{Check, Findings, Plan, plan},
};
use crate::{
    line::Gone,
    messages::{Declined, LookAhead, Operation},
    node::Shared,
};

/// What an operation would do if it were asked for now.
///
/// # Errors
/// The actor that looks is not there.
pub async fn dry_run(
    shared: &Shared,
    kind: RunKind,
    operation: &Operation,
    new_main: NodeId,
) -> Result<Plan, Gone> {
    let drain_ms = match operation {
        Operation::Switchover { drain_ms, .. } => *drain_ms,
        _ => 0,
    };
    let declined = declined(shared, operation);
    let looks =
        shared.look(|view| view.cluster.nodes.get(new_main).is_some()) && new_main != shared.settings.me;
    let mut checks: Vec<Check> = declined.into_iter().collect();
    if looks {
        checks.extend(shared.lines.look_ahead.ask(LookAhead { kind, new_main }).await?);
    }
    Ok(shared.look(|view| {
        let nodes = &view.cluster.nodes;
        let findings = Findings {
            old_main: nodes.main.unwrap_or(shared.settings.me),
            new_main,
            epoch: nodes.epoch.next(),
            drain_ms,
            checks,
            loss_bytes: (kind == RunKind::Switchover).then_some(0),
        };
        plan(kind, findings, &view.story.folded().runs)
    }))
}

/// Why the decider would not begin it, by what it would decide from now.
fn declined(shared: &Shared, operation: &Operation) -> Option<Check> {
    let answer = shared.look(|view| {
        let policy = shared.settings.failover.with(&view.cluster.settings);
        let situation = Situation {
            me: shared.settings.me,
            cluster: &view.cluster,
            standpoint: &view.standpoint,
            policy: &policy,
            now: shared.env.moment(),
            fresh_run: shared.env.run_id(),
        };
        decider::asked(situation, operation, &Cause::System)
    });
    let Declined { code, message } = answer.err()?;
    Some(Check::bad("this node", message).with("code", code))
}
