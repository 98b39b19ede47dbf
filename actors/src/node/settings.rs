//! What is fixed for the life of a supervisor.

use std::{path::PathBuf, time::Duration};

use interrex_events::{ClusterId, NodeId, NodeSpec, Role};

use crate::{failover::policy::FailoverPolicy, journal::retention::RetentionPolicy};

/// What happens to data that only a returning node has.
#[derive(Debug, Clone)]
pub struct RejoinSettings {
    /// The folder of all kept copies: on the volume of the data directory, so that a rename is enough.
    pub keep_in: PathBuf,
    /// The number of copies that are kept.
    pub keep_newest: usize,
}

/// What happens to the servers when their supervisor is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExit {
    /// They keep running.
    Leave,
    /// They are stopped in good order; PostgreSQL gets this much time.
    Stop(Duration),
}

/// What is fixed for the life of a supervisor.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// This node.
    pub me: NodeId,
    /// Its name.
    pub name: String,
    /// Its role if its journal is new.
    pub initial_role: Role,
    /// The main if its journal is new.
    pub initial_main: Option<NodeId>,
    /// Every node, this one included.
    pub nodes: Vec<NodeSpec>,
    /// How often peers are probed and local servers measured.
    pub probe_interval: Duration,
    /// When one probe is given up.
    pub probe_timeout: Duration,
    /// How long a starting main waits for a peer to confirm that it is main.
    pub startup_wait: Duration,
    /// The rules for failovers.
    pub failover: FailoverPolicy,
    /// What happens to data that only a returning node has.
    pub rejoin: RejoinSettings,
    /// What happens to the servers at its end.
    pub on_exit: OnExit,
    /// Which events are sealed; nothing if all are kept.
    pub retention: Option<RetentionPolicy>,
}

impl NodeSettings {
    /// The other nodes.
    pub fn peers(&self) -> impl Iterator<Item = &NodeSpec> {
        self.nodes.iter().filter(|spec| spec.node != self.me)
    }

    /// A node of the configuration.
    #[must_use]
    pub fn spec(&self, node: NodeId) -> Option<&NodeSpec> {
        self.nodes.iter().find(|spec| spec.node == node)
    }
}
