//! Measuring: read-only, independent questions at the same time, every question with a time limit.

mod machine;
mod next_start;
mod postgres;
mod redis;
mod replication_login;
mod services;
mod supervisors;

use std::{collections::BTreeMap, future::Future, time::Duration};

use futures_util::future::join_all;
use interrex_adapters::runtime::{self, RunAs};
use interrex_events::{Address, NodeId};

use self::postgres::Login;
use super::{
    facts::{Facts, MachineFacts, NodeNamed, is_fenced},
    finding::Measured,
};
use crate::config::{Config, Quorum, Users, read_secret};

/// How long doctor waits for one server, or for the machine.
const LIMIT: Duration = Duration::from_secs(10);
/// How long doctor waits for one readiness check of a dependent.
const READY_LIMIT: Duration = Duration::from_secs(5);

/// All facts, within some seconds even if something hangs.
pub(super) async fn gather(config: &Config) -> Facts {
    let nodes = nodes(config);
    let run_as = RunAs::resolve(config.node.run_as.as_deref(), &config.postgres.data_dir)
        .map_err(|error| error.to_string());
    let of_each = |address: fn(&NodeNamed) -> Option<Address>| {
        nodes.iter().filter_map(move |named| Some((named.id, address(named)?)))
    };
    let login = Login::of(config);
    let servers = of_each(|named| Some(named.postgres.clone())).map(|(node, address)| {
        let login = &login;
        within(node, async move { postgres::measure(login.as_ref().map_err(String::clone)?, &address).await })
    });
    let logins = of_each(|named| Some(named.postgres.clone())).map(|(node, address)| {
        let run_as = &run_as;
        within(node, async move { replication_login::attempt(config, run_as.clone()?, &address).await })
    });
    let password = config.redis.as_ref().and_then(|redis| redis.password_file.as_ref());
    let password = password.map(|file| read_secret(file, "redis.password_file", 1)).transpose();
    let redis = of_each(|named| named.redis.clone()).map(|(node, address)| {
        let password = &password;
        within(node, async move { redis::measure(password.as_ref()?.as_deref(), &address).await })
    });
    let (servers, replication_logins, redis, supervisors, machine) = tokio::join!(
        all(servers),
        all(logins),
        all(redis),
        supervisors::ask(config, &nodes),
        machine(config, run_as.clone()),
    );
    let mut facts = Facts {
        cluster_id: config.cluster.id,
        here: config.node.id,
        nodes,
        quorum: match config.failover.quorum {
            Quorum::None => "none",
        },
        replication_user: config.postgres.replication_user.clone(),
        machine,
        servers,
        replication_logins,
        redis,
        supervisors,
        version: env!("CARGO_PKG_VERSION"),
    };
    if facts.primaries().contains(&facts.here) {
        facts.machine.ready = ready(config).await;
    }
    if facts.role_by_server_or_supervisor().is_none() {
        let config = config.clone();
        let reading = tokio::task::spawn_blocking(move || crate::cli::role_told(&config));
        facts.machine.role_in_journal = match tokio::time::timeout(LIMIT, reading).await {
            Ok(Ok(told)) => told.filter(|(_, status)| !is_fenced(*status)).map(|(role, _)| role),
            _ => None,
        };
    }
    facts
}

/// This node and its peers. This node's servers are asked at the addresses that its supervisor uses.
fn nodes(config: &Config) -> Vec<NodeNamed> {
    let this = NodeNamed {
        id: config.node.id,
        name: config.node.name.clone(),
        supervisor: crate::cli::reachable(config.node.listen),
        postgres: Address::new(&config.postgres.host, config.postgres.port),
        redis: config.redis.as_ref().map(|redis| Address::new(&redis.host, redis.port)),
    };
    let peers = config.peers.iter().map(|peer| NodeNamed {
        id: peer.id,
        name: peer.name.clone(),
        supervisor: peer.address.clone(),
        postgres: peer.postgres.clone(),
        redis: peer.redis.clone(),
    });
    let mut nodes: Vec<NodeNamed> = std::iter::once(this).chain(peers).collect();
    nodes.sort_by_key(|named| named.id);
    nodes
}

async fn within<T, E: From<String>>(
    node: NodeId,
    measuring: impl Future<Output = Result<T, E>>,
) -> (NodeId, Result<T, E>) {
    let measured = tokio::time::timeout(LIMIT, measuring).await;
    (node, measured.unwrap_or_else(|_| Err(format!("no answer within {LIMIT:?}").into())))
}

async fn all<T>(measuring: impl Iterator<Item = impl Future<Output = (NodeId, T)>>) -> BTreeMap<NodeId, T> {
    join_all(measuring).await.into_iter().collect()
}

/// Files on a disk that hangs block only a thread of their own.
async fn machine(config: &Config, run_as: Measured<RunAs>) -> MachineFacts {
    let services = services::rivals(config);
    let next_start = tokio::time::timeout(LIMIT, next_start::ask(config, run_as.clone()));
    let looking = {
        let config = config.clone();
        tokio::task::spawn_blocking(move || machine::look(&config, run_as))
    };
    let (looked, rivals, next_start) =
        tokio::join!(tokio::time::timeout(LIMIT, looking), services, next_start);
    let next_start =
        next_start.unwrap_or_else(|_| Err(format!("postgres -C gave no answer within {LIMIT:?}")));
    let facts = match looked {
        Ok(Ok(facts)) => facts,
        Ok(Err(error)) => MachineFacts::unmeasured(&error.to_string()),
        Err(_) => MachineFacts::unmeasured(&format!("a file system gave no answer within {LIMIT:?}")),
    };
    MachineFacts { rivals, next_start, ..facts }
}

/// The readiness checks, as the supervisor runs them.
async fn ready(config: &Config) -> Vec<(String, Result<(), String>)> {
    let users = &Users::of(config);
    let checks = config.dependents.iter().enumerate().map(|(place, dependent)| async move {
        let check = async {
            let users = users.as_ref().map_err(String::clone)?;
            let run_as = users.dependents.get(place).copied().unwrap_or(users.postgres);
            let (program, arguments) =
                dependent.ready_command.split_first().ok_or("the dependent has no ready_command")?;
            let mut command = run_as.command(program);
            command.args(arguments);
            let ended = runtime::run(command, "readiness check", READY_LIMIT).await;
            ended.map(drop).map_err(|error| error.to_string())
        };
        (dependent.name.clone(), check.await)
    });
    join_all(checks).await
}
