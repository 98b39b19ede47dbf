//! The local Redis.

use std::{fmt, path::PathBuf, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use interrex_events::Address;

use super::Answer;
use crate::wire::RedisFacts;

/// How long a fence waits for the end: the node that takes over waits for the fence.
pub const FENCE_PATIENCE: Duration = Duration::from_secs(2);

/// How Redis came to be stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisEnd {
    /// Nothing answered on its port, and no process of it lived.
    WasNotRunning,
    /// It saved what it had; its process is gone.
    InGoodOrder(i32),
    /// It was killed: it answered nobody, and wrote nothing for so long.
    Killed(i32, Duration),
}

impl RedisEnd {
    /// Whether what it had in memory may be lost.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        matches!(self, Self::Killed(..))
    }
}

impl fmt::Display for RedisEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WasNotRunning => f.write_str("was not running: nothing answers on its port"),
            Self::InGoodOrder(pid) => write!(f, "stopped, process {pid} is gone"),
            Self::Killed(pid, limit) => write!(
                f,
                "process {pid} was KILLED: it gave no answer and saved nothing for {limit:?} (redis.stop_timeout); what it had not \
                 saved before is lost"
            ),
        }
    }
}

/// What became of an offer of Redis' role to its replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisHandover {
    /// They have changed places. What was observed.
    Done(String),
    /// Redis refuses, in its own words. It is the master as before.
    Refused(String),
}

/// The local Redis.
#[async_trait(?Send)]
pub trait RedisPort {
    /// What it is doing. An answer always comes.
    async fn measure(&self) -> RedisFacts;
    /// Starts it, if it does not run. Whether it had to be started. An error: it does not start, or would start as a master from
    /// older data than a replica holds.
    async fn start(&self) -> Answer<bool>;
    /// Stops it, its data saved, and proves it: nothing answers on its port, and its process is gone. It gets the time it needs as
    /// long as it gets on with saving. An error: it lives on, or something else serves there.
    async fn stop(&self) -> Answer<RedisEnd>;
    /// Sees to it that a Redis that could not be stopped acknowledges no write for a while. What was observed.
    async fn take_no_writes(&self) -> Answer<String>;
    /// Makes it a master, ends its clients' connections, and writes the role to its configuration file.
    async fn promote(&self) -> Answer<String>;
    /// Changes places with its replica at `host:port`, which gets all of its data first.
    async fn hand_over(&self, replica: &Address, limit: Duration) -> Answer<RedisHandover>;
    /// Whether two addresses are one server's, as far as names tell.
    async fn is_same_server(&self, one: &Address, other: &Address) -> bool;
    /// Whether it is receiving all of its master's data.
    async fn is_copying(&self) -> bool;
    /// Stops it if it runs, copies what it has into a folder beside its own, named by the time (the newest `newest` stay),
    /// and makes its next start one as a replica of `host:port`: it serves no client before that. How it was stopped.
    async fn come_back_behind(&self, master: &Address, at: DateTime<Utc>, newest: usize) -> Answer<RedisEnd>;
    /// Makes the copy that [`RedisPort::come_back_behind`] did not get to make. An error: it must not be started, for it
    /// would take over main's data instead of what only it has.
    async fn keep_what_is_owed(&self) -> Answer<()>;
    /// The folder that [`RedisPort::come_back_behind`] made at this time, if it did.
    async fn kept_at(&self, at: DateTime<Utc>) -> Option<PathBuf>;
    /// Makes it a replica of `host:port`, durably.
    async fn follow(&self, master: &Address) -> Answer<String>;
    /// Whether it stands still because of what this supervisor did or held back: a start is to be tried again.
    fn waits_for_a_start(&self) -> bool;
}
