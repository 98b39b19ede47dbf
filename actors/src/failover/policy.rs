//! What the operator configured about failovers.

/// When a failover is made, and when it is refused.
#[derive(Debug, Clone)]
pub struct FailoverPolicy {
    /// Whether this node may promote itself (runbook: `auto_failover_enabled`).
    pub auto_enabled: bool,
    /// How long main may be silent, in milliseconds (runbook: `auto_failover_threshold_seconds`).
    pub threshold_ms: u64,
    /// How long after a run no other begins by itself, in milliseconds (facts, S31).
    pub cool_down_ms: u64,
    /// A failover is refused when more bytes than this are known to be missing (facts, S9).
    pub maximum_lag_bytes: Option<u64>,
    /// Name of the quorum mode, for events and reports.
    pub quorum: &'static str,
}
