//! The tables themselves: their shape, and how rows get into them.

use std::{borrow::Cow, fmt};

use interrex_events::cluster_events::{StoreError, in_words};
use tokio_postgres::{Transaction, types::ToSql};

use super::{Changes, Checkpoint};
use crate::{Cluster, Entry, Level, Run};

/// A projection that PostgreSQL keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// `cluster_nodes`, and with it `cluster_config`.
    Nodes,
    /// `cluster_runs`.
    Runs,
    /// `cluster_timeline`.
    Timeline,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Nodes, Self::Runs, Self::Timeline];

    /// The name that readers use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nodes => "cluster_nodes",
            Self::Runs => "cluster_runs",
            Self::Timeline => "cluster_timeline",
        }
    }

    /// Version of its shape and of the fold behind it: raised with either, so that old tables are rebuilt.
    #[must_use]
    pub fn version(self) -> u32 {
        4
    }

    fn columns(self) -> &'static str {
        match self {
            Self::Nodes => {
                "node_id integer PRIMARY KEY, name text NOT NULL, role text NOT NULL, status text NOT NULL, \
                 status_since timestamptz, address text NOT NULL, postgres_address text NOT NULL, redis_address text, \
                 postgres text, timeline bigint, lsn pg_lsn, redis text, dependents json NOT NULL, \
                 actor_restarts integer NOT NULL, epoch bigint NOT NULL"
            }
            Self::Runs => {
                "run_id uuid PRIMARY KEY, node_id integer NOT NULL, trigger text NOT NULL, old_main integer NOT NULL, \
                 new_main integer NOT NULL, epoch bigint NOT NULL, state text NOT NULL, started_at timestamptz NOT NULL, \
                 ended_at timestamptz, resumed integer NOT NULL, without_writes_ms bigint, loss_bytes bigint, \
                 problem text, document json NOT NULL"
            }
            Self::Timeline => {
                "hlc bigint NOT NULL, node_id integer NOT NULL, node_seq bigint NOT NULL, at timestamptz NOT NULL, \
                 node_name text NOT NULL, kind text NOT NULL, run_id uuid, level text NOT NULL, text text NOT NULL, \
                 actor text, learned_later boolean NOT NULL, PRIMARY KEY (hlc, node_id, node_seq)"
            }
        }
    }

    fn indexes(self, rows: &str) -> String {
        match self {
            Self::Nodes | Self::Runs => String::new(),
            Self::Timeline => {
                format!(
                    "CREATE INDEX ON {rows} (run_id, hlc) WHERE run_id IS NOT NULL; CREATE INDEX ON {rows} (level, hlc)"
                )
            }
        }
    }

    fn rows(self, generation: u32) -> String {
        format!("interrex.{}_{generation}", self.name())
    }
}

/// An empty table next to the table that readers see.
pub(super) async fn create(
    transaction: &Transaction<'_>,
    table: Table,
    generation: u32,
) -> Result<(), StoreError> {
    let rows = table.rows(generation);
    // one of that name is left over from a program of another version
    let sql = format!("DROP TABLE IF EXISTS {rows} CASCADE; CREATE TABLE {rows} ({})", table.columns());
    Ok(transaction.batch_execute(&sql).await?)
}

/// Lets readers see the new table, and drops the old one.
pub(super) async fn swap(
    transaction: &Transaction<'_>,
    table: Table,
    generation: u32,
    old: Option<&Checkpoint>,
) -> Result<(), StoreError> {
    let (name, rows) = (table.name(), table.rows(generation));
    let drop = old.map(|old| format!("DROP TABLE IF EXISTS {} CASCADE;", table.rows(old.generation)));
    // of the same shape, the view is kept with all who may read it and all that was built upon it; another shape
    // cannot replace it, and whoever built upon it is told by its absence
    let make_room = match old {
        Some(old) if old.version == table.version() => String::new(),
        _ => format!("DROP VIEW IF EXISTS interrex.{name} CASCADE;"),
    };
    let sql = format!(
        "{indexes}; ANALYZE {rows};
         {make_room}
         CREATE OR REPLACE VIEW interrex.{name} AS SELECT * FROM {rows};
         {drop}
         GRANT SELECT ON interrex.{name} TO pg_monitor",
        indexes = table.indexes(&rows),
        drop = drop.unwrap_or_default(),
    );
    Ok(transaction.batch_execute(&sql).await?)
}

/// Writes what changed. The inner error is PostgreSQL's refusal of a row: it is as if nothing was written.
pub(super) async fn write(
    transaction: &mut Transaction<'_>,
    table: Table,
    checkpoint: &Checkpoint,
    cluster: &Cluster,
    changes: &Changes,
) -> Result<Result<(), String>, StoreError> {
    let savepoint = transaction.savepoint("projection").await?;
    let generation = checkpoint.generation;
    let written = match table {
        Table::Nodes => write_nodes(&savepoint, generation, cluster).await,
        Table::Runs => {
            let changed: Vec<&Run> = changes.runs.iter().filter_map(|id| cluster.runs.get(*id)).collect();
            write_runs(&savepoint, generation, &changed).await
        }
        Table::Timeline => write_timeline(&savepoint, generation, &changes.entries).await,
    };
    match written {
        Ok(()) => {
            savepoint.commit().await?;
            Ok(Ok(()))
        }
        // a row that the table does not take pauses it; anything else, such as a lock, is the relay's failure and passes
        Err(StoreError::Postgres(error)) if is_refusal(&error) => {
            savepoint.rollback().await?;
            Ok(Err(in_words(&error)))
        }
        Err(error) => Err(error),
    }
}

/// Whether the server refuses what was written, now and for ever: the data, a constraint, or the table as it is.
fn is_refusal(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| ["22", "23", "42"].iter().any(|class| code.code().starts_with(class)))
}

/// A text as PostgreSQL takes it: programs may say a zero byte, and no text there may hold one.
fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// Writes a rebuilt projection that is a state, not a list as long as the stream.
pub(super) async fn write_state(
    transaction: &Transaction<'_>,
    table: Table,
    generation: u32,
    cluster: &Cluster,
) -> Result<(), StoreError> {
    match table {
        Table::Nodes => write_nodes(transaction, generation, cluster).await,
        Table::Runs => {
            let all: Vec<&Run> = cluster.runs.runs.values().collect();
            write_runs(transaction, generation, &all).await
        }
        Table::Timeline => Ok(()),
    }
}

/// The values of one column, one for each row.
macro_rules! column {
    ($rows:ident, |$row:ident| $value:expr) => {
        &$rows.iter().map(|$row| $value).collect::<Vec<_>>()
    };
}

async fn write_nodes(
    transaction: &Transaction<'_>,
    generation: u32,
    cluster: &Cluster,
) -> Result<(), StoreError> {
    let rows = Table::Nodes.rows(generation);
    let nodes: Vec<_> = cluster.nodes.nodes.values().collect();
    let epoch = cluster.nodes.epoch.0.cast_signed();
    let sql = format!(
        "INSERT INTO {rows} SELECT node_id, name, role, status, status_since, address, postgres_address, redis_address, \
         postgres, timeline, lsn::pg_lsn, redis, dependents::json, actor_restarts, $15 \
         FROM unnest($1::int[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::text[], $7::text[], $8::text[], \
         $9::text[], $10::bigint[], $11::text[], $12::text[], $13::text[], $14::int[]) AS node (node_id, name, role, status, \
         status_since, address, postgres_address, redis_address, postgres, timeline, lsn, redis, dependents, actor_restarts) \
         ON CONFLICT (node_id) DO UPDATE SET name = excluded.name, role = excluded.role, status = excluded.status, \
         status_since = excluded.status_since, address = excluded.address, postgres_address = excluded.postgres_address, \
         redis_address = excluded.redis_address, postgres = excluded.postgres, timeline = excluded.timeline, \
         lsn = excluded.lsn, redis = excluded.redis, dependents = excluded.dependents, \
         actor_restarts = excluded.actor_restarts, epoch = excluded.epoch"
    );
    let values: [&(dyn ToSql + Sync); 15] = [
        column!(nodes, |node| integer(node.node.0)),
        column!(nodes, |node| node.name.as_str()),
        column!(nodes, |node| node.role.to_string()),
        column!(nodes, |node| node.status.to_string()),
        column!(nodes, |node| node.status_since),
        column!(nodes, |node| node.address.to_string()),
        column!(nodes, |node| node.postgres_address.to_string()),
        column!(nodes, |node| node.redis_address.as_ref().map(ToString::to_string)),
        column!(nodes, |node| node.postgres.map(|status| status.to_string())),
        column!(nodes, |node| node.timeline.map(|timeline| i64::from(timeline.0))),
        column!(nodes, |node| node.lsn.map(|lsn| lsn.to_string())),
        column!(nodes, |node| node.redis.map(|status| status.to_string())),
        column!(nodes, |node| serde_json::json!(node.dependents).to_string()),
        column!(nodes, |node| integer(node.actor_restarts)),
        &epoch,
    ];
    transaction.execute(&sql, &values).await?;
    write_cluster_state(transaction, cluster).await
}

/// The one row behind `cluster_config`. Requests that it answers are done with.
async fn write_cluster_state(transaction: &Transaction<'_>, cluster: &Cluster) -> Result<(), StoreError> {
    let nodes = &cluster.nodes;
    let main = nodes.main.and_then(|main| nodes.get(main));
    let settings = nodes.main.and_then(|main| cluster.settings.in_force_on(main));
    let role = main.map_or_else(|| "unknown".to_owned(), |main| main.role.to_string());
    let host = main.map(|main| main.postgres_address.host.as_str());
    let values: [&(dyn ToSql + Sync); 10] = [
        &nodes.main.map(|main| integer(main.0)),
        &role,
        &host,
        &main.map(|main| main.postgres_address.to_string()),
        &nodes.epoch.0.cast_signed(),
        &nodes.timeline.map(|timeline| i64::from(timeline.0)),
        &settings.map(|settings| settings.auto_failover_enabled),
        &settings.map(|settings| settings.auto_failover_threshold_ms.cast_signed()),
        &cluster.settings.least_threshold_ms().cast_signed(),
        &cluster.settings.changed_by.as_deref(),
    ];
    let sql = "INSERT INTO interrex.cluster_state (main_node_id, main_role, main_host, main_postgres_address, epoch, timeline, \
               auto_failover_enabled, auto_failover_threshold_ms, least_threshold_ms, settings_changed_by) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
               ON CONFLICT (only_row) DO UPDATE SET main_node_id = excluded.main_node_id, main_role = excluded.main_role, \
               main_host = excluded.main_host, main_postgres_address = excluded.main_postgres_address, \
               epoch = excluded.epoch, timeline = excluded.timeline, \
               auto_failover_enabled = excluded.auto_failover_enabled, \
               auto_failover_threshold_ms = excluded.auto_failover_threshold_ms, \
               least_threshold_ms = excluded.least_threshold_ms, settings_changed_by = excluded.settings_changed_by";
    transaction.execute(sql, &values).await?;
    let answered: Vec<_> = cluster.settings.answered_requests().collect();
    transaction.execute("DELETE FROM interrex.settings_requests WHERE id = ANY ($1)", &[&answered]).await?;
    Ok(())
}

async fn write_runs(transaction: &Transaction<'_>, generation: u32, runs: &[&Run]) -> Result<(), StoreError> {
    if runs.is_empty() {
        return Ok(());
    }
    let rows = Table::Runs.rows(generation);
    let sql = format!(
        "INSERT INTO {rows} SELECT run_id, node_id, trigger, old_main, new_main, epoch, state, started_at, ended_at, resumed, \
         without_writes_ms, loss_bytes, problem, document::json \
         FROM unnest($1::uuid[], $2::int[], $3::text[], $4::int[], $5::int[], $6::bigint[], $7::text[], $8::timestamptz[], \
         $9::timestamptz[], $10::int[], $11::bigint[], $12::bigint[], $13::text[], $14::text[]) AS run (run_id, node_id, \
         trigger, old_main, new_main, epoch, state, started_at, ended_at, resumed, without_writes_ms, loss_bytes, problem, \
         document) \
         ON CONFLICT (run_id) DO UPDATE SET state = excluded.state, ended_at = excluded.ended_at, \
         resumed = excluded.resumed, without_writes_ms = excluded.without_writes_ms, loss_bytes = excluded.loss_bytes, \
         problem = excluded.problem, document = excluded.document"
    );
    let values: [&(dyn ToSql + Sync); 14] = [
        column!(runs, |run| run.id.0),
        column!(runs, |run| integer(run.node.0)),
        column!(runs, |run| serde_json::json!(run.trigger).as_str().unwrap_or_default().to_owned()),
        column!(runs, |run| integer(run.old_main.0)),
        column!(runs, |run| integer(run.new_main.0)),
        column!(runs, |run| run.epoch.0.cast_signed()),
        column!(runs, |run| run.end.to_string()),
        column!(runs, |run| run.started_at),
        column!(runs, |run| run.ended_at),
        column!(runs, |run| integer(run.resumed)),
        column!(runs, |run| run.recovery_time.map(|time| time.without_writes_ms().cast_signed())),
        column!(runs, |run| run.loss.as_ref().and_then(|loss| loss.bytes).map(u64::cast_signed)),
        column!(runs, |run| run.problem.as_deref().map(storable)),
        column!(runs, |run| serde_json::json!(run).to_string()),
    ];
    transaction.execute(&sql, &values).await?;
    Ok(())
}

/// Writes lines; a stored line whose text has changed is rewritten.
pub(super) async fn write_timeline(
    transaction: &Transaction<'_>,
    generation: u32,
    entries: &[Entry],
) -> Result<(), StoreError> {
    if entries.is_empty() {
        return Ok(());
    }
    let rows = Table::Timeline.rows(generation);
    let sql = format!(
        "INSERT INTO {rows} AS line SELECT * FROM unnest($1::bigint[], $2::int[], $3::bigint[], $4::timestamptz[], \
         $5::text[], $6::text[], $7::uuid[], $8::text[], $9::text[], $10::text[], $11::boolean[]) \
         ON CONFLICT (hlc, node_id, node_seq) DO UPDATE SET node_name = excluded.node_name, text = excluded.text \
         WHERE (line.node_name, line.text) IS DISTINCT FROM (excluded.node_name, excluded.text)"
    );
    let values: [&(dyn ToSql + Sync); 11] = [
        column!(entries, |entry| entry.hlc.0),
        column!(entries, |entry| integer(entry.node.0)),
        column!(entries, |entry| entry.node_seq.0.cast_signed()),
        column!(entries, |entry| entry.at),
        column!(entries, |entry| storable(&entry.node_name)),
        column!(entries, |entry| entry.kind.as_str()),
        column!(entries, |entry| entry.run_id.map(|id| id.0)),
        column!(entries, |entry| level(entry.level)),
        column!(entries, |entry| storable(&entry.text)),
        column!(entries, |entry| entry.actor.as_deref().map(storable)),
        column!(entries, |entry| entry.learned_later),
    ];
    transaction.execute(&sql, &values).await?;
    Ok(())
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Info => "info",
        Level::Notice => "notice",
        Level::Alarm => "alarm",
    }
}

fn integer(number: u32) -> i32 {
    // node numbers and counts are small
    i32::try_from(number).unwrap_or(i32::MAX)
}
