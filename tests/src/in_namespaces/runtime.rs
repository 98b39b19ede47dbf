//! A runtime like a container's. The server has the process number 1, sees nothing of the machine's processes and shared memory, and
//! finds the folder of its node at another path; its data is hidden at the path that it has on the machine.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use interrex::config::Config;
use interrex_actors::ports::{Answer, PortError};
use interrex_adapters::runtime::{
    Command, Instance, Leftover, Messages, Process, Program, RunAs, Running, Runtime, Signal, launch,
};
use rustix::fs::{FlockOperation, flock};

/// Where the server sees its node's folder, below that folder: what belongs to a sandbox is found by such a path.
const INSIDE: &str = "inside";
/// What the server does not see at its usual path.
const HIDDEN: [&str; 2] = ["pgdata", "redis"];
/// Makes the view of the server, and becomes the server. A lock, held by every process of the server, takes the place of a
/// container's name: a second server is refused.
const BEGIN: &str = r#"
set -e
node=$1 lock=$2 uid=$3 gid=$4
shift 4
mount --bind "$node" "$node/inside"
for hidden in pgdata redis; do
    if test -d "$node/$hidden"; then mount -t tmpfs -o ro none "$node/$hidden"; fi
done
if test -n "$lock"; then
    exec 9>>"$lock"
    flock --nonblock 9 || { echo "FATAL: another server works on this directory"; exit 75; }
fi
exec setpriv --reuid="$uid" --regid="$gid" --init-groups -- "$@"
"#;
/// How long the namespaces may take to exist.
const LIMIT: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(3);

/// One server of a node.
#[derive(Debug)]
pub(crate) struct InNamespaces {
    user: RunAs,
    node: PathBuf,
    lock: PathBuf,
    output: PathBuf,
}

impl InNamespaces {
    pub(crate) fn new(server: &str, config: &Config, user: RunAs) -> Self {
        let node = config.node.journal.parent().unwrap_or(Path::new("/")).to_owned();
        let (lock, output) = (node.join(format!("{server}.lock")), node.join(format!("{server}.output")));
        Self { user, node, lock, output }
    }

    /// The program in new namespaces. `--fork`: the program is the first process of its own.
    fn wrapped(&self, program: &Program, lock: &str) -> io::Result<Command> {
        fs::create_dir_all(self.node.join(INSIDE))?;
        let RunAs::User { uid, gid } = self.user else {
            return Err(io::Error::other("namespaces need root, and servers a user of their own"));
        };
        let mut command = RunAs::Myself.command("unshare");
        command
            .args(["--pid", "--ipc", "--mount", "--fork", "--mount-proc", "--propagation", "private", "--"])
            .args(["/bin/sh", "-c", BEGIN, "begin"])
            .arg(&self.node)
            .args([lock, &uid.to_string(), &gid.to_string()])
            .arg(&program.path)
            .args(&program.arguments)
            // the home of root is not readable
            .env("HOME", "/")
            .envs(program.variables.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    fn spawn(&self, server: &Program) -> io::Result<Process> {
        let output = OpenOptions::new().create(true).append(true).open(&self.output)?;
        let messages = output.try_clone()?;
        let mut command = self.wrapped(server, &self.lock.to_string_lossy())?;
        let child = command.stdout(output).stderr(messages).process_group(0).kill_on_drop(false).spawn()?;
        let number = child.id().and_then(|number| i32::try_from(number).ok());
        number.and_then(Process::of).ok_or_else(|| io::Error::other("unshare ended at once"))
    }

    /// The lock file also names the first process, by the number that it has on the machine.
    fn noted(&self) -> Option<Process> {
        let text = fs::read_to_string(&self.lock).ok()?;
        let (number, key) = text.trim().split_once(' ')?;
        let process = Process::of(number.parse().ok()?)?;
        (instance(&process).key == format!("{number} {key}")).then_some(process)
    }

    fn is_locked(&self) -> bool {
        let Ok(file) = File::open(&self.lock) else { return false };
        flock(&file, FlockOperation::NonBlockingLockExclusive).is_err()
    }
}

/// As the server knows itself: it is number 1. The key is number and start time on the machine.
fn instance(process: &Process) -> Instance {
    let known = Instance::from(process.clone());
    Instance {
        name: format!("{} in its namespaces", known.name),
        number: 1,
        key: format!("{} {}", known.number, known.key),
    }
}

fn process(instance: &Instance) -> Option<Process> {
    let number = instance.key.split_once(' ')?.0.parse().ok()?;
    Process::of(number).filter(|process| self::instance(process) == *instance)
}

fn child_of(wrapper: &Process) -> Option<Process> {
    let numbers = fs::read_dir("/proc").ok()?.flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter_map(Process::of).find(|process| process.parent() == Some(wrapper.pid()))
}

#[async_trait(?Send)]
impl Runtime for InNamespaces {
    fn user(&self) -> RunAs {
        self.user
    }

    fn inside(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.node) {
            Ok(below) if !below.starts_with(INSIDE) => self.node.join(INSIDE).join(below),
            _ => path.to_owned(),
        }
    }

    fn outside(&self, path: &Path) -> Option<PathBuf> {
        if let Ok(below) = path.strip_prefix(self.node.join(INSIDE)) {
            return Some(self.node.join(below));
        }
        (!HIDDEN.iter().any(|hidden| path.starts_with(self.node.join(hidden)))).then(|| path.to_owned())
    }

    fn scratch(&self) -> PathBuf {
        self.node.clone()
    }

    async fn find(&self) -> Option<Instance> {
        self.noted().map(|process| instance(&process))
    }

    async fn numbered(&self, number: i32, _: &[&Path]) -> Option<Instance> {
        if number == 1 { self.find().await } else { None }
    }

    async fn start(&self, server: &Program) -> Answer<Instance> {
        let doing = "starting a server in namespaces";
        let wrapper = self.spawn(server).map_err(|error| PortError::new(doing, error))?;
        let begun = async {
            loop {
                match child_of(&wrapper) {
                    Some(process) => return Some(process),
                    None if !wrapper.lives() => return None,
                    None => tokio::time::sleep(LOOK).await,
                }
            }
        };
        let process = tokio::time::timeout(LIMIT, begun).await.ok().flatten();
        let process = process.ok_or_else(|| PortError::new(doing, self.output_since(0)))?;
        let started = instance(&process);
        // the lock decides which of two servers is the server of this directory
        let settled = async {
            while process.lives() && process.name() == "sh" {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(LIMIT, settled).await.map_err(|error| PortError::new(doing, error))?;
        if process.lives() {
            let mut lock = OpenOptions::new().write(true).truncate(true).open(&self.lock);
            let noted = lock.as_mut().map_err(|error| io::Error::new(error.kind(), error.to_string()));
            let noted = noted.and_then(|lock| lock.write_all(started.key.as_bytes()));
            noted.map_err(|error| PortError::new(doing, error))?;
        }
        Ok(started)
    }

    async fn lives(&self, instance: &Instance) -> bool {
        process(instance).is_some()
    }

    async fn gone(&self, instance: &Instance) {
        if let Some(process) = process(instance) {
            process.gone().await;
        }
    }

    async fn signal(&self, instance: &Instance, signal: Signal) {
        if let Some(process) = process(instance) {
            process.signal(signal);
        }
    }

    async fn folder(&self, _: &Instance) -> Option<PathBuf> {
        None
    }

    /// The kernel ends every process of the namespace with its first process.
    async fn processes(&self) -> Vec<(Instance, String)> {
        if let Some(found) = self.find().await {
            return vec![(found, "a server in namespaces".to_owned())];
        }
        let unknown = || Instance {
            name: format!("a process that holds {}", self.lock.display()),
            number: 1,
            key: String::new(),
        };
        self.is_locked().then(|| (unknown(), String::new())).into_iter().collect()
    }

    fn output_name(&self) -> String {
        self.output.display().to_string()
    }

    fn output_end(&self) -> u64 {
        fs::metadata(&self.output).map_or(0, |file| file.len())
    }

    fn output_since(&self, mark: u64) -> String {
        let read = || {
            let (mut file, mut text) = (File::open(&self.output)?, Vec::new());
            file.seek(SeekFrom::Start(mark))?;
            file.read_to_end(&mut text)?;
            Ok::<_, io::Error>(text)
        };
        String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
    }

    async fn has_program(&self, program: &Path) -> bool {
        program.is_file()
    }

    async fn launch(&self, program: &Program, messages: Messages<'_>) -> io::Result<Running> {
        launch(self.wrapped(program, "")?, messages)
    }

    async fn leftovers(&self, programs: &[&str]) -> Vec<Leftover> {
        let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let wrappers = numbers.filter_map(Process::of).filter(|process| process.name() == "unshare");
        let leftover = |wrapper: Process| {
            let shown = wrapper.shown_as();
            let place = shown.iter().position(|word| Path::new(word) == self.node)?;
            // after the node's folder: no lock (an empty argument is not shown), user, group, program
            let command = shown.get(place + 3..)?;
            let program = Path::new(command.first()?).file_name()?.to_str()?.to_owned();
            let arguments = command.iter().skip(1).map(|word| word.clone().into_bytes()).collect();
            let instance = instance(&child_of(&wrapper)?);
            programs.contains(&program.as_str()).then_some(Leftover { instance, program, arguments })
        };
        wrappers.filter_map(leftover).collect()
    }
}
