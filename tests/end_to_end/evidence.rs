//! What counts as a sign of main's life, and what as none: on real servers.

use std::{net::TcpStream, time::Duration};

use interrex::sandbox::{ALPHA, BETA, Done, Sandbox, until};
use interrex_actors::wire::NodeReport;
use interrex_events::{Event, NodeId, WithheldRule};
use interrex_projections::RunEnd;
use interrex_tests::run;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

use crate::{bad_input::interrex_with, checks::session, switchover::switch, two_nodes, withheld::withheld};

/// Ends every session of the supervisors on a node, so that the next question needs a new one.
async fn end_sessions_of_supervisors(sandbox: &Sandbox, node: NodeId) -> Done<()> {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'interrex'";
    sandbox.psql(node, sql).await.map(drop)
}

async fn admission(sandbox: &Sandbox, seen_by: NodeId, admits: bool) -> Done<()> {
    let is_it = |event: &Event| matches!(event, Event::AdmissionChanged(changed) if changed.node == ALPHA && changed.admits == admits);
    let what = format!("admission_changed of alpha: {admits}");
    sandbox.wait_event(seen_by, &what, |envelope| is_it(&envelope.event)).await.map(drop)
}

/// What `interrex status` says on a node.
async fn status(sandbox: &Sandbox, node: NodeId) -> Done<String> {
    let config = sandbox.node(node)?.config();
    let show = move || interrex_with(&["status", "--config", &config.to_string_lossy()], &[]);
    let output = tokio::task::spawn_blocking(show).await.unwrap()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_main_that_refuses_the_supervisors_login_is_alive() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        sandbox.start().await?;
        sandbox.psql(BETA, "ALTER SYSTEM SET primary_conninfo = ''").await?;
        sandbox.psql(BETA, "SELECT pg_reload_conf()").await?;
        sandbox.kill_supervisor(ALPHA);
        // a session that is open already is let be; the supervisors' are not
        let main = session(&sandbox, ALPHA).await?;
        main.batch_execute("ALTER ROLE interrex PASSWORD 'rotated'").await.unwrap();
        let ended =
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'interrex'";
        main.batch_execute(ended).await.unwrap();
        let refused = |event: &Event| matches!(event, Event::AdmissionChanged(it) if it.node == ALPHA && it.detail.contains("28P01"));
        sandbox.wait_event(BETA, "admission_changed by 28P01", |envelope| refused(&envelope.event)).await?;
        withheld(&sandbox, WithheldRule::PostgresStillAnswers).await?;
        let events = sandbox.events(BETA)?;
        assert!(!events.iter().any(|envelope| matches!(envelope.event, Event::MainLost(_))));
        assert!(sandbox.cluster(BETA)?.runs.newest().is_none(), "a run was begun");
        Ok(())
    });
}

#[test]
fn supervisors_with_different_secrets_say_that_they_refuse_each_other() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        sandbox.start().await?;
        for node in [ALPHA, BETA] {
            sandbox.wait_healthy(node).await?;
        }
        sandbox.kill_supervisor(BETA);
        let secret = sandbox.node(BETA)?.secrets_dir().join("cluster");
        std::fs::write(&secret, "another secret, and long enough\n").unwrap();
        sandbox.start_supervisor(BETA)?;
        for (node, other) in [(ALPHA, "beta"), (BETA, "alpha")] {
            let refused = format!("the supervisor of {other} refuses this node");
            let told = |report: &NodeReport| report.problems.iter().any(|problem| problem.contains(&refused));
            sandbox.wait_health(node, "it says so", told).await?;
        }
        assert!(sandbox.cluster(BETA)?.runs.newest().is_none(), "a run was begun");
        Ok(())
    });
}

#[test]
fn sessions_that_are_ended_are_held_against_nobody() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        sandbox.start().await?;
        let mut before = Vec::new();
        for node in [ALPHA, BETA] {
            sandbox.wait_healthy(node).await?;
            before.push((node, sandbox.events(node)?.len()));
            end_sessions_of_supervisors(&sandbox, node).await?;
        }
        for (node, before) in before {
            sandbox.wait_healthy(node).await?;
            let events = sandbox.events(node)?;
            let bad = events[before..].iter().find(|envelope| {
                matches!(&envelope.event, Event::PostgresChanged(it) if it.status == interrex_events::PostgresStatus::Unreachable)
                    || matches!(envelope.event, Event::MainSuspected(_))
            });
            assert!(bad.is_none(), "{bad:?}");
        }
        Ok(())
    });
}

#[test]
fn a_main_that_admits_no_session_is_degraded_on_both_nodes_and_hands_its_role_over() {
    run(async {
        let sandbox = two_nodes().threshold(Duration::from_secs(2)).postgres_only().build().await?;
        sandbox.start().await?;
        // every place that there is
        let mut taken = Vec::new();
        while let Ok(session) = sandbox.session(ALPHA, "postgres").await {
            taken.push(session);
        }
        for node in [ALPHA, BETA] {
            admission(&sandbox, node, false).await?;
        }
        drop(taken);
        for node in [ALPHA, BETA] {
            admission(&sandbox, node, true).await?;
            sandbox.wait_healthy(node).await?;
        }
        // the process alone that lets sessions in
        let postmaster = sandbox.postmaster_pid(ALPHA).and_then(Pid::from_raw).unwrap();
        kill_process(postmaster, Signal::STOP).unwrap();
        for node in [ALPHA, BETA] {
            until("it is shown", Duration::from_secs(20), || async {
                let shown = status(&sandbox, node).await.map_err(|error| error.to_string())?;
                let told = shown.contains("DEGRADED") && shown.contains("admits no new one");
                if told { Ok(()) } else { Err(shown) }
            })
            .await?;
        }
        assert!(sandbox.cluster(BETA)?.runs.newest().is_none(), "a run was begun");
        let output = switch(&sandbox, ALPHA, "beta", &[]).await?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(sandbox.takes_writes(BETA).await);
        sandbox.wait_healthy(BETA).await.map(drop)
    });
}

#[test]
fn three_thousand_idle_connections_are_no_evidence_against_main_and_keep_no_failover_from_its_end() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        sandbox.start().await?;
        let limit = |most| Rlimit { current: Some(most), maximum: Some(most) };
        let beta = sandbox.supervisor_pid(BETA).and_then(|pid| Pid::from_raw(pid.cast_signed()));
        prlimit(beta, Resource::Nofile, limit(1_024)).unwrap();
        prlimit(None, Resource::Nofile, limit(8_000)).unwrap();
        let address = format!("127.0.0.1:{}", sandbox.node(BETA)?.supervisor_port);
        let connecting =
            move || (0..3_000).map(|_| TcpStream::connect(&address)).collect::<Result<Vec<_>, _>>();
        let held = tokio::task::spawn_blocking(connecting).await.unwrap().unwrap();
        sandbox.wait_healthy(BETA).await?;
        sandbox.kill_everything_of(ALPHA);
        let run = sandbox.wait_run_ended(BETA).await?;
        assert_eq!(run.end, RunEnd::Completed, "{:?}", run.problem);
        let events = sandbox.events(BETA)?;
        let own = events.iter().find(|envelope| {
            matches!(&envelope.event, Event::FailoverWithheld(it) if it.rule == WithheldRule::OwnTrouble)
        });
        assert!(own.is_none(), "{own:?}");
        drop(held);
        Ok(())
    });
}

#[test]
fn an_unplanned_change_of_main_by_another_node_keeps_this_one_from_the_next_and_status_says_so() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        sandbox.start().await?;
        // alpha's supervisor lives, learns of the change, and comes back
        sandbox.kill_postgres(ALPHA);
        sandbox.wait_run_ended(BETA).await?;
        let fenced = |event: &Event| matches!(event, Event::NodeFenced(_));
        sandbox.wait_event(ALPHA, "node_fenced", |envelope| fenced(&envelope.event)).await?;
        let config = sandbox.node(ALPHA)?.config();
        let rejoin = move || interrex_with(&["rejoin", "--config", &config.to_string_lossy()], &[]);
        let output = tokio::task::spawn_blocking(rejoin).await.unwrap()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        sandbox.wait_healthy(ALPHA).await?;
        let shown = status(&sandbox, ALPHA).await?;
        assert!(shown.contains("COOL-DOWN: alpha does not promote itself"), "{shown}");
        sandbox.kill_everything_of(BETA);
        let cool_down =
            |event: &Event| matches!(event, Event::FailoverWithheld(it) if it.rule == WithheldRule::CoolDown);
        sandbox
            .wait_event(ALPHA, "failover_withheld by cool_down", |envelope| cool_down(&envelope.event))
            .await?;
        assert!(!sandbox.takes_writes(ALPHA).await);
        Ok(())
    });
}

#[test]
fn a_database_whose_transactions_are_serializable_hides_no_standby_and_holds_up_no_failover() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        sandbox.start().await?;
        sandbox
            .psql(ALPHA, "ALTER DATABASE postgres SET default_transaction_isolation = 'serializable'")
            .await?;
        let written = sandbox.psql_value(ALPHA, "SELECT pg_current_wal_flush_lsn()").await?.parse().ok();
        sandbox.wait_health(BETA, "has replayed it", |report| report.postgres.replayed >= written).await?;
        // sessions that begin now are of that kind, on the standby too
        sandbox.kill_supervisor(BETA);
        sandbox.start_supervisor(BETA)?;
        sandbox.wait_healthy(BETA).await?;
        let seen = |event: &Event| matches!(event, Event::MainSeen(_));
        until("beta has seen main anew", Duration::from_secs(20), || async {
            let events = sandbox.events(BETA).map_err(|error| error.to_string())?;
            let times = events.iter().filter(|envelope| seen(&envelope.event)).count();
            if times == 2 { Ok(()) } else { Err(format!("{times} times")) }
        })
        .await?;
        sandbox.kill_everything_of(ALPHA);
        let run = sandbox.wait_run_ended(BETA).await?;
        assert_eq!(run.end, RunEnd::Completed, "{:?}", run.problem);
        Ok(())
    });
}
