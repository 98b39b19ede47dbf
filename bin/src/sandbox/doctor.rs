//! What `interrex doctor` finds in a sandbox: a test can end with [`Sandbox::doctor_clean`].

use std::{process::Stdio, time::Duration};

use interrex_events::NodeId;
use serde::Deserialize;
use tokio::process::Command;

use super::{Done, Sandbox, SandboxError, template::without_foreign_settings, until};
use crate::doctor::Verdict;

/// When one look is given up; the doctor itself ends before that.
const LIMIT: Duration = Duration::from_secs(60);

/// One check, as the program reported it.
#[derive(Debug, Clone, Deserialize)]
pub struct Checked {
    /// The check's name.
    pub check: String,
    /// The node it speaks of.
    pub node: Option<NodeId>,
    /// How it ended.
    pub verdict: Verdict,
    /// What was measured, or why it was not.
    pub measured: String,
    /// How to fix it, if it is not ok.
    pub fix: Option<String>,
}

/// Everything that the program reported.
#[derive(Debug, Clone, Deserialize)]
pub struct Examined {
    /// Every check.
    pub checks: Vec<Checked>,
    /// Its exit code; nothing if a signal ended it.
    #[serde(skip)]
    pub exit: Option<i32>,
}

impl Examined {
    /// What failed or could not be made: the checks with their nodes.
    #[must_use]
    pub fn wrong(&self) -> Vec<(&str, Option<NodeId>)> {
        let wrong = self.checks.iter().filter(|found| found.verdict >= Verdict::Unknown);
        wrong.map(|found| (found.check.as_str(), found.node)).collect()
    }
}

impl Sandbox {
    /// Runs `interrex doctor` on a node, as an operator would.
    ///
    /// # Errors
    /// It did not end in time, or reported nothing.
    pub async fn doctor(&self, id: NodeId) -> Done<Examined> {
        let node = self.node(id)?;
        let doing = || format!("running interrex doctor on {}", node.name);
        let mut command = std::process::Command::new(&self.program);
        without_foreign_settings(&mut command);
        command
            .args(["doctor", "--json", "--config"])
            .arg(node.config())
            .current_dir("/")
            .stdin(Stdio::null());
        let running = Command::from(command).kill_on_drop(true).output();
        let output = tokio::time::timeout(LIMIT, running)
            .await
            .map_err(|_| SandboxError::failed(doing(), format!("it did not end within {LIMIT:?}")))?
            .map_err(|error| SandboxError::failed(doing(), error))?;
        let mut examined: Examined = serde_json::from_slice(&output.stdout).map_err(|error| {
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            SandboxError::failed(doing(), format!("{error}: {words}"))
        })?;
        examined.exit = output.status.code();
        Ok(examined)
    }

    /// Waits until the doctor finds nothing wrong on any node: the end of a test that left a whole cluster behind.
    ///
    /// # Errors
    /// It still does when the sandbox's patience ends; the message names what.
    pub async fn doctor_clean(&self) -> Done<()> {
        for node in &self.nodes {
            until(format!("the doctor is content with {}", node.name), self.settings.patience, || async {
                let examined = self.doctor(node.id).await.map_err(|error| error.to_string())?;
                if examined.exit == Some(0) {
                    return Ok(());
                }
                let wrong = examined.checks.iter().filter(|found| found.verdict >= Verdict::Unknown);
                let words: Vec<String> =
                    wrong.map(|found| format!("{}: {}", found.check, found.measured)).collect();
                Err(words.join("; "))
            })
            .await?;
        }
        Ok(())
    }
}
