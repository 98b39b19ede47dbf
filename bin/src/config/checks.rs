//! Checks of a configuration that was read: its values against each other, and against this machine.

use std::{
    io::ErrorKind,
    os::unix::fs::{MetadataExt as _, PermissionsExt},
    path::Path,
    time::Duration,
};

use interrex_adapters::{postgres::config_file, runtime::RunAs, secret::Secret};
use interrex_events::{Address, NodeId, Role};

use super::{Config, users::user_name};

impl Config {
    /// Contradictions between the values, without a check of the machine.
    pub(super) fn contradictions(&self) -> Vec<String> {
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
                 one lost packet must not cause a failover",
                failover.auto_failover_threshold_seconds, failover.probe_interval
            ),
        );
        demand(
            failover.probe_timeout <= failover.auto_failover_threshold_seconds,
            format!(
                "failover.probe_timeout ({:?}) must be at most auto_failover_threshold_seconds ({:?}): otherwise a main that \
                 hangs is detected later than that, or never",
                failover.probe_timeout, failover.auto_failover_threshold_seconds
            ),
        );
        demand(
            failover
                .candidate
                .is_none_or(|node| node == self.node.id || self.peers.iter().any(|peer| peer.id == node)),
            format!(
                "failover.candidate is {}, and no node has that id: write the id of [node] or of one of [[peers]]",
                failover.candidate.unwrap_or(self.node.id)
            ),
        );
        let own = [
            Address::new(&self.postgres.host, self.postgres.port).to_string(),
            Address::new(self.address(), self.node.listen.port()).to_string(),
        ];
        for peer in &self.peers {
            for (key, theirs) in [("postgres", &peer.postgres), ("address", &peer.address)] {
                demand(
                    !own.contains(&theirs.to_string()),
                    format!(
                        "{key} of [[peers]] {} is this node's own, {theirs}: write the {key} of that node",
                        peer.name
                    ),
                );
            }
            demand(
                peer.name != self.node.name,
                format!("[[peers]] {} has the name of this node: every node needs its own name", peer.name),
            );
        }
        demand(
            self.node.address.is_some() || !self.node.listen.ip().is_unspecified(),
            format!(
                "node.listen is {}, which no other node can reach: set node.address to this node's own address",
                self.node.listen
            ),
        );
        demand(
            self.node.address.as_deref().is_none_or(|host| !Address::is_unspecified(host)),
            "node.address means every address, and no other node can connect to that: write this node's own address, such as \
             10.0.0.1, fd00::1 or db1.example"
                .to_owned(),
        );
        for peer in &self.peers {
            let others = [
                ("address", Some(&peer.address)),
                ("postgres", Some(&peer.postgres)),
                ("redis", peer.redis.as_ref()),
            ];
            for (key, address) in others {
                demand(
                    address.is_none_or(|address| !Address::is_unspecified(&address.host)),
                    format!(
                        "{key} of [[peers]] {} means every address, and no node can connect to that: write that node's own address",
                        peer.name
                    ),
                );
            }
        }
        demand(!failover.probe_timeout.is_zero(), "failover.probe_timeout must be more than 0s".to_owned());
        demand(
            self.node.role != Role::Standalone || self.peers.is_empty(),
            "node.role is `standalone`, but there are [[peers]]; use `main` or `secondary`".to_owned(),
        );
        let mains =
            self.peers.iter().filter(|peer| peer.main).count() + usize::from(self.node.role == Role::Main);
        demand(
            mains == 1 || self.node.role == Role::Standalone,
            format!(
                "exactly one node must be main at the beginning, but {mains} are: check node.role and `main = true` of [[peers]]"
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
                "node.journal ({}) must be outside postgres.data_dir: the journal outlives the database",
                self.node.journal.display()
            ),
        );
        let retention = &self.retention;
        demand(
            retention.keep.is_none_or(|keep| keep >= failover.cool_down),
            format!(
                "retention.keep ({}) must be at least failover.cool_down ({}): the last run decides when the next run may begin",
                retention.keep.map_or_else(String::new, |keep| humantime::format_duration(keep).to_string()),
                humantime::format_duration(failover.cool_down)
            ),
        );
        demand(retention.segment_events > 0, "retention.segment_events must be at least 1".to_owned());
        demand(
            retention.segments.as_ref().is_none_or(|folder| !folder.starts_with(&self.postgres.data_dir)),
            format!(
                "retention.segments ({}) must be outside postgres.data_dir: the segments outlive the database",
                self.segments_folder().display()
            ),
        );
        demand(
            self.rejoin.keep_newest > 0,
            "rejoin.keep_newest must be at least 1: the newest kept copy is never removed".to_owned(),
        );
        demand(
            !self.kept_folder().starts_with(&self.postgres.data_dir),
            format!(
                "rejoin.keep_in ({}) must be outside postgres.data_dir: kept copies outlive the data directory",
                self.kept_folder().display()
            ),
        );
        for dependent in &self.dependents {
            demand(
                !dependent.command.is_empty() && !dependent.ready_command.is_empty(),
                format!("dependent `{}` needs a command and a ready_command", dependent.name),
            );
        }
        // the limit of these steps in actors/src/failover/steps.rs, less a margin
        let most = Duration::from_secs(110);
        demand(
            self.dependents.iter().all(|dependent| dependent.ready_timeout <= most),
            format!(
                "ready_timeout of [[dependents]] must be at most {most:?}: the step that waits for the dependent ends after that \
                 time"
            ),
        );
        demand(
            self.hooks.iter().map(|hook| hook.timeout).sum::<Duration>() <= most,
            format!(
                "the timeouts of all [[hooks]] together must be at most {most:?}: the step that runs the hooks ends after that time"
            ),
        );
        demand(
            self.postgres.stop_timeout >= Duration::from_millis(500),
            "postgres.stop_timeout must be at least 500ms: PostgreSQL needs time for a clean stop".to_owned(),
        );
        for hook in &self.hooks {
            demand(!hook.command.is_empty(), format!("hook `{}` needs a command", hook.name));
        }
        problems
    }

    /// Problems with the values on this machine, such as missing files and secrets that cannot be read.
    #[must_use]
    pub fn problems_on_this_machine(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Err(problem) = read_secret(&self.cluster.secret_file, "cluster.secret_file", 16) {
            problems.push(problem);
        }
        problems.extend(no_data_directory(&self.postgres.data_dir));
        problems.extend(self.problem_with_config_file());
        if let Some(file) = &self.postgres.password_file
            && let Err(problem) = read_secret(file, "postgres.password_file", 1)
        {
            problems.push(problem);
        }
        if let Some(redis) = &self.redis {
            if let Some(problem) = closed("redis.config_file", &redis.config_file) {
                problems.push(problem);
            } else if !redis.config_file.is_file() {
                problems.push(format!("redis.config_file: {} is missing", redis.config_file.display()));
            }
            if let Some(file) = &redis.password_file
                && let Err(problem) = read_secret(file, "redis.password_file", 1)
            {
                problems.push(problem);
            }
        }
        let segments = self.segments_folder();
        if segments.exists() && !segments.is_dir() {
            problems.push(format!("retention.segments: {} is not a folder", segments.display()));
        }
        problems.extend(written_by_others("retention.segments", &segments));
        match self.node.journal.parent() {
            Some(folder) if folder.is_dir() => problems.extend(written_by_others("node.journal", folder)),
            Some(folder) if closed("node.journal", folder).is_some() => {
                problems.extend(closed("node.journal", folder));
            }
            _ => problems.push(format!(
                "node.journal: the folder of {} does not exist; create it",
                self.node.journal.display()
            )),
        }
        problems
    }
}

/// Why there is no data directory, or why it cannot be examined. A missing data directory must be certain before a new one is made.
fn no_data_directory(data_dir: &Path) -> Option<String> {
    let shown = data_dir.display();
    let version = data_dir.join("PG_VERSION");
    if version.is_file() {
        return None;
    }
    closed("postgres.data_dir", &version).or_else(|| {
        Some(format!(
            "postgres.data_dir: {shown} is not a PostgreSQL data directory (it has no PG_VERSION); \
             make one with initdb on main, with pg_basebackup on a secondary"
        ))
    })
}

/// Why a file cannot be examined: then it is not known whether the file is missing.
fn closed(key: &str, file: &Path) -> Option<String> {
    let error = std::fs::metadata(file).err()?;
    (!matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)).then(|| {
        format!(
            "{key}: the user {1} cannot examine {0}: {error}; run this as root, or as the user that the supervisor runs as, such \
             as with sudo",
            file.display(),
            user_name(RunAs::Myself)
        )
    })
}

/// A supervisor that runs as root trusts its journal and the files next to it, for example the names of processes to end: no other
/// user may write there.
fn written_by_others(key: &str, folder: &Path) -> Option<String> {
    let found = std::fs::metadata(folder).ok()?;
    let others = found.uid() != 0 || found.mode() & 0o022 != 0;
    (rustix::process::geteuid().is_root() && others).then(|| {
        let folder = folder.display();
        format!(
            "{key}: the supervisor runs as root, but another user may write in {folder}: chown root {folder} && chmod go-w \
             {folder}"
        )
    })
}

impl Config {
    /// A message if PostgreSQL has no configuration file. An interrupted rewind may have moved the file out of the data directory;
    /// the supervisor puts it back, so this does not keep it from starting.
    #[must_use]
    pub fn lacks_configuration(&self) -> Option<String> {
        let data_dir = &self.postgres.data_dir;
        let is_missing = self.postgres_config_file().is_none()
            && data_dir.join("PG_VERSION").is_file()
            && !data_dir.join(config_file::NAME).exists();
        is_missing.then(|| {
            format!(
                "postgres.config_file: there is no {} in {}, and no file in {}/VERSION/NAME has that directory as data_directory; \
                 set postgres.config_file to the server's {}",
                config_file::NAME,
                data_dir.display(),
                config_file::DEBIAN,
                config_file::NAME
            )
        })
    }

    /// A problem with the existing configuration file of PostgreSQL.
    fn problem_with_config_file(&self) -> Option<String> {
        let data_dir = &self.postgres.data_dir;
        let file = match self.postgres_config_file() {
            Some(file) => file,
            None => data_dir.join(config_file::NAME),
        };
        if let Some(named) = &self.postgres.config_file
            && let Err(error) = std::fs::metadata(named)
        {
            return Some(format!("postgres.config_file: {}: {error}", named.display()));
        }
        let named = config_file::value(&file, "data_directory").filter(|named| !named.is_empty())?;
        (!config_file::is_same(Path::new(&named), data_dir)).then(|| {
            format!(
                "postgres.config_file: {} has data_directory {named}, not postgres.data_dir ({}): PostgreSQL would start with \
                 that data directory",
                file.display(),
                data_dir.display()
            )
        })
    }
}

/// Reads a secret from its file, without the end of the line.
///
/// # Errors
/// The file cannot be read, other users can read it, or the secret is too short.
pub fn read_secret(path: &Path, key: &str, at_least: usize) -> Result<Secret, String> {
    let mode = std::fs::metadata(path).map(|file| file.permissions().mode()).unwrap_or_default();
    if mode & 0o077 != 0 {
        return Err(format!(
            "{key}: other users can read {} (mode {:o}): chmod 600 it",
            path.display(),
            mode & 0o777
        ));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("{key}: cannot read {}: {error}", path.display()))?;
    let secret = text.trim_end_matches(['\r', '\n']).to_owned();
    if secret.len() < at_least {
        return Err(format!(
            "{key}: {} has {} characters, but needs at least {at_least}",
            path.display(),
            secret.len()
        ));
    }
    Ok(secret.into())
}
