//! `pg_rewind` and `pg_basebackup` as children that end with the call that started them, and the children that a killed supervisor
//! left behind.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    fs,
    io::Read as _,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use interrex_actors::ports::{Answer, PortError};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::Source;
use crate::{
    guarded,
    runtime::{self, Command, wait_gone, which_lives},
};

/// How long a process may outlive SIGKILL.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// How many last lines of a failed program are reported.
const LAST_LINES: usize = 4;
/// Messages of a server's clients after which a retry may succeed.
const PASSING: [&str; 7] = [
    "connection to server",
    "could not connect",
    "server closed the connection",
    "SSL SYSCALL error",
    "the database system is",
    "terminating connection",
    "is active for PID",
];

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// Without an error.
    Well,
    /// With an error that a retry would meet again.
    Badly(String),
    /// With an error that may pass: a lost connection, a signal, the time limit.
    CutOff(String),
}

/// Runs a program in its own process group, and calls `told` with each line of its standard error.
pub(super) async fn run(
    mut command: Command,
    what: &str,
    limit: Duration,
    mut told: impl FnMut(&str) -> Answer<()>,
) -> Answer<Ended> {
    command.env("LC_ALL", "C").stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(|error| PortError::new(what, error))?;
    let group = Group(child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)));
    let mut last = VecDeque::new();
    let working = async {
        if let Some(stderr) = child.stderr.take() {
            let mut lines = BufReader::new(stderr).lines();
            while let Some(line) = lines.next_line().await.map_err(|error| PortError::new(what, error))? {
                told(&line)?;
                last.push_back(line);
                last.drain(..last.len().saturating_sub(LAST_LINES));
            }
        }
        child.wait().await.map_err(|error| PortError::new(what, error))
    };
    let Ok(status) = tokio::time::timeout(limit, working).await else {
        return Ok(Ended::CutOff(format!("{what}: did not end within {limit:?}, and was killed")));
    };
    let status = status?;
    group.has_ended();
    Ok(judge(what, status, last.iter().map(String::as_str)))
}

/// Runs a program that continues without its supervisor: its standard error is a file, because with a broken pipe it would die
/// half-way. Returns how it ended, and all its messages.
pub(super) async fn run_logged(
    mut command: Command,
    what: &str,
    limit: Duration,
    log: &Path,
) -> Answer<(Ended, String)> {
    let failed = |error| PortError::new(what, error);
    let owner = command.run_as();
    guarded::remove_file(log).map_err(failed)?;
    let file = guarded::create(log, owner).map_err(failed)?;
    command.env("LC_ALL", "C").stdout(Stdio::null()).stderr(file).process_group(0);
    let mut child = command.spawn().map_err(failed)?;
    let group = Group(child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)));
    let status = tokio::time::timeout(limit, child.wait()).await;
    let mut said = Vec::new();
    guarded::open(log, owner).and_then(|mut log| log.read_to_end(&mut said)).map_err(failed)?;
    let said = String::from_utf8_lossy(&said).into_owned();
    let Ok(status) = status else {
        let words = format!("{what}: did not end within {limit:?}, and was killed");
        return Ok((Ended::CutOff(words), said));
    };
    group.has_ended();
    let lines: Vec<&str> = said.lines().collect();
    let last = lines.iter().skip(lines.len().saturating_sub(LAST_LINES)).copied();
    Ok((judge(what, status.map_err(failed)?, last), said))
}

fn judge<'a>(what: &str, status: ExitStatus, last_lines: impl Iterator<Item = &'a str>) -> Ended {
    if status.success() {
        return Ended::Well;
    }
    let words = last_lines.map(str::trim).collect::<Vec<_>>().join(" / ");
    let told = format!("{what}: {words} ({status})");
    let may_pass = status.code().is_none() || PASSING.iter().any(|sign| words.contains(sign));
    if may_pass { Ended::CutOff(told) } else { Ended::Badly(told) }
}

/// A process group that is killed when this value is dropped: programs fork, and children survive a dead parent.
struct Group(Option<Pid>);

impl Group {
    fn has_ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // it may have ended since
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// A living process.
#[derive(Debug)]
pub(super) struct Process {
    pid: i32,
    program: &'static str,
    arguments: Vec<Vec<u8>>,
}

impl Process {
    /// The living processes of some programs: one pass over all processes.
    pub(super) fn of(programs: &[&'static str]) -> Vec<Self> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let process = |pid| {
            let program = which_lives(pid, programs)?;
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            Some(Self {
                pid,
                program,
                arguments: arguments.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect(),
            })
        };
        pids.filter_map(process).collect()
    }

    /// Whether it is this program with all of these arguments.
    pub(super) fn is(&self, program: &str, words: &[&OsStr]) -> bool {
        let has = |word: &&OsStr| self.arguments.iter().any(|argument| argument == word.as_encoded_bytes());
        self.program == program && words.iter().all(has)
    }

    /// Ends it.
    pub(super) async fn end(&self) -> Answer<()> {
        runtime::signal(self.pid, Signal::KILL);
        if wait_gone(self.pid, self.program, KILL_PATIENCE).await {
            return Ok(());
        }
        Err(PortError(format!("{}, process {}, did not end after SIGKILL", self.program, self.pid)))
    }

    /// Waits until it has ended.
    pub(super) async fn wait_gone(&self, limit: Duration) -> bool {
        wait_gone(self.pid, self.program, limit).await
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }
}

/// Lets a program find the password.
pub(super) fn tell_passfile(source: &Source, command: &mut Command) {
    if let Some(file) = &source.passfile {
        command.env("PGPASSFILE", file);
    }
    command.env("PGCONNECT_TIMEOUT", "10");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::RunAs;

    fn shell(script: &str) -> Command {
        let mut command = RunAs::Myself.command("/bin/sh");
        command.args(["-c", script]);
        command
    }

    async fn ended(script: &str, limit: Duration) -> Ended {
        run(shell(script), "it", limit, |_| Ok(())).await.unwrap()
    }

    fn shells_with(folder: &Path) -> Vec<Process> {
        let mut shells = Process::of(&["sh"]);
        shells.retain(|shell| shell.is("sh", &[folder.as_os_str()]));
        shells
    }

    #[tokio::test]
    async fn a_lost_connection_may_pass_and_a_bad_file_does_not() {
        let limit = Duration::from_secs(10);
        assert_eq!(ended("exit 0", limit).await, Ended::Well);
        assert_eq!(
            ended("echo no such file >&2; exit 1", limit).await,
            Ended::Badly("it: no such file (exit status: 1)".to_owned())
        );
        let lost = ended("echo connection to server at x failed >&2; exit 1", limit).await;
        assert!(matches!(lost, Ended::CutOff(_)), "{lost:?}");
        assert!(matches!(ended("kill -9 $$", limit).await, Ended::CutOff(_)));
    }

    #[tokio::test]
    async fn a_program_that_takes_too_long_ends_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        // a grandchild that names the folder, as pg_basebackup's second process does
        let script = format!("sh -c 'while true; do sleep 0.05; done' {} & wait", folder.path().display());
        let late = ended(&script, Duration::from_millis(300)).await;
        assert!(matches!(late, Ended::CutOff(ref words) if words.contains("did not end within")), "{late:?}");
        for process in shells_with(folder.path()) {
            assert!(process.wait_gone(Duration::from_secs(10)).await);
        }
    }

    #[tokio::test]
    async fn a_leftover_is_found_by_the_folder_it_names() {
        let folder = tempfile::tempdir().unwrap();
        // it waits by itself: a child that it forked would be a second one for a moment
        let mut command = shell("read line");
        let mut child = command.arg(folder.path()).stdin(Stdio::piped()).spawn().unwrap();
        let there = async {
            // between the fork and the program's begin it has another name
            while shells_with(folder.path()).is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), there).await.unwrap();
        let found = shells_with(folder.path());
        assert_eq!(found.len(), 1);
        found[0].end().await.unwrap();
        assert!(!child.wait().await.unwrap().success());
    }

    #[test]
    fn a_password_never_gets_onto_a_command_line() {
        let source = |conninfo: &str| Source { conninfo: conninfo.to_owned(), passfile: None };
        assert!(source("host=a passfile='/p' user=password").without_secrets().is_ok());
        for words in ["host=a password=x", "password = 'x'", "postgres://u:x@host/db"] {
            source(words).without_secrets().unwrap_err();
        }
    }
}
