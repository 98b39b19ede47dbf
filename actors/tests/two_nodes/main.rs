//! Two whole nodes in one process: `Node::run` with simulated servers, an in-memory network, a paused clock and journals that
//! are written in line. The core alone is linked: no adapter, no socket, no thread.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is how a test fails")]

mod clock;
mod network;
mod servers;

use std::{path::Path, rc::Rc, sync::Arc, time::Duration};

use interrex_actors::{
    failover::policy::FailoverPolicy,
    heartbeat::lease::NoQuorum,
    node::{Node, NodeError, NodeSettings, OnExit, Ports, RejoinSettings},
    replication::{InUse, Servers},
};
use interrex_events::{
    Address, ClusterId, NodeId, NodeSpec, PostgresStatus, Role,
    journal::{Identity, Journal, JournalReader, Selection},
};
use tokio::task::LocalSet;

use crate::{
    clock::SimulatedEnv,
    network::{Network, SimulatedPeers},
    servers::{Simulated, World},
};

const ALPHA: NodeId = NodeId(1);
const BETA: NodeId = NodeId(2);
/// How long main may be silent.
const THRESHOLD: Duration = Duration::from_secs(5);
/// A time by which a failover of two idle nodes is over, by their own clocks.
const OVER: Duration = Duration::from_secs(60);

fn cluster() -> ClusterId {
    ClusterId(uuid::Uuid::from_u128(7))
}

fn spec(node: NodeId, name: &str) -> NodeSpec {
    let address = |port| Address::new(name, port);
    NodeSpec { node, name: name.to_owned(), address: address(7432), postgres: address(5432), redis: None }
}

fn settings(me: NodeId) -> NodeSettings {
    let nodes = vec![spec(ALPHA, "alpha"), spec(BETA, "beta")];
    NodeSettings {
        cluster_id: cluster(),
        me,
        name: nodes[usize::from(me == BETA)].name.clone(),
        initial_role: if me == ALPHA { Role::Main } else { Role::Secondary },
        initial_main: Some(ALPHA),
        nodes,
        probe_interval: Duration::from_millis(500),
        probe_timeout: Duration::from_millis(250),
        startup_wait: Duration::from_secs(1),
        failover: FailoverPolicy {
            auto_enabled: true,
            threshold_ms: u64::try_from(THRESHOLD.as_millis()).unwrap(),
            cool_down_ms: 0,
            maximum_lag_bytes: None,
            rejoin_automatically: false,
            candidate: None,
            nodes: 2,
            quorum: "none",
        },
        rejoin: RejoinSettings { keep_in: "/kept".into(), keep_newest: 1 },
        on_exit: OnExit::Leave,
        retention: None,
    }
}

/// A node that runs on its own: dropping it is its death.
struct Machine(LocalSet);

impl Machine {
    fn start(me: NodeId, folder: &Path, network: &Network, world: &World) -> Self {
        let env = Arc::new(SimulatedEnv::of(me));
        let identity = Identity { cluster_id: cluster(), node_id: me };
        let journal = Journal::open_in_line(&journal_of(folder, me), identity, env.clone()).unwrap();
        let settings = settings(me);
        let postgres = Rc::new(Simulated { me, world: world.clone() });
        let ports = Ports {
            servers: Rc::new(Servers {
                postgres: postgres.clone(),
                handover: postgres.clone(),
                rejoin: postgres.clone(),
                stream: postgres.clone(),
                redis: None,
                dependents: postgres.clone(),
                nodes: settings.nodes.clone(),
                in_use: InUse::default(),
            }),
            peers: Rc::new(SimulatedPeers { network: network.clone(), world: world.clone() }),
            hooks: postgres,
            lease: Rc::new(NoQuorum),
        };
        let node = Node { ports, settings, env, journal: Arc::new(journal) };
        let (local, network) = (LocalSet::new(), network.clone());
        local.spawn_local(async move {
            let ended: Result<(), NodeError> = node
                .run(async move |shared| network.listen(shared).await, async || std::future::pending().await)
                .await;
            panic!("{me} ended: {ended:?}");
        });
        Self(local)
    }
}

fn journal_of(folder: &Path, node: NodeId) -> std::path::PathBuf {
    folder.join(format!("{node}.db"))
}

/// Waits, by the clock of the simulation, until a node's report satisfies a condition.
async fn until(
    network: &Network,
    node: NodeId,
    what: &str,
    is_so: impl Fn(&interrex_actors::wire::NodeReport) -> bool,
) {
    let looking = async {
        loop {
            if network.supervisor(node).is_some_and(|shared| is_so(&shared.report())) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let seen = tokio::time::timeout(OVER, looking).await;
    assert!(seen.is_ok(), "{what}: {:?}", network.supervisor(node).map(|shared| shared.report()));
}

/// Main dies with its servers, and the other node takes its role by itself. What each node recorded.
fn failover() -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let (network, world) = (Network::default(), World::with_main(ALPHA));
        let alpha = Machine::start(ALPHA, folder.path(), &network, &world);
        let beta = Machine::start(BETA, folder.path(), &network, &world);
        let healthy = async {
            for node in [ALPHA, BETA] {
                until(&network, node, "healthy", |report| report.healthy).await;
            }
        };
        let mut alpha = alpha.0;
        let mut beta = beta.0;
        tokio::select! {
            // always in this order: chance would tell another story each time
            biased;
            () = healthy => {}
            () = &mut alpha => {}
            () = &mut beta => {}
        }
        drop(alpha);
        world.dies(ALPHA);
        let promoted = until(&network, BETA, "main", |report| {
            report.main == Some(BETA)
                && report.postgres.status == PostgresStatus::Primary
                && report.run.is_none()
        });
        tokio::select! {
            biased;
            () = promoted => {}
            () = &mut beta => {}
        }
    });
    drop(runtime);
    [ALPHA, BETA].map(|node| recorded(&journal_of(folder.path(), node))).concat()
}

/// Every event of a journal as it is stored, a line each.
fn recorded(journal: &Path) -> Vec<String> {
    let records = JournalReader::open(journal).unwrap().read(&Selection::default()).unwrap();
    records.iter().map(|record| serde_json::to_string(record).unwrap()).collect()
}

fn kinds(recorded: &[String]) -> Vec<String> {
    let kind = |line: &String| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["kind"].as_str().unwrap().to_owned()
    };
    recorded.iter().map(kind).collect()
}

#[test]
fn of_two_whole_nodes_one_dies_and_the_other_one_is_main_twice_with_the_same_journal() {
    let first = failover();
    let kinds = kinds(&first);
    for kind in ["main_lost", "failover_started", "epoch_opened", "failover_completed"] {
        assert_eq!(kinds.iter().filter(|found| *found == kind).count(), 1, "{kind} of {kinds:?}");
    }
    let second = failover();
    assert_eq!(first.len(), second.len());
    for (one, other) in first.iter().zip(second) {
        assert_eq!(*one, other, "the same simulation told another story");
    }
}
