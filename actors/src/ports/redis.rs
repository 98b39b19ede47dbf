//! The local Redis.

use std::{fmt, path::PathBuf, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use interrex_events::Address;

use super::Answer;
use crate::wire::RedisFacts;

/// How long a fence waits for the end: the node that takes over waits for the fence.
pub const FENCE_PATIENCE: Duration = Duration::from_secs(2);

/// How Redis was stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisEnd {
    /// Nothing answered on its port, and no process of it lived.
    WasNotRunning,
    /// It saved its data, and its process is gone.
    InGoodOrder(String),
    /// It was killed: for this long it gave no answer and wrote nothing.
    Killed(String, Duration),
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
            Self::InGoodOrder(process) => write!(f, "stopped, {process} is gone"),
            Self::Killed(process, limit) => write!(
                f,
                "{process} was KILLED: it gave no answer and saved nothing for {limit:?} (redis.stop_timeout); what it had not \
                 saved before is lost"
            ),
        }
    }
}

/// The result of offering Redis' role to its replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisHandover {
    /// The two have exchanged roles; what was observed.
    Done(String),
    /// Redis refuses, with its own message. It is still the master.
    Refused(String),
}

/// The local Redis.
#[async_trait(?Send)]
pub trait RedisPort {
    /// Measures its state. The result is always known.
    async fn measure(&self) -> RedisFacts;
    /// Starts it if it does not run. Returns whether it had to be started. It is an error if it does not start, or would start as a
    /// master with older data than a replica holds.
    async fn start(&self) -> Answer<bool>;
    /// Stops it with its data saved, and proves that nothing answers on its port and its process is gone. It gets the time it needs
    /// as long as saving makes progress. It is an error if it lives on, or if another server answers on its port.
    async fn stop(&self) -> Answer<RedisEnd>;
    /// Makes a Redis that could not be stopped refuse writes for a while. Returns what was observed.
    async fn take_no_writes(&self) -> Answer<String>;
    /// Makes it a master, ends its clients' connections, and writes the role to its configuration file.
    async fn promote(&self) -> Answer<String>;
    /// Exchanges roles with its replica at `host:port`, which gets all of its data first.
    async fn hand_over(&self, replica: &Address, limit: Duration) -> Answer<RedisHandover>;
    /// Whether two addresses belong to one server, as far as their names show.
    async fn is_same_server(&self, one: &Address, other: &Address) -> bool;
    /// Whether it is receiving all of its master's data.
    async fn is_copying(&self) -> bool;
    /// Stops it if it runs, copies its data into a folder next to its own, named by the time (the newest `newest` stay), and makes
    /// its next start one as a replica of `host:port`: it serves no client before that. Returns how it was stopped.
    async fn prepare_to_follow(&self, master: &Address, at: DateTime<Utc>, newest: usize)
    -> Answer<RedisEnd>;
    /// Makes the copy that [`RedisPort::prepare_to_follow`] did not finish. After an error Redis must not be started: main's data
    /// would replace what only it has.
    async fn keep_pending(&self) -> Answer<()>;
    /// The folder that [`RedisPort::prepare_to_follow`] made at this time, if it did.
    async fn kept_at(&self, at: DateTime<Utc>) -> Option<PathBuf>;
    /// Makes it a replica of `host:port`, durably.
    async fn follow(&self, master: &Address) -> Answer<String>;
    /// Whether it is stopped because of this supervisor, which killed it or held its start back: a start is to be tried again.
    fn waits_for_a_start(&self) -> bool;
}
