//! A program that runs next to the supervisor and outlives it.

use std::{fs, io, path::PathBuf, time::Duration};

use interrex_actors::ports::{Answer, PortError};
use rustix::process::Signal;

use super::{RunAs, ended, numbers, signal, started_at};
use crate::guarded;

/// The environment variable that distinguishes a program's process from other processes of the same program.
const MARK: &str = "INTERREX_DEPENDENT";

/// A program that runs next to the supervisor and outlives it, known by its pid file, or by a mark in its environment if the pid
/// file is lost.
#[derive(Debug, Clone)]
pub struct Background {
    /// Program and arguments; it stays in the foreground.
    pub command: Vec<String>,
    /// The file with its process id.
    pub pid_file: PathBuf,
    /// The file for its output.
    pub log_file: PathBuf,
    /// The user that it runs as.
    pub run_as: RunAs,
    /// The value of its mark: the same for every supervisor of this node, and different on other nodes.
    pub mark: String,
}

impl Background {
    /// The process that the pid file names, if it lives.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        let text = fs::read_to_string(&self.pid_file).ok()?;
        let (pid, began) = text.trim().split_once(' ')?;
        let pid = pid.parse().ok()?;
        // the number may belong to another process: the start time decides
        (started_at(pid)? == began).then_some(pid)
    }

    /// The process, if it lives, even if its pid file is lost because the journal was moved: then the file is written again.
    #[must_use]
    pub fn find(&self) -> Option<i32> {
        if let Some(pid) = self.pid() {
            return Some(pid);
        }
        let pid = self.marked()?;
        if let Err(error) = self.note(pid) {
            tracing::warn!(%error, pid, "a program of an earlier supervisor runs, but its pid file could not be written");
        }
        Some(pid)
    }

    /// The process with the mark that leads its group: its children have the mark too.
    fn marked(&self) -> Option<i32> {
        let mark = format!("{MARK}={}", self.mark);
        numbers().find(|pid| {
            let is_it = match fs::read(format!("/proc/{pid}/environ")) {
                Ok(environment) => environment.split(|byte| *byte == 0).any(|word| word == mark.as_bytes()),
                // a program with secrets, such as FreeRADIUS, shows its environment only to root: then its command decides
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    is_of_this_user(*pid) && self.is_its_command(*pid)
                }
                Err(_) => false,
            };
            is_it && leads_its_group(*pid)
        })
    }

    fn is_its_command(&self, pid: i32) -> bool {
        let words: Vec<u8> = self.command.iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect();
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|found| found == words)
    }

    /// Other living processes that run the same command: shown to a person who looks for the process that answers.
    #[must_use]
    pub fn look_alikes(&self) -> Vec<i32> {
        let own = self.pid();
        let alike = |pid: &i32| started_at(*pid).is_some() && self.is_its_command(*pid);
        numbers().filter(|pid| Some(*pid) != own && alike(pid)).collect()
    }

    /// Starts it in its own process group, so that a Ctrl-C for the supervisor does not reach it.
    ///
    /// # Errors
    /// It could not be started, or its pid file could not be written.
    pub fn start(&self) -> Answer<i32> {
        let name = self.command.first().map_or("", String::as_str);
        let doing = format!("starting {name}");
        let log =
            guarded::append(&self.log_file, self.run_as).map_err(|error| PortError::new(&doing, error))?;
        let errors = log.try_clone().map_err(|error| PortError::new(&doing, error))?;
        let mut command = self.run_as.command(name);
        command
            .args(self.command.iter().skip(1))
            .env(MARK, &self.mark)
            .stdout(log)
            .stderr(errors)
            .kill_on_drop(false)
            .process_group(0);
        let child = command.spawn().map_err(|error| PortError::new(&doing, error))?;
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .ok_or_else(|| PortError(format!("{doing}: the program ended at once")))?;
        self.note(pid)?;
        Ok(pid)
    }

    fn note(&self, pid: i32) -> Answer<()> {
        let began = started_at(pid).unwrap_or_default();
        guarded::write(&self.pid_file, format!("{pid} {began}\n").as_bytes(), RunAs::Myself)
            .map_err(|error| PortError::new("writing the pid file", error))
    }

    /// Ends it: with SIGTERM, then with SIGKILL. Returns the ended process, if one lived.
    ///
    /// # Errors
    /// The process did not end after SIGKILL.
    pub async fn stop(&self, patience: Duration) -> Answer<Option<Ended>> {
        let Some(pid) = self.find() else { return Ok(None) };
        for (number, limit) in [(Signal::TERM, patience), (Signal::KILL, Duration::from_secs(5))] {
            signal(pid, number);
            // a stopped process takes no TERM before it continues
            signal(pid, Signal::CONT);
            if tokio::time::timeout(limit, ended(pid, || self.pid() == Some(pid))).await.is_ok() {
                return Ok(Some(Ended { pid, killed: number == Signal::KILL }));
            }
        }
        Err(PortError(format!("process {pid} did not end after SIGKILL")))
    }
}

/// A process that was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Its number.
    pub pid: i32,
    /// Whether it had to be killed.
    pub killed: bool,
}

/// Whether a process runs as the same user as this one.
fn is_of_this_user(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let user =
        status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok());
    user == Some(rustix::process::geteuid().as_raw())
}

fn leads_its_group(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // field 5 of proc(5); the state is field 3
    let group = stat.rsplit_once(')').and_then(|(_, fields)| fields.split_whitespace().nth(2)?.parse().ok());
    group == Some(pid) && started_at(pid).is_some()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::runtime::LOOK;

    fn background(folder: &Path, script: &str) -> Background {
        Background {
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            pid_file: folder.join("it.pid"),
            log_file: folder.join("it.log"),
            run_as: RunAs::Myself,
            mark: folder.display().to_string(),
        }
    }

    #[tokio::test]
    async fn a_program_is_found_again_by_its_pid_file_and_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let it = background(folder.path(), "exec sleep 60");
        let pid = it.start().unwrap();
        assert_eq!(it.pid(), Some(pid));
        assert_eq!(it.stop(Duration::from_secs(5)).await, Ok(Some(Ended { pid, killed: false })));
        assert_eq!(it.pid(), None);
        assert_eq!(it.stop(Duration::from_secs(5)).await, Ok(None));
    }

    #[tokio::test]
    async fn a_program_whose_pid_file_is_gone_is_found_by_its_mark_and_another_nodes_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let it = background(folder.path(), "while true; do sleep 0.05; done");
        let pid = it.start().unwrap();
        let moved = Background { pid_file: folder.path().join("elsewhere.pid"), ..it.clone() };
        let others = Background { mark: "another node's".to_owned(), ..moved.clone() };
        assert_eq!((others.find(), others.look_alikes()), (None, vec![pid]));
        // from when it is its own program on
        let found = async {
            loop {
                match moved.find() {
                    Some(found) => return found,
                    None => tokio::time::sleep(LOOK).await,
                }
            }
        };
        assert_eq!(tokio::time::timeout(Duration::from_secs(10), found).await.unwrap(), pid);
        assert_eq!(moved.pid(), Some(pid), "and noted again");
        assert_eq!(moved.stop(Duration::from_secs(5)).await.unwrap().map(|ended| ended.pid), Some(pid));
    }

    #[tokio::test]
    async fn a_program_that_does_not_listen_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let it = background(folder.path(), "trap '' TERM; echo ready; while true; do sleep 0.05; done");
        let pid = it.start().unwrap();
        while fs::read_to_string(&it.log_file).unwrap().is_empty() {
            tokio::time::sleep(LOOK).await;
        }
        assert_eq!(it.stop(Duration::from_millis(100)).await, Ok(Some(Ended { pid, killed: true })));
    }

    #[test]
    fn a_pid_file_whose_number_belongs_to_another_process_names_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let it = background(folder.path(), "true");
        fs::write(&it.pid_file, format!("{} 1\n", std::process::id())).unwrap();
        assert_eq!(it.pid(), None);
    }
}
