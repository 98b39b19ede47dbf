//! The same cluster in another runtime: PostgreSQL and Redis in namespaces of their own, as in a container. The server has the
//! number 1, its pid file says so, and its files have another path.

use std::{fs, path::Path};

use interrex::sandbox::{ALPHA, BETA, Done, Sandbox, until};
use interrex_events::Demotion;
use interrex_projections::RunEnd;
use interrex_tests::run;

use crate::{
    rejoin::{LIMIT, back_and_fenced, follows, newest, parted, rejoin},
    switchover::switch,
    two_nodes,
};

/// Two nodes in namespaces; nothing where this user may not make any.
async fn contained() -> Done<Option<Sandbox>> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("left out: only root makes namespaces here");
        return Ok(None);
    }
    let supervisor = env!("CARGO_BIN_EXE_interrex-in-namespaces");
    let sandbox = two_nodes().supervisor(supervisor).build().await?;
    for node in [ALPHA, BETA] {
        let folder = &sandbox.node(node)?.folder;
        let file = sandbox.node(node)?.redis_dir().join("redis.conf");
        let settings = fs::read_to_string(&file).unwrap();
        let data = |folder: &Path| folder.join("redis").display().to_string();
        fs::write(&file, settings.replace(&data(folder), &data(&folder.join("inside")))).unwrap();
    }
    Ok(Some(sandbox))
}

async fn fails_over_and_comes_back(how: &[&str], by: Demotion) -> Done<()> {
    let Some(sandbox) = contained().await? else { return Ok(()) };
    let writer = parted(&sandbox).await?;
    back_and_fenced(&sandbox).await?;
    let said = rejoin(&sandbox, ALPHA, how).await?;
    assert!(said.status.success(), "{said:?}");
    follows(&sandbox, &writer).await?;
    assert_eq!(newest(&sandbox, ALPHA)?.rejoin.unwrap().by, Some(by));
    Ok(())
}

#[test]
fn in_namespaces_an_old_main_is_rewound() {
    run(fails_over_and_comes_back(&[], Demotion::Rewound));
}

#[test]
fn in_namespaces_an_old_main_is_copied_again() {
    run(fails_over_and_comes_back(&["--copy"], Demotion::Copied));
}

#[test]
fn in_namespaces_main_changes_places_and_a_second_server_is_refused() {
    run(async {
        let Some(sandbox) = contained().await? else { return Ok(()) };
        sandbox.start().await?;
        let pid_file = fs::read_to_string(sandbox.node(ALPHA)?.data_dir().join("postmaster.pid")).unwrap();
        assert_eq!(pid_file.lines().next(), Some("1"));
        let said = switch(&sandbox, ALPHA, "beta", &["--drain", "0s"]).await?;
        assert!(said.status.success(), "{said:?}");
        assert_eq!(sandbox.wait_run_ended(BETA).await?.end, RunEnd::Completed);
        sandbox.wait_streaming(BETA, ALPHA).await?;

        // the next supervisor does not know the server that it would start a second time
        let server = sandbox.postmaster_pid(ALPHA);
        assert!(sandbox.kill_supervisor(ALPHA));
        fs::write(sandbox.node(ALPHA)?.folder.join("postgres.lock"), "").unwrap();
        sandbox.start_supervisor(ALPHA)?;
        until("the second server is refused", LIMIT, || async {
            let log = fs::read_to_string(sandbox.node(ALPHA).unwrap().supervisor_log()).unwrap();
            let words = "another server works on this directory";
            if log.contains(words) { Ok(()) } else { Err("it is not in the log".to_owned()) }
        })
        .await?;
        assert_eq!(sandbox.postmaster_pid(ALPHA), server);
        sandbox.wait_streaming(BETA, ALPHA).await
    });
}
