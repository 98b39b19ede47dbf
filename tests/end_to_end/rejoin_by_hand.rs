//! `interrex rejoin --script`: the same by hand, for a node whose supervisor is gone.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Output,
};

use interrex::sandbox::{ALPHA, BETA, Done, Sandbox};
use interrex_events::{Demotion, NodeId};
use interrex_tests::run;
use serde_json::json;

use crate::{
    rejoin::{LIMIT, ask, back_and_fenced, checked, follows, is_all_of_it, newest, parted, rejoin, salvaged},
    rejoin_obstacles::{archiver, slot_is_active},
    two_nodes,
};

/// The script for alpha, with the paths of one node's configuration.
async fn script(sandbox: &Sandbox, of: NodeId, more: &[&str]) -> Done<PathBuf> {
    let config = sandbox.node(of)?.config().display().to_string();
    let arguments = [&["rejoin", "alpha", "--script", "--config", &config], more].concat();
    let printed = ask(arguments.into_iter().map(str::to_owned).collect()).await?;
    assert!(printed.status.success(), "{printed:?}");
    let file = sandbox.folder().join("rejoin-alpha.sh");
    fs::write(&file, printed.stdout).unwrap();
    Ok(file)
}

/// Runs it, as whoever runs the tests.
async fn by_hand(script: &Path) -> Output {
    let run = tokio::process::Command::new("sh").arg(script).kill_on_drop(true).output();
    tokio::time::timeout(LIMIT, run).await.unwrap().unwrap()
}

/// As if it had been made with `initdb -X`, or moved to a volume of its own since: a link leads there.
fn move_log(data_dir: &Path) {
    fs::rename(data_dir.join("pg_wal"), data_dir.with_extension("log")).unwrap();
    let from_there = Path::new("..").join(data_dir.with_extension("log").file_name().unwrap());
    std::os::unix::fs::symlink(from_there, data_dir.join("pg_wal")).unwrap();
}

/// As if it lay on a volume of its own, in a folder of it: a link leads there.
fn move_data(data_dir: &Path) -> PathBuf {
    let volume = data_dir.with_file_name("volume");
    fs::create_dir(&volume).unwrap();
    fs::rename(data_dir, volume.join("pgdata")).unwrap();
    std::os::unix::fs::symlink("volume/pgdata", data_dir).unwrap();
    // its configuration includes what lies beside it
    std::os::unix::fs::symlink("../postgresql.node.conf", volume.join("postgresql.node.conf")).unwrap();
    volume.join("pgdata")
}

/// What is kept in a folder, the oldest first.
fn all_in(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

#[test]
fn the_script_does_the_same_by_hand_and_the_supervisor_takes_it_from_there() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        let writer = parted(&sandbox).await?;
        let refused = rejoin(&sandbox, BETA, &[]).await?;
        assert_eq!(refused.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&refused.stderr).contains("rejoin alpha --script"), "{refused:?}");
        let link = sandbox.node(ALPHA)?.data_dir();
        let data_dir = move_data(&link);
        move_log(&data_dir);
        let said = by_hand(&script(&sandbox, ALPHA, &[]).await?).await;
        assert!(said.status.success(), "{said:?}");
        sandbox.wait_streaming(BETA, ALPHA).await?;
        assert!(link.is_symlink() && !data_dir.is_symlink(), "it lies where it lay");
        let log = data_dir.join("pg_wal").canonicalize().unwrap();
        assert!(
            data_dir.join("pg_wal").is_symlink() && log.parent() == data_dir.parent(),
            "{}",
            log.display()
        );
        // a second time, by a copy, and with a folder of kept copies that no rename leads to
        let other_volume = tempfile::tempdir_in("/dev/shm").unwrap();
        let keep_in = other_volume.path().join("kept");
        sandbox.set_config(ALPHA, "rejoin.keep_in", keep_in.display().to_string())?;
        let said = by_hand(&script(&sandbox, ALPHA, &["--copy"]).await?).await;
        assert!(said.status.success(), "{said:?}");
        sandbox.wait_streaming(BETA, ALPHA).await?;
        let device = |path: &Path| fs::metadata(path).unwrap().dev();
        if device(other_volume.path()) != device(&data_dir) {
            assert_eq!((all_in(&data_dir.with_extension("kept")).len(), keep_in.exists()), (1, false));
        }
        // the supervisor knows nothing of that: its node was main when it died
        back_and_fenced(&sandbox).await?;
        let said = rejoin(&sandbox, ALPHA, &[]).await?;
        assert!(said.status.success(), "{said:?}");
        assert_eq!(newest(&sandbox, ALPHA)?.rejoin.unwrap().by, Some(Demotion::Unchanged));
        follows(&sandbox, &writer).await?;
        let acknowledged = writer.stop();
        let lost: BTreeSet<i64> = sandbox.rows_lost(&acknowledged, BETA).await?.into_iter().collect();
        let kept = all_in(&link.with_extension("kept")).remove(0);
        is_all_of_it(&salvaged(&sandbox, &kept.display().to_string()).await?, &lost);
        let sound = checked(&sandbox);
        assert!(sound["sound"].as_u64() > Some(900) && sound["damaged"] == json!([]), "{sound}");
        fs::write(kept.join("pgdata/pg_wal/somebody's"), "new").unwrap();
        fs::write(kept.join("pgdata/pg_ident.conf"), "").unwrap();
        is_all_of_it(&salvaged(&sandbox, &kept.display().to_string()).await?, &lost);
        assert_eq!(checked(&sandbox)["damaged"], json!([kept.join("pgdata/pg_ident.conf")]));
        Ok(())
    });
}

#[test]
fn the_script_changes_nothing_of_a_directory_that_it_cannot_keep_whole() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        parted(&sandbox).await?;
        let data_dir = sandbox.node(ALPHA)?.data_dir();
        let control = || fs::read(data_dir.join("global/pg_control")).unwrap();
        let (script, before) = (script(&sandbox, ALPHA, &[]).await?, control());
        let refused = async |message: &str| {
            let said = by_hand(&script).await;
            let why = String::from_utf8_lossy(&said.stderr).into_owned();
            assert!(!said.status.success() && why.contains(message), "{why}");
            let made = ["by-script", "kept"].map(|name| data_dir.with_extension(name).exists());
            assert_eq!((made, control() == before), ([false, false], true), "{why}");
        };
        let volume = data_dir.with_extension("volume");
        fs::create_dir(&volume).unwrap();
        let tablespace = data_dir.join("pg_tblspc/16384");
        std::os::unix::fs::symlink(&volume, &tablespace).unwrap();
        refused("--tablespace-mapping").await;
        fs::remove_file(tablespace).unwrap();
        let mut archiver = archiver(&sandbox)?;
        slot_is_active(&sandbox, "t").await?;
        refused("as a physical slot, used by process").await;
        archiver.kill().await.unwrap();
        move_log(&data_dir);
        fs::rename(data_dir.with_extension("log"), volume.join("log")).unwrap();
        refused("pg_wal").await;
        Ok(())
    });
}

#[test]
fn the_script_does_nothing_on_a_node_with_a_supervisor_nor_on_main() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        parted(&sandbox).await?;
        let script = script(&sandbox, BETA, &[]).await?;
        let refused = async |message: &str| {
            let said = by_hand(&script).await;
            let why = String::from_utf8_lossy(&said.stderr).into_owned();
            assert!(!said.status.success() && why.contains(message), "{why}");
            assert!(sandbox.takes_writes(BETA).await);
        };
        refused("a supervisor runs here").await;
        sandbox.kill_supervisor(BETA);
        refused("beta's own, which is main").await;
        Ok(())
    });
}
