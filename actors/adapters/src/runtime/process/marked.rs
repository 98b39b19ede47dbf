//! A program of any kind that runs next to the supervisor and outlives it, known by its pid file, or by a mark in its environment
//! if the pid file is lost.

use std::{fs, io, path::PathBuf};

use interrex_actors::ports::{Answer, PortError};

use super::{
    Identity, Process, RunAs,
    kernel::{numbers, started_at},
};
use crate::guarded;

/// The environment variable that distinguishes a program's process from other processes of the same program.
const MARK: &str = "INTERREX_DEPENDENT";

/// The process of a dependent.
#[derive(Debug, Clone)]
pub struct Marked {
    /// Program and arguments; it stays in the foreground.
    pub command: Vec<String>,
    /// The file with its process id.
    pub pid_file: PathBuf,
    /// The value of its mark: the same for every supervisor of this node, and different on other nodes.
    pub mark: String,
}

impl Identity for Marked {
    /// If the pid file is lost because the journal was moved, it is written again.
    fn find(&self) -> Option<Process> {
        if let Some(process) = self.named() {
            return Some(process);
        }
        let process = self.marked()?;
        if let Err(error) = self.started(&process) {
            let pid = process.pid();
            tracing::warn!(%error, pid, "a program of an earlier supervisor runs, but its pid file could not be written");
        }
        Some(process)
    }

    fn processes(&self) -> Vec<Process> {
        self.find().into_iter().collect()
    }

    fn started(&self, process: &Process) -> Answer<()> {
        let (pid, began) = (process.pid(), process.clone().into_began());
        guarded::write(&self.pid_file, format!("{pid} {began}\n").as_bytes(), RunAs::Myself)
            .map_err(|error| PortError::new("writing the pid file", error))
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        vec![(MARK, self.mark.clone())]
    }

    fn look_alike(&self) -> Option<Process> {
        let own = self.named().map(|process| process.pid());
        let alike = numbers()
            .find(|pid| Some(*pid) != own && self.is_its_command(*pid) && started_at(*pid).is_some());
        alike.and_then(Process::of)
    }
}

impl Marked {
    /// The process that the pid file names, if it lives.
    fn named(&self) -> Option<Process> {
        let text = fs::read_to_string(&self.pid_file).ok()?;
        let (pid, began) = text.trim().split_once(' ')?;
        // the number may belong to another process: the start time decides
        let process = Process::known(pid.parse().ok()?, began);
        process.lives().then_some(process)
    }

    /// The process with the mark that leads its group: its children have the mark too.
    fn marked(&self) -> Option<Process> {
        let mark = format!("{MARK}={}", self.mark);
        let pid = numbers().find(|pid| {
            let is_it = match fs::read(format!("/proc/{pid}/environ")) {
                Ok(environment) => environment.split(|byte| *byte == 0).any(|word| word == mark.as_bytes()),
                // a program with secrets, such as FreeRADIUS, shows its environment only to root: then its command decides
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    is_of_this_user(*pid) && self.is_its_command(*pid)
                }
                Err(_) => false,
            };
            is_it && leads_its_group(*pid)
        });
        pid.and_then(Process::of)
    }

    fn is_its_command(&self, pid: i32) -> bool {
        let words: Vec<u8> = self.command.iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect();
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|found| found == words)
    }
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
    use std::{path::Path, time::Duration};

    use super::*;
    use crate::runtime::{Instance, Processes, Program, Runtime as _, Signal, Stopped};

    const LIMIT: Duration = Duration::from_secs(10);

    fn marked(folder: &Path, script: &str) -> Marked {
        Marked {
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            pid_file: folder.join("it.pid"),
            mark: folder.display().to_string(),
        }
    }

    fn runtime(identity: &Marked) -> Processes<Marked> {
        let output = identity.pid_file.with_extension("log");
        Processes::new(RunAs::Myself, output, identity.clone())
    }

    async fn until<T>(look: impl AsyncFn() -> Option<T>) -> T {
        let looking = async {
            loop {
                match look().await {
                    Some(found) => return found,
                    None => tokio::task::yield_now().await,
                }
            }
        };
        tokio::time::timeout(LIMIT, looking).await.unwrap()
    }

    #[tokio::test]
    async fn a_program_is_found_again_by_its_pid_file_and_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let it = marked(folder.path(), "exec sleep 60");
        let started = runtime(&it).start(&Program::of(&it.command)).await.unwrap();
        let again = runtime(&it);
        assert_eq!(again.find().await.as_ref(), Some(&started));
        let stopped = again.stop(&started, &[(Signal::TERM, LIMIT)]).await.unwrap();
        assert_eq!(stopped, Stopped { by: Signal::TERM, left: String::new() });
        assert_eq!((again.find().await, again.processes().await), (None, Vec::new()));
    }

    #[tokio::test]
    async fn a_program_whose_pid_file_is_gone_is_found_by_its_mark_and_another_nodes_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let it = marked(folder.path(), "while true; do sleep 0.05; done");
        let started = runtime(&it).start(&Program::of(&it.command)).await.unwrap();
        let moved = Marked { pid_file: folder.path().join("elsewhere.pid"), ..it.clone() };
        let others = Marked { mark: "another node's".to_owned(), ..moved.clone() };
        assert_eq!((others.find(), others.look_alike().map(Instance::from)), (None, Some(started.clone())));
        // from when the process is its own program on
        let found = until(async || runtime(&moved).find().await).await;
        assert_eq!(found, started);
        assert_eq!(moved.named().map(Instance::from), Some(started), "and noted again");
        runtime(&moved).stop(&found, &[(Signal::TERM, LIMIT)]).await.unwrap();
    }

    #[tokio::test]
    async fn a_program_that_does_not_listen_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let it = marked(folder.path(), "trap '' TERM; echo ready; while true; do sleep 0.05; done");
        let (command, it) = (Program::of(&it.command), runtime(&it));
        let started = it.start(&command).await.unwrap();
        until(async || (!it.output_since(0).is_empty()).then_some(())).await;
        let steps = [(Signal::TERM, Duration::from_millis(100)), (Signal::KILL, LIMIT)];
        assert_eq!(it.stop(&started, &steps).await.unwrap().by, Signal::KILL);
    }

    #[test]
    fn a_pid_file_whose_number_belongs_to_another_process_names_no_process() {
        let folder = tempfile::tempdir().unwrap();
        let it = marked(folder.path(), "true");
        fs::write(&it.pid_file, format!("{} 1\n", std::process::id())).unwrap();
        assert_eq!(it.find(), None);
    }
}
