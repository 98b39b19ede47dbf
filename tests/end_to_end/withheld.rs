//! No failover, and an event says why not.

use std::time::Duration;

use interrex::sandbox::{ALPHA, BETA, Done, Sandbox, SandboxError, until};
use interrex_events::{Event, WithheldRule};
use interrex_tests::{SlowProxy, faketime, run};
use rustix::process::Signal;

use crate::two_nodes;

pub(crate) async fn withheld(sandbox: &Sandbox, rule: WithheldRule) -> Done<()> {
    let is_it = |event: &Event| matches!(event, Event::FailoverWithheld(withheld) if withheld.rule == rule);
    sandbox
        .wait_event(BETA, &format!("failover_withheld by {rule}"), |envelope| is_it(&envelope.event))
        .await?;
    Ok(())
}

/// No run was begun, and main still serves.
async fn nothing_was_done(sandbox: &Sandbox) -> Done<()> {
    let cluster = sandbox.cluster(BETA)?;
    assert!(cluster.runs.newest().is_none(), "a run was begun: {:?}", cluster.runs.newest());
    assert_eq!(cluster.nodes.main, Some(ALPHA));
    assert!(sandbox.takes_writes(ALPHA).await && !sandbox.takes_writes(BETA).await);
    Ok(())
}

#[test]
fn a_main_whose_answers_come_too_late_is_alive_as_long_as_its_log_arrives() {
    run(async {
        let sandbox = two_nodes().postgres_only().threshold(Duration::from_secs(4)).build().await?;
        let main = sandbox.node(ALPHA)?;
        let supervisor = SlowProxy::start(format!("127.0.0.1:{}", main.supervisor_port)).await?;
        let postgres = SlowProxy::start(format!("127.0.0.1:{}", main.postgres_port)).await?;
        sandbox.set_config(BETA, "peers.0.address", supervisor.address())?;
        sandbox.set_config(BETA, "peers.0.postgres", postgres.address())?;
        sandbox.start().await?;
        let writer = sandbox.start_writer(100.0)?;
        writer.wait_acknowledged(20, Duration::from_secs(30)).await?;
        let seen = |event: &Event| matches!(event, Event::MainSeen(_));
        sandbox.wait_event(BETA, "main_seen", |envelope| seen(&envelope.event)).await?;
        // slower than a probe's limit; replication goes the direct way
        supervisor.slow_down(Duration::from_secs(2));
        postgres.slow_down(Duration::from_secs(2));
        withheld(&sandbox, WithheldRule::WalStillStreaming).await?;
        nothing_was_done(&sandbox).await?;
        supervisor.slow_down(Duration::ZERO);
        postgres.slow_down(Duration::ZERO);
        let recovered = |event: &Event| matches!(event, Event::MainRecovered(_));
        sandbox.wait_event(BETA, "main_recovered", |envelope| recovered(&envelope.event)).await?;
        nothing_was_done(&sandbox).await
    });
}

#[test]
fn a_main_that_stops_for_less_than_the_threshold_is_suspected_and_recovers() {
    run(async {
        let sandbox = two_nodes().postgres_only().threshold(Duration::from_secs(6)).build().await?;
        sandbox.start().await?;
        sandbox.signal_supervisor(ALPHA, Signal::STOP);
        sandbox.signal_postgres(ALPHA, Signal::STOP);
        let suspected = |event: &Event| matches!(event, Event::MainSuspected(_));
        sandbox.wait_event(BETA, "main_suspected", |envelope| suspected(&envelope.event)).await?;
        sandbox.signal_postgres(ALPHA, Signal::CONT);
        sandbox.signal_supervisor(ALPHA, Signal::CONT);
        let recovered =
            |event: &Event| matches!(event, Event::MainRecovered(it) if it.silent_ms < it.threshold_ms);
        sandbox.wait_event(BETA, "main_recovered", |envelope| recovered(&envelope.event)).await?;
        nothing_was_done(&sandbox).await
    });
}

#[test]
fn a_main_whose_supervisor_alone_is_dead_still_serves() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        sandbox.start().await?;
        sandbox.kill_supervisor(ALPHA);
        withheld(&sandbox, WithheldRule::PostgresStillAnswers).await?;
        nothing_was_done(&sandbox).await
    });
}

#[test]
fn a_secondary_that_starts_while_main_is_down_judges_nobody() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        sandbox.start_supervisor(BETA)?;
        withheld(&sandbox, WithheldRule::MainNeverSeenSinceBoot).await?;
        assert!(sandbox.cluster(BETA)?.runs.newest().is_none());
        assert!(!sandbox.takes_writes(BETA).await);
        Ok(())
    });
}

#[test]
fn auto_failover_that_is_disabled_only_says_what_it_would_have_done() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        sandbox.set_config(BETA, "failover.auto_failover_enabled", false)?;
        sandbox.start().await?;
        sandbox.kill_everything_of(ALPHA);
        withheld(&sandbox, WithheldRule::AutoFailoverDisabled).await?;
        assert!(sandbox.cluster(BETA)?.runs.newest().is_none());
        Ok(())
    });
}

#[test]
fn a_supervisor_that_was_frozen_for_ten_seconds_blames_itself() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        sandbox.start().await?;
        sandbox.signal_supervisor(BETA, Signal::STOP);
        // the freeze itself is what is tested: there is no condition to wait for
        tokio::time::sleep(Duration::from_secs(10)).await;
        sandbox.signal_supervisor(BETA, Signal::CONT);
        withheld(&sandbox, WithheldRule::OwnStall).await?;
        let stalled = |event: &Event| matches!(event, Event::SupervisorStalled(it) if it.stalled_ms > 9_000);
        sandbox.wait_event(BETA, "supervisor_stalled", |envelope| stalled(&envelope.event)).await?;
        sandbox.wait_healthy(BETA).await?;
        nothing_was_done(&sandbox).await
    });
}

#[test]
fn a_wall_clock_that_jumps_by_an_hour_decides_nothing() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        let offset = sandbox.folder().join("clock");
        std::fs::write(&offset, "+0")
            .map_err(|error| SandboxError::failed("writing the clock's offset", error))?;
        let faketime = faketime()?;
        // the servers keep the machine's clock: only the supervisor is started anew with its own
        sandbox.start().await?;
        sandbox.kill_supervisor(BETA);
        for (name, value) in [
            ("LD_PRELOAD", faketime.to_string_lossy().as_ref()),
            ("FAKETIME_TIMESTAMP_FILE", offset.to_string_lossy().as_ref()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ] {
            sandbox.set_environment(BETA, name, Some(value));
        }
        sandbox.start_supervisor(BETA)?;
        sandbox.wait_healthy(BETA).await?;
        for (jump, forward) in [("+3600", true), ("+0", false)] {
            std::fs::write(&offset, jump)
                .map_err(|error| SandboxError::failed("writing the clock's offset", error))?;
            let jumped = |event: &Event| matches!(event, Event::ClockJumped(it) if it.step_ms.abs() > 3_500_000 && (it.step_ms > 0) == forward);
            sandbox.wait_event(BETA, "clock_jumped", |envelope| jumped(&envelope.event)).await?;
        }
        withheld(&sandbox, WithheldRule::ClockJump).await?;
        nothing_was_done(&sandbox).await?;
        let times: Vec<_> = sandbox.journal(BETA)?.page(BETA, interrex_events::NodeSeq(0), 10_000).unwrap();
        assert!(times.is_sorted_by_key(|record| record.hlc), "a jump reordered history");
        Ok(())
    });
}

#[test]
fn a_run_that_is_refused_is_not_repeated_in_a_tight_loop() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        // a step before the point of no return that fails: the loss is not accepted
        sandbox.set_config(BETA, "failover.maximum_lag_bytes", 0)?;
        sandbox.start().await?;
        // beta stops receiving, alpha goes on
        sandbox.psql(BETA, "ALTER SYSTEM SET primary_conninfo = ''").await?;
        sandbox.psql(BETA, "SELECT pg_reload_conf()").await?;
        let writer = sandbox.start_writer(100.0)?;
        writer.wait_acknowledged(100, Duration::from_secs(30)).await?;
        let lsn = sandbox.psql_value(ALPHA, "SELECT pg_current_wal_flush_lsn()").await?;
        until("beta knows how far main is", Duration::from_secs(20), || async {
            let report = sandbox.health(BETA).await.map_err(|error| error.to_string())?.report;
            match report.lag {
                Some(lag) if lag.main_lsn >= lsn.parse().unwrap() && lag.bytes > 0 => Ok(()),
                lag => Err(format!("{lag:?}")),
            }
        })
        .await?;
        sandbox.kill_everything_of(ALPHA);
        let run = sandbox.wait_run_ended(BETA).await?;
        assert_eq!(run.end, interrex_projections::RunEnd::Refused, "{:?}", run.problem);
        withheld(&sandbox, WithheldRule::RunInVain).await?;
        assert!(!sandbox.takes_writes(BETA).await, "a refused run promoted");
        Ok(())
    });
}
