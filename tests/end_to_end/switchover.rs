//! Main hands its role over, on a person's word: nothing that a client was told is committed is lost, and nothing is
//! rewound.

use std::time::Duration;

use interrex::sandbox::{ALPHA, BETA, Done, Sandbox, SandboxError, Writer, until};
use interrex_actors::env::{Env as _, SystemEnv};
use interrex_events::{Event, NodeId, StepId};
use interrex_projections::{Run, RunEnd, Undo};
use interrex_tests::{interrex, run};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

use crate::{bad_input::interrex_with, checks::session, two_nodes};

pub(crate) const LIMIT: Duration = Duration::from_secs(100);

/// Runs `interrex switchover` on a node, to its end. What it says.
pub(crate) async fn switch(
    sandbox: &Sandbox,
    on: NodeId,
    to: &str,
    more: &[&str],
) -> Done<std::process::Output> {
    let mut command = tokio::process::Command::new(interrex());
    command.arg("switchover").args(["--to", to, "--config"]).arg(sandbox.node(on)?.config()).args(more);
    let output = tokio::time::timeout(LIMIT, command.kill_on_drop(true).output()).await;
    let late =
        |_| SandboxError::failed("interrex switchover does not end".to_owned(), newest_everywhere(sandbox));
    output.map_err(late).map(Result::unwrap)
}

/// The newest run of a node's own.
fn newest(sandbox: &Sandbox, node: NodeId) -> Done<Run> {
    let runs = sandbox.cluster(node)?.runs;
    Ok(runs.runs.into_values().rev().find(|run| run.node == node).unwrap())
}

/// What every node knows of its newest run.
fn newest_everywhere(sandbox: &Sandbox) -> String {
    let of =
        |node| format!("{node}: {:?}", newest(sandbox, node).map(|run| (run.end, run.steps, run.problem)));
    [ALPHA, BETA].map(of).join("\n")
}

/// `interrex run show` on a node prints the certificate and names the other half, once the other node's events are here.
async fn shows_the_certificate(sandbox: &Sandbox, node: NodeId) -> Done<()> {
    let config = &sandbox.node(node)?.config();
    let look = || async {
        let config = config.clone();
        let show = move || interrex_with(&["run", "show", "--config", &config.to_string_lossy()], &[]);
        let output = tokio::task::spawn_blocking(show).await.unwrap().map_err(|error| error.to_string())?;
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        if shown.contains("CERTIFICATE") && shown.contains("the takeover by") { Ok(()) } else { Err(shown) }
    };
    until("the certificate is shown", LIMIT, look).await
}

#[test]
fn main_changes_places_with_its_secondary_and_back_and_no_row_is_lost() {
    run(async {
        let sandbox = two_nodes().threshold(2 * LIMIT).build().await?;
        sandbox.start().await?;
        for node in [ALPHA, BETA] {
            sandbox.wait_healthy(node).await?;
        }
        let writer = sandbox.start_writer(200.0)?;
        writer.wait_acknowledged(50, LIMIT).await?;
        // one that never ends, one that waits in a transaction, and one that says that it will write
        let long = session(&sandbox, ALPHA).await?;
        tokio::task::spawn_local(async move { long.batch_execute("BEGIN; SELECT pg_sleep(3600)").await });
        let idle = session(&sandbox, ALPHA).await?;
        idle.batch_execute("BEGIN; SELECT 1").await.unwrap();
        let writing = session(&sandbox, ALPHA).await?;
        writing.batch_execute("BEGIN READ WRITE").await.unwrap();
        for (from, to, name) in [(ALPHA, BETA, "beta"), (BETA, ALPHA, "alpha")] {
            let began = SystemEnv.moment();
            let said = switch(&sandbox, from, name, &["--drain", "200ms"]).await?;
            let message =
                String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
            assert!(said.status.success(), "{message}");
            assert!(message.contains("PostgreSQL lost nothing"), "{message}");
            let switched = newest(&sandbox, from)?;
            assert_eq!(switched.end, RunEnd::Completed, "{message}");
            let certificate = switched.certificate.clone().unwrap();
            assert_eq!(
                (certificate.end, certificate.received),
                (certificate.switchpoint, certificate.switchpoint),
                "{message}"
            );
            let history = format!("SELECT pg_read_file('pg_wal/{:08X}.history')", certificate.new_timeline.0);
            let history = sandbox.psql_value(to, &history).await?;
            assert!(history.contains(&certificate.switchpoint.to_string()), "{history}");
            sandbox.wait_streaming(to, from).await?;
            for node in [ALPHA, BETA] {
                sandbox.wait_healthy(node).await?;
            }
            assert!(!sandbox.takes_writes(from).await);
            let port = sandbox.node(to)?.postgres_port;
            writer.wait_ack_by(port, began, LIMIT).await?;
            // the next one is refused as long as the target makes its half
            assert_eq!(ended(&sandbox, to).await?.end, RunEnd::Completed);
            for node in [ALPHA, BETA] {
                shows_the_certificate(&sandbox, node).await?;
            }
            sandbox.doctor_clean().await?;
        }
        let acknowledged = writer.stop();
        assert_eq!(sandbox.rows_lost(&acknowledged, ALPHA).await?, Vec::<i64>::new());
        Ok(())
    });
}

/// How long clients may find no main because a target was silent: the wait for it, a stop and a start.
const WITHDRAWN_WITHIN: Duration = Duration::from_secs(6);

#[test]
fn a_target_whose_supervisor_ends_before_the_offer_leaves_main_serving() {
    run(async {
        let sandbox = two_nodes().postgres_only().threshold(2 * LIMIT).build().await?;
        sandbox.start().await?;
        for node in [ALPHA, BETA] {
            sandbox.wait_healthy(node).await?;
        }
        let writer = sandbox.start_writer(200.0)?;
        writer.wait_acknowledged(20, LIMIT).await?;
        let open = session(&sandbox, ALPHA).await?;
        open.batch_execute("BEGIN; SELECT 1").await.unwrap();
        let began = SystemEnv.moment();
        let (said, ()) = tokio::try_join!(switch(&sandbox, ALPHA, "beta", &["--drain", "60s"]), async {
            until("it waits for the transaction", LIMIT, || async {
                let runs = sandbox.cluster(ALPHA).map_err(|error| error.to_string())?.runs;
                let drains = runs.active(ALPHA).is_some_and(|run| run.step(StepId::Drain).is_running());
                if drains { Ok(()) } else { Err("it does not".to_owned()) }
            })
            .await?;
            assert!(sandbox.kill_supervisor(BETA));
            open.batch_execute("COMMIT").await.unwrap();
            Ok(())
        })?;
        let message = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(!said.status.success() && message.contains("has not recorded"), "{message}");
        let switched = ended(&sandbox, ALPHA).await?;
        assert_eq!((switched.end, switched.step(StepId::StopMain).undo), (RunEnd::Refused, Undo::Done));
        writer.wait_ack_by(sandbox.node(ALPHA)?.postgres_port, SystemEnv.moment(), LIMIT).await?;
        let acknowledged = writer.stop();
        let gap = acknowledged.longest_gap_after(began).unwrap().duration();
        println!("no main for {gap:?}");
        assert!(gap < WITHDRAWN_WITHIN, "{gap:?}");
        assert_eq!(sandbox.rows_lost(&acknowledged, ALPHA).await?, Vec::<i64>::new());
        Ok(())
    });
}

#[test]
fn a_target_whose_journal_can_store_nothing_is_refused_before_main_stops() {
    run(async {
        let sandbox = two_nodes().postgres_only().threshold(2 * LIMIT).build().await?;
        sandbox.start().await?;
        for node in [ALPHA, BETA] {
            sandbox.wait_healthy(node).await?;
        }
        let before = sandbox.postmaster_pid(ALPHA);
        // no file of that supervisor may grow any more, as on a full disk; what is open stays open
        let supervisor = sandbox.supervisor_pid(BETA).and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let full = Rlimit { current: Some(1), maximum: Some(1) };
        prlimit(Some(supervisor.unwrap()), Resource::Fsize, full).unwrap();
        let said = switch(&sandbox, ALPHA, "beta", &["--drain", "0s"]).await?;
        assert!(!said.status.success(), "{said:?}");
        let switched = ended(&sandbox, ALPHA).await?;
        assert_eq!(switched.step(StepId::StopMain).attempts, 0, "{switched:?}");
        assert!(sandbox.takes_writes(ALPHA).await && sandbox.postmaster_pid(ALPHA) == before);
        Ok(())
    });
}

/// Both nodes do what their roles demand, one of them takes writes, and everything that a client was told is there.
async fn sound(sandbox: &Sandbox, main: NodeId, writer: Writer) -> Done<()> {
    let other = if main == ALPHA { BETA } else { ALPHA };
    for node in [ALPHA, BETA] {
        sandbox.wait_healthy(node).await?;
    }
    sandbox.wait_streaming(main, other).await?;
    assert!(sandbox.takes_writes(main).await && !sandbox.takes_writes(other).await);
    writer.wait_ack_by(sandbox.node(main)?.postgres_port, SystemEnv.moment(), LIMIT).await?;
    let acknowledged = writer.stop();
    assert_eq!(sandbox.rows_lost(&acknowledged, main).await?, Vec::<i64>::new());
    assert_eq!(sandbox.cluster(main)?.nodes.main, Some(main));
    Ok(())
}

/// A node's supervisor dies at a step of its half, and its successor brings the switchover to its end.
fn dies_at(node: NodeId, barrier: &'static str) {
    run(async move {
        let sandbox = two_nodes().threshold(2 * LIMIT).build().await?;
        sandbox.set_environment(node, "INTERREX_BARRIER", Some(barrier));
        sandbox.start().await?;
        for node in [ALPHA, BETA] {
            sandbox.wait_healthy(node).await?;
        }
        let writer = sandbox.start_writer(100.0)?;
        writer.wait_acknowledged(20, LIMIT).await?;
        let (said, ()) = tokio::try_join!(switch(&sandbox, ALPHA, "beta", &["--drain", "0s"]), async {
            let end = sandbox.wait_supervisor_ended(node).await?;
            assert!(
                std::os::unix::process::ExitStatusExt::signal(&end) == Some(9),
                "it ended by itself: {end}"
            );
            sandbox.set_environment(node, "INTERREX_BARRIER", None);
            sandbox.start_supervisor(node).map(drop)
        })?;
        let switched = ended(&sandbox, ALPHA).await?;
        let half = ended(&sandbox, node).await?;
        assert_eq!(half.resumed, 1, "{half:?}");
        // who began the switchover may have lost its connection with the supervisor that died
        let message = String::from_utf8_lossy(&said.stderr).into_owned();
        let cut_off = message.contains("does not answer as it should");
        assert!(cut_off || said.status.success() == (switched.end == RunEnd::Completed), "{message}");
        match switched.end {
            RunEnd::Completed => {
                assert_eq!((half.end, switched.certificate.is_some()), (RunEnd::Completed, true));
                sound(&sandbox, BETA, writer).await
            }
            // a supervisor that starts as main starts its servers: then there is nothing to prove
            RunEnd::RolledBack if barrier.ends_with("prove_handover") => sound(&sandbox, ALPHA, writer).await,
            other => {
                Err(SandboxError::failed(format!("it is {other}"), switched.problem.unwrap_or_default()))
            }
        }
    });
}

/// The newest run that a node made, once it has ended.
pub(crate) async fn ended(sandbox: &Sandbox, node: NodeId) -> Done<Run> {
    until("its run has ended", LIMIT, || async {
        let run = newest(sandbox, node).map_err(|error| error.to_string())?;
        if run.is_running() { Err(format!("{:?}", run.steps)) } else { Ok(run) }
    })
    .await
}

macro_rules! dies {
    ($half:ident, $node:expr, $($step:ident),+ $(,)?) => {
        mod $half {
            mod before_the_effect {
                $( #[test] fn $step() { super::super::dies_at($node, concat!("before:", stringify!($step))); } )+
            }
            mod after_the_effect {
                $( #[test] fn $step() { super::super::dies_at($node, concat!("after:", stringify!($step))); } )+
            }
        }
    };
}

dies!(
    main_dies,
    interrex::sandbox::ALPHA,
    check_handover,
    write_checkpoint,
    drain,
    stop_main,
    prove_handover,
    hand_over,
    become_standby,
    hand_over_redis,
    restart_dependents,
);

dies!(target_dies, interrex::sandbox::BETA, win_epoch, fence_old_main, detach, promote, promote_redis);

/// Both supervisors die when main's is at a step, and both are started again.
fn both_die_at(barrier: &'static str) {
    run(async move {
        let sandbox = two_nodes().threshold(2 * LIMIT).build().await?;
        sandbox.set_environment(ALPHA, "INTERREX_BARRIER", Some(barrier));
        sandbox.start().await?;
        for node in [ALPHA, BETA] {
            sandbox.wait_healthy(node).await?;
        }
        let writer = sandbox.start_writer(100.0)?;
        writer.wait_acknowledged(20, LIMIT).await?;
        let (_, ()) = tokio::try_join!(switch(&sandbox, ALPHA, "beta", &["--drain", "0s"]), async {
            sandbox.wait_supervisor_ended(ALPHA).await?;
            sandbox.kill_supervisor(BETA);
            sandbox.set_environment(ALPHA, "INTERREX_BARRIER", None);
            // the target's first: it must not take the silence for main's death
            sandbox.start_supervisor(BETA)?;
            sandbox.start_supervisor(ALPHA).map(drop)
        })?;
        let switched = ended(&sandbox, ALPHA).await?;
        assert_eq!(switched.end, RunEnd::Completed, "{:?}", switched.problem);
        sound(&sandbox, BETA, writer).await
    });
}

#[test]
fn both_supervisors_die_while_the_role_is_offered() {
    both_die_at("before:hand_over");
}

#[test]
fn both_supervisors_die_when_the_role_was_taken() {
    both_die_at("after:hand_over");
}

#[test]
fn the_targets_postgresql_dies_while_it_takes_the_role() {
    run(async {
        let sandbox = two_nodes().postgres_only().threshold(2 * LIMIT).build().await?;
        // between what main proved and the promotion
        sandbox.set_environment(BETA, "INTERREX_BARRIER", Some("before:promote"));
        sandbox.start().await?;
        for node in [ALPHA, BETA] {
            sandbox.wait_healthy(node).await?;
        }
        let writer = sandbox.start_writer(100.0)?;
        writer.wait_acknowledged(20, LIMIT).await?;
        let (_, ()) = tokio::try_join!(switch(&sandbox, ALPHA, "beta", &["--drain", "0s"]), async {
            sandbox.wait_supervisor_ended(BETA).await?;
            sandbox.kill_postgres(BETA);
            sandbox.set_environment(BETA, "INTERREX_BARRIER", None);
            sandbox.start_supervisor(BETA).map(drop)
        })?;
        let switched = ended(&sandbox, ALPHA).await?;
        assert_eq!(switched.end, RunEnd::Completed, "{:?}", switched.problem);
        sound(&sandbox, BETA, writer).await
    });
}

/// The switchover is not made, and main serves as before.
async fn main_serves_on(sandbox: &Sandbox, writer: Writer) -> Done<()> {
    sound(sandbox, ALPHA, writer).await?;
    let certificates =
        sandbox.cluster(ALPHA)?.runs.runs.values().filter(|run| run.certificate.is_some()).count();
    assert_eq!(certificates, 0);
    Ok(())
}

#[test]
fn a_target_whose_supervisor_is_dead_is_refused_before_anything_is_stopped() {
    run(async {
        let sandbox = two_nodes().threshold(2 * LIMIT).build().await?;
        sandbox.start().await?;
        sandbox.wait_healthy(ALPHA).await?;
        let writer = sandbox.start_writer(100.0)?;
        writer.wait_acknowledged(20, LIMIT).await?;
        sandbox.kill_supervisor(BETA);
        let said = switch(&sandbox, ALPHA, "beta", &[]).await?;
        assert_eq!(said.status.code(), Some(1));
        let refused = newest(&sandbox, ALPHA)?;
        assert_eq!((refused.end, refused.step(StepId::StopMain).attempts), (RunEnd::Refused, 0));
        assert!(refused.problem.unwrap().contains("supervisor of beta does not answer"));
        sandbox.start_supervisor(BETA)?;
        main_serves_on(&sandbox, writer).await
    });
}

#[test]
fn a_main_that_could_not_follow_is_told_which_limit_to_raise_before_anything_is_stopped() {
    run(async {
        let sandbox = two_nodes().postgres_only().threshold(2 * LIMIT).build().await?;
        let file = sandbox.node(BETA)?.folder.join("postgresql.node.conf");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{text}max_connections = 200\n")).unwrap();
        sandbox.start().await?;
        for node in [ALPHA, BETA] {
            sandbox.wait_healthy(node).await?;
        }
        let writer = sandbox.start_writer(100.0)?;
        writer.wait_acknowledged(20, LIMIT).await?;
        let has = sandbox.psql_value(ALPHA, "SHOW max_connections").await?;
        let planned = switch(&sandbox, ALPHA, "beta", &["--dry-run"]).await?;
        let said = switch(&sandbox, ALPHA, "beta", &["--drain", "0s"]).await?;
        assert_eq!((planned.status.code(), said.status.code()), (Some(1), Some(1)), "{planned:?}");
        let refused = newest(&sandbox, ALPHA)?;
        assert_eq!((refused.end, refused.step(StepId::StopMain).attempts), (RunEnd::Refused, 0));
        let problem = refused.problem.unwrap();
        let raise = "ALTER SYSTEM SET max_connections = 200";
        let both = format!("max_connections is {has} here from the next start on, and 200 on beta");
        assert!(problem.contains(&both) && problem.contains(raise), "{problem}");
        sound(&sandbox, ALPHA, writer).await?;

        // what it says is enough
        sandbox.psql(ALPHA, raise).await?;
        let said = switch(&sandbox, ALPHA, "beta", &["--drain", "0s"]).await?;
        assert!(said.status.success(), "{said:?}");
        sound(&sandbox, BETA, sandbox.start_writer(100.0)?).await
    });
}

#[test]
fn a_target_that_receives_no_more_makes_main_serve_again() {
    run(async {
        let sandbox = two_nodes().postgres_only().threshold(2 * LIMIT).patience(2 * LIMIT).build().await?;
        sandbox.start().await?;
        for node in [ALPHA, BETA] {
            sandbox.wait_healthy(node).await?;
        }
        let writer = sandbox.start_writer(100.0)?;
        writer.wait_acknowledged(20, LIMIT).await?;
        // main's log sender waits for it at the stop, and would for ever
        let receiver = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walreceiver'";
        let receiver: i32 = sandbox.psql_value(BETA, receiver).await?.parse().unwrap();
        let signal = |signal| kill_process(Pid::from_raw(receiver).unwrap(), signal).unwrap();
        signal(Signal::STOP);
        let said = switch(&sandbox, ALPHA, "beta", &["--drain", "0s"]).await?;
        signal(Signal::CONT);
        assert_eq!(said.status.code(), Some(1));
        let taken_back = newest(&sandbox, ALPHA)?;
        assert_eq!(taken_back.end, RunEnd::RolledBack, "{:?}", taken_back.problem);
        assert_eq!(taken_back.step(StepId::StopMain).undo, Undo::Done);
        main_serves_on(&sandbox, writer).await
    });
}

#[test]
fn a_run_that_is_cancelled_while_it_drains_changes_nothing() {
    run(async {
        let sandbox = two_nodes().postgres_only().threshold(2 * LIMIT).build().await?;
        sandbox.start().await?;
        for node in [ALPHA, BETA] {
            sandbox.wait_healthy(node).await?;
        }
        let writer = sandbox.start_writer(100.0)?;
        writer.wait_acknowledged(20, LIMIT).await?;
        let idle = session(&sandbox, ALPHA).await?;
        idle.batch_execute("BEGIN; SELECT 1").await.unwrap();
        let (said, ()) = tokio::try_join!(switch(&sandbox, ALPHA, "beta", &["--drain", "1h"]), async {
            let draining = |envelope: &interrex_events::Envelope| matches!(&envelope.event, Event::StepStarted(it) if it.step == StepId::Drain);
            sandbox.wait_event(ALPHA, "it drains", draining).await?;
            let config = sandbox.node(ALPHA)?.config();
            let cancel = ["run", "cancel", "--reason", "not now", "--config", &config.to_string_lossy()];
            let cancelled = interrex_with(&cancel, &[])?;
            assert!(cancelled.status.success(), "{cancelled:?}");
            Ok(())
        })?;
        assert_eq!(said.status.code(), Some(1));
        let given_up = newest(&sandbox, ALPHA)?;
        assert_eq!(given_up.end, RunEnd::RolledBack, "{:?}", given_up.problem);
        assert!(given_up.step(StepId::Drain).detail.ends_with("they go on"), "{:?}", given_up.steps);
        assert!(given_up.problem.unwrap().contains("not now"));
        idle.batch_execute("COMMIT").await.unwrap();
        main_serves_on(&sandbox, writer).await
    });
}

/// Main has stopped and offers its role to a supervisor that died after it had accepted, and never heard of the offer.
async fn offered_to_a_dead_supervisor(
    sandbox: &Sandbox,
    then: impl AsyncFnOnce() -> Done<()>,
) -> Done<std::process::Output> {
    sandbox.set_environment(ALPHA, "INTERREX_BARRIER", Some("before:hand_over"));
    sandbox.start().await?;
    for node in [ALPHA, BETA] {
        sandbox.wait_healthy(node).await?;
    }
    let (said, ()) = tokio::try_join!(switch(sandbox, ALPHA, "beta", &[]), async {
        sandbox.wait_supervisor_ended(ALPHA).await?;
        sandbox.kill_supervisor(BETA);
        sandbox.set_environment(ALPHA, "INTERREX_BARRIER", None);
        sandbox.start_supervisor(ALPHA)?;
        let lost = |envelope: &interrex_events::Envelope| matches!(envelope.event, Event::PeerUnreachable(_));
        sandbox.wait_event(ALPHA, "beta does not answer", lost).await?;
        then().await
    })?;
    Ok(said)
}

#[test]
fn an_offer_that_nobody_heard_is_taken_as_soon_as_the_target_is_back() {
    run(async {
        let sandbox = two_nodes().postgres_only().threshold(2 * LIMIT).build().await?;
        let said =
            offered_to_a_dead_supervisor(&sandbox, async || sandbox.start_supervisor(BETA).map(drop)).await?;
        assert!(said.status.success(), "{said:?}");
        sound(&sandbox, BETA, sandbox.start_writer(100.0)?).await
    });
}

#[test]
fn an_offer_to_a_target_that_is_gone_is_withdrawn_on_a_persons_word_alone() {
    run(async {
        let sandbox = two_nodes().postgres_only().threshold(2 * LIMIT).build().await?;
        let config = sandbox.node(ALPHA)?.config();
        let cancel = |more: &[&str]| {
            let config = config.to_string_lossy();
            interrex_with(&[&["run", "cancel", "--config", &config], more].concat(), &[])
        };
        let said = offered_to_a_dead_supervisor(&sandbox, async || {
            let refused = cancel(&[])?;
            assert!(String::from_utf8_lossy(&refused.stderr).contains("--force --reason"), "{refused:?}");
            let withdrawn = cancel(&["--force", "--reason", "beta burned down"])?;
            assert!(withdrawn.status.success(), "{withdrawn:?}");
            Ok(())
        });
        assert_eq!(said.await?.status.code(), Some(1));
        let given_up = newest(&sandbox, ALPHA)?;
        assert_eq!((given_up.end, given_up.step(StepId::StopMain).undo), (RunEnd::Refused, Undo::Done));
        sandbox.start_supervisor(BETA)?;
        main_serves_on(&sandbox, sandbox.start_writer(100.0)?).await
    });
}

#[test]
fn an_offer_is_withdrawn_and_main_stays_stopped_where_the_target_serves() {
    run(async {
        let sandbox = two_nodes().postgres_only().threshold(2 * LIMIT).build().await?;
        sandbox.set_environment(BETA, "INTERREX_BARRIER", Some("after:promote"));
        sandbox.start().await?;
        for node in [ALPHA, BETA] {
            sandbox.wait_healthy(node).await?;
        }
        let (said, ()) = tokio::try_join!(switch(&sandbox, ALPHA, "beta", &[]), async {
            sandbox.wait_supervisor_ended(BETA).await?;
            let lost =
                |envelope: &interrex_events::Envelope| matches!(envelope.event, Event::PeerUnreachable(_));
            sandbox.wait_event(ALPHA, "beta does not answer", lost).await?;
            let config = sandbox.node(ALPHA)?.config();
            let cancel = [
                "run",
                "cancel",
                "--force",
                "--reason",
                "beta is gone",
                "--config",
                &config.to_string_lossy(),
            ];
            let withdrawn = interrex_with(&cancel, &[])?;
            assert!(withdrawn.status.success(), "{withdrawn:?}");
            Ok(())
        })?;
        assert_eq!(said.status.code(), Some(1));
        assert_eq!(newest(&sandbox, ALPHA)?.end, RunEnd::Failed);
        assert!(sandbox.takes_writes(BETA).await && !sandbox.takes_writes(ALPHA).await);
        // its supervisor ends what it began
        sandbox.set_environment(BETA, "INTERREX_BARRIER", None);
        sandbox.start_supervisor(BETA)?;
        sandbox.wait_health(BETA, "main", |report| report.role == interrex_events::Role::Main).await?;
        sandbox
            .wait_health(ALPHA, "fenced", |report| report.status == interrex_projections::NodeStatus::Fenced)
            .await?;
        assert!(sandbox.takes_writes(BETA).await && !sandbox.takes_writes(ALPHA).await);
        Ok(())
    });
}
