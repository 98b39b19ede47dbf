//! `cluster_events` in PostgreSQL: the merged stream of all journals, on whoever is main.
//!
//! The relay asks the destination what it has and sends what follows it, for a failover may have lost rows
//! that were sent before. Each event goes in once: it must be chained to the newest one of its node that is
//! there, and `pos` is assigned under a lock, so that it has no gaps.

use tokio_postgres::{Client, types::ToSql};

use crate::{ChainHash, Head, NodeId, NodeSeq, Record};

const SCHEMA: &str = include_str!("schema.sql");

/// Serialises everybody who changes the schema or appends: the bytes "IRRX".
const LOCK: i64 = 0x4952_5258;

/// Why events could not be relayed.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// PostgreSQL failed.
    #[error("{}", in_words(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// The same place holds another event than the journal: two machines with one node's number, or an old image.
    #[error(
        "cluster_events and the journal of node {node_id} disagree about event {node_seq}: the journal was forked"
    )]
    JournalForked {
        /// Whose journal.
        node_id: NodeId,
        /// Which event.
        node_seq: NodeSeq,
    },
    /// The table holds something that is no hash.
    #[error("cluster_events holds no valid hash for node {0}")]
    BadHash(NodeId),
}

/// The server's own words: the crate's error names only the kind.
#[must_use]
pub fn in_words(error: &tokio_postgres::Error) -> String {
    if let Some(server) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", server.message(), server.code().code());
    }
    // the cause at the bottom: "Connection refused" says more than "error connecting to server"
    let mut innermost: &dyn std::error::Error = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

/// Creates the schema `interrex` where it is missing.
///
/// # Errors
/// PostgreSQL failed, for example because the user may not create a schema.
pub async fn create_schema(client: &mut Client) -> Result<(), RelayError> {
    // changing it wants locks that a reader on a former standby may hold: not where there is nothing to change
    let there = client
        .query_one("SELECT to_regclass('interrex.schema_version') IS NOT NULL", &[])
        .await?
        .get::<_, bool>(0);
    if there {
        return Ok(());
    }
    let transaction = client.transaction().await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    transaction.batch_execute(SCHEMA).await?;
    Ok(transaction.commit().await?)
}

/// The newest event of a node that is there.
///
/// # Errors
/// PostgreSQL failed.
pub async fn head(client: &Client, node: NodeId) -> Result<Head, RelayError> {
    let row = client
        .query_opt(
            "SELECT node_seq, hash FROM interrex.cluster_events WHERE node_id = $1 ORDER BY node_seq DESC LIMIT 1",
            &[&node_column(node)],
        )
        .await?;
    let Some(row) = row else { return Ok(Head::empty(node)) };
    let hash: String = row.get(1);
    let hash = serde_json::from_value::<ChainHash>(hash.into()).map_err(|_| RelayError::BadHash(node))?;
    Ok(Head { node_id: node, node_seq: NodeSeq(row.get::<_, i64>(0).cast_unsigned()), hash })
}

/// Appends events of one node, in that node's order, right after the newest one that is there.
///
/// # Errors
/// PostgreSQL failed, or the events do not continue what is there.
pub async fn append(client: &mut Client, records: &[Record]) -> Result<(), RelayError> {
    let Some(first) = records.first() else { return Ok(()) };
    let transaction = client.transaction().await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    let newest = head(transaction.client(), first.node_id).await?;
    let last: i64 =
        transaction.query_one("SELECT coalesce(max(pos), 0) FROM interrex.cluster_events", &[]).await?.get(0);
    let insert = transaction
        .prepare(
            "INSERT INTO interrex.cluster_events (pos, event_id, cluster_id, node_id, node_seq, epoch, hlc, recorded_at, \
             kind, schema_version, run_id, correlation_id, causation_id, actor, payload, prev_hash, hash) \
             VALUES ($1, $2::text::uuid, $3::text::uuid, $4, $5, $6, $7, $8::text::timestamptz, $9, $10, \
             $11::text::uuid, $12::text::uuid, $13::text::uuid, $14::text::json, $15::text::json, $16, $17)",
        )
        .await?;
    let (mut pos, mut previous) = (last, newest);
    for record in records.iter().filter(|record| record.node_seq > newest.node_seq) {
        if record.node_seq != previous.node_seq.next() || record.prev_hash != previous.hash {
            return Err(RelayError::JournalForked { node_id: record.node_id, node_seq: record.node_seq });
        }
        pos += 1;
        insert_one(&transaction, &insert, pos, record).await?;
        previous = Head { node_id: record.node_id, node_seq: record.node_seq, hash: record.hash };
    }
    Ok(transaction.commit().await?)
}

async fn insert_one(
    transaction: &tokio_postgres::Transaction<'_>,
    insert: &tokio_postgres::Statement,
    pos: i64,
    record: &Record,
) -> Result<(), RelayError> {
    let event_id = record.event_id.to_string();
    let cluster_id = record.cluster_id.to_string();
    let recorded_at = record.recorded_at.to_rfc3339();
    let run_id = record.run_id.map(|id| id.to_string());
    let correlation_id = record.correlation_id.to_string();
    let causation_id = record.causation_id.map(|id| id.to_string());
    let (prev_hash, hash) = (record.prev_hash.to_string(), record.hash.to_string());
    let schema_version = i32::try_from(record.schema_version).unwrap_or(i32::MAX);
    let values: [&(dyn ToSql + Sync); 17] = [
        &pos,
        &event_id,
        &cluster_id,
        &node_column(record.node_id),
        &record.node_seq.0.cast_signed(),
        &record.epoch.0.cast_signed(),
        &record.hlc.0,
        &recorded_at,
        &record.kind,
        &schema_version,
        &run_id,
        &correlation_id,
        &causation_id,
        &record.actor,
        &record.payload,
        &prev_hash,
        &hash,
    ];
    transaction.execute(insert, &values).await?;
    Ok(())
}

fn node_column(node: NodeId) -> i32 {
    i32::try_from(node.0).unwrap_or(i32::MAX)
}
