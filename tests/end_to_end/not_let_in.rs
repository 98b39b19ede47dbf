//! A password or a line of `pg_hba.conf` is wrong: a standby would try to log in for ever, and say so in its log alone. A run
//! says it, before anything is stopped where that can be.

use std::{fs, path::PathBuf, time::Duration};

use interrex::sandbox::{ALPHA, BETA, Done, Sandbox};
use interrex_events::{Envelope, Event, StepId};
use interrex_projections::RunEnd;
use interrex_tests::run;

use crate::{
    checks::session,
    switchover::{ended, switch},
    two_nodes,
};

const LIMIT: Duration = Duration::from_secs(100);

/// Two nodes, and what alpha logs in to beta with as a standby.
async fn two_with_a_passfile() -> Done<(Sandbox, PathBuf, String)> {
    let sandbox = two_nodes().postgres_only().threshold(2 * LIMIT).build().await?;
    sandbox.start().await?;
    for node in [ALPHA, BETA] {
        sandbox.wait_healthy(node).await?;
    }
    let file = sandbox.node(ALPHA)?.secrets_dir().join("replication.pgpass");
    let right = fs::read_to_string(&file).unwrap();
    Ok((sandbox, file, right))
}

/// The same with another password.
fn wrong(passfile: &str) -> String {
    let with_other_password = |line: &str| line.rsplit_once(':').unwrap().0.to_owned() + ":wrong\n";
    passfile.lines().map(with_other_password).collect()
}

#[test]
fn a_main_that_its_target_would_not_let_in_does_not_hand_over() {
    run(async {
        let (sandbox, file, right) = two_with_a_passfile().await?;
        fs::write(&file, wrong(&right)).unwrap();
        let planned = switch(&sandbox, ALPHA, "beta", &["--dry-run"]).await?;
        let said = switch(&sandbox, ALPHA, "beta", &["--drain", "0s"]).await?;
        assert_eq!((planned.status.code(), said.status.code()), (Some(1), Some(1)), "{planned:?}");
        let refused = ended(&sandbox, ALPHA).await?;
        assert_eq!((refused.end, refused.step(StepId::StopMain).attempts), (RunEnd::Refused, 0));
        let problem = refused.problem.unwrap();
        assert!(problem.contains("could not follow beta"), "{problem}");
        assert!(problem.contains("password authentication failed for user \"replicator\""), "{problem}");
        assert!(sandbox.takes_writes(ALPHA).await);

        fs::write(&file, right).unwrap();
        let said = switch(&sandbox, ALPHA, "beta", &["--drain", "0s"]).await?;
        assert!(said.status.success(), "{said:?}");
        sandbox.wait_streaming(BETA, ALPHA).await
    });
}

#[test]
fn a_standby_that_main_does_not_let_in_is_told_within_seconds_and_follows_once_that_is_mended() {
    run(async {
        let (sandbox, file, right) = two_with_a_passfile().await?;
        let idle = session(&sandbox, ALPHA).await?;
        idle.batch_execute("BEGIN; SELECT 1").await.unwrap();
        let (said, ()) = tokio::try_join!(switch(&sandbox, ALPHA, "beta", &["--drain", "1min"]), async {
            let draining = |envelope: &Envelope| matches!(&envelope.event, Event::StepStarted(it) if it.step == StepId::Drain);
            sandbox.wait_event(ALPHA, "it drains", draining).await?;
            fs::write(&file, wrong(&right)).unwrap();
            idle.batch_execute("COMMIT").await.unwrap();
            Ok(())
        })?;
        let switched = ended(&sandbox, ALPHA).await?;
        let (outcome, step) = (switched.end, switched.step(StepId::BecomeStandby));
        assert_eq!((outcome, said.status.code()), (RunEnd::CompletedDegraded, Some(0)), "{said:?}");
        let detail = &step.detail;
        assert!(detail.contains("password authentication failed for user \"replicator\""), "{detail}");
        assert!(sandbox.takes_writes(BETA).await);

        fs::write(&file, right).unwrap();
        sandbox.wait_streaming(BETA, ALPHA).await
    });
}
