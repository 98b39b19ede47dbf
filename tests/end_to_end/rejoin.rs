//! An old main comes back as a secondary: what only it had is found and kept, and nothing else changes.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::Output,
    time::Duration,
};

use interrex::sandbox::{ALPHA, BETA, Done, Sandbox, SandboxError, Writer, until};
use interrex_actors::{
    env::{Env as _, SystemEnv},
    wire::NodeReport,
};
use interrex_adapters::runtime::RunAs;
use interrex_events::{Demotion, Event, NodeId, PostgresStatus, RedisStatus, RunKind, StepId};
use interrex_projections::{NodeStatus, Run, RunEnd};
use interrex_tests::run;
use serde_json::{Value, json};

use crate::{
    bad_input::interrex_with,
    checks::has_its_own_tables,
    fork_report::{ONLY_THERE, SHARED, told_before_anything_was_rewound, told_in_the_timeline},
    hostile::Planted,
    two_nodes,
};

pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Asks a program, beside what the test does.
pub(crate) async fn ask(arguments: Vec<String>) -> Done<Output> {
    let asked = move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        interrex_with(&arguments, &[])
    };
    tokio::task::spawn_blocking(asked).await.unwrap()
}

/// Runs `interrex rejoin` for alpha, on a node, to its end.
pub(crate) async fn rejoin(sandbox: &Sandbox, on: NodeId, more: &[&str]) -> Done<Output> {
    let config = sandbox.node(on)?.config().display().to_string();
    let arguments = [&["rejoin", "alpha", "--config", &config], more].concat();
    ask(arguments.into_iter().map(str::to_owned).collect()).await
}

/// The newest run that a node made.
pub(crate) fn newest(sandbox: &Sandbox, node: NodeId) -> Done<Run> {
    let runs = sandbox.cluster(node)?.runs;
    let newest = runs.runs.into_values().rev().find(|run| run.node == node);
    newest.ok_or_else(|| SandboxError::failed("looking for its newest run", "there is none"))
}

/// Once it has ended.
async fn ended(sandbox: &Sandbox, node: NodeId) -> Done<Run> {
    until("its run has ended", LIMIT, || async {
        let run = newest(sandbox, node).map_err(|error| error.to_string())?;
        let is_rejoin = run.kind == RunKind::Rejoin;
        if run.is_running() || !is_rejoin { Err(format!("{:?}", run.steps)) } else { Ok(run) }
    })
    .await
}

/// Main died with rows that its standby had not received, and the standby is main. Nobody runs on alpha.
pub(crate) async fn parted(sandbox: &Sandbox) -> Done<Writer> {
    parted_with(sandbox, &[], &[]).await
}

/// The same; some of what main was told arrived in time, and some only main has, beside what the writer wrote.
async fn parted_with(sandbox: &Sandbox, shared: &[&str], only_there: &[&str]) -> Done<Writer> {
    sandbox.start().await?;
    for node in [ALPHA, BETA] {
        sandbox.wait_healthy(node).await?;
    }
    has_its_own_tables(sandbox, ALPHA).await?;
    let writer = sandbox.start_writer(200.0)?;
    writer.wait_acknowledged(20, LIMIT).await?;
    for sql in shared {
        sandbox.psql(ALPHA, sql).await?;
    }
    if !shared.is_empty() {
        Planted::in_every_database(sandbox).await?;
    }
    let written = sandbox.psql_value(ALPHA, "SELECT pg_current_wal_flush_lsn()").await?;
    until("it has arrived", LIMIT, || async {
        let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'");
        match sandbox.psql_value(BETA, &replayed).await {
            Ok(answer) if answer == "t" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    sandbox.psql(BETA, "ALTER SYSTEM SET primary_conninfo = ''").await?;
    sandbox.psql(BETA, "SELECT pg_reload_conf()").await?;
    until("the receiver is gone", LIMIT, || async {
        match sandbox.psql_value(BETA, "SELECT count(*) FROM pg_stat_wal_receiver").await {
            Ok(count) if count == "0" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    for sql in only_there {
        sandbox.psql(ALPHA, sql).await?;
    }
    writer.wait_acknowledged(writer.count() + 20, LIMIT).await?;
    let killed = sandbox.kill_everything_of(ALPHA);
    sandbox.wait_run_ended(BETA).await?;
    writer.wait_ack_by(sandbox.node(BETA)?.postgres_port, killed, LIMIT).await?;
    Ok(writer)
}

pub(crate) async fn back_and_fenced(sandbox: &Sandbox) -> Done<()> {
    sandbox.start_supervisor(ALPHA)?;
    sandbox.wait_health(ALPHA, "fenced", |report| report.status == NodeStatus::Fenced).await.map(drop)
}

/// Alpha follows beta with all it has, and beta serves.
pub(crate) async fn follows(sandbox: &Sandbox, writer: &Writer) -> Done<()> {
    sandbox.wait_streaming(BETA, ALPHA).await?;
    for node in [ALPHA, BETA] {
        sandbox.wait_healthy(node).await?;
    }
    assert!(sandbox.takes_writes(BETA).await && !sandbox.takes_writes(ALPHA).await);
    let port = "SELECT current_setting('port')";
    assert_eq!(sandbox.psql_value(ALPHA, port).await?, sandbox.node(ALPHA)?.postgres_port.to_string());
    writer.wait_ack_by(sandbox.node(BETA)?.postgres_port, SystemEnv.moment(), LIMIT).await?;
    let rows = sandbox.psql_value(BETA, "SELECT count(*) FROM written").await?;
    until("the rows arrive", LIMIT, || async {
        let here = sandbox.psql_value(ALPHA, &format!("SELECT count(*) >= {rows} FROM written")).await;
        if here.as_deref().is_ok_and(|all| all == "t") { Ok(()) } else { Err(format!("{here:?}")) }
    })
    .await?;
    sandbox.doctor_clean().await
}

/// The ids of rows that were saved from what is kept.
pub(crate) async fn salvaged(sandbox: &Sandbox, kept: &str) -> Done<BTreeSet<i64>> {
    let (config, output) = (sandbox.node(ALPHA)?.config(), sandbox.folder().join("stranded"));
    if output.exists() {
        fs::remove_dir_all(&output).unwrap();
    }
    let arguments = [
        "salvage",
        "--kept",
        &format!("{kept}/pgdata"),
        "--output",
        &output.display().to_string(),
        "--main",
        &format!("127.0.0.1:{}", sandbox.node(BETA)?.postgres_port),
        "--table",
        "written",
        "--config",
        &config.display().to_string(),
    ];
    let said = ask(arguments.into_iter().map(str::to_owned).collect()).await?;
    assert!(said.status.success(), "{said:?}");
    let csv = fs::read_dir(&output).unwrap().map(|entry| entry.unwrap().path());
    let csv = csv.into_iter().find(|path| path.to_string_lossy().ends_with(".inserts.csv"));
    let text = fs::read_to_string(csv.unwrap()).unwrap();
    Ok(text.lines().skip(1).map(|line| line.split(',').next().unwrap().parse().unwrap()).collect())
}

/// What the last salvage says of the kept files.
pub(crate) fn checked(sandbox: &Sandbox) -> Value {
    let summary = fs::read(sandbox.folder().join("stranded/summary.json")).unwrap();
    serde_json::from_slice::<Value>(&summary).unwrap()["checked"].take()
}

/// How many transactions only a kept copy has, as its manifest says.
fn stranded_in(kept: &str) -> Option<u64> {
    let manifest = fs::read(Path::new(kept).join("manifest.json")).unwrap();
    serde_json::from_slice::<Value>(&manifest).unwrap()["stranded"].as_u64()
}

/// What was saved is what clients were told and lost; and at most the one that was committed when nobody could be told
/// any more.
pub(crate) fn is_all_of_it(saved: &BTreeSet<i64>, lost: &BTreeSet<i64>) {
    let untold: Vec<i64> = saved.difference(lost).copied().collect();
    assert!(!lost.is_empty() && lost.is_subset(saved), "{lost:?} of {saved:?}");
    assert!(untold.len() <= 1 && untold.iter().all(|id| Some(id) > lost.last()), "{untold:?} of {saved:?}");
}

#[test]
fn it_is_rewound_and_what_only_it_had_is_exactly_what_is_saved() {
    run(async {
        let sandbox = two_nodes().build().await?;
        let writer = parted_with(&sandbox, &SHARED, &ONLY_THERE).await?;
        back_and_fenced(&sandbox).await?;
        let planned = rejoin(&sandbox, BETA, &["--dry-run"]).await?;
        let message = String::from_utf8_lossy(&planned.stdout).into_owned();
        assert!(planned.status.success() && message.contains("can be rewound"), "{planned:?}");
        // asked for on the other node
        let said = rejoin(&sandbox, BETA, &["--reason", "its power is back"]).await?;
        let message =
            String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
        assert!(said.status.success(), "{message}");
        assert!(
            message.contains("interrex salvage --kept")
                && message.contains("14 in app.orders, 3 in app.items"),
            "{message}"
        );
        let rows = told_before_anything_was_rewound(&sandbox)?;
        until("the story tells it", LIMIT, || told_in_the_timeline(&sandbox)).await?;
        follows(&sandbox, &writer).await?;
        let acknowledged = writer.stop();
        let lost: BTreeSet<i64> = sandbox.rows_lost(&acknowledged, BETA).await?.into_iter().collect();
        let made = newest(&sandbox, ALPHA)?;
        assert_eq!(made.end, RunEnd::Completed, "{message}");
        let found = made.rejoin.unwrap();
        assert_eq!(found.by, Some(Demotion::Rewound));
        assert!(!lost.is_empty() && found.stranded.unwrap().committed >= lost.len() as u64, "{message}");
        let saved = salvaged(&sandbox, &found.kept.unwrap()).await?;
        is_all_of_it(&saved, &lost);
        Planted::before(&sandbox)?.took_in_no_session(&sandbox, BETA).await?;
        // one may have been written before the two parted, and committed after
        assert!(rows <= saved.len() as u64 && rows + 1 >= saved.len() as u64, "{rows} of {saved:?}");
        let redis = sandbox.node(ALPHA)?.redis_dir().with_extension("kept");
        let redis = fs::read_dir(redis).unwrap().next().unwrap().unwrap().path();
        assert!(redis.join("appendonlydir").is_dir());
        // nothing to do any more
        let again = rejoin(&sandbox, ALPHA, &[]).await?;
        assert!(String::from_utf8_lossy(&again.stderr).contains("streams from beta already"), "{again:?}");
        Ok(())
    });
}

#[test]
fn what_redis_has_is_kept_before_it_follows_however_late_that_is_possible() {
    run(async {
        let sandbox = two_nodes().build().await?;
        let writer = parted(&sandbox).await?;
        back_and_fenced(&sandbox).await?;
        let data = sandbox.node(ALPHA)?.redis_dir();
        let mode = |mode| fs::Permissions::from_mode(mode);
        // Redis itself does not need it, and its owner may not read it
        let unreadable = data.join("older.rdb");
        fs::write(&unreadable, "what only alpha has").unwrap();
        fs::set_permissions(&unreadable, mode(0o000)).unwrap();
        let _ = rejoin(&sandbox, ALPHA, &[]).await?;
        let made = ended(&sandbox, ALPHA).await?;
        assert_eq!(made.end, RunEnd::CompletedDegraded);
        let why = &made.step(StepId::FollowRedis).detail;
        assert!(why.contains("older.rdb"), "{why}");
        let restarted = async |redis: RedisStatus| {
            assert!(sandbox.kill_supervisor(ALPHA));
            sandbox.start_supervisor(ALPHA)?;
            let is = |report: &NodeReport| report.redis.status == redis;
            sandbox.wait_health(ALPHA, &format!("Redis {redis:?}"), is).await.map(drop)
        };
        restarted(RedisStatus::Stopped).await?;

        fs::set_permissions(&unreadable, mode(0o644)).unwrap();
        restarted(RedisStatus::Linked).await?;
        let kept = data.with_extension("kept");
        let kept = fs::read_dir(kept).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
        let [kept] = &kept[..] else { panic!("{kept:?}") };
        assert_eq!(fs::read_to_string(kept.join("older.rdb")).unwrap(), "what only alpha has");
        assert!(kept.join("appendonlydir").is_dir());
        follows(&sandbox, &writer).await
    });
}

#[test]
fn it_is_copied_anew_when_that_is_asked_for_and_the_old_directory_is_kept() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        let writer = parted(&sandbox).await?;
        back_and_fenced(&sandbox).await?;
        let said = rejoin(&sandbox, ALPHA, &["--copy"]).await?;
        assert!(said.status.success(), "{said:?}");
        follows(&sandbox, &writer).await?;
        let acknowledged = writer.stop();
        let lost: BTreeSet<i64> = sandbox.rows_lost(&acknowledged, BETA).await?.into_iter().collect();
        let found = newest(&sandbox, ALPHA)?.rejoin.unwrap();
        assert_eq!(found.by, Some(Demotion::Copied));
        let kept = found.kept.unwrap();
        is_all_of_it(&salvaged(&sandbox, &kept).await?, &lost);
        assert!(stranded_in(&kept) >= Some(lost.len() as u64));

        // as a supervisor leaves it that is killed between the two renames
        sandbox.kill_everything_of(ALPHA);
        let data_dir = sandbox.node(ALPHA)?.data_dir();
        fs::rename(&data_dir, data_dir.with_extension("incoming")).unwrap();
        fs::write(data_dir.with_extension("incoming-complete"), "").unwrap();
        sandbox.start_supervisor(ALPHA)?;
        sandbox.wait_streaming(BETA, ALPHA).await
    });
}

#[test]
fn it_is_archived_on_another_volume_before_a_copy_takes_its_place() {
    run(async {
        let other_volume = Path::new("/dev/shm");
        let sandbox = two_nodes().postgres_only().build().await?;
        let volume = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
        if volume(other_volume).is_none() || volume(other_volume) == volume(sandbox.folder()) {
            eprintln!("left out: there is no second volume here");
            return Ok(());
        }
        let other_volume = tempfile::tempdir_in(other_volume).unwrap();
        fs::set_permissions(other_volume.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let keep_in = other_volume.path().join("kept").display().to_string();
        sandbox.set_config(ALPHA, "rejoin.keep_in", keep_in.as_str())?;
        let writer = parted(&sandbox).await?;
        back_and_fenced(&sandbox).await?;
        let said = rejoin(&sandbox, ALPHA, &["--copy"]).await?;
        assert!(said.status.success(), "{said:?}");
        follows(&sandbox, &writer).await?;
        let acknowledged = writer.stop();
        let lost: BTreeSet<i64> = sandbox.rows_lost(&acknowledged, BETA).await?.into_iter().collect();
        let kept = newest(&sandbox, ALPHA)?.rejoin.unwrap().kept.unwrap();
        assert!(kept.starts_with(&keep_in), "{kept}");
        is_all_of_it(&salvaged(&sandbox, &kept).await?, &lost);
        let beside = sandbox.node(ALPHA)?.data_dir().with_extension("replaced");
        assert_eq!(fs::read_dir(beside).unwrap().count(), 0, "it is kept once");

        // years later
        let sound = checked(&sandbox);
        assert!(sound["sound"].as_u64() > Some(900) && sound["damaged"] == json!([]), "{sound}");
        let rotten = Path::new(&kept).join("pgdata/pg_ident.conf");
        fs::write(&rotten, "").unwrap();
        is_all_of_it(&salvaged(&sandbox, &kept).await?, &lost);
        assert_eq!(checked(&sandbox)["damaged"], json!([rotten]));
        Ok(())
    });
}

/// As if alpha had been away for so long that its slot was given up.
async fn main_removes_log(sandbox: &Sandbox) -> Done<()> {
    let slot = "SELECT pg_drop_replication_slot('replica_1')";
    for statement in [slot, "SELECT pg_switch_wal()", "CHECKPOINT"] {
        sandbox.psql(BETA, statement).await?;
    }
    Ok(())
}

#[test]
fn a_copy_that_took_the_place_before_a_supervisor_died_is_told_as_one() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        let writer = parted(&sandbox).await?;
        main_removes_log(&sandbox).await?;
        let made = rejoin_in_which_alpha_dies(&sandbox, "after:rebuild").await?;
        assert_eq!(made.rejoin.clone().unwrap().by, Some(Demotion::Copied));
        let kept = made.step(StepId::Rebuild).observed["kept"].as_str().unwrap().to_owned();
        assert!(Path::new(&kept).join("pgdata/PG_VERSION").is_file(), "{kept}");
        follows(&sandbox, &writer).await
    });
}

#[test]
fn it_is_copied_anew_when_main_has_removed_the_log_that_it_would_need_after_a_rewind() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        let writer = parted(&sandbox).await?;
        main_removes_log(&sandbox).await?;
        back_and_fenced(&sandbox).await?;
        let said = rejoin(&sandbox, ALPHA, &[]).await?;
        assert!(said.status.success(), "{said:?}");
        follows(&sandbox, &writer).await?;
        let acknowledged = writer.stop();
        let lost: BTreeSet<i64> = sandbox.rows_lost(&acknowledged, BETA).await?.into_iter().collect();
        let made = newest(&sandbox, ALPHA)?;
        let rebuilt = made.step(StepId::Rebuild).detail;
        assert!(rebuilt.contains("no longer here or on main"), "{rebuilt}");
        assert_eq!(made.rejoin.clone().unwrap().by, Some(Demotion::Copied));
        let kept_by = |step| made.step(step).observed["kept"].as_str().unwrap().to_owned();
        let (kept, replaced) = (kept_by(StepId::KeepDiverged), kept_by(StepId::Rebuild));
        is_all_of_it(&salvaged(&sandbox, &kept).await?, &lost);
        assert!(stranded_in(&kept) >= Some(lost.len() as u64));
        assert_eq!(stranded_in(&replaced), Some(0), "it was rewound before");
        Ok(())
    });
}

#[test]
fn it_comes_back_by_itself_where_that_is_configured() {
    run(async {
        let sandbox = two_nodes().build().await?;
        sandbox.set_config(ALPHA, "rejoin.automatic", true)?;
        let writer = parted(&sandbox).await?;
        sandbox.start_supervisor(ALPHA)?;
        assert_eq!(ended(&sandbox, ALPHA).await?.end, RunEnd::Completed);
        follows(&sandbox, &writer).await
    });
}

#[test]
fn a_directory_of_another_cluster_is_left_alone_unless_it_is_to_be_replaced() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        let writer = parted(&sandbox).await?;
        let data_dir = sandbox.node(ALPHA)?.data_dir();
        let run_as = RunAs::resolve(None, &data_dir).unwrap();
        fs::rename(&data_dir, data_dir.with_extension("away")).unwrap();
        fs::create_dir(&data_dir).unwrap();
        if let RunAs::User { uid, gid } = run_as {
            std::os::unix::fs::chown(&data_dir, Some(uid), Some(gid)).unwrap();
        }
        let mut initdb = run_as.command(sandbox.postgres_programs().join("initdb"));
        let made = initdb.arg("-D").arg(&data_dir).output().await.unwrap();
        assert!(made.status.success(), "{made:?}");
        for file in ["postgresql.conf", "postgresql.auto.conf", "pg_hba.conf"] {
            // into the file that is there, whose owner stays
            let text = fs::read(data_dir.with_extension("away").join(file)).unwrap();
            fs::write(data_dir.join(file), text).unwrap();
        }
        let identity = || fs::read(data_dir.join("global/pg_control")).unwrap();
        let before = identity();
        back_and_fenced(&sandbox).await?;
        let planned = rejoin(&sandbox, ALPHA, &["--dry-run"]).await?;
        assert_eq!(planned.status.code(), Some(1), "{planned:?}");
        let refused = rejoin(&sandbox, ALPHA, &[]).await?;
        assert_eq!(refused.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&refused.stdout).contains("another cluster"), "{refused:?}");
        assert_eq!((newest(&sandbox, ALPHA)?.end, identity()), (RunEnd::Refused, before));
        let report =
            sandbox.wait_health(ALPHA, "fenced", |report| report.status == NodeStatus::Fenced).await?;
        assert_eq!(report.main, Some(BETA));
        let replaced = rejoin(&sandbox, ALPHA, &["--copy"]).await?;
        assert!(replaced.status.success(), "{replaced:?}");
        let kept = newest(&sandbox, ALPHA)?.rejoin.unwrap().kept.unwrap();
        assert!(Path::new(&kept).join("pgdata/PG_VERSION").is_file());
        follows(&sandbox, &writer).await
    });
}

#[test]
fn what_a_server_took_that_somebody_started_meanwhile_is_not_rewound_away() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        let writer = parted(&sandbox).await?;
        sandbox.set_environment(ALPHA, "INTERREX_BARRIER", Some("before:rebuild"));
        back_and_fenced(&sandbox).await?;
        let (_, ()) = tokio::try_join!(rejoin(&sandbox, BETA, &[]), async {
            sandbox.wait_supervisor_ended(ALPHA).await?;
            // what there was has been kept by now
            sandbox.start_postgres(ALPHA).await?;
            sandbox.psql(ALPHA, "INSERT INTO written (id) VALUES (9000000)").await?;
            sandbox.set_environment(ALPHA, "INTERREX_BARRIER", None);
            sandbox.start_supervisor(ALPHA).map(drop)
        })?;
        let made = ended(&sandbox, ALPHA).await?;
        assert_eq!(made.end, RunEnd::NeedsOperator);
        assert!(made.problem.as_ref().unwrap().contains("PostgreSQL was started meanwhile"), "{made:?}");
        sandbox.wait_health(ALPHA, "fenced", |report| report.status == NodeStatus::Fenced).await?;
        assert!(!sandbox.takes_writes(ALPHA).await);
        let again = rejoin(&sandbox, ALPHA, &[]).await?;
        assert!(again.status.success(), "{again:?}");
        follows(&sandbox, &writer).await?;
        let kept = newest(&sandbox, ALPHA)?.rejoin.unwrap().kept.unwrap();
        assert!(salvaged(&sandbox, &kept).await?.contains(&9_000_000));
        Ok(())
    });
}

/// A standby that follows is copied anew, and its supervisor dies on the way.
fn standby_dies_at(barrier: &'static str) {
    run(async move {
        let sandbox = two_nodes().postgres_only().build().await?;
        sandbox.set_environment(BETA, "INTERREX_BARRIER", Some(barrier));
        sandbox.start().await?;
        for node in [ALPHA, BETA] {
            sandbox.wait_healthy(node).await?;
        }
        let writer = sandbox.start_writer(100.0)?;
        let config = sandbox.node(ALPHA)?.config().display().to_string();
        let arguments = ["rejoin", "beta", "--copy", "--config", &config].map(str::to_owned);
        let (_, ()) = tokio::try_join!(ask(arguments.into()), async {
            sandbox.wait_supervisor_ended(BETA).await?;
            sandbox.set_environment(BETA, "INTERREX_BARRIER", None);
            sandbox.start_supervisor(BETA).map(drop)
        })?;
        let made = ended(&sandbox, BETA).await?;
        assert_eq!((made.end, made.resumed), (RunEnd::Completed, 1), "{:?}", made.problem);
        assert_eq!(stranded_in(&made.rejoin.unwrap().kept.unwrap()), Some(0));
        sandbox.wait_streaming(ALPHA, BETA).await?;
        sandbox.wait_healthy(BETA).await?;
        let acknowledged = writer.stop();
        assert_eq!(sandbox.rows_lost(&acknowledged, ALPHA).await?, Vec::<i64>::new());
        assert!(!sandbox.takes_writes(BETA).await);
        Ok(())
    });
}

#[test]
fn a_standby_that_is_copied_anew_goes_on_although_its_supervisor_died_before_the_copy() {
    standby_dies_at("before:rebuild");
}

#[test]
fn a_standby_that_is_copied_anew_goes_on_although_its_supervisor_died_after_the_copy() {
    standby_dies_at("after:rebuild");
}

/// Alpha's supervisor dies at a step, and its successor brings the rejoin to its end.
async fn rejoin_in_which_alpha_dies(sandbox: &Sandbox, barrier: &str) -> Done<Run> {
    sandbox.set_environment(ALPHA, "INTERREX_BARRIER", Some(barrier));
    back_and_fenced(sandbox).await?;
    let (_, ()) = tokio::try_join!(rejoin(sandbox, BETA, &[]), async {
        let end = sandbox.wait_supervisor_ended(ALPHA).await?;
        let signal = std::os::unix::process::ExitStatusExt::signal(&end);
        assert_eq!(signal, Some(9), "it ended by itself: {end}");
        sandbox.set_environment(ALPHA, "INTERREX_BARRIER", None);
        sandbox.start_supervisor(ALPHA).map(drop)
    })?;
    let made = ended(sandbox, ALPHA).await?;
    assert_eq!((made.end, made.resumed), (RunEnd::Completed, 1), "{:?}", made.problem);
    Ok(made)
}

fn dies_at(barrier: &'static str) {
    run(async move {
        let sandbox = two_nodes().build().await?;
        let writer = parted(&sandbox).await?;
        let made = rejoin_in_which_alpha_dies(&sandbox, barrier).await?;
        let served =
            sandbox.events(ALPHA)?.into_iter().skip_while(|it| !matches!(it.event, Event::RejoinStarted(_)));
        let serves = |event: &Event| match event {
            Event::PostgresChanged(it) => it.status == PostgresStatus::Primary,
            Event::RedisChanged(it) => it.status == RedisStatus::Master,
            _ => false,
        };
        assert_eq!(served.filter(|envelope| serves(&envelope.event)).count(), 0);
        follows(&sandbox, &writer).await?;
        let acknowledged = writer.stop();
        let lost: BTreeSet<i64> = sandbox.rows_lost(&acknowledged, BETA).await?.into_iter().collect();
        let kept = made.step(StepId::KeepDiverged).observed["kept"].as_str().unwrap().to_owned();
        is_all_of_it(&salvaged(&sandbox, &kept).await?, &lost);
        Ok(())
    });
}

macro_rules! dies {
    ($($step:ident),+ $(,)?) => {
        mod its_supervisor_dies_before_the_effect {
            $( #[test] fn $step() { super::dies_at(concat!("before:", stringify!($step))); } )+
        }
        mod its_supervisor_dies_after_the_effect {
            $( #[test] fn $step() { super::dies_at(concat!("after:", stringify!($step))); } )+
        }
    };
}

dies!(
    check_lineage,
    reserve_slot,
    report_fork,
    keep_diverged,
    rebuild,
    become_standby,
    follow_redis,
    restart_dependents,
);
