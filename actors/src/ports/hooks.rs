//! The operator's own programs.

use async_trait::async_trait;
use interrex_events::{Epoch, NodeId, RunId};

use super::Answer;

/// The facts that a hook gets.
#[derive(Debug, Clone, Copy)]
pub struct HookFacts {
    /// The run.
    pub run: RunId,
    /// The epoch.
    pub epoch: Epoch,
    /// The new main.
    pub new_main: NodeId,
    /// The old main.
    pub old_main: NodeId,
}

/// The operator's hooks.
#[async_trait(?Send)]
pub trait HooksPort {
    /// The number of hooks.
    fn count(&self) -> usize;
    /// Runs the hooks one after the other. Returns the answer of each; the first failure ends it.
    async fn run(&self, facts: HookFacts) -> Answer<Vec<String>>;
}
