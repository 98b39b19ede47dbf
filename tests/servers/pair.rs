//! A main and its standby, each behind the adapter that a supervisor would use.

use std::{path::Path, rc::Rc, time::Duration};

use interrex::sandbox::{ALPHA, BETA, NodePlan, Sandbox, until};
use interrex_actors::ports::{HandoverPort as _, MainServerPort, PostgresPort as _, slot_name};
use interrex_adapters::{
    postgres::{LocalPostgres, PostgresSettings},
    runtime::{Postmaster, Processes, RunAs},
};
use interrex_events::{Address, Lsn, NodeId};
use tokio::task::LocalSet;

/// How long anything may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// The two. Dropping them ends the servers.
pub(crate) struct Pair {
    pub(crate) sandbox: Sandbox,
    pub(crate) alpha: LocalPostgres,
    pub(crate) beta: LocalPostgres,
}

impl Pair {
    /// Both run, and the standby streams.
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// With more settings for both.
    pub(crate) async fn start_with(settings: &str) -> Self {
        let sandbox = Sandbox::builder("/bin/false").postgres_only().build().await.unwrap();
        for node in sandbox.nodes() {
            let file = node.folder.join("postgresql.node.conf");
            let text = std::fs::read_to_string(&file).unwrap();
            std::fs::write(&file, format!("{text}{settings}\n")).unwrap();
        }
        let adapter =
            |node: NodeId| adapter(&sandbox, sandbox.node(node).unwrap(), sandbox.postgres_programs());
        let (alpha, beta) = (adapter(ALPHA), adapter(BETA));
        let pair = Self { alpha, beta, sandbox };
        pair.alpha.start().await.unwrap();
        pair.beta.start().await.unwrap();
        pair.streams(ALPHA, BETA).await;
        pair
    }

    /// Until a main reports its standby as streaming.
    pub(crate) async fn streams(&self, main: NodeId, standby: NodeId) {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND application_name = 'interrex_{standby}'"
        );
        until("the standby streams", LIMIT, async || {
            let answer = self.sandbox.psql_value(main, &sql).await;
            if answer.as_deref().is_ok_and(|count| count == "1") {
                Ok(())
            } else {
                Err(format!("{answer:?}"))
            }
        })
        .await
        .unwrap();
    }

    /// Until beta has received up to a place.
    pub(crate) async fn beta_has(&self, end: Lsn) {
        until("the standby has it", LIMIT, async || match self.beta.received().await {
            Ok(received) if received.received >= end && received.replayed >= end => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await
        .unwrap();
    }

    /// An adapter that has no session yet.
    pub(crate) fn again(&self, node: NodeId) -> LocalPostgres {
        adapter(&self.sandbox, self.sandbox.node(node).unwrap(), self.sandbox.postgres_programs())
    }

    /// Alpha's adapter with other programs.
    pub(crate) fn alpha_with(&self, programs: &Path) -> LocalPostgres {
        adapter(&self.sandbox, self.sandbox.node(ALPHA).unwrap(), programs)
    }

    /// One's server, as the other logs in to it.
    pub(crate) fn server(&self, main: NodeId) -> Box<dyn MainServerPort> {
        self.alpha.main_server(&Address::new("127.0.0.1", self.sandbox.node(main).unwrap().postgres_port))
    }

    /// The conninfo with which one follows the other.
    pub(crate) fn conninfo(&self, standby: &LocalPostgres, main: NodeId) -> String {
        standby.conninfo_of(&Address::new("127.0.0.1", self.sandbox.node(main).unwrap().postgres_port))
    }
}

/// Runs a test as a supervisor runs: on one thread.
pub(crate) fn on_one_thread(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

fn adapter(sandbox: &Sandbox, node: &NodePlan, programs: &Path) -> LocalPostgres {
    LocalPostgres::new(PostgresSettings {
        data_dir: node.data_dir(),
        bin_dir: programs.to_owned(),
        runtime: Rc::new(Processes::new(
            RunAs::resolve(None, &node.data_dir()).unwrap(),
            node.postgres_log(),
            Postmaster::of(&node.data_dir()),
        )),
        host: "127.0.0.1".to_owned(),
        port: node.postgres_port,
        user: "interrex".to_owned(),
        password: Some(sandbox.superuser_password().into()),
        database: "postgres".to_owned(),
        replication_user: "replicator".to_owned(),
        replication_passfile: Some(node.secrets_dir().join("replication.pgpass")),
        node: node.id,
        measure_limit: Duration::from_secs(1),
        config_file: None,
        upstream_file: node.folder.join("upstream"),
        stop_patience: Duration::from_secs(10),
    })
}

/// The slot of a node.
pub(crate) fn slot(node: NodeId) -> String {
    slot_name(node)
}
