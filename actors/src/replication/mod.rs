//! ReplicationActor: owns the local PostgreSQL and Redis. It measures them, and makes the steps that change them.

mod actor;
mod admission;
mod become_standby;
pub mod checksums;
mod copying;
pub mod fork;
pub(crate) mod fork_report;
mod handover_check;
pub mod postgres;
mod postgres_connection;
pub mod redis;
mod redis_files;
mod redis_role;
pub mod rejoin;
mod rejoin_check;
mod relay;
mod safe;
mod serving;
mod steps;
pub mod stream;
mod stream_upkeep;
mod switchover;
mod withdrawing;

pub(crate) use actor::{FENCE_LIMIT, FOLLOW_LIMIT, record_dependents};
pub use actor::{ReplicationActor, Servers};
pub(crate) use admission::ask_for_a_session;
pub use fork_report::ForkOfRun;
pub(crate) use postgres_connection::{READS, connect as connect_to_postgres};
pub use steps::LOSS_OBSERVED;
