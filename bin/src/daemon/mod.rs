//! `interrex supervise`: runs one node, from its configuration to its end.
//!
//! Order matters here. Everything that can be refused is refused before anything is written. The journal is opened and records the
//! start before anything is done. A main asks its peers whether it is still main before its database admits a client.

mod assemble;
mod connections;
mod http;
mod runtimes;

pub(crate) use self::assemble::{find_programs, postgres_settings};
pub use self::runtimes::{OnThisMachine, Runtimes};

use std::{net::SocketAddr, sync::Arc};

use interrex_actors::{
    env::SystemEnv,
    node::{Fatal, Node, NodeError},
    ports::PortError,
    starting,
};
use interrex_adapters::{
    postgres::put_base_backup_in_place,
    runtime::{ignored_signals, leave_nothing_inherited},
};
use interrex_events::journal::{Identity, Journal, JournalError};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::LocalSet,
};

use crate::config::Config;

/// The limit of open file descriptors: connections to this process need at most 256, its own connections far fewer.
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
        /// The system's error.
        error: std::io::Error,
    },
    /// A base backup could not replace the data directory.
    #[error("{0}")]
    Server(#[from] PortError),
    /// The node did not start, could not continue, or did not end cleanly.
    #[error(transparent)]
    Node(NodeError),
    /// The system refused a resource that every process needs.
    #[error("{0}")]
    System(#[from] std::io::Error),
}

impl From<NodeError> for DaemonError {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::Machine(words) => Self::Machine(vec![words]),
            NodeError::Journal(error) | NodeError::Fatal(Fatal::Journal(error)) => Self::Journal(error),
            other => Self::Node(other),
        }
    }
}

/// Runs a node, with its servers in these runtimes, until it is asked to end.
///
/// # Errors
/// The node could not start, or could not continue.
pub fn supervise(config: Config, runtimes: &dyn Runtimes) -> Result<(), DaemonError> {
    // held for as long as this process lives: one of them may be a lock
    let _held = leave_nothing_inherited();
    log_to_stderr();
    if put_base_backup_in_place(&config.postgres.data_dir)? {
        tracing::warn!("a complete base backup had not yet replaced the data directory: it has now");
    }
    let problems = config.problems_on_this_machine();
    if !problems.is_empty() {
        return Err(DaemonError::Machine(problems));
    }
    raise_the_limit_of_descriptors();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, run(config, runtimes))
}

/// The usual limit of 1,024 file descriptors is for programs that use `select`. Child processes inherit the limit, so it stays
/// small enough for programs that close every descriptor below it.
fn raise_the_limit_of_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(DESCRIPTORS, |maximum| maximum.min(DESCRIPTORS));
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    limit.current = Some(wanted);
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "could not raise the limit of open files; the supervisor continues with the old limit");
    }
}

fn log_to_stderr() {
    use std::io::IsTerminal;
    let filter = tracing_subscriber::EnvFilter::try_from_env("INTERREX_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // a second subscriber in one process is refused; the first one stays
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .try_init();
}

async fn run(config: Config, runtimes: &dyn Runtimes) -> Result<(), DaemonError> {
    let mut signals = signals()?;
    let address = config.node.listen;
    let listener =
        TcpListener::bind(address).await.map_err(|error| DaemonError::Listen { address, error })?;
    let (ports, secret) =
        assemble::ports(&config, runtimes).map_err(|problem| DaemonError::Machine(vec![problem]))?;
    // a password that the running server refuses is found before anything is written
    if let Some(words) = starting::refused_login(&ports.servers).await {
        return Err(DaemonError::Machine(vec![words]));
    }
    let env = Arc::new(SystemEnv);
    let identity = Identity { cluster_id: config.cluster.id, node_id: config.node.id };
    let journal = Arc::new(Journal::open(&config.node.journal, identity, env.clone())?);
    let node = Node { ports, settings: assemble::settings(&config), env, journal };
    node.run(
        async move |shared| {
            tracing::info!(node = shared.settings.name, %address, "supervising");
            http::serve(listener, shared, secret).await;
        },
        async || signals.asked_to_end().await,
    )
    .await?;
    Ok(())
}

/// The signals that ask for a clean end, as one stream with names.
struct Signals {
    term: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    async fn asked_to_end(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "asked to by SIGTERM",
            _ = self.interrupt.recv() => "asked to by SIGINT",
            _ = self.hangup.recv() => "asked to by SIGHUP: its terminal is gone",
        }
    }
}

fn signals() -> Result<Signals, DaemonError> {
    // a signal that is handled here has its default in every child; an ignored signal stays ignored there
    for number in ignored_signals() {
        drop(signal(SignalKind::from_raw(number))?);
    }
    Ok(Signals {
        term: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
        hangup: signal(SignalKind::hangup())?,
    })
}
