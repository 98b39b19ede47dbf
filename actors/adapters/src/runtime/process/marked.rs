//! A program of any kind that runs next to the supervisor and outlives it, known by its pid file, or by a mark in its environment
//! if the pid file is lost.

use std::{fs, io, path::PathBuf};

use async_trait::async_trait;
use interrex_actors::ports::{Answer, PortError};

use super::{Identity, Process, RunAs, kernel::numbers};
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
    /// The user that it is started as.
    pub user: RunAs,
    /// The value of its mark: the same for every supervisor of this node, and different on other nodes.
    pub mark: String,
}

#[async_trait(?Send)]
impl Identity for Marked {
    /// If the pid file is lost because the journal was moved, it is written again. A pid file that names a dead process is not
    /// lost: no other process takes its place.
    fn find(&self) -> Option<Process> {
        if self.pid_file.exists() {
            return self.named();
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

    /// Between its start and its note, the new process is known by its mark alone.
    async fn before_start(&self) -> Answer<()> {
        guarded::remove_file(&self.pid_file)
            .map_err(|error| PortError::new("removing the old pid file", error))
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
        let alike = |pid: &i32| Some(*pid) != own && self.is_its_command(*pid);
        numbers().filter(alike).find_map(Process::of)
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
        let is_it = |pid: &i32| match fs::read(format!("/proc/{pid}/environ")) {
            Ok(environment) => environment.split(|byte| *byte == 0).any(|word| word == mark.as_bytes()),
            // a program with secrets, such as FreeRADIUS, shows its environment only to root: then its command decides
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => self.is_its_command(*pid),
            Err(_) => false,
        };
        let found = numbers().filter(is_it).filter_map(Process::of);
        found.into_iter().find(|process| process.leads_its_group() && self.may_be_its_user(process))
    }

    /// Every user may write the mark into an environment. A program that root starts may change its user by itself.
    fn may_be_its_user(&self, process: &Process) -> bool {
        let started_as = match self.user {
            RunAs::Myself => rustix::process::geteuid().as_raw(),
            RunAs::User { uid, .. } => uid,
        };
        started_as == 0 || process.user() == Some(started_as)
    }

    fn is_its_command(&self, pid: i32) -> bool {
        let words: Vec<u8> = self.command.iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect();
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|found| found == words)
    }
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
            user: RunAs::Myself,
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

    #[tokio::test]
    async fn another_users_process_with_the_mark_takes_no_dead_programs_place() {
        let folder = tempfile::tempdir().unwrap();
        let it = marked(folder.path(), "exec sleep 60");
        let started = runtime(&it).start(&Program::of(&it.command)).await.unwrap();
        // as a hostile user would start it: with the mark, in a group of its own
        let mut hostile = RunAs::Myself.command("sleep");
        hostile.arg("60").env(MARK, &it.mark).process_group(0);
        let mut hostile = hostile.spawn().unwrap();
        runtime(&it).stop(&started, &[(Signal::KILL, LIMIT)]).await.unwrap();
        assert_eq!(it.find(), None, "the pid file names a dead process");
        fs::remove_file(&it.pid_file).unwrap();
        let others = Marked { user: RunAs::User { uid: 65_533, gid: 65_533 }, ..it.clone() };
        assert_eq!(others.find(), None, "it is started as another user");
        assert_eq!(until(async || it.find()).await.pid(), hostile.id().unwrap().cast_signed());
        hostile.kill().await.unwrap();
    }

    #[test]
    fn a_pid_file_whose_number_belongs_to_another_process_names_no_process() {
        let folder = tempfile::tempdir().unwrap();
        let it = marked(folder.path(), "true");
        fs::write(&it.pid_file, format!("{} 1\n", std::process::id())).unwrap();
        assert_eq!(it.find(), None);
    }
}
