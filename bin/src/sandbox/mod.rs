//! A scratch cluster on loopback, with real PostgreSQL, Redis and RADIUS and real supervisors: what the demo
//! shows, the end-to-end tests test and the benchmarks measure.
//!
//! ```text
//! let sandbox = Sandbox::builder(program).threshold(Duration::from_secs(2)).build().await?;
//! sandbox.set_config(BETA, "failover.auto_failover_enabled", false)?;   // before its supervisor starts
//! sandbox.start().await?;                                               // all healthy, all standbys streaming
//! let writer = sandbox.start_writer(200.0)?;
//! let killed_at = sandbox.kill_everything_of(ALPHA);
//! let run = sandbox.wait_run_ended(BETA).await?;
//! let beta = sandbox.node(BETA)?.postgres_port;
//! let first = writer.wait_ack_by(beta, killed_at, Duration::from_secs(5)).await?;
//! let lost = sandbox.rows_lost(&writer.stop(), BETA).await?;
//! sandbox.doctor_clean().await?;                                        // where all nodes are whole again
//! ```
//!
//! Every node has a folder of its own, as if it were a server of its own. Supervisors are child processes and
//! start the node's servers themselves. When the value is dropped, also by a panic, every process of it is
//! ended and the folder removed, unless [`Sandbox::keep_files`] or [`Sandbox::leave_running`] said otherwise.
//!
//! With `INTERREX_TEST_CACHE=FOLDER` in the environment, initdb runs once for all sandboxes that use it.

mod builder;
mod clients;
mod doctor;
mod layout;
mod plan;
mod ports;
mod processes;
mod programs;
mod supervisors;
mod template;
#[cfg(test)]
mod tests;
mod waiting;
mod writer;

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs,
    path::{Path, PathBuf},
    process::Child,
    sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicU32},
    time::Duration,
};

use interrex_events::{ClusterId, NodeId};

pub use self::{
    builder::Builder,
    clients::Rows,
    doctor::{Checked, Examined},
    plan::{ALPHA, BETA, GAMMA, MOST_NODES, NodePlan},
    waiting::{Health, until},
    writer::{Ack, Acknowledged, Gap, Writer, WriterSettings},
};
use self::{
    ports::Ports,
    programs::{Account, Programs},
    template::Passwords,
};

/// Answer of a sandbox.
pub type Done<T> = Result<T, SandboxError>;

/// Why a sandbox operation failed, for a person.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Programs are not on this machine.
    #[error("missing on this machine: {}; `bin/install-packages demo` installs them", .0.join(", "))]
    Missing(Vec<String>),
    /// The system, or a program, refused.
    #[error("{doing}: {words}")]
    Failed {
        /// What was being done.
        doing: String,
        /// The other side's message.
        words: String,
    },
    /// A server or its program failed.
    #[error("{0}")]
    Server(String),
    /// Something that was waited for did not happen.
    #[error("waited {limit:?} in vain: {what}; last seen: {last}")]
    Late {
        /// What was waited for.
        what: String,
        /// For how long.
        limit: Duration,
        /// What was there instead.
        last: String,
    },
    /// The sandbox has no such node.
    #[error("the sandbox has no node {0}")]
    NoSuchNode(NodeId),
}

impl SandboxError {
    /// A failure with what was being done.
    pub fn failed(doing: impl Into<String>, words: impl Display) -> Self {
        Self::Failed { doing: doing.into(), words: words.to_string() }
    }
}

/// What is the same on every node.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    threshold: Duration,
    probe_interval: Duration,
    probe_timeout: Duration,
    startup_wait: Duration,
    patience: Duration,
}

/// A scratch cluster. See the module's documentation.
#[derive(Debug)]
pub struct Sandbox {
    folder: PathBuf,
    /// Whether the folder itself, and not only what is in it, was made here.
    made_folder: bool,
    nodes: Vec<NodePlan>,
    /// The supervisor's program.
    program: PathBuf,
    supervisor: PathBuf,
    programs: Programs,
    account: Account,
    passwords: Passwords,
    cluster_id: ClusterId,
    settings: Settings,
    ports: Ports,
    supervisors: Mutex<BTreeMap<NodeId, Child>>,
    environment: Mutex<BTreeMap<NodeId, BTreeMap<String, String>>>,
    http: reqwest::Client,
    writers: AtomicU32,
    at_the_end: AtTheEnd,
}

/// What happens to a sandbox that is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AtTheEnd {
    /// Nothing is left.
    Remove,
    /// Processes are ended, files stay.
    KeepFiles,
    /// Everything stays.
    Leave,
}

impl Sandbox {
    /// A new one, whose supervisors are this program.
    #[must_use]
    pub fn builder(program: impl Into<PathBuf>) -> Builder {
        Builder::new(program.into())
    }

    /// Where it lives.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The cluster.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        self.cluster_id
    }

    /// Its nodes, by number.
    #[must_use]
    pub fn nodes(&self) -> &[NodePlan] {
        &self.nodes
    }

    /// One node.
    ///
    /// # Errors
    /// There is none of that number.
    pub fn node(&self, id: NodeId) -> Done<&NodePlan> {
        self.nodes.iter().find(|node| node.id == id).ok_or(SandboxError::NoSuchNode(id))
    }

    /// An unused port for a proxy; `which` is from 0 to 7.
    #[must_use]
    pub fn spare_port(&self, index: u16) -> u16 {
        plan::spare_port(index, &self.ports)
    }

    /// The user that its servers run as, as text.
    #[must_use]
    pub fn servers_run(&self) -> String {
        self.account.in_words()
    }

    /// Folder of PostgreSQL's programs, such as `psql` and `pg_ctl`.
    #[must_use]
    pub fn postgres_programs(&self) -> &Path {
        &self.programs.postgres
    }

    /// Password of `interrex`, the superuser of every node's PostgreSQL.
    #[must_use]
    pub fn superuser_password(&self) -> &str {
        &self.passwords.superuser
    }

    /// Changes one value of a node's configuration, for its supervisor's next start; `peers.0.postgres` names
    /// the first peer's. The file's comments are lost.
    ///
    /// # Errors
    /// There is no such node or section, or the file cannot be written.
    pub fn set_config(&self, node: NodeId, key: &str, value: impl Into<toml::Value>) -> Done<()> {
        let file = self.node(node)?.config();
        let doing = || format!("setting {key} in {}", file.display());
        let text = fs::read_to_string(&file).map_err(|error| SandboxError::failed(doing(), error))?;
        let document: toml::Table =
            toml::from_str(&text).map_err(|error| SandboxError::failed(doing(), error))?;
        let mut document = toml::Value::Table(document);
        let place = builder::place(&mut document, key)
            .ok_or_else(|| SandboxError::failed(doing(), "there is no such section"))?;
        *place = value.into();
        let text = toml::to_string(&document).map_err(|error| SandboxError::failed(doing(), error))?;
        layout::write(&file, &text)
    }

    /// Sets an environment variable for a node's supervisor, from its next start on; nothing removes it.
    pub fn set_environment(&self, node: NodeId, name: &str, value: Option<&str>) {
        let mut environment = self.environment.lock().unwrap_or_else(PoisonError::into_inner);
        let variables = environment.entry(node).or_default();
        match value {
            Some(value) => variables.insert(name.to_owned(), value.to_owned()),
            None => variables.remove(name),
        };
    }

    /// From now on the files stay when this value goes; processes are ended all the same.
    pub fn keep_files(&mut self) {
        self.at_the_end = AtTheEnd::KeepFiles;
    }

    /// Lets everything go on without this value.
    pub fn leave_running(mut self) {
        self.at_the_end = AtTheEnd::Leave;
    }

    /// Ends every process and removes the files, unless they are kept. Dropping the value does the same, and
    /// keeps the errors for itself.
    ///
    /// # Errors
    /// A process lives on, or a file cannot be removed.
    pub fn teardown(mut self) -> Done<()> {
        let done = self.end();
        self.at_the_end = AtTheEnd::Leave;
        done
    }

    /// Removes the data directories, which are large and of no use without their servers.
    ///
    /// # Errors
    /// One cannot be removed.
    pub fn remove_data(&self) -> Done<()> {
        for node in &self.nodes {
            for folder in [node.data_dir(), node.redis_dir().join("dump.rdb")] {
                remove(&folder)?;
            }
        }
        Ok(())
    }

    /// Ends every process of the sandbox at once, supervisors first.
    ///
    /// # Errors
    /// One lives on.
    pub fn end_processes(&self) -> Done<()> {
        self.kill_all_supervisors();
        let left = processes::end_all(&self.folder);
        for node in &self.nodes {
            processes::remove_shared_memory(&node.data_dir());
        }
        if left.is_empty() {
            return Ok(());
        }
        Err(SandboxError::failed(
            format!("ending the processes in {}", self.folder.display()),
            left.join(", "),
        ))
    }

    fn end(&self) -> Done<()> {
        if self.at_the_end == AtTheEnd::Leave {
            return Ok(());
        }
        self.end_processes()?;
        if self.at_the_end == AtTheEnd::Remove {
            for node in &self.nodes {
                remove(&node.folder)?;
            }
            remove(&self.folder.join("template"))?;
            if self.made_folder {
                remove(&self.folder)?;
            }
        }
        Ok(())
    }

    fn supervisors(&self) -> MutexGuard<'_, BTreeMap<NodeId, Child>> {
        self.supervisors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(%error, "a sandbox was not removed");
        }
    }
}

fn remove(path: &Path) -> Done<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(SandboxError::failed(format!("removing {}", path.display()), error))
        }
        _ => Ok(()),
    }
}
