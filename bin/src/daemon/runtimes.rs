//! What runs each server of a node: for now, every server is a process of this machine.

use std::{fmt, path::PathBuf, rc::Rc};

use interrex_adapters::{
    redis::RedisSettings,
    runtime::{Marked, Postmaster, Processes, RunAs, Runtime},
};

use crate::config::{Config, DependentConfig, RedisConfig};

/// Chooses the runtime of each server. The user is the user that the server runs as.
pub trait Runtimes: fmt::Debug {
    /// What runs PostgreSQL.
    fn postgres(&self, config: &Config, user: RunAs) -> Rc<dyn Runtime>;
    /// What runs Redis.
    fn redis(&self, config: &Config, redis: &RedisConfig, user: RunAs) -> Rc<dyn Runtime>;
    /// What runs a dependent.
    fn dependent(&self, config: &Config, dependent: &DependentConfig, user: RunAs) -> Rc<dyn Runtime>;
}

/// Every server is a process of this machine.
#[derive(Debug, Clone, Copy)]
pub struct OnThisMachine;

impl Runtimes for OnThisMachine {
    fn postgres(&self, config: &Config, user: RunAs) -> Rc<dyn Runtime> {
        let output =
            config.postgres.log_file.clone().unwrap_or_else(|| config.beside_journal("postgres.log"));
        Rc::new(Processes::new(user, output, Postmaster::of(&config.postgres.data_dir)))
    }

    fn redis(&self, config: &Config, redis: &RedisConfig, user: RunAs) -> Rc<dyn Runtime> {
        let identity = RedisSettings::identity(&redis_program(redis), &redis.config_file, redis.port, user);
        Rc::new(Processes::new(user, config.beside_journal("redis.log"), identity))
    }

    fn dependent(&self, config: &Config, dependent: &DependentConfig, user: RunAs) -> Rc<dyn Runtime> {
        let DependentConfig { name, command, log_file, .. } = dependent;
        let output = log_file.clone().unwrap_or_else(|| config.beside_journal(&format!("{name}.log")));
        let identity = Marked {
            command: command.clone(),
            pid_file: config.beside_journal(&format!("{name}.pid")),
            user,
            mark: format!("{}/{}/{name}", config.cluster.id, config.node.id),
        };
        Rc::new(Processes::new(user, output, identity))
    }
}

/// The program of Redis.
pub(super) fn redis_program(redis: &RedisConfig) -> PathBuf {
    redis.program.clone().unwrap_or_else(|| "redis-server".into())
}
