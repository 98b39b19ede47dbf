//! HeartbeatActor: probes every peer, measures main's silence, and says when main is lost, or why not.

mod actor;
pub mod decider;
pub mod lease;

pub use actor::HeartbeatActor;
