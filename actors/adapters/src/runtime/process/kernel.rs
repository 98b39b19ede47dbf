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

/// Whether a process lives and runs this program. A zombie is dead.
#[must_use]
pub fn is_alive(pid: i32, program: &str) -> bool {
    which_lives(pid, &[program]).is_some()
}

/// Which of some programs a living process runs.
pub(super) fn which_lives<'a>(pid: i32, programs: &[&'a str]) -> Option<&'a str> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // the name is in parentheses and may contain parentheses; the state follows the last one
    let (head, tail) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    // the kernel keeps 15 characters of a name
    let is_name_of = |program: &&&str| name == program.get(..15.min(program.len())).unwrap_or(program);
    let program = programs.iter().find(is_name_of)?;
    (!tail.trim_start().starts_with('Z')).then_some(*program)
}

/// Waits until a dead process is reaped: PostgreSQL's start takes an unreaped process for a living one.
pub async fn wait_reaped(pid: i32, limit: Duration) {
    let reaped = async {
        while is_zombie(pid) {
            tokio::time::sleep(LOOK).await;
        }
    };
    // if this takes longer, the caller finds out by itself what is wrong
    let _ = tokio::time::timeout(limit, reaped).await;
}

fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, tail)| tail.trim_start().starts_with('Z'))
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

/// Sends a signal to a process that [`is_alive`] was just asked about.
pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // it may have ended since: the next observation counts
        let _ = kill_process(pid, signal);
    }
}

/// Waits until a process has ended. Returns whether it did so within the limit.
pub async fn wait_gone(pid: i32, program: &str, limit: Duration) -> bool {
    tokio::time::timeout(limit, ended(pid, || is_alive(pid, program))).await.is_ok()
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

/// When a living process began, in the kernel's ticks.
pub(super) fn started_at(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    if state == "Z" {
        return None;
    }
    // field 22 of proc(5); the state is field 3
    fields.nth(18).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::{super::RunAs, *};

    #[tokio::test]
    async fn the_end_of_a_process_is_told_and_a_dead_one_that_nobody_reaped_is_gone() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id().cast_signed();
        assert!(!wait_gone(pid, "sleep", Duration::from_millis(20)).await, "it lives");
        signal(pid, Signal::KILL);
        assert!(wait_gone(pid, "sleep", Duration::from_secs(5)).await);
        assert!(is_zombie(pid), "nobody has reaped it yet");
        child.wait().unwrap();
        assert!(wait_gone(pid, "sleep", Duration::ZERO).await);
    }

    #[tokio::test]
    async fn a_program_that_fails_says_its_last_words() {
        let mut command = RunAs::Myself.command("/bin/sh");
        command.args(["-c", "echo too bad >&2; exit 3"]);
        let error = run(command, "the test", Duration::from_secs(5)).await.unwrap_err().to_string();
        assert_eq!(error, "the test: too bad (exit status: 3)");
    }
}
