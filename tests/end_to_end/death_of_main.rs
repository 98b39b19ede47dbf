//! Main dies, in part or as a whole, and the secondary takes over.

use std::time::Duration;

use interrex::sandbox::{ALPHA, BETA, GAMMA, Sandbox, until};
use interrex_actors::env::{Env, SystemEnv};
use interrex_events::{Event, StepId, StepOutcome};
use interrex_tests::run;
use rustix::process::Signal;

use crate::{
    checks::{outcome, sound_failover},
    two_nodes,
};

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
        let sandbox = two_nodes().build().await?;
        sandbox.start().await?;
        let config = format!(
            "host=127.0.0.1 port={} user=interrex password={} dbname=postgres",
            sandbox.node(ALPHA)?.postgres_port,
            sandbox.superuser_password()
        );
        let (session, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls).await.unwrap();
        tokio::task::spawn_local(connection);
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
        let sandbox = two_nodes().build().await?;
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

#[test]
fn a_third_node_follows_the_new_main() {
    run(async {
        let sandbox = two_nodes().nodes(3).build().await?;
        // with quorum none only one secondary may promote itself
        sandbox.set_config(GAMMA, "failover.auto_failover_enabled", false)?;
        sandbox.start().await?;
        let writer = sandbox.start_writer(100.0)?;
        writer.wait_acknowledged(20, Duration::from_secs(20)).await?;
        sandbox.kill_everything_of(ALPHA);
        let run = sandbox.wait_run_ended(BETA).await?;
        assert_eq!(outcome(&run, StepId::NotifyPeers), Some(StepOutcome::Succeeded), "{:?}", run.problem);
        let followed = |event: &Event| matches!(event, Event::FollowFinished(follow) if follow.streaming && follow.main == BETA);
        sandbox.wait_event(GAMMA, "follow_finished", |envelope| followed(&envelope.event)).await?;
        sandbox.wait_streaming(BETA, GAMMA).await?;
        writer
            .wait_ack_by(sandbox.node(BETA)?.postgres_port, SystemEnv.moment(), Duration::from_secs(20))
            .await?;
        let acknowledged = writer.stop();
        until("all rows are on the third node", Duration::from_secs(20), || async {
            let lost_on_main =
                sandbox.rows_lost(&acknowledged, BETA).await.map_err(|error| error.to_string())?;
            match sandbox.rows_lost(&acknowledged, GAMMA).await {
                Ok(lost) if lost == lost_on_main => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        assert!(sandbox.wait_healthy(GAMMA).await?.healthy);
        Ok(())
    });
}
