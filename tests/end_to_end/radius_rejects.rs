//! A failover after which RADIUS runs, and still lets nobody in.

use std::time::Duration;

use interrex::{
    doctor::Verdict,
    sandbox::{ALPHA, BETA, Done, NodePlan, Sandbox},
};
use interrex_actors::env::{Env as _, SystemEnv};
use interrex_events::{DependentStatus, StepId, StepOutcome};
use interrex_projections::RunEnd;
use interrex_tests::run;

use crate::{bad_input::interrex_with, checks::outcome};

const LIMIT: Duration = Duration::from_secs(60);

/// From its next start on, RADIUS looks for its users at another port: its configuration as it was before.
fn point_radius_at(node: &NodePlan, port: u16) -> String {
    let file = node.radius_dir().join("radiusd.conf");
    let before = std::fs::read_to_string(&file).unwrap();
    let own = format!("port = {}\n\t\tlogin", node.postgres_port);
    assert!(before.contains(&own), "{before}");
    std::fs::write(&file, before.replace(&own, &format!("port = {port}\n\t\tlogin"))).unwrap();
    before
}

async fn said(sandbox: &Sandbox, arguments: &'static [&'static str]) -> Done<String> {
    let config = sandbox.node(BETA)?.config();
    let asked = move || interrex_with(&[arguments, &["--config", &config.to_string_lossy()]].concat(), &[]);
    let output = tokio::task::spawn_blocking(asked).await.unwrap()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn radius_that_still_rejects_is_named_and_does_not_hold_up_the_failover() {
    run(async {
        let sandbox = Sandbox::builder(interrex_tests::interrex())
            .threshold(Duration::from_millis(1_500))
            .without_redis()
            .patience(LIMIT)
            .build()
            .await?;
        // each of the two attempts at the restart waits so long
        sandbox.set_config(BETA, "dependents.0.ready_timeout", "3s")?;
        sandbox.start().await?;
        sandbox.wait_radius(BETA).await?;
        let beta = sandbox.node(BETA)?;
        let right = point_radius_at(beta, sandbox.node(ALPHA)?.postgres_port);

        let writer = sandbox.start_writer(100.0)?;
        writer.wait_acknowledged(20, LIMIT).await?;
        let killed = sandbox.kill_everything_of(ALPHA);
        writer.wait_ack_by(beta.postgres_port, killed, LIMIT).await?;
        let made = sandbox.wait_run_ended(BETA).await?;
        writer.wait_ack_by(beta.postgres_port, SystemEnv.moment(), LIMIT).await?;
        drop(writer.stop());

        // the failover is made: what could be done without RADIUS is done
        assert_eq!(made.end, RunEnd::CompletedDegraded, "{:?}", made.problem);
        assert_eq!(made.degraded, [StepId::RestartDependents]);
        let restart = made.step(StepId::RestartDependents);
        assert_eq!(
            (outcome(&made, StepId::RestartDependents), restart.attempts),
            (Some(StepOutcome::Failed), 2)
        );
        assert!(restart.detail.contains("radius runs, but is not ready"), "{restart:?}");
        assert!(sandbox.takes_writes(BETA).await && !sandbox.radius_accepts(BETA).await?);

        // and everything that speaks of the node names RADIUS
        let report = sandbox
            .wait_health(BETA, "not ready", |report| {
                report.dependents["radius"].status == DependentStatus::NotReady
            })
            .await?;
        assert!(!report.healthy, "{report:?}");
        let shown = said(&sandbox, &["run", "show"]).await?;
        for message in ["radius runs, but is not ready", "radius.log", "restart this node's supervisor"] {
            assert!(shown.contains(message), "{message}: {shown}");
        }
        let status = said(&sandbox, &["status"]).await?;
        assert!(status.contains("radius is not ready"), "{status}");
        let examined = sandbox.doctor(BETA).await?;
        let found = examined.checks.iter().find(|found| found.check == "dependents_ready").unwrap();
        assert!(found.verdict == Verdict::Fail && found.measured.contains("radius"), "{found:?}");

        // mended as the page says: its configuration, then its restart
        std::fs::write(beta.radius_dir().join("radiusd.conf"), right).unwrap();
        sandbox.kill_supervisor(BETA);
        sandbox.kill_radius(BETA);
        sandbox.start_supervisor(BETA)?;
        sandbox.wait_radius(BETA).await?;
        sandbox.wait_healthy(BETA).await?;
        assert!(sandbox.takes_writes(BETA).await);
        Ok(())
    });
}
