//! `interrex supervise`: one node, from its configuration to its end.
//!
//! Order matters here. What can be refused is refused before anything is written; the journal is opened and
//! told of the start before anything is done; a main asks its peers whether it still is one before its
//! database lets a client in.

mod assemble;
mod connections;
mod http;

pub(crate) use self::assemble::{find_programs, postgres_settings};

use std::{net::SocketAddr, sync::Arc, time::Duration};

use interrex_actors::{
    env::SystemEnv,
    messages::CloseWindows,
    node::{Fatal, Shared},
    ports::PortError,
    replication::postgres::put_base_backup_in_place,
    runtime::{ignored_signals, leave_nothing_inherited},
    starting::{self, StartError},
};
use interrex_events::{
    Draft, SupervisorStopped,
    journal::{Identity, Journal, JournalError},
};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::LocalSet,
};

use crate::config::{Config, OnExit};

/// File descriptors that this process may have open: connections to it take 256 at most, its own far fewer.
const DESCRIPTORS: u64 = 4_096;

/// Why a supervisor did not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration does not fit this machine. Nothing was changed.
    #[error("{}", .0.join("\n"))]
    Machine(Vec<String>),
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The supervisor's own port is taken.
    #[error("cannot listen on {address} (node.listen): {error}; is another supervisor running there?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's words.
        error: std::io::Error,
    },
    /// A server did not start.
    #[error("{0}")]
    Server(#[from] PortError),
    /// Asked to end, and not all of its servers ended in good order.
    #[error("{0}")]
    NotInGoodOrder(String),
    /// The process cannot go on.
    #[error(transparent)]
    Fatal(Fatal),
    /// The journal did not answer in time, or not at all.
    #[error("the journal did not store an event within 10 s, or failed: its disk does not answer")]
    NotStored,
    /// The system refused something every process needs.
    #[error("{0}")]
    System(#[from] std::io::Error),
}

impl From<StartError> for DaemonError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Machine(words) => Self::Machine(vec![words]),
            StartError::Server(error) => Self::Server(error),
            StartError::Journal(error) => Self::Journal(error),
            StartError::Fatal(fatal) => Self::Fatal(fatal),
            StartError::NotStored => Self::NotStored,
        }
    }
}

/// Runs a node until it is asked to end.
///
/// # Errors
/// It could not start, or could not go on.
pub fn supervise(config: Config) -> Result<(), DaemonError> {
    // for as long as this process lives: one of them may be a lock
    let _held = leave_nothing_inherited();
    log_to_stderr();
    if put_base_backup_in_place(&config.postgres.data_dir)? {
        tracing::warn!("a base backup was whole and not yet in the data directory's place: it is now");
    }
    let problems = config.problems_on_this_machine();
    if !problems.is_empty() {
        return Err(DaemonError::Machine(problems));
    }
    raise_the_limit_of_descriptors();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, run(config))
}

/// The usual limit of 1,024 file descriptors is for programs that use `select`. What this process starts inherits the limit: it
/// stays small enough for programs that close every descriptor below it.
fn raise_the_limit_of_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(DESCRIPTORS, |maximum| maximum.min(DESCRIPTORS));
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    limit.current = Some(wanted);
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files was not raised");
    }
}

fn log_to_stderr() {
    use std::io::IsTerminal;
    let filter = tracing_subscriber::EnvFilter::try_from_env("INTERREX_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // a second subscriber in one process is refused; the first one serves
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .try_init();
}

async fn run(config: Config) -> Result<(), DaemonError> {
    let mut asked_to_end = signals()?;
    let address = config.node.listen;
    let listener =
        TcpListener::bind(address).await.map_err(|error| DaemonError::Listen { address, error })?;
    let ports = assemble::ports(&config).map_err(|problem| DaemonError::Machine(vec![problem]))?;
    // a password that the running server refuses is found before anything is written
    if let Some(words) = starting::refused_login(&ports.servers).await {
        return Err(DaemonError::Machine(vec![words]));
    }

    let env = Arc::new(SystemEnv);
    let identity = Identity { cluster_id: config.cluster.id, node_id: config.node.id };
    let journal = Arc::new(Journal::open(&config.node.journal, identity, env.clone())?);
    let settings = assemble::settings(&config);
    let (shared, mut fatals) = Shared::new(env, settings, journal)?;
    let shared = Arc::new(shared);

    let journal_actor = assemble::keep_journal(&shared);
    // until then nothing is appended, an end or an error neither: it would fork a journal that lost its newest events
    tokio::select! {
        biased;
        fatal = fatals.recv() => match fatal {
            Some(fatal) => return Err(DaemonError::Fatal(fatal)),
            None => return Ok(()),
        },
        taken_back = starting::take_back_own_events(&shared, &ports.servers, &*ports.peers) => taken_back?,
        reason = asked_to_end.recv() => {
            tracing::info!(reason, "ends before it began: nothing is recorded");
            return match stop_servers(&config, &ports, &mut asked_to_end).await {
                Some(Stopping { words, in_good_order: false }) => Err(DaemonError::NotInGoodOrder(words)),
                _ => Ok(()),
            };
        }
    }
    let on_exit = if config.node.on_exit == OnExit::Stop { "stop" } else { "leave" };
    tokio::select! {
        // why nothing can be stored says more than that it is not
        biased;
        fatal = fatals.recv() => match fatal {
            Some(fatal) => return Err(DaemonError::Fatal(fatal)),
            None => return Ok(()),
        },
        recorded = starting::record_start(&shared, on_exit) => recorded?,
    }
    // at once: a node that starts can be fenced, and shows what runs
    let actors = assemble::keep_actors(&shared, &ports);
    // each binds its lines when it is first polled; whoever asks must find them
    tokio::task::yield_now().await;
    tokio::spawn(http::serve(listener, shared.clone(), ports.secret.clone()));
    tracing::info!(node = config.node.name, %address, "supervising");

    let result = supervise_until_the_end(&shared, &config, &ports, &mut fatals, &mut asked_to_end).await;
    for actor in actors.into_iter().chain([journal_actor]) {
        actor.abort();
    }
    result
}

/// What became of the servers when the supervisor ended.
struct Stopping {
    words: String,
    in_good_order: bool,
}

/// Stops the servers, if that is configured. Whoever asks a second time does not want to wait: what is still stopping goes on by
/// itself, for ending it harder would lose what it waits for.
async fn stop_servers(
    config: &Config,
    ports: &assemble::Ports,
    asked_to_end: &mut AskedToEnd,
) -> Option<Stopping> {
    if config.node.on_exit == OnExit::Leave {
        return None;
    }
    tracing::info!(
        stop_timeout = ?config.postgres.stop_timeout,
        "stopping the servers, dependents first; a second signal ends this supervisor at once, and they go on stopping"
    );
    let again = tokio::select! {
        ending = ports.servers.end() => {
            let words = ending.words.join("; ");
            let words = if ending.in_good_order {
                format!("its servers were stopped (node.on_exit): {words}")
            } else {
                format!("its servers did not all stop in good order: {words}")
            };
            return Some(Stopping { words, in_good_order: ending.in_good_order });
        }
        again = asked_to_end.recv() => again.unwrap_or("asked to"),
    };
    ports.servers.ask_to_end().await;
    let words = format!("{again} again before its servers had stopped: they go on stopping by themselves");
    Some(Stopping { words, in_good_order: false })
}

/// Starts the servers, and goes on until it is asked to end, or cannot go on.
async fn supervise_until_the_end(
    shared: &Arc<Shared>,
    config: &Config,
    ports: &assemble::Ports,
    fatals: &mut mpsc::Receiver<Fatal>,
    asked_to_end: &mut AskedToEnd,
) -> Result<(), DaemonError> {
    let start = starting::start_servers(shared, &ports.servers, &*ports.peers);
    tokio::pin!(start);
    let mut is_started = false;
    loop {
        tokio::select! {
            // why nothing can be stored says more than that it is not
            biased;
            fatal = fatals.recv() => return match fatal {
                Some(fatal) => Err(DaemonError::Fatal(fatal)),
                None => Ok(()),
            },
            started = &mut start, if !is_started => match started {
                Ok(()) => is_started = true,
                Err(error) => {
                    let stopped = SupervisorStopped { reason: error.to_string() };
                    starting::record(shared, vec![Draft::new(shared.epoch(), stopped)]).await?;
                    return Err(error.into());
                }
            },
            reason = asked_to_end.recv() => {
                let ended = end(shared, config, ports, (reason, asked_to_end)).await;
                return was_recorded(fatals).and(ended);
            }
        }
    }
}

/// The end in good order: servers as configured, and a last event.
async fn end(
    shared: &Arc<Shared>,
    config: &Config,
    ports: &assemble::Ports,
    (reason, asked_to_end): (Option<&'static str>, &mut AskedToEnd),
) -> Result<(), DaemonError> {
    let mut reason = reason.unwrap_or("its signals are gone").to_owned();
    let stopping = stop_servers(config, ports, asked_to_end).await;
    let mut result = Ok(());
    if let Some(Stopping { words, in_good_order }) = stopping {
        reason.push_str("; ");
        reason.push_str(&words);
        if !in_good_order {
            result = Err(DaemonError::NotInGoodOrder(words));
        }
    }
    let windows =
        tokio::time::timeout(Duration::from_secs(2), shared.lines.close_windows.ask(CloseWindows)).await;
    let mut facts = windows.ok().and_then(Result::ok).unwrap_or_default();
    facts.push(Draft::new(shared.epoch(), SupervisorStopped { reason }));
    if let Err(error) = starting::record(shared, facts).await {
        tracing::error!(%error, "the end was not recorded");
    }
    result
}

/// An end that the journal did not take is no good end.
fn was_recorded(fatals: &mut mpsc::Receiver<Fatal>) -> Result<(), DaemonError> {
    fatals.try_recv().map_or(Ok(()), |fatal| Err(DaemonError::Fatal(fatal)))
}

/// The signals that ask for an end in good order, as one stream with names.
struct AskedToEnd {
    term: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl AskedToEnd {
    async fn recv(&mut self) -> Option<&'static str> {
        tokio::select! {
            signal = self.term.recv() => signal.map(|()| "asked to by SIGTERM"),
            signal = self.interrupt.recv() => signal.map(|()| "asked to by SIGINT"),
            signal = self.hangup.recv() => signal.map(|()| "asked to by SIGHUP: its terminal is gone"),
        }
    }
}

fn signals() -> Result<AskedToEnd, DaemonError> {
    // one that is handled here is at its default in every child; one that is ignored stays ignored there
    for number in ignored_signals() {
        drop(signal(SignalKind::from_raw(number))?);
    }
    Ok(AskedToEnd {
        term: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
        hangup: signal(SignalKind::hangup())?,
    })
}
