//! The configuration file, `interrex.toml`: its keys, its defaults and its checks.
//!
//! Every key is documented here. An unknown key is refused, and the message names the nearest known key.
//! `INTERREX_<SECTION>_<KEY>` in the environment overrides a key of the file.

mod checks;
mod environment;
mod reading;
mod users;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use interrex_adapters::postgres::config_file;
use interrex_events::{Address, ClusterId, NodeId, Role, check_host};
use serde::{Deserialize, Deserializer, de::IntoDeserializer as _};

pub use self::{
    checks::read_secret,
    environment::Override,
    reading::ConfigError,
    users::{Users, user_name},
};

/// The folder of sealed segments, next to the journal, unless `retention.segments` says otherwise.
pub const SEGMENTS_FOLDER: &str = "segments";
/// The value of `retention.keep` with which no event is ever sealed.
pub const FOREVER: &str = "forever";

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What all nodes share.
    pub cluster: ClusterConfig,
    /// This node.
    pub node: NodeConfig,
    /// When a failover begins and when it is refused.
    #[serde(default)]
    pub failover: FailoverConfig,
    /// How this node comes back after another node became main.
    #[serde(default)]
    pub rejoin: RejoinConfig,
    /// How long events stay in the journal.
    #[serde(default)]
    pub retention: RetentionConfig,
    /// This node's PostgreSQL.
    pub postgres: PostgresConfig,
    /// This node's Redis, if it has one.
    pub redis: Option<RedisConfig>,
    /// Programs that must restart when this node becomes main, such as RADIUS.
    #[serde(default)]
    pub dependents: Vec<DependentConfig>,
    /// Commands to run at the end of a failover, such as a DNS update.
    #[serde(default)]
    pub hooks: Vec<HookConfig>,
    /// The other nodes.
    #[serde(default)]
    pub peers: Vec<PeerConfig>,
}

/// `[cluster]`: the same on every node.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// A UUID, the same on every node: `uuidgen` makes one.
    pub id: ClusterId,
    /// File with the secret that nodes show each other; only its owner may read it. At least 16 characters.
    pub secret_file: PathBuf,
}

/// `[node]`: this node.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// The node's number, unique in the cluster.
    pub id: NodeId,
    /// Its name for people.
    pub name: String,
    /// Its role when its journal is new: `main` or `secondary`. Later the role comes from the journal.
    pub role: Role,
    /// The address on which its supervisor listens, `address:port`; an IPv6 address in brackets.
    #[serde(deserialize_with = "listener")]
    pub listen: SocketAddr,
    /// The host by which other nodes and clients reach this node's servers, without a port; an IPv6 address without brackets.
    /// By default the host of `listen`.
    #[serde(default, deserialize_with = "host_option")]
    pub address: Option<String>,
    /// The journal's file, outside PGDATA, best on another volume.
    pub journal: PathBuf,
    /// The user that servers run as when the supervisor runs as root. By default the owner of `postgres.data_dir`.
    pub run_as: Option<String>,
    /// What happens to the servers when the supervisor is asked to end: `leave` keeps them running, `stop` stops them.
    #[serde(default)]
    pub on_exit: OnExit,
}

/// What happens to the servers when the supervisor is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExit {
    /// They keep running: a supervisor can be replaced without an outage.
    #[default]
    Leave,
    /// They are stopped cleanly, dependents first.
    Stop,
}

/// `[failover]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FailoverConfig {
    /// Whether this node may promote itself when main is lost.
    pub auto_failover_enabled: bool,
    /// How long main may be silent before a failover, in seconds.
    #[serde(deserialize_with = "seconds")]
    pub auto_failover_threshold_seconds: Duration,
    /// How often every peer is probed, such as `"1s"`.
    #[serde(deserialize_with = "duration")]
    pub probe_interval: Duration,
    /// Time limit for one probe, such as `"2s"`.
    #[serde(deserialize_with = "duration")]
    pub probe_timeout: Duration,
    /// A failover is refused if more bytes of WAL than this are known to be missing. Without it: never refused for this reason.
    pub maximum_lag_bytes: Option<u64>,
    /// How long after a run no other run begins automatically.
    #[serde(deserialize_with = "duration")]
    pub cool_down: Duration,
    /// How long a starting main waits for a peer to confirm that it is still main.
    #[serde(deserialize_with = "duration")]
    pub startup_wait: Duration,
    /// With quorum `none`: the `id` of the only node that may promote itself; the same on every node. Without it, in a cluster of
    /// two nodes the secondary may, and in a cluster of three or more no node may.
    pub candidate: Option<NodeId>,
    /// The third opinion before a node becomes main. `none` is the runbook's mode: no third opinion.
    pub quorum: Quorum,
}

impl Default for FailoverConfig {
    fn default() -> Self {
        Self {
            auto_failover_enabled: true,
            auto_failover_threshold_seconds: Duration::from_secs(120),
            probe_interval: Duration::from_secs(1),
            probe_timeout: Duration::from_secs(2),
            maximum_lag_bytes: None,
            cool_down: Duration::from_secs(600),
            startup_wait: Duration::from_secs(10),
            candidate: None,
            quorum: Quorum::None,
        }
    }
}

/// `[rejoin]`: how this node comes back as a secondary after another node became main.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RejoinConfig {
    /// Whether it comes back automatically, once it is proved that its servers are stopped. Otherwise a person runs
    /// `interrex rejoin`.
    pub automatic: bool,
    /// The folder of kept copies, best on the volume of the data directory. By default `NAME.kept` next to the data directory.
    pub keep_in: Option<PathBuf>,
    /// How many kept copies stay; older copies are removed when this node follows again. A copy without stranded rows never takes
    /// the place of a copy that has some.
    pub keep_newest: usize,
}

impl Default for RejoinConfig {
    fn default() -> Self {
        Self { automatic: false, keep_in: None, keep_newest: 2 }
    }
}

/// `[retention]`: old events are sealed into files, once `cluster_events` and a standby have them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionConfig {
    /// How long events stay in the journal, such as `"90d"`; `"forever"` seals none. At least `failover.cool_down`.
    #[serde(deserialize_with = "keep")]
    pub keep: Option<Duration>,
    /// The folder of the sealed segments, each a file in the form of `interrex export`. By default `segments` next to the journal.
    pub segments: Option<PathBuf>,
    /// The least number of events in a segment. A small cluster records the default number in some months. Dropping as many events
    /// from the journal takes as long as a few appends, so that no decision waits for it.
    pub segment_events: u64,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self { keep: Some(Duration::from_secs(90 * 24 * 3_600)), segments: None, segment_events: 10_000 }
    }
}

/// The third opinion that grants the right to be main.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quorum {
    /// No third opinion. A cut link and a dead main look the same: unprotected.
    None,
}

/// `[postgres]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresConfig {
    /// The data directory (PGDATA).
    pub data_dir: PathBuf,
    /// The folder of `postgres` and the other programs. By default a usual folder for the version of the data directory.
    pub bin_dir: Option<PathBuf>,
    /// `postgresql.conf`, if it is not in `data_dir`. By default the file in `/etc/postgresql` that names `data_dir`.
    pub config_file: Option<PathBuf>,
    /// Host that it listens on, or the folder of its socket.
    #[serde(default = "loopback", deserialize_with = "host_or_folder")]
    pub host: String,
    /// Port that it listens on.
    #[serde(default = "postgres_port", deserialize_with = "port")]
    pub port: u16,
    /// A superuser for the supervisor: promotion and replication settings need one.
    #[serde(default = "interrex")]
    pub user: String,
    /// The file with its password. Without it, no password is sent.
    pub password_file: Option<PathBuf>,
    /// Database in which the schema `interrex` lives.
    #[serde(default = "postgres_database")]
    pub database: String,
    /// The user with the right to replicate, as which a standby logs in to main.
    #[serde(default = "replicator")]
    pub replication_user: String,
    /// libpq password file (`.pgpass` form) for that user, readable by the user PostgreSQL runs as.
    pub replication_passfile: Option<PathBuf>,
    /// Its log file. By default `postgres.log` next to the journal.
    pub log_file: Option<PathBuf>,
    /// How long a clean stop may take when the supervisor stops PostgreSQL (`node.on_exit`), such as `"60s"`: PostgreSQL waits for
    /// its standbys and its archiver. Then it is stopped at once. `TimeoutStopSec` of the supervisor's unit must be longer.
    #[serde(default = "stop_timeout", deserialize_with = "duration")]
    pub stop_timeout: Duration,
}

/// `[redis]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisConfig {
    /// Its configuration file. Redis must be able to write it, because that is how a role survives a restart.
    pub config_file: PathBuf,
    /// The user that it runs as when the supervisor runs as root. By default the owner of its configuration
    /// file, on Debian `redis`.
    pub run_as: Option<String>,
    /// The program. By default `redis-server` on the path.
    pub program: Option<PathBuf>,
    /// Host that it listens on.
    #[serde(default = "loopback", deserialize_with = "host")]
    pub host: String,
    /// Port that it listens on.
    #[serde(default = "redis_port", deserialize_with = "port")]
    pub port: u16,
    /// The file with its password. Without it, no password is sent.
    pub password_file: Option<PathBuf>,
    /// After a request to end: how long Redis may neither answer nor write until it is killed. Saving its data may take longer, as
    /// long as it makes progress.
    #[serde(default = "redis_stop_timeout", deserialize_with = "duration")]
    pub stop_timeout: Duration,
}

/// `[[dependents]]`: a program that needs a restart when the role of main moves.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DependentConfig {
    /// Its name.
    pub name: String,
    /// Program and arguments; it must stay in the foreground.
    pub command: Vec<String>,
    /// Program and arguments of the readiness check: exit code 0 is ready.
    pub ready_command: Vec<String>,
    /// Time limit for the dependent to become ready, and for its restart.
    #[serde(default = "ready_timeout", deserialize_with = "duration")]
    pub ready_timeout: Duration,
    /// The file for its output. By default `NAME.log` next to the journal.
    pub log_file: Option<PathBuf>,
    /// The user that it and its readiness check run as when the supervisor runs as root; `"root"` for a program that gives up
    /// root's rights by itself. By default the user that PostgreSQL runs as.
    pub run_as: Option<String>,
}

/// `[[hooks]]`: a command at the end of a failover. Its environment has `INTERREX_EPOCH`, `INTERREX_RUN`, `INTERREX_NEW_MAIN` and
/// `INTERREX_OLD_MAIN`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HookConfig {
    /// Its name.
    pub name: String,
    /// Program and arguments: exit code 0 is success.
    pub command: Vec<String>,
    /// Time limit for the hook.
    #[serde(default = "hook_timeout", deserialize_with = "duration")]
    pub timeout: Duration,
    /// The user that it runs as when the supervisor runs as root, which may be `"root"`. By default the user that PostgreSQL
    /// runs as.
    pub run_as: Option<String>,
}

/// `[[peers]]`: another node.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    /// Its number.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// `host:port` of its supervisor, an IPv6 address in brackets: `[fd00::1]:7400`.
    #[serde(deserialize_with = "address")]
    pub address: Address,
    /// `host:port` of its PostgreSQL.
    #[serde(deserialize_with = "address")]
    pub postgres: Address,
    /// `host:port` of its Redis.
    #[serde(default, deserialize_with = "address_option")]
    pub redis: Option<Address>,
    /// Whether it is main when this node's journal is new.
    #[serde(default)]
    pub main: bool,
}

fn loopback() -> String {
    "127.0.0.1".to_owned()
}
fn postgres_port() -> u16 {
    5432
}
fn redis_port() -> u16 {
    6379
}
fn redis_stop_timeout() -> Duration {
    Duration::from_secs(30)
}
fn interrex() -> String {
    "interrex".to_owned()
}
fn postgres_database() -> String {
    "postgres".to_owned()
}
fn replicator() -> String {
    "replicator".to_owned()
}
fn stop_timeout() -> Duration {
    Duration::from_secs(60)
}
fn ready_timeout() -> Duration {
    Duration::from_secs(30)
}
fn hook_timeout() -> Duration {
    Duration::from_secs(10)
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

fn address_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Address>, D::Error> {
    address(deserializer).map(Some)
}

fn host<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    check_host(&text).map_err(|problem| {
        serde::de::Error::custom(format!(
            "`{text}` is not a host: {problem}; write for example 10.0.0.1, fd00::1 or db1.example, without a port"
        ))
    })?;
    Ok(text)
}

fn host_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    host(deserializer).map(Some)
}

fn host_or_folder<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.starts_with('/') { Ok(text) } else { host(text.into_deserializer()) }
}

fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let number = i64::deserialize(deserializer)?;
    u16::try_from(number).ok().filter(|port| *port > 0).ok_or_else(|| {
        serde::de::Error::custom(format!("{number} is not a port: write a number from 1 to 65535"))
    })
}

fn listener<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().ok().filter(|address: &SocketAddr| address.port() > 0).ok_or_else(|| {
        serde::de::Error::custom(format!(
            "`{text}` is not an address to listen on: write an address of this machine and a port, such as 10.0.0.1:7400 or \
             [fd00::1]:7400"
        ))
    })
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|error| {
        serde::de::Error::custom(format!("`{text}` is not a duration such as \"1s\" or \"250ms\": {error}"))
    })
}

fn keep<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text == FOREVER {
        return Ok(None);
    }
    humantime::parse_duration(&text).map(Some).map_err(|error| {
        serde::de::Error::custom(format!(
            "`{text}` is neither a duration such as \"90d\" nor \"{FOREVER}\": {error}"
        ))
    })
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)
}

impl Config {
    /// The host by which other nodes reach this node.
    #[must_use]
    pub fn address(&self) -> String {
        self.node.address.clone().unwrap_or_else(|| self.node.listen.ip().to_string())
    }

    /// The folder of kept copies.
    #[must_use]
    pub fn kept_folder(&self) -> PathBuf {
        let beside = || {
            let mut name = self.postgres.data_dir.file_name().unwrap_or_default().to_owned();
            name.push(".kept");
            self.postgres.data_dir.with_file_name(name)
        };
        self.rejoin.keep_in.clone().unwrap_or_else(beside)
    }

    /// `postgresql.conf`, if it is not in the data directory: the configured file, or Debian's own.
    #[must_use]
    pub fn postgres_config_file(&self) -> Option<PathBuf> {
        let found = || config_file::of_debian(&self.postgres.data_dir);
        self.postgres.config_file.clone().or_else(found)
    }

    /// The folder of the sealed segments.
    #[must_use]
    pub fn segments_folder(&self) -> PathBuf {
        self.retention.segments.clone().unwrap_or_else(|| self.beside_journal(SEGMENTS_FOLDER))
    }

    /// A path next to the journal.
    #[must_use]
    pub fn beside_journal(&self, name: &str) -> PathBuf {
        self.node.journal.with_file_name(name)
    }
}

#[cfg(test)]
mod tests;
