//! What is measured, before anybody judges it. Plain data: a test writes down any cluster it likes.

use std::{collections::BTreeMap, path::PathBuf};

use interrex_actors::{ports::ReadOnlySetting, wire::NodeReport};
use interrex_adapters::postgres::inherited::on_command_line;
use interrex_events::{Address, ClusterId, NodeId, Role};
use interrex_projections::NodeStatus;
use serde::Deserialize;

use super::finding::Measured;

/// A node, as the configuration here speaks of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeNamed {
    /// Its number.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// `host:port` of its supervisor.
    pub supervisor: Address,
    /// `host:port` of its PostgreSQL.
    pub postgres: Address,
    /// `host:port` of its Redis, where it has one.
    pub redis: Option<Address>,
}

/// Everything that was measured.
#[derive(Debug)]
pub struct Facts {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The node that looks.
    pub here: NodeId,
    /// Every node, by number.
    pub nodes: Vec<NodeNamed>,
    /// Who is asked before a node becomes main.
    pub quorum: &'static str,
    /// The replication user's name.
    pub replication_user: String,
    /// The machine that looks.
    pub machine: MachineFacts,
    /// Every PostgreSQL.
    pub servers: BTreeMap<NodeId, Result<ServerFacts, NoAnswer>>,
    /// Logins of the replication user from here: the system identifier that the server told, or its refusal.
    pub replication_logins: BTreeMap<NodeId, Measured<Result<String, String>>>,
    /// Every Redis that is configured.
    pub redis: BTreeMap<NodeId, Measured<RedisServerFacts>>,
    /// Every supervisor.
    pub supervisors: BTreeMap<NodeId, SupervisorFacts>,
    /// Version of the program that looks.
    pub version: &'static str,
}

/// Whether a node's servers are stopped on purpose, for another node became main.
pub(super) fn is_fenced(status: NodeStatus) -> bool {
    matches!(status, NodeStatus::Fencing | NodeStatus::Fenced)
}

/// Why a PostgreSQL told nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoAnswer {
    /// In words.
    pub words: String,
    /// The SQLSTATE of its refusal; nothing where no server answered.
    pub code: Option<String>,
}

impl From<String> for NoAnswer {
    fn from(words: String) -> Self {
        Self { words, code: None }
    }
}

impl Facts {
    /// A node's name.
    #[must_use]
    pub fn name(&self, node: NodeId) -> &str {
        self.nodes.iter().find(|named| named.id == node).map_or("?", |named| &named.name)
    }

    /// A server that answers.
    #[must_use]
    pub fn server(&self, node: NodeId) -> Option<&ServerFacts> {
        self.servers.get(&node)?.as_ref().ok()
    }

    /// Whether a node's supervisor fenced it, for another node became main: its servers are stopped on purpose.
    #[must_use]
    pub fn is_fenced(&self, node: NodeId) -> bool {
        let report = self.supervisors.get(&node).and_then(|supervisor| supervisor.report.as_ref().ok());
        report.is_some_and(|report| is_fenced(report.status))
    }

    /// What this node is for, as its PostgreSQL shows, or as its supervisor says where that does not answer.
    pub(super) fn role_by_server_or_supervisor(&self) -> Option<Role> {
        if let Some(server) = self.server(self.here) {
            return Some(if server.in_recovery { Role::Secondary } else { Role::Main });
        }
        let report = self.supervisors.get(&self.here).and_then(|supervisor| supervisor.report.as_ref().ok());
        report.map(|report| report.role)
    }

    /// As what the data directory here shall start; nothing where nothing says it, or where this node is fenced.
    #[must_use]
    pub fn starts_as(&self) -> Option<Role> {
        let told = || self.role_by_server_or_supervisor().or(self.machine.role_in_journal);
        if self.is_fenced(self.here) && self.server(self.here).is_none() { None } else { told() }
    }

    /// Who is main: the only PostgreSQL that takes writes.
    #[must_use]
    pub fn main(&self) -> Option<NodeId> {
        match self.primaries().as_slice() {
            [only] => Some(*only),
            _ => None,
        }
    }

    /// Every PostgreSQL that takes writes.
    #[must_use]
    pub fn primaries(&self) -> Vec<NodeId> {
        let answering = self.servers.iter().filter_map(|(node, server)| Some((*node, server.as_ref().ok()?)));
        answering.filter(|(_, server)| !server.in_recovery).map(|(node, _)| node).collect()
    }

    /// Every node but main.
    #[must_use]
    pub fn secondaries(&self) -> Vec<NodeId> {
        let main = self.main();
        self.nodes.iter().map(|named| named.id).filter(|id| Some(*id) != main).collect()
    }
}

/// What PostgreSQL says of itself. Sizes in `settings` are in the units of `pg_settings`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ServerFacts {
    /// `server_version_num`.
    pub version: u32,
    /// System identifier.
    pub system_id: String,
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// Its timeline; nothing where it does not tell.
    pub timeline: Option<u32>,
    /// Whether the supervisor's user is a superuser.
    pub superuser: bool,
    /// Settings, as they are in force.
    pub settings: BTreeMap<String, String>,
    /// Limits as the configuration files have them, in force from the next start on.
    pub at_next_start: BTreeMap<String, String>,
    /// Lines of the configuration files that the server would not take.
    #[serde(default)]
    pub file_errors: Vec<String>,
    /// Lines of the configuration files that would end the recovery of a standby, in force or not.
    #[serde(default)]
    pub ends_recovery: Vec<FileLine>,
    /// The command line that it was started with, as `postmaster.opts` has it.
    pub started_with: Option<String>,
    /// `default_transaction_read_only`, where a configuration file has it.
    pub read_only_in_files: Option<String>,
    /// Databases and roles that are read-only by a setting of their own.
    #[serde(default)]
    pub read_only_settings: Vec<ReadOnlySetting>,
    /// Replication slots.
    #[serde(default)]
    pub slots: Vec<Slot>,
    /// Standbys that receive from it.
    #[serde(default)]
    pub standbys: Vec<Standby>,
    /// What receives its log, on a standby.
    pub receiver: Option<Receiver>,
    /// Whether replay was paused by hand.
    #[serde(default)]
    pub replay_paused: bool,
    /// Whether the newest attempt to archive failed, and for which file.
    pub archive_failing: Option<String>,
    /// Tablespaces outside the data directory.
    #[serde(default)]
    pub tablespaces: Vec<String>,
    /// Transactions that are prepared and not decided.
    pub prepared: u64,
    /// The replication user.
    pub replication_role: Option<ReplicationRole>,
    /// Collation versions by database: as recorded, and as the machine has it now.
    #[serde(default)]
    pub collations: BTreeMap<String, Collation>,
    /// Version of the C library's locales.
    pub libc: Option<String>,
    /// Bytes of all databases; nothing where they could not be counted in time.
    #[serde(default)]
    pub database_bytes: Option<u64>,
    /// Unlogged tables of all databases, or why they could not be listed; nothing on a standby.
    #[serde(skip)]
    pub unlogged: Option<Measured<Vec<String>>>,
    /// How far its clock is from this machine's, and how exactly that is known.
    #[serde(skip)]
    pub clock: Option<ClockDistance>,
}

impl ServerFacts {
    /// A setting's value; empty where the server does not know it.
    #[must_use]
    pub fn setting(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }

    /// What the command line gives a setting; nothing else overrides it.
    #[must_use]
    pub fn on_command_line(&self, name: &str) -> Option<&str> {
        on_command_line(self.started_with.as_deref()?, name)
    }

    /// A setting that is a number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i64> {
        self.setting(name).parse().ok()
    }

    /// Its major version.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.version / 10_000
    }
}

/// A line of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct FileLine {
    /// The setting.
    pub name: String,
    /// Its value.
    pub setting: String,
    /// The file.
    pub file: String,
    /// Number of the line.
    pub line: u32,
}

/// A replication slot.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// Whether somebody uses it now.
    pub active: bool,
    /// `wal_status`: whether the log behind it is still there.
    pub wal_status: Option<String>,
}

/// A standby that receives.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Standby {
    /// Its `application_name`.
    pub name: String,
    /// The slot through which it receives.
    pub slot: Option<String>,
    /// `streaming`, or on the way there.
    pub state: String,
    /// `sync`, `quorum`, `async` or `potential`.
    pub sync_state: String,
    /// Bytes that it has not flushed.
    pub behind_bytes: Option<i64>,
}

/// The receiver of a standby.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Receiver {
    /// `streaming`, or on the way there.
    pub status: String,
    /// The slot it uses.
    pub slot: Option<String>,
}

/// What the replication user may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct ReplicationRole {
    /// `LOGIN`.
    pub login: bool,
    /// `REPLICATION` or superuser.
    pub replication: bool,
    /// Its password is no longer valid.
    pub expired: bool,
}

/// Versions of a collation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Collation {
    /// That indexes were built with.
    pub recorded: Option<String>,
    /// That this machine sorts with.
    pub actual: Option<String>,
}

/// How far a clock is from this machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockDistance {
    /// At most so far: half of the round trip included.
    pub at_most_ms: u64,
    /// At least so far.
    pub at_least_ms: u64,
}

/// What Redis says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisServerFacts {
    /// `redis_version`.
    pub version: String,
    /// Whether it is a master.
    pub master: bool,
    /// Whether a replica's link is up, and no copy under way.
    pub linked: bool,
    /// Replicas that are online.
    pub replicas: u64,
    /// `min-replicas-to-write`.
    pub min_replicas: u64,
    /// `maxmemory-policy`.
    pub memory_policy: String,
    /// Whether it demands a password of those who follow it.
    pub demands_password: bool,
    /// Whether it has one for whom it would follow.
    pub has_password_for_master: bool,
    /// The file that it was started with, and writes its role into; empty where there is none.
    pub config_file: String,
    /// `appendonly`.
    pub append_only: bool,
    /// `save`.
    pub save: String,
    /// The commands that it does not let the supervisor give, with the reason of each.
    pub lacks: Vec<String>,
}

/// What a supervisor says.
#[derive(Debug, Clone)]
pub struct SupervisorFacts {
    /// Its report, or why there is none.
    pub report: Measured<NodeReport>,
    /// Whether it took a request with the secret that is here.
    pub admitted: Measured<()>,
}

/// What the machine says that looks.
#[derive(Debug, Clone)]
pub struct MachineFacts {
    /// What is wrong with the files that hold secrets, each with what mends it.
    pub secret_problems: Measured<Vec<Problem>>,
    /// Bytes free where the journal is; or why nothing can be written there.
    pub journal_room: Measured<u64>,
    /// How many of the newest events were found sound, nothing before the first start; or what is wrong with them.
    pub journal_sound: Measured<Result<Option<usize>, String>>,
    /// Programs of PostgreSQL.
    pub programs: Measured<Programs>,
    /// Whom the servers run as.
    pub run_as: Measured<String>,
    /// Major version of the data directory.
    pub data_version: Measured<u32>,
    /// What PostgreSQL would take at its next start, or why it would not start.
    pub next_start: Measured<Result<NextStart, String>>,
    /// What the configuration says of it.
    pub configured: Configured,
    /// As what the data directory would start.
    pub signal_files: Measured<SignalFiles>,
    /// What this node is for by its journal, read where neither its PostgreSQL nor its supervisor answers.
    pub role_in_journal: Option<Role>,
    /// Why the servers' user could not change the settings in the data directory, if so.
    pub settings_file: Measured<Option<Problem>>,
    /// What the user who looks may not look at, if there is such a thing: what else is wrong may be no more than that.
    pub stranger: Option<String>,
    /// Bytes free where the log is.
    pub wal_room: Measured<u64>,
    /// Bytes free beside the data directory.
    pub copy_room: Measured<u64>,
    /// Bytes free where what only this node has is kept, if that is another volume.
    pub keep_room: Measured<Option<u64>>,
    /// Whether what only this node has can be kept on the data directory's volume.
    pub keeps_on_volume: Measured<bool>,
    /// Kept copies that may have rows which are in no other place, the newest first: the folder of each, and its bytes.
    pub not_salvaged: Measured<Vec<(PathBuf, u64)>>,
    /// Services of the operating system that would start what the supervisor owns.
    pub rivals: Measured<Vec<Rival>>,
    /// Commands of dependents and hooks: name, and what is wrong with it.
    pub commands: Measured<Vec<(String, Result<(), String>)>>,
    /// Readiness of dependents, where this node is main.
    pub ready: Vec<(String, Result<(), String>)>,
}

impl MachineFacts {
    /// Nothing could be measured.
    #[must_use]
    pub fn unmeasured(reason: &str) -> Self {
        let reason = reason.to_owned();
        Self {
            secret_problems: Err(reason.clone()),
            journal_room: Err(reason.clone()),
            journal_sound: Err(reason.clone()),
            programs: Err(reason.clone()),
            run_as: Err(reason.clone()),
            data_version: Err(reason.clone()),
            next_start: Err(reason.clone()),
            configured: Configured::default(),
            signal_files: Err(reason.clone()),
            role_in_journal: None,
            settings_file: Err(reason.clone()),
            stranger: None,
            wal_room: Err(reason.clone()),
            copy_room: Err(reason.clone()),
            keep_room: Err(reason.clone()),
            keeps_on_volume: Err(reason.clone()),
            not_salvaged: Err(reason.clone()),
            rivals: Err(reason.clone()),
            commands: Err(reason),
            ready: Vec::new(),
        }
    }
}

/// Files that say as what a data directory starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalFiles {
    /// `standby.signal`: as a standby.
    pub standby: bool,
    /// `recovery.signal`: as a recovery from an archive, unless the other is there too.
    pub recovery: bool,
}

/// What PostgreSQL would take at its next start, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextStart {
    /// `config_file`.
    pub config_file: String,
    /// `data_directory`.
    pub data_directory: String,
    /// `hba_file`.
    pub hba_file: String,
    /// `port`.
    pub port: String,
    /// `listen_addresses`.
    pub listen_addresses: String,
    /// Files that its user cannot read, each with the reason.
    pub unreadable: Vec<String>,
}

/// What the configuration here says of PostgreSQL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Configured {
    /// `postgres.data_dir`.
    pub data_dir: PathBuf,
    /// `postgres.host`.
    pub host: String,
    /// `postgres.port`.
    pub port: u16,
    /// By which the other nodes reach this one.
    pub address: String,
}

/// Something that is wrong with a file, and what mends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub words: String,
    /// A command.
    pub fix: String,
}

/// PostgreSQL's programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// Their folder.
    pub folder: PathBuf,
    /// Those that are not there.
    pub missing: Vec<String>,
    /// Their major version.
    pub major: Option<u32>,
}

/// A service that starts or ends what only the supervisor may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rival {
    /// Its name.
    pub unit: String,
    /// What it does.
    pub does: String,
    /// What keeps it from that.
    pub fix: String,
}
