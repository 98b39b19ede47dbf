//! The port for the local dependents, which serve with main.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::Answer;
use crate::wire::DependentFacts;

/// The local dependents.
#[async_trait(?Send)]
pub trait DependentsPort {
    /// The state of each, by name.
    async fn measure(&self) -> BTreeMap<String, DependentFacts>;
    /// Starts those that do not run. Returns the names of those that were started.
    async fn start(&self) -> Answer<Vec<String>>;
    /// Stops all of them, and proves it. Returns what was observed.
    async fn stop(&self) -> Answer<String>;
    /// Restarts all of them and waits for their readiness checks. Returns how long each took, in milliseconds.
    async fn restart(&self) -> Answer<BTreeMap<String, u64>>;
}
