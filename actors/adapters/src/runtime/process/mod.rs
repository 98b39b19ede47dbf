//! The `process` runtime: a server as a process of this machine, started as an unprivileged user, found again after a restart, and
//! stopped by its process, never by a name.

mod handle;
mod in_folder;
mod inherited;
mod kernel;
mod marked;
mod postmaster;
mod run_as;

use std::{
    cell::RefCell,
    fmt,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::Stdio,
};

use async_trait::async_trait;
use interrex_actors::ports::{Answer, PortError};
use rustix::process::{Pid, kill_process_group};
use tokio::process::Child;

use super::{Instance, Leftover, Messages, Program, Running, Runtime, Signal};
use crate::guarded;

pub use self::{
    handle::Process,
    in_folder::{InFolder, is_same_file},
    inherited::{ignored_signals, leave_nothing_inherited},
    kernel::{checked, is_alive, processes_in, run, signal, wait_reaped},
    marked::Marked,
    postmaster::Postmaster,
    run_as::{Command, RunAs},
};

/// How many bytes at the end of the output are read.
const TAIL: u64 = 64 << 10;

/// How the process of a server is told from other processes of the same program.
#[async_trait(?Send)]
pub trait Identity: fmt::Debug {
    /// The main process, if it lives.
    fn find(&self) -> Option<Process>;

    /// Every living process of the server.
    fn processes(&self) -> Vec<Process>;

    /// What a start needs before it, for example a dead process that is gone.
    ///
    /// # Errors
    /// It could not be done.
    async fn before_start(&self) -> Answer<()> {
        Ok(())
    }

    /// Notes the process that was started.
    ///
    /// # Errors
    /// It could not be noted.
    fn started(&self, _process: &Process) -> Answer<()> {
        Ok(())
    }

    /// Variables by which the process is found again.
    fn variables(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Another process that runs the same command.
    fn look_alike(&self) -> Option<Process> {
        None
    }
}

/// A server as a process of this machine.
#[derive(Debug)]
pub struct Processes<I> {
    user: RunAs,
    output: PathBuf,
    identity: I,
    /// The process of the last start: a server that is starting may not have written its pid file yet.
    last_started: RefCell<Option<Process>>,
}

impl<I: Identity> Processes<I> {
    /// A server that runs as this user, and whose output goes to this file.
    #[must_use]
    pub fn new(user: RunAs, output: impl Into<PathBuf>, identity: I) -> Self {
        Self { user, output: output.into(), identity, last_started: RefCell::default() }
    }

    fn open_output(&self) -> io::Result<File> {
        guarded::open(&self.output, self.user)
    }

    fn read_output(&self, mark: u64) -> io::Result<String> {
        let mut file = self.open_output()?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL).max(mark)))?;
        let mut end = Vec::new();
        file.take(TAIL).read_to_end(&mut end)?;
        Ok(String::from_utf8_lossy(&end).into_owned())
    }

    fn command(&self, program: &Program) -> Command {
        let mut command = self.user.command(&program.path);
        command.args(&program.arguments).envs(program.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    fn open_for_output(&self) -> io::Result<(File, File)> {
        let output = guarded::append(&self.output, self.user)?;
        Ok((output.try_clone()?, output))
    }

    fn spawn_server(&self, server: &Program, (output, messages): (File, File)) -> io::Result<Child> {
        let mut command = self.command(server);
        command.envs(self.identity.variables());
        // in its own process group, so that a Ctrl-C for the supervisor does not reach it
        command.stdout(output).stderr(messages).process_group(0).kill_on_drop(false).spawn()
    }
}

#[async_trait(?Send)]
impl<I: Identity> Runtime for Processes<I> {
    fn user(&self) -> RunAs {
        self.user
    }

    async fn find(&self) -> Option<Instance> {
        let started = || self.last_started.borrow().clone().filter(Process::lives);
        self.identity.find().or_else(started).map(Instance::from)
    }

    async fn numbered(&self, number: i32, programs: &[&Path]) -> Option<Instance> {
        let process = Process::of(number)?;
        let name = process.name();
        programs.iter().any(|program| kernel::is_name_of(&name, program)).then(|| process.into())
    }

    async fn start(&self, server: &Program) -> Answer<Instance> {
        self.identity.before_start().await?;
        let program = server.path.display();
        let output = self.open_for_output().map_err(|error| {
            PortError::new(&format!("opening {} for the output of {program}", self.output.display()), error)
        })?;
        let doing = format!("starting {program}");
        let child = self.spawn_server(server, output).map_err(|error| PortError::new(&doing, error))?;
        let number = child.id().and_then(|number| i32::try_from(number).ok());
        // a process that ended at once is not reaped yet, and is known by its number
        let process =
            number.map(Process::begun).ok_or_else(|| PortError::new(&doing, "the program ended at once"))?;
        self.last_started.replace(Some(process.clone()));
        self.identity.started(&process)?;
        Ok(process.into())
    }

    async fn lives(&self, instance: &Instance) -> bool {
        Process::from(instance).lives()
    }

    async fn gone(&self, instance: &Instance) {
        Process::from(instance).gone().await;
    }

    async fn signal(&self, instance: &Instance, signal: Signal) {
        Process::from(instance).signal(signal);
    }

    async fn folder(&self, instance: &Instance) -> Option<PathBuf> {
        Process::from(instance).folder()
    }

    async fn processes(&self) -> Vec<(Instance, String)> {
        let started = self.last_started.borrow().clone().filter(Process::lives);
        let mut all = self.identity.processes();
        all.extend(started.filter(|started| !all.contains(started)));
        all.into_iter()
            .map(|process| (Instance::from(process.clone()), process.shown_as().join(" ")))
            .collect()
    }

    fn output_name(&self) -> String {
        self.output.display().to_string()
    }

    fn output_end(&self) -> u64 {
        self.open_output().and_then(|file| file.metadata()).map_or(0, |file| file.len())
    }

    fn output_since(&self, mark: u64) -> String {
        self.read_output(mark).unwrap_or_default()
    }

    async fn look_alike(&self) -> Option<Instance> {
        self.identity.look_alike().map(Instance::from)
    }

    async fn has_program(&self, program: &Path) -> bool {
        program.is_file()
    }

    async fn launch(&self, program: &Program, messages: Messages<'_>) -> io::Result<Running> {
        launch(self.command(program), messages)
    }

    async fn leftovers(&self, programs: &[&str]) -> Vec<Leftover> {
        let process = |number| {
            let program = kernel::which_lives(number, programs)?.to_owned();
            let process = Process::of(number)?;
            Some(Leftover { program, arguments: process.arguments(), instance: process.into() })
        };
        kernel::numbers().filter_map(process).collect()
    }
}

/// Starts a command as [`Runtime::launch`] says.
///
/// # Errors
/// The system's error.
pub fn launch(mut command: Command, messages: Messages<'_>) -> io::Result<Running> {
    // a terminal's Ctrl-C must reach only the program that started it; children stay in the group
    command.stdout(Stdio::piped()).process_group(0);
    match messages {
        Messages::Piped => command.stderr(Stdio::piped()),
        Messages::File(file) => {
            guarded::remove_file(file)?;
            command.stderr(guarded::create(file, command.run_as())?)
        }
    };
    let mut child = command.spawn()?;
    let group = Group(child.id().and_then(|number| Pid::from_raw(i32::try_from(number).ok()?)));
    let stdout = child.stdout.take().map_or_else(nothing, |stdout| Box::new(stdout) as _);
    let stderr = child.stderr.take().map_or_else(nothing, |stderr| Box::new(stderr) as _);
    let end = Box::pin(async move {
        let group = group;
        let status = child.wait().await?;
        group.has_ended();
        Ok(status)
    });
    Ok(Running { stdout, stderr, end })
}

fn nothing() -> Box<dyn tokio::io::AsyncRead + Unpin> {
    Box::new(tokio::io::empty())
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

impl From<Process> for Instance {
    fn from(process: Process) -> Self {
        let number = process.pid();
        Self { name: format!("process {number}"), number, key: process.into_began() }
    }
}

impl From<&Instance> for Process {
    fn from(instance: &Instance) -> Self {
        Self::known(instance.number, &instance.key)
    }
}
