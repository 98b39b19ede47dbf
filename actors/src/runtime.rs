//! The `process` runtime: programs started as an unprivileged user, found again after a restart, and stopped
//! by process id, never by name.

mod process;

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    process::{Output, Stdio},
    thread,
    time::Duration,
};

use rustix::{
    process::{Gid, Pid, PidfdFlags, Signal, Uid, kill_process, pidfd_open},
    thread::{set_thread_gid, set_thread_groups, set_thread_uid},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    process::Command,
};

pub use self::process::Process;
use crate::ports::{Answer, PortError};

/// How often a process that should end or appear is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Whom servers run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunAs {
    /// As the supervisor itself.
    Myself,
    /// As this user and group, because the supervisor is root.
    User {
        /// User number.
        uid: u32,
        /// Group number.
        gid: u32,
    },
}

impl RunAs {
    /// A named user, or the owner of a folder; never root, for PostgreSQL refuses it.
    ///
    /// # Errors
    /// There is no such user, or it is root, or another one is asked for and the supervisor is not root.
    pub fn resolve(name: Option<&str>, owner_of: &Path) -> Answer<Self> {
        let me = rustix::process::geteuid();
        let (uid, gid, whose) = match name {
            Some(name) => {
                let user = nix::unistd::User::from_name(name).ok().flatten().ok_or_else(|| {
                    PortError(format!("node.run_as: there is no user `{name}` on this machine"))
                })?;
                (user.uid.as_raw(), user.gid.as_raw(), format!("node.run_as = \"{name}\""))
            }
            None => {
                let folder = fs::metadata(owner_of)
                    .map_err(|error| PortError::new(&owner_of.display().to_string(), error))?;
                (folder.uid(), folder.gid(), format!("the owner of {}", owner_of.display()))
            }
        };
        if uid == 0 {
            return Err(PortError(format!(
                "{whose} is root, and PostgreSQL refuses to run as root: set node.run_as to an unprivileged user that owns \
                 the data directory"
            )));
        }
        if uid == me.as_raw() {
            return Ok(Self::Myself);
        }
        if me.is_root() {
            return Ok(Self::User { uid, gid });
        }
        Err(PortError(format!(
            "{whose} is another user (number {uid}): run the supervisor as that user or as root"
        )))
    }

    /// A command that runs as this user. It is told nothing by the `PG...` variables of this process: a server that was started
    /// with a password in one would log in to main as long as it runs, and not after its next start.
    #[must_use]
    pub fn command(self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
            command.env_remove(name);
        }
        // a folder that every user may enter; PostgreSQL's tools complain about any other
        command.current_dir("/").stdin(Stdio::null()).kill_on_drop(true);
        if let Self::User { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// The owner of a folder, whoever that is; without root's rights nobody else can be acted as.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn owner_of(folder: &Path) -> io::Result<Self> {
        let (folder, me) = (fs::metadata(folder)?, rustix::process::geteuid());
        let is_other = me.is_root() && folder.uid() != me.as_raw();
        Ok(if is_other { Self::User { uid: folder.uid(), gid: folder.gid() } } else { Self::Myself })
    }

    /// Does something with this user's rights and no others, on a thread of its own; so do the threads it starts.
    ///
    /// # Errors
    /// The work's own, or its rights cannot be given away.
    pub fn act<T: Send>(self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let Self::User { uid, gid } = self else { return work() };
        thread::scope(|scope| {
            let acting = scope.spawn(|| {
                // Linux knows these by thread
                set_thread_groups(&[])?;
                set_thread_gid(Gid::from_raw(gid))?;
                set_thread_uid(Uid::from_raw(uid))?;
                work()
            });
            acting.join().unwrap_or_else(|_| Err(io::Error::other("the thread died")))
        })
    }
}

/// Runs a program to its end.
///
/// # Errors
/// It could not be started, did not end in time, or ended with an error; its last words are in the message.
pub async fn run(mut command: Command, what: &str, limit: Duration) -> Answer<String> {
    let output = tokio::time::timeout(limit, command.output())
        .await
        .map_err(|_| PortError(format!("{what}: did not end within {limit:?}, and was killed")))?
        .map_err(|error| PortError::new(what, error))?;
    checked(&output).map_err(|words| PortError(format!("{what}: {words}")))
}

fn checked(output: &Output) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let (stderr, stdout) = (text(&output.stderr), text(&output.stdout));
    let words = [stderr, stdout].into_iter().find(|words| !words.is_empty());
    let words = words.unwrap_or_else(|| "it said nothing".to_owned());
    let last_lines: Vec<String> = words.lines().rev().take(3).map(str::to_owned).collect();
    let last_lines: Vec<String> = last_lines.into_iter().rev().collect();
    Err(format!("{} ({})", last_lines.join(" / "), output.status))
}

/// Whether a process lives and is the program it is taken for. A dead one whose parent has not looked is dead.
#[must_use]
pub fn is_alive(pid: i32, program: &str) -> bool {
    which_lives(pid, &[program]).is_some()
}

/// Which of some programs a living process is.
pub(crate) fn which_lives<'a>(pid: i32, programs: &[&'a str]) -> Option<&'a str> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // the name stands in parentheses and may itself hold some; the state follows the last one
    let (head, tail) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    // the kernel keeps 15 characters of a name
    let is_name_of = |program: &&&str| name == program.get(..15.min(program.len())).unwrap_or(program);
    let program = programs.iter().find(is_name_of)?;
    (!tail.trim_start().starts_with('Z')).then_some(*program)
}

/// Waits until a dead process is reaped: to PostgreSQL's start, a process that is dead and not reaped lives.
pub async fn wait_reaped(pid: i32, limit: Duration) {
    let reaped = async {
        while is_zombie(pid) {
            tokio::time::sleep(LOOK).await;
        }
    };
    // whoever waits for it finds out by itself what is wrong when it takes longer
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
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == folder))
        .filter(|pid| is_alive(*pid, program))
        .collect()
}

/// Sends a signal to a process that [`is_alive`] was just asked about.
pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // it may have ended since: what counts is what is observed next
        let _ = kill_process(pid, signal);
    }
}

/// Sends a signal to a process that this one started, and no other: its number may be another process's by now.
pub(crate) fn signal_child(pid: i32, number: Signal) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // field 4 of proc(5), after the name in parentheses and the state
    let parent = stat.rsplit_once(')').and_then(|(_, tail)| tail.split_whitespace().nth(1)?.parse().ok());
    if parent == Some(std::process::id()) {
        signal(pid, number);
    }
}

/// Waits until a process is gone. Whether it was, within the limit.
pub async fn wait_gone(pid: i32, program: &str, limit: Duration) -> bool {
    tokio::time::timeout(limit, ended(pid, || is_alive(pid, program))).await.is_ok()
}

/// Waits until a process no longer lives. The kernel tells, within the millisecond, and of a dead process that
/// nobody has reaped too; where it does not (an old kernel, a filter on system calls), looking does.
async fn ended(pid: i32, lives: impl Fn() -> bool) {
    let handle =
        Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()).and_then(watched);
    // looked at once the handle is held: a number that was given to another process in between is noticed
    while lives() {
        match &handle {
            Some(handle) if handle.readable().await.is_ok_and(|_| !lives()) => return,
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

/// A descriptor whose events the runtime is told of; nothing if it cannot be watched.
#[allow(
    deprecated,
    reason = "the new name is `unsafe`, for types that may give up their descriptor: an OwnedFd does not"
)]
fn watched(handle: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(handle, Interest::READABLE).ok()
}

/// A program that runs beside the supervisor and outlives it, known by its pid file.
#[derive(Debug, Clone)]
pub struct Background {
    /// Program and arguments; it stays in the foreground.
    pub command: Vec<String>,
    /// Where its process id is kept.
    pub pid_file: PathBuf,
    /// Where its output goes.
    pub log_file: PathBuf,
    /// Whom it runs as.
    pub run_as: RunAs,
}

impl Background {
    /// The process, if it lives.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        let text = fs::read_to_string(&self.pid_file).ok()?;
        let (pid, began) = text.trim().split_once(' ')?;
        let pid = pid.parse().ok()?;
        // the number may belong to another process by now: the time it began tells
        (started_at(pid)? == began).then_some(pid)
    }

    /// Starts it in a process group of its own, so that a Ctrl-C meant for the supervisor does not reach it.
    ///
    /// # Errors
    /// It could not be started, or its pid file could not be written.
    pub fn start(&self) -> Answer<i32> {
        let name = self.command.first().map_or("", String::as_str);
        let doing = format!("starting {name}");
        let log = append_to(&self.log_file).map_err(|error| PortError::new(&doing, error))?;
        let errors = log.try_clone().map_err(|error| PortError::new(&doing, error))?;
        let mut command = self.run_as.command(name);
        command
            .args(self.command.iter().skip(1))
            .stdout(log)
            .stderr(errors)
            .kill_on_drop(false)
            .process_group(0);
        let child = command.spawn().map_err(|error| PortError::new(&doing, error))?;
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .ok_or_else(|| PortError(format!("{doing}: it ended at once")))?;
        let began = started_at(pid).unwrap_or_default();
        fs::write(&self.pid_file, format!("{pid} {began}\n"))
            .map_err(|error| PortError::new(&doing, error))?;
        Ok(pid)
    }

    /// Ends it: asked first, killed when it does not listen. The process that was ended, if one lived.
    ///
    /// # Errors
    /// It lives on after being killed.
    pub async fn stop(&self, patience: Duration) -> Answer<Option<i32>> {
        let Some(pid) = self.pid() else { return Ok(None) };
        for (number, limit) in [(Signal::TERM, patience), (Signal::KILL, Duration::from_secs(5))] {
            signal(pid, number);
            // a stopped process takes no TERM before it goes on
            signal(pid, Signal::CONT);
            if tokio::time::timeout(limit, ended(pid, || self.pid().is_some())).await.is_ok() {
                return Ok(Some(pid));
            }
        }
        Err(PortError(format!("process {pid} lives on after SIGKILL")))
    }
}

/// When a living process began, in the kernel's ticks.
fn started_at(pid: i32) -> Option<String> {
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

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn background(folder: &Path, script: &str) -> Background {
        Background {
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            pid_file: folder.join("it.pid"),
            log_file: folder.join("it.log"),
            run_as: RunAs::Myself,
        }
    }

    #[tokio::test]
    async fn a_program_is_found_again_by_its_pid_file_and_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let it = background(folder.path(), "exec sleep 60");
        let pid = it.start().unwrap();
        assert_eq!(it.pid(), Some(pid));
        assert_eq!(it.stop(Duration::from_secs(5)).await, Ok(Some(pid)));
        assert_eq!(it.pid(), None);
        assert_eq!(it.stop(Duration::from_secs(5)).await, Ok(None));
    }

    #[tokio::test]
    async fn a_program_that_does_not_listen_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let it = background(folder.path(), "trap '' TERM; echo ready; while true; do sleep 0.05; done");
        let pid = it.start().unwrap();
        while fs::read_to_string(&it.log_file).unwrap().is_empty() {
            tokio::time::sleep(LOOK).await;
        }
        assert_eq!(it.stop(Duration::from_millis(100)).await, Ok(Some(pid)));
    }

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

    #[test]
    fn a_pid_file_whose_number_belongs_to_another_process_names_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let it = background(folder.path(), "true");
        fs::write(&it.pid_file, format!("{} 1\n", std::process::id())).unwrap();
        assert_eq!(it.pid(), None);
    }

    #[tokio::test]
    async fn a_program_that_fails_says_its_last_words() {
        let mut command = RunAs::Myself.command("/bin/sh");
        command.args(["-c", "echo too bad >&2; exit 3"]);
        let error = run(command, "the test", Duration::from_secs(5)).await.unwrap_err().to_string();
        assert_eq!(error, "the test: too bad (exit status: 3)");
    }
}
