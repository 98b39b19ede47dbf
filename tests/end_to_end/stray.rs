//! Somebody makes a secondary's PostgreSQL a primary behind its supervisor's back.

use std::time::Duration;

use interrex::sandbox::{ALPHA, BETA, Done, GAMMA, Sandbox, until};
use interrex_actors::wire::NodeReport;
use interrex_events::{Epoch, Event, PostgresStatus, RunKind, StrayAnswer, TimelineId, Trigger};
use interrex_projections::{NodeStatus, RunEnd};
use interrex_tests::run;
use rustix::process::Signal;

use crate::{bad_input::interrex_with, promotion::restart_by_hand, switchover::switch, two_nodes};

const LIMIT: Duration = Duration::from_secs(30);

async fn serving(automatic: bool) -> Done<Sandbox> {
    let sandbox = two_nodes().build().await?;
    for node in [ALPHA, BETA] {
        sandbox.set_config(node, "failover.auto_failover_enabled", automatic)?;
    }
    sandbox.start().await?;
    for node in [ALPHA, BETA] {
        sandbox.wait_healthy(node).await?;
    }
    sandbox.psql(ALPHA, "CREATE TABLE public.orders (id int PRIMARY KEY)").await?;
    sandbox.wait_streaming(ALPHA, BETA).await?;
    Ok(sandbox)
}

/// As a person would: `pg_ctl restart`, without `standby.signal`.
async fn restart_without_signal(sandbox: &Sandbox) -> Done<()> {
    let node = sandbox.node(BETA)?;
    std::fs::remove_file(node.data_dir().join("standby.signal")).unwrap();
    // its supervisor may stop it before pg_ctl has seen it run
    restart_by_hand(sandbox, BETA, &[]).await.map(drop)
}

async fn found(sandbox: &Sandbox, answer: StrayAnswer) -> Done<()> {
    let is_it = |event: &Event| matches!(event, Event::StrayPrimaryFound(stray) if stray.answer == answer);
    sandbox.wait_event(BETA, "stray_primary_found", |envelope| is_it(&envelope.event)).await.map(drop)
}

/// Beside a living main it is stopped, main serves on, and the node comes back by the command that it names.
async fn is_stopped_and_comes_back(sandbox: &Sandbox) -> Done<()> {
    found(sandbox, StrayAnswer::Stopped).await?;
    let fenced = |report: &NodeReport| report.status == NodeStatus::Fenced;
    sandbox.wait_health(BETA, "fenced", fenced).await?;
    assert_eq!(sandbox.postmaster_pid(BETA), None);
    assert!(sandbox.takes_writes(ALPHA).await);
    assert!(sandbox.cluster(ALPHA)?.runs.newest().is_none(), "a run was begun");
    let config = sandbox.node(BETA)?.config().display().to_string();
    let asked = move || interrex_with(&["rejoin", "beta", "--config", &config], &[]);
    let said = tokio::task::spawn_blocking(asked).await.unwrap()?;
    assert!(said.status.success(), "{said:?}");
    sandbox.wait_streaming(ALPHA, BETA).await?;
    for node in [ALPHA, BETA] {
        sandbox.wait_healthy(node).await?;
    }
    Ok(())
}

/// Where main is lost it is taken over: an epoch of its own, its Redis too, on a timeline of its own.
async fn is_taken_over(sandbox: &Sandbox, (epoch, timeline): (u64, u32)) -> Done<()> {
    let made = until("a run by hand has ended", LIMIT, || async {
        let cluster = sandbox.cluster(BETA).map_err(|error| error.to_string())?;
        let by_hand = cluster.runs.newest().filter(|run| run.trigger == Trigger::ByHand && !run.is_running());
        by_hand.cloned().ok_or_else(|| format!("{:?}", cluster.runs.newest().map(|run| run.id)))
    })
    .await?;
    assert_eq!(
        (made.kind, made.trigger, made.epoch, made.end),
        (RunKind::Promotion, Trigger::ByHand, Epoch(epoch), RunEnd::Completed),
        "{made:?}"
    );
    let report = sandbox.wait_healthy(BETA).await?;
    assert_eq!((report.main, report.postgres.status), (Some(BETA), PostgresStatus::Primary));
    assert_eq!(report.postgres.timeline, Some(TimelineId(timeline)));
    assert!(sandbox.takes_writes(BETA).await);
    assert_eq!(sandbox.redis(BETA, &["SET", "key", "value"]).await?, "OK");
    let log = std::fs::read_to_string(sandbox.node(BETA)?.supervisor_log()).unwrap();
    assert!(log.contains("epoch_opened"), "the log says nothing: {log}");
    Ok(())
}

async fn lose_main(sandbox: &Sandbox) -> Done<()> {
    sandbox.kill_everything_of(ALPHA);
    sandbox.wait_main_silent(BETA).await.map(drop)
}

#[test]
fn what_is_promoted_by_hand_beside_a_living_main_is_stopped_and_comes_back() {
    run(async {
        let sandbox = serving(true).await?;
        sandbox.psql(BETA, "SELECT pg_promote(false)").await?;
        is_stopped_and_comes_back(&sandbox).await
    });
}

#[test]
fn what_is_restarted_without_its_signal_beside_a_living_main_is_stopped_and_comes_back() {
    run(async {
        let sandbox = serving(true).await?;
        restart_without_signal(&sandbox).await?;
        is_stopped_and_comes_back(&sandbox).await
    });
}

#[test]
fn what_is_promoted_by_hand_where_main_is_lost_is_taken_over_with_what_was_written_there() {
    run(async {
        let sandbox = serving(false).await?;
        lose_main(&sandbox).await?;
        sandbox.psql(BETA, "SELECT pg_promote()").await?;
        sandbox.psql(BETA, "INSERT INTO public.orders VALUES (1)").await?;
        is_taken_over(&sandbox, (2, 2)).await?;
        assert_eq!(sandbox.psql_value(BETA, "SELECT count(*) FROM public.orders").await?, "1");
        Ok(())
    });
}

#[test]
fn what_is_restarted_without_its_signal_where_main_is_lost_is_taken_over_on_a_timeline_of_its_own() {
    run(async {
        let sandbox = serving(false).await?;
        // from the second timeline on a standby has a history file as well
        for (main, target, name) in [(ALPHA, BETA, "beta"), (BETA, ALPHA, "alpha")] {
            let moved = switch(&sandbox, main, name, &["--drain", "0s"]).await?;
            assert!(moved.status.success(), "{moved:?}");
            // main refuses the next one as long as its takeover runs
            sandbox.wait_run_ended(target).await?;
        }
        sandbox.wait_streaming(ALPHA, BETA).await?;
        sandbox.wait_healthy(BETA).await?;
        lose_main(&sandbox).await?;
        restart_without_signal(&sandbox).await?;
        is_taken_over(&sandbox, (4, 4)).await
    });
}

#[test]
fn a_third_node_does_not_follow_what_was_restarted_without_its_signal_where_its_wal_is_another() {
    run(async {
        let sandbox = two_nodes().nodes(3).postgres_only().build().await?;
        for node in [ALPHA, BETA, GAMMA] {
            sandbox.set_config(node, "failover.auto_failover_enabled", false)?;
        }
        sandbox.start().await?;
        for node in [ALPHA, BETA, GAMMA] {
            sandbox.wait_healthy(node).await?;
        }
        sandbox.psql(BETA, "ALTER SYSTEM SET wal_keep_size = '64MB'").await?;
        sandbox.psql(BETA, "ALTER SYSTEM SET primary_conninfo = ''").await?;
        sandbox.psql(BETA, "SELECT pg_reload_conf()").await?;
        let detached = |report: &NodeReport| report.postgres.status == PostgresStatus::Detached;
        sandbox.wait_health(BETA, "detached", detached).await?;
        sandbox.psql(ALPHA, "CREATE TABLE public.orders AS SELECT generate_series(1, 100) AS id").await?;
        until("gamma has the rows", LIMIT, || async {
            match sandbox.psql_value(GAMMA, "SELECT count(*) FROM public.orders").await {
                Ok(count) if count == "100" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        sandbox.kill_everything_of(ALPHA);
        for node in [BETA, GAMMA] {
            sandbox.wait_main_silent(node).await?;
        }
        // beta's WAL becomes the longer one before its supervisor looks
        sandbox.signal_supervisor(BETA, Signal::STOP);
        restart_without_signal(&sandbox).await?;
        sandbox.psql(BETA, "SELECT pg_logical_emit_message(false, 'interrex', repeat('x', 3000000))").await?;
        sandbox.signal_supervisor(BETA, Signal::CONT);
        sandbox.wait_run_ended(BETA).await?;
        let refused = |event: &Event| matches!(event, Event::FollowFinished(it) if !it.streaming && it.detail.contains("are different after"));
        sandbox.wait_event(GAMMA, "it does not follow", |envelope| refused(&envelope.event)).await?;
        assert_eq!(sandbox.psql_value(GAMMA, "SELECT count(*) FROM public.orders").await?, "100");
        Ok(())
    });
}
