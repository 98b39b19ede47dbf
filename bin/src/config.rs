//! The one configuration file, `interrex.toml`: its shape, its defaults and what is wrong with it.
//!
//! Every key is documented here, where it is read. Unknown keys are refused with the nearest right one.
//! `INTERREX_<SECTION>_<KEY>` in the environment overrides a key of the file.

use std::{
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use interrex_events::{ClusterId, NodeId, Role};
use serde::{Deserialize, Deserializer};

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
    /// Where its supervisor listens, `address:port`.
    pub listen: SocketAddr,
    /// Host by which other nodes and clients reach this node's servers. By default the host of `listen`.
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
            quorum: Quorum::None,
        }
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
    /// Folder of `pg_ctl` and the other programs. By default the newest found on this machine.
    pub bin_dir: Option<PathBuf>,
    /// Host that it listens on.
    #[serde(default = "loopback")]
    pub host: String,
    /// Port that it listens on.
    #[serde(default = "postgres_port")]
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
}

/// `[redis]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisConfig {
    /// Its configuration file; Redis must be able to write it, for that is how a role survives a restart.
    pub config_file: PathBuf,
    /// The program. By default `redis-server` on the path.
    pub program: Option<PathBuf>,
    /// Host that it listens on.
    #[serde(default = "loopback")]
    pub host: String,
    /// Port that it listens on.
    #[serde(default = "redis_port")]
    pub port: u16,
    /// Its password's file. None: no password is sent.
    pub password_file: Option<PathBuf>,
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
}

/// `[[peers]]`: another node.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    /// Its number.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// `host:port` of its supervisor.
    pub address: String,
    /// `host:port` of its PostgreSQL.
    pub postgres: String,
    /// `host:port` of its Redis.
    pub redis: Option<String>,
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
fn interrex() -> String {
    "interrex".to_owned()
}
fn postgres_database() -> String {
    "postgres".to_owned()
}
fn replicator() -> String {
    "replicator".to_owned()
}
fn ready_timeout() -> Duration {
    Duration::from_secs(30)
}
fn hook_timeout() -> Duration {
    Duration::from_secs(10)
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|error| {
        serde::de::Error::custom(format!("`{text}` is not a duration such as \"1s\" or \"250ms\": {error}"))
    })
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)
}

/// Why a configuration cannot be used; each message says what, where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {error}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        error: std::io::Error,
    },
    /// The file is not TOML of the right shape.
    #[error("{path}: {message}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What, where, and the nearest right key.
        message: String,
    },
    /// The values contradict each other or the machine.
    #[error("{path}: {}", problems.join("\n"))]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Every problem found.
        problems: Vec<String>,
    },
}

impl Config {
    /// Reads and checks a file, with overrides from the environment.
    ///
    /// # Errors
    /// The file cannot be read, has unknown keys, or its values contradict each other.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?;
        // a supervisor's servers work in other folders: every path must stand without this one
        let absolute = std::path::absolute(path)
            .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?;
        let folder = absolute.parent().unwrap_or(Path::new("/"));
        Self::parse(&text, std::env::vars(), folder).map_err(|problem| match problem {
            Problem::Malformed(message) => ConfigError::Malformed { path: path.to_owned(), message },
            Problem::Wrong(problems) => ConfigError::Wrong { path: path.to_owned(), problems },
        })
    }

    fn parse(
        text: &str,
        environment: impl Iterator<Item = (String, String)>,
        folder: &Path,
    ) -> Result<Self, Problem> {
        let explain = |error: &toml::de::Error| Problem::Malformed(explain(error, text));
        // once as it stands, so that an error names a line of the file
        toml::from_str::<Self>(text).map_err(|error| explain(&error))?;
        let mut document: toml::Table = toml::from_str(text).map_err(|error| explain(&error))?;
        override_from(&mut document, environment)?;
        let mut config: Self = document.try_into().map_err(|error: toml::de::Error| {
            Problem::Malformed(format!("after overrides: {}", error.message()))
        })?;
        config.resolve_paths(folder);
        let problems = config.contradictions();
        if problems.is_empty() { Ok(config) } else { Err(Problem::Wrong(problems)) }
    }

    /// Relative paths are relative to the configuration file.
    fn resolve_paths(&mut self, folder: &Path) {
        let resolve = |path: &mut PathBuf| *path = folder.join(&*path);
        resolve(&mut self.cluster.secret_file);
        resolve(&mut self.node.journal);
        resolve(&mut self.postgres.data_dir);
        for path in [
            &mut self.postgres.password_file,
            &mut self.postgres.replication_passfile,
            &mut self.postgres.log_file,
        ] {
            path.iter_mut().for_each(resolve);
        }
        if let Some(redis) = &mut self.redis {
            resolve(&mut redis.config_file);
            redis.password_file.iter_mut().for_each(resolve);
        }
        for dependent in &mut self.dependents {
            dependent.log_file.iter_mut().for_each(resolve);
        }
    }

    /// What the values say against each other, without a look at the machine.
    fn contradictions(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut demand = |holds: bool, problem: String| {
            if !holds {
                problems.push(problem);
            }
        };
        let failover = &self.failover;
        demand(
            failover.probe_interval >= Duration::from_millis(20),
            "failover.probe_interval must be at least 20ms".to_owned(),
        );
        demand(
            failover.auto_failover_threshold_seconds >= 2 * failover.probe_interval,
            format!(
                "failover.auto_failover_threshold_seconds ({:?}) must be at least two probe intervals ({:?} each): \
                 one lost packet is no reason to fail over",
                failover.auto_failover_threshold_seconds, failover.probe_interval
            ),
        );
        demand(
            self.node.address.is_some() || !self.node.listen.ip().is_unspecified(),
            format!(
                "node.listen is {}, which no other node can reach: set node.address to this node's own",
                self.node.listen
            ),
        );
        demand(
            !failover.probe_timeout.is_zero(),
            "failover.probe_timeout must be more than nothing".to_owned(),
        );
        demand(
            self.node.role != Role::Standalone || self.peers.is_empty(),
            "node.role is `standalone`, but there are [[peers]]; use `main` or `secondary`".to_owned(),
        );
        let mains =
            self.peers.iter().filter(|peer| peer.main).count() + usize::from(self.node.role == Role::Main);
        demand(
            mains == 1 || self.node.role == Role::Standalone,
            format!(
                "exactly one node is main at the begin, but {mains} are: check node.role and `main = true` of [[peers]]"
            ),
        );
        let mut ids: Vec<NodeId> = self.peers.iter().map(|peer| peer.id).collect();
        ids.push(self.node.id);
        ids.sort_unstable();
        let total = ids.len();
        ids.dedup();
        demand(
            ids.len() == total,
            "two nodes have the same id: check node.id and `id` of [[peers]]".to_owned(),
        );
        demand(
            self.node.journal.starts_with(&self.postgres.data_dir).eq(&false),
            format!(
                "node.journal ({}) must lie outside postgres.data_dir: it outlives the database",
                self.node.journal.display()
            ),
        );
        for dependent in &self.dependents {
            demand(
                !dependent.command.is_empty() && !dependent.ready_command.is_empty(),
                format!("dependent `{}` needs a command and a ready_command", dependent.name),
            );
        }
        // what the step table in actors/src/failover/steps.rs gives these steps, less a margin
        let most = Duration::from_secs(110);
        demand(
            self.dependents.iter().all(|dependent| dependent.ready_timeout <= most),
            format!(
                "ready_timeout of [[dependents]] must be at most {most:?}: the step that waits for it is given up then"
            ),
        );
        demand(
            self.hooks.iter().map(|hook| hook.timeout).sum::<Duration>() <= most,
            format!(
                "the timeouts of all [[hooks]] together must be at most {most:?}: the step that runs them is given up then"
            ),
        );
        for hook in &self.hooks {
            demand(!hook.command.is_empty(), format!("hook `{}` needs a command", hook.name));
        }
        problems
    }

    /// What the machine says against the values: missing files, secrets that cannot be read.
    #[must_use]
    pub fn problems_on_this_machine(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Err(problem) = read_secret(&self.cluster.secret_file, "cluster.secret_file", 16) {
            problems.push(problem);
        }
        if !self.postgres.data_dir.join("PG_VERSION").is_file() {
            problems.push(format!(
                "postgres.data_dir: {} is no PostgreSQL data directory (no PG_VERSION in it); \
                 make one with initdb on main, with pg_basebackup on a secondary",
                self.postgres.data_dir.display()
            ));
        }
        if let Some(file) = &self.postgres.password_file
            && let Err(problem) = read_secret(file, "postgres.password_file", 1)
        {
            problems.push(problem);
        }
        if let Some(redis) = &self.redis {
            if !redis.config_file.is_file() {
                problems.push(format!("redis.config_file: {} is missing", redis.config_file.display()));
            }
            if let Some(file) = &redis.password_file
                && let Err(problem) = read_secret(file, "redis.password_file", 1)
            {
                problems.push(problem);
            }
        }
        match self.node.journal.parent() {
            Some(folder) if folder.is_dir() => {}
            _ => problems.push(format!(
                "node.journal: the folder of {} does not exist; create it",
                self.node.journal.display()
            )),
        }
        problems
    }

    /// Host by which others reach this node.
    #[must_use]
    pub fn address(&self) -> String {
        self.node.address.clone().unwrap_or_else(|| self.node.listen.ip().to_string())
    }

    /// A file beside the journal.
    #[must_use]
    pub fn beside_journal(&self, name: &str) -> PathBuf {
        self.node.journal.with_file_name(name)
    }
}

/// Reads a secret from its file, without the line's end.
///
/// # Errors
/// The file cannot be read, can be read by others, or holds too little.
pub fn read_secret(path: &Path, key: &str, at_least: usize) -> Result<String, String> {
    let mode = std::fs::metadata(path).map(|file| file.permissions().mode()).unwrap_or_default();
    if mode & 0o077 != 0 {
        return Err(format!(
            "{key}: {} can be read by others (mode {:o}): chmod 600 it",
            path.display(),
            mode & 0o777
        ));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("{key}: cannot read {}: {error}", path.display()))?;
    let secret = text.trim_end_matches(['\r', '\n']).to_owned();
    if secret.len() < at_least {
        return Err(format!(
            "{key}: {} holds {} characters, and needs at least {at_least}",
            path.display(),
            secret.len()
        ));
    }
    Ok(secret)
}

enum Problem {
    Malformed(String),
    Wrong(Vec<String>),
}

/// `INTERREX_FAILOVER_PROBE_INTERVAL=2s` sets `failover.probe_interval`.
fn override_from(
    document: &mut toml::Table,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<(), Problem> {
    for (variable, value) in environment {
        let Some(rest) = variable.strip_prefix("INTERREX_") else { continue };
        let Some((section, key)) = rest.split_once('_') else { continue };
        let section = section.to_lowercase();
        if !["cluster", "node", "failover", "postgres", "redis"].contains(&section.as_str()) {
            continue;
        }
        let table = document.entry(section.clone()).or_insert_with(|| toml::Table::new().into());
        let Some(table) = table.as_table_mut() else {
            return Err(Problem::Malformed(format!("{variable}: `{section}` is not a section")));
        };
        // a number or a truth value where it reads as one, a text otherwise
        let parsed = toml::from_str::<toml::Table>(&format!("value = {value}"))
            .ok()
            .and_then(|mut table| table.remove("value"))
            .unwrap_or(toml::Value::String(value));
        table.insert(key.to_lowercase(), parsed);
    }
    Ok(())
}

/// A TOML error with its line, and for an unknown key the nearest right one.
fn explain(error: &toml::de::Error, text: &str) -> String {
    let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let place = line.map_or_else(String::new, |line| format!("line {line}: "));
    let message = error.message();
    let mut quoted = message.split('`').skip(1).step_by(2);
    if !message.starts_with("unknown field") {
        return format!("{place}{message}");
    }
    let unknown = quoted.next().unwrap_or_default();
    let known: Vec<&str> = quoted.collect();
    let nearest = known
        .iter()
        .max_by(|a, b| strsim::jaro_winkler(unknown, a).total_cmp(&strsim::jaro_winkler(unknown, b)));
    match nearest {
        Some(nearest) => format!(
            "{place}unknown key `{unknown}`; did you mean `{nearest}`? (keys here: {})",
            known.join(", ")
        ),
        None => format!("{place}unknown key `{unknown}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"
[cluster]
id = "018f0000-0000-7000-8000-000000000001"
secret_file = "secret"
[node]
id = 2
name = "beta"
role = "secondary"
listen = "127.0.0.1:7402"
journal = "journal.db"
[postgres]
data_dir = "pgdata"
[[peers]]
id = 1
name = "alpha"
address = "127.0.0.1:7401"
postgres = "127.0.0.1:5401"
main = true
"#;

    fn parse(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let environment = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Config::parse(text, environment, Path::new("/etc/interrex")).map_err(|problem| match problem {
            Problem::Malformed(message) => message,
            Problem::Wrong(problems) => problems.join("\n"),
        })
    }

    #[test]
    fn a_minimal_file_has_the_runbooks_defaults() {
        let config = parse(MINIMAL, &[]).unwrap();
        assert_eq!(config.failover.auto_failover_threshold_seconds, Duration::from_secs(120));
        assert!(config.failover.auto_failover_enabled);
        assert_eq!(config.node.journal, Path::new("/etc/interrex/journal.db"));
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_the_nearest_right_one() {
        let text = MINIMAL.replace("[postgres]", "[failover]\nprobe_intervall = \"1s\"\n[postgres]");
        let error = parse(&text, &[]).unwrap_err();
        assert!(
            error.starts_with("line 12: unknown key `probe_intervall`; did you mean `probe_interval`?"),
            "{error}"
        );
    }

    #[test]
    fn the_environment_overrides_the_file_and_is_checked_like_it() {
        let config = parse(MINIMAL, &[("INTERREX_FAILOVER_PROBE_INTERVAL", "250ms")]).unwrap();
        assert_eq!(config.failover.probe_interval, Duration::from_millis(250));
        let config = parse(MINIMAL, &[("INTERREX_FAILOVER_AUTO_FAILOVER_ENABLED", "false")]).unwrap();
        assert!(!config.failover.auto_failover_enabled);
        assert!(parse(MINIMAL, &[("INTERREX_FAILOVER_PROBE", "1s")]).unwrap_err().contains("unknown field"));
    }

    #[test]
    fn values_that_contradict_each_other_are_all_named() {
        let text = MINIMAL
            .replace("main = true", "main = false")
            .replace("id = 1\n", "id = 2\n")
            .replace("journal = \"journal.db\"", "journal = \"pgdata/journal.db\"")
            .replace("127.0.0.1:7402", "0.0.0.0:7402");
        let error = parse(&text, &[]).unwrap_err();
        assert_eq!(error.lines().count(), 4, "{error}");
    }
}
