//! The measured facts, before they are judged. Plain data: a test can write down any cluster.

use std::{collections::BTreeMap, path::PathBuf};

use interrex_actors::{ports::ReadOnlySetting, wire::NodeReport};
use interrex_adapters::postgres::inherited::on_command_line;
use interrex_events::{Address, ClusterId, NodeId, Role};
use interrex_projections::NodeStatus;
use serde::Deserialize;

use super::finding::Measured;

/// A node, as the configuration here describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeNamed {
    /// The node's number.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// `host:port` of its supervisor.
    pub supervisor: Address,
    /// `host:port` of its PostgreSQL.
    pub postgres: Address,
    /// `host:port` of its Redis, if it has one.
    pub redis: Option<Address>,
}

/// All measured facts.
#[derive(Debug)]
pub struct Facts {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The node on which doctor runs.
    pub here: NodeId,
    /// Every node, by number.
    pub nodes: Vec<NodeNamed>,
    /// The configured quorum: the third opinion before a node becomes main.
    pub quorum: &'static str,
    /// The replication user's name.
    pub replication_user: String,
    /// The machine on which doctor runs.
    pub machine: MachineFacts,
    /// Every PostgreSQL.
    pub servers: BTreeMap<NodeId, Result<ServerFacts, NoAnswer>>,
    /// Logins of the replication user from here: the system identifier that the server reported, or its refusal.
    pub replication_logins: BTreeMap<NodeId, Measured<Result<String, String>>>,
    /// Every Redis that is configured.
    pub redis: BTreeMap<NodeId, Measured<RedisServerFacts>>,
    /// Every supervisor.
    pub supervisors: BTreeMap<NodeId, SupervisorFacts>,
    /// Version of this program.
    pub version: &'static str,
}

/// Whether a node's servers are stopped on purpose because another node became main.
pub(super) fn is_fenced(status: NodeStatus) -> bool {
    matches!(status, NodeStatus::Fencing | NodeStatus::Fenced)
}

/// Why a PostgreSQL could not be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoAnswer {
    /// The message for people.
    pub words: String,
    /// The SQLSTATE of the refusal; nothing if no server answered.
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

    /// A PostgreSQL that answers.
    #[must_use]
    pub fn server(&self, node: NodeId) -> Option<&ServerFacts> {
        self.servers.get(&node)?.as_ref().ok()
    }

    /// Whether a node's supervisor fenced it because another node became main: its servers are stopped on purpose.
    #[must_use]
    pub fn is_fenced(&self, node: NodeId) -> bool {
        let report = self.supervisors.get(&node).and_then(|supervisor| supervisor.report.as_ref().ok());
        report.is_some_and(|report| is_fenced(report.status))
    }

    /// This node's role as its PostgreSQL shows it, or as its supervisor reports it if PostgreSQL does not answer.
    pub(super) fn role_by_server_or_supervisor(&self) -> Option<Role> {
        if let Some(server) = self.server(self.here) {
            return Some(if server.in_recovery { Role::Secondary } else { Role::Main });
        }
        let report = self.supervisors.get(&self.here).and_then(|supervisor| supervisor.report.as_ref().ok());
        report.map(|report| report.role)
    }

    /// The role in which the data directory here must start; nothing if the role is not known or this node is fenced.
    #[must_use]
    pub fn starts_as(&self) -> Option<Role> {
        let told = || self.role_by_server_or_supervisor().or(self.machine.role_in_journal);
        if self.is_fenced(self.here) && self.server(self.here).is_none() { None } else { told() }
    }

    /// Main: the node of the only PostgreSQL that takes writes.
    #[must_use]
    pub fn main(&self) -> Option<NodeId> {
        match self.primaries().as_slice() {
            [only] => Some(*only),
            _ => None,
        }
    }

    /// The nodes of all PostgreSQLs that take writes.
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

/// What a PostgreSQL reports about itself. Sizes in `settings` are in the units of `pg_settings`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ServerFacts {
    /// `server_version_num`.
    pub version: u32,
    /// System identifier.
    pub system_id: String,
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// Its timeline; nothing if the server does not report it.
    pub timeline: Option<u32>,
    /// Whether the supervisor's user is a superuser.
    pub superuser: bool,
    /// Settings, as they are in force.
    pub settings: BTreeMap<String, String>,
    /// Limits in the configuration files: they are in force from the next start on.
    pub at_next_start: BTreeMap<String, String>,
    /// Lines of the configuration files that the server would not take.
    #[serde(default)]
    pub file_errors: Vec<String>,
    /// Lines of the configuration files that would end the recovery of a standby, in force or not.
    #[serde(default)]
    pub ends_recovery: Vec<FileLine>,
    /// The command line with which it was started, from `postmaster.opts`.
    pub started_with: Option<String>,
    /// `default_transaction_read_only`, if a configuration file sets it.
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
    /// The WAL receiver, on a standby.
    pub receiver: Option<Receiver>,
    /// Whether replay was paused by hand.
    #[serde(default)]
    pub replay_paused: bool,
    /// The file whose archiving failed, if the newest attempt failed.
    pub archive_failing: Option<String>,
    /// Tablespaces outside the data directory.
    #[serde(default)]
    pub tablespaces: Vec<String>,
    /// The number of prepared transactions that are not decided.
    pub prepared: u64,
    /// The replication user.
    pub replication_role: Option<ReplicationRole>,
    /// Collation versions by database: as recorded, and as the machine has it now.
    #[serde(default)]
    pub collations: BTreeMap<String, Collation>,
    /// Version of the C library's locales.
    pub libc: Option<String>,
    /// Bytes of all databases; nothing if they could not be counted in time.
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
    /// A setting's value; empty if the server does not know the setting.
    #[must_use]
    pub fn setting(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }

    /// The value of a setting on the command line, which overrides every file.
    #[must_use]
    pub fn on_command_line(&self, name: &str) -> Option<&str> {
        on_command_line(self.started_with.as_deref()?, name)
    }

    /// The value of a setting that is a number.
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
    /// The number of the line.
    pub line: u32,
}

/// A replication slot.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// Whether a standby or another process uses it now.
    pub active: bool,
    /// `wal_status`: whether the WAL that it keeps is still there.
    pub wal_status: Option<String>,
}

/// A standby that receives WAL from this server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Standby {
    /// Its `application_name`.
    pub name: String,
    /// The slot that it uses.
    pub slot: Option<String>,
    /// `streaming`, or on the way there.
    pub state: String,
    /// `sync`, `quorum`, `async` or `potential`.
    pub sync_state: String,
    /// Bytes of WAL that it has not flushed.
    pub behind_bytes: Option<i64>,
}

/// The WAL receiver of a standby.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Receiver {
    /// `streaming`, or on the way there.
    pub status: String,
    /// The slot it uses.
    pub slot: Option<String>,
}

/// The rights of the replication user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct ReplicationRole {
    /// `LOGIN`.
    pub login: bool,
    /// `REPLICATION` or superuser.
    pub replication: bool,
    /// Whether its password is no longer valid.
    pub expired: bool,
}

/// Versions of a collation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Collation {
    /// The version with which indexes were built.
    pub recorded: Option<String>,
    /// The version with which this machine sorts.
    pub actual: Option<String>,
}

/// How far a clock is from this machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockDistance {
    /// The largest possible distance: half of the round trip is included.
    pub at_most_ms: u64,
    /// The smallest possible distance.
    pub at_least_ms: u64,
}

/// What a Redis reports about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisServerFacts {
    /// `redis_version`.
    pub version: String,
    /// Whether it is a master.
    pub master: bool,
    /// Whether a replica's link is up and no copy is under way.
    pub linked: bool,
    /// Replicas that are online.
    pub replicas: u64,
    /// `min-replicas-to-write`.
    pub min_replicas: u64,
    /// `maxmemory-policy`.
    pub memory_policy: String,
    /// Whether it demands a password from its replicas.
    pub demands_password: bool,
    /// Whether it has a password for the master that it would follow.
    pub has_password_for_master: bool,
    /// The configuration file with which it was started, and to which it writes its role; empty if there is none.
    pub config_file: String,
    /// `appendonly`.
    pub append_only: bool,
    /// `save`.
    pub save: String,
    /// The commands that it refuses to the supervisor, each with the reason.
    pub lacks: Vec<String>,
}

/// What a supervisor reports.
#[derive(Debug, Clone)]
pub struct SupervisorFacts {
    /// Its report, or why there is no report.
    pub report: Measured<NodeReport>,
    /// Whether it accepted a request with the cluster secret of this node.
    pub admitted: Measured<()>,
}

/// The measured facts of the machine on which doctor runs.
#[derive(Debug, Clone)]
pub struct MachineFacts {
    /// Problems with the files that hold secrets, each with its fix.
    pub secret_problems: Measured<Vec<Problem>>,
    /// Bytes free where the journal is; or why nothing can be written there.
    pub journal_room: Measured<u64>,
    /// How many of the newest events are sound, nothing before the first start; or what is wrong with them.
    pub journal_sound: Measured<Result<Option<usize>, String>>,
    /// Programs of PostgreSQL.
    pub programs: Measured<Programs>,
    /// The user that the servers run as.
    pub run_as: Measured<String>,
    /// Major version of the data directory.
    pub data_version: Measured<u32>,
    /// What PostgreSQL would take at its next start, or why it would not start.
    pub next_start: Measured<Result<NextStart, String>>,
    /// What the configuration says about PostgreSQL.
    pub configured: Configured,
    /// The files that decide in which role the data directory would start.
    pub signal_files: Measured<SignalFiles>,
    /// This node's role from its journal, which is read if neither its PostgreSQL nor its supervisor answers.
    pub role_in_journal: Option<Role>,
    /// Why the servers' user cannot change the settings in the data directory; nothing if it can.
    pub settings_file: Measured<Option<Problem>>,
    /// What the user who runs doctor may not read, if anything: other problems may have the same cause.
    pub stranger: Option<String>,
    /// Bytes free on the volume of `pg_wal`.
    pub wal_room: Measured<u64>,
    /// Bytes free next to the data directory.
    pub copy_room: Measured<u64>,
    /// Bytes free in the folder for kept copies, if that is on another volume.
    pub keep_room: Measured<Option<u64>>,
    /// Whether the folder for kept copies is on the data directory's volume.
    pub keeps_on_volume: Measured<bool>,
    /// Kept copies that may have rows that exist nowhere else, the newest first: the folder of each, and its bytes.
    pub not_salvaged: Measured<Vec<(PathBuf, u64)>>,
    /// Services of the operating system that would start what the supervisor owns.
    pub rivals: Measured<Vec<Rival>>,
    /// Commands of dependents and hooks: the name, and what is wrong with the command.
    pub commands: Measured<Vec<(String, Result<(), String>)>>,
    /// Readiness of dependents, if this node is main.
    pub ready: Vec<(String, Result<(), String>)>,
}

impl MachineFacts {
    /// Facts of which nothing could be measured, for one reason.
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

/// The files that decide in which role a data directory starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalFiles {
    /// `standby.signal`: it starts as a standby.
    pub standby: bool,
    /// `recovery.signal`: it starts a recovery from an archive, unless `standby.signal` is there too.
    pub recovery: bool,
}

/// The values that PostgreSQL would use at its next start, as it reports them.
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

/// What the configuration here says about PostgreSQL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Configured {
    /// `postgres.data_dir`.
    pub data_dir: PathBuf,
    /// `postgres.host`.
    pub host: String,
    /// `postgres.port`.
    pub port: u16,
    /// The host by which other nodes reach this node.
    pub address: String,
}

/// A problem with a file, and its fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub words: String,
    /// The command that fixes it.
    pub fix: String,
}

/// PostgreSQL's programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// Their folder.
    pub folder: PathBuf,
    /// The names of missing programs.
    pub missing: Vec<String>,
    /// Their major version.
    pub major: Option<u32>,
}

/// A service that starts or ends a server, which only the supervisor may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rival {
    /// Its name.
    pub unit: String,
    /// What it does.
    pub does: String,
    /// The command that prevents that.
    pub fix: String,
}
