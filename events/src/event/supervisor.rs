//! Facts about a supervisor process itself.

use serde::{Deserialize, Serialize};

use crate::{Address, NodeId, RunId};

/// A node as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Its number.
    pub node: NodeId,
    /// Its name for people.
    pub name: String,
    /// `host:port` of its supervisor.
    pub address: Address,
    /// `host:port` of its PostgreSQL.
    pub postgres: Address,
    /// `host:port` of its Redis, where it has one.
    pub redis: Option<Address>,
}

/// Payload of `supervisor_started`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorStarted {
    /// The node's name.
    pub name: String,
    /// Version of the program.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// The role the node holds, by its journal, or by its configuration where the journal is new.
    pub role: super::Role,
    /// All nodes of the cluster, this one included, as configured here.
    pub nodes: Vec<NodeSpec>,
    /// Who is main, by the journal, or by the configuration where the journal is new.
    pub main: Option<NodeId>,
    /// A run that the last supervisor left unfinished.
    pub interrupted_run: Option<RunId>,
    /// The settings that decide about a failover, as in force, for the post-mortem.
    pub settings: serde_json::Map<String, serde_json::Value>,
}

/// Payload of `supervisor_stopped`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorStopped {
    /// Why it ended.
    pub reason: String,
}

/// Payload of `supervisor_stalled`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorStalled {
    /// Milliseconds for which the supervisor did not run, measured on a clock that counts suspension too.
    pub stalled_ms: u64,
    /// The longest gap between two ticks that is taken for normal, in milliseconds.
    pub tolerance_ms: u64,
}

/// Payload of `clock_jumped`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockJumped {
    /// Milliseconds by which the wall clock moved against the monotonic clock; negative is backwards.
    pub step_ms: i64,
    /// The largest step between two ticks that is taken for normal, in milliseconds.
    pub tolerance_ms: u64,
}

/// Payload of `actor_restarted`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorRestarted {
    /// Which actor.
    pub actor: String,
    /// The panic's message, or how else it ended.
    pub reason: String,
    /// Restarts of this actor within the window, this one included.
    pub restarts: u32,
    /// The most restarts within the window before the process gives up.
    pub limit: u32,
    /// The window, in seconds.
    pub window_seconds: u64,
}
