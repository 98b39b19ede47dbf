//! Whether events in `cluster_events` would survive the loss of this machine: checked before events are dropped from a journal.

use std::time::Duration;

use interrex_actors::ports::{Answer, PortError};
use interrex_events::{Head, cluster_events::in_words};
use tokio_postgres::Client;

/// How long a standby may take to flush what main just wrote.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);
/// Pause between two checks.
const LOOK: Duration = Duration::from_millis(100);

/// SQL. On main, a standby must report that it has flushed all WAL that main had written when the event was seen. A standby replays
/// only WAL that it has flushed: what a standby shows is on main's disk and on its own.
///
/// A base backup under way is not a standby yet, and may be thrown away. A logical subscriber keeps no WAL: its sender is connected
/// to a database, and the sender of a standby is not.
const FLUSHED: &str = "\
SELECT EXISTS (SELECT 1 FROM pg_stat_replication JOIN pg_stat_activity AS sender USING (pid)
               WHERE sender.datid IS NULL AND pg_stat_replication.state = 'streaming'
                 AND pg_stat_replication.application_name NOT IN ('pg_basebackup', 'pg_receivewal')
                 AND flush_lsn >= $1::text::pg_lsn)";

/// Succeeds if the event, and every event before it, is there and on a second disk.
///
/// # Errors
/// It is not, or PostgreSQL failed; the message says why.
pub(super) async fn holds(client: &Client, event: Head) -> Answer<()> {
    let failed = |error: tokio_postgres::Error| PortError::new("reading cluster_events", in_words(&error));
    let there = "SELECT EXISTS (SELECT 1 FROM interrex.cluster_events WHERE node_id = $1 AND node_seq = $2 AND hash = $3)";
    let node = i32::try_from(event.node_id.0).unwrap_or(i32::MAX);
    let seq = event.node_seq.0.cast_signed();
    let found = client.query_one(there, &[&node, &seq, &event.hash.as_bytes().as_slice()]).await;
    if !found.and_then(|row| row.try_get::<_, bool>(0)).map_err(failed)? {
        return Err(PortError(format!(
            "cluster_events does not have event {} of node {}",
            event.node_seq, event.node_id
        )));
    }
    let written = "SELECT CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_insert_lsn() END::text";
    let written = client.query_one(written, &[]).await.and_then(|row| row.try_get::<_, Option<String>>(0));
    let Some(written) = written.map_err(failed)? else { return Ok(()) };
    let flushed = async {
        loop {
            let flushed = client.query_one(FLUSHED, &[&written]).await.and_then(|row| row.try_get(0));
            if flushed.map_err(failed)? {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let late = || Err(PortError(format!("no standby flushed main's WAL within {FLUSH_LIMIT:?}")));
    tokio::time::timeout(FLUSH_LIMIT, flushed).await.unwrap_or_else(|_| late())
}
