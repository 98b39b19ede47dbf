//! What a supervisor gives its servers of its own, and how it stops them when it ends.

use std::{
    collections::BTreeSet, fs, os::unix::fs::MetadataExt as _, path::Path, process::Command, time::Duration,
};

use interrex::sandbox::{ALPHA, Done, Sandbox, until};
use interrex_events::Event;
use interrex_tests::run;
use rustix::process::{Signal, geteuid};

use crate::two_nodes;

const LIMIT: Duration = Duration::from_secs(30);

async fn one_node(builder: interrex::sandbox::Builder) -> Done<Sandbox> {
    let sandbox = builder.nodes(1).build().await?;
    sandbox.set_config(ALPHA, "node.on_exit", "stop")?;
    Ok(sandbox)
}

/// The reason in the last event of a supervisor.
fn last_message(sandbox: &Sandbox) -> Done<String> {
    let events = sandbox.events(ALPHA)?;
    let mut reasons = events.iter().filter_map(|envelope| match &envelope.event {
        Event::SupervisorStopped(stopped) => Some(stopped.reason.clone()),
        _ => None,
    });
    Ok(reasons.next_back().unwrap_or_default())
}

#[test]
fn a_server_has_its_users_groups_and_nothing_of_its_supervisors_and_is_given_time_to_stop() {
    run(async {
        let sandbox = one_node(two_nodes().postgres_only()).await?;
        for (name, value) in [("NOTIFY_SOCKET", "/run/none"), ("WATCHDOG_USEC", "1"), ("LISTEN_FDS", "1")] {
            sandbox.set_environment(ALPHA, name, Some(value));
        }
        let settings = sandbox.node(ALPHA)?.folder.join("postgresql.node.conf");
        let slow =
            fs::read_to_string(&settings).unwrap() + "archive_mode = on\narchive_command = 'sleep 4'\n";
        fs::write(&settings, slow).unwrap();
        sandbox.start().await?;
        sandbox.wait_healthy(ALPHA).await?;
        sandbox.psql(ALPHA, "CREATE TABLE said (line text)").await?;
        sandbox.psql(ALPHA, "COPY said FROM PROGRAM 'env; echo groups=$(id -G)'").await?;
        let said = sandbox.psql_value(ALPHA, "SELECT string_agg(line, E'\\n') FROM said").await?;
        for own in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "PGPASSWORD"] {
            assert!(!said.contains(own), "{own}: {said}");
        }
        assert!(said.contains("PG_OOM_ADJUST_FILE=/proc/self/oom_score_adj"), "{said}");
        let owner = fs::metadata(sandbox.node(ALPHA)?.data_dir()).unwrap().uid().to_string();
        let whose = if geteuid().is_root() { vec!["-G", owner.as_str()] } else { vec!["-G"] };
        let listed = String::from_utf8(Command::new("id").args(whose).output().unwrap().stdout).unwrap();
        let groups = |line: &str| -> BTreeSet<u32> {
            line.split_whitespace().map(|group| group.parse().unwrap()).collect()
        };
        let own = said.lines().find_map(|line| line.strip_prefix("groups=")).unwrap();
        assert_eq!(groups(own), groups(&listed));

        // who asks twice does not wait, and PostgreSQL goes on stopping in good order
        assert!(sandbox.signal_supervisor(ALPHA, Signal::TERM));
        let pid_file = sandbox.node(ALPHA)?.data_dir().join("postmaster.pid");
        let is_stopping = |file: &Path| fs::read_to_string(file).is_ok_and(|told| told.contains("stopping"));
        until("PostgreSQL is stopping", LIMIT, async || match is_stopping(&pid_file) {
            true => Ok(()),
            false => Err("it is not".to_owned()),
        })
        .await?;
        assert!(sandbox.signal_supervisor(ALPHA, Signal::TERM));
        assert_eq!(sandbox.wait_supervisor_ended(ALPHA).await?.code(), Some(1));
        assert!(last_message(&sandbox)?.contains("asked to by SIGTERM again"), "{}", last_message(&sandbox)?);
        until("PostgreSQL has stopped", LIMIT, async || match sandbox.postmaster_pid(ALPHA) {
            None => Ok(()),
            Some(pid) => Err(pid.to_string()),
        })
        .await?;
        let log = fs::read_to_string(sandbox.node(ALPHA)?.postgres_log()).unwrap();
        assert!(log.trim_end().ends_with("database system is shut down"), "{log}");

        // one that has no time left is forced, which is no good end
        sandbox.set_config(ALPHA, "postgres.stop_timeout", "500ms")?;
        sandbox.start_supervisor(ALPHA)?;
        sandbox.wait_healthy(ALPHA).await?;
        sandbox.psql(ALPHA, "CREATE TABLE more (id int)").await?;
        assert!(sandbox.signal_supervisor(ALPHA, Signal::TERM));
        assert_eq!(sandbox.wait_supervisor_ended(ALPHA).await?.code(), Some(1));
        let message = last_message(&sandbox)?;
        assert!(message.contains("a clean stop did not end within 500ms: it still had"), "{message}");
        assert!(message.contains("archiver"), "{message}");
        Ok(())
    });
}

#[test]
fn a_dependent_outlives_the_journal_that_knew_it_and_a_second_one_is_not_started() {
    run(async {
        let sandbox = one_node(Sandbox::builder(interrex_tests::interrex()).without_redis()).await?;
        sandbox.start().await?;
        sandbox.wait_radius(ALPHA).await?;
        let radius = |sandbox: &Sandbox| {
            let all = sandbox.processes_of(ALPHA).unwrap();
            all.into_iter().filter(|(_, name)| name == "freeradius").map(|(pid, _)| pid).collect::<Vec<_>>()
        };
        let before = radius(&sandbox);
        assert_eq!(before.len(), 1, "{before:?}");
        assert!(sandbox.kill_supervisor(ALPHA));
        let moved = sandbox.node(ALPHA)?.folder.join("moved");
        fs::create_dir(&moved).unwrap();
        sandbox.set_config(ALPHA, "node.journal", moved.join("journal.db").display().to_string())?;
        sandbox.start_supervisor(ALPHA)?;
        let report = sandbox.wait_healthy(ALPHA).await?;
        assert_eq!(radius(&sandbox), before, "{report:?}");
        // and it is stopped by the supervisor that found it
        assert!(sandbox.signal_supervisor(ALPHA, Signal::TERM));
        assert_eq!(sandbox.wait_supervisor_ended(ALPHA).await?.code(), Some(0));
        assert_eq!(radius(&sandbox), Vec::<i32>::new());
        Ok(())
    });
}
