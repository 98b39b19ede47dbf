//! Dependents as programs: started, stopped, restarted, and ready only when their check passes.

use std::{cell::RefCell, collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::{StreamExt, stream::FuturesUnordered};
use interrex_actors::{
    env::Env,
    ports::{Answer, DependentsPort, PortError},
    wire::DependentFacts,
};
use interrex_events::DependentStatus;

use crate::runtime::{self, Background, Ended};

/// How long a dependent may take to end before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// Time limit for one readiness check.
const CHECK_LIMIT: Duration = Duration::from_secs(5);
/// Time limit for a check whether another process has the port: such a process is running already and answers soon.
const OTHERS_LIMIT: Duration = Duration::from_secs(1);
/// Pause between two readiness checks.
const CHECK_AGAIN: Duration = Duration::from_millis(100);
/// The most readiness checks of one dependent at a time.
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
    /// Time limit for a restart.
    pub ready_limit: Duration,
    /// Why the last start was not made; shown until a start succeeds.
    pub not_started: RefCell<Option<String>>,
}

impl Dependent {
    async fn check(&self) -> Answer<()> {
        let run_as = self.program.run_as;
        let mut command = run_as.command(self.ready_command.first().map_or("", String::as_str));
        command.args(self.ready_command.iter().skip(1));
        runtime::run(command, "readiness check", CHECK_LIMIT).await.map(drop)
    }

    async fn facts(&self) -> DependentFacts {
        let stopped = |detail: &str| DependentFacts {
            status: DependentStatus::Stopped,
            detail: self.not_started.borrow().clone().unwrap_or_else(|| detail.to_owned()),
        };
        let Some(pid) = self.program.pid() else { return stopped("no such process") };
        match self.check().await {
            Ok(()) if self.program.pid() == Some(pid) => {
                DependentFacts { status: DependentStatus::Ready, detail: String::new() }
            }
            Ok(()) => stopped("the process has ended, and another process answers its readiness check"),
            Err(error) => DependentFacts { status: DependentStatus::NotReady, detail: error.to_string() },
        }
    }

    /// Starts it, unless another process passes its readiness check: a second process could not get the port, and the answers of
    /// the first process would count as its own.
    async fn start_alone(&self) -> Answer<()> {
        let answer = tokio::time::timeout(OTHERS_LIMIT, self.check()).await;
        let taken = matches!(answer, Ok(Ok(()))).then(|| {
            let alike = match self.program.look_alikes().as_slice() {
                [] => String::new(),
                [pid, ..] => format!(" (process {pid} runs the same command)"),
            };
            format!(
                "{} is not started: its readiness check passes already, so a process that this supervisor did not start serves in \
                 its place{alike}; stop that process, make sure that nothing starts it again, then restart this supervisor",
                self.name
            )
        });
        self.not_started.borrow_mut().clone_from(&taken);
        match taken {
            Some(words) => Err(PortError(words)),
            None => self.program.start().map(drop),
        }
    }

    async fn restart(&self) -> Answer<()> {
        if self.program.stop(STOP_PATIENCE).await?.is_some() {
            // the stopped process had the port
            self.program.start()?;
            self.not_started.borrow_mut().take();
        } else {
            self.start_alone().await?;
        }
        let mut last = String::new();
        let ready = async {
            // a check that began too early may take its whole time limit: the next checks do not wait for it
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
                            "{} ended right after its start: see its log {log}",
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
                "{} runs, but is not ready after {:?}: {last}; see its log {}",
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
    /// The clock that measures how long a restart took.
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
        let absent = self.dependents.iter().filter(|dependent| dependent.program.find().is_none());
        let starts = absent.map(|dependent| async move { (dependent, dependent.start_alone().await) });
        let mut started = Vec::new();
        for (dependent, result) in futures_util::future::join_all(starts).await {
            match result {
                Ok(()) => started.push(dependent.name.clone()),
                // it is shown as stopped, with the reason; the other servers do not wait for it
                Err(error) if dependent.not_started.borrow().is_some() => tracing::error!(%error),
                Err(error) => return Err(error),
            }
        }
        Ok(started)
    }

    async fn stop(&self) -> Answer<String> {
        let mut words = Vec::new();
        for dependent in &self.dependents {
            let state = match dependent.program.stop(STOP_PATIENCE).await? {
                Some(Ended { pid, killed: false }) => format!("stopped, process {pid} is gone"),
                Some(Ended { pid, killed: true }) => {
                    format!("killed, because process {pid} did not end within {STOP_PATIENCE:?}")
                }
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use interrex_actors::env::SystemEnv;

    use super::*;
    use crate::runtime::RunAs;

    fn programs(folder: &Path, ready: &str) -> DependentPrograms {
        let dependent = Dependent {
            name: "radius".to_owned(),
            program: Background {
                command: ["sleep", "60"].map(str::to_owned).to_vec(),
                pid_file: folder.join("radius.pid"),
                log_file: folder.join("radius.log"),
                run_as: RunAs::Myself,
                mark: folder.display().to_string(),
            },
            ready_command: ["/bin/sh", "-c", ready].map(str::to_owned).to_vec(),
            ready_limit: Duration::from_secs(10),
            not_started: RefCell::default(),
        };
        DependentPrograms { dependents: vec![dependent], env: Arc::new(SystemEnv) }
    }

    #[tokio::test]
    async fn a_second_one_is_not_started_where_something_else_answers() {
        let folder = tempfile::tempdir().unwrap();
        let it = programs(folder.path(), "exit 0");
        assert_eq!(it.start().await, Ok(Vec::new()), "the start of the other servers goes on");
        let facts = it.measure().await.remove("radius").unwrap();
        assert_eq!(facts.status, DependentStatus::Stopped);
        assert!(facts.detail.contains("that this supervisor did not start serves in its place"), "{facts:?}");
        let error = it.restart().await.unwrap_err().to_string();
        assert!(error.contains("radius is not started"), "{error}");
        assert_eq!(it.dependents[0].program.pid(), None);
    }

    #[tokio::test]
    async fn it_is_ready_only_while_it_lives_itself() {
        let folder = tempfile::tempdir().unwrap();
        // it answers from when it runs on; and whoever asks ends it when that is wanted
        let pid = folder.path().join("radius.pid");
        let ready = format!(
            "test -e {0} || exit 1; test -e {0}.kill || exit 0; it=$(cut -d' ' -f1 {0}); kill -9 $it
             until test ! -e /proc/$it || grep -q ') Z' /proc/$it/stat; do sleep 0.01; done",
            pid.display()
        );
        let it = programs(folder.path(), &ready);
        assert_eq!(it.start().await, Ok(vec!["radius".to_owned()]));
        assert_eq!(it.measure().await["radius"].status, DependentStatus::Ready);
        std::fs::write(folder.path().join("radius.pid.kill"), "").unwrap();
        let facts = it.measure().await.remove("radius").unwrap();
        assert_eq!(facts.status, DependentStatus::Stopped);
        assert!(facts.detail.contains("another process answers its readiness check"), "{facts:?}");
        assert_eq!(it.stop().await, Ok("radius was not running".to_owned()));
    }
}
