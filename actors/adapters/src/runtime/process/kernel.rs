//! What the kernel knows of processes, and what it lets one process do to another.

use std::{fs, os::fd::OwnedFd, path::Path, process::Output, time::Duration};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tokio::io::{Interest, unix::AsyncFd};

use interrex_actors::ports::{Answer, PortError};

use super::Command;

/// Pause between two checks of a process that should end or appear.
const LOOK: Duration = Duration::from_millis(10);

/// Runs a program to its end.
///
/// # Errors
/// It could not be started, did not end in time, or ended with an error; the message has its last lines.
pub async fn run(mut command: Command, what: &str, limit: Duration) -> Answer<String> {
    let output = tokio::time::timeout(limit, command.output())
        .await
        .map_err(|_| PortError(format!("{what}: did not end within {limit:?}, and was killed")))?
        .map_err(|error| PortError::new(what, error))?;
    checked(&output).map_err(|words| PortError(format!("{what}: {words}")))
}

/// The output of a program that ended without an error.
///
/// # Errors
/// Its last lines and its exit status.
pub fn checked(output: &Output) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let (stderr, stdout) = (text(&output.stderr), text(&output.stdout));
    let words = [stderr, stdout].into_iter().find(|words| !words.is_empty());
    let words = words.unwrap_or_else(|| "it wrote no message".to_owned());
    let last_lines: Vec<String> = words.lines().rev().take(3).map(str::to_owned).collect();
    let last_lines: Vec<String> = last_lines.into_iter().rev().collect();
    Err(format!("{} ({})", last_lines.join(" / "), output.status))
}

/// What the kernel says of a process in `/proc/PID/stat`, proc(5).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// Up to 15 characters of its program's name.
    pub(super) name: String,
    state: char,
    /// The process that started it.
    pub(super) parent: i32,
    /// Its process group.
    pub(super) group: i32,
    /// When it began, in ticks since the machine started.
    pub(super) began: String,
}

impl Stat {
    /// Of any process, also a dead one that is not reaped.
    fn of(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Of a living process.
    pub(super) fn of_living(pid: i32) -> Option<Self> {
        Self::of(pid).filter(|stat| !stat.is_dead())
    }

    fn parse(text: &str) -> Option<Self> {
        // the name is in parentheses and may contain parentheses; the other fields follow the last one
        let (head, tail) = text.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        let mut fields = tail.split_whitespace();
        Some(Self {
            name: name.to_owned(),
            state: fields.next()?.chars().next()?,
            parent: fields.next()?.parse().ok()?,
            group: fields.next()?.parse().ok()?,
            // field 22; the group is field 5
            began: fields.nth(16)?.to_owned(),
        })
    }

    /// A zombie, or a process that is being reaped at this moment.
    fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// Whether a process lives and runs this program.
#[must_use]
pub fn is_alive(pid: i32, program: &str) -> bool {
    which_lives(pid, &[program]).is_some()
}

/// Which of some programs a living process runs.
pub(super) fn which_lives<'a>(pid: i32, programs: &[&'a str]) -> Option<&'a str> {
    let stat = Stat::of_living(pid)?;
    programs.iter().find(|program| is_name_of(&stat.name, Path::new(program))).copied()
}

/// Waits until a dead process is reaped: PostgreSQL's start takes an unreaped process for a living one.
pub async fn wait_reaped(pid: i32, limit: Duration) {
    let reaped = async {
        while Stat::of(pid).is_some_and(|stat| stat.is_dead()) {
            tokio::time::sleep(LOOK).await;
        }
    };
    // if this takes longer, the caller finds out by itself what is wrong
    let _ = tokio::time::timeout(limit, reaped).await;
}

/// The living processes of a program that work in a folder.
#[must_use]
pub fn processes_in(folder: &Path, program: &str) -> Vec<i32> {
    let Ok(folder) = folder.canonicalize() else { return Vec::new() };
    numbers()
        .filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == folder))
        .filter(|pid| is_alive(*pid, program))
        .collect()
}

/// Whether a process with this name runs this program. The kernel keeps 15 characters of a name.
pub(super) fn is_name_of(name: &str, program: &Path) -> bool {
    let program = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    !name.is_empty() && name == program.get(..15).unwrap_or(program)
}

/// The numbers of all processes.
pub(super) fn numbers() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Sends a signal to a process that was just seen.
pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // it may have ended since: the next observation counts
        let _ = kill_process(pid, signal);
    }
}

/// Waits until a process no longer lives. The kernel reports that within a millisecond, also for a zombie; if it does not (an old
/// kernel, a filter on system calls), the process is checked again and again.
pub(super) async fn ended(pid: i32, lives: impl Fn() -> bool) {
    let handle =
        Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()).and_then(watched);
    // checked with the handle held: this notices a number that another process got in between
    while lives() {
        match &handle {
            Some(handle) if handle.readable().await.is_ok_and(|_| !lives()) => return,
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

/// A descriptor whose events the runtime watches; nothing if it cannot be watched.
#[allow(
    deprecated,
    reason = "the new name is `unsafe`, for types that may give up their descriptor: an OwnedFd does not"
)]
fn watched(handle: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(handle, Interest::READABLE).ok()
}

#[cfg(test)]
mod tests {
    use super::{super::RunAs, *};

    #[test]
    fn a_process_that_is_being_reaped_is_dead_whatever_its_name_is() {
        let stat = |state: &str| {
            let text = format!("7 (a) Z (b) {state} 5 6 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 0\n");
            Stat::parse(&text).unwrap()
        };
        let Stat { name, parent, group, began, .. } = stat("S");
        assert_eq!((name.as_str(), parent, group, began.as_str()), ("a) Z (b", 5, 6, "4711"));
        assert_eq!(
            ["R", "S", "T", "Z", "X"].map(|state| stat(state).is_dead()),
            [false, false, false, true, true]
        );
    }

    #[tokio::test]
    async fn a_program_that_fails_says_its_last_words() {
        let mut command = RunAs::Myself.command("/bin/sh");
        command.args(["-c", "echo too bad >&2; exit 3"]);
        let error = run(command, "the test", Duration::from_secs(5)).await.unwrap_err().to_string();
        assert_eq!(error, "the test: too bad (exit status: 3)");
    }
}
