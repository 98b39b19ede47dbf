//! What a command needs of the outside: the time, and the answers of live supervisors. Tests give their own.

use std::{collections::BTreeMap, io::IsTerminal as _, time::Duration};

use chrono::{DateTime, Utc};
use interrex_actors::{env::SystemEnv, wire::NodeReport};
use interrex_events::{Address, NodeId, cluster_events::StreamVerification, journal::Stamp as _};

use super::{cluster_events::ClusterEvents, failure::Failure, live, waiting};
use crate::config::Config;

/// A supervisor to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    /// Whose.
    pub(super) node: NodeId,
    /// Its `host:port`.
    pub(super) address: Address,
}

/// What a supervisor said of itself, or why it said nothing.
pub(super) type Answer = Result<NodeReport, Silence>;

/// Why a supervisor said nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Silence {
    /// Nothing listens there: it does not run. Otherwise it may run, and be frozen or unreachable.
    pub(super) not_running: bool,
    /// The system's message.
    pub(super) words: String,
}

/// The outside.
pub(super) trait Outside {
    /// The wall clock.
    fn now(&self) -> DateTime<Utc>;
    /// Asks supervisors, all at once, for a limited time.
    fn ask(&self, questions: &[Question]) -> BTreeMap<NodeId, Answer>;
    /// Walks `cluster_events` in the PostgreSQL that a configuration names.
    fn verify_cluster_events(&self, config: &Config) -> Result<StreamVerification, Failure>;
    /// Lets time pass; false as soon as the reader of the answer is gone.
    fn wait(&self, duration: Duration) -> Result<bool, Failure>;
    /// Whether a person can press Enter.
    fn has_keyboard(&self) -> bool;
    /// Waits until a person presses Enter; false if they press `q` before it, or are gone.
    fn wait_for_enter(&self) -> Result<bool, Failure>;
    /// The line that a person types in answer to a question; `None` if they are gone.
    fn typed(&self, question: &str) -> Result<Option<String>, Failure>;
}

/// The real one.
pub(super) struct World;

impl Outside for World {
    fn now(&self) -> DateTime<Utc> {
        SystemEnv.now()
    }

    fn ask(&self, questions: &[Question]) -> BTreeMap<NodeId, Answer> {
        live::ask(questions)
    }

    fn verify_cluster_events(&self, config: &Config) -> Result<StreamVerification, Failure> {
        ClusterEvents::connect(config)?.verify()
    }

    fn wait(&self, duration: Duration) -> Result<bool, Failure> {
        waiting::wait(duration)
    }

    fn has_keyboard(&self) -> bool {
        std::io::stdin().is_terminal()
    }

    fn wait_for_enter(&self) -> Result<bool, Failure> {
        waiting::wait_for_enter()
    }

    fn typed(&self, question: &str) -> Result<Option<String>, Failure> {
        waiting::typed(question)
    }
}
