//! Appending: one transaction at a time, each event once, positions without gaps.

use std::collections::BTreeMap;

use tokio_postgres::{Client, Transaction};

use super::{StoreError, StreamHead, hash_from, node_column};
use crate::{ChainHash, Epoch, Head, NodeId, NodeSeq, Position, Record};

const INSERT: &str = "\
INSERT INTO interrex.cluster_events (pos, position_epoch, event_id, cluster_id, node_id, node_seq, epoch, learned_in, hlc,
    recorded_at, kind, schema_version, run_id, correlation_id, causation_id, actor, payload, prev_hash, hash)
SELECT $1 + place, $2, event_id, cluster_id, node_id, node_seq, epoch, learned_in, hlc, recorded_at, kind, schema_version,
    run_id, correlation_id, causation_id, actor::json, payload::json, prev_hash, hash
FROM unnest($3::uuid[], $4::uuid[], $5::int[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::timestamptz[],
    $11::text[], $12::int[], $13::uuid[], $14::uuid[], $15::uuid[], $16::text[], $17::text[], $18::bytea[], $19::bytea[])
    WITH ORDINALITY AS event (event_id, cluster_id, node_id, node_seq, epoch, learned_in, hlc, recorded_at, kind,
        schema_version, run_id, correlation_id, causation_id, actor, payload, prev_hash, hash, place)";

/// The newest position of the stream.
///
/// # Errors
/// PostgreSQL failed.
pub async fn stream_head(client: &Client) -> Result<StreamHead, StoreError> {
    head_of(&client.query_one("SELECT epoch, pos, hash FROM interrex.stream_head", &[]).await?)
}

fn head_of(row: &tokio_postgres::Row) -> Result<StreamHead, StoreError> {
    let position = Position {
        epoch: Epoch(row.try_get::<_, i64>(0)?.cast_unsigned()),
        pos: row.try_get::<_, i64>(1)?.cast_unsigned(),
    };
    Ok(StreamHead { position, hash: hash_from(NodeId(0), row.try_get(2)?)? })
}

/// The newest event of each node that the stream holds.
///
/// # Errors
/// PostgreSQL failed.
pub async fn heads(client: &Client) -> Result<BTreeMap<NodeId, Head>, StoreError> {
    let rows = client.query("SELECT node_id, node_seq, hash FROM interrex.journal_heads", &[]).await?;
    let mut heads = BTreeMap::new();
    for row in rows {
        let node_id = NodeId(row.try_get::<_, i32>(0)?.cast_unsigned());
        let node_seq = NodeSeq(row.try_get::<_, i64>(1)?.cast_unsigned());
        heads.insert(node_id, Head { node_id, node_seq, hash: hash_from(node_id, row.try_get(2)?)? });
    }
    Ok(heads)
}

/// Events that were appended, with the positions they got, in processing order.
pub type Appended = Vec<(Position, Record)>;

/// One transaction that continues the stream. Dropped without [`Relay::commit`], nothing of it happened.
pub struct Relay<'a> {
    transaction: Transaction<'a>,
    epoch: Epoch,
    before: StreamHead,
    head: StreamHead,
    heads: BTreeMap<NodeId, Head>,
}

impl<'a> Relay<'a> {
    /// Begins one as the main of an epoch. No other transaction appends until it ends.
    ///
    /// # Errors
    /// PostgreSQL failed, or the stream is a later main's already.
    pub async fn begin(client: &'a mut Client, epoch: Epoch) -> Result<Self, StoreError> {
        let transaction = client.transaction().await?;
        let locked =
            transaction.query_one("SELECT epoch, pos, hash FROM interrex.stream_head FOR UPDATE", &[]);
        let head = head_of(&locked.await?)?;
        if head.position.epoch > epoch {
            return Err(StoreError::OlderEpoch { found: head.position.epoch, epoch });
        }
        let heads = heads(transaction.client()).await?;
        Ok(Self { transaction, epoch, before: head, head, heads })
    }

    /// The transaction, for what must happen together with the append.
    #[must_use]
    pub fn transaction(&mut self) -> &mut Transaction<'a> {
        &mut self.transaction
    }

    /// The stream's head when this began.
    #[must_use]
    pub fn before(&self) -> StreamHead {
        self.before
    }

    /// The stream's head now.
    #[must_use]
    pub fn head(&self) -> StreamHead {
        self.head
    }

    /// The newest event of a node that is there.
    #[must_use]
    pub fn head_of(&self, node: NodeId) -> Head {
        self.heads.get(&node).copied().unwrap_or(Head::empty(node))
    }

    /// Whether the next append must contain the `epoch_opened` of this epoch.
    #[must_use]
    pub fn opens_epoch(&self) -> bool {
        self.head.position.pos > 0 && self.head.position.epoch < self.epoch
    }

    /// Appends events of one node, in that node's order. An event that is stored already is compared and skipped. The
    /// first append of a new epoch begins with the event that opened it, whatever its node recorded before.
    ///
    /// # Errors
    /// PostgreSQL failed, or the events do not continue the stored ones.
    pub async fn append(&mut self, records: &[Record]) -> Result<Appended, StoreError> {
        let Some(first) = records.first() else { return Ok(Vec::new()) };
        let there = self.head_of(first.node_id);
        let (known, new): (Vec<_>, Vec<_>) =
            records.iter().partition(|record| record.node_seq <= there.node_seq);
        self.compare(&known).await?;
        let mut previous = there;
        for record in &new {
            if record.node_seq != previous.node_seq.next() {
                return Err(StoreError::Gap { node_id: record.node_id, node_seq: record.node_seq });
            }
            if record.prev_hash != previous.hash {
                return Err(StoreError::JournalForked {
                    node_id: previous.node_id,
                    node_seq: previous.node_seq,
                    here: record.prev_hash,
                    there: previous.hash,
                });
            }
            previous = record.as_head();
        }
        let ordered = self.in_processing_order(new)?;
        self.insert(&ordered).await?;
        let mut appended = Vec::with_capacity(ordered.len());
        for record in ordered {
            let position = Position { epoch: self.epoch, pos: self.head.position.pos + 1 };
            self.head = StreamHead { position, hash: record.hash };
            appended.push((position, record.clone()));
        }
        self.heads.insert(previous.node_id, previous);
        Ok(appended)
    }

    /// A reader of the stream learns of a new epoch before any other event of it.
    fn in_processing_order<'r>(&self, mut records: Vec<&'r Record>) -> Result<Vec<&'r Record>, StoreError> {
        if !self.opens_epoch() || records.is_empty() {
            return Ok(records);
        }
        let opens = |record: &&Record| matches!(record.open().event, crate::Event::EpochOpened(opened) if opened.epoch == self.epoch);
        let place = records.iter().position(opens).ok_or(StoreError::EpochNotOpened(self.epoch))?;
        let opening = records.remove(place);
        records.insert(0, opening);
        Ok(records)
    }

    async fn compare(&self, known: &[&Record]) -> Result<(), StoreError> {
        let Some(first) = known.first() else { return Ok(()) };
        let places: Vec<i64> = known.iter().map(|record| record.node_seq.0.cast_signed()).collect();
        let sql =
            "SELECT node_seq, hash FROM interrex.cluster_events WHERE node_id = $1 AND node_seq = ANY ($2)";
        let rows = self.transaction.query(sql, &[&node_column(first.node_id), &places]).await?;
        for row in rows {
            let node_seq = NodeSeq(row.try_get::<_, i64>(0)?.cast_unsigned());
            let there = hash_from(first.node_id, row.try_get(1)?)?;
            let here = known.iter().find(|record| record.node_seq == node_seq).map(|record| record.hash);
            if let Some(here) = here.filter(|here| *here != there) {
                return Err(StoreError::JournalForked { node_id: first.node_id, node_seq, here, there });
            }
        }
        Ok(())
    }

    async fn insert(&self, records: &[&Record]) -> Result<(), StoreError> {
        if records.is_empty() {
            return Ok(());
        }
        let base = self.head.position.pos.cast_signed();
        let epoch = self.epoch.0.cast_signed();
        let bytes = |hash: &'_ ChainHash| hash.as_bytes().to_vec();
        macro_rules! column {
            (|$record:ident| $value:expr) => {
                &records.iter().map(|$record| $value).collect::<Vec<_>>()
            };
        }
        let statement = self.transaction.prepare(INSERT).await?;
        self.transaction
            .execute(
                &statement,
                &[
                    &base,
                    &epoch,
                    column!(|record| record.event_id.0),
                    column!(|record| record.cluster_id.0),
                    column!(|record| node_column(record.node_id)),
                    column!(|record| record.node_seq.0.cast_signed()),
                    column!(|record| record.epoch.0.cast_signed()),
                    column!(|record| record.learned_in.0.cast_signed()),
                    column!(|record| record.hlc.0),
                    column!(|record| record.recorded_at),
                    column!(|record| record.kind.as_str()),
                    column!(|record| i32::try_from(record.schema_version).unwrap_or(i32::MAX)),
                    column!(|record| record.run_id.map(|id| id.0)),
                    column!(|record| record.correlation_id.0),
                    column!(|record| record.causation_id.map(|id| id.0)),
                    column!(|record| record.actor.as_str()),
                    column!(|record| record.payload.as_str()),
                    column!(|record| bytes(&record.prev_hash)),
                    column!(|record| bytes(&record.hash)),
                ],
            )
            .await?;
        Ok(())
    }

    /// Makes it happen. The stream's head is then this.
    ///
    /// # Errors
    /// PostgreSQL failed; whether it happened is then not known, and the next relay reads the stored state.
    pub async fn commit(self) -> Result<StreamHead, StoreError> {
        if self.head != self.before {
            let Position { epoch, pos } = self.head.position;
            let hash = self.head.hash.as_bytes().as_slice();
            let sql = "UPDATE interrex.stream_head SET epoch = $1, pos = $2, hash = $3";
            self.transaction.execute(sql, &[&epoch.0.cast_signed(), &pos.cast_signed(), &hash]).await?;
            let heads: Vec<&Head> = self.heads.values().collect();
            let nodes: Vec<i32> = heads.iter().map(|head| node_column(head.node_id)).collect();
            let places: Vec<i64> = heads.iter().map(|head| head.node_seq.0.cast_signed()).collect();
            let hashes: Vec<&[u8]> = heads.iter().map(|head| head.hash.as_bytes().as_slice()).collect();
            let sql = "INSERT INTO interrex.journal_heads (node_id, node_seq, hash) \
                       SELECT * FROM unnest($1::int[], $2::bigint[], $3::bytea[]) \
                       ON CONFLICT (node_id) DO UPDATE SET node_seq = excluded.node_seq, hash = excluded.hash";
            self.transaction.execute(sql, &[&nodes, &places, &hashes]).await?;
        }
        self.transaction.commit().await?;
        Ok(self.head)
    }
}
