//! What would stop a rejoin, or leaves it one way alone, is told before anything is rewritten: what, where, and what to do.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::SystemTime,
};

use interrex::sandbox::{ALPHA, BETA, Done, Sandbox, until};
use interrex_events::{Demotion, StepId};
use interrex_projections::{RunEnd, StepState};
use interrex_tests::run;

use crate::{
    dry_run::return_planned,
    rejoin::{LIMIT, back_and_fenced, follows, newest, parted, rejoin},
    two_nodes,
};

/// Sizes and times, by path.
type Files = BTreeMap<PathBuf, (u64, SystemTime)>;

/// Sizes and times of all files of alpha's PostgreSQL, and of what lies beside them.
fn files(sandbox: &Sandbox) -> Done<Files> {
    let data_dir = sandbox.node(ALPHA)?.data_dir();
    let mut folders: Vec<PathBuf> = in_folder(data_dir.parent().unwrap())
        .filter(|path| path.to_string_lossy().starts_with(&*data_dir.to_string_lossy()))
        .collect();
    let mut files = BTreeMap::new();
    while let Some(path) = folders.pop() {
        let metadata = fs::metadata(&path).unwrap();
        if metadata.is_dir() {
            folders.extend(in_folder(&path));
        }
        files.insert(path, (metadata.len(), metadata.modified().unwrap()));
    }
    Ok(files)
}

fn in_folder(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path())
}

/// Told by a dry run as the only thing that stops it, and by the run itself at its first step; nothing of alpha's is changed.
async fn stops(sandbox: &Sandbox, subject: &str, parts: &[&str]) -> Done<()> {
    let before = files(sandbox)?;
    let address = format!("127.0.0.1:{}", sandbox.node(BETA)?.postgres_port);
    let says_it = |said: &str| {
        assert!(parts.iter().all(|part| said.contains(part)), "{parts:?}: {said}");
        assert!(said.contains("beta") || said.contains(&address), "where: {said}");
    };
    let (code, plan) = return_planned(sandbox, &[]).await?;
    let reasons: Vec<_> = plan.stopped_by().collect();
    assert_eq!(reasons.len(), 1, "{plan:?}");
    let only = reasons[0];
    assert_eq!((code, plan.would_begin, only.subject.as_str()), (Some(1), false, subject), "{only:?}");
    says_it(&only.detail);

    let said = rejoin(sandbox, BETA, &[]).await?;
    assert!(!said.status.success(), "{said:?}");
    says_it(&(String::from_utf8_lossy(&said.stdout) + String::from_utf8_lossy(&said.stderr)));
    let made = newest(sandbox, ALPHA)?;
    assert_eq!(made.end, RunEnd::RolledBack, "{:?}", made.problem);
    says_it(&made.step(StepId::CheckLineage).detail);
    assert!(matches!(made.step(StepId::ReportFork).state, StepState::Pending), "{:?}", made.steps);
    assert_eq!(changed(&before, &files(sandbox)?), Vec::<&PathBuf>::new());
    Ok(())
}

/// Files that are not as they were, or are there no more, or only now.
fn changed<'f>(before: &'f Files, now: &'f Files) -> Vec<&'f PathBuf> {
    before.keys().chain(now.keys()).filter(|path| before.get(*path) != now.get(*path)).collect()
}

/// Until somebody uses alpha's slot on beta, or nobody.
pub(crate) async fn slot_is_active(sandbox: &Sandbox, active: &str) -> Done<()> {
    let sql = "SELECT active FROM pg_replication_slots WHERE slot_name = 'replica_1'";
    until("the slot is used, or free", LIMIT, || async {
        match sandbox.psql_value(BETA, sql).await {
            Ok(found) if found == active => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// Somebody who archives beta's log through alpha's slot.
pub(crate) fn archiver(sandbox: &Sandbox) -> Done<tokio::process::Child> {
    let into = sandbox.folder().join("archive");
    fs::create_dir(&into).unwrap();
    let conninfo = format!(
        "host=127.0.0.1 port={} user=replicator dbname=replication",
        sandbox.node(BETA)?.postgres_port
    );
    let mut receiver = tokio::process::Command::new(sandbox.postgres_programs().join("pg_receivewal"));
    receiver.arg("-D").arg(into).args(["--slot", "replica_1", "--no-loop", "--no-password", "-d", &conninfo]);
    receiver.env("PGPASSFILE", sandbox.node(ALPHA)?.secrets_dir().join("replication.pgpass"));
    receiver.env("PGAPPNAME", "archiver").stdout(Stdio::null()).kill_on_drop(true);
    Ok(receiver.spawn().unwrap())
}

#[test]
fn a_slot_that_another_uses_or_whose_name_a_logical_one_has_stops_it() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        for node in sandbox.nodes() {
            let settings = OpenOptions::new().append(true).open(node.folder.join("postgresql.node.conf"));
            settings.unwrap().write_all(b"\nwal_level = logical\n").unwrap();
        }
        let writer = parted(&sandbox).await?;
        back_and_fenced(&sandbox).await?;
        let subject = "slot on main";

        let mut archiver = archiver(&sandbox)?;
        slot_is_active(&sandbox, "t").await?;
        let parts =
            ["another client uses slot replica_1 there (process ", "`archiver`, from 127.0.0.1): end that"];
        stops(&sandbox, subject, &parts).await?;
        slot_is_active(&sandbox, "t").await?;
        archiver.kill().await.unwrap();
        slot_is_active(&sandbox, "f").await?;

        let drop = "SELECT pg_drop_replication_slot('replica_1')";
        sandbox.psql(BETA, drop).await?;
        sandbox.psql(BETA, "SELECT pg_create_logical_replication_slot('replica_1', 'pgoutput')").await?;
        let parts = ["a logical slot has the name replica_1", drop];
        stops(&sandbox, subject, &parts).await?;
        let kind = "SELECT slot_type FROM pg_replication_slots WHERE slot_name = 'replica_1'";
        assert_eq!(sandbox.psql_value(BETA, kind).await?, "logical");

        // as it was told
        sandbox.psql(BETA, drop).await?;
        let said = rejoin(&sandbox, ALPHA, &[]).await?;
        assert!(said.status.success(), "{said:?}");
        follows(&sandbox, &writer).await
    });
}

#[test]
fn a_login_with_too_few_rights_on_main_stops_it_or_leaves_a_copy_as_the_only_way() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        let writer = parted(&sandbox).await?;
        let password = sandbox.superuser_password();
        let role = format!("CREATE ROLE modest LOGIN REPLICATION PASSWORD '{password}' IN ROLE pg_monitor");
        sandbox.psql(BETA, &role).await?;
        sandbox.set_config(ALPHA, "postgres.user", "modest")?;
        back_and_fenced(&sandbox).await?;

        let mend = "ALTER ROLE \"modest\" SUPERUSER";
        let parts = ["login there, `modest`, may not read the history of its timelines", mend];
        stops(&sandbox, "login on main", &parts).await?;
        sandbox.psql(BETA, "GRANT EXECUTE ON FUNCTION pg_read_file(text) TO modest").await?;
        let parts = ["login there, `modest`, may not write a CHECKPOINT", mend];
        stops(&sandbox, "slot on main", &parts).await?;

        let grantable = "SELECT count(*) FROM pg_roles WHERE rolname = 'pg_checkpoint'";
        if sandbox.psql_value(BETA, grantable).await? == "0" {
            eprintln!("left out: before PostgreSQL 15 nobody but a superuser may write a CHECKPOINT");
            return Ok(());
        }
        sandbox.psql(BETA, "GRANT pg_checkpoint TO modest").await?;
        let copy = "the directory must be copied again: this node's login on main may not read its files";
        let before = files(&sandbox)?;
        let (code, plan) = return_planned(&sandbox, &[]).await?;
        assert_eq!((code, plan.would_begin), (Some(0), true), "{plan:?}");
        assert_eq!(changed(&before, &files(&sandbox)?), Vec::<&PathBuf>::new());
        let told = |subject: &str, message: &str| {
            let mut checks = plan.checks.iter().filter(|check| check.subject == subject);
            assert!(checks.any(|check| check.detail.contains(message)), "{plan:?}");
        };
        told("lineage", copy);
        told("room", "there is room for a copy of main's");
        let _ = rejoin(&sandbox, ALPHA, &[]).await?;
        let made = newest(&sandbox, ALPHA)?;
        assert!(made.step(StepId::CheckLineage).detail.contains(copy), "{made:?}");
        assert_eq!(made.end, RunEnd::Completed, "{:?}", made.problem);
        let found = made.rejoin.unwrap();
        assert_eq!(found.by, Some(Demotion::Copied));
        assert!(Path::new(&found.kept.unwrap()).join("pgdata/PG_VERSION").is_file());
        sandbox.wait_streaming(BETA, ALPHA).await?;
        drop(writer);
        Ok(())
    });
}
