//! The doctor proves what a run needs: nothing is wrong with a healthy cluster, each thing that is broken is named, and
//! nothing is wrong again once it is mended.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use interrex::{
    doctor::Verdict,
    sandbox::{ALPHA, BETA, Done, Examined, Sandbox, until},
};
use interrex_actors::env::{Env as _, SystemEnv};
use interrex_events::NodeId;
use interrex_tests::run;
use rustix::process::Signal;

use crate::{bad_input::interrex_with, two_nodes};

const LIMIT: Duration = Duration::from_secs(30);

/// From this node exactly these checks fail, with the exit code of it.
async fn finds(sandbox: &Sandbox, from: NodeId, expected: &[(&str, Option<NodeId>)]) -> Done<()> {
    let found = until(format!("the doctor finds {expected:?}"), LIMIT, || async {
        let examined: Examined = sandbox.doctor(from).await.map_err(|error| error.to_string())?;
        if examined.wrong() == expected { Ok(examined) } else { Err(format!("{:?}", examined.wrong())) }
    })
    .await?;
    assert_eq!(found.exit, Some(8));
    Ok(())
}

#[test]
fn a_healthy_cluster_is_ready_and_whatever_is_broken_is_named_until_it_is_mended() {
    run(async {
        let sandbox = two_nodes().build().await?;
        sandbox.start().await?;
        sandbox.doctor_clean().await?;

        the_slot(&sandbox).await?;
        the_replication_password(&sandbox).await?;
        a_limit_that_is_in_force_from_the_next_start_on(&sandbox).await?;
        a_secret_that_others_can_read(&sandbox).await?;
        a_supervisor_that_is_gone(&sandbox).await?;
        a_server_that_is_gone(&sandbox).await?;

        what_would_be_lost(&sandbox).await?;
        a_server_that_is_frozen(&sandbox).await?;

        sandbox.doctor_clean().await?;
        what_people_see(&sandbox)?;
        sandbox.teardown()
    });
}

async fn use_slot(sandbox: &Sandbox, name: &str) -> Done<()> {
    sandbox.psql(BETA, &format!("ALTER SYSTEM SET primary_slot_name = '{name}'")).await?;
    sandbox.psql(BETA, "SELECT pg_reload_conf()").await.map(drop)
}

async fn the_slot(sandbox: &Sandbox) -> Done<()> {
    use_slot(sandbox, "").await?;
    until("nobody uses the slot", LIMIT, || async {
        let drop = "SELECT pg_drop_replication_slot('replica_2')";
        sandbox.psql(ALPHA, drop).await.map(drop_rows).map_err(|error| error.to_string())
    })
    .await?;
    for from in [ALPHA, BETA] {
        finds(sandbox, from, &[("slot", Some(BETA))]).await?;
    }
    sandbox.psql(ALPHA, "SELECT pg_create_physical_replication_slot('replica_2', true)").await?;
    use_slot(sandbox, "replica_2").await?;
    sandbox.doctor_clean().await
}

fn drop_rows(_: interrex::sandbox::Rows) {}

async fn the_replication_password(sandbox: &Sandbox) -> Done<()> {
    let passfile = sandbox.node(BETA)?.secrets_dir().join("replication.pgpass");
    let right = fs::read_to_string(&passfile).unwrap();
    fs::write(&passfile, "127.0.0.1:*:*:replicator:wrong\n").unwrap();
    finds(sandbox, BETA, &[("replication_login", Some(ALPHA))]).await?;
    fs::write(&passfile, right).unwrap();
    sandbox.doctor_clean().await
}

async fn a_limit_that_is_in_force_from_the_next_start_on(sandbox: &Sandbox) -> Done<()> {
    let file = sandbox.node(BETA)?.folder.join("postgresql.node.conf");
    let right = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{right}max_connections = 10\n")).unwrap();
    for from in [ALPHA, BETA] {
        finds(sandbox, from, &[("standby_limits", Some(BETA))]).await?;
    }
    fs::write(&file, format!("{right}max_connections = many\nno_such_setting = 1\n")).unwrap();
    let limits = [ALPHA, BETA].map(|node| ("standby_limits", Some(node)));
    finds(sandbox, ALPHA, &[("settings_files", Some(BETA)), limits[1], limits[0]]).await?;
    fs::write(&file, right).unwrap();
    sandbox.doctor_clean().await
}

async fn a_secret_that_others_can_read(sandbox: &Sandbox) -> Done<()> {
    let secret = sandbox.node(ALPHA)?.secrets_dir().join("cluster");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let unproved = [("cluster_secret", Some(ALPHA)), ("cluster_secret", Some(BETA))];
    finds(sandbox, ALPHA, &[("secret_files", Some(ALPHA)), unproved[0], unproved[1]]).await?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    sandbox.doctor_clean().await
}

async fn a_supervisor_that_is_gone(sandbox: &Sandbox) -> Done<()> {
    assert!(sandbox.kill_supervisor(BETA));
    for from in [ALPHA, BETA] {
        finds(sandbox, from, &[("supervisor_answers", Some(BETA)), ("supervisors_agree", None)]).await?;
    }
    sandbox.start_supervisor(BETA)?;
    sandbox.wait_healthy(BETA).await?;
    sandbox.doctor_clean().await
}

/// The supervisor does not start it again by itself, and the doctor says what it is that does not answer.
async fn a_server_that_is_gone(sandbox: &Sandbox) -> Done<()> {
    sandbox.kill_redis(BETA);
    let examined = until("the doctor misses Redis", LIMIT, || async {
        let examined = sandbox.doctor(ALPHA).await.map_err(|error| error.to_string())?;
        let wrong = examined.wrong();
        if wrong.contains(&("redis_answers", Some(BETA))) { Ok(examined) } else { Err(format!("{wrong:?}")) }
    });
    assert_eq!(examined.await?.exit, Some(8));
    sandbox.kill_supervisor(BETA);
    sandbox.start_supervisor(BETA)?;
    sandbox.wait_healthy(BETA).await.map(drop)
}

/// What works and loses something is a warning, and names it.
async fn what_would_be_lost(sandbox: &Sandbox) -> Done<()> {
    sandbox.psql(ALPHA, "CREATE UNLOGGED TABLE public.carts (id int)").await?;
    let warned = |examined: &Examined, check: &str| {
        let found =
            examined.checks.iter().find(|found| found.check == check && found.verdict == Verdict::Warn);
        found.map(|found| found.measured.clone())
    };
    let examined = sandbox.doctor(BETA).await?;
    assert_eq!(examined.exit, Some(0));
    assert_eq!(warned(&examined, "unlogged_tables").as_deref(), Some("postgres.public.carts"));
    sandbox.psql(ALPHA, "DROP TABLE public.carts").await?;
    sandbox.psql(BETA, "SELECT pg_wal_replay_pause()").await?;
    until("a paused replay is a warning", LIMIT, || async {
        let examined = sandbox.doctor(ALPHA).await.map_err(|error| error.to_string())?;
        warned(&examined, "applies_at_once").ok_or_else(|| format!("{:?}", examined.wrong()))
    })
    .await?;
    sandbox.psql(BETA, "SELECT pg_wal_replay_resume()").await?;
    sandbox.psql(ALPHA, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await?;
    sandbox.psql(ALPHA, "SELECT pg_reload_conf()").await?;
    until("a main that waits for nobody is found", LIMIT, || async {
        let examined = sandbox.doctor(ALPHA).await.map_err(|error| error.to_string())?;
        let found = examined.wrong().contains(&("synchronous_standbys", Some(ALPHA)));
        if found { Ok(()) } else { Err(format!("{:?}", examined.wrong())) }
    })
    .await?;
    sandbox.psql(ALPHA, "ALTER SYSTEM RESET synchronous_standby_names").await?;
    sandbox.psql(ALPHA, "SELECT pg_reload_conf()").await?;
    sandbox.doctor_clean().await
}

/// One that holds its port and says nothing keeps nobody waiting, and nothing of it is proved.
async fn a_server_that_is_frozen(sandbox: &Sandbox) -> Done<()> {
    assert!(sandbox.signal_postgres(BETA, Signal::STOP) > 0);
    let began = SystemEnv.moment();
    let examined = sandbox.doctor(ALPHA).await?;
    let took = SystemEnv.moment().ms_since(began);
    sandbox.signal_postgres(BETA, Signal::CONT);
    assert!(examined.wrong().contains(&("postgres_answers", Some(BETA))), "{:?}", examined.wrong());
    assert!(examined.wrong().contains(&("replication_login", Some(BETA))), "{:?}", examined.wrong());
    assert!(took < 15_000, "it took {took} ms");
    Ok(())
}

/// The text for people, and a code that counts the standing warning where somebody is strict.
fn what_people_see(sandbox: &Sandbox) -> Done<()> {
    let config = sandbox.node(BETA)?.config();
    let config = config.to_string_lossy();
    let output = interrex_with(&["doctor", "--config", &config], &[])?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for message in
        ["a failover to beta", "unprotected: with quorum none", "replicator logs in to alpha", " 0 failed"]
    {
        assert!(text.contains(message), "`{message}` is not in:\n{text}");
    }
    let strict = interrex_with(&["doctor", "--strict", "--config", &config], &[])?;
    assert_eq!(strict.status.code(), Some(8), "quorum none warns");
    Ok(())
}
