//! Rebuilding projections from the stream, into tables next to the old ones. Readers see the old ones until the
//! last moment of the transaction, and then the whole new ones.

use interrex_events::cluster_events::{self, StoreError, StreamHead};
use tokio_postgres::{Client, Transaction};

use super::{Changes, Checkpoint, PAGE, Table, checkpoint, tables};
use crate::{Cluster, InStoryOrder};

/// How long readers may hold up the moment in which they get the new tables.
const SWAP_LIMIT: &str = "SET LOCAL lock_timeout = '1s'";

/// A projection that was rebuilt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    /// Which.
    pub table: Table,
    /// Why.
    pub reason: String,
    /// Events folded.
    pub events: u64,
}

/// Rebuilds some projections together: the stream is read once. The caller is the only one who appends.
pub(super) async fn rebuild(
    client: &mut Client,
    amiss: &[(Table, String, Option<Checkpoint>)],
) -> Result<(Vec<Rebuilt>, StreamHead, InStoryOrder<Cluster>), StoreError> {
    let transaction = client.transaction().await?;
    transaction.query_one("SELECT 1 FROM interrex.stream_head FOR UPDATE", &[]).await?;
    let head = cluster_events::stream_head(transaction.client()).await?;
    let mut fresh = Vec::new();
    for (table, reason, old) in amiss {
        let (table, generation) = (*table, old.as_ref().map_or(0, |old| old.generation) + 1);
        tables::create(&transaction, table, generation).await?;
        fresh.push((table, reason, old, generation));
    }
    let wants_timeline =
        fresh.iter().find(|(table, ..)| *table == Table::Timeline).map(|(.., generation)| *generation);
    let (story, events) = fill(&transaction, wants_timeline).await?;
    // a reader of one of them in a long transaction is not waited for: behind this wait, all other readers wait
    transaction.batch_execute(SWAP_LIMIT).await?;
    let mut rebuilt = Vec::new();
    for (table, reason, old, generation) in fresh {
        tables::write_state(&transaction, table, generation, story.folded()).await?;
        tables::swap(&transaction, table, generation, old.as_ref()).await?;
        checkpoint::renew(&transaction, table, generation, head).await?;
        rebuilt.push(Rebuilt { table, reason: reason.clone(), events });
    }
    transaction.commit().await?;
    Ok((rebuilt, head, story))
}

/// Folds the whole stream, and writes the timeline as it goes: that one is as long as the stream.
async fn fill(
    transaction: &Transaction<'_>,
    timeline: Option<u32>,
) -> Result<(InStoryOrder<Cluster>, u64), StoreError> {
    let mut story = InStoryOrder::default();
    let mut events = 0;
    let mut cursor = cluster_events::Cursor::open(transaction).await?;
    loop {
        let page = cursor.next(transaction, PAGE).await?;
        if page.is_empty() {
            return Ok((story, events));
        }
        events += page.len() as u64;
        let mut changes = Changes::default();
        story.take(page.iter().map(|found| found.record.open()), |cluster, envelope| {
            changes.note(cluster, envelope);
        });
        if let Some(generation) = timeline {
            tables::write_timeline(transaction, generation, &changes.entries).await?;
        }
    }
}
