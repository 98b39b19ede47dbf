//! The start of a supervisor: is this node still what it was, and may its servers run?
//!
//! The shell around [`decider::Starting`]: it stores the facts, asks peers, starts and stops servers.

pub mod decider;
mod first_events;
mod own_events;

use std::{sync::Arc, time::Duration};

use interrex_events::{Draft, journal::JournalError};

pub use self::{first_events::record_start, own_events::take_back_own_events};
use self::decider::{Directory, Effect, Heard, Input, NotStarted, Scope, Situation, Started, Starting};
use crate::{
    env::ms,
    messages::Append,
    node::{Fatal, Shared},
    ports::{Answer, PeersPort, PortError, StopMode},
    replication::Servers,
};

/// How long the journal may take to store a fact.
const STORE_LIMIT: Duration = Duration::from_secs(10);

/// Why a supervisor cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration does not fit this machine.
    #[error("{0}")]
    Machine(String),
    /// A server did not start, or did not stop.
    #[error(transparent)]
    Server(#[from] PortError),
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The process cannot go on.
    #[error(transparent)]
    Fatal(#[from] Fatal),
    /// The journal did not answer in time, or not at all.
    #[error("the journal did not store an event within {STORE_LIMIT:?}, or failed: its disk does not answer")]
    NotStored,
}

/// Stores facts and waits until they are on disk.
///
/// # Errors
/// They are not known to be there: nothing may be done that follows from them.
pub async fn record(shared: &Arc<Shared>, facts: Vec<Draft>) -> Result<(), StartError> {
    let append = shared.lines.append.ask(Append(facts));
    match tokio::time::timeout(STORE_LIMIT, append).await {
        Ok(Ok(Ok(_))) => Ok(()),
        _ => Err(StartError::NotStored),
    }
}

/// What a running server says against the configured login; nothing where it lets us in, or does not run.
pub async fn refused_login(servers: &Servers) -> Option<String> {
    let facts = servers.postgres.measure().await.facts;
    // invalid_password and invalid_authorization_specification
    let refused = ["28P01", "28000"].iter().any(|code| facts.detail.contains(code));
    refused.then(|| {
        format!("postgres.user, postgres.password_file: PostgreSQL refuses the login: {}", facts.detail)
    })
}

/// Starts the servers that may run.
///
/// # Errors
/// The supervisor cannot go on.
pub async fn start_servers(
    shared: &Arc<Shared>,
    servers: &Servers,
    peers: &dyn PeersPort,
) -> Result<(), StartError> {
    let mut starting = Starting::default();
    let mut input = Input::Began;
    loop {
        let cluster = shared.look(|view| view.cluster.clone());
        let situation = Situation {
            me: shared.settings.me,
            cluster: &cluster,
            has_peers: shared.settings.peers().next().is_some(),
            wait_ms: ms(shared.settings.startup_wait),
            directory: Directory {
                is_standby: servers.postgres.is_standby_directory(),
                is_whole: servers.rejoin.is_startable(),
            },
            now: shared.env.moment(),
        };
        let decision = starting.decide(situation, input);
        if !decision.facts.is_empty() {
            record(shared, decision.facts).await?;
        }
        if let Some(words) = decision.tell {
            tracing::warn!("{words}");
        }
        input = match decision.effect {
            Effect::Look => Input::Stored,
            Effect::Ask => Input::Heard(ask_everyone(shared, peers).await),
            Effect::Wait(pause) => {
                tokio::time::sleep(pause).await;
                Input::Waited
            }
            Effect::Start(scope) => Input::Started(in_words(start(servers, scope).await)),
            Effect::Stop(scope, mode) => Input::Stopped(in_words(stop(servers, scope, mode).await)),
            Effect::MakeRedisMaster => {
                make_redis_master(servers).await;
                Input::RedisMade
            }
            Effect::End(Ok(())) => return Ok(()),
            Effect::End(Err(NotStarted::Machine(words))) => return Err(StartError::Machine(words)),
            Effect::End(Err(NotStarted::Server(words))) => return Err(PortError(words).into()),
        };
    }
}

fn in_words<T>(answer: Answer<T>) -> Result<T, String> {
    answer.map_err(|error| error.to_string())
}

async fn start(servers: &Servers, scope: Scope) -> Answer<Started> {
    if scope == Scope::AllButPostgres {
        servers.start_redis().await?;
        servers.dependents.start().await?;
        return Ok(Started::default());
    }
    let started = servers.start().await?;
    if !started.is_empty() {
        tracing::info!(started = started.join(", "), "servers started");
    }
    let redis = match &servers.redis {
        Some(redis) => Some(redis.measure().await),
        None => None,
    };
    let postgres = started.iter().any(|server| server == "PostgreSQL");
    Ok(Started { postgres, refused_login: refused_login(servers).await, redis })
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

/// One question to every peer, at the same time.
async fn ask_everyone(shared: &Arc<Shared>, peers: &dyn PeersPort) -> Vec<Heard> {
    let own = shared.report();
    let limit = shared.settings.probe_timeout;
    let asked = shared.settings.peers().map(|peer| {
        let exchange = peers.exchange(peer.node, &own);
        async move {
            let answer = tokio::time::timeout(limit, exchange).await;
            let supervisor = answer.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")));
            Heard { name: peer.name.clone(), supervisor }
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
