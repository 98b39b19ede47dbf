//! One node, from its open journal to its end: what the daemon runs, and tests and simulations as well.
//!
//! **Invariant:** nothing in here or behind it is a concrete socket, client, thread or clock: ports, environment, listener and
//! journal come in from outside.

use std::{future::ready, rc::Rc, sync::Arc, time::Duration};

use interrex_events::{Draft, SupervisorStopped, journal::Journal};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{Fatal, NodeError, NodeSettings, OnExit, Shared, actor_names};
use crate::{
    env::Env,
    failover::FailoverActor,
    heartbeat::{HeartbeatActor, lease::LeasePort},
    journal::JournalActor,
    messages::CloseWindows,
    notifier::NotifierActor,
    ports::{HooksPort, PeersPort},
    replication::{ReplicationActor, Servers},
    starting,
    supervision::keep,
};

/// How long the windows that are open may take to be closed at the end.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// The ports of a node.
#[derive(Clone)]
pub struct Ports {
    /// Its own servers.
    pub servers: Rc<Servers>,
    /// The other nodes.
    pub peers: Rc<dyn PeersPort>,
    /// The operator's hooks.
    pub hooks: Rc<dyn HooksPort>,
    /// The port that grants the right to be main.
    pub lease: Rc<dyn LeasePort>,
}

/// How the servers were left when the supervisor ended.
struct Stopping {
    words: String,
    in_good_order: bool,
}

/// A node that can be run.
pub struct Node {
    /// Its ports.
    pub ports: Ports,
    /// The settings of this supervisor.
    pub settings: NodeSettings,
    /// Clocks and ids.
    pub env: Arc<dyn Env>,
    /// Its open journal.
    pub journal: Arc<Journal>,
}

impl Node {
    /// Runs until the node is asked to end, or cannot go on. It needs a `LocalSet`.
    ///
    /// `listener` brings requests to [`handlers`](crate::handlers); it starts once they can be answered, and is dropped at the end.
    /// `asked_to_end` returns with the reason when an end is asked for. It is called again while the servers stop: a second request
    /// ends the wait.
    ///
    /// # Errors
    /// The node could not start, could not go on, or a server did not stop in good order.
    pub async fn run(
        self,
        listener: impl AsyncFnOnce(Arc<Shared>) + 'static,
        asked_to_end: impl AsyncFnMut() -> &'static str,
    ) -> Result<(), NodeError> {
        let Self { ports, settings, env, journal } = self;
        let (shared, fatals) = Shared::new(env, settings, journal)?;
        let shared = Arc::new(shared);
        let journal_actor = keep_journal(&shared);
        let mut actors = vec![journal_actor];
        let running = Running { shared, ports, fatals, asked_to_end };
        let result = running.until_the_end(&mut actors, listener).await;
        // those that others act through last
        for actor in actors.into_iter().rev() {
            actor.abort();
        }
        result
    }
}

struct Running<Asked> {
    shared: Arc<Shared>,
    ports: Ports,
    fatals: mpsc::Receiver<Fatal>,
    asked_to_end: Asked,
}

impl<Asked: AsyncFnMut() -> &'static str> Running<Asked> {
    async fn until_the_end(
        mut self,
        actors: &mut Vec<JoinHandle<()>>,
        listener: impl AsyncFnOnce(Arc<Shared>) + 'static,
    ) -> Result<(), NodeError> {
        let (shared, ports) = (self.shared.clone(), self.ports.clone());
        // until then nothing is appended, an end or an error neither: it would fork a journal that lost its newest events
        tokio::select! {
            biased;
            fatal = self.fatals.recv() => return failed(fatal),
            taken_back = starting::take_back_own_events(&shared, &ports.servers, &*ports.peers) => taken_back?,
            reason = (self.asked_to_end)() => {
                tracing::info!(reason, "the supervisor ends before it began: nothing is recorded");
                return match self.stop_servers().await {
                    Some(Stopping { words, in_good_order: false }) => Err(NodeError::NotInGoodOrder(words)),
                    _ => Ok(()),
                };
            }
        }
        let on_exit = if shared.settings.on_exit == OnExit::Leave { "leave" } else { "stop" };
        tokio::select! {
            // why nothing can be stored says more than that it is not
            biased;
            fatal = self.fatals.recv() => return failed(fatal),
            recorded = starting::record_start(&shared, on_exit) => recorded?,
        }
        // at once: a node that starts can be fenced, and shows what runs
        actors.extend(keep_actors(&shared, &ports));
        // each binds its lines when it is first polled, and requests need them
        tokio::task::yield_now().await;
        let heard = shared.clone();
        actors.push(tokio::task::spawn_local(async move { listener(heard).await }));
        self.supervise().await
    }

    /// Starts the servers, and goes on until it is asked to end, or cannot go on.
    async fn supervise(&mut self) -> Result<(), NodeError> {
        let (shared, ports) = (self.shared.clone(), self.ports.clone());
        let start = starting::start_servers(&shared, &ports.servers, &*ports.peers);
        tokio::pin!(start);
        let mut is_started = false;
        loop {
            tokio::select! {
                // why nothing can be stored says more than that it is not
                biased;
                fatal = self.fatals.recv() => return failed(fatal),
                started = &mut start, if !is_started => match started {
                    Ok(()) => is_started = true,
                    Err(error) => {
                        let stopped = SupervisorStopped { reason: error.to_string() };
                        starting::record(&shared, vec![Draft::new(shared.epoch(), stopped)]).await?;
                        return Err(error);
                    }
                },
                reason = (self.asked_to_end)() => {
                    let ended = self.end(reason).await;
                    // an end that the journal did not take is no good end
                    return self.fatals.try_recv().map_or(ended, |fatal| Err(NodeError::Fatal(fatal)));
                }
            }
        }
    }

    /// Stops the servers, if that is configured. A second request ends the wait: servers that are still stopping go on by
    /// themselves, because ending them harder would lose what they wait for.
    async fn stop_servers(&mut self) -> Option<Stopping> {
        let OnExit::Stop(stop_timeout) = self.shared.settings.on_exit else { return None };
        let servers = self.ports.servers.clone();
        tracing::info!(
            ?stop_timeout,
            "stopping the servers, dependents first; a second signal ends this supervisor at once, and the servers go on stopping"
        );
        let again = tokio::select! {
            biased;
            ending = servers.end() => {
                let words = ending.words.join("; ");
                let words = if ending.in_good_order {
                    format!("its servers were stopped (node.on_exit): {words}")
                } else {
                    format!("its servers did not all stop in good order: {words}")
                };
                return Some(Stopping { words, in_good_order: ending.in_good_order });
            }
            again = (self.asked_to_end)() => again,
        };
        servers.ask_to_end().await;
        let words =
            format!("{again} again before its servers had stopped: the servers go on stopping by themselves");
        Some(Stopping { words, in_good_order: false })
    }

    /// The end in good order: servers as configured, and a last event.
    async fn end(&mut self, reason: &'static str) -> Result<(), NodeError> {
        let mut reason = reason.to_owned();
        let stopping = self.stop_servers().await;
        let mut result = Ok(());
        if let Some(Stopping { words, in_good_order }) = stopping {
            reason.push_str("; ");
            reason.push_str(&words);
            if !in_good_order {
                result = Err(NodeError::NotInGoodOrder(words));
            }
        }
        let shared = &self.shared;
        let windows = tokio::time::timeout(CLOSE_LIMIT, shared.lines.close_windows.ask(CloseWindows)).await;
        let mut facts = windows.ok().and_then(Result::ok).unwrap_or_default();
        facts.push(Draft::new(shared.epoch(), SupervisorStopped { reason }));
        if let Err(error) = starting::record(shared, facts).await {
            tracing::error!(%error, "the end was not recorded");
        }
        result
    }
}

fn failed(fatal: Option<Fatal>) -> Result<(), NodeError> {
    fatal.map_or(Ok(()), |fatal| Err(NodeError::Fatal(fatal)))
}

/// The JournalActor, before all others: nothing is done that it did not store.
fn keep_journal(shared: &Arc<Shared>) -> JoinHandle<()> {
    let (make, bind) = (shared.clone(), shared.clone());
    keep(
        actor_names::JOURNAL,
        shared.clone(),
        move || ready(JournalActor::rebuilt(&make)),
        move |address| JournalActor::bind(&bind, address),
    )
}

/// All other actors.
fn keep_actors(shared: &Arc<Shared>, ports: &Ports) -> Vec<JoinHandle<()>> {
    let heartbeat = {
        let (make, bind) = (shared.clone(), shared.clone());
        let (peers, lease) = (ports.peers.clone(), ports.lease.clone());
        keep(
            actor_names::HEARTBEAT,
            shared.clone(),
            move || ready(HeartbeatActor::rebuilt(&make, &peers, &lease)),
            move |address| HeartbeatActor::bind(&bind, address),
        )
    };
    let replication = {
        let (make, bind) = (shared.clone(), shared.clone());
        let (servers, peers) = (ports.servers.clone(), ports.peers.clone());
        keep(
            actor_names::REPLICATION,
            shared.clone(),
            move || ready(Ok(ReplicationActor::new(&make, &servers, &peers))),
            move |address| ReplicationActor::bind(&bind, address),
        )
    };
    let notifier = {
        let (make, bind) = (shared.clone(), shared.clone());
        let (servers, peers, hooks) = (ports.servers.clone(), ports.peers.clone(), ports.hooks.clone());
        keep(
            actor_names::NOTIFIER,
            shared.clone(),
            move || ready(Ok(NotifierActor::new(&make, &servers, &peers, &hooks))),
            move |address| NotifierActor::bind(&bind, address),
        )
    };
    // last: it may have a run to take up, and the others make its steps
    let failover = {
        let (make, bind) = (shared.clone(), shared.clone());
        keep(
            actor_names::FAILOVER,
            shared.clone(),
            move || ready(FailoverActor::rebuilt(&make)),
            move |address| FailoverActor::bind(&bind, address),
        )
    };
    vec![heartbeat, replication, notifier, failover]
}
