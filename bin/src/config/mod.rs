//! The one configuration file, `interrex.toml`: its shape, its defaults and what is wrong with it.
//!
//! Every key is documented here, where it is read. Unknown keys are refused with the nearest right one.
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

/// Where sealed segments are, beside the journal, unless `retention.segments` says otherwise.
pub const SEGMENTS_FOLDER: &str = "segments";
/// What `retention.keep` says where nothing is ever sealed.
pub const FOREVER: &str = "forever";

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What all nodes share.
    pub cluster: ClusterConfig,
    /// This node.
    pub node: NodeConfig,
    /// When and how a failover is made.
    #[serde(default)]
    pub failover: FailoverConfig,
    /// How this node comes back when another one became main.
    #[serde(default)]
    pub rejoin: RejoinConfig,
    /// How long events stay in the journal.
    #[serde(default)]
    pub retention: RetentionConfig,
    /// This node's PostgreSQL.
    pub postgres: PostgresConfig,
    /// This node's Redis, where it has one.
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
    /// Its number, unique in the cluster.
    pub id: NodeId,
    /// Its name for people.
    pub name: String,
    /// Its role when its journal is new: `main` or `secondary`. Later the journal knows.
    pub role: Role,
    /// Where its supervisor listens, `address:port`, an IPv6 address in brackets.
    #[serde(deserialize_with = "listener")]
    pub listen: SocketAddr,
    /// Host by which other nodes and clients reach this node's servers, without a port; an IPv6 address without brackets. By
    /// default the host of `listen`.
    #[serde(default, deserialize_with = "host_option")]
    pub address: Option<String>,
    /// The journal's file, outside PGDATA, best on another volume.
    pub journal: PathBuf,
    /// The user that servers run as when the supervisor runs as root. By default the owner of `postgres.data_dir`.
    pub run_as: Option<String>,
    /// What happens to the servers when the supervisor is asked to end: `leave` them running, or `stop` them.
    #[serde(default)]
    pub on_exit: OnExit,
}

/// What happens to the servers when the supervisor ends in good order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExit {
    /// They go on serving: a supervisor can be replaced without an outage.
    #[default]
    Leave,
    /// They are stopped in good order, dependents first.
    Stop,
}

/// `[failover]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FailoverConfig {
    /// Whether this node may promote itself when main is lost.
    pub auto_failover_enabled: bool,
    /// How long main may be silent, in seconds.
    #[serde(deserialize_with = "seconds")]
    pub auto_failover_threshold_seconds: Duration,
    /// How often every peer is probed, such as `"1s"`.
    #[serde(deserialize_with = "duration")]
    pub probe_interval: Duration,
    /// When one probe is given up, such as `"2s"`.
    #[serde(deserialize_with = "duration")]
    pub probe_timeout: Duration,
    /// A failover is refused when more bytes of log than this are known to be missing. None: never refused.
    pub maximum_lag_bytes: Option<u64>,
    /// How long after a run no other begins by itself.
    #[serde(deserialize_with = "duration")]
    pub cool_down: Duration,
    /// How long a starting main waits for a peer to confirm that it is still main.
    #[serde(deserialize_with = "duration")]
    pub startup_wait: Duration,
    /// With quorum `none`: the `id` of the one node that may promote itself; the same on every node. Without it, of two nodes
    /// the secondary may, and of three or more none.
    pub candidate: Option<NodeId>,
    /// Who is asked before a node becomes main: `none` is the runbook's mode of two nodes without a third opinion.
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

/// `[rejoin]`: how this node comes back as a secondary when another one became main.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RejoinConfig {
    /// Whether it does so by itself, once it is proved that its servers are stopped. Otherwise somebody says
    /// `interrex rejoin`.
    pub automatic: bool,
    /// Folder of data that only this node had, on the volume of the data directory. By default `NAME.kept` beside the
    /// data directory.
    pub keep_in: Option<PathBuf>,
    /// How many of those copies stay; older ones are removed when this node follows again. One in which nothing is that main
    /// lacked never takes the place of one in which something is.
    pub keep_newest: usize,
}

impl Default for RejoinConfig {
    fn default() -> Self {
        Self { automatic: false, keep_in: None, keep_newest: 2 }
    }
}

/// `[retention]`: old events are sealed into files, once `cluster_events` and a standby hold them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionConfig {
    /// How long events stay in the journal, such as `"90d"`; `"forever"` seals none. At least `failover.cool_down`.
    #[serde(deserialize_with = "keep")]
    pub keep: Option<Duration>,
    /// Folder of the sealed segments, each a file as `interrex export` writes it. By default `segments` beside the
    /// journal.
    pub segments: Option<PathBuf>,
    /// Events in a segment, at least. A small cluster records so many in some months; and as many are dropped
    /// within the time of a few appends, so that no decision waits for it.
    pub segment_events: u64,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self { keep: Some(Duration::from_secs(90 * 24 * 3_600)), segments: None, segment_events: 10_000 }
    }
}

/// The source of the right to be main.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quorum {
    /// Nobody is asked. A cut link and a dead main look the same: unprotected.
    None,
}

/// `[postgres]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresConfig {
    /// PGDATA.
    pub data_dir: PathBuf,
    /// Folder of `postgres` and the other programs. By default the newest found on this machine.
    pub bin_dir: Option<PathBuf>,
    /// `postgresql.conf`, where it does not lie in `data_dir`. By default the one of `/etc/postgresql` that names `data_dir`.
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
    /// Its password's file. None: no password is sent.
    pub password_file: Option<PathBuf>,
    /// Database in which the schema `interrex` lives.
    #[serde(default = "postgres_database")]
    pub database: String,
    /// User with the right to replicate, with which a standby logs in to main.
    #[serde(default = "replicator")]
    pub replication_user: String,
    /// libpq password file (`.pgpass` form) for that user, readable by the user PostgreSQL runs as.
    pub replication_passfile: Option<PathBuf>,
    /// Where its log goes. By default `postgres.log` beside the journal.
    pub log_file: Option<PathBuf>,
    /// How long it may take to stop in good order when the supervisor stops it (`node.on_exit`), such as `"60s"`: it waits for
    /// its standbys and its archiver. Then it is ended at once. `TimeoutStopSec` of the supervisor's unit must be longer.
    #[serde(default = "stop_timeout", deserialize_with = "duration")]
    pub stop_timeout: Duration,
}

/// `[redis]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisConfig {
    /// Its configuration file; Redis must be able to write it, for that is how a role survives a restart.
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
    /// Its password's file. None: no password is sent.
    pub password_file: Option<PathBuf>,
    /// How long Redis may answer nobody and write nothing, once it was asked to end, until it is killed. Saving what it has takes
    /// longer than that without harm, as long as it gets on with it.
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
    /// When the readiness check is given up, and the restart with it.
    #[serde(default = "ready_timeout", deserialize_with = "duration")]
    pub ready_timeout: Duration,
    /// Where its output goes. By default `NAME.log` beside the journal.
    pub log_file: Option<PathBuf>,
    /// The user that it and its readiness check run as when the supervisor runs as root; `"root"` for a program that gives
    /// root's rights up by itself. By default the user that PostgreSQL runs as.
    pub run_as: Option<String>,
}

/// `[[hooks]]`: a command at the end of a failover. It sees `INTERREX_EPOCH`, `INTERREX_RUN`,
/// `INTERREX_NEW_MAIN` and `INTERREX_OLD_MAIN`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HookConfig {
    /// Its name.
    pub name: String,
    /// Program and arguments: exit code 0 is success.
    pub command: Vec<String>,
    /// When it is given up.
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
            "`{text}` is no host: {problem}; write 10.0.0.1, fd00::1 or db1.example, without a port"
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
        serde::de::Error::custom(format!("{number} is no port: it must be a number from 1 to 65535"))
    })
}

fn listener<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().ok().filter(|address: &SocketAddr| address.port() > 0).ok_or_else(|| {
        serde::de::Error::custom(format!(
            "`{text}` is nothing to listen on: write an address of this machine and a port, 10.0.0.1:7400 or [fd00::1]:7400"
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
    /// Host by which others reach this node.
    #[must_use]
    pub fn address(&self) -> String {
        self.node.address.clone().unwrap_or_else(|| self.node.listen.ip().to_string())
    }

    /// Folder of data that only this node had when another one became main.
    #[must_use]
    pub fn kept_folder(&self) -> PathBuf {
        let beside = || {
            let mut name = self.postgres.data_dir.file_name().unwrap_or_default().to_owned();
            name.push(".kept");
            self.postgres.data_dir.with_file_name(name)
        };
        self.rejoin.keep_in.clone().unwrap_or_else(beside)
    }

    /// `postgresql.conf`, where it does not lie in the data directory: the one that is named, or Debian's own.
    #[must_use]
    pub fn postgres_config_file(&self) -> Option<PathBuf> {
        let found = || config_file::of_debian(&self.postgres.data_dir);
        self.postgres.config_file.clone().or_else(found)
    }

    /// Folder of the sealed segments.
    #[must_use]
    pub fn segments_folder(&self) -> PathBuf {
        self.retention.segments.clone().unwrap_or_else(|| self.beside_journal(SEGMENTS_FOLDER))
    }

    /// A file beside the journal.
    #[must_use]
    pub fn beside_journal(&self, name: &str) -> PathBuf {
        self.node.journal.with_file_name(name)
    }
}

#[cfg(test)]
mod tests;
