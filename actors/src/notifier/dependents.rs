//! Dependents as programs: started, stopped, restarted, and believed ready only when their check passes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::{StreamExt, stream::FuturesUnordered};
use interrex_events::DependentStatus;

use crate::{
    env::Env,
    ports::{Answer, DependentsPort, PortError},
    report::DependentFacts,
    runtime::{self, Background, RunAs},
};

/// How long a dependent may take to end before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// When one readiness check is given up.
const CHECK_LIMIT: Duration = Duration::from_secs(5);
/// Pause between two readiness checks.
const CHECK_AGAIN: Duration = Duration::from_millis(100);
/// Readiness checks of one dependent that may be under way at once.
const CHECKS_AT_ONCE: usize = 8;

/// One dependent.
#[derive(Debug, Clone)]
pub struct Dependent {
    /// Its name.
    pub name: String,
    /// The program.
    pub program: Background,
    /// Program and arguments of its readiness check.
    pub ready_command: Vec<String>,
    /// When a restart is given up.
    pub ready_limit: Duration,
}

impl Dependent {
    async fn check(&self, run_as: RunAs) -> Answer<()> {
        let mut command = run_as.command(self.ready_command.first().map_or("", String::as_str));
        command.args(self.ready_command.iter().skip(1));
        runtime::run(command, "readiness check", CHECK_LIMIT).await.map(drop)
    }

    async fn facts(&self) -> DependentFacts {
        if self.program.pid().is_none() {
            return DependentFacts { status: DependentStatus::Stopped, detail: "no such process".to_owned() };
        }
        match self.check(self.program.run_as).await {
            Ok(()) => DependentFacts { status: DependentStatus::Ready, detail: String::new() },
            Err(error) => DependentFacts { status: DependentStatus::NotReady, detail: error.to_string() },
        }
    }

    async fn restart(&self) -> Answer<()> {
        self.program.stop(STOP_PATIENCE).await?;
        self.program.start()?;
        let mut last = String::new();
        let ready = async {
            // a check that came too early may wait for its own limit: the next ones do not wait for it
            let mut checks = FuturesUnordered::new();
            loop {
                if checks.len() < CHECKS_AT_ONCE {
                    checks.push(self.facts());
                }
                let ended = tokio::time::timeout(CHECK_AGAIN, checks.next()).await.ok().flatten();
                match ended {
                    Some(DependentFacts { status: DependentStatus::Ready, .. }) => return Ok(()),
                    Some(DependentFacts { status: DependentStatus::Stopped, .. }) => {
                        let log = self.program.log_file.display();
                        return Err(PortError(format!(
                            "{} ended right after its start: see {log}",
                            self.name
                        )));
                    }
                    Some(facts) => {
                        last = facts.detail;
                        tokio::time::sleep(CHECK_AGAIN).await;
                    }
                    None => {}
                }
            }
        };
        match tokio::time::timeout(self.ready_limit, ready).await {
            Ok(result) => result,
            Err(_) => Err(PortError(format!(
                "{} runs, but is not ready after {:?}: {last}: see {}",
                self.name,
                self.ready_limit,
                self.program.log_file.display()
            ))),
        }
    }
}

/// The adapter.
pub struct DependentPrograms {
    /// The dependents.
    pub dependents: Vec<Dependent>,
    /// For how long a restart took.
    pub env: Arc<dyn Env>,
}

#[async_trait(?Send)]
impl DependentsPort for DependentPrograms {
    async fn measure(&self) -> BTreeMap<String, DependentFacts> {
        let mut all = BTreeMap::new();
        for dependent in &self.dependents {
            all.insert(dependent.name.clone(), dependent.facts().await);
        }
        all
    }

    async fn start(&self) -> Answer<Vec<String>> {
        let mut started = Vec::new();
        for dependent in self.dependents.iter().filter(|dependent| dependent.program.pid().is_none()) {
            dependent.program.start()?;
            started.push(dependent.name.clone());
        }
        Ok(started)
    }

    async fn stop(&self) -> Answer<String> {
        let mut words = Vec::new();
        for dependent in &self.dependents {
            let state = match dependent.program.stop(STOP_PATIENCE).await? {
                Some(pid) => format!("stopped, process {pid} is gone"),
                None => "was not running".to_owned(),
            };
            words.push(format!("{} {state}", dependent.name));
        }
        Ok(if words.is_empty() { "none are configured".to_owned() } else { words.join(", ") })
    }

    async fn restart(&self) -> Answer<BTreeMap<String, u64>> {
        let restarts = self.dependents.iter().map(|dependent| async move {
            let began = self.env.moment();
            let result = dependent.restart().await;
            (dependent.name.clone(), self.env.moment().ms_since(began), result)
        });
        let mut took = BTreeMap::new();
        let mut errors = Vec::new();
        for (name, ms, result) in futures_util::future::join_all(restarts).await {
            match result {
                Ok(()) => {
                    took.insert(name, ms);
                }
                Err(error) => errors.push(error.to_string()),
            }
        }
        if errors.is_empty() { Ok(took) } else { Err(PortError(errors.join("; "))) }
    }
}
