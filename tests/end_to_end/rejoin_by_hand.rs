//! `interrex rejoin --script`: the same by hand, for a node whose supervisor is gone.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use interrex::sandbox::{ALPHA, BETA, Done, Sandbox};
use interrex_events::{Demotion, NodeId};
use interrex_tests::run;

use crate::{
    rejoin::{LIMIT, ask, back_and_fenced, follows, is_all_of_it, newest, parted, rejoin, salvaged},
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

#[test]
fn the_script_does_the_same_by_hand_and_the_supervisor_takes_it_from_there() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        let writer = parted(&sandbox).await?;
        let refused = rejoin(&sandbox, BETA, &[]).await?;
        assert_eq!(refused.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&refused.stderr).contains("rejoin alpha --script"), "{refused:?}");
        let data_dir = sandbox.node(ALPHA)?.data_dir();
        move_log(&data_dir);
        let said = by_hand(&script(&sandbox, ALPHA, &[]).await?).await;
        assert!(said.status.success(), "{said:?}");
        sandbox.wait_streaming(BETA, ALPHA).await?;
        assert!(!data_dir.join("pg_wal").is_symlink(), "the log is its own");
        // a second time, and by a copy
        let said = by_hand(&script(&sandbox, ALPHA, &["--copy"]).await?).await;
        assert!(said.status.success(), "{said:?}");
        sandbox.wait_streaming(BETA, ALPHA).await?;
        // the supervisor knows nothing of that: its node was main when it died
        back_and_fenced(&sandbox).await?;
        let said = rejoin(&sandbox, ALPHA, &[]).await?;
        assert!(said.status.success(), "{said:?}");
        assert_eq!(newest(&sandbox, ALPHA)?.rejoin.unwrap().by, Some(Demotion::Unchanged));
        follows(&sandbox, &writer).await?;
        let acknowledged = writer.stop();
        let lost: BTreeSet<i64> = sandbox.rows_lost(&acknowledged, BETA).await?.into_iter().collect();
        let mut kept: Vec<_> = fs::read_dir(data_dir.with_extension("kept"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        kept.sort();
        is_all_of_it(&salvaged(&sandbox, &kept[0].display().to_string()).await?, &lost);
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
        let refused = async |words: &str| {
            let said = by_hand(&script).await;
            let why = String::from_utf8_lossy(&said.stderr).into_owned();
            assert!(!said.status.success() && why.contains(words), "{why}");
            let made = ["by-script", "kept"].map(|name| data_dir.with_extension(name).exists());
            assert_eq!((made, control() == before), ([false, false], true), "{why}");
        };
        let volume = data_dir.with_extension("volume");
        fs::create_dir(&volume).unwrap();
        let tablespace = data_dir.join("pg_tblspc/16384");
        std::os::unix::fs::symlink(&volume, &tablespace).unwrap();
        refused("--tablespace-mapping").await;
        fs::remove_file(tablespace).unwrap();
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
        let refused = async |words: &str| {
            let said = by_hand(&script).await;
            let why = String::from_utf8_lossy(&said.stderr).into_owned();
            assert!(!said.status.success() && why.contains(words), "{why}");
            assert!(sandbox.takes_writes(BETA).await);
        };
        refused("a supervisor runs here").await;
        sandbox.kill_supervisor(BETA);
        refused("beta's own, which is main").await;
        Ok(())
    });
}
