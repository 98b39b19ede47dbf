//! What is served with main: the local dependents.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::Answer;
use crate::wire::DependentFacts;

/// The local dependents.
#[async_trait(?Send)]
pub trait DependentsPort {
    /// What each is doing, by name.
    async fn measure(&self) -> BTreeMap<String, DependentFacts>;
    /// Starts those that do not run. The names of those started.
    async fn start(&self) -> Answer<Vec<String>>;
    /// Stops all of them, and proves it. What was observed.
    async fn stop(&self) -> Answer<String>;
    /// Restarts all of them and waits for their readiness checks. How long each took, in milliseconds.
    async fn restart(&self) -> Answer<BTreeMap<String, u64>>;
}
