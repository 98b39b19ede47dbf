//! What is wrong with a configuration that reads well: its values against each other, and against this machine.

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
    /// What the values say against each other, without a look at the machine.
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
                 one lost packet is no reason to fail over",
                failover.auto_failover_threshold_seconds, failover.probe_interval
            ),
        );
        demand(
            failover.probe_timeout <= failover.auto_failover_threshold_seconds,
            format!(
                "failover.probe_timeout ({:?}) must be at most auto_failover_threshold_seconds ({:?}): a main that hangs would be \
                 found dead later than that, or never",
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
                        "{key} of [[peers]] {} is this node's own, {theirs}: write that node's",
                        peer.name
                    ),
                );
            }
            demand(
                peer.name != self.node.name,
                format!(
                    "[[peers]] {} has the name of this node: every node has a name of its own",
                    peer.name
                ),
            );
        }
        demand(
            self.node.address.is_some() || !self.node.listen.ip().is_unspecified(),
            format!(
                "node.listen is {}, which no other node can reach: set node.address to this node's own",
                self.node.listen
            ),
        );
        demand(
            self.node.address.as_deref().is_none_or(|host| !Address::is_unspecified(host)),
            "node.address means every address, and no other node can connect to that: write this node's own, 10.0.0.1, fd00::1 \
             or db1.example"
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
                        "{key} of [[peers]] {} means every address, and nobody can connect to that: write its own",
                        peer.name
                    ),
                );
            }
        }
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
        let retention = &self.retention;
        demand(
            retention.keep.is_none_or(|keep| keep >= failover.cool_down),
            format!(
                "retention.keep ({}) must be at least failover.cool_down ({}): the last run decides about the next one",
                retention.keep.map_or_else(String::new, |keep| humantime::format_duration(keep).to_string()),
                humantime::format_duration(failover.cool_down)
            ),
        );
        demand(retention.segment_events > 0, "retention.segment_events must be at least 1".to_owned());
        demand(
            retention.segments.as_ref().is_none_or(|folder| !folder.starts_with(&self.postgres.data_dir)),
            format!(
                "retention.segments ({}) must lie outside postgres.data_dir: it outlives the database",
                self.segments_folder().display()
            ),
        );
        demand(
            self.rejoin.keep_newest > 0,
            "rejoin.keep_newest must be at least 1: what a node just kept is never removed".to_owned(),
        );
        demand(
            !self.kept_folder().starts_with(&self.postgres.data_dir),
            format!(
                "rejoin.keep_in ({}) must lie outside postgres.data_dir: it outlives it",
                self.kept_folder().display()
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
        demand(
            self.postgres.stop_timeout >= Duration::from_millis(500),
            "postgres.stop_timeout must be at least 500ms: PostgreSQL needs time to stop in good order"
                .to_owned(),
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
            problems.push(format!("retention.segments: {} is no folder", segments.display()));
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

/// Why there is no data directory, or none that can be looked at: that one is not there must be seen before a new one is made.
fn no_data_directory(data_dir: &Path) -> Option<String> {
    let shown = data_dir.display();
    let version = data_dir.join("PG_VERSION");
    if version.is_file() {
        return None;
    }
    closed("postgres.data_dir", &version).or_else(|| {
        Some(format!(
            "postgres.data_dir: {shown} is no PostgreSQL data directory (no PG_VERSION in it); \
             make one with initdb on main, with pg_basebackup on a secondary"
        ))
    })
}

/// That a file cannot be looked at: then it is not known whether it is missing.
fn closed(key: &str, file: &Path) -> Option<String> {
    let error = std::fs::metadata(file).err()?;
    (!matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)).then(|| {
        format!(
            "{key}: {} cannot be looked at by the user {}: {error}; look as root, or as the user that the supervisor runs as, such \
             as with sudo",
            file.display(),
            user_name(RunAs::Myself)
        )
    })
}

/// A supervisor that is root believes its journal and the files beside it, such as those that name the processes to end: no
/// other user may write there.
fn written_by_others(key: &str, folder: &Path) -> Option<String> {
    let found = std::fs::metadata(folder).ok()?;
    let others = found.uid() != 0 || found.mode() & 0o022 != 0;
    (rustix::process::geteuid().is_root() && others).then(|| {
        let folder = folder.display();
        format!(
            "{key}: the supervisor runs as root, and another user may write in {folder}: chown root {folder} && chmod go-w \
             {folder}"
        )
    })
}

impl Config {
    /// That there is no configuration at all. A rewind that was cut off has taken it out of the data directory for a while, and the
    /// supervisor puts it back: that does not keep it from starting.
    #[must_use]
    pub fn lacks_configuration(&self) -> Option<String> {
        let data_dir = &self.postgres.data_dir;
        let is_missing = self.postgres_config_file().is_none()
            && data_dir.join("PG_VERSION").is_file()
            && !data_dir.join(config_file::NAME).exists();
        is_missing.then(|| {
            format!(
                "postgres.config_file: there is no {} in {}, and no file of {}/VERSION/NAME has that as its data_directory; set it \
                 to the server's {}",
                config_file::NAME,
                data_dir.display(),
                config_file::DEBIAN,
                config_file::NAME
            )
        })
    }

    /// What is wrong with the configuration of PostgreSQL that is there.
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
                "postgres.config_file: {} has {named} as its data_directory, not postgres.data_dir ({}): PostgreSQL would start \
                 on that one",
                file.display(),
                data_dir.display()
            )
        })
    }
}

/// Reads a secret from its file, without the line's end.
///
/// # Errors
/// The file cannot be read, can be read by others, or holds too little.
pub fn read_secret(path: &Path, key: &str, at_least: usize) -> Result<Secret, String> {
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
    Ok(secret.into())
}
