//! ReplicationActor: owns the local PostgreSQL and Redis. It measures them, and makes the steps that change them.

mod actor;
mod admission;
mod become_standby;
pub(crate) mod fork_report;
mod handover_check;
mod redis_role;
pub mod rejoin;
mod rejoin_check;
mod relay;
mod servers;
mod serving;
mod steps;
mod stream_upkeep;
mod switchover;
mod withdrawing;

pub use actor::ReplicationActor;
pub(crate) use actor::{FENCE_LIMIT, FOLLOW_LIMIT, record_dependents};
pub use servers::{InUse, Servers};
