//! What the operator configured about failovers.

use interrex_events::{ClusterSettings, NodeId};
use interrex_projections::Settings;

/// When a failover is made, and when it is refused.
#[derive(Debug, Clone)]
pub struct FailoverPolicy {
    /// Whether this node may promote itself (runbook: `auto_failover_enabled`).
    pub auto_enabled: bool,
    /// How long main may be silent, in milliseconds (runbook: `auto_failover_threshold_seconds`).
    pub threshold_ms: u64,
    /// How long after a run no other run begins automatically, in milliseconds (MEASURED M23).
    pub cool_down_ms: u64,
    /// A failover is refused when more bytes than this are known to be missing (MEASURED M22).
    pub maximum_lag_bytes: Option<u64>,
    /// Whether a fenced node comes back as a secondary by itself.
    pub rejoin_automatically: bool,
    /// With quorum `none`: the only node that may promote itself. `None`: of two nodes the secondary may; of more nodes none may.
    pub candidate: Option<NodeId>,
    /// Number of nodes in the configuration. A node that was removed from it no longer counts, although the journals know it.
    pub nodes: usize,
    /// Name of the quorum mode, for events and reports.
    pub quorum: &'static str,
}

impl FailoverPolicy {
    /// The same with the settings that were changed while the cluster ran: they override the configuration.
    #[must_use]
    pub fn with(&self, settings: &Settings) -> Self {
        let in_force = settings.changed.unwrap_or(self.settings());
        Self {
            auto_enabled: in_force.auto_failover_enabled,
            threshold_ms: in_force.auto_failover_threshold_ms,
            ..self.clone()
        }
    }

    /// The part of it that `cluster_config` shows and changes.
    #[must_use]
    pub fn settings(&self) -> ClusterSettings {
        ClusterSettings {
            auto_failover_enabled: self.auto_enabled,
            auto_failover_threshold_ms: self.threshold_ms,
        }
    }
}
