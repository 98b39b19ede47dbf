//! Before the actors: is this node still what it was, and may its servers run?

use std::{sync::Arc, time::Duration};

use interrex_actors::{
    env::ms,
    heartbeat::decider::CLOCK_STEP_LIMIT_MS,
    journal::copies::{self, NotFetched},
    messages::{Append, Claim, KeepCopies},
    node::{Fatal, Shared},
    ports::{JournalPage, PortError, StopMode},
    replication::Servers,
};
use interrex_events::{
    ClockJumped, Draft, Epoch, JournalRestored, LearnedBy, NodeId, NodeSeq, RedisChanged, RedisStatus, Role,
    RunKind, StartedUnconfirmed, StepId, SupervisorStarted,
};
use interrex_projections::Run;
use serde_json::json;

use super::{DaemonError, assemble::Ports};
use crate::config::{Config, OnExit};

/// How long this node's own PostgreSQL may take for a page of `cluster_events`.
const HELD_LIMIT: Duration = Duration::from_secs(5);
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
///
/// # Errors
/// They are not known to be there: nothing may be done that follows from them.
pub(super) async fn record(shared: &Arc<Shared>, facts: Vec<Draft>) -> Result<(), DaemonError> {
    let append = shared.lines.append.ask(Append(facts));
    match tokio::time::timeout(Duration::from_secs(10), append).await {
        Ok(Ok(Ok(_))) => Ok(()),
        _ => Err(DaemonError::NotStored),
    }
}

/// Before the first event of this process: a journal that lost its newest events, such as one from a restored disk
/// image, takes them back from whichever peer answers. Appending to it as it is would fork it.
pub(super) async fn take_back_own_events(shared: &Arc<Shared>, ports: &Ports) -> Result<(), DaemonError> {
    // the journal's actor binds its line when it is first polled
    tokio::task::yield_now().await;
    let own = shared.report();
    let limit = shared.settings.probe_timeout;
    let asked = shared.settings.peers().map(|peer| {
        let exchange = ports.peers.exchange(peer.node, &own);
        async move { tokio::time::timeout(limit, exchange).await.ok().and_then(Result::ok) }
    });
    let reports: Vec<_> = futures_util::future::join_all(asked).await.into_iter().flatten().collect();
    let (mut restored, mut cut_off) = (Vec::new(), None);
    for report in &reports {
        match copies::take_back(shared, &*ports.peers, report).await {
            Ok(taken) => restored.extend(taken),
            // another peer may hold the rest
            Err(NotFetched::CutOff(problem)) => cut_off = Some(problem),
            // forked, as the comparison tells
            Err(NotFetched::Refused(problem)) => {
                tracing::warn!(problem, "a peer holds other events of this node");
            }
        }
    }
    for report in &reports {
        let forked = copies::compare(shared, report).map_err(Fatal::Journal).map_err(DaemonError::Fatal)?;
        let Some(own) = forked.into_iter().find(|forked| forked.node == shared.settings.me) else { continue };
        return Err(match cut_off {
            Some(problem) => DaemonError::Server(PortError(format!(
                "this node's journal lost events that {} holds, and they could not be taken back: {problem}; nothing was \
                 recorded meanwhile: start again",
                report.name
            ))),
            None => DaemonError::Fatal(Fatal::Forked(own)),
        });
    }
    restored.extend(take_back_from_postgres(shared, ports).await?);
    let facts = restored.into_iter().map(|event| Draft::new(shared.epoch(), event)).collect::<Vec<_>>();
    if facts.is_empty() { Ok(()) } else { record(shared, facts).await }
}

/// The same from `cluster_events` in this node's own PostgreSQL, where that runs: a node alone has no peers to ask.
async fn take_back_from_postgres(
    shared: &Arc<Shared>,
    ports: &Ports,
) -> Result<Option<JournalRestored>, DaemonError> {
    let me = shared.settings.me;
    let mut events = 0;
    loop {
        let held = ports.servers.stream.held(me, shared.journal.head().node_seq);
        let page = match tokio::time::timeout(HELD_LIMIT, held).await {
            Ok(Ok(page)) if !page.is_empty() => page,
            // nothing more, or nobody to ask: servers are started later
            _ => break,
        };
        match shared.lines.keep_copies.ask(KeepCopies(JournalPage { base: None, records: page })).await {
            Ok(Ok(Ok(new))) if new > 0 => events += new as u64,
            Ok(Ok(Err(refused))) => {
                return Err(DaemonError::Server(PortError(format!(
                    "this node's journal and cluster_events have two continuations ({refused}): keep the journal as evidence and \
                     move it away; the next start takes this node's events back"
                ))));
            }
            _ => break,
        }
    }
    let last = shared.journal.head().node_seq;
    Ok((events > 0).then_some(JournalRestored { from: me, events, last }))
}

/// The first events of this process.
pub(super) async fn record_start(shared: &Arc<Shared>, config: &Config) -> Result<(), DaemonError> {
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
    let mut facts = vec![Draft::new(epoch, started)];
    facts.extend(clock_set_back(shared)?.map(|jumped| Draft::new(epoch, jumped)));
    record(shared, facts).await
}

/// This node's newest event was recorded at a time that is still to come: the wall clock was set back while
/// nobody watched it. One that was set forward cannot be told from a node that was off for so long.
fn clock_set_back(shared: &Shared) -> Result<Option<ClockJumped>, DaemonError> {
    let head = shared.journal.head();
    let before = NodeSeq(head.node_seq.0.saturating_sub(1));
    let newest = shared.journal.reader()?.page(head.node_id, before, 1)?;
    let Some(newest) = newest.last() else { return Ok(None) };
    let step_ms = (shared.env.moment().wall - newest.recorded_at).num_milliseconds();
    let tolerance_ms = CLOCK_STEP_LIMIT_MS;
    let is_back = step_ms < 0 && step_ms.unsigned_abs() > tolerance_ms;
    Ok(is_back.then_some(ClockJumped { step_ms, tolerance_ms }))
}

/// Starts the servers that may run.
pub(super) async fn start_servers(shared: &Arc<Shared>, ports: &Ports) -> Result<(), DaemonError> {
    let me = shared.settings.me;
    if shared.look(|view| view.cluster.nodes.is_handing_over(me)) {
        return start_none_as_primary(ports).await;
    }
    let is_main = shared.look(|view| view.cluster.nodes.is_main(me));
    if is_main && !is_superseded(shared) && shared.settings.peers().next().is_some() {
        ask_whether_still_main(shared, ports).await?;
    }
    if is_superseded(shared) {
        tracing::warn!("this node was superseded: its servers stay stopped");
        // at once, although the FailoverActor will see to it again: they may be serving this very moment
        let stopped = ports.servers.stop(StopMode::Immediate).await;
        return stopped.map(drop).map_err(DaemonError::Server);
    }
    if comes_back(shared, ports) {
        tracing::warn!(
            "this node is coming back as a secondary: its PostgreSQL is started when its data are whole"
        );
        return Ok(());
    }
    if is_withdrawing(shared) {
        tracing::warn!("this node withdraws a promotion: its run decides whether its PostgreSQL may start");
        return start_all_but_postgres(ports).await;
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
    assert_redis_role(shared, ports, role).await?;
    if is_main && shared.settings.peers().next().is_some() {
        // starting may have taken long, and a peer may have taken over meanwhile
        ask_everyone_once(shared, ports).await?;
        if is_superseded(shared) {
            ports.servers.stop(StopMode::Immediate).await?;
        }
    }
    Ok(())
}

/// A node that was offering its role when its supervisor died: until the offer is answered, its PostgreSQL must not run,
/// whoever started it.
async fn start_none_as_primary(ports: &Ports) -> Result<(), DaemonError> {
    tracing::warn!(
        "this node offers its role to another one: its PostgreSQL stays stopped until that is decided"
    );
    let servers = &ports.servers;
    if !servers.postgres.is_standby_directory() {
        servers.postgres.stop(StopMode::Fast).await?;
    }
    start_all_but_postgres(ports).await
}

async fn start_all_but_postgres(ports: &Ports) -> Result<(), DaemonError> {
    ports.servers.start_redis().await;
    ports.servers.dependents.start().await?;
    Ok(())
}

/// A rejoin is at work on the data directory, or was cut off in it: its run starts the servers, or the next one does.
fn comes_back(shared: &Shared, ports: &Ports) -> bool {
    let me = shared.settings.me;
    let at_work = shared.look(|view| {
        let run = view.cluster.runs.active(me).filter(|run| run.kind == RunKind::Rejoin);
        run.is_some_and(|run| !run.step(StepId::BecomeStandby).succeeded())
    });
    at_work || !ports.servers.rejoin.is_startable()
}

/// A run was cut off while it withdrew what it had asked its PostgreSQL for.
fn is_withdrawing(shared: &Shared) -> bool {
    shared.look(|view| view.cluster.runs.active(shared.settings.me).is_some_and(Run::is_withdrawing))
}

fn is_superseded(shared: &Shared) -> bool {
    shared.look(|view| view.cluster.nodes.is_superseded(shared.settings.me))
}

/// A secondary whose data directory would start as a primary would be a second main, unless a run of this
/// node was just promoting it.
fn refuse_a_second_main(shared: &Shared, ports: &Ports, role: Role) -> Result<(), DaemonError> {
    let me = shared.settings.me;
    let promoting = shared.look(|view| {
        let run = view.cluster.runs.active(me);
        run.is_some_and(|run| run.new_main == me && run.is_past_no_return())
    });
    if role != Role::Secondary || promoting || ports.servers.postgres.is_standby_directory() {
        return Ok(());
    }
    Err(DaemonError::Machine(vec![
        "postgres.data_dir: this node is a secondary, but its data directory has no standby.signal and would start as a \
         second main; make it a standby of main with pg_basebackup -R"
            .to_owned(),
    ]))
}

/// Redis keeps its role in its configuration file. Where a main's came up as a replica all the same, it is made
/// a master; a secondary's that came up as a master is left to the ReplicationActor, which keeps what it has before it follows.
async fn assert_redis_role(shared: &Arc<Shared>, ports: &Ports, role: Role) -> Result<(), DaemonError> {
    let Some(redis) = &ports.servers.redis else { return Ok(()) };
    let facts = redis.measure().await;
    let is_replica = matches!(facts.status, RedisStatus::Linked | RedisStatus::Unlinked);
    if role == Role::Secondary || !is_replica {
        return Ok(());
    }
    let detail = "it came up as a replica, but this node is main: making it a master".to_owned();
    let found = RedisChanged { status: facts.status, offset: facts.offset, detail, alarm: true };
    record(shared, vec![Draft::new(shared.epoch(), found)]).await?;
    if let Err(error) = redis.promote().await {
        tracing::error!(%error, "Redis could not be made a master");
    }
    Ok(())
}

/// What one round of asking came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Confirmed {
    /// A peer answered, and none speaks against this node.
    Yes,
    /// A peer is taking over, or its PostgreSQL is a primary already: this node must not serve.
    Contested,
    /// Nobody answered.
    Nobody,
}

/// Asks every peer who is main, until one has answered or the wait is over. As long as a peer is taking over,
/// this node stays stopped: the peer will open its epoch, or give up.
async fn ask_whether_still_main(shared: &Arc<Shared>, ports: &Ports) -> Result<(), DaemonError> {
    let began = shared.env.moment();
    let wait_ms = ms(shared.settings.startup_wait);
    let mut warned = false;
    loop {
        let (confirmed, errors) = ask_everyone_once(shared, ports).await?;
        if confirmed == Confirmed::Yes || is_superseded(shared) {
            return Ok(());
        }
        if confirmed == Confirmed::Contested && !std::mem::replace(&mut warned, true) {
            tracing::warn!("a peer is taking over: this node's servers stay stopped until that is decided");
        }
        let waited_ms = shared.env.moment().ms_since(began);
        if confirmed == Confirmed::Nobody && waited_ms >= wait_ms {
            let unconfirmed = StartedUnconfirmed { waited_ms, detail: errors.join("; ") };
            return record(shared, vec![Draft::new(shared.epoch(), unconfirmed)]).await;
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

async fn ask_everyone_once(
    shared: &Arc<Shared>,
    ports: &Ports,
) -> Result<(Confirmed, Vec<String>), DaemonError> {
    let mut confirmed = Confirmed::Nobody;
    let mut errors = Vec::new();
    for peer in shared.settings.peers() {
        match ask(shared, ports, peer.node).await? {
            Ok(true) if confirmed == Confirmed::Nobody => confirmed = Confirmed::Yes,
            Ok(true) => {}
            Ok(false) => confirmed = Confirmed::Contested,
            Err(error) => errors.push(format!("{}: {error}", peer.name)),
        }
    }
    Ok((confirmed, errors))
}

/// One question to one peer: whether it leaves this node to be main. A later epoch is stored before anything
/// else is done.
async fn ask(shared: &Arc<Shared>, ports: &Ports, peer: NodeId) -> Result<Result<bool, String>, DaemonError> {
    let own = shared.report();
    let limit = shared.settings.probe_timeout;
    let answer = tokio::time::timeout(limit, ports.peers.exchange(peer, &own)).await;
    let report = match answer.unwrap_or_else(|_| Err(format!("no answer within {limit:?}"))) {
        Ok(report) => report,
        Err(error) => return Ok(Err(error)),
    };
    if let Err(too_far) = shared.journal.observe_clock(report.hlc) {
        tracing::warn!(%too_far, "a peer's clock is not followed");
    }
    if let Some(claim) = Claim::of(&report, LearnedBy::StartupCheck).filter(|it| it.epoch > shared.epoch()) {
        record(shared, vec![Draft::new(shared.epoch(), claim.announced())]).await?;
    }
    Ok(Ok(!report.takes_over()))
}
