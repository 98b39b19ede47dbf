//! Connections to PostgreSQL that cannot wait for ever, and what a measurement reads through one.

use std::time::Duration;

use interrex_events::{Lsn, PostgresStatus, TimelineId};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryRow};

use crate::{
    ports::{NoReply, PostgresMeasure},
    report::PostgresFacts,
};

/// When opening a connection is given up.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// The timeline of a standby's newest log, in SQL: of the log that arrives, or else by the names of its files. The control file
/// names it only after the next restartpoint (facts 5), which may be hours away; a recycled file bears the name of the timeline
/// that was replayed then.
pub const STANDBY_TIMELINE: &str = "coalesce((SELECT received_tli FROM pg_stat_wal_receiver), \
    (SELECT max(('x' || left(name, 8))::bit(32)::int) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'))";

/// Everything that is measured, in one question.
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

/// A connection that cannot wait for ever, whatever the server or the way to it does.
///
/// # Errors
/// The server's or the system's words.
pub(crate) async fn connect(
    (host, port): (&str, u16),
    (user, password): (&str, Option<&str>),
    database: &str,
) -> Result<Client, NoReply> {
    let mut config = Config::new();
    config
        .host(host)
        .port(port)
        .user(user)
        .dbname(database)
        .application_name("interrex")
        .connect_timeout(CONNECT_LIMIT)
        .tcp_user_timeout(Duration::from_secs(10))
        // a database or a role may be read-only by its own setting: the supervisor writes all the same
        .options(
            "-c default_transaction_read_only=off -c statement_timeout=30s -c lock_timeout=10s \
             -c idle_in_transaction_session_timeout=30s -c synchronous_commit=local",
        );
    if let Some(password) = password {
        config.password(password);
    }
    let connecting = tokio::time::timeout(CONNECT_LIMIT, config.connect(NoTls)).await;
    let (client, connection) = connecting
        .map_err(|_| NoReply::Silent(format!("no connection within {CONNECT_LIMIT:?}")))?
        .map_err(|error| NoReply::of_postgres(&error))?;
    tokio::task::spawn_local(async move {
        // the client learns of a broken connection at its next query
        let _ = connection.await;
    });
    Ok(client)
}

/// A column, if it is there and reads.
pub(super) fn parsed<T: std::str::FromStr>(row: &SimpleQueryRow, column: &str) -> Option<T> {
    row.get(column)?.parse().ok()
}

/// What the answer says.
pub(super) fn facts(row: &SimpleQueryRow) -> PostgresMeasure {
    let standby = row.get("standby") == Some("true");
    let heard = parsed::<f64>(row, "heard_seconds").map(|seconds| Duration::from_secs_f64(seconds.max(0.0)));
    let status = match (standby, heard) {
        (false, _) => PostgresStatus::Primary,
        (true, Some(_)) => PostgresStatus::Streaming,
        (true, None) => PostgresStatus::Detached,
    };
    let replayed: Option<Lsn> = parsed(row, "replayed").filter(|_| standby);
    // a restarted receiver reports the begin of a segment: the larger of both is what is held (facts 7)
    let received: Option<Lsn> = parsed(row, "received");
    let lsn = if standby { received.max(replayed) } else { parsed(row, "flushed") };
    let timeline = parsed(row, if standby { "followed_timeline" } else { "own_timeline" }).map(TimelineId);
    PostgresMeasure {
        facts: PostgresFacts { status, timeline, lsn, replayed, detail: String::new() },
        receiver_heard: heard,
        no_reply: None,
    }
}
