//! Dependents as programs: started, stopped, restarted, and ready only when their check passes.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::{StreamExt, stream::FuturesUnordered};
use interrex_actors::{
    env::Env,
    ports::{Answer, DependentsPort, PortError},
    wire::DependentFacts,
};
use interrex_events::DependentStatus;

use crate::runtime::{Instance, Program, Runtime, Signal, Stopped};

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
    /// What runs it.
    pub runtime: Rc<dyn Runtime>,
    /// The program.
    pub program: Program,
    /// Its readiness check.
    pub ready: Program,
    /// Time limit for a restart.
    pub ready_limit: Duration,
    /// Why the last start was not made; shown until a start succeeds.
    pub not_started: RefCell<Option<String>>,
}

impl Dependent {
    async fn check(&self) -> Answer<()> {
        self.runtime.output_of(&self.ready, "readiness check", CHECK_LIMIT).await.map(drop)
    }

    async fn facts(&self) -> DependentFacts {
        let stopped = |detail: &str| DependentFacts {
            status: DependentStatus::Stopped,
            detail: self.not_started.borrow().clone().unwrap_or_else(|| detail.to_owned()),
        };
        let Some(instance) = self.runtime.find().await else { return stopped("no such process") };
        match self.check().await {
            Ok(()) if self.runtime.lives(&instance).await => {
                DependentFacts { status: DependentStatus::Ready, detail: String::new() }
            }
            Ok(()) => stopped("the process has ended, and another process answers its readiness check"),
            Err(error) => DependentFacts { status: DependentStatus::NotReady, detail: error.to_string() },
        }
    }

    async fn start(&self) -> Answer<()> {
        self.runtime.start(&self.program).await.map(drop)
    }

    /// Ends it. Returns the ended process, and how it ended, if one lived.
    async fn stop(&self) -> Answer<Option<(Instance, Stopped)>> {
        let Some(instance) = self.runtime.find().await else { return Ok(None) };
        let steps = [(Signal::TERM, STOP_PATIENCE), (Signal::KILL, STOP_PATIENCE)];
        let stopped = self.runtime.stop(&instance, &steps).await?;
        Ok(Some((instance, stopped)))
    }

    /// Starts it, unless another process passes its readiness check: a second process could not get the port, and the answers of
    /// the first process would count as its own.
    async fn start_alone(&self) -> Answer<()> {
        let answer = tokio::time::timeout(OTHERS_LIMIT, self.check()).await;
        let taken = if matches!(answer, Ok(Ok(()))) {
            let alike = self.runtime.look_alike().await;
            let alike = alike.map_or_else(String::new, |it| format!(" ({it} runs the same command)"));
            Some(format!(
                "{} is not started: its readiness check passes already, so a process that this supervisor did not start serves in \
                 its place{alike}; stop that process, make sure that nothing starts it again, then restart this supervisor",
                self.name
            ))
        } else {
            None
        };
        self.not_started.borrow_mut().clone_from(&taken);
        match taken {
            Some(words) => Err(PortError(words)),
            None => self.start().await,
        }
    }

    async fn restart(&self) -> Answer<()> {
        if self.stop().await?.is_some() {
            // the stopped process had the port
            self.start().await?;
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
                        let log = self.runtime.output_name();
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
                self.runtime.output_name()
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
        let starts = self.dependents.iter().map(|dependent| async move {
            let runs = dependent.runtime.find().await.is_some();
            (dependent, if runs { Ok(false) } else { dependent.start_alone().await.map(|()| true) })
        });
        let mut started = Vec::new();
        for (dependent, result) in futures_util::future::join_all(starts).await {
            match result {
                Ok(true) => started.push(dependent.name.clone()),
                Ok(false) => {}
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
            let state = match dependent.stop().await? {
                Some((instance, Stopped { by: Signal::KILL, .. })) => {
                    format!("killed, because {instance} did not end within {STOP_PATIENCE:?}")
                }
                Some((instance, _)) => format!("stopped, {instance} is gone"),
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
    use crate::runtime::{Marked, Processes, RunAs};

    fn programs(folder: &Path, ready: &str) -> DependentPrograms {
        let identity = Marked {
            command: ["sleep", "60"].map(str::to_owned).to_vec(),
            pid_file: folder.join("radius.pid"),
            user: RunAs::Myself,
            mark: folder.display().to_string(),
        };
        let dependent = Dependent {
            name: "radius".to_owned(),
            program: Program::of(&identity.command),
            runtime: Rc::new(Processes::new(RunAs::Myself, folder.join("radius.log"), identity)),
            ready: Program::of(&["/bin/sh", "-c", ready].map(str::to_owned)),
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
        assert_eq!(it.dependents[0].runtime.find().await, None);
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
