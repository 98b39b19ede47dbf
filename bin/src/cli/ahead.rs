//! What a supervisor is asked about the time to come: what a run would do.

use interrex_actors::{failover::plan::Plan, notifier::peers::PlanBody};
use interrex_events::{NodeId, RunKind};

use super::{
    acts::{address_of, nodes, post},
    arguments::Switchover,
    exit::Exit,
    failure::Failure,
    output::Output,
    views,
};
use crate::config::Config;

/// What the switchover would do; whether it would begin is the exit code.
pub(super) fn dry_run(
    arguments: &Switchover,
    config: &Config,
    (main, target): (NodeId, NodeId),
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let body = PlanBody {
        kind: RunKind::Switchover,
        target_node_id: target,
        drain_ms: u64::try_from(arguments.drain.as_millis()).unwrap_or(u64::MAX),
    };
    let plan: Plan = post(config, &address_of(config, main), "/api/cluster/plan", &body)?;
    let nodes = nodes(config);
    let name = |node: NodeId| match nodes.iter().find(|(id, ..)| *id == node) {
        Some((_, name, _)) => (*name).to_owned(),
        None => format!("node {node}"),
    };
    views::plan::show(&plan, name, arguments.json, output)
}
