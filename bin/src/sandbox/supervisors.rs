//! Starting and killing: supervisors as child processes, their servers as what they started.

use std::{
    fs::OpenOptions,
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    time::Duration,
};

use interrex_actors::env::{Env as _, Moment, SystemEnv};
use interrex_events::NodeId;
use rustix::process::{Pid, Signal};

use super::{
    Done, Sandbox, SandboxError,
    plan::{ALPHA, NodePlan},
    processes::{self, MARK, POSTGRES, Process, RADIUS, REDIS},
    template::{foreign_settings, without_foreign_settings},
};

impl Sandbox {
    /// Starts every supervisor, and waits until all nodes are healthy and all standbys stream.
    ///
    /// # Errors
    /// One did not come up in time.
    pub async fn start(&self) -> Done<()> {
        for node in &self.nodes {
            self.start_supervisor(node.id)?;
        }
        for node in &self.nodes {
            self.wait_healthy(node.id).await?;
        }
        for node in self.nodes.iter().filter(|node| node.id != ALPHA) {
            self.wait_streaming(ALPHA, node.id).await?;
        }
        Ok(())
    }

    /// Starts a node's supervisor in a process group of its own, with its output in `supervisor.log`.
    ///
    /// # Errors
    /// It runs already, or its program cannot be started.
    pub fn start_supervisor(&self, id: NodeId) -> Done<u32> {
        let node = self.node(id)?;
        let doing = || format!("starting the supervisor of {}", node.name);
        let mut supervisors = self.supervisors();
        if supervisors.get_mut(&id).is_some_and(is_running) {
            return Err(SandboxError::failed(doing(), "it runs already"));
        }
        let log = OpenOptions::new().create(true).append(true).open(node.supervisor_log());
        let log = log.map_err(|error| SandboxError::failed(doing(), error))?;
        let errors = log.try_clone().map_err(|error| SandboxError::failed(doing(), error))?;
        let mut command = Command::new(&self.supervisor);
        command.arg("supervise").arg("--config").arg(node.config());
        command.current_dir("/").stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
        without_foreign_settings(&mut command);
        command.env(MARK, &node.folder);
        let environment = self.environment.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        command.envs(environment.get(&id).into_iter().flatten());
        let child = command.spawn().map_err(|error| SandboxError::failed(doing(), error))?;
        let pid = child.id();
        supervisors.insert(id, child);
        Ok(pid)
    }

    /// Starts a node's PostgreSQL without a supervisor, to measure what is possible at best.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_postgres(&self, id: NodeId) -> Done<()> {
        let node = self.node(id)?;
        let pid_file = std::fs::read_to_string(node.data_dir().join("postmaster.pid")).unwrap_or_default();
        if let Some(dead) = pid_file.lines().next().and_then(|pid| pid.trim().parse().ok()) {
            interrex_adapters::runtime::wait_reaped(dead, self.settings.patience).await;
        }
        let mut command = self.account.run_as.command(self.programs.postgres.join("pg_ctl"));
        command.arg("-D").arg(node.data_dir()).arg("-l").arg(node.postgres_log()).args(["-w", "-s", "start"]);
        command.env(MARK, &node.folder).process_group(0);
        for name in foreign_settings() {
            command.env_remove(name);
        }
        // its output would stay open as long as the server runs
        let ended = command.stdout(Stdio::null()).stderr(Stdio::null()).status().await;
        match ended {
            Ok(end) if end.success() => Ok(()),
            Ok(end) => Err(SandboxError::failed(
                format!("starting PostgreSQL of {}", node.name),
                format!("{end}: see {}", node.postgres_log().display()),
            )),
            Err(error) => Err(SandboxError::failed("starting pg_ctl", error)),
        }
    }

    /// The process of a node's supervisor, if it lives.
    #[must_use]
    pub fn supervisor_pid(&self, id: NodeId) -> Option<u32> {
        let mut supervisors = self.supervisors();
        let child = supervisors.get_mut(&id)?;
        is_running(child).then(|| child.id())
    }

    /// How a node's supervisor ended, if it did: its exit code, or the signal that killed it.
    #[must_use]
    pub fn supervisor_end(&self, id: NodeId) -> Option<std::process::ExitStatus> {
        self.supervisors().get_mut(&id)?.try_wait().ok().flatten()
    }

    /// Sends a signal to a node's supervisor alone; its servers go on. Whether there was one to send it to.
    pub fn signal_supervisor(&self, id: NodeId, signal: Signal) -> bool {
        let mut supervisors = self.supervisors();
        // a child that was not waited for keeps its number, so that no other process gets the signal
        let Some(child) = supervisors.get_mut(&id) else { return false };
        is_running(child) && rustix::process::kill_process(Pid::from_child(child), signal).is_ok()
    }

    /// Kills a node's supervisor as `kill -9` does, and waits until it is gone. Its servers go on.
    pub fn kill_supervisor(&self, id: NodeId) -> bool {
        let killed = self.signal_supervisor(id, Signal::KILL);
        if let Some(child) = self.supervisors().get_mut(&id).filter(|_| killed) {
            let _ = child.wait();
        }
        killed
    }

    /// Kills everything of a node at once, as a power cut would: supervisor, PostgreSQL with all its processes,
    /// Redis, RADIUS. When the last signal was sent.
    pub fn kill_everything_of(&self, id: NodeId) -> Moment {
        let Ok(node) = self.node(id) else { return SystemEnv.moment() };
        let killed_at = kill(|| processes::of_folder(&node.folder));
        if let Some(child) = self.supervisors().get_mut(&id) {
            let _ = child.wait();
        }
        killed_at
    }

    /// Kills a node's PostgreSQL alone, with all its processes. When the last signal was sent.
    pub fn kill_postgres(&self, id: NodeId) -> Moment {
        self.kill_server(id, POSTGRES)
    }

    /// Kills a node's Redis alone.
    pub fn kill_redis(&self, id: NodeId) -> Moment {
        self.kill_server(id, REDIS)
    }

    /// Kills a node's RADIUS alone.
    pub fn kill_radius(&self, id: NodeId) -> Moment {
        self.kill_server(id, RADIUS)
    }

    fn kill_server(&self, id: NodeId, name: &str) -> Moment {
        match self.node(id) {
            Ok(node) => kill(|| processes::named(&node.folder, name)),
            Err(_) => SystemEnv.moment(),
        }
    }

    /// Sends a signal to every process of a node's PostgreSQL, such as STOP and CONT. How many got it.
    pub fn signal_postgres(&self, id: NodeId, signal: Signal) -> usize {
        self.signal_server(id, POSTGRES, signal)
    }

    /// Sends a signal to a node's Redis, such as STOP and CONT. How many processes got it.
    pub fn signal_redis(&self, id: NodeId, signal: Signal) -> usize {
        self.signal_server(id, REDIS, signal)
    }

    fn signal_server(&self, id: NodeId, name: &str, signal: Signal) -> usize {
        let Ok(node) = self.node(id) else { return 0 };
        let all = processes::named(&node.folder, name);
        all.iter().for_each(|process| process.signal(signal));
        all.len()
    }

    /// Sends a signal to the process of a standby that replays the log: stopped, it takes up no promotion, while sessions go
    /// on. How many got it.
    pub fn signal_replay(&self, id: NodeId, signal: Signal) -> usize {
        let Ok(node) = self.node(id) else { return 0 };
        let replaying = processes::named(&node.folder, POSTGRES).into_iter().filter(Process::replays);
        replaying.map(|process| process.signal(signal)).count()
    }

    /// The first process of a node's PostgreSQL, if it lives.
    #[must_use]
    pub fn postmaster_pid(&self, id: NodeId) -> Option<i32> {
        processes::postmaster(&self.node(id).ok()?.folder)
    }

    /// Every living process of the sandbox: number and name.
    #[must_use]
    pub fn processes(&self) -> Vec<(i32, String)> {
        numbers_and_names(processes::of_folder(&self.folder))
    }

    /// Every living process of a node: number and name.
    ///
    /// # Errors
    /// There is no such node.
    pub fn processes_of(&self, id: NodeId) -> Done<Vec<(i32, String)>> {
        Ok(numbers_and_names(processes::of_folder(&self.node(id)?.folder)))
    }

    pub(super) fn kill_all_supervisors(&self) {
        let mut supervisors = self.supervisors();
        for child in supervisors.values_mut() {
            let _ = child.kill();
        }
        for child in supervisors.values_mut() {
            let _ = child.wait();
        }
    }

    /// The end of a node's supervisor's log, for a message.
    pub(super) fn last_words(&self, node: &NodePlan, lines: usize) -> String {
        let log = std::fs::read_to_string(node.supervisor_log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(lines).collect();
        let words: Vec<&str> = lines.into_iter().rev().map(str::trim).collect();
        if words.is_empty() { "its log is empty".to_owned() } else { words.join(" / ") }
    }
}

fn numbers_and_names(processes: Vec<Process>) -> Vec<(i32, String)> {
    processes.into_iter().map(|process| (process.pid, process.name)).collect()
}

fn is_running(child: &mut Child) -> bool {
    matches!(child.try_wait(), Ok(None))
}

/// Kills them as close to one moment as can be. A power cut ends the last answer to a client and the last
/// byte to a standby together; here one signal comes after the other, on a busy machine with a pause between.
/// So the sessions that answer clients die before the process that sends the log: otherwise rows would be lost
/// that no power cut loses.
fn kill(living: impl Fn() -> Vec<Process>) -> Moment {
    let killed_at = kill_at_once(living());
    // a postmaster may have started a process between the look and the blow
    for _ in 0..5 {
        let late = living();
        if late.is_empty() {
            break;
        }
        kill_at_once(late);
    }
    killed_at
}

fn kill_at_once(mut all: Vec<Process>) -> Moment {
    let postmasters: Vec<i32> =
        all.iter().filter(|process| process.is_postmaster(&all)).map(|process| process.pid).collect();
    all.sort_by_cached_key(|process| match process.name.as_str() {
        POSTGRES if process.serves_a_client() => 1,
        POSTGRES if postmasters.contains(&process.pid) => 2,
        POSTGRES => 3,
        REDIS | RADIUS => 4,
        _ => 0,
    });
    all.iter().for_each(|process| process.signal(Signal::KILL));
    let killed_at = SystemEnv.moment();
    processes::wait_gone(&all, Duration::from_secs(5));
    killed_at
}
