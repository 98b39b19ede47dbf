//! Main dies, in part or as a whole, and the secondary takes over.

use std::time::Duration;

use interrex::{
    doctor::Verdict,
    sandbox::{ALPHA, Acknowledged, BETA, Done, GAMMA, Sandbox, until},
};
use interrex_actors::env::{Env, SystemEnv};
use interrex_events::{Event, Lsn, NodeId, PostgresStatus, StepId, StepOutcome};
use interrex_projections::RunEnd;
use interrex_tests::run;
use rustix::process::Signal;

use crate::{
    checks::{outcome, session, sound_failover},
    two_nodes,
};

/// Bytes of a page of PostgreSQL's log.
const PAGE: u64 = 8192;

#[test]
fn sigkill_of_everything_on_main_moves_postgresql_redis_and_radius() {
    run(async {
        let sandbox = Sandbox::builder(interrex_tests::interrex())
            .threshold(Duration::from_millis(1_500))
            .build()
            .await?;
        sandbox.start().await?;
        sandbox.redis(ALPHA, &["SET", "session", "kept"]).await?;
        until("the key is on the replica", Duration::from_secs(10), || async {
            match sandbox.redis(BETA, &["GET", "session"]).await {
                Ok(value) if value == "kept" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        let writer = sandbox.start_writer(200.0)?;
        writer.wait_acknowledged(100, Duration::from_secs(20)).await?;
        sandbox.kill_everything_of(ALPHA);
        let run = sandbox.wait_run_ended(BETA).await?;
        writer
            .wait_ack_by(sandbox.node(BETA)?.postgres_port, SystemEnv.moment(), Duration::from_secs(20))
            .await?;
        sound_failover(&sandbox, &run, &writer.stop()).await?;

        assert_eq!(sandbox.redis(BETA, &["GET", "session"]).await?, "kept");
        assert_eq!(outcome(&run, StepId::RestartDependents), Some(StepOutcome::Succeeded));
        assert!(sandbox.radius_accepts(BETA).await?, "the new main's RADIUS accepts nobody");
        let health = sandbox.wait_healthy(BETA).await?;
        assert_eq!((health.main, health.dependents.len()), (Some(BETA), 1));
        Ok(())
    });
}

#[test]
fn a_database_and_roles_that_are_read_only_hold_up_no_failover_and_are_named() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        sandbox.start().await?;
        for node in [ALPHA, BETA] {
            sandbox.wait_healthy(node).await?;
        }
        // the supervisor sets something of this database as well, when it makes its schema
        until("the schema is there", Duration::from_secs(10), || async {
            match sandbox.psql_value(ALPHA, "SELECT max(version) FROM interrex.schema_version").await {
                Ok(version) if version == "1" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        let settings = "CREATE ROLE reporting; ALTER ROLE reporting SET default_transaction_read_only = on;
                        ALTER ROLE interrex SET default_transaction_read_only = on;
                        ALTER DATABASE postgres SET default_transaction_read_only = on";
        session(&sandbox, ALPHA).await?.batch_execute(settings).await.unwrap();
        until("they are on the standby", Duration::from_secs(10), || async {
            let count = "SELECT count(*) FROM pg_db_role_setting WHERE 'default_transaction_read_only=on' = ANY (setconfig)";
            match sandbox.psql_value(BETA, count).await {
                Ok(count) if count == "3" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        sandbox.kill_everything_of(ALPHA);
        let run = sandbox.wait_run_ended(BETA).await?;
        assert_eq!(run.end, RunEnd::Completed, "{:?}", run.problem);
        let said = &run.step(StepId::Promote).detail;
        for statement in
            ["ALTER DATABASE postgres RESET default_transaction_read_only", "ALTER ROLE reporting RESET"]
        {
            assert!(said.contains(statement), "{said}");
        }
        assert_eq!(
            sandbox.psql_value(BETA, "SHOW default_transaction_read_only").await?,
            "on",
            "it is not Interrex's"
        );
        let examined = sandbox.doctor(BETA).await?;
        let found = examined.checks.iter().find(|found| found.check == "read_only_default").unwrap();
        assert!(found.verdict == Verdict::Warn && found.measured.contains("does not clear it"), "{found:?}");
        sandbox.wait_healthy(BETA).await.map(drop)
    });
}

#[test]
fn the_role_of_redis_survives_its_restart() {
    run(async {
        let sandbox = two_nodes().build().await?;
        sandbox.start().await?;
        sandbox.kill_everything_of(ALPHA);
        sandbox.wait_run_ended(BETA).await?;
        sandbox.redis(BETA, &["SET", "after", "promotion"]).await?;
        sandbox.kill_redis(BETA);
        sandbox.kill_supervisor(BETA);
        sandbox.start_supervisor(BETA)?;
        sandbox.wait_healthy(BETA).await?;
        assert_eq!(sandbox.redis(BETA, &["GET", "after"]).await?, "promotion");
        Ok(())
    });
}

#[test]
fn death_of_postgresql_alone_moves_the_role_and_the_old_main_is_fenced_first() {
    run(async {
        let sandbox = two_nodes().build().await?;
        sandbox.start().await?;
        let writer = sandbox.start_writer(200.0)?;
        writer.wait_acknowledged(50, Duration::from_secs(20)).await?;
        sandbox.kill_postgres(ALPHA);
        let run = sandbox.wait_run_ended(BETA).await?;
        writer
            .wait_ack_by(sandbox.node(BETA)?.postgres_port, SystemEnv.moment(), Duration::from_secs(20))
            .await?;
        sound_failover(&sandbox, &run, &writer.stop()).await?;
        assert_eq!(outcome(&run, StepId::FenceOldMain), Some(StepOutcome::Succeeded));
        assert_eq!(outcome(&run, StepId::NotifyPeers), Some(StepOutcome::Succeeded));
        sandbox
            .wait_event(ALPHA, "node_fenced", |envelope| matches!(envelope.event, Event::NodeFenced(_)))
            .await?;
        assert!(sandbox.redis(ALPHA, &["PING"]).await.is_err(), "the old main's Redis still serves");
        let nodes = sandbox.cluster(ALPHA)?.nodes;
        assert_eq!((nodes.main, nodes.is_superseded(ALPHA)), (Some(BETA), true));
        Ok(())
    });
}

#[test]
fn a_session_that_outlives_its_postmaster_commits_nothing_after_the_fence() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        sandbox.start().await?;
        let session = session(&sandbox, ALPHA).await?;
        // busy, so that it does not notice the end of its postmaster
        let busy = tokio::task::spawn_local(async move {
            session
                .batch_execute(
                    "SELECT count(*) FROM generate_series(1, 1000000000); CREATE TABLE too_late ()",
                )
                .await
        });
        until("the session is busy", Duration::from_secs(10), || async {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%too_late%' AND state = 'active' \
                       AND pid <> pg_backend_pid()";
            match sandbox.psql_value(ALPHA, sql).await {
                Ok(count) if count == "1" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        let postmaster = sandbox.postmaster_pid(ALPHA).and_then(rustix::process::Pid::from_raw).unwrap();
        rustix::process::kill_process(postmaster, Signal::KILL).unwrap();
        let run = sandbox.wait_run_ended(BETA).await?;
        assert_eq!(outcome(&run, StepId::FenceOldMain), Some(StepOutcome::Succeeded), "{:?}", run.problem);
        assert!(busy.await.unwrap().is_err(), "a fenced node's session went on to its end");
        Ok(())
    });
}

#[test]
fn a_postgresql_that_hangs_is_dead_however_well_its_supervisor_is() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        sandbox.start().await?;
        let writer = sandbox.start_writer(100.0)?;
        writer.wait_acknowledged(50, Duration::from_secs(20)).await?;
        sandbox.signal_postgres(ALPHA, Signal::STOP);
        let run = sandbox.wait_run_ended(BETA).await?;
        let beta = sandbox.node(BETA)?.postgres_port;
        writer.wait_ack_by(beta, SystemEnv.moment(), Duration::from_secs(20)).await?;
        sound_failover(&sandbox, &run, &writer.stop()).await?;
        assert_eq!(outcome(&run, StepId::FenceOldMain), Some(StepOutcome::Succeeded));
        assert_eq!(sandbox.postmaster_pid(ALPHA), None, "the old main's PostgreSQL lives on");
        Ok(())
    });
}

/// Three nodes, of which the second may promote itself: with quorum none only one may.
async fn three_nodes() -> Done<Sandbox> {
    let sandbox = two_nodes().nodes(3).build().await?;
    sandbox.set_config(GAMMA, "failover.auto_failover_enabled", false)?;
    sandbox.start().await?;
    Ok(sandbox)
}

async fn all_rows_are_on(sandbox: &Sandbox, node: NodeId, acknowledged: &Acknowledged) -> Done<()> {
    until(format!("all rows are on node {node}"), Duration::from_secs(20), || async {
        match sandbox.rows_lost(acknowledged, node).await {
            Ok(lost) if lost.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// Until standbys have all that main's PostgreSQL has flushed, and that ends within a record: so a main dies that writes, for its log
/// gets to the disk by pages. Nobody else may make it write meanwhile.
async fn log_ends_within_a_record(sandbox: &Sandbox, standbys: &[NodeId]) -> Done<()> {
    let lsn = async |node, function: &str| {
        let value = sandbox.psql_value(node, &format!("SELECT {function}()")).await;
        let value = value.map_err(|error| error.to_string())?;
        value.parse::<Lsn>().map_err(|error| format!("{value}: {error}"))
    };
    until("the log ends within a record", Duration::from_secs(30), || async {
        let (flushed, written) =
            (lsn(ALPHA, "pg_current_wal_flush_lsn").await?, lsn(ALPHA, "pg_current_wal_insert_lsn").await?);
        if flushed == written {
            // over some pages, and nothing makes it flush the last of them
            let record = "SELECT pg_logical_emit_message(false, 'interrex', repeat('x', 20000))";
            sandbox.psql(ALPHA, record).await.map_err(|error| error.to_string())?;
            return Err("a record was begun".to_owned());
        }
        if !flushed.0.is_multiple_of(PAGE) || written.0 - flushed.0 > PAGE {
            return Err(format!("{flushed} of {written} are flushed"));
        }
        for standby in standbys {
            let received = lsn(*standby, "pg_last_wal_receive_lsn").await?;
            if received != flushed {
                return Err(format!("node {standby} has {received} of {flushed}"));
            }
        }
        Ok(())
    })
    .await
}

#[test]
fn a_third_node_follows_the_new_main() {
    run(async {
        let sandbox = three_nodes().await?;
        let writer = sandbox.start_writer(100.0)?;
        writer.wait_acknowledged(20, Duration::from_secs(20)).await?;
        let before = writer.stop();
        all_rows_are_on(&sandbox, BETA, &before).await?;
        all_rows_are_on(&sandbox, GAMMA, &before).await?;
        // its own events are log too, and a standby that has one more of them cannot follow the other
        sandbox.signal_supervisor(ALPHA, Signal::STOP);
        log_ends_within_a_record(&sandbox, &[BETA, GAMMA]).await?;
        sandbox.kill_everything_of(ALPHA);
        let run = sandbox.wait_run_ended(BETA).await?;
        assert_eq!(outcome(&run, StepId::NotifyPeers), Some(StepOutcome::Succeeded), "{:?}", run.problem);
        let followed =
            |event: &Event| matches!(event, Event::FollowFinished(it) if it.streaming && it.main == BETA);
        sandbox.wait_event(GAMMA, "a follow_finished", |envelope| followed(&envelope.event)).await?;
        sandbox.wait_streaming(BETA, GAMMA).await?;
        let writer = sandbox.start_writer(100.0)?;
        writer.wait_acknowledged(20, Duration::from_secs(20)).await?;
        all_rows_are_on(&sandbox, GAMMA, &writer.stop()).await?;
        assert!(sandbox.wait_healthy(GAMMA).await?.healthy);
        Ok(())
    });
}

#[test]
fn a_third_node_that_is_ahead_of_the_new_main_says_so_instead_of_waiting_for_ever() {
    run(async {
        let sandbox = three_nodes().await?;
        sandbox.psql(BETA, "ALTER SYSTEM SET primary_conninfo = ''").await?;
        sandbox.psql(BETA, "SELECT pg_reload_conf()").await?;
        sandbox
            .wait_health(BETA, "detached", |report| report.postgres.status == PostgresStatus::Detached)
            .await?;
        let writer = sandbox.start_writer(100.0)?;
        writer.wait_acknowledged(50, Duration::from_secs(20)).await?;
        all_rows_are_on(&sandbox, GAMMA, &writer.stop()).await?;
        sandbox.kill_everything_of(ALPHA);
        let run = sandbox.wait_run_ended(BETA).await?;
        assert_eq!(run.end, RunEnd::Completed, "{:?}", run.problem);
        assert!(run.loss.as_ref().and_then(|loss| loss.bytes) > Some(0), "rows are lost: {:?}", run.loss);
        let ahead = |event: &Event| matches!(event, Event::FollowFinished(it) if !it.streaming && it.detail.contains("must be rewound"));
        sandbox
            .wait_event(GAMMA, "a follow_finished that names the fork", |envelope| ahead(&envelope.event))
            .await?;
        Ok(())
    });
}
