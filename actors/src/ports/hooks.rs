//! The operator's own programs.

use async_trait::async_trait;
use interrex_events::{Epoch, NodeId, RunId};

use super::Answer;

/// What a hook is told.
#[derive(Debug, Clone, Copy)]
pub struct HookFacts {
    /// The run.
    pub run: RunId,
    /// The epoch.
    pub epoch: Epoch,
    /// The new main.
    pub new_main: NodeId,
    /// The old one.
    pub old_main: NodeId,
}

/// The operator's hooks.
#[async_trait(?Send)]
pub trait HooksPort {
    /// How many there are.
    fn count(&self) -> usize;
    /// Runs them one after the other. What each answered; the first that fails ends it.
    async fn run(&self, facts: HookFacts) -> Answer<Vec<String>>;
}
