//! The operator's hooks as programs.

use std::time::Duration;

use async_trait::async_trait;
use interrex_actors::ports::{Answer, HookFacts, HooksPort};

use crate::runtime::{self, RunAs};

/// One hook.
#[derive(Debug, Clone)]
pub struct Hook {
    /// Its name.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Time limit.
    pub limit: Duration,
    /// The user that it runs as.
    pub run_as: RunAs,
}

/// The adapter.
#[derive(Debug, Clone)]
pub struct HookPrograms {
    /// The hooks, in order.
    pub hooks: Vec<Hook>,
}

#[async_trait(?Send)]
impl HooksPort for HookPrograms {
    fn count(&self) -> usize {
        self.hooks.len()
    }

    async fn run(&self, facts: HookFacts) -> Answer<Vec<String>> {
        let mut words = Vec::new();
        for hook in &self.hooks {
            let mut command = hook.run_as.command(hook.command.first().map_or("", String::as_str));
            command
                .args(hook.command.iter().skip(1))
                .env("INTERREX_RUN", facts.run.to_string())
                .env("INTERREX_EPOCH", facts.epoch.to_string())
                .env("INTERREX_NEW_MAIN", facts.new_main.to_string())
                .env("INTERREX_OLD_MAIN", facts.old_main.to_string());
            let said = runtime::run(command, &format!("hook {}", hook.name), hook.limit).await?;
            let said = said.lines().next_back().unwrap_or_default().to_owned();
            words.push(if said.is_empty() {
                format!("{} done", hook.name)
            } else {
                format!("{}: {said}", hook.name)
            });
        }
        Ok(words)
    }
}
