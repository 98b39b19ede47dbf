//! A supervisor that starts: what it may start, what stops it, and what it answers meanwhile.

use std::{os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use interrex::sandbox::{ALPHA, BETA, Done, Sandbox, SandboxError, until};
use interrex_events::{Event, NodeId, StartObstacle, StepId};
use interrex_projections::RunEnd;
use interrex_tests::run;

use crate::{rejoin, two_nodes};

/// It is recorded, and the health says it too.
async fn held_up(sandbox: &Sandbox, node: NodeId, by: StartObstacle) -> Done<String> {
    let is_it = |event: &Event| matches!(event, Event::StartHeldUp(held_up) if held_up.obstacle == by);
    let recorded = sandbox.wait_event(node, "start_held_up", |envelope| is_it(&envelope.event)).await?;
    let Event::StartHeldUp(recorded) = recorded.event else { return Ok(String::new()) };
    let told = |problem: &String| problem.starts_with(recorded.detail.split(':').next().unwrap_or_default());
    sandbox.wait_health(node, "its problem is told", |report| report.problems.iter().any(told)).await?;
    Ok(recorded.detail)
}

#[test]
fn a_serving_main_whose_supervisor_restarts_stops_while_a_peers_postgresql_takes_writes() {
    run(async {
        let sandbox = two_nodes().without_redis().build().await?;
        sandbox.start().await?;
        for node in [ALPHA, BETA] {
            sandbox.kill_supervisor(node);
        }
        sandbox.psql(BETA, "SELECT pg_promote()").await?;
        assert!(sandbox.takes_writes(ALPHA).await, "the test wants two mains to begin with");
        sandbox.start_supervisor(ALPHA)?;
        let detail = held_up(&sandbox, ALPHA, StartObstacle::Contested).await?;
        assert!(detail.contains("the PostgreSQL of beta takes writes"), "{detail}");
        until("it takes no writes", Duration::from_secs(10), || async {
            if sandbox.postmaster_pid(ALPHA).is_none() { Ok(()) } else { Err("it runs".to_owned()) }
        })
        .await?;
        assert!(sandbox.supervisor_pid(ALPHA).is_some());
        // the contest is over
        sandbox.kill_everything_of(BETA);
        sandbox.wait_healthy(ALPHA).await?;
        assert!(sandbox.takes_writes(ALPHA).await);
        Ok(())
    });
}

/// Programs of which `postgres` takes so long to fail.
fn programs_that_fail(sandbox: &Sandbox, seconds: u32) -> std::io::Result<std::path::PathBuf> {
    let folder = sandbox.folder().join("failing");
    std::fs::create_dir(&folder)?;
    for program in std::fs::read_dir(sandbox.postgres_programs())?.flatten() {
        if program.file_name() != "postgres" {
            std::os::unix::fs::symlink(program.path(), folder.join(program.file_name()))?;
        }
    }
    let postgres = folder.join("postgres");
    std::fs::write(&postgres, format!("#!/bin/sh\nexec sleep {seconds}\n"))?;
    for path in [&folder as &Path, &postgres] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(folder)
}

#[test]
fn a_main_that_is_still_starting_is_fenced_and_proves_it() {
    run(async {
        let sandbox = two_nodes().without_redis().build().await?;
        let failing = programs_that_fail(&sandbox, 8)
            .map_err(|error| SandboxError::failed("making programs that fail", error))?;
        sandbox.start().await?;
        sandbox.kill_everything_of(ALPHA);
        sandbox.set_config(ALPHA, "postgres.bin_dir", failing.to_string_lossy().as_ref())?;
        sandbox.start_supervisor(ALPHA)?;
        let run = sandbox.wait_run_ended(BETA).await?;
        assert_eq!(run.end, RunEnd::Completed, "{:?}", run.problem);
        assert!(run.step(StepId::FenceOldMain).succeeded(), "{:?}", run.step(StepId::FenceOldMain));
        let fenced = |event: &Event| matches!(event, Event::NodeFenced(_));
        sandbox.wait_event(ALPHA, "node_fenced", |envelope| fenced(&envelope.event)).await?;
        assert!(sandbox.takes_writes(BETA).await);
        Ok(())
    });
}

#[test]
fn a_secondary_whose_postgresql_does_not_start_stays_and_starts_it_once_nothing_is_in_the_way() {
    run(async {
        let sandbox = two_nodes().build().await?;
        let taken = std::net::TcpListener::bind(("127.0.0.1", sandbox.node(BETA)?.postgres_port)).unwrap();
        sandbox.start_supervisor(ALPHA)?;
        sandbox.start_supervisor(BETA)?;
        let detail = held_up(&sandbox, BETA, StartObstacle::Failed).await?;
        for message in ["PostgreSQL did not start", "postgres.log"] {
            assert!(detail.contains(message), "{detail}");
        }
        assert!(sandbox.redis(BETA, &["PING"]).await.is_ok(), "what can start is started");
        drop(taken);
        sandbox.wait_streaming(ALPHA, BETA).await?;
        sandbox.wait_healthy(BETA).await?;
        Ok(())
    });
}

#[test]
fn a_secondary_whose_directory_is_a_primarys_stays_stopped_and_comes_back_by_the_command_that_it_names() {
    run(async {
        let sandbox = two_nodes().build().await?;
        sandbox.start().await?;
        sandbox.kill_everything_of(BETA);
        std::fs::remove_file(sandbox.node(BETA)?.data_dir().join("standby.signal")).unwrap();
        sandbox.start_supervisor(BETA)?;
        // right after the start: it waits for that
        let config = sandbox.node(BETA)?.config().display().to_string();
        let answered = until("its port is there", Duration::from_secs(20), || async {
            sandbox.health(BETA).await.map(drop).map_err(|error| error.to_string())
        });
        answered.await?;
        let arguments = ["rejoin", "beta", "--config", &config].map(str::to_owned);
        let rejoined = rejoin::ask(arguments.to_vec()).await?;
        assert_eq!(rejoined.status.code(), Some(0), "{}", String::from_utf8_lossy(&rejoined.stderr));
        let detail = held_up_before(&sandbox)?;
        assert!(detail.contains("second main") && detail.contains("interrex rejoin beta"), "{detail}");
        sandbox.wait_streaming(ALPHA, BETA).await?;
        sandbox.wait_healthy(BETA).await?;
        assert!(sandbox.takes_writes(ALPHA).await && !sandbox.takes_writes(BETA).await);
        Ok(())
    });
}

fn held_up_before(sandbox: &Sandbox) -> Done<String> {
    let events = sandbox.events(BETA)?;
    let told = events.into_iter().find_map(|envelope| match envelope.event {
        Event::StartHeldUp(held_up) => Some(held_up.detail),
        _ => None,
    });
    Ok(told.unwrap_or_default())
}
