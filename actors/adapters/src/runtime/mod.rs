//! The port between the adapter of a server and what runs that server: a process of this machine, a container.
//!
//! The adapter knows the server's protocol and its files; the runtime knows its processes. The adapter sees the files at their
//! paths on this machine; a program gets the paths that it sees itself, by [`Runtime::inside`].
//!
//! **Invariant:** only a runtime believes the number in a pid file or reads a process in `/proc`, and only a runtime starts a
//! program of a server.

mod process;
mod program;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use interrex_actors::ports::{Answer, PortError};
pub use rustix::process::Signal;

pub use self::{
    process::{
        Command, InFolder, Marked, Postmaster, Process, Processes, RunAs, checked, ignored_signals, is_alive,
        is_same_file, launch, leave_nothing_inherited, processes_in, run, signal, wait_reaped,
    },
    program::{Messages, Program, Running},
};

/// A living server: its main process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// For people, for example `process 4711`.
    pub name: String,
    /// The number of its main process, as the server itself knows it.
    pub number: i32,
    /// Distinguishes it from every other server that had or will have the same number. Only its runtime reads this.
    pub key: String,
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A program of a server that an earlier supervisor started, and that still runs.
#[derive(Debug, Clone)]
pub struct Leftover {
    /// Its process.
    pub instance: Instance,
    /// The name of the program.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<Vec<u8>>,
}

/// How a server was stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// The signal after which it ended.
    pub by: Signal,
    /// What it still had when the time of the first signal was over; empty if that signal was enough.
    pub left: String,
}

/// What runs one server. There is one value for each server.
#[async_trait(?Send)]
pub trait Runtime: fmt::Debug {
    /// The user that owns the server's files, and that it runs as.
    fn user(&self) -> RunAs;

    /// A path of this machine, as the server sees it.
    fn inside(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }

    /// A path that the server reported, as this machine sees it; nothing if this machine does not see it.
    fn outside(&self, path: &Path) -> Option<PathBuf> {
        Some(path.to_owned())
    }

    /// A folder of this machine for temporary files that the server's programs see as well.
    fn scratch(&self) -> PathBuf {
        std::env::temp_dir()
    }

    /// The server, if it lives, also if another program or an earlier supervisor started it.
    async fn find(&self) -> Option<Instance>;

    /// The process with this number of the server's own view, if it lives and runs one of these programs.
    async fn numbered(&self, number: i32, programs: &[&Path]) -> Option<Instance>;

    /// Starts the server, which outlives the supervisor. This does not wait until the server is ready.
    ///
    /// # Errors
    /// It cannot be started.
    async fn start(&self, server: &Program) -> Answer<Instance>;

    /// Whether it lives.
    async fn lives(&self, instance: &Instance) -> bool;

    /// Waits until it no longer lives.
    async fn gone(&self, instance: &Instance);

    /// Sends it a signal, if it lives.
    async fn signal(&self, instance: &Instance, signal: Signal);

    /// The folder in which it works, as this machine sees it, if that is known.
    async fn folder(&self, instance: &Instance) -> Option<PathBuf>;

    /// Every living process of the server and what it shows of itself. An empty list is the proof that the server is stopped:
    /// processes outlive the main process.
    async fn processes(&self) -> Vec<(Instance, String)>;

    /// Stops it with harder and harder signals, each with its own time limit, until no process of it is left.
    ///
    /// # Errors
    /// A process did not end after the last signal.
    async fn stop(&self, instance: &Instance, steps: &[(Signal, Duration)]) -> Answer<Stopped> {
        let mut left = String::new();
        for (number, limit) in steps {
            self.signal(instance, *number).await;
            // a process that SIGSTOP has stopped takes no other signal
            self.signal(instance, Signal::CONT).await;
            if tokio::time::timeout(*limit, self.gone(instance)).await.is_ok() {
                let last = steps.last().map_or(*limit, |(_, limit)| *limit);
                self.end_rest(last).await?;
                return Ok(Stopped { by: *number, left });
            }
            if left.is_empty() {
                left = self.what_is_left(instance).await;
                tracing::warn!(left, "{instance} did not end in time");
            }
        }
        Err(PortError(format!("{instance} did not end after SIGKILL")))
    }

    /// Kills what outlived the server's main process.
    ///
    /// # Errors
    /// A process did not end after SIGKILL within the limit.
    async fn end_rest(&self, limit: Duration) -> Answer<()> {
        for (process, _) in self.processes().await {
            self.kill(&process, limit).await?;
        }
        Ok(())
    }

    /// Kills it.
    ///
    /// # Errors
    /// It did not end within the limit.
    async fn kill(&self, instance: &Instance, limit: Duration) -> Answer<()> {
        self.signal(instance, Signal::KILL).await;
        let gone = tokio::time::timeout(limit, self.gone(instance)).await;
        gone.map_err(|_| PortError(format!("{instance} did not end after SIGKILL")))
    }

    /// What its other processes show of themselves: what a server that does not end waits for.
    async fn what_is_left(&self, instance: &Instance) -> String {
        let all = self.processes().await;
        let others = all.into_iter().filter(|(process, _)| process != instance).map(|(_, title)| title);
        let titles = others.collect::<Vec<_>>().join("; ");
        if titles.is_empty() { "no other process".to_owned() } else { titles }
    }

    /// Where its output goes, for people.
    fn output_name(&self) -> String;

    /// A mark at the end of its output so far.
    fn output_end(&self) -> u64;

    /// Its newest output after a mark, at most 64 KiB.
    fn output_since(&self, mark: u64) -> String;

    /// Another living process that runs the same command and is not the server: shown to a person who looks for the process that
    /// answers in its place.
    async fn look_alike(&self) -> Option<Instance> {
        None
    }

    /// Whether the server has this program.
    async fn has_program(&self, program: &Path) -> bool;

    /// Starts a program of the server's own version, with the server's user and files. It ends, with its children, when the
    /// returned value is dropped.
    ///
    /// # Errors
    /// It cannot be started; [`io::ErrorKind::NotFound`] if there is no such program.
    async fn launch(&self, program: &Program, messages: Messages<'_>) -> io::Result<Running>;

    /// Runs such a program to its end, and returns its output.
    ///
    /// # Errors
    /// It could not be started, did not end in time, or ended with an error; the message has its last lines.
    async fn output_of(&self, program: &Program, what: &str, limit: Duration) -> Answer<String> {
        let running = async {
            let running = self.launch(program, Messages::Piped).await?;
            running.output().await
        };
        let ended = tokio::time::timeout(limit, running).await;
        let output = ended
            .map_err(|_| PortError(format!("{what}: did not end within {limit:?}, and was killed")))?
            .map_err(|error| PortError::new(what, error))?;
        checked(&output).map_err(|message| PortError(format!("{what}: {message}")))
    }

    /// Programs with these names that still run, also if another program started them.
    async fn leftovers(&self, programs: &[&str]) -> Vec<Leftover>;
}
