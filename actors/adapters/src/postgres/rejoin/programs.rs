//! `pg_rewind` and `pg_basebackup` as children that end with the call that started them, and the children that a killed supervisor
//! left behind.

use std::{
    collections::VecDeque, ffi::OsStr, io::Read as _, path::Path, process::ExitStatus, time::Duration,
};

use interrex_actors::ports::{Answer, PortError};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::Source;
use crate::{
    guarded,
    runtime::{Leftover, Messages, Program, Running, Runtime},
};

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

/// Runs a program of the server, and calls `told` with each line of its standard error.
pub(super) async fn run(
    runtime: &dyn Runtime,
    mut program: Program,
    what: &str,
    limit: Duration,
    mut told: impl FnMut(&str) -> Answer<()>,
) -> Answer<Ended> {
    let failed = |error| PortError::new(what, error);
    program.env("LC_ALL", "C");
    let Running { mut stdout, stderr, end } =
        runtime.launch(&program, Messages::Piped).await.map_err(failed)?;
    let mut last = VecDeque::new();
    let reading = async {
        let mut lines = BufReader::new(stderr).lines();
        while let Some(line) = lines.next_line().await.map_err(failed)? {
            told(&line)?;
            last.push_back(line);
            last.drain(..last.len().saturating_sub(LAST_LINES));
        }
        Ok(())
    };
    let working = async {
        let mut nothing = tokio::io::sink();
        let drained = async { tokio::io::copy(&mut stdout, &mut nothing).await.map_err(failed) };
        let ((), _, status) = tokio::try_join!(reading, drained, async { end.await.map_err(failed) })?;
        Ok(status)
    };
    let Ok(status) = tokio::time::timeout(limit, working).await else {
        return Ok(Ended::CutOff(format!("{what}: did not end within {limit:?}, and was killed")));
    };
    let status = status?;
    Ok(judge(what, status, last.iter().map(String::as_str)))
}

/// Runs a program that continues without its supervisor, with its messages in a file. Returns how it ended, and all its messages.
pub(super) async fn run_logged(
    runtime: &dyn Runtime,
    mut program: Program,
    what: &str,
    limit: Duration,
    log: &Path,
) -> Answer<(Ended, String)> {
    let failed = |error| PortError::new(what, error);
    program.env("LC_ALL", "C");
    let running = runtime.launch(&program, Messages::File(log)).await.map_err(failed)?;
    let status = tokio::time::timeout(limit, running.output()).await;
    let mut said = Vec::new();
    guarded::open(log, runtime.user()).and_then(|mut log| log.read_to_end(&mut said)).map_err(failed)?;
    let said = String::from_utf8_lossy(&said).into_owned();
    let Ok(ended) = status else {
        let words = format!("{what}: did not end within {limit:?}, and was killed");
        return Ok((Ended::CutOff(words), said));
    };
    let lines: Vec<&str> = said.lines().collect();
    let last = lines.iter().skip(lines.len().saturating_sub(LAST_LINES)).copied();
    Ok((judge(what, ended.map_err(failed)?.status, last), said))
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

impl Leftover {
    /// Whether it is this program with all of these arguments.
    pub(super) fn is(&self, program: &str, words: &[&OsStr]) -> bool {
        let has = |word: &&OsStr| self.arguments.iter().any(|argument| argument == word.as_encoded_bytes());
        self.program == program && words.iter().all(has)
    }
}

/// Lets a program find the password.
pub(super) fn tell_passfile(runtime: &dyn Runtime, source: &Source, command: &mut Program) {
    if let Some(file) = &source.passfile {
        command.env("PGPASSFILE", runtime.inside(file));
    }
    command.env("PGCONNECT_TIMEOUT", "10");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{Postmaster, Processes, RunAs};

    fn runtime() -> Processes<Postmaster> {
        Processes::new(RunAs::Myself, "/dev/null", Postmaster::of(Path::new("/nowhere")))
    }

    fn shell(script: &str) -> Program {
        let mut program = Program::new("/bin/sh");
        program.args(["-c", script]);
        program
    }

    async fn ended(script: &str, limit: Duration) -> Ended {
        run(&runtime(), shell(script), "it", limit, |_| Ok(())).await.unwrap()
    }

    async fn shells_with(folder: &Path) -> Vec<Leftover> {
        let mut shells = runtime().leftovers(&["sh"]).await;
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
        for shell in shells_with(folder.path()).await {
            tokio::time::timeout(Duration::from_secs(10), runtime().gone(&shell.instance)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_leftover_is_found_by_the_folder_it_names() {
        let folder = tempfile::tempdir().unwrap();
        let (limit, log) = (Duration::from_secs(10), folder.path().join("log"));
        // the shell waits without a child: a child that it forked would be a second shell for a moment
        let mut program = shell("read line < \"$0/pipe\"");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            folder.path().join("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        program.arg(folder.path());
        let running = runtime().launch(&program, Messages::File(&log)).await.unwrap();
        let there = async {
            // between the fork and the program's begin it has another name
            loop {
                match shells_with(folder.path()).await.pop() {
                    Some(shell) => return shell,
                    None => tokio::task::yield_now().await,
                }
            }
        };
        let found = tokio::time::timeout(limit, there).await.unwrap();
        runtime().kill(&found.instance, limit).await.unwrap();
        assert!(!running.end.await.unwrap().success());
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
