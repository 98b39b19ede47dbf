//! What each PostgreSQL reports about itself: one session, read-only, a few questions, each answered as one JSON value.

use std::{collections::BTreeMap, time::Duration};

use interrex_actors::env::{Env as _, SystemEnv};
use interrex_adapters::postgres::{
    STANDBY_TIMELINE,
    inherited::{STARTED_WITH, read_only_by_setting},
    standby::ENDS_RECOVERY,
};
use interrex_events::{
    Address, cluster_events,
    postgres::{self, literal, shown},
};
use serde::de::DeserializeOwned;
use tokio_postgres::Client;

use crate::{
    config::{Config, read_secret},
    doctor::{
        facts::{ClockDistance, Collation, NoAnswer, ServerFacts},
        finding::Measured,
    },
};

/// A session that cannot change anything, with short limits.
const SESSION: postgres::Session = postgres::Session::reading("interrex doctor")
    .connect_within(Duration::from_secs(3))
    .statements_within(Duration::from_secs(4))
    .locks_within(Duration::from_secs(2));
/// How long doctor waits for one answer; the server itself ends the statement a little earlier.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long doctor searches all databases. After that, the other answers of the server still count.
const UNLOGGED_LIMIT: Duration = Duration::from_secs(3);
/// Databases whose unlogged tables are listed, at most.
const MOST_DATABASES: usize = 64;

/// All facts that are the same in every version and are read quickly.
const STATE: &str = r"
SELECT json_build_object(
 'version', current_setting('server_version_num')::int,
 'system_id', (SELECT system_identifier::text FROM pg_control_system()),
 'in_recovery', pg_is_in_recovery(),
 'timeline', CASE WHEN pg_is_in_recovery()
   THEN {STANDBY_TIMELINE}
   ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END,
 'superuser', (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
 'settings', (SELECT json_object_agg(name, {SETTING}) FROM pg_settings WHERE name IN (
   'wal_level', 'hot_standby', 'max_wal_senders', 'max_replication_slots', 'wal_log_hints', 'data_checksums',
   'full_page_writes', 'max_slot_wal_keep_size', 'wal_keep_size', 'wal_segment_size', 'max_wal_size',
   'synchronous_standby_names', 'archive_mode', 'restart_after_crash',
   'recovery_min_apply_delay', 'recovery_target_timeline', 'restore_command', 'config_file', 'hba_file')),
 'at_next_start', (SELECT json_object_agg(name, coalesce(
     (SELECT setting FROM pg_file_settings AS file WHERE file.name = limits.name ORDER BY seqno DESC LIMIT 1), boot_val))
   FROM pg_settings AS limits WHERE name IN ('max_connections', 'max_locks_per_transaction',
     'max_prepared_transactions', 'max_wal_senders', 'max_worker_processes')),
 'file_errors', coalesce((SELECT json_agg({FILE_ERROR}) FROM (
     SELECT concat_ws(':', sourcefile, sourceline, ' ' || name, ' ' || error) AS words
     FROM pg_file_settings WHERE error <> 'setting could not be applied') AS errors), '[]'),
 'ends_recovery', coalesce((SELECT json_agg(json_build_object(
     'name', lower(name), 'setting', {SETTING}, 'file', {FILE}, 'line', sourceline) ORDER BY seqno)
   FROM pg_file_settings WHERE lower(name) IN ({ENDS_RECOVERY}) AND setting <> ''), '[]'),
 'started_with', ({STARTED_WITH}),
 'read_only_in_files', (SELECT {SETTING} FROM pg_file_settings
   WHERE lower(name) = 'default_transaction_read_only' AND error IS NULL ORDER BY seqno DESC LIMIT 1),
 'read_only_settings', coalesce((SELECT json_agg(found) FROM ({READ_ONLY_BY_SETTING}) AS found), '[]'),
 'slots', coalesce((SELECT json_agg(json_build_object('name', slot_name, 'active', active, 'wal_status', wal_status))
   FROM pg_replication_slots), '[]'),
 'standbys', coalesce((SELECT json_agg(json_build_object('name', application_name, 'slot', slot_name, 'state', state,
     'sync_state', sync_state, 'behind_bytes', pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery()
       THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END, flush_lsn)::bigint))
   FROM pg_stat_replication LEFT JOIN pg_replication_slots ON active_pid = pid), '[]'),
 'receiver', (SELECT json_build_object('status', status, 'slot', slot_name) FROM pg_stat_wal_receiver),
 'replay_paused', CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END,
 'archive_failing', (SELECT last_failed_wal FROM pg_stat_archiver
   WHERE last_failed_time > coalesce(last_archived_time, '-infinity')),
 'tablespaces', coalesce((SELECT json_agg({SPACE}) FROM pg_tablespace
   WHERE pg_tablespace_location(oid) LIKE '/%'), '[]'),
 'prepared', (SELECT count(*) FROM pg_prepared_xacts),
 'replication_role', (SELECT json_build_object('login', rolcanlogin, 'replication', rolreplication OR rolsuper,
     'expired', coalesce(rolvaliduntil < now(), false)) FROM pg_roles WHERE rolname = {REPLICATION_USER}),
 'libc', (SELECT max(pg_collation_actual_version(oid)) FROM pg_collation WHERE collprovider = 'c' AND collname <> 'default')
)";

/// From PostgreSQL 15 on: versions of each database's default collation.
const COLLATIONS: &str = r"
SELECT coalesce(json_object_agg({NAME}, json_build_object(
  'recorded', datcollversion, 'actual', pg_database_collation_actual_version(oid))), '{}')
FROM pg_database WHERE datallowconn";

const DATABASE_BYTES: &str = "SELECT to_json(sum(pg_database_size(oid))::bigint) FROM pg_database";

/// Databases that can be entered by their names, and databases whose names a session of ours cannot express.
const DATABASES: &str = "\
SELECT json_agg(json_build_object('name', {NAME}, 'can_be_entered', {NAME} = datname) ORDER BY datname)
FROM pg_database WHERE datallowconn AND NOT datistemplate";

const UNLOGGED: &str = r"
SELECT coalesce(json_agg({NAME}), '[]')
FROM (SELECT concat(current_database(), '.', quote_ident(nspname), '.', quote_ident(relname)) AS name
      FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
      WHERE relpersistence = 'u' AND relkind IN ('r', 'p')) AS tables";

/// Milliseconds since 1970.
const TIME: &str = "SELECT to_json((extract(epoch FROM clock_timestamp()) * 1000)::bigint)";

/// The login for the servers: the supervisor's own.
pub(super) struct Login {
    user: String,
    password: Option<interrex_adapters::secret::Secret>,
    database: String,
    replication_user: String,
}

impl Login {
    pub(super) fn of(config: &Config) -> Measured<Self> {
        let postgres = &config.postgres;
        let file = postgres.password_file.as_ref();
        Ok(Self {
            user: postgres.user.clone(),
            password: file.map(|file| read_secret(file, "postgres.password_file", 1)).transpose()?,
            database: postgres.database.clone(),
            replication_user: postgres.replication_user.clone(),
        })
    }
}

/// A session that cannot change anything.
struct Session(Client);

impl Session {
    async fn open(login: &Login, address: &Address, database: &str) -> Result<Self, NoAnswer> {
        let Address { host, port } = address;
        let (user, password) = (login.user.as_str(), login.password.as_deref());
        let opened = SESSION.open(postgres::Login { host, port: *port, user, password, database }).await;
        Ok(Self(opened.map_err(|error| NoAnswer {
            words: format!("{address}: {error}"),
            code: error.code().map(|code| code.code().to_owned()),
        })?))
    }

    /// One JSON value.
    async fn ask<T: DeserializeOwned>(&self, sql: &str) -> Measured<T> {
        let answer = tokio::time::timeout(ANSWER_LIMIT, postgres::rows(&self.0, sql)).await;
        let rows = answer
            .map_err(|_| format!("no answer within {ANSWER_LIMIT:?}"))?
            .map_err(|error| cluster_events::in_words(&error))?;
        let text = rows.first().and_then(|row| row.get(0));
        serde_json::from_str(text.unwrap_or("null"))
            .map_err(|error| format!("the answer has an unexpected form: {error}"))
    }

    /// How far its clock is from this machine's.
    async fn clock(&self) -> Option<ClockDistance> {
        let before = SystemEnv.moment();
        let theirs: i64 = self.ask(TIME).await.ok()?;
        let after = SystemEnv.moment();
        Some(distance(theirs, before.wall.timestamp_millis(), after.ms_since(before)))
    }
}

/// The distance of a clock that was read at some time within the round trip. Rounding loses a millisecond on either side.
fn distance(theirs_ms: i64, asked_ms: i64, round_trip_ms: u64) -> ClockDistance {
    let half = round_trip_ms / 2 + 1;
    let middle = asked_ms.saturating_add_unsigned(round_trip_ms / 2);
    let apart = theirs_ms.abs_diff(middle);
    ClockDistance { at_most_ms: apart + half, at_least_ms: apart.saturating_sub(half) }
}

/// All facts that one server reports about itself.
pub(super) async fn measure(login: &Login, address: &Address) -> Result<ServerFacts, NoAnswer> {
    let session = Session::open(login, address, &login.database).await?;
    let state = STATE
        .replace("{REPLICATION_USER}", &literal(&login.replication_user))
        .replace("{STANDBY_TIMELINE}", STANDBY_TIMELINE)
        .replace("{STARTED_WITH}", STARTED_WITH)
        .replace("{ENDS_RECOVERY}", &ENDS_RECOVERY.map(|name| format!("'{name}'")).join(", "))
        .replace("{FILE}", &shown("sourcefile"))
        .replace("{READ_ONLY_BY_SETTING}", &read_only_by_setting())
        .replace("{SETTING}", &shown("setting"))
        .replace("{SPACE}", &shown("spcname"))
        .replace("{FILE_ERROR}", &shown("words"));
    let mut server: ServerFacts = session.ask(&state).await?;
    server.clock = session.clock().await;
    if server.major() >= 15 {
        server.collations = session
            .ask::<BTreeMap<String, Collation>>(&COLLATIONS.replace("{NAME}", &shown("datname")))
            .await?;
    }
    server.database_bytes = session.ask(DATABASE_BYTES).await.ok();
    if !server.in_recovery {
        let listing = tokio::time::timeout(UNLOGGED_LIMIT, unlogged(login, address, &session)).await;
        let late = |_| Err(format!("the databases were not searched within {UNLOGGED_LIMIT:?}"));
        server.unlogged = Some(listing.unwrap_or_else(late));
    }
    Ok(server)
}

/// A database.
#[derive(serde::Deserialize)]
struct Database {
    name: String,
    can_be_entered: bool,
}

async fn unlogged(login: &Login, address: &Address, session: &Session) -> Measured<Vec<String>> {
    let databases: Vec<Database> = session.ask(&DATABASES.replace("{NAME}", &shown("datname"))).await?;
    if databases.len() > MOST_DATABASES {
        return Err(format!(
            "there are {} databases: more than {MOST_DATABASES} are not searched",
            databases.len()
        ));
    }
    let question = UNLOGGED.replace("{NAME}", &shown("name"));
    let (mut tables, mut left_out) = (Vec::new(), Vec::new());
    for Database { name, can_be_entered } in databases {
        if can_be_entered {
            let session = Session::open(login, address, &name).await.map_err(|refused| refused.words)?;
            tables.extend(session.ask::<Vec<String>>(&question).await?);
        } else {
            left_out.push(name);
        }
    }
    if left_out.is_empty() {
        return Ok(tables);
    }
    Err(format!(
        "not searched, because the name is not UTF-8: database {}; found in the other databases: {}",
        left_out.join(", "),
        if tables.is_empty() { "none".to_owned() } else { tables.join(", ") }
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_as_far_away_as_the_round_trip_leaves_open() {
        let apart = |theirs, asked, trip| {
            let ClockDistance { at_least_ms, at_most_ms } = distance(theirs, asked, trip);
            (at_least_ms, at_most_ms)
        };
        assert_eq!(apart(1_000, 1_000, 0), (0, 1));
        assert_eq!(apart(1_050, 1_000, 100), (0, 51));
        assert_eq!(apart(7_000, 1_000, 100), (5_899, 6_001));
        assert_eq!(apart(400, 1_000, 0), (599, 601));
    }
}
