//! The users that this node's programs run as.

use std::os::unix::fs::MetadataExt as _;

use interrex_adapters::runtime::RunAs;

use super::Config;

/// The user that each program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Users {
    /// PostgreSQL and its programs.
    pub postgres: RunAs,
    /// Redis.
    pub redis: RunAs,
    /// Dependents and their readiness checks, in the order of the file.
    pub dependents: Vec<RunAs>,
    /// Hooks, in the order of the file.
    pub hooks: Vec<RunAs>,
}

impl Users {
    /// The configured users, or the owners of the servers' files.
    ///
    /// # Errors
    /// A configured user does not exist, or is another user and the supervisor does not run as root.
    pub fn of(config: &Config) -> Result<Self, String> {
        let words = |error: interrex_actors::ports::PortError| error.to_string();
        let postgres =
            RunAs::resolve(config.node.run_as.as_deref(), &config.postgres.data_dir).map_err(words)?;
        let named = |key: &str, name: &Option<String>| match name {
            Some(name) => RunAs::configured(key, name).map_err(words),
            None => Ok(postgres),
        };
        let dependents = config.dependents.iter();
        let hooks = config.hooks.iter();
        Ok(Self {
            postgres,
            redis: Self::of_redis(config, postgres)?,
            dependents: dependents
                .map(|dependent| {
                    named(&format!("run_as of dependent `{}`", dependent.name), &dependent.run_as)
                })
                .collect::<Result<_, _>>()?,
            hooks: hooks
                .map(|hook| named(&format!("run_as of hook `{}`", hook.name), &hook.run_as))
                .collect::<Result<_, _>>()?,
        })
    }

    /// The owner of Redis' configuration file, which Redis must be able to write; PostgreSQL's user if that owner is root. The
    /// content of the file does not count: its user may write any folder there, and would choose the user that Redis runs as.
    fn of_redis(config: &Config, otherwise: RunAs) -> Result<RunAs, String> {
        let Some(redis) = &config.redis else { return Ok(otherwise) };
        if let Some(name) = &redis.run_as {
            return RunAs::configured("redis.run_as", name).map_err(|error| error.to_string());
        }
        let file = &redis.config_file;
        let Ok(found) = std::fs::symlink_metadata(file) else { return Ok(otherwise) };
        // a link to another user's file
        let borrowed = (found.is_symlink() && found.uid() != 0) || (found.is_file() && found.nlink() > 1);
        if rustix::process::geteuid().is_root() && borrowed {
            return Err(format!(
                "redis.config_file: {} is a link that an unprivileged user may have made, so its owner does not show the user of \
                 Redis: set redis.run_as",
                file.display()
            ));
        }
        let owner = RunAs::owner_of(file).ok().filter(|owner| *owner != RunAs::Myself);
        Ok(owner.unwrap_or(otherwise))
    }
}

/// The name of the user that a program runs as, for people.
#[must_use]
pub fn user_name(run_as: RunAs) -> String {
    let uid = match run_as {
        RunAs::Myself => rustix::process::geteuid().as_raw(),
        RunAs::User { uid, .. } => uid,
    };
    let user = nix::unistd::User::from_uid(uid.into()).ok().flatten();
    user.map_or_else(|| format!("user {uid}"), |user| user.name)
}
