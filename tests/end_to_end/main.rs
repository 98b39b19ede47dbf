//! End to end: real PostgreSQL, Redis and RADIUS, real supervisors as child processes, killed for real.
//!
//! What is checked is what the outside world says: rows that a client was told are committed, `psql`, Redis,
//! RADIUS. The journal is read from its file, as a post-mortem would.

#![allow(clippy::unwrap_used, reason = "all of it is tests: a surprise fails the one it happens in")]

mod addresses;
mod bad_input;
mod certificate;
mod checks;
mod death_of_main;
mod demo;
mod doctor;
mod dry_run;
mod ending;
mod evidence;
mod fork_report;
mod hostile;
mod late_promotion;
mod namespaces;
mod not_let_in;
mod panic;
mod promotion;
mod races;
mod radius_rejects;
mod rejoin;
mod rejoin_by_hand;
mod rejoin_obstacles;
mod resume;
mod retention;
mod return_of_the_old_main;
mod salvage;
mod salvage_redis;
mod schedule;
mod set_up;
mod standby;
mod starting;
mod store;
mod store_hostile;
mod stray;
mod switchover;
mod switchover_redis;
mod withheld;

use std::time::Duration;

use interrex::sandbox::{Builder, Sandbox};

/// Two nodes with PostgreSQL and Redis, and a threshold that a test can wait for.
fn two_nodes() -> Builder {
    Sandbox::builder(interrex_tests::interrex())
        .without_radius()
        .threshold(Duration::from_millis(1_500))
        .probe_interval(Duration::from_millis(200))
        .probe_timeout(Duration::from_millis(500))
        .startup_wait(Duration::from_millis(500))
        .patience(Duration::from_secs(60))
}
