//! Reading the merged stream: in story order, in processing order, or chain by chain.

use std::ops::ControlFlow;

use futures_util::TryStreamExt as _;
use tokio_postgres::{GenericClient, Row, types::ToSql};

use super::{StoreError, hash_from, is_there, node_column};
use crate::{
    Broken, ChainWalk, ClusterId, Epoch, EventId, Head, Hlc, NodeId, NodeSeq, Place, Position, Record, RunId,
};

const COLUMNS: &str = "event_id, cluster_id, node_id, node_seq, epoch, hlc, recorded_at, kind, schema_version, run_id, \
    correlation_id, causation_id, actor::text, payload::text, prev_hash, hash, learned_in, position_epoch, pos";

/// An event in the merged stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where.
    pub position: Position,
    /// Which.
    pub record: Record,
}

/// Hands every event up to a `pos` to `visit`, in story order, until it breaks off.
///
/// # Errors
/// PostgreSQL failed, or holds a row that is no event.
pub async fn for_each_in_story_order(
    client: &impl GenericClient,
    up_to: Option<u64>,
    visit: impl FnMut(Found) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let up_to = up_to.map_or(i64::MAX, u64::cast_signed);
    let sql = format!(
        "SELECT {COLUMNS} FROM interrex.cluster_events WHERE pos <= $1 ORDER BY hlc, node_id, node_seq"
    );
    stream(client, &sql, &[&up_to], visit).await
}

/// The whole stream in story order, page by page, while its transaction does other things in between.
pub struct Cursor(());

impl Cursor {
    /// Opens it. It ends with the transaction.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn open(transaction: &tokio_postgres::Transaction<'_>) -> Result<Self, StoreError> {
        let sql = format!(
            "DECLARE whole_story NO SCROLL CURSOR FOR \
             SELECT {COLUMNS} FROM interrex.cluster_events ORDER BY hlc, node_id, node_seq"
        );
        transaction.batch_execute(&sql).await?;
        Ok(Self(()))
    }

    /// The next events, at most so many; none at the end.
    ///
    /// # Errors
    /// As [`for_each_in_story_order`].
    pub async fn next(
        &mut self,
        transaction: &tokio_postgres::Transaction<'_>,
        limit: usize,
    ) -> Result<Vec<Found>, StoreError> {
        let rows = transaction.query(&format!("FETCH {limit} FROM whole_story"), &[]).await?;
        rows.iter().map(found).collect()
    }
}

/// Events after a `pos`, at most `limit`, in processing order.
///
/// # Errors
/// As [`for_each_in_story_order`].
pub async fn page(client: &impl GenericClient, after: u64, limit: u32) -> Result<Vec<Found>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM interrex.cluster_events WHERE pos > $1 ORDER BY pos LIMIT $2");
    let rows = client.query(&sql, &[&after.cast_signed(), &i64::from(limit)]).await?;
    rows.iter().map(found).collect()
}

/// Events up to a `pos` that come after a place in the story, or from its beginning; at most `limit`, in story order. Each
/// page is a question of its own: on a standby, none of them delays the replay of main's WAL for long.
///
/// # Errors
/// As [`for_each_in_story_order`].
pub async fn story_page(
    client: &impl GenericClient,
    after: Option<Place>,
    up_to: u64,
    limit: u32,
) -> Result<Vec<Found>, StoreError> {
    let (hlc, node, seq) = after.unwrap_or((Hlc(i64::MIN), NodeId(0), NodeSeq(0)));
    let sql = format!(
        "SELECT {COLUMNS} FROM interrex.cluster_events WHERE (hlc, node_id, node_seq) > ($1, $2, $3) AND pos <= $4 \
         ORDER BY hlc, node_id, node_seq LIMIT $5"
    );
    let (seq, up_to) = (seq.0.cast_signed(), up_to.cast_signed());
    let rows = client.query(&sql, &[&hlc.0, &node_column(node), &seq, &up_to, &i64::from(limit)]).await?;
    rows.iter().map(found).collect()
}

/// The event at a position; `None` if the position has another epoch or no event.
///
/// # Errors
/// As [`for_each_in_story_order`].
pub async fn at(client: &impl GenericClient, position: Position) -> Result<Option<Found>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM interrex.cluster_events WHERE pos = $1 AND position_epoch = $2");
    let row = client.query_opt(&sql, &[&position.pos.cast_signed(), &position.epoch.0.cast_signed()]).await?;
    row.as_ref().map(found).transpose()
}

/// An event by its identity.
///
/// # Errors
/// As [`for_each_in_story_order`].
pub async fn find(
    client: &impl GenericClient,
    node: NodeId,
    seq: NodeSeq,
) -> Result<Option<Found>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM interrex.cluster_events WHERE node_id = $1 AND node_seq = $2");
    let row = client.query_opt(&sql, &[&node_column(node), &seq.0.cast_signed()]).await?;
    row.as_ref().map(found).transpose()
}

/// Events of one node after a place, at most `limit`, in that node's order. None where the tables are missing, as in
/// a database that never had a main's supervisor, or are of an older version.
///
/// # Errors
/// As [`for_each_in_story_order`].
pub async fn journal_page(
    client: &impl GenericClient,
    node: NodeId,
    after: NodeSeq,
    limit: u32,
) -> Result<Vec<Record>, StoreError> {
    if !is_there(client.client()).await? {
        return Ok(Vec::new());
    }
    let sql = "SELECT to_regclass('interrex.journal_heads') IS NOT NULL";
    if !client.query_one(sql, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT {COLUMNS} FROM interrex.cluster_events WHERE node_id = $1 AND node_seq > $2 ORDER BY node_seq LIMIT $3"
    );
    let rows = client.query(&sql, &[&node_column(node), &after.0.cast_signed(), &i64::from(limit)]).await?;
    rows.iter().map(|row| found(row).map(|found| found.record)).collect()
}

/// What a walk over the merged stream found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamVerification {
    /// Events that were found sound.
    pub events: u64,
    /// The newest sound event of each node.
    pub heads: Vec<Head>,
    /// The first bad event, if any.
    pub broken: Option<Broken>,
    /// What is wrong with the positions, if anything.
    pub positions: Option<String>,
}

/// Walks every node's chain, and checks that positions have no gaps and begin each epoch with its opening.
///
/// # Errors
/// As [`for_each_in_story_order`].
pub async fn verify(client: &impl GenericClient) -> Result<StreamVerification, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM interrex.cluster_events ORDER BY node_id, node_seq");
    let mut walks: Vec<ChainWalk> = Vec::new();
    let (mut events, mut broken) = (0, None);
    stream(client, &sql, &[], |found| {
        let node = found.record.node_id;
        if walks.last().is_none_or(|walk| walk.head().node_id != node) {
            walks.push(ChainWalk::from_genesis(node));
        }
        let Some(walk) = walks.last_mut() else { return ControlFlow::Break(()) };
        match walk.step(&found.record) {
            Ok(()) => {
                events += 1;
                ControlFlow::Continue(())
            }
            Err(found) => {
                broken = Some(found);
                ControlFlow::Break(())
            }
        }
    })
    .await?;
    let heads = walks.iter().map(ChainWalk::head).collect();
    let positions = client.query_opt(POSITIONS, &[]).await?.map(|row| row.try_get(0)).transpose()?;
    Ok(StreamVerification { events, heads, broken, positions })
}

/// The first wrong position, as text.
const POSITIONS: &str = "\
SELECT CASE
         WHEN pos <> coalesce(before, 0) + 1 THEN format('position %s is missing before %s:%s', pos - 1, position_epoch, pos)
         WHEN position_epoch < epoch_before THEN format('position %s:%s comes after epoch %s', position_epoch, pos, epoch_before)
         ELSE format('epoch %s begins at position %s with %s instead of epoch_opened', position_epoch, pos, kind)
       END
FROM (SELECT pos, position_epoch, kind, lag(pos) OVER stream AS before, lag(position_epoch) OVER stream AS epoch_before
      FROM interrex.cluster_events WINDOW stream AS (ORDER BY pos)) AS place
WHERE pos <> coalesce(before, 0) + 1
   OR position_epoch < epoch_before
   OR (position_epoch > epoch_before AND kind <> 'epoch_opened')
ORDER BY pos LIMIT 1";

async fn stream(
    client: &impl GenericClient,
    sql: &str,
    values: &[&(dyn ToSql + Sync)],
    mut visit: impl FnMut(Found) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let rows = client.query_raw(sql, values.iter().copied()).await?;
    let mut rows = std::pin::pin!(rows);
    while let Some(row) = rows.try_next().await? {
        if visit(found(&row)?).is_break() {
            break;
        }
    }
    Ok(())
}

fn found(row: &Row) -> Result<Found, StoreError> {
    let number = |index: usize| row.try_get::<_, i64>(index).map(i64::cast_unsigned);
    let node_id = NodeId(row.try_get::<_, i32>(2)?.cast_unsigned());
    let record = Record {
        event_id: EventId(row.try_get(0)?),
        cluster_id: ClusterId(row.try_get(1)?),
        node_id,
        node_seq: NodeSeq(number(3)?),
        epoch: Epoch(number(4)?),
        hlc: Hlc(row.try_get(5)?),
        recorded_at: row.try_get(6)?,
        kind: row.try_get(7)?,
        schema_version: row.try_get::<_, i32>(8)?.cast_unsigned(),
        run_id: row.try_get::<_, Option<_>>(9)?.map(RunId),
        correlation_id: EventId(row.try_get(10)?),
        causation_id: row.try_get::<_, Option<_>>(11)?.map(EventId),
        actor: row.try_get(12)?,
        payload: row.try_get(13)?,
        prev_hash: hash_from(node_id, row.try_get(14)?)?,
        hash: hash_from(node_id, row.try_get(15)?)?,
        learned_in: Epoch(number(16)?),
    };
    Ok(Found { position: Position { epoch: Epoch(number(17)?), pos: number(18)? }, record })
}
