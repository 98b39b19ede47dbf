//! HeartbeatActor: probes every peer, measures main's silence, and decides whether main is lost.

mod actor;
pub(crate) mod asking;
pub mod claims;
pub mod decider;
pub mod lease;
mod main_watch;
mod peer_watch;

pub use actor::HeartbeatActor;
