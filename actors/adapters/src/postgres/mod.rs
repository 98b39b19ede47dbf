//! The adapter for PostgreSQL: queries through one owned connection, start and stop through its own programs.
//!
//! One connection, because a pool hides which server answers. Every call is limited by the server itself
//! (`statement_timeout`), by the time to connect, and by the caller.

pub(crate) mod admission;
mod auto_conf;
mod common_log;
pub mod config_file;
pub mod control_file;
mod files;
pub mod fork;
mod handover;
pub mod inherited;
mod line;
mod lineage;
mod main_server;
mod recovery;
mod rejoin;
mod relations;
mod server_log;
pub(crate) mod sessions;
mod shutdown;
pub mod standby;
mod standby_limits;
mod start;
mod status_file;
mod wal;

pub use self::{
    rejoin::{log_in_for_replication, not_salvaged, note_salvaged, put_base_backup_in_place},
    sessions::STANDBY_TIMELINE,
};

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use interrex_actors::{
    ports::{
        Answer, NoReply, PortError, PostgresEnd, PostgresMeasure, PostgresPort, Promotion, ReadOnlySetting,
        ReplayState, ServerProcess, StopMode, slot_name,
    },
    wire::PostgresFacts,
};
use interrex_events::{
    Address, Epoch, Lsn, NodeId, PostgresStatus, TimelineId, cluster_events,
    postgres::{Row, conninfo_value, literal, rows},
};
use tokio::sync::Mutex;
use tokio_postgres::{Client, error::SqlState};

use self::{
    admission::ask_for_a_session,
    sessions::{WRITES, connect, facts, measure_sql},
    status_file::State,
};
use crate::{
    guarded, no_reply,
    runtime::{Program, RunAs, Runtime},
    secret::Secret,
};

/// How long a start is waited for. PostgreSQL continues to start after that: a recovery may take long.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a process may outlive a harder signal.
const KILL_PATIENCE: Duration = Duration::from_secs(2);
/// Pause between two checks of the server during a failover.
const LOOK: Duration = Duration::from_millis(3);
/// How often `pg_promote` is called again: avoids a wait of 5 s (MEASURED M6).
const PROMOTE_AGAIN: Duration = Duration::from_millis(50);
/// Time limit for a reload of the configuration files.
const RELOAD_LIMIT: Duration = Duration::from_secs(2);
/// How much WAL a replication slot may keep if the operator set no limit.
const SLOT_LIMIT: &str = "10GB";
/// The retry interval of the WAL receiver, against the same wait.
const RETRIEVE_RETRY: &str = "100ms";

/// How to reach and run the local server.
#[derive(Debug, Clone)]
pub struct PostgresSettings {
    /// The data directory (PGDATA).
    pub data_dir: PathBuf,
    /// The folder of `postgres` and the other programs.
    pub bin_dir: PathBuf,
    /// `postgresql.conf`, if it is not in the data directory.
    pub config_file: Option<PathBuf>,
    /// What runs it.
    pub runtime: Rc<dyn Runtime>,
    /// Host.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Superuser.
    pub user: String,
    /// Its password.
    pub password: Option<Secret>,
    /// Database.
    pub database: String,
    /// The replication user.
    pub replication_user: String,
    /// libpq password file for the replication user.
    pub replication_passfile: Option<PathBuf>,
    /// This node: names its slot and its standby.
    pub node: NodeId,
    /// Time limit for one measurement.
    pub measure_limit: Duration,
    /// The file that keeps the upstream while a run has cleared it; it may contain a password.
    pub upstream_file: PathBuf,
    /// How long a clean stop may take before PostgreSQL is stopped at once.
    pub stop_patience: Duration,
}

/// The adapter.
pub struct LocalPostgres {
    settings: PostgresSettings,
    client: RefCell<Option<Rc<Client>>>,
    /// A session for long commands, opened before it is needed: later the server may admit none.
    spare: RefCell<Option<Client>>,
    /// Locked while another thread works on the data directory's files, also for a call that was given up.
    files: Arc<Mutex<()>>,
}

/// The SQL condition for a node's standby in a join of `pg_stat_replication` and `pg_replication_slots`: its slot, with any name of
/// the standby, or the name that a supervisor gives it.
fn is_standby_of(node: NodeId) -> String {
    format!("(slot_name = '{}' OR application_name = 'interrex_{node}')", slot_name(node))
}

impl LocalPostgres {
    /// Makes an adapter that connects at the first request.
    #[must_use]
    pub fn new(settings: PostgresSettings) -> Self {
        Self { settings, client: RefCell::default(), spare: RefCell::default(), files: Arc::default() }
    }

    async fn client(&self) -> Answer<Rc<Client>> {
        self.session().await.map_err(|refusal| PortError(refusal.to_string()))
    }

    /// The open session, or a new session.
    async fn session(&self) -> Result<Rc<Client>, NoReply> {
        if let Some(client) = self.client.borrow().as_ref().filter(|client| !client.is_closed()) {
            return Ok(client.clone());
        }
        let client = Rc::new(self.log_in_here().await?);
        *self.client.borrow_mut() = Some(client.clone());
        Ok(client)
    }

    async fn open(&self) -> Answer<Client> {
        self.log_in_here().await.map_err(|refusal| PortError(refusal.to_string()))
    }

    async fn log_in_here(&self) -> Result<Client, NoReply> {
        let settings = &self.settings;
        let connecting = connect(
            WRITES,
            (&settings.host, settings.port),
            (&settings.user, settings.password.as_deref()),
            &settings.database,
        );
        let doing = format!("connecting to PostgreSQL at {}", self.address());
        connecting.await.map_err(|refusal| refusal.while_doing(&doing))
    }

    /// Measures the server. An ended session says nothing about the server, so a new session is tried.
    async fn measured(&self) -> Result<Vec<Row>, NoReply> {
        let asked = |client: Rc<Client>| async move {
            let answer = rows(&client, &measure_sql()).await;
            answer.map_err(|error| no_reply::of_postgres(&error))
        };
        let open = self.client.borrow().clone().filter(|client| !client.is_closed());
        let was_open = open.is_some();
        match asked(self.session().await?).await {
            Err(NoReply::Passing(_) | NoReply::Silent(_)) if was_open => {
                self.client.borrow_mut().take();
                asked(self.session().await?).await
            }
            answer => answer,
        }
    }

    /// A superuser gets in even if the remaining places are reserved for superusers, so the places must be counted.
    async fn has_places_for_ordinary_users(&self) -> Result<(), NoReply> {
        let sql = "SELECT count(*)::text AS taken,
                          (current_setting('max_connections')::int
                           - current_setting('superuser_reserved_connections')::int
                           - coalesce(current_setting('reserved_connections', true)::int, 0))::text AS places
                   FROM pg_stat_activity WHERE backend_type = 'client backend'";
        let client = self.session().await?;
        let found = rows(&client, sql).await.map_err(|error| no_reply::of_postgres(&error))?;
        let read = |column: &'static str| found.first().and_then(|row| row.parsed::<u64>(column));
        match (read("taken"), read("places")) {
            (Some(taken), Some(places)) if taken >= places => {
                let words = format!(
                    "all {places} places for ordinary users are used ({taken} sessions); the rest of max_connections is reserved \
                     for superusers"
                );
                Err(NoReply::Refused { code: "53300".to_owned(), words })
            }
            _ => Ok(()),
        }
    }

    fn address(&self) -> Address {
        Address::new(&self.settings.host, self.settings.port)
    }

    async fn rows(&self, sql: &str) -> Answer<Vec<Row>> {
        let client = self.client().await?;
        rows(&client, sql).await.map_err(|error| {
            PortError::new(
                sql.split_whitespace().take(3).collect::<Vec<_>>().join(" ").as_str(),
                cluster_events::in_words(&error),
            )
        })
    }

    async fn value(&self, sql: &str) -> Answer<Option<String>> {
        let rows = self.rows(sql).await?;
        Ok(rows.first().and_then(|row| row.get(0)).map(str::to_owned))
    }

    /// The user that owns the server's files.
    fn user(&self) -> RunAs {
        self.settings.runtime.user()
    }

    /// A program of the server, for its data directory.
    fn program(&self, name: &str) -> Program {
        let mut program = Program::new(self.settings.bin_dir.join(name));
        program.arg("-D").arg(self.inside(&self.settings.data_dir));
        program
    }

    /// A path of this machine, as the server and its programs see it.
    fn inside(&self, path: &Path) -> PathBuf {
        self.settings.runtime.inside(path)
    }

    /// The state in the control file, for people; a damaged file is not an error here.
    async fn cluster_state(&self) -> String {
        self.control_file().await.map_or_else(|_| "unreadable".to_owned(), |control| control.state)
    }

    async fn receive_from(&self, conninfo: &str) -> Answer<()> {
        let slot = if conninfo.is_empty() { String::new() } else { slot_name(self.settings.node) };
        for (setting, value) in [
            ("wal_retrieve_retry_interval", RETRIEVE_RETRY),
            ("primary_conninfo", conninfo),
            ("primary_slot_name", &slot),
        ] {
            self.rows(&format!("ALTER SYSTEM SET {setting} = {}", literal(value))).await?;
        }
        self.rows("SELECT pg_reload_conf()").await?;
        Ok(())
    }

    /// The timeline that a primary writes, and its history file; nothing for a standby.
    async fn written_timeline(&self) -> Answer<Option<(u32, Option<String>)>> {
        let sql = "SELECT CASE WHEN pg_is_in_recovery() THEN NULL ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) END";
        let Some(name) = self.value(sql).await? else { return Ok(None) };
        let timeline =
            u32::from_str_radix(&name, 16).map_err(|error| PortError::new("reading the timeline", error))?;
        let history =
            self.value(&format!("SELECT pg_read_file('pg_wal/{name}.history', 0, 65536, true)")).await?;
        Ok(Some((timeline, history)))
    }
}

#[async_trait(?Send)]
impl PostgresPort for LocalPostgres {
    async fn measure(&self) -> PostgresMeasure {
        let silent = async |reply: NoReply| {
            let lives = self.settings.runtime.find().await.is_some();
            let status = if lives { PostgresStatus::Unreachable } else { PostgresStatus::Stopped };
            let facts = PostgresFacts::silent(status, reply.to_string());
            PostgresMeasure { facts, receiver_heard: None, no_reply: Some(reply) }
        };
        let limit = self.settings.measure_limit;
        match tokio::time::timeout(limit, self.measured()).await {
            Ok(Ok(rows)) => match rows.first() {
                Some(row) => facts(row),
                None => silent(NoReply::Silent("PostgreSQL answered without a row".to_owned())).await,
            },
            Ok(Err(reply)) => silent(reply).await,
            Err(_) => {
                // a connection that hangs is dropped: the next query gets a new one
                self.client.borrow_mut().take();
                silent(NoReply::late(limit)).await
            }
        }
    }

    async fn admits(&self) -> Result<(), NoReply> {
        let settings = &self.settings;
        let address = (settings.host.as_str(), settings.port);
        ask_for_a_session(address, &settings.user, ("database", &settings.database)).await?;
        self.has_places_for_ordinary_users().await?;
        // the session for a switchover is opened before it is needed
        let open = self.spare.borrow().as_ref().is_some_and(|client| !client.is_closed());
        if !open {
            let client = self.log_in_here().await?;
            *self.spare.borrow_mut() = Some(client);
        }
        Ok(())
    }

    async fn start(&self) -> Answer<bool> {
        self.start_postmaster().await
    }

    async fn stop(&self, mode: StopMode) -> Answer<PostgresEnd> {
        self.stop_postmaster(mode).await
    }

    async fn process(&self) -> ServerProcess {
        match self.settings.runtime.find().await {
            None => ServerProcess::None,
            Some(_) if self.status_file().state() == Some(State::Stopping) => ServerProcess::Stopping,
            Some(_) => ServerProcess::Up,
        }
    }

    fn is_standby_directory(&self) -> bool {
        self.settings.data_dir.join("standby.signal").exists()
    }

    async fn leave_upstream(&self) -> Answer<()> {
        let current = self.value("SHOW primary_conninfo").await?.unwrap_or_default();
        if current.is_empty() {
            return Ok(());
        }
        // it may contain a password
        guarded::write(&self.settings.upstream_file, current.as_bytes(), RunAs::Myself)
            .map_err(|error| PortError::new("saving primary_conninfo", error))?;
        self.receive_from("").await
    }

    async fn return_to_upstream(&self, otherwise: &str) -> Answer<()> {
        let kept = std::fs::read_to_string(&self.settings.upstream_file).unwrap_or_default();
        self.receive_from(if kept.is_empty() { otherwise } else { &kept }).await
    }

    async fn set_upstream(&self, conninfo: &str) -> Answer<()> {
        self.receive_from(conninfo).await
    }

    fn conninfo_of(&self, server: &Address) -> String {
        let Address { host, port } = server;
        let settings = &self.settings;
        let passfile = match &settings.replication_passfile {
            Some(file) => format!(" passfile={}", conninfo_value(&self.inside(file).display().to_string())),
            None => String::new(),
        };
        format!(
            "host={host} port={port} user={}{passfile} application_name=interrex_{} connect_timeout=5 \
             keepalives_idle=5 keepalives_interval=2 keepalives_count=3",
            conninfo_value(&settings.replication_user),
            settings.node
        )
    }

    async fn replay_state(&self) -> Answer<ReplayState> {
        let sql = "SELECT EXISTS (SELECT FROM pg_stat_wal_receiver)::text AS receiving,
                          pg_last_wal_receive_lsn()::text AS received,
                          pg_last_wal_replay_lsn()::text AS replayed,
                          coalesce((SELECT wait_event IN ('RecoveryWalStream', 'RecoveryRetrieveRetryInterval')
                                    FROM pg_stat_activity WHERE backend_type = 'startup'), false)::text AS waits";
        let rows = self.rows(sql).await?;
        let row =
            rows.first().ok_or_else(|| PortError("PostgreSQL did not answer about its replay".to_owned()))?;
        let replayed: Lsn = row.parsed("replayed").unwrap_or_default();
        Ok(ReplayState {
            receiving: row.get("receiving") == Some("true"),
            received: row.parsed::<Lsn>("received").unwrap_or_default().max(replayed),
            replayed,
            waits_for_more: row.get("waits") == Some("true"),
        })
    }

    async fn hindrances(&self) -> Answer<Vec<String>> {
        self.hindered_by_command_line().await
    }

    async fn sanitise(&self) -> Answer<Vec<String>> {
        self.clear_inherited().await
    }

    async fn read_only_settings(&self) -> Answer<Vec<ReadOnlySetting>> {
        self.find_read_only().await
    }

    async fn promote(&self) -> Answer<Promotion> {
        let mut asked_for = Duration::MAX;
        loop {
            if let Some(promotion) = self.promotion().await? {
                return Ok(promotion);
            }
            if asked_for >= PROMOTE_AGAIN {
                asked_for = Duration::ZERO;
                // an error here is a race with the end of recovery, or the next check meets it again
                if let Err(error) = self.rows("SELECT pg_promote(false)").await {
                    tracing::debug!(%error, "pg_promote");
                }
            }
            tokio::time::sleep(LOOK).await;
            asked_for += LOOK;
        }
    }

    async fn promotion(&self) -> Answer<Option<Promotion>> {
        let Some((timeline, history)) = self.written_timeline().await? else { return Ok(None) };
        // a server that only lost its standby.signal is not a primary of a new timeline (MEASURED M4)
        let history = history.ok_or_else(|| {
            PortError(format!(
                "PostgreSQL accepts writes on timeline {timeline} without a history file: it was not promoted, but started \
                 without standby.signal"
            ))
        })?;
        let switchpoint = history
            .lines()
            .filter_map(|line| line.split_whitespace().nth(1)?.parse().ok())
            .next_back()
            .ok_or_else(|| PortError(format!("{timeline:08X}.history names no switchpoint")))?;
        Ok(Some(Promotion { timeline: TimelineId(timeline), switchpoint }))
    }

    async fn writes_unpromoted(&self, mains: Option<TimelineId>) -> Answer<bool> {
        // a standby has the history of the timeline that it received, too
        let is_mains = |timeline: u32| mains.is_some_and(|mains| timeline <= mains.0);
        let written = self.written_timeline().await?;
        Ok(written.is_some_and(|(timeline, history)| history.is_none() || is_mains(timeline)))
    }

    async fn prove_write(&self, epoch: Epoch) -> Answer<()> {
        let sql = format!(
            "INSERT INTO interrex.write_probe (epoch, written_at) VALUES ({epoch}, now())
             ON CONFLICT (only_row) DO UPDATE SET epoch = excluded.epoch, written_at = excluded.written_at"
        );
        let client = self.client().await?;
        let there = cluster_events::is_there(&client).await;
        if there.map_err(|error| PortError::new("checking the schema interrex", error))? {
            let Err(error) = rows(&client, &sql).await else { return Ok(()) };
            // a cluster that never had a supervised main has no such table
            if !matches!(error.code().map(SqlState::code), Some("3F000" | "42P01")) {
                return Err(PortError::new("writing a row", cluster_events::in_words(&error)));
            }
        }
        let mut client = self.open().await?;
        cluster_events::migrate(&mut client)
            .await
            .map_err(|error| PortError::new("creating the schema interrex", error))?;
        self.rows(&sql).await.map(drop)
    }

    async fn ensure_slot(&self, node: NodeId) -> Answer<bool> {
        let name = slot_name(node);
        // a slot whose WAL is lost is useless to its node
        let lost = format!(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
             WHERE slot_name = '{name}' AND wal_status = 'lost' AND NOT active"
        );
        self.rows(&lost).await?;
        let exists =
            self.value(&format!("SELECT 1 FROM pg_replication_slots WHERE slot_name = '{name}'")).await?;
        if exists.is_none() {
            self.rows(&format!("SELECT pg_create_physical_replication_slot('{name}', true)")).await?;
        }
        Ok(exists.is_none())
    }

    async fn cap_slots(&self) -> Answer<String> {
        let limit = self.value("SHOW max_slot_wal_keep_size").await?.unwrap_or_default();
        if limit != "-1" {
            return Ok(limit);
        }
        self.rows(&format!("ALTER SYSTEM SET max_slot_wal_keep_size = '{SLOT_LIMIT}'")).await?;
        self.rows("SELECT pg_reload_conf()").await?;
        Ok(format!("{SLOT_LIMIT}, set now because it was unlimited"))
    }

    async fn checkpoint(&self) -> Answer<()> {
        // on its own connection without a statement limit: it takes as long as the disk needs
        let spare = self.spare.borrow_mut().take().filter(|client| !client.is_closed());
        let client = match spare {
            Some(client) => client,
            None => self.open().await?,
        };
        let sql = "SET statement_timeout = 0; CHECKPOINT";
        client
            .batch_execute(sql)
            .await
            .map_err(|error| PortError::new("CHECKPOINT", cluster_events::in_words(&error)))?;
        *self.spare.borrow_mut() = Some(client);
        Ok(())
    }

    async fn control_timeline(&self) -> Answer<TimelineId> {
        let value = self.value("SELECT timeline_id FROM pg_control_checkpoint()").await?.unwrap_or_default();
        value.parse().map_err(|error| PortError::new("reading the control file's timeline", error))
    }
}
