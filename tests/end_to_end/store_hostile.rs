//! The store among other users of the same database: views, locks, roles and scripts of others.

use std::time::Duration;

use interrex::sandbox::{ALPHA, BETA, Done, Sandbox, until};
use interrex_tests::run;

use crate::{checks::session, two_nodes};

const LIMIT: Duration = Duration::from_secs(20);

async fn one_node() -> Done<Sandbox> {
    let sandbox = two_nodes().nodes(1).postgres_only().build().await?;
    sandbox.start().await?;
    wait_value(&sandbox, "SELECT count(*) FROM interrex.projection_checkpoints WHERE state = 'live'", "3")
        .await?;
    Ok(sandbox)
}

async fn wait_value(sandbox: &Sandbox, sql: &str, wanted: &str) -> Done<()> {
    until(sql, LIMIT, || async {
        match sandbox.psql_value(ALPHA, sql).await {
            Ok(found) if found == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// Waits until main says that something keeps it from relaying.
async fn wait_problem(sandbox: &Sandbox, message: &str) -> Done<()> {
    let says = |report: &interrex_actors::wire::NodeReport| {
        report.stream.iter().flat_map(|stream| &stream.problems).any(|problem| problem.contains(message))
    };
    sandbox.wait_health(ALPHA, message, says).await.map(drop)
}

/// A change of settings goes all the way: asked for, recorded, relayed.
async fn relay_lives(sandbox: &Sandbox, seconds: u32) -> Done<()> {
    sandbox
        .psql(ALPHA, &format!("UPDATE cluster_config SET auto_failover_threshold_seconds = {seconds}"))
        .await?;
    wait_value(sandbox, "SELECT count(*) FROM interrex.settings_requests", "0").await?;
    let stored = format!(
        "SELECT count(*) > 0 FROM cluster_events WHERE kind = 'settings_changed' AND \
         payload::jsonb @? '$.** ? (@ == {})'",
        u64::from(seconds) * 1000
    );
    wait_value(sandbox, &stored, "t").await
}

#[test]
fn views_of_others_upon_a_projection_outlive_its_rebuild_and_so_do_grants() {
    run(async {
        let sandbox = one_node().await?;
        sandbox
            .psql(
                ALPHA,
                "CREATE ROLE grafana; GRANT SELECT ON interrex.cluster_nodes TO grafana; \
                 CREATE VIEW public.board AS SELECT name, role FROM interrex.cluster_nodes",
            )
            .await?;
        sandbox.psql(ALPHA, "UPDATE interrex.projection_checkpoints SET state = 'rebuild'").await?;
        relay_lives(&sandbox, 77).await?;
        wait_value(
            &sandbox,
            "SELECT count(*) FROM interrex.projection_checkpoints WHERE state = 'live'",
            "3",
        )
        .await?;
        assert_eq!(sandbox.psql_value(ALPHA, "SELECT count(*) FROM public.board").await?, "1");
        let may = "SELECT has_table_privilege('grafana', 'interrex.cluster_nodes', 'SELECT')";
        assert_eq!(sandbox.psql_value(ALPHA, may).await?, "t");
        Ok(())
    });
}

#[test]
fn a_long_reader_delays_a_rebuild_and_nothing_else() {
    run(async {
        let sandbox = one_node().await?;
        let reader = session(&sandbox, ALPHA).await?;
        reader.batch_execute("BEGIN; SELECT count(*) FROM cluster_nodes").await.unwrap();
        sandbox.psql(ALPHA, "UPDATE interrex.projection_checkpoints SET state = 'rebuild'").await?;
        wait_problem(&sandbox, "cluster_nodes cannot be rebuilt").await?;
        relay_lives(&sandbox, 77).await?;
        Ok(())
    });
}

#[test]
fn a_locked_projection_is_late_and_not_paused_for_ever() {
    run(async {
        let sandbox = one_node().await?;
        let generation =
            "SELECT generation FROM interrex.projection_checkpoints WHERE projection = 'cluster_nodes'";
        let rows = format!("interrex.cluster_nodes_{}", sandbox.psql_value(ALPHA, generation).await?);
        let holder = session(&sandbox, ALPHA).await?;
        holder.batch_execute(&format!("BEGIN; LOCK TABLE {rows} IN SHARE MODE")).await.unwrap();
        sandbox.psql(ALPHA, "UPDATE cluster_config SET auto_failover_threshold_seconds = 66").await?;
        wait_problem(&sandbox, "lock timeout").await?;
        holder.batch_execute("COMMIT").await.unwrap();
        relay_lives(&sandbox, 67).await?;
        let live = "SELECT count(*) FROM interrex.projection_checkpoints WHERE state = 'live'";
        assert_eq!(sandbox.psql_value(ALPHA, live).await?, "3");
        Ok(())
    });
}

#[test]
fn of_a_hundred_changes_at_once_the_last_one_holds() {
    run(async {
        let sandbox = one_node().await?;
        let script = "DO $$ BEGIN FOR i IN 1..100 LOOP \
                      UPDATE cluster_config SET auto_failover_threshold_seconds = 100 + i; END LOOP; END $$";
        sandbox.psql(ALPHA, script).await?;
        wait_value(&sandbox, "SELECT count(*) FROM interrex.settings_requests", "0").await?;
        wait_value(&sandbox, "SELECT auto_failover_threshold_seconds FROM cluster_config", "200").await?;
        // whatever was answered twice would have been answered before this one
        relay_lives(&sandbox, 77).await?;
        let count = "SELECT count(*) FROM cluster_events WHERE kind = 'settings_changed'";
        assert_eq!(sandbox.psql_value(ALPHA, count).await?, "101");
        Ok(())
    });
}

#[test]
fn who_may_only_look_can_neither_change_settings_nor_become_superuser() {
    run(async {
        let sandbox = one_node().await?;
        sandbox
            .psql(
                ALPHA,
                "CREATE ROLE watcher; GRANT pg_monitor TO watcher; GRANT CREATE ON SCHEMA public TO watcher",
            )
            .await?;
        let attack = "SET ROLE watcher; \
            CREATE TYPE public.trick AS ENUM ('x'); \
            CREATE FUNCTION public.become(public.trick) RETURNS boolean LANGUAGE plpgsql AS \
              $$ BEGIN ALTER ROLE watcher SUPERUSER; RETURN false; END $$; \
            CREATE CAST (public.trick AS boolean) WITH FUNCTION public.become(public.trick) AS ASSIGNMENT; \
            CREATE TABLE public.bait (server_role text, main_server_ip text, main_node_id integer, \
              main_postgres_address text, epoch bigint, auto_failover_enabled public.trick, \
              auto_failover_threshold_seconds numeric); \
            CREATE TRIGGER pull BEFORE UPDATE ON public.bait FOR EACH ROW EXECUTE FUNCTION interrex.request_settings(); \
            INSERT INTO public.bait VALUES ('a', 'b', 1, 'c', 1, 'x', 5); \
            UPDATE public.bait SET auto_failover_threshold_seconds = 6";
        let refused = sandbox.psql(ALPHA, attack).await.unwrap_err();
        assert!(refused.to_string().contains("permission denied for function"), "{refused}");
        let is = "SELECT concat(rolsuper, ' ', (SELECT count(*) FROM cluster_events WHERE kind = 'settings_changed')) \
                  FROM pg_roles WHERE rolname = 'watcher'";
        // whatever it had asked for would have been answered before this one
        relay_lives(&sandbox, 77).await?;
        assert_eq!(sandbox.psql_value(ALPHA, is).await?, "f 1");
        Ok(())
    });
}

/// Answers in place of a supervisor: heartbeats with a report, everything else with an error.
async fn stand_in(listener: tokio::net::TcpListener, report: String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    loop {
        let (mut socket, _) = listener.accept().await.unwrap();
        let report = report.clone();
        tokio::task::spawn_local(async move {
            let mut asked = Vec::new();
            let mut buffer = [0; 65_536];
            while let Ok(length @ 1..) = socket.read(&mut buffer).await {
                asked.extend_from_slice(&buffer[..length]);
                let text = String::from_utf8_lossy(&asked).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let wanted = head
                    .lines()
                    .find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
                if body.len() < wanted.and_then(|length| length.parse().ok()).unwrap_or(0) {
                    continue;
                }
                let (status, answer) = if head.contains("/heartbeat") {
                    ("200 OK", format!(r#"{{"success":true,"data":{report}}}"#))
                } else {
                    let error = r#"{"success":false,"error":{"code":"journal_unreadable","message":"no"}}"#;
                    ("500 Internal Server Error", error.to_owned())
                };
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
                    answer.len()
                );
                let _ = socket.write_all(answer.as_bytes()).await;
                return;
            }
        });
    }
}

#[test]
fn a_lost_journal_that_could_not_be_taken_back_yet_is_not_appended_to() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        sandbox.start().await?;
        sandbox.kill_supervisor(BETA);
        let journal = sandbox.node(BETA)?.journal();
        let image = sandbox.folder().join("image.db");
        std::fs::copy(&journal, &image).unwrap();
        std::fs::copy(journal.with_extension("db-wal"), image.with_extension("db-wal")).ok();
        let imaged = sandbox.events(BETA)?.len();
        sandbox.start_supervisor(BETA)?;
        sandbox.wait_healthy(BETA).await?;
        let lived = until("alpha has more of beta's events than the image", LIMIT, || async {
            let report = sandbox.wait_healthy(ALPHA).await.map_err(|error| error.to_string())?;
            let head = report.journal_heads.iter().find(|head| head.node_id == BETA).copied();
            match head {
                Some(head) if head.node_seq.0 > imaged as u64 => Ok(report),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        sandbox.kill_supervisor(BETA);
        sandbox.kill_supervisor(ALPHA);
        for suffix in ["db", "db-wal", "db-shm"] {
            std::fs::remove_file(journal.with_extension(suffix)).ok();
            std::fs::copy(image.with_extension(suffix), journal.with_extension(suffix)).ok();
        }
        let port = sandbox.node(ALPHA)?.supervisor_port;
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let standing_in =
            tokio::task::spawn_local(stand_in(listener, serde_json::to_string(&lived).unwrap()));
        sandbox.start_supervisor(BETA)?;
        sandbox.wait_supervisor_ended(BETA).await?;
        let log = std::fs::read_to_string(sandbox.node(BETA)?.supervisor_log()).unwrap();
        assert!(log.contains("could not be taken back"), "{log}");
        assert_eq!(sandbox.events(BETA)?.len(), imaged);
        standing_in.abort();
        // its port is free once it has ended
        assert!(standing_in.await.unwrap_err().is_cancelled());
        sandbox.start_supervisor(ALPHA)?;
        sandbox.wait_healthy(ALPHA).await.ok();
        sandbox.start_supervisor(BETA)?;
        sandbox.wait_healthy(BETA).await?;
        Ok(())
    });
}

/// A clock that is many years ahead.
#[derive(Default)]
struct Ahead(std::sync::atomic::AtomicU32);

impl interrex_events::journal::Stamp for Ahead {
    fn now(&self) -> chrono::DateTime<chrono::Utc> {
        chrono::DateTime::from_timestamp(2_400_000_000, 0).unwrap()
    }

    fn event_id(&self) -> interrex_events::EventId {
        let number = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        interrex_events::EventId(uuid::Uuid::from_u128(0xAEAD << 64 | u128::from(number)))
    }
}

#[test]
fn a_peer_whose_clock_was_once_years_ahead_does_not_make_main_rebuild_for_ever() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        sandbox.start().await?;
        sandbox.kill_supervisor(BETA);
        let identity = interrex_events::journal::Identity { cluster_id: sandbox.cluster_id(), node_id: BETA };
        let path = sandbox.node(BETA)?.journal();
        let journal =
            interrex_events::journal::Journal::open(&path, identity, std::sync::Arc::new(Ahead::default()))
                .unwrap();
        for _ in 0..12 {
            let drafts = (0..100).map(|_| {
                interrex_events::Draft::new(
                    interrex_events::Epoch(1),
                    interrex_events::SupervisorStopped { reason: "x".to_owned() },
                )
            });
            let stored = journal.append(&drafts.collect::<Vec<_>>()).unwrap();
            tokio::task::spawn_blocking(move || stored.blocking_recv()).await.unwrap().unwrap().unwrap();
        }
        drop(journal);
        sandbox.start_supervisor(BETA)?;
        wait_value(&sandbox, "SELECT count(*) > 1200 FROM cluster_events WHERE node_id = 2", "t").await?;
        relay_lives(&sandbox, 70).await?;
        let rebuilt = "SELECT count(*) FROM cluster_events WHERE kind = 'projection_rebuilt' AND node_id = 1";
        let before: u32 = sandbox.psql_value(ALPHA, rebuilt).await?.parse().unwrap();
        // each of these events lies before the peer's in the story
        for seconds in 71..79 {
            relay_lives(&sandbox, seconds).await?;
        }
        let after: u32 = sandbox.psql_value(ALPHA, rebuilt).await?.parse().unwrap();
        assert!(after - before <= 6, "{before} {after}");
        Ok(())
    });
}
