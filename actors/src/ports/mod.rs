//! The ports through which actors act. Each port has an adapter for the real server or program, and is small enough for a
//! simulation to replace it.

mod dependents;
mod fork_report;
mod handover;
mod hooks;
mod main_server;
mod no_reply;
mod peers;
mod postgres;
mod redis;
mod rejoin;
mod standby_limits;
mod stream;

use interrex_events::NodeId;

pub use self::{
    dependents::DependentsPort,
    fork_report::{FileNode, ForkReport, RelationChanges},
    handover::{
        HandoverPort, Lineage, LogRecord, MainLineage, Parted, Received, ShutdownProof, Switch, Verdict,
    },
    hooks::{HookFacts, HooksPort},
    main_server::{Held, HeldOnMain, MainServerPort, ReturnSlot},
    no_reply::NoReply,
    peers::{NotAccepted, NotFenced, PeersPort},
    postgres::{
        PostgresEnd, PostgresMeasure, PostgresPort, Promotion, ReadOnlySetting, ReplayState, ServerProcess,
        StopMode,
    },
    redis::{FENCE_PATIENCE, RedisEnd, RedisHandover, RedisPort},
    rejoin::{KeepRequest, Kept, KeptBy, KeptManifest, RejoinPort, Rewind, Source},
    standby_limits::{StandbyLimits, TooSmall},
    stream::{NotRelayed, Relayed, SettingsRequest, StreamPort, StreamState},
};

/// Why a port could not do what it was asked, as a message for people. The servers may or may not have changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PortError(pub String);

impl PortError {
    /// An error, with the action that failed.
    pub fn new(doing: &str, error: impl std::fmt::Display) -> Self {
        Self(format!("{doing}: {error}"))
    }
}

/// The answer of a port.
pub type Answer<T> = Result<T, PortError>;

/// The name of a node's replication slot, as in the runbook.
#[must_use]
pub fn slot_name(node: NodeId) -> String {
    format!("replica_{node}")
}
