//! The start of a supervisor: it finds out whether this node still has its role, and whether its servers may run.
//!
//! The shell around [`decider::Starting`]: it stores the facts, asks peers, starts and stops servers.

pub mod decider;
mod first_events;
mod own_events;

use std::sync::Arc;

use interrex_events::{Draft, PostgresStatus};

use self::decider::{Directory, Effect, Heard, Input, NotStarted, Scope, Situation, Started, Starting};
pub use self::{first_events::record_start, own_events::take_back_own_events};
use crate::{
    env::ms,
    messages::{Append, Settled},
    node::{NodeError, STORE_LIMIT, Shared, StartFacts, View},
    ports::{Answer, NoReply, PeersPort, PortError, StopMode},
    replication::Servers,
};

/// Stores facts and waits until they are on disk.
///
/// # Errors
/// The facts are not known to be on disk: no effect that follows from them may be made.
pub async fn record(shared: &Arc<Shared>, facts: Vec<Draft>) -> Result<(), NodeError> {
    let append = shared.lines.append.ask(Append(facts));
    match tokio::time::timeout(STORE_LIMIT, append).await {
        Ok(Ok(Ok(_))) => Ok(()),
        _ => Err(NodeError::NotStored),
    }
}

/// A running server's refusal of the configured login; nothing if it accepts the login, or does not run.
pub async fn refused_login(servers: &Servers) -> Option<String> {
    let reply = servers.postgres.measure().await.no_reply?;
    // invalid_password and invalid_authorization_specification
    let refused = matches!(reply.code(), Some("28P01" | "28000"));
    refused.then(|| format!("postgres.user, postgres.password_file: PostgreSQL refuses the login: {reply}"))
}

/// Starts the servers that may run, and tries again if a start fails. The view shows what holds the start up, and when everything
/// but the servers is ready, so that requests are accepted.
///
/// # Errors
/// The supervisor cannot go on.
pub async fn start_servers(
    shared: &Arc<Shared>,
    servers: &Servers,
    peers: &dyn PeersPort,
) -> Result<(), NodeError> {
    let me = shared.settings.me;
    let mut starting = Starting::default();
    let mut input = Input::Began;
    loop {
        let (cluster, may_run) = shared.look(|view| {
            let may_run = view.postgres.status != PostgresStatus::Stopped;
            (view.cluster.clone(), may_run)
        });
        let opened = shared.opened();
        let situation = Situation {
            me,
            cluster: &cluster,
            opened: &opened,
            has_peers: shared.settings.peers().next().is_some(),
            wait_ms: ms(shared.settings.startup_wait),
            directory: Directory {
                is_standby: servers.postgres.is_standby_directory(),
                is_whole: servers.rejoin.is_startable(),
            },
            may_run,
            now: shared.env.moment(),
        };
        let decision = starting.decide(situation, input);
        if !decision.facts.is_empty() {
            record(shared, decision.facts).await?;
        }
        if let Some(words) = decision.tell {
            tracing::warn!("{words}");
        }
        let is_over = matches!(decision.effect, Effect::End(Ok(())));
        show(shared, &starting, is_over);
        input = match decision.effect {
            Effect::Look => Input::Stored,
            Effect::Ask => Input::Heard(ask_everyone(shared, peers).await),
            Effect::Wait(pause) => {
                tokio::time::sleep(pause).await;
                Input::Waited
            }
            Effect::Start(scope) => start_unless_broken_off(shared, servers, &starting, scope).await,
            Effect::Stop(scope, mode) => Input::Stopped(in_words(stop(servers, scope, mode).await)),
            Effect::MakeRedisMaster => {
                make_redis_master(servers).await;
                Input::RedisMade
            }
            Effect::End(Ok(())) => return Ok(()),
            Effect::End(Err(NotStarted::Machine(words))) => return Err(NodeError::Machine(words)),
        };
    }
}

/// What holds it up is a problem of this node. Once it is settled, the FailoverActor makes up for what it did not do before.
fn show(shared: &Shared, starting: &Starting, is_over: bool) {
    let problem = starting.problem().filter(|_| !is_over).map(str::to_owned);
    let under_way = !is_over && !starting.is_settled();
    let before = shared.look(|view| view.start.clone());
    let now = StartFacts { under_way, problem };
    if before == now {
        return;
    }
    let settled = before.under_way && !now.under_way;
    shared.measured(|view| view.start = now);
    if settled {
        shared.lines.settled.tell(Settled);
    }
}

/// One start at a time with what stops the servers for good: a fence waits until this has ended, and this one looks first
/// whether it may still begin.
async fn start_unless_broken_off(
    shared: &Shared,
    servers: &Servers,
    starting: &Starting,
    scope: Scope,
) -> Input {
    let me = shared.settings.me;
    let must_yield = |view: &View| starting.must_yield(me, &view.cluster);
    let _one_at_a_time = servers.in_use.starting.lock().await;
    if shared.look(must_yield) {
        return Input::BrokenOff;
    }
    tokio::select! {
        biased;
        () = shared.wait_for(must_yield) => Input::BrokenOff,
        started = start(servers, scope) => Input::Started(in_words(started)),
    }
}

fn in_words<T>(answer: Answer<T>) -> Result<T, String> {
    answer.map_err(|error| error.to_string())
}

/// Each is started even if another one fails.
async fn start(servers: &Servers, scope: Scope) -> Answer<Started> {
    let postgres = match scope {
        Scope::All | Scope::Postgres => servers.postgres.start().await,
        Scope::AllButPostgres => Ok(false),
    };
    let redis = start_redis(servers).await;
    let dependents = servers.dependents.start().await;
    let failed: Vec<String> = [postgres.as_ref().err(), redis.as_ref().err(), dependents.as_ref().err()]
        .into_iter()
        .flatten()
        .map(ToString::to_string)
        .collect();
    if !failed.is_empty() {
        return Err(PortError(failed.join("; ")));
    }
    if scope == Scope::AllButPostgres {
        return Ok(Started::default());
    }
    let redis = match &servers.redis {
        Some(redis) => Some(redis.measure().await),
        None => None,
    };
    Ok(Started { postgres: postgres?, refused_login: refused_login(servers).await, redis })
}

/// A Redis whose start is held back on purpose holds up nothing else: that is logged, and tried again without this start.
async fn start_redis(servers: &Servers) -> Answer<bool> {
    match servers.try_to_start_redis().await {
        Err(error) if servers.redis.as_ref().is_some_and(|redis| redis.waits_for_a_start()) => {
            tracing::error!(%error, "Redis stays stopped");
            Ok(false)
        }
        started => started,
    }
}

async fn stop(servers: &Servers, scope: Scope, mode: StopMode) -> Answer<()> {
    match scope {
        Scope::Postgres => servers.postgres.stop(mode).await.map(drop),
        Scope::All | Scope::AllButPostgres => servers.stop(mode).await.map(drop),
    }
}

async fn make_redis_master(servers: &Servers) {
    let Some(redis) = &servers.redis else { return };
    if let Err(error) = redis.promote().await {
        tracing::error!(%error, "Redis could not be made a master");
    }
}

/// One question to every peer's supervisor and one to its PostgreSQL, all at the same time.
async fn ask_everyone(shared: &Arc<Shared>, peers: &dyn PeersPort) -> Vec<Heard> {
    let own = shared.report();
    let limit = shared.settings.probe_timeout;
    let late = || NoReply::late(limit);
    let asked = shared.settings.peers().map(|spec| {
        let peer = spec.node;
        let supervisor = tokio::time::timeout(limit, peers.exchange(peer, &own));
        let postgres = tokio::time::timeout(limit, peers.postgres(peer));
        async move {
            let (supervisor, postgres) = tokio::join!(supervisor, postgres);
            let supervisor = supervisor.unwrap_or_else(|_| Err(late())).map_err(|reply| reply.to_string());
            let postgres = postgres.unwrap_or_else(|_| Err(late())).map_err(|reply| reply.to_string());
            Heard { peer, supervisor, postgres }
        }
    });
    let answers = futures_util::future::join_all(asked).await;
    for report in answers.iter().filter_map(|heard| heard.supervisor.as_ref().ok()) {
        if let Err(too_far) = shared.journal.observe_clock(report.hlc) {
            tracing::warn!(%too_far, "a peer's clock is not followed");
        }
    }
    answers
}
