//! What a new standby is made of, whatever its configuration brings along: it stays a standby, on main's line.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use interrex::doctor::Verdict;
use interrex::sandbox::{ALPHA, BETA, Done, Sandbox, until};
use interrex_events::NodeId;
use interrex_projections::RunEnd;
use interrex_tests::run;

use crate::{
    rejoin::rejoin,
    switchover::{ended, switch},
    two_nodes,
};

const LIMIT: Duration = Duration::from_secs(60);

/// More settings in the file that a node's postgresql.conf includes.
fn append(sandbox: &Sandbox, node: NodeId, settings: &str) -> Done<()> {
    let file = sandbox.node(node)?.folder.join("postgresql.node.conf");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text + settings).unwrap();
    Ok(())
}

#[test]
fn a_forgotten_recovery_target_ends_no_standby_of_a_switchover_or_a_copy() {
    run(async {
        let sandbox = two_nodes().postgres_only().threshold(2 * LIMIT).build().await?;
        sandbox.start().await?;
        for node in [ALPHA, BETA] {
            sandbox.wait_healthy(node).await?;
        }
        append(&sandbox, ALPHA, "recovery_target = 'immediate'\nrecovery_target_action = 'promote'\n")?;
        let found = sandbox.doctor(ALPHA).await?;
        let named =
            found.checks.iter().find(|it| it.check == "ends_recovery" && it.node == Some(ALPHA)).unwrap();
        assert!(
            named.verdict == Verdict::Warn && named.measured.contains("postgresql.node.conf:"),
            "{named:?}"
        );
        let said = switch(&sandbox, ALPHA, "beta", &["--drain", "0s"]).await?;
        assert!(said.status.success(), "{said:?}");
        sandbox.wait_streaming(BETA, ALPHA).await?;
        assert_eq!(ended(&sandbox, BETA).await?.end, RunEnd::Completed);
        let said = rejoin(&sandbox, ALPHA, &["--copy"]).await?;
        assert!(said.status.success(), "{said:?}");
        sandbox.wait_streaming(BETA, ALPHA).await?;
        assert!(sandbox.takes_writes(BETA).await && !sandbox.takes_writes(ALPHA).await);
        Ok(())
    });
}

const GAMMA: NodeId = NodeId(3);

#[test]
fn a_history_that_somebody_left_in_a_shared_archive_leads_no_standby_astray() {
    run(async {
        let sandbox = two_nodes().postgres_only().nodes(3).threshold(2 * LIMIT).build().await?;
        let archive = sandbox.folder().join("archive");
        fs::create_dir(&archive).unwrap();
        fs::set_permissions(&archive, fs::Permissions::from_mode(0o777)).unwrap();
        let place = archive.display();
        let settings = format!(
            "archive_mode = on\narchive_command = 'test ! -f {place}/%f && cp %p {place}/%f'\nrestore_command = 'cp {place}/%f %p'\n"
        );
        for node in [ALPHA, BETA, GAMMA] {
            append(&sandbox, node, &settings)?;
        }
        sandbox.start().await?;
        for node in [ALPHA, BETA, GAMMA] {
            sandbox.wait_healthy(node).await?;
        }
        // of a promotion that never was: it would part before anything that the cluster has
        fs::write(archive.join("00000003.history"), "1\t0/1000100\tan orphan\n").unwrap();
        let said = switch(&sandbox, ALPHA, "beta", &["--drain", "0s"]).await?;
        assert!(said.status.success(), "{said:?}");
        for standby in [ALPHA, GAMMA] {
            sandbox.wait_streaming(BETA, standby).await?;
            let follows = sandbox.psql_value(standby, "SHOW recovery_target_timeline").await?;
            assert_eq!(follows, "2", "{standby}");
        }
        // and so it does after its next start
        assert!(sandbox.kill_supervisor(GAMMA));
        sandbox.kill_postgres(GAMMA);
        sandbox.start_supervisor(GAMMA)?;
        sandbox.wait_healthy(GAMMA).await?;
        sandbox.wait_streaming(BETA, GAMMA).await?;
        until("gamma is on main's line", LIMIT, || async {
            let line = "SELECT received_tli FROM pg_stat_wal_receiver";
            match sandbox.psql_value(GAMMA, line).await {
                Ok(line) if line == "2" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    });
}
