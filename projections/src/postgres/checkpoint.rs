//! How far each projection is: `(epoch, pos, hash of the event there)` and the version of its shape.

use interrex_events::{
    ChainHash, Epoch, Position,
    cluster_events::{StoreError, StreamHead},
};
use tokio_postgres::{GenericClient, Transaction};

use super::Table;

/// A row of `projection_checkpoints`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Version of the projection's shape.
    pub version: u32,
    /// Which of its tables the view shows.
    pub generation: u32,
    /// The newest event in it.
    pub head: StreamHead,
    /// `live`, `paused` or `rebuild`.
    pub state: String,
    /// What paused it.
    pub problem: Option<String>,
}

impl Checkpoint {
    /// Whether it can be continued from there.
    pub(super) fn stands_at(&self, table: Table, head: StreamHead) -> bool {
        self.state == "live" && self.version == table.version() && self.head == head
    }
}

/// Why a projection must be rebuilt, if it must. A paused projection stays paused until a rebuild is requested.
pub(super) fn what_is_amiss(
    table: Table,
    checkpoint: Option<&Checkpoint>,
    head: StreamHead,
) -> Option<String> {
    let Some(checkpoint) = checkpoint else { return Some("it is new".to_owned()) };
    match checkpoint.state.as_str() {
        _ if checkpoint.version != table.version() => {
            Some(format!("its shape was of version {}", checkpoint.version))
        }
        "rebuild" => Some("a rebuild was requested".to_owned()),
        "paused" => None,
        _ if checkpoint.head == head => None,
        _ => Some(format!(
            "its checkpoint {} ({}) does not match the stream, which is at {} ({})",
            checkpoint.head.position,
            checkpoint.head.hash.short(),
            head.position,
            head.hash.short()
        )),
    }
}

/// The checkpoint of a projection; `None` if it was never built.
pub(super) async fn read(
    client: &impl GenericClient,
    table: Table,
) -> Result<Option<Checkpoint>, StoreError> {
    let sql = "SELECT version, generation, epoch, pos, head_hash, state, problem \
               FROM interrex.projection_checkpoints WHERE projection = $1";
    let Some(row) = client.query_opt(sql, &[&table.name()]).await? else { return Ok(None) };
    let position = Position {
        epoch: Epoch(row.try_get::<_, i64>(2)?.cast_unsigned()),
        pos: row.try_get::<_, i64>(3)?.cast_unsigned(),
    };
    Ok(Some(Checkpoint {
        version: row.try_get::<_, i32>(0)?.cast_unsigned(),
        generation: row.try_get::<_, i32>(1)?.cast_unsigned(),
        // bytes that are no hash match nothing, and so lead to a rebuild
        head: StreamHead { position, hash: ChainHash::from_slice(row.try_get(4)?).unwrap_or_default() },
        state: row.try_get(5)?,
        problem: row.try_get(6)?,
    }))
}

/// The projections that are paused, by name.
///
/// # Errors
/// PostgreSQL failed.
pub async fn paused(client: &impl GenericClient) -> Result<Vec<String>, StoreError> {
    let sql =
        "SELECT projection FROM interrex.projection_checkpoints WHERE state = 'paused' ORDER BY projection";
    let rows = client.query(sql, &[]).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

pub(super) async fn advance(
    transaction: &Transaction<'_>,
    table: Table,
    head: StreamHead,
) -> Result<(), StoreError> {
    let sql = "UPDATE interrex.projection_checkpoints SET epoch = $2, pos = $3, head_hash = $4, updated_at = now() \
               WHERE projection = $1";
    let Position { epoch, pos } = head.position;
    let hash = head.hash.as_bytes().as_slice();
    transaction.execute(sql, &[&table.name(), &epoch.0.cast_signed(), &pos.cast_signed(), &hash]).await?;
    Ok(())
}

pub(super) async fn pause(
    transaction: &Transaction<'_>,
    table: Table,
    problem: &str,
) -> Result<(), StoreError> {
    let sql = "UPDATE interrex.projection_checkpoints SET state = 'paused', problem = $2, updated_at = now() \
               WHERE projection = $1";
    transaction.execute(sql, &[&table.name(), &problem]).await?;
    Ok(())
}

/// A projection was rebuilt up to `head` into the table of a generation.
pub(super) async fn renew(
    transaction: &Transaction<'_>,
    table: Table,
    generation: u32,
    head: StreamHead,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO interrex.projection_checkpoints (projection, version, generation, epoch, pos, head_hash, state) \
               VALUES ($1, $2, $3, $4, $5, $6, 'live') \
               ON CONFLICT (projection) DO UPDATE SET version = excluded.version, generation = excluded.generation, \
               epoch = excluded.epoch, pos = excluded.pos, head_hash = excluded.head_hash, state = 'live', problem = NULL, \
               updated_at = now()";
    let Position { epoch, pos } = head.position;
    let (version, generation) = (table.version().cast_signed(), generation.cast_signed());
    let hash = head.hash.as_bytes().as_slice();
    transaction
        .execute(
            sql,
            &[&table.name(), &version, &generation, &epoch.0.cast_signed(), &pos.cast_signed(), &hash],
        )
        .await?;
    Ok(())
}
