//! Before the actors: is this node still what it was, and may its servers run?

use std::{sync::Arc, time::Duration};

use interrex_actors::{env::ms, messages::Append, node::Shared, ports::StopMode, replication::Servers};
use interrex_events::{
    Draft, Epoch, Event, LearnedBy, MainAnnounced, NodeId, RedisStatus, Role, StartedUnconfirmed,
    SupervisorStarted,
};
use serde_json::json;

use super::{DaemonError, assemble::Ports};
use crate::config::{Config, OnExit};

/// Pause between two rounds of asking peers.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// A password that the running server refuses is found before anything is written.
pub(super) async fn check_login(servers: &Servers) -> Result<(), DaemonError> {
    let facts = servers.postgres.measure().await.facts;
    // invalid_password and invalid_authorization_specification
    let refused = ["28P01", "28000"].iter().any(|code| facts.detail.contains(code));
    if !refused {
        return Ok(());
    }
    Err(DaemonError::Machine(vec![format!(
        "postgres.user, postgres.password_file: PostgreSQL refuses the login: {}",
        facts.detail
    )]))
}

/// Stores facts and waits until they are on disk.
pub(super) async fn record(shared: &Arc<Shared>, facts: Vec<Draft>) {
    let append = shared.lines.append.ask(Append(facts));
    // a journal that fails ends the process through its own error
    let _ = tokio::time::timeout(Duration::from_secs(10), append).await;
}

/// The first event of this process.
pub(super) async fn record_start(shared: &Arc<Shared>, config: &Config) -> Result<(), DaemonError> {
    // the journal's actor binds its line when it is first polled
    tokio::task::yield_now().await;
    let settings = &shared.settings;
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
        "on_exit": if config.node.on_exit == OnExit::Stop { "stop" } else { "leave" },
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
    record(shared, vec![Draft::new(epoch, started)]).await;
    Ok(())
}

/// Starts the servers that may run.
pub(super) async fn start_servers(shared: &Arc<Shared>, ports: &Ports) -> Result<(), DaemonError> {
    let me = shared.settings.me;
    let is_main = shared.look(|view| view.cluster.nodes.is_main(me));
    if is_main && !is_superseded(shared) && shared.settings.peers().next().is_some() {
        ask_whether_still_main(shared, ports).await;
    }
    if is_superseded(shared) {
        tracing::warn!("this node was superseded: its servers stay stopped");
        // at once, although the FailoverActor will see to it again: they may be serving this very moment
        let stopped = ports.servers.stop(StopMode::Immediate).await;
        return stopped.map(drop).map_err(DaemonError::Server);
    }
    let role = shared.look(|view| view.cluster.nodes.get(me).map_or(Role::Standalone, |row| row.role));
    refuse_a_second_main(shared, ports, role)?;
    let started = ports.servers.start().await?;
    if !started.is_empty() {
        tracing::info!(started = started.join(", "), "servers started");
    }
    if let Err(error) = check_login(&ports.servers).await {
        if started.iter().any(|server| server == "PostgreSQL") {
            let _ = ports.servers.stop(StopMode::Fast).await;
        }
        return Err(error);
    }
    if let Err(error) = assert_redis_role(shared, ports, role).await {
        tracing::error!(%error, "Redis does not have the role that the journal gives this node");
    }
    Ok(())
}

fn is_superseded(shared: &Shared) -> bool {
    shared.look(|view| view.cluster.nodes.is_superseded(shared.settings.me))
}

/// A secondary whose data directory would start as a primary would be a second main, unless a run of this
/// node was just promoting it.
fn refuse_a_second_main(shared: &Shared, ports: &Ports, role: Role) -> Result<(), DaemonError> {
    let me = shared.settings.me;
    let promoting = shared
        .look(|view| view.cluster.runs.active(me).is_some_and(interrex_projections::Run::is_past_no_return));
    if role != Role::Secondary || promoting || ports.servers.postgres.is_standby_directory() {
        return Ok(());
    }
    Err(DaemonError::Machine(vec![
        "postgres.data_dir: this node is a secondary, but its data directory has no standby.signal and would start as a \
         second main; make it a standby of main with pg_basebackup -R"
            .to_owned(),
    ]))
}

/// Redis keeps its role in its configuration file; the journal has the last word.
async fn assert_redis_role(
    shared: &Shared,
    ports: &Ports,
    role: Role,
) -> Result<(), interrex_actors::ports::PortError> {
    let Some(redis) = &ports.servers.redis else { return Ok(()) };
    let status = redis.measure().await.status;
    match (role, status) {
        (Role::Main | Role::Standalone, RedisStatus::Linked | RedisStatus::Unlinked) => {
            redis.promote().await.map(drop)
        }
        (Role::Secondary, RedisStatus::Master) => {
            let main = shared.look(|view| view.cluster.nodes.main);
            let master = main.and_then(|main| shared.settings.spec(main)?.redis.clone());
            match master {
                Some(master) => redis.follow(&master).await.map(drop),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// Asks every peer who is main, until one has answered or the wait is over.
async fn ask_whether_still_main(shared: &Arc<Shared>, ports: &Ports) {
    let wait = shared.settings.startup_wait;
    let mut errors = Vec::new();
    let asking = async {
        loop {
            errors.clear();
            let mut answered = false;
            for peer in shared.settings.peers() {
                match ask(shared, ports, peer.node).await {
                    Ok(()) => answered = true,
                    Err(error) => errors.push(format!("{}: {error}", peer.name)),
                }
            }
            if answered {
                return;
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    };
    if tokio::time::timeout(wait, asking).await.is_ok() {
        return;
    }
    let unconfirmed = StartedUnconfirmed { waited_ms: ms(wait), detail: errors.join("; ") };
    record(shared, vec![Draft::new(shared.epoch(), unconfirmed)]).await;
}

/// One question to one peer. A later epoch is stored before anything else is done.
async fn ask(shared: &Arc<Shared>, ports: &Ports, peer: NodeId) -> Result<(), String> {
    let own = shared.report();
    let limit = shared.settings.probe_timeout;
    let report = tokio::time::timeout(limit, ports.peers.exchange(peer, &own))
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))?;
    let _ = shared.journal.observe_clock(report.hlc);
    if let Some(main) = report.main.filter(|_| report.epoch > shared.epoch()) {
        let announced = MainAnnounced {
            main,
            epoch: report.epoch,
            timeline: report.postgres.timeline.filter(|_| main == report.node),
            switchpoint: report.switchpoint,
            announced_by: report.node,
            learned_by: LearnedBy::StartupCheck,
        };
        record(shared, vec![Draft::new(shared.epoch(), Event::from(announced))]).await;
    }
    Ok(())
}
