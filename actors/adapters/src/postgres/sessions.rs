//! Connections to PostgreSQL with time limits, and the query of a measurement.

use std::time::Duration;

use interrex_actors::{
    ports::{NoReply, PostgresMeasure},
    wire::PostgresFacts,
};
use interrex_events::{
    Lsn, PostgresStatus, TimelineId,
    postgres::{Login, NotOpened, Row, Session},
};
use tokio_postgres::Client;

use crate::no_reply;

/// SQL: the timeline of a standby's newest WAL: of the arriving WAL, or otherwise from the names of its WAL files. The control file
/// has it only after the next restartpoint (MEASURED M5), which may be hours away; a recycled file has the name of the timeline
/// that was replayed then.
pub const STANDBY_TIMELINE: &str = "coalesce((SELECT received_tli FROM pg_stat_wal_receiver), \
    (SELECT max(('x' || left(name, 8))::bit(32)::int) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'))";

/// The query that measures everything.
pub(super) fn measure_sql() -> String {
    format!(
        "\
SELECT pg_is_in_recovery()::text AS standby,
       CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_flush_lsn() END::text AS flushed,
       CASE WHEN pg_is_in_recovery() THEN NULL
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END::text AS own_timeline,
       pg_last_wal_receive_lsn()::text AS received,
       pg_last_wal_replay_lsn()::text AS replayed,
       CASE WHEN pg_is_in_recovery() THEN {STANDBY_TIMELINE} END::text AS followed_timeline,
       (SELECT extract(epoch FROM clock_timestamp() - last_msg_receipt_time) FROM pg_stat_wal_receiver
        WHERE status = 'streaming')::text AS heard_seconds"
    )
}

/// A session that reads and writes.
pub(crate) const WRITES: Session = Session::writing("interrex");
/// A session that only reads.
pub(crate) const READS: Session = Session::reading("interrex");

/// Opens a connection with time limits, for any behaviour of the server and the network.
///
/// # Errors
/// The server's or the system's refusal.
pub(crate) async fn connect(
    session: Session,
    (host, port): (&str, u16),
    (user, password): (&str, Option<&str>),
    database: &str,
) -> Result<Client, NoReply> {
    let opened = session.open(Login { host, port, user, password, database }).await;
    opened.map_err(|error| match error {
        NotOpened::Late(_) => NoReply::Silent(error.to_string()),
        NotOpened::Refused(error) => no_reply::of_postgres(&error),
        NotOpened::NotPinned(_) => {
            NoReply::Refused { code: "not_pinned".to_owned(), words: error.to_string() }
        }
    })
}

/// The facts in an answer to [`measure_sql`].
pub(super) fn facts(row: &Row) -> PostgresMeasure {
    let standby = row.get("standby") == Some("true");
    let heard = row.parsed::<f64>("heard_seconds").map(|seconds| Duration::from_secs_f64(seconds.max(0.0)));
    let status = match (standby, heard) {
        (false, _) => PostgresStatus::Primary,
        (true, Some(_)) => PostgresStatus::Streaming,
        (true, None) => PostgresStatus::Detached,
    };
    let replayed: Option<Lsn> = row.parsed("replayed").filter(|_| standby);
    // a restarted WAL receiver reports the begin of a segment: the larger of both is what the standby has (MEASURED M7)
    let received: Option<Lsn> = row.parsed("received");
    let lsn = if standby { received.max(replayed) } else { row.parsed("flushed") };
    let timeline = row.parsed(if standby { "followed_timeline" } else { "own_timeline" }).map(TimelineId);
    PostgresMeasure {
        facts: PostgresFacts { status, timeline, lsn, replayed, detail: String::new() },
        receiver_heard: heard,
        no_reply: None,
    }
}
