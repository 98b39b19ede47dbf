//! `interrex doctor`: would a failover, a switchover and a rejoin work now? Doctor measures, and changes nothing.
//!
//! ```text
//! configuration ─> gather: servers, supervisors, this machine, all at once ─> Facts
//!                                       Facts ─> judge (pure) ─> findings ─> readiness of each act
//! ```
//!
//! Every question has a time limit. A value that could not be measured is `unknown`, with the reason, and never a pass.

#[cfg(test)]
pub(crate) mod examples;
pub mod facts;
pub mod finding;
mod gather;
mod judge;
pub mod readiness;

use std::collections::BTreeMap;

use interrex_events::NodeId;
use serde::Serialize;

use self::facts::Facts;
pub use self::{
    finding::{Act, Check, Finding, Measured, Subject, Verdict, worst},
    judge::checks,
    readiness::Readiness,
};
use crate::config::Config;

/// The result of `interrex doctor`.
#[derive(Debug, Serialize)]
pub struct Examination {
    /// The node on which doctor ran.
    pub node: NodeId,
    /// Main: the node of the only PostgreSQL that takes writes.
    pub main: Option<NodeId>,
    /// The name of every node.
    pub names: BTreeMap<NodeId, String>,
    /// The worst verdict of all checks.
    pub verdict: Option<Verdict>,
    /// Every check, by subject.
    pub checks: Vec<Finding>,
    /// Whether each act would work.
    pub acts: Vec<Readiness>,
}

impl Examination {
    /// How many checks ended with this verdict.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.checks.iter().filter(|finding| finding.verdict == verdict).count()
    }

    /// Judges the measured facts.
    #[must_use]
    pub fn of(facts: &Facts) -> Self {
        let checks = judge::judge(facts);
        Self {
            node: facts.here,
            main: facts.main(),
            names: facts.nodes.iter().map(|named| (named.id, named.name.clone())).collect(),
            verdict: worst(&checks),
            acts: readiness::readiness(facts, &checks),
            checks,
        }
    }
}

/// Runs every check from the node that the configuration describes.
///
/// # Errors
/// The system gives no thread or no socket.
pub fn examine(config: &Config) -> std::io::Result<Examination> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let facts = tokio::task::LocalSet::new().block_on(&runtime, gather::gather(config));
    // a file system that hangs blocks its thread, and must not block the answer
    runtime.shutdown_background();
    Ok(Examination::of(&facts))
}
