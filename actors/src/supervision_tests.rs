use std::{
    cell::Cell,
    rc::Rc,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use actix::{Handler, Message};
use interrex_events::{
    ClusterId, Event, NodeId, Role,
    journal::{Identity, Journal, Selection},
};
use tokio::{sync::mpsc, task::LocalSet};

use super::*;
use crate::{
    env::{Env, SystemEnv},
    failover::policy::FailoverPolicy,
    journal::JournalActor,
    line::{DropCount, Line},
    node::{NodeSettings, OnExit, RejoinSettings},
};

fn shared(folder: &std::path::Path) -> (Arc<Shared>, mpsc::Receiver<Fatal>) {
    let env = Arc::new(SystemEnv);
    let cluster_id = ClusterId(env.run_id().0);
    let identity = Identity { cluster_id, node_id: NodeId(1) };
    let journal = Journal::open(&folder.join("journal.db"), identity, env.clone()).unwrap();
    let settings = NodeSettings {
        cluster_id,
        me: NodeId(1),
        name: "alpha".to_owned(),
        initial_role: Role::Standalone,
        initial_main: None,
        nodes: Vec::new(),
        probe_interval: Duration::from_secs(1),
        probe_timeout: Duration::from_secs(1),
        startup_wait: Duration::from_secs(1),
        failover: FailoverPolicy {
            auto_enabled: false,
            threshold_ms: 1000,
            cool_down_ms: 0,
            rejoin_automatically: false,
            maximum_lag_bytes: None,
            candidate: None,
            nodes: 2,
            quorum: "none",
        },
        rejoin: RejoinSettings { keep_in: std::path::PathBuf::new(), keep_newest: 1 },
        on_exit: OnExit::Leave,
        retention: None,
    };
    let (shared, fatals) = Shared::new(env, settings, Arc::new(journal)).unwrap();
    let shared = Arc::new(shared);
    let (make, bind) = (shared.clone(), shared.clone());
    keep(
        "journal",
        shared.clone(),
        move || std::future::ready(JournalActor::rebuilt(&make)),
        move |address| JournalActor::bind(&bind, address),
    );
    (shared, fatals)
}

/// Panics when told zero; answers how many instances there were when told anything else.
struct Fragile(u32);

impl Actor for Fragile {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "u32")]
struct Told(u32);

impl Handler<Told> for Fragile {
    type Result = u32;

    fn handle(&mut self, told: Told, _: &mut Self::Context) -> u32 {
        assert_ne!(told.0, 0, "told zero");
        self.0
    }
}

fn keep_fragile(shared: &Arc<Shared>) -> Line<Told> {
    let line = Line::new(DropCount::default());
    let (bound, instances) = (line.clone(), Rc::new(Cell::new(0)));
    keep(
        "heartbeat",
        shared.clone(),
        move || {
            instances.set(instances.get() + 1);
            std::future::ready(Ok(Fragile(instances.get())))
        },
        move |address| bound.bind(address.clone().recipient()),
    );
    line
}

/// The answer of the next instance that gives one.
async fn answer(line: &Line<Told>) -> u32 {
    let asking = async {
        loop {
            if let Ok(instance) = line.ask(Told(1)).await {
                return instance;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), asking).await.unwrap()
}

#[tokio::test(flavor = "current_thread")]
async fn a_panic_is_survived_counted_and_recorded_and_lines_reach_the_new_instance() {
    let folder = tempfile::tempdir().unwrap();
    let local = LocalSet::new();
    local
        .run_until(async {
            let (shared, _fatals) = shared(folder.path());
            let line = keep_fragile(&shared);
            assert_eq!(answer(&line).await, 1);
            assert!(line.ask(Told(0)).await.is_err(), "whoever asked learns that the actor died");
            assert_eq!(answer(&line).await, 2);
            assert_eq!(shared.report().actors["heartbeat"].restarts, 1);
            let recorded = shared.wait_until(Duration::from_secs(10), |view| view.cluster.events == 1).await;
            assert!(recorded, "the restart is not in the journal");
            let record = &shared.journal.reader().unwrap().read(&Selection::default()).unwrap()[0];
            let Event::ActorRestarted(restarted) = record.open().event else { panic!("{record:?}") };
            assert!(restarted.reason.contains("told zero"), "{}", restarted.reason);
        })
        .await;
}

#[tokio::test(flavor = "current_thread")]
async fn an_actor_that_fails_again_and_again_ends_the_process_with_an_error() {
    static TOLD: AtomicU32 = AtomicU32::new(0);
    let folder = tempfile::tempdir().unwrap();
    let local = LocalSet::new();
    local
        .run_until(async {
            let (shared, mut fatals) = shared(folder.path());
            let line = keep_fragile(&shared);
            let tormenting = async {
                loop {
                    answer(&line).await;
                    TOLD.fetch_add(1, Ordering::Relaxed);
                    let _ = line.ask(Told(0)).await;
                }
            };
            let fatal = tokio::select! {
                fatal = fatals.recv() => fatal.unwrap(),
                () = tormenting => unreachable!(),
                () = tokio::time::sleep(Duration::from_secs(30)) => panic!("it never gives up"),
            };
            assert!(matches!(fatal, Fatal::ActorKeepsFailing { actor: "heartbeat", .. }), "{fatal}");
            assert_eq!(TOLD.load(Ordering::Relaxed), RESTART_LIMIT + 1);
        })
        .await;
}
