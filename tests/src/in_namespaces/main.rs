//! The supervisor with another runtime: PostgreSQL and Redis each run in namespaces of their own, as in a container, with their
//! files under another path. Everything else is the real daemon.
//!
//! It is called as `interrex supervise --config FILE` is. It needs root, for the namespaces.

mod runtime;

use std::{path::PathBuf, process::ExitCode, rc::Rc};

use interrex::{
    config::{Config, DependentConfig, RedisConfig},
    daemon::{self, OnThisMachine, Runtimes},
};
use interrex_adapters::runtime::{RunAs, Runtime};

use self::runtime::InNamespaces;

/// PostgreSQL and Redis in namespaces; dependents as processes of this machine.
#[derive(Debug)]
struct Contained;

impl Runtimes for Contained {
    fn postgres(&self, config: &Config, user: RunAs) -> Rc<dyn Runtime> {
        Rc::new(InNamespaces::new("postgres", config, user))
    }

    fn redis(&self, config: &Config, _: &RedisConfig, user: RunAs) -> Rc<dyn Runtime> {
        Rc::new(InNamespaces::new("redis", config, user))
    }

    fn dependent(&self, config: &Config, dependent: &DependentConfig, user: RunAs) -> Rc<dyn Runtime> {
        OnThisMachine.dependent(config, dependent, user)
    }
}

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().skip_while(|word| word != "--config").nth(1) else {
        eprintln!("error: --config FILE is missing");
        return ExitCode::from(2);
    };
    let done = Config::load(&PathBuf::from(path))
        .map_err(|error| error.to_string())
        .and_then(|config| daemon::supervise(config, &Contained).map_err(|error| error.to_string()));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
