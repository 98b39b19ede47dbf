//! The servers of both nodes, as far as a failover needs them: an LSN, a timeline, who receives from whom.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use async_trait::async_trait;
use interrex_actors::{
    ports::{
        Answer, DependentsPort, ForkReport, HandoverPort, HookFacts, HooksPort, KeepRequest, Kept, Lineage,
        LogRecord, MainLineage, MainServerPort, NoReply, NotRelayed, PortError, PostgresEnd, PostgresMeasure,
        PostgresPort, Promotion, ReadOnlySetting, Received, RejoinPort, Relayed, ReplayState, Rewind,
        ServerProcess, ShutdownProof, Source, StandbyLimits, StopMode, StreamPort, StreamState,
    },
    wire::{CopyProgress, DependentFacts, MainPostgres, PostgresFacts},
};
use interrex_events::{
    Address, Epoch, Head, Lsn, NodeId, NodeSeq, Position, PostgresStatus, Record, TimelineId,
};

/// How long a request to a server takes.
const ANSWER: Duration = Duration::from_millis(1);
/// How long a promotion takes.
const PROMOTION: Duration = Duration::from_millis(40);

/// One PostgreSQL.
#[derive(Clone, Copy)]
struct Postgres {
    runs: bool,
    standby: bool,
    timeline: u32,
    switchpoint: Lsn,
    lsn: Lsn,
    /// Whom a standby receives from.
    upstream: Option<NodeId>,
}

/// What `cluster_events` holds, and where.
#[derive(Clone, Default)]
struct Stream {
    position: Position,
    heads: BTreeMap<NodeId, Head>,
}

/// All servers.
#[derive(Clone)]
pub(crate) struct World(Rc<RefCell<(BTreeMap<NodeId, Postgres>, Stream)>>);

impl World {
    /// Two nodes: this one writes, the other one receives from it.
    pub(crate) fn with_main(main: NodeId) -> Self {
        let (start, other) = (Lsn(0x0300_0000), NodeId(3 - main.0));
        let writes = Postgres {
            runs: true,
            standby: false,
            timeline: 1,
            switchpoint: Lsn(0),
            lsn: start,
            upstream: None,
        };
        let receives = Postgres { standby: true, upstream: Some(main), ..writes };
        Self(Rc::new(RefCell::new(([(main, writes), (other, receives)].into(), Stream::default()))))
    }

    fn of(&self, node: NodeId) -> Postgres {
        self.0.borrow().0[&node]
    }

    fn change(&self, node: NodeId, change: impl FnOnce(&mut Postgres)) {
        self.0.borrow_mut().0.entry(node).and_modify(change);
    }

    /// The machine of a node is gone.
    pub(crate) fn dies(&self, node: NodeId) {
        self.change(node, |postgres| postgres.runs = false);
    }

    fn receives(&self, node: NodeId) -> bool {
        let postgres = self.of(node);
        let from = postgres.upstream.map(|upstream| self.of(upstream));
        postgres.runs && postgres.standby && from.is_some_and(|from| from.runs && !from.standby)
    }

    /// What a peer hears that asks for the state of a node's PostgreSQL.
    pub(crate) fn asked_by_a_peer(&self, node: NodeId) -> Result<MainPostgres, NoReply> {
        let postgres = self.of(node);
        if !postgres.runs {
            return Err(NoReply::Silent("connection refused".to_owned()));
        }
        Ok(MainPostgres { writable: !postgres.standby, lsn: (!postgres.standby).then_some(postgres.lsn) })
    }

    /// How far a node's standby has received.
    pub(crate) fn received_by(&self, node: NodeId) -> Result<Lsn, String> {
        Ok(self.of(node).lsn)
    }
}

/// One node's servers behind every port.
pub(crate) struct Simulated {
    pub(crate) me: NodeId,
    pub(crate) world: World,
}

impl Simulated {
    fn postgres(&self) -> Answer<Postgres> {
        let postgres = self.world.of(self.me);
        if postgres.runs { Ok(postgres) } else { Err(PortError("connection refused".to_owned())) }
    }
}

fn not_simulated<T>(what: &str) -> Answer<T> {
    Err(PortError(format!("{what} is not simulated")))
}

#[async_trait(?Send)]
impl PostgresPort for Simulated {
    async fn measure(&self) -> PostgresMeasure {
        tokio::time::sleep(ANSWER).await;
        let Ok(postgres) = self.postgres() else {
            let facts = PostgresFacts::silent(PostgresStatus::Stopped, "connection refused");
            let no_reply = Some(NoReply::Silent("connection refused".to_owned()));
            return PostgresMeasure { facts, receiver_heard: None, no_reply };
        };
        let receives = self.world.receives(self.me);
        let status = match (postgres.standby, receives) {
            (false, _) => PostgresStatus::Primary,
            (true, true) => PostgresStatus::Streaming,
            (true, false) => PostgresStatus::Detached,
        };
        let facts = PostgresFacts {
            status,
            timeline: Some(TimelineId(postgres.timeline)),
            lsn: Some(postgres.lsn),
            replayed: postgres.standby.then_some(postgres.lsn),
            detail: String::new(),
        };
        PostgresMeasure { facts, receiver_heard: receives.then_some(Duration::ZERO), no_reply: None }
    }

    async fn admits(&self) -> Result<(), NoReply> {
        self.postgres().map(drop).map_err(|error| NoReply::Silent(error.to_string()))
    }

    async fn start(&self) -> Answer<bool> {
        let ran = self.postgres().is_ok();
        self.world.change(self.me, |postgres| postgres.runs = true);
        Ok(!ran)
    }

    async fn stop(&self, _: StopMode) -> Answer<PostgresEnd> {
        self.world.dies(self.me);
        Ok(PostgresEnd { words: "stopped".to_owned(), forced: false })
    }

    async fn process(&self) -> ServerProcess {
        if self.postgres().is_ok() { ServerProcess::Up } else { ServerProcess::None }
    }

    fn is_standby_directory(&self) -> bool {
        self.world.of(self.me).standby
    }

    async fn set_upstream(&self, conninfo: &str) -> Answer<()> {
        self.return_to_upstream(conninfo).await
    }

    async fn leave_upstream(&self) -> Answer<()> {
        self.world.change(self.me, |postgres| postgres.upstream = None);
        Ok(())
    }

    async fn return_to_upstream(&self, otherwise: &str) -> Answer<()> {
        let upstream =
            otherwise.parse().map(NodeId).map_err(|error| PortError::new("reading a node", error))?;
        self.world.change(self.me, |postgres| postgres.upstream = Some(upstream));
        Ok(())
    }

    fn conninfo_of(&self, server: &Address) -> String {
        if server.host == "alpha" { "1".to_owned() } else { "2".to_owned() }
    }

    async fn replay_state(&self) -> Answer<ReplayState> {
        let postgres = self.postgres()?;
        Ok(ReplayState {
            receiving: self.world.receives(self.me),
            received: postgres.lsn,
            replayed: postgres.lsn,
            waits_for_more: true,
        })
    }

    async fn hindrances(&self) -> Answer<Vec<String>> {
        Ok(Vec::new())
    }

    async fn sanitise(&self) -> Answer<Vec<String>> {
        Ok(Vec::new())
    }

    async fn promote(&self) -> Answer<Promotion> {
        tokio::time::sleep(PROMOTION).await;
        self.postgres()?;
        self.world.change(self.me, |postgres| {
            postgres.standby = false;
            postgres.timeline += 1;
            postgres.switchpoint = postgres.lsn;
        });
        self.promotion().await?.ok_or_else(|| PortError("it is a standby".to_owned()))
    }

    async fn promotion(&self) -> Answer<Option<Promotion>> {
        let postgres = self.postgres()?;
        let Postgres { timeline, switchpoint, .. } = postgres;
        Ok((!postgres.standby).then_some(Promotion { timeline: TimelineId(timeline), switchpoint }))
    }

    async fn writes_unpromoted(&self, _: Option<TimelineId>) -> Answer<bool> {
        Ok(false)
    }

    async fn prove_write(&self, _: Epoch) -> Answer<()> {
        self.postgres()?;
        self.world.change(self.me, |postgres| postgres.lsn = Lsn(postgres.lsn.0 + 0x100));
        Ok(())
    }

    async fn read_only_settings(&self) -> Answer<Vec<ReadOnlySetting>> {
        Ok(Vec::new())
    }

    async fn ensure_slot(&self, _: NodeId) -> Answer<bool> {
        Ok(true)
    }

    async fn cap_slots(&self) -> Answer<String> {
        Ok("10GB".to_owned())
    }

    async fn checkpoint(&self) -> Answer<()> {
        Ok(())
    }

    async fn control_timeline(&self) -> Answer<TimelineId> {
        Ok(TimelineId(self.postgres()?.timeline))
    }
}

#[async_trait(?Send)]
impl HandoverPort for Simulated {
    async fn hand_down(&self, _: Duration) -> Answer<ShutdownProof> {
        not_simulated("handing down")
    }

    async fn standby_behind(&self, _: NodeId) -> Answer<Option<u64>> {
        Ok(Some(0))
    }

    async fn drop_unused_slots(&self) -> Answer<()> {
        Ok(())
    }

    async fn open_transactions(&self) -> Answer<Vec<(i32, String)>> {
        Ok(Vec::new())
    }

    async fn limits_at_next_start(&self) -> Answer<StandbyLimits> {
        not_simulated("limits")
    }

    async fn shutdown_proof(&self) -> Answer<ShutdownProof> {
        not_simulated("a shutdown proof")
    }

    async fn received(&self) -> Answer<Received> {
        let lsn = self.postgres()?.lsn;
        Ok(Received { received: lsn, replayed: lsn })
    }

    async fn end_of_whole_log(&self, _: TimelineId) -> Answer<Lsn> {
        Ok(self.postgres()?.lsn)
    }

    async fn log_record(&self, _: TimelineId, _: Lsn) -> Answer<LogRecord> {
        not_simulated("a record of the WAL")
    }

    async fn become_standby(&self, _: &str, _: &str, _: Option<&MainLineage>) -> Answer<()> {
        not_simulated("becoming a standby")
    }

    async fn restores_from_archive(&self) -> Answer<bool> {
        Ok(false)
    }

    async fn followed_timeline(&self) -> Answer<Option<TimelineId>> {
        Ok(None)
    }

    async fn could_become_standby(&self) -> Answer<()> {
        Ok(())
    }

    fn last_complaint(&self) -> Option<String> {
        None
    }

    async fn main_lineage(&self) -> Answer<MainLineage> {
        let Postgres { timeline, lsn, .. } = self.postgres()?;
        Ok(MainLineage { system_id: 7, timeline: TimelineId(timeline), flushed: lsn, history: Vec::new() })
    }

    async fn lineage_against(&self, _: &MainLineage, _: &dyn MainServerPort) -> Answer<Lineage> {
        not_simulated("comparing lineages")
    }

    async fn parting_from(
        &self,
        _: (TimelineId, Lsn),
        _: &MainLineage,
        _: &dyn MainServerPort,
    ) -> Answer<Option<Lsn>> {
        Ok(None)
    }

    async fn can_rewind(&self) -> Answer<()> {
        not_simulated("a rewind")
    }

    async fn fork(&self, _: TimelineId, _: Lsn, _: Duration) -> Answer<ForkReport> {
        not_simulated("a fork report")
    }

    fn main_server(&self, _: &Address) -> Box<dyn MainServerPort> {
        Box::new(NoServer)
    }
}

/// Main's PostgreSQL is not asked in a failover.
struct NoServer;

#[async_trait(?Send)]
impl MainServerPort for NoServer {
    async fn lineage(&self) -> Answer<MainLineage> {
        not_simulated("main's lineage")
    }

    async fn log_sums(&self, _: &str, _: (u64, u64, u64)) -> Answer<Option<Vec<String>>> {
        Ok(None)
    }

    async fn log_bytes(&self, _: &str, _: (u64, u64)) -> Answer<Option<Vec<u8>>> {
        Ok(None)
    }

    async fn lets_itself_be_read(&self) -> Answer<bool> {
        Ok(false)
    }

    async fn size(&self) -> Answer<u64> {
        not_simulated("main's size")
    }

    async fn can_be_copied(&self) -> Answer<()> {
        not_simulated("a copy of main")
    }

    async fn return_slot(&self, _: NodeId) -> Answer<interrex_actors::ports::ReturnSlot> {
        not_simulated("a slot on main")
    }

    async fn prepare_return(&self, _: NodeId) -> Answer<bool> {
        not_simulated("a slot on main")
    }

    async fn limits(&self) -> Answer<StandbyLimits> {
        not_simulated("main's limits")
    }

    async fn hindrances(&self) -> Answer<Vec<String>> {
        Ok(Vec::new())
    }

    async fn log_in_ahead(&self) -> Answer<()> {
        not_simulated("a login on main")
    }

    async fn held_in(&self, _: &[interrex_actors::ports::FileNode]) -> interrex_actors::ports::HeldOnMain {
        interrex_actors::ports::HeldOnMain::default()
    }

    async fn streams_to(&self, _: NodeId) -> Answer<bool> {
        Ok(false)
    }
}

#[async_trait(?Send)]
impl RejoinPort for Simulated {
    fn is_startable(&self) -> bool {
        true
    }

    fn must_make_room_beside(&self, _: &Path) -> Option<PathBuf> {
        None
    }

    fn rewind_source(&self, _: &Address) -> Answer<Source> {
        not_simulated("a rewind")
    }

    fn forget(&self, _: &Source) {}

    fn copy_source(&self, _: &Address) -> Source {
        Source { conninfo: String::new(), passfile: None }
    }

    async fn log_in(&self, _: &Source) -> Answer<Option<String>> {
        not_simulated("a login for replication")
    }

    async fn turned_away(&self, _: &Address) -> bool {
        false
    }

    async fn room_to_keep(&self, _: &KeepRequest) -> Answer<u64> {
        not_simulated("keeping a directory")
    }

    fn room_to_replace(&self, _: u64) -> Answer<()> {
        not_simulated("replacing a directory")
    }

    fn is_replaceable(&self) -> Answer<()> {
        not_simulated("replacing a directory")
    }

    async fn keep_copy(&self, _: &KeepRequest, _: &dyn Fn(CopyProgress)) -> Answer<Kept> {
        not_simulated("keeping a directory")
    }

    async fn prune_kept(&self, _: &Path, _: usize, _: Option<&Path>) -> Answer<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    async fn prune_archived(&self, _: &Path, _: &Path) -> Answer<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    async fn rewind(&self, _: &Source, _: Duration) -> Answer<Rewind> {
        not_simulated("a rewind")
    }

    async fn is_replaced(&self, _: &KeepRequest) -> Answer<bool> {
        Ok(false)
    }

    async fn base_backup(
        &self,
        _: &Source,
        _: &str,
        _: &KeepRequest,
        _: &dyn Fn(CopyProgress),
        _: Duration,
    ) -> Answer<Kept> {
        not_simulated("a base backup")
    }
}

#[async_trait(?Send)]
impl StreamPort for Simulated {
    async fn look(&self) -> Answer<StreamState> {
        self.postgres()?;
        let Stream { position, heads } = self.world.0.borrow().1.clone();
        let (requests, rebuilt, paused, refused) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Ok(StreamState { position, heads, requests, rebuilt, paused, refused })
    }

    async fn held(&self, _: NodeId, _: NodeSeq) -> Answer<Vec<Record>> {
        Ok(Vec::new())
    }

    async fn relay(&self, epoch: Epoch, records: &[Record]) -> Result<Relayed, NotRelayed> {
        self.postgres()?;
        let stream = &mut self.world.0.borrow_mut().1;
        for record in records {
            stream.heads.insert(record.node_id, record.as_head());
            stream.position = Position { epoch, pos: stream.position.pos + 1 };
        }
        Ok(Relayed { position: stream.position, paused: Vec::new() })
    }

    async fn follow(&self) -> Answer<u64> {
        Ok(0)
    }

    async fn holds_safely(&self, _: Head) -> Answer<()> {
        not_simulated("retention")
    }
}

#[async_trait(?Send)]
impl DependentsPort for Simulated {
    async fn measure(&self) -> BTreeMap<String, DependentFacts> {
        BTreeMap::new()
    }

    async fn start(&self) -> Answer<Vec<String>> {
        Ok(Vec::new())
    }

    async fn stop(&self) -> Answer<String> {
        Ok("none".to_owned())
    }

    async fn restart(&self) -> Answer<BTreeMap<String, u64>> {
        Ok(BTreeMap::new())
    }
}

#[async_trait(?Send)]
impl HooksPort for Simulated {
    fn count(&self) -> usize {
        0
    }

    async fn run(&self, _: HookFacts) -> Answer<Vec<String>> {
        Ok(Vec::new())
    }
}
