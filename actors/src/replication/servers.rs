//! The servers of this node behind their ports, and how all of them are stopped.

use std::{cell::RefCell, rc::Rc, time::Duration};

use interrex_events::{Address, NodeId, NodeSpec};

use super::fork_report::ForkOfRun;
use crate::{
    messages::FenceProof,
    ports::{
        Answer, DependentsPort, FENCE_PATIENCE, HandoverPort, MainServerPort, PortError, PostgresPort,
        RedisPort, RejoinPort, Source, StopMode, StreamPort,
    },
};

/// The servers of this node.
pub struct Servers {
    /// PostgreSQL.
    pub postgres: Rc<dyn PostgresPort>,
    /// The same PostgreSQL, for handing its role over and following a new main.
    pub handover: Rc<dyn HandoverPort>,
    /// The same PostgreSQL, for its rejoin behind another main.
    pub rejoin: Rc<dyn RejoinPort>,
    /// `cluster_events` in the local PostgreSQL.
    pub stream: Rc<dyn StreamPort>,
    /// Redis, if the node has one.
    pub redis: Option<Rc<dyn RedisPort>>,
    /// The dependents, such as RADIUS.
    pub dependents: Rc<dyn DependentsPort>,
    /// The addresses of every node's servers.
    pub nodes: Vec<NodeSpec>,
    /// State that the steps of one run share.
    pub in_use: InUse,
}

/// State that steps and starts under way share.
#[derive(Default)]
pub struct InUse {
    /// Main's PostgreSQL, while this node comes back behind it: its steps share one login.
    main: RefCell<Option<(NodeId, Rc<dyn MainServerPort>)>>,
    /// What only this node has, during a rejoin: its steps share one reading of the WAL.
    pub(super) fork: ForkOfRun,
    /// Held by the one relay that is under way.
    pub(super) relaying: tokio::sync::Mutex<()>,
    /// Held while this supervisor's start starts servers, and while a fence stops them: a proof that they are stopped must
    /// not be overtaken by a start that was under way.
    pub(crate) starting: tokio::sync::Mutex<()>,
}

/// How long asking servers to stop takes; none is ended harder within that time.
const ASKING: Duration = Duration::from_millis(200);

/// How the servers were stopped when their supervisor ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// A message for each server.
    pub words: Vec<String>,
    /// Whether no server had to be forced, and none is still alive.
    pub in_good_order: bool,
}

impl Ending {
    fn add(&mut self, server: &str, ended: Answer<(String, bool)>) {
        let (words, forced) = ended.unwrap_or_else(|error| (format!("not stopped: {error}"), true));
        self.in_good_order &= !forced;
        self.words.push(format!("{server}: {words}"));
    }
}

impl Servers {
    fn spec(&self, node: NodeId) -> Option<&NodeSpec> {
        self.nodes.iter().find(|spec| spec.node == node)
    }

    pub(super) fn conninfo_of(&self, node: NodeId) -> Answer<String> {
        Ok(self.postgres.conninfo_of(self.address_of(node)?))
    }

    pub(super) fn main_server(&self, node: NodeId) -> Answer<Rc<dyn MainServerPort>> {
        let known = self
            .in_use
            .main
            .borrow()
            .as_ref()
            .filter(|(main, _)| *main == node)
            .map(|(_, server)| server.clone());
        if let Some(server) = known {
            return Ok(server);
        }
        let server: Rc<dyn MainServerPort> = self.server_of(node)?.into();
        *self.in_use.main.borrow_mut() = Some((node, server.clone()));
        Ok(server)
    }

    /// Another node's PostgreSQL, with a login of its own.
    pub(super) fn server_of(&self, node: NodeId) -> Answer<Box<dyn MainServerPort>> {
        Ok(self.handover.main_server(self.address_of(node)?))
    }

    /// Logs out.
    pub(super) fn leave_main(&self) {
        self.in_use.main.borrow_mut().take();
    }

    fn address_of(&self, node: NodeId) -> Answer<&Address> {
        let spec = self.spec(node).ok_or_else(|| PortError(format!("node {node} is not configured here")))?;
        Ok(&spec.postgres)
    }

    pub(super) fn rewind_source(&self, node: NodeId) -> Answer<Source> {
        self.rejoin.rewind_source(self.address_of(node)?)
    }

    pub(super) fn copy_source(&self, node: NodeId) -> Answer<Source> {
        Ok(self.rejoin.copy_source(self.address_of(node)?))
    }

    /// Whether a node's PostgreSQL refuses a standby of this node until a person changes its configuration.
    pub(super) async fn turned_away(&self, node: NodeId) -> bool {
        match self.address_of(node) {
            Ok(address) => self.rejoin.turned_away(address).await,
            Err(_) => false,
        }
    }

    pub(super) fn redis_of(&self, node: NodeId) -> Option<Address> {
        self.spec(node)?.redis.clone()
    }

    /// Starts Redis if there is one and it does not run. A failure stops no other start: it is logged, and every status shows it.
    /// Returns whether Redis had to be started.
    pub async fn start_redis(&self) -> bool {
        self.try_to_start_redis().await.unwrap_or_else(|error| {
            tracing::error!(%error, "Redis stays stopped");
            false
        })
    }

    /// The same; not as a replica, while what only it has is not kept.
    pub(crate) async fn try_to_start_redis(&self) -> Answer<bool> {
        let Some(redis) = &self.redis else { return Ok(false) };
        redis.keep_pending().await.map_err(|error| {
            PortError(format!(
                "{error}; as a replica, Redis would take over main's data, and what only this Redis has is not kept yet: fix that, \
                 then repeat the rejoin or restart this supervisor"
            ))
        })?;
        redis.start().await
    }

    /// Stops every server, all at once, and proves it.
    ///
    /// # Errors
    /// A server is still alive.
    pub async fn stop(&self, mode: StopMode) -> Answer<FenceProof> {
        // PostgreSQL first: it is what acknowledges; the others are stopped whatever became of it
        let (postgres, redis, dependents) =
            tokio::join!(self.postgres.stop(mode), self.stop_redis(mode), self.dependents.stop());
        Ok(FenceProof { postgres: postgres?.words, redis: redis?, dependents: dependents? })
    }

    /// Stops every server in good order, dependents before what they use. A failure of one does not keep the others running.
    pub async fn end(&self) -> Ending {
        let mut ending = Ending { words: Vec::new(), in_good_order: true };
        ending.add("dependents", self.dependents.stop().await.map(|words| (words, false)));
        self.end_databases(&mut ending).await;
        ending
    }

    /// Asks every server that may not have been asked to stop, and waits for none.
    pub async fn ask_to_end(&self) {
        let mut ending = Ending { words: Vec::new(), in_good_order: true };
        // each is asked at once, and watched for the rest of the time
        let asking = async { tokio::join!(self.end_databases(&mut ending), self.dependents.stop()) };
        let _ = tokio::time::timeout(ASKING, asking).await;
    }

    async fn end_databases(&self, ending: &mut Ending) {
        let redis = async {
            match &self.redis {
                Some(redis) => Some(redis.stop().await),
                None => None,
            }
        };
        let (postgres, redis) = tokio::join!(self.postgres.stop(StopMode::Fast), redis);
        ending.add("PostgreSQL", postgres.map(|end| (end.words, end.forced)));
        if let Some(redis) = redis {
            ending.add("Redis", redis.map(|end| (end.to_string(), end.is_loss())));
        }
    }
}

impl Servers {
    /// Stops Redis. It gets the time that it needs for saving what it has; but a node that is stopped at once, for another one
    /// that takes over, is not waited for longer than a moment: it proves that its Redis takes no writes while it saves, and
    /// the end of it is seen to afterwards.
    async fn stop_redis(&self, mode: StopMode) -> Answer<String> {
        let Some(redis) = &self.redis else { return Ok("none is configured".to_owned()) };
        if mode != StopMode::Immediate {
            return redis.stop().await.map(|end| end.to_string());
        }
        let why = match tokio::time::timeout(FENCE_PATIENCE, redis.stop()).await {
            Ok(Ok(end)) => return Ok(end.to_string()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("has not ended within {FENCE_PATIENCE:?}"),
        };
        let sealed = redis.take_no_writes().await;
        sealed
            .map(|sealed| format!("{why}: {sealed}"))
            .map_err(|error| PortError(format!("Redis: {why}; {error}")))
    }
}
