//! Decides what to do next: actors around pure deciders, the ports they act through, and the supervision of the actors.
//!
//! ```text
//! probes, measurements ─> HeartbeatActor ─ facts ─> JournalActor (fsync) ─> folds ─> FailoverActor
//!                                                                              │          │ RunStep
//!                              HTTP, command line <── Shared::report <─────────┘          v
//!                                                    StepEnded <── ReplicationActor, NotifierActor
//! ```
//!
//! **Invariants:** nothing is done that was not journalled first; nothing is believed that was not observed
//! after; a decider reads no clock, no randomness and no network; only [`env`] reads clocks and makes ids.

mod barrier;
pub mod env;
pub mod failover;
pub mod handlers;
pub mod heartbeat;
pub mod journal;
pub mod line;
pub mod messages;
pub mod node;
pub mod notifier;
pub mod ports;
pub mod replication;
pub mod starting;
pub mod supervision;
#[cfg(test)]
mod test_values;
pub mod wire;
