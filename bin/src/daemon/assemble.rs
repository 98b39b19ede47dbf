//! Makes ports and settings from a configuration.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use interrex_actors::{
    env::{SystemEnv, ms},
    failover::policy::FailoverPolicy,
    heartbeat::lease::NoQuorum,
    journal::retention::RetentionPolicy,
    node::{NodeSettings, OnExit, Ports, RejoinSettings},
    replication::{InUse, Servers},
};
use interrex_adapters::{
    dependents::{Dependent, DependentPrograms},
    hooks::{Hook, HookPrograms},
    peers::{DatabaseLogin, RemotePeers},
    postgres::{LocalPostgres, PostgresSettings},
    redis::{LocalRedis, RedisSettings},
    runtime::{Program, RunAs, Runtime},
    secret::Secret,
    stream::{LocalStream, StreamSettings},
};
use interrex_events::{Address, NodeSpec, Role};

use super::runtimes::{Runtimes, redis_program};
use crate::config::{self, Config, DependentConfig, Quorum, Users, read_secret, user_name};

/// The adapters for all configured servers, and the cluster's secret. Nothing is started or connected yet.
pub(super) fn ports(config: &Config, runtimes: &dyn Runtimes) -> Result<(Ports, Arc<str>), String> {
    let users = Users::of(config)?;
    let secret = read_secret(&config.cluster.secret_file, "cluster.secret_file", 16)?;
    let optional =
        |file: &Option<PathBuf>, key: &str| file.as_ref().map(|file| read_secret(file, key, 1)).transpose();
    let password = optional(&config.postgres.password_file, "postgres.password_file")?;
    let redis_file = config.redis.as_ref().and_then(|redis| redis.password_file.clone());
    let redis_password = optional(&redis_file, "redis.password_file")?;
    let login = DatabaseLogin {
        user: config.postgres.user.clone(),
        password: password.clone(),
        database: config.postgres.database.clone(),
        redis_password: redis_password.clone(),
    };
    let nodes = nodes(config);
    let local = Rc::new(LocalPostgres::new(postgres(
        config,
        runtimes.postgres(config, users.postgres),
        password.clone(),
    )?));
    let servers = Servers {
        postgres: local.clone(),
        handover: local.clone(),
        rejoin: local,
        stream: Rc::new(stream(config, password)),
        redis: redis(config, (runtimes, users.redis), redis_password)
            .map(|redis| Rc::new(LocalRedis::new(redis)) as _),
        dependents: Rc::new(dependents(config, runtimes, &users.dependents)),
        nodes: nodes.clone(),
        in_use: InUse::default(),
    };
    let ports = Ports {
        servers: Rc::new(servers),
        peers: Rc::new(RemotePeers::new(nodes, config.cluster.id, secret.clone(), login)?),
        hooks: Rc::new(hooks(config, &users.hooks)),
        lease: Rc::new(match config.failover.quorum {
            Quorum::None => NoQuorum,
        }),
    };
    Ok((ports, Arc::from(&*secret)))
}

fn postgres(
    config: &Config,
    runtime: Rc<dyn Runtime>,
    password: Option<Secret>,
) -> Result<PostgresSettings, String> {
    let postgres = &config.postgres;
    let bin_dir = match &postgres.bin_dir {
        Some(folder) => folder.clone(),
        None => find_programs(&postgres.data_dir)?,
    };
    if !bin_dir.join("postgres").is_file() {
        return Err(format!("postgres.bin_dir: there is no postgres in {}", bin_dir.display()));
    }
    Ok(postgres_settings(config, bin_dir, runtime, password))
}

/// The settings of the local PostgreSQL, with the given programs and runtime.
pub(crate) fn postgres_settings(
    config: &Config,
    bin_dir: PathBuf,
    runtime: Rc<dyn Runtime>,
    password: Option<Secret>,
) -> PostgresSettings {
    let postgres = &config.postgres;
    PostgresSettings {
        data_dir: postgres.data_dir.clone(),
        bin_dir,
        config_file: config.postgres_config_file(),
        runtime,
        host: postgres.host.clone(),
        port: postgres.port,
        user: postgres.user.clone(),
        password,
        database: postgres.database.clone(),
        replication_user: postgres.replication_user.clone(),
        replication_passfile: postgres.replication_passfile.clone(),
        node: config.node.id,
        measure_limit: config.failover.probe_timeout,
        upstream_file: config.beside_journal("upstream"),
        stop_patience: postgres.stop_timeout,
    }
}

fn stream(config: &Config, password: Option<Secret>) -> LocalStream {
    let postgres = &config.postgres;
    let settings = StreamSettings {
        host: postgres.host.clone(),
        port: postgres.port,
        user: postgres.user.clone(),
        password,
        database: postgres.database.clone(),
    };
    LocalStream::new(settings, Arc::new(SystemEnv))
}

/// The folder of the programs of the data directory's version, among the usual folders of Debian and others.
pub(crate) fn find_programs(data_dir: &Path) -> Result<PathBuf, String> {
    let file = data_dir.join("PG_VERSION");
    let version = std::fs::read_to_string(&file).map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            format!(
                "postgres.data_dir: the user {1} cannot read {0}: {error}",
                file.display(),
                user_name(RunAs::Myself)
            )
        }
        _ => format!(
            "postgres.data_dir: {} is not a PostgreSQL data directory ({}: {error})",
            data_dir.display(),
            file.display()
        ),
    })?;
    let version = version.trim();
    [
        format!("/usr/lib/postgresql/{version}/bin"),
        format!("/usr/pgsql-{version}/bin"),
        "/usr/local/pgsql/bin".to_owned(),
        "/usr/bin".to_owned(),
    ]
    .into_iter()
    .map(PathBuf::from)
    .find(|folder| folder.join("postgres").is_file())
    .ok_or_else(|| {
        format!("PostgreSQL {version}'s programs were not found: install them, or set postgres.bin_dir to their folder")
    })
}

fn redis(
    config: &Config,
    (runtimes, user): (&dyn Runtimes, RunAs),
    password: Option<Secret>,
) -> Option<RedisSettings> {
    config.redis.as_ref().map(|redis| RedisSettings {
        config_file: redis.config_file.clone(),
        program: redis_program(redis),
        runtime: runtimes.redis(config, redis, user),
        host: redis.host.clone(),
        port: redis.port,
        password,
        stop_timeout: redis.stop_timeout,
        others: config.peers.iter().filter_map(|peer| peer.redis.clone()).collect(),
    })
}

fn dependents(config: &Config, runtimes: &dyn Runtimes, users: &[RunAs]) -> DependentPrograms {
    let dependent = |(dependent, user): (&DependentConfig, &RunAs)| Dependent {
        name: dependent.name.clone(),
        runtime: runtimes.dependent(config, dependent, *user),
        program: Program::of(&dependent.command),
        ready: Program::of(&dependent.ready_command),
        ready_limit: dependent.ready_timeout,
        not_started: RefCell::default(),
    };
    let dependents = config.dependents.iter().zip(users).map(dependent).collect();
    DependentPrograms { dependents, env: Arc::new(SystemEnv) }
}

fn hooks(config: &Config, users: &[RunAs]) -> HookPrograms {
    let hook = |(hook, run_as): (&crate::config::HookConfig, &RunAs)| Hook {
        name: hook.name.clone(),
        command: hook.command.clone(),
        limit: hook.timeout,
        run_as: *run_as,
    };
    HookPrograms { hooks: config.hooks.iter().zip(users).map(hook).collect() }
}

fn nodes(config: &Config) -> Vec<NodeSpec> {
    let host = config.address();
    let me = NodeSpec {
        node: config.node.id,
        name: config.node.name.clone(),
        address: Address::new(&host, config.node.listen.port()),
        postgres: Address::new(&host, config.postgres.port),
        redis: config.redis.as_ref().map(|redis| Address::new(&host, redis.port)),
    };
    let peers = config.peers.iter().map(|peer| NodeSpec {
        node: peer.id,
        name: peer.name.clone(),
        address: peer.address.clone(),
        postgres: peer.postgres.clone(),
        redis: peer.redis.clone(),
    });
    let mut nodes: Vec<NodeSpec> = std::iter::once(me).chain(peers).collect();
    nodes.sort_by_key(|spec| spec.node);
    nodes
}

/// The settings that do not change while this supervisor runs.
pub(super) fn settings(config: &Config) -> NodeSettings {
    let failover = &config.failover;
    let initial_main = match config.node.role {
        Role::Secondary => config.peers.iter().find(|peer| peer.main).map(|peer| peer.id),
        Role::Main | Role::Standalone => Some(config.node.id),
    };
    NodeSettings {
        cluster_id: config.cluster.id,
        me: config.node.id,
        name: config.node.name.clone(),
        initial_role: config.node.role,
        initial_main,
        nodes: nodes(config),
        probe_interval: failover.probe_interval,
        probe_timeout: failover.probe_timeout,
        startup_wait: failover.startup_wait,
        failover: FailoverPolicy {
            auto_enabled: failover.auto_failover_enabled,
            threshold_ms: ms(failover.auto_failover_threshold_seconds),
            cool_down_ms: ms(failover.cool_down),
            maximum_lag_bytes: failover.maximum_lag_bytes,
            rejoin_automatically: config.rejoin.automatic,
            candidate: failover.candidate,
            nodes: config.peers.len() + 1,
            quorum: match failover.quorum {
                Quorum::None => "none",
            },
        },
        rejoin: RejoinSettings { keep_in: config.kept_folder(), keep_newest: config.rejoin.keep_newest },
        on_exit: match config.node.on_exit {
            config::OnExit::Leave => OnExit::Leave,
            config::OnExit::Stop => OnExit::Stop(config.postgres.stop_timeout),
        },
        retention: config.retention.keep.map(|keep| RetentionPolicy {
            keep,
            segment_events: config.retention.segment_events,
            folder: config.segments_folder(),
        }),
    }
}
