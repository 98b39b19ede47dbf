//! Another node's server, for a node that comes back as its standby: plain SQL over the network.

use std::path::PathBuf;

use async_trait::async_trait;
use interrex_actors::ports::{
    Answer, FileNode, HeldOnMain, MainLineage, MainServerPort, PortError, PostgresPort as _, ReturnSlot,
    StandbyLimits, slot_name,
};
use interrex_events::{Address, NodeId, postgres::identifier};

use super::{LocalPostgres, rejoin::tablespaces, relations};

/// The function that reads the history of its timelines.
const READS_HISTORY: &str = "pg_read_file(text)";
/// The functions that `pg_rewind` calls, from its manual.
const READ_BY_A_REWIND: [&str; 4] = [
    "pg_ls_dir(text, boolean, boolean)",
    "pg_stat_file(text, boolean)",
    "pg_read_binary_file(text)",
    "pg_read_binary_file(text, bigint, bigint, boolean)",
];

/// The server of another node.
pub(super) struct MainServer(LocalPostgres);

impl LocalPostgres {
    /// Another node's server, with this node's login, because the databases are copies of each other.
    pub(super) fn server_at(&self, address: &Address) -> MainServer {
        let mut settings = self.settings.clone();
        (settings.host, settings.port) = (address.host.clone(), address.port);
        // the server has no files here
        settings.data_dir = PathBuf::new();
        MainServer(LocalPostgres::new(settings))
    }
}

impl MainServer {
    /// A message about what this node's login there may not do, with the fix.
    fn lacks_rights(&self, may_not: &str) -> String {
        let user = &self.0.settings.user;
        let quoted = identifier(user);
        format!(
            "this node's login there, `{user}`, {may_not}. It must be a superuser. On that server: ALTER ROLE {quoted} SUPERUSER; \
             or set postgres.user here to a superuser, and restart the supervisor"
        )
    }

    /// Whether a rewind would see the server's timeline: pg_rewind reads the control file, which a promotion does not change until
    /// the next checkpoint (MEASURED M5).
    async fn control_file_names_its_timeline(&self) -> Answer<bool> {
        let sql = "SELECT timeline_id = ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int
                   FROM pg_control_checkpoint()";
        Ok(self.0.value(sql).await?.as_deref() == Some("t"))
    }

    /// An answer about a file of the WAL; nothing if this node's login may not read it.
    async fn of_log(&self, sql: &str) -> Answer<Option<String>> {
        match self.0.value(sql).await {
            Err(_) if self.may_call(&READ_BY_A_REWIND).await == Ok(false) => Ok(None),
            answer => answer,
        }
    }

    /// Whether this node's login there may call all of these functions.
    async fn may_call(&self, functions: &[&str]) -> Answer<bool> {
        let may = functions.iter().map(|function| format!("has_function_privilege('{function}', 'EXECUTE')"));
        let sql = format!("SELECT {}", may.collect::<Vec<_>>().join(" AND "));
        Ok(self.0.value(&sql).await?.as_deref() == Some("t"))
    }
}

#[async_trait(?Send)]
impl MainServerPort for MainServer {
    async fn lineage(&self) -> Answer<MainLineage> {
        if self.0.value("SELECT pg_is_in_recovery()").await?.as_deref() != Some("f") {
            return Err(PortError("the server is a standby, not main".to_owned()));
        }
        match self.0.read_main_lineage().await {
            Err(error) if self.may_call(&[READS_HISTORY]).await == Ok(false) => {
                let words = format!("may not read the history of its timelines ({error})");
                Err(PortError(self.lacks_rights(&words)))
            }
            lineage => lineage,
        }
    }

    async fn log_sums(&self, file: &str, (from, to, piece): (u64, u64, u64)) -> Answer<Option<Vec<String>>> {
        // a missing piece of a file is NULL, and then the result is NULL
        let sql = format!(
            "SELECT CASE WHEN count(piece) = count(*) THEN string_agg(encode(sha256(piece), 'hex'), ',' ORDER BY at) END
             FROM (SELECT at, pg_read_binary_file('pg_wal/{file}', at, least({piece}, {to} - at), true) AS piece
                   FROM generate_series({from}::bigint, {to}::bigint - 1, {piece}::bigint) AS at) AS pieces"
        );
        let sums = self.of_log(&sql).await?;
        Ok(sums.map(|sums| sums.split(',').map(str::to_owned).collect()))
    }

    async fn log_bytes(&self, file: &str, (from, length): (u64, u64)) -> Answer<Option<Vec<u8>>> {
        let sql =
            format!("SELECT encode(pg_read_binary_file('pg_wal/{file}', {from}, {length}, true), 'hex')");
        let bytes = self.of_log(&sql).await?.map(hex::decode).transpose();
        bytes.map_err(|error| PortError::new("reading main's WAL", error))
    }

    async fn lets_itself_be_read(&self) -> Answer<bool> {
        self.may_call(&READ_BY_A_REWIND).await
    }

    async fn size(&self) -> Answer<u64> {
        self.can_be_copied().await?;
        let bytes = self.0.value("SELECT sum(pg_tablespace_size(oid)) FROM pg_tablespace").await?;
        let bytes = bytes.and_then(|bytes| bytes.parse().ok());
        bytes.ok_or_else(|| PortError("the server does not report its size".to_owned()))
    }

    async fn can_be_copied(&self) -> Answer<()> {
        // pg_default and pg_global lie in the data directory
        let number = self.0.value("SELECT count(*) FROM pg_tablespace").await?;
        if number.as_deref() == Some("2") { Ok(()) } else { Err(tablespaces()) }
    }

    async fn return_slot(&self, node: NodeId) -> Answer<ReturnSlot> {
        let name = slot_name(node);
        let sql = format!(
            "SELECT slot_type, wal_status, active_pid::text, application_name, host(client_addr) AS client,
                    (client_addr = inet_client_addr() AND replay_lsn IS NOT NULL)::text AS standby_from_here,
                    (SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user)::text AS allowed,
                    (SELECT bool_or(pg_has_role(oid, 'USAGE')) FROM pg_roles
                     WHERE rolname = 'pg_checkpoint' OR (rolsuper AND rolname = current_user))::text AS may_checkpoint,
                    (SELECT count(*) FROM pg_replication_slots)::text AS taken,
                    (SELECT string_agg(all_slots.slot_name, ', ' ORDER BY all_slots.slot_name)
                     FROM pg_replication_slots AS all_slots) AS names,
                    current_setting('max_replication_slots') AS most
             FROM (SELECT 1) AS always
             LEFT JOIN pg_replication_slots ON slot_name = '{name}'
             LEFT JOIN pg_stat_replication ON pid = active_pid"
        );
        let rows = self.0.rows(&sql).await?;
        let row =
            rows.first().ok_or_else(|| PortError("the server did not answer about its slots".to_owned()))?;
        let text = |column: &str| row.get(column).unwrap_or_default();
        let taken_by_logical = row.get("slot_type").is_some_and(|kind| kind != "physical");
        if taken_by_logical {
            return Ok(ReturnSlot::Withheld(format!(
                "a logical slot has the name {name}, and a standby cannot receive through a logical slot. If the slot is not \
                 needed, run on that server: SELECT pg_drop_replication_slot('{name}');"
            )));
        }
        if text("may_checkpoint") != "true" {
            return Ok(ReturnSlot::Withheld(self.lacks_rights("may not write a CHECKPOINT")));
        }
        if let Some(pid) = row.get("active_pid") {
            // the run ends a receiver or a base backup of the node itself; pg_basebackup -R gives it no name
            let own =
                text("application_name") == format!("interrex_{node}") || text("standby_from_here") == "true";
            return Ok(if own {
                ReturnSlot::There
            } else {
                ReturnSlot::InUse(format!(
                    "another client uses slot {name} there (process {pid}, application_name `{}`, from {}): end that client first",
                    text("application_name"),
                    row.get("client").unwrap_or("its own machine")
                ))
            });
        }
        if row.get("slot_type").is_some() && text("wal_status") != "lost" {
            return Ok(ReturnSlot::There);
        }
        if text("allowed") != "true" {
            return Ok(ReturnSlot::Withheld(self.lacks_rights("may not create a slot")));
        }
        let (taken, most): (Option<u64>, Option<u64>) = (row.parsed("taken"), row.parsed("most"));
        // a slot whose WAL is lost is replaced by the new slot
        if row.get("slot_type").is_none() && taken >= most {
            return Ok(ReturnSlot::Withheld(format!(
                "no replication slot is free there: all {} of max_replication_slots are used ({}). Drop an unused slot \
                 (SELECT pg_drop_replication_slot('NAME');), or raise the setting, which needs a restart",
                text("most"),
                text("names")
            )));
        }
        Ok(ReturnSlot::ToBeMade)
    }

    async fn prepare_return(&self, node: NodeId) -> Answer<bool> {
        if let Some(obstacle) = self.return_slot(node).await?.obstacle() {
            return Err(PortError(format!("main's PostgreSQL at {}: {obstacle}", self.0.address())));
        }
        let made = self.0.ensure_slot(node).await?;
        if !self.control_file_names_its_timeline().await? {
            self.0.checkpoint().await?;
        }
        Ok(made)
    }

    async fn limits(&self) -> Answer<StandbyLimits> {
        self.0.limits_now().await
    }

    async fn hindrances(&self) -> Answer<Vec<String>> {
        self.0.hindrances().await
    }

    async fn log_in_ahead(&self) -> Answer<()> {
        let limit = relations::LIMIT;
        let late = |_| PortError(format!("no login within {limit:?}"));
        tokio::time::timeout(limit, self.0.client()).await.map_err(late)?.map(drop)
    }

    async fn held_in(&self, files: &[FileNode]) -> HeldOnMain {
        relations::held_in(&self.0, files).await
    }

    async fn streams_to(&self, node: NodeId) -> Answer<bool> {
        let sql = format!(
            "SELECT count(*) FROM pg_replication_slots JOIN pg_stat_replication ON pid = active_pid
             WHERE slot_name = '{}' AND state = 'streaming'",
            slot_name(node)
        );
        Ok(self.0.value(&sql).await?.as_deref() == Some("1"))
    }
}
