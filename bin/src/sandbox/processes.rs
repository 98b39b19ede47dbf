//! The processes of a sandbox: found by what the kernel says of them, and held by a handle that can never
//! name another process.
//!
//! A pid file may be missing, old or torn; `/proc` is not. A process belongs to a folder if it was started with
//! the sandbox's mark in its environment, or if it is one of the servers and works in that folder or was given
//! it as an argument (servers write over their environment when they set their title).

use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use interrex_actors::env::{Env as _, SystemEnv};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
    time::Timespec,
};

/// Environment variable that marks everything a sandbox starts; its value is the folder it was started for.
pub(super) const MARK: &str = "INTERREX_SANDBOX";
/// PostgreSQL's processes, by the name the kernel knows them under.
pub(super) const POSTGRES: &str = "postgres";
/// Redis.
pub(super) const REDIS: &str = "redis-server";
/// FreeRADIUS.
pub(super) const RADIUS: &str = "freeradius";
const SERVERS: [&str; 3] = [POSTGRES, REDIS, RADIUS];

/// A living process of a sandbox.
#[derive(Debug)]
pub(super) struct Process {
    /// Its number, for messages.
    pub(super) pid: i32,
    /// Its name, at most 15 characters of it.
    pub(super) name: String,
    /// Its parent's number.
    parent: i32,
    handle: OwnedFd,
}

impl Process {
    /// The process of that number, if it belongs to the folder. It is looked at only after the handle is held,
    /// so that a number which was given to another process in between is noticed.
    fn of(pid: i32, folder: &Path) -> Option<Self> {
        let handle = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (head, tail) = stat.rsplit_once(')')?;
        let name = head.split_once('(')?.1.to_owned();
        let mut fields = tail.split_whitespace();
        let is_dead = matches!(fields.next()?, "Z" | "X");
        let parent = fields.next()?.parse().ok()?;
        (!is_dead && belongs(pid, &name, folder)).then_some(Self { pid, name, parent, handle })
    }

    /// Sends a signal. A process that has ended takes none, and no other gets it instead.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.handle, signal);
    }

    /// Whether it is a session of PostgreSQL that serves a client, by the title it gave itself.
    pub(super) fn serves_a_client(&self) -> bool {
        let title = words(self.pid, "cmdline").concat();
        self.name == POSTGRES && title.contains("127.0.0.1(") && !title.contains("walsender")
    }

    /// Whether it replays PostgreSQL's log, and with that takes up a promotion, by the title it gave itself.
    pub(super) fn replays(&self) -> bool {
        self.name == POSTGRES && words(self.pid, "cmdline").concat().contains(": startup ")
    }

    /// Whether it is the parent of PostgreSQL's other processes.
    pub(super) fn is_postmaster(&self, all: &[Self]) -> bool {
        self.name == POSTGRES && !all.iter().any(|other| other.pid == self.parent && other.name == POSTGRES)
    }
}

fn belongs(pid: i32, name: &str, folder: &Path) -> bool {
    let inside = |path: &Path| path.starts_with(folder);
    let mark = format!("{MARK}=");
    if words(pid, "environ")
        .iter()
        .any(|word| word.strip_prefix(&mark).is_some_and(|path| inside(path.as_ref())))
    {
        return true;
    }
    if !SERVERS.contains(&name) {
        return false;
    }
    let works_in = fs::read_link(format!("/proc/{pid}/cwd"));
    works_in.is_ok_and(|path| inside(&path)) || words(pid, "cmdline").iter().any(|word| inside(word.as_ref()))
}

/// A file of zero-ended words; empty where this user may not read it.
fn words(pid: i32, file: &str) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Every living process that belongs to a folder, but for the one that asks.
pub(super) fn of_folder(folder: &Path) -> Vec<Process> {
    let me = std::process::id().cast_signed();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != me)
        .filter_map(|pid| Process::of(pid, folder))
        .collect()
}

/// Waits until every one of them has ended. Whether they had, within the limit.
pub(super) fn wait_gone(processes: &[Process], limit: Duration) -> bool {
    let begin = SystemEnv.moment();
    for process in processes {
        let left = limit.saturating_sub(SystemEnv.moment().monotonic.saturating_sub(begin.monotonic));
        let Ok(left) = Timespec::try_from(left) else { return false };
        // a handle becomes readable when its process ends
        let mut handle = [PollFd::new(&process.handle, PollFlags::IN)];
        if !matches!(poll(&mut handle, Some(&left)), Ok(1..)) {
            return false;
        }
    }
    true
}

/// Ends everything that belongs to a folder, supervisors before the servers they would start again. What lives
/// on after that, as a text.
pub(super) fn end_all(folder: &Path) -> Vec<String> {
    let all = of_folder(folder);
    let (servers, others): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|process| SERVERS.contains(&process.name.as_str()));
    others.iter().for_each(|process| process.signal(Signal::KILL));
    wait_gone(&others, Duration::from_secs(2));
    for process in &servers {
        // PostgreSQL takes its shared memory away when it is asked, and leaves it behind when it is killed
        match process.is_postmaster(&servers) {
            true => process.signal(Signal::QUIT),
            false if process.name == POSTGRES => {}
            false => process.signal(Signal::KILL),
        }
        process.signal(Signal::CONT);
    }
    wait_gone(&servers, Duration::from_secs(3));
    // processes that did not listen, and processes that were started in between
    for _ in 0..5 {
        let rest = of_folder(folder);
        if rest.is_empty() {
            return Vec::new();
        }
        rest.iter().for_each(|process| process.signal(Signal::KILL));
        wait_gone(&rest, Duration::from_secs(2));
    }
    of_folder(folder).iter().map(|process| format!("{} (process {})", process.name, process.pid)).collect()
}

/// Removes the shared memory that a killed PostgreSQL left behind: the kernel keeps it for ever otherwise.
pub(super) fn remove_shared_memory(data_dir: &Path) {
    let Ok(pid_file) = fs::read_to_string(data_dir.join("postmaster.pid")) else { return };
    let lines: Vec<&str> = pid_file.lines().collect();
    let (Some(pid), Some((_, id))) =
        (lines.first(), lines.get(6).and_then(|line| line.trim().split_once(' ')))
    else {
        return;
    };
    let Ok(segments) = fs::read_to_string("/proc/sysvipc/shm") else { return };
    // key, id, permissions, size, creator, last user, number of users
    let is_orphan = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let field = |index: usize| fields.get(index).copied().unwrap_or_default();
        (field(1), field(4), field(6)) == (id.trim(), pid.trim(), "0")
    };
    if segments.lines().any(is_orphan) {
        let _ = std::process::Command::new("ipcrm").args(["-m", id.trim()]).status();
    }
}

/// The process that a PostgreSQL data directory's pid file names, if it lives.
pub(super) fn postmaster(folder: &Path) -> Option<i32> {
    let all = of_folder(folder);
    all.iter().find(|process| process.is_postmaster(&all)).map(|process| process.pid)
}

/// The processes of a folder with one name.
pub(super) fn named(folder: &Path, name: &str) -> Vec<Process> {
    of_folder(folder).into_iter().filter(|process| process.name == name).collect()
}

/// A folder in the form in which the kernel names it.
pub(super) fn real_path(folder: &Path) -> PathBuf {
    fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_known_by_its_mark_and_a_stranger_in_the_same_folder_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = real_path(folder.path());
        let sleep = |marked: bool| {
            let mut command = Command::new("sleep");
            command.arg("60").current_dir(&path).stdin(Stdio::null());
            if marked {
                command.env(MARK, path.join("alpha"));
            }
            command.spawn().unwrap()
        };
        let (mut ours, mut stranger) = (sleep(true), sleep(false));
        let found = loop {
            // until the child has become the other program, it is a copy of this one
            let found: Vec<i32> = of_folder(&path).iter().map(|process| process.pid).collect();
            if !found.is_empty() {
                break found;
            }
        };
        assert_eq!(found, [ours.id().cast_signed()]);
        assert_eq!(of_folder(&path.join("beta")).len(), 0);
        assert_eq!(end_all(&path), Vec::<String>::new());
        ours.wait().unwrap();
        assert!(stranger.try_wait().unwrap().is_none(), "the stranger lives");
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
}
