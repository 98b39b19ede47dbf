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
    /// `host:port` of its Redis, if it has one.
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
    /// The node's role, by its journal, or by its configuration if the journal is new.
    pub role: super::Role,
    /// All nodes of the cluster, including this one, as configured here.
    pub nodes: Vec<NodeSpec>,
    /// The main, by the journal, or by the configuration if the journal is new.
    pub main: Option<NodeId>,
    /// A run that the last supervisor left unfinished.
    pub interrupted_run: Option<RunId>,
    /// The settings in force that decide about a failover, for a later analysis.
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
    /// How long the supervisor did not run, in milliseconds, on a clock that also counts suspension.
    pub stalled_ms: u64,
    /// The longest normal gap between two ticks, in milliseconds.
    pub tolerance_ms: u64,
}

/// Payload of `clock_jumped`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockJumped {
    /// How far the wall clock moved against the monotonic clock, in milliseconds; negative is backwards.
    pub step_ms: i64,
    /// The largest normal step between two ticks, in milliseconds.
    pub tolerance_ms: u64,
}

/// Payload of `actor_restarted`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorRestarted {
    /// Which actor.
    pub actor: String,
    /// The panic's message, or how the actor ended otherwise.
    pub reason: String,
    /// Restarts of this actor within the window, this one included.
    pub restarts: u32,
    /// The number of restarts within the window after which the process gives up.
    pub limit: u32,
    /// The window, in seconds.
    pub window_seconds: u64,
}
