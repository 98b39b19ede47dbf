//! What a supervisor is asked about the time to come: what a run would do, and a run at a time.

use chrono::{DateTime, Utc};
use interrex_actors::{
    failover::plan::Plan,
    wire::{PlanBody, ScheduleBody, SwitchoverBody},
};
use interrex_events::NodeId;
use serde::{Deserialize, Serialize};

use super::{
    acts::{address_of, nodes, post},
    arguments::Switchover,
    exit::Exit,
    failure::Failure,
    output::Output,
    views, when,
};
use crate::config::Config;

#[derive(Serialize, Deserialize)]
struct Scheduled {
    scheduled_for: DateTime<Utc>,
}

/// What a run would do, asked of the node that would make it; whether it would begin is the exit code.
pub(super) fn dry_run(
    config: &Config,
    (maker, body): (NodeId, &PlanBody),
    json: bool,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let plan: Plan = post(config, &address_of(config, maker)?, "/api/cluster/plan", body)?;
    views::plan::show(&plan, |node| name(config, node), json, output)
}

/// Asks main to begin it at that time, and does not wait for it.
pub(super) fn schedule(
    (arguments, config): (&Switchover, &Config),
    (main, due): (NodeId, DateTime<Utc>),
    switchover: SwitchoverBody,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let target = name(config, switchover.target_node_id);
    let body = ScheduleBody { due, switchover };
    let planned: Scheduled = post(config, &address_of(config, main)?, "/api/cluster/schedule", &body)?;
    if arguments.json {
        output.json(&planned)?;
    } else {
        let main = name(config, main);
        output.line(&format!(
            "{main} begins the switchover to {target} at {}; to cancel it, run on {main}: interrex run cancel",
            when::date_and_time_utc(planned.scheduled_for)
        ))?;
    }
    Ok(Exit::Fine)
}

fn name(config: &Config, node: NodeId) -> String {
    match nodes(config).into_iter().find(|(id, ..)| *id == node) {
        Some((_, name, _)) => name.to_owned(),
        None => format!("node {node}"),
    }
}
