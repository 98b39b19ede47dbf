//! The first events of a process.

use std::sync::Arc;

use interrex_events::{ClockJumped, Draft, Epoch, NodeSeq, SupervisorStarted};
use serde_json::json;

use super::record;
use crate::{
    env::ms,
    heartbeat::decider::CLOCK_STEP_LIMIT_MS,
    node::{NodeError, Shared},
};

/// The first events of this process. `on_exit` says what happens to the servers when it ends.
///
/// # Errors
/// The events are not known to be on disk.
pub async fn record_start(shared: &Arc<Shared>, on_exit: &str) -> Result<(), NodeError> {
    let settings = &shared.settings;
    // from now on: actors that know it so early hold back what must wait
    shared.measured(|view| view.start.under_way = true);
    let (epoch, role, main, interrupted_run) = shared.look(|view| {
        let nodes = &view.cluster.nodes;
        let role = nodes.get(settings.me).map_or(settings.initial_role, |row| row.role);
        let main = nodes.main.or(settings.initial_main);
        let interrupted = view.cluster.runs.active(settings.me).map(|run| run.id);
        (nodes.epoch.max(Epoch(1)), role, main, interrupted)
    });
    let failover = &settings.failover;
    let in_force = json!({
        "auto_failover_enabled": failover.auto_enabled,
        "auto_failover_threshold_ms": failover.threshold_ms,
        "probe_interval_ms": ms(settings.probe_interval),
        "probe_timeout_ms": ms(settings.probe_timeout),
        "cool_down_ms": failover.cool_down_ms,
        "maximum_lag_bytes": failover.maximum_lag_bytes,
        "startup_wait_ms": ms(settings.startup_wait),
        "quorum": failover.quorum,
        "on_exit": on_exit,
    });
    let started = SupervisorStarted {
        name: settings.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        role,
        nodes: settings.nodes.clone(),
        main,
        interrupted_run,
        settings: in_force.as_object().cloned().unwrap_or_default(),
    };
    let mut facts = vec![Draft::new(epoch, started)];
    facts.extend(clock_set_back(shared)?.map(|jumped| Draft::new(epoch, jumped)));
    record(shared, facts).await
}

/// This node's newest event was recorded at a time in the future: the wall clock was set back while no supervisor ran. A clock
/// that was set forward cannot be distinguished from a node that was off for that time.
fn clock_set_back(shared: &Shared) -> Result<Option<ClockJumped>, NodeError> {
    let head = shared.journal.head();
    let before = NodeSeq(head.node_seq.0.saturating_sub(1));
    let newest = shared.journal.reader()?.page(head.node_id, before, 1)?;
    let Some(newest) = newest.last() else { return Ok(None) };
    let step_ms = (shared.env.moment().wall - newest.recorded_at).num_milliseconds();
    let tolerance_ms = CLOCK_STEP_LIMIT_MS;
    let is_back = step_ms < 0 && step_ms.unsigned_abs() > tolerance_ms;
    Ok(is_back.then_some(ClockJumped { step_ms, tolerance_ms }))
}
