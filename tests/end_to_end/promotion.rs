//! A person makes a secondary main.

use std::{process::Output, time::Duration};

use interrex::sandbox::{ALPHA, BETA, Done, Sandbox};
use interrex_actors::env::{Env as _, SystemEnv};
use interrex_events::{Event, RunKind};
use interrex_projections::RunEnd;
use interrex_tests::run;

use crate::{bad_input::interrex_with, two_nodes};

const LIMIT: Duration = Duration::from_secs(60);

/// Runs `interrex promote` on a node, to its end.
async fn promote(sandbox: &Sandbox, more: &'static [&'static str]) -> Done<Output> {
    let config = sandbox.node(BETA)?.config();
    let asked =
        move || interrex_with(&[&["promote", "--config", &config.to_string_lossy()], more].concat(), &[]);
    tokio::task::spawn_blocking(asked).await.unwrap()
}

/// What `GET /api/cluster/check-main-status` says on the secondary.
async fn main_status(sandbox: &Sandbox) -> serde_json::Value {
    let url = format!(
        "http://127.0.0.1:{}/api/cluster/check-main-status",
        sandbox.node(BETA).unwrap().supervisor_port
    );
    let answer: serde_json::Value = reqwest::get(url).await.unwrap().json().await.unwrap();
    answer["data"].clone()
}

async fn no_automatic_failover(sandbox: &Sandbox) -> Done<()> {
    for node in [ALPHA, BETA] {
        sandbox.set_config(node, "failover.auto_failover_enabled", false)?;
    }
    sandbox.start().await?;
    for node in [ALPHA, BETA] {
        sandbox.wait_healthy(node).await?;
    }
    Ok(())
}

#[test]
fn a_person_promotes_when_main_is_dead_and_nothing_does_it_by_itself() {
    run(async {
        let sandbox = two_nodes().build().await?;
        no_automatic_failover(&sandbox).await?;
        assert_eq!(main_status(&sandbox).await["answers"], true);
        let writer = sandbox.start_writer(100.0)?;
        writer.wait_acknowledged(20, LIMIT).await?;
        let killed = sandbox.kill_everything_of(ALPHA);
        let held_back =
            |envelope: &interrex_events::Envelope| matches!(envelope.event, Event::FailoverWithheld(_));
        sandbox.wait_event(BETA, "the failover is not made by itself", held_back).await?;
        assert_eq!(main_status(&sandbox).await["answers"], false);

        let planned = promote(&sandbox, &["--dry-run"]).await?;
        assert!(planned.status.success(), "{planned:?}");
        assert!(sandbox.cluster(BETA)?.runs.newest().is_none(), "a dry run begins nothing");
        let said = promote(&sandbox, &["--reason", "alpha is dead"]).await?;
        assert!(said.status.success(), "{said:?}");
        writer.wait_ack_by(sandbox.node(BETA)?.postgres_port, killed, LIMIT).await?;
        let made = sandbox.cluster(BETA)?.runs.newest().unwrap().clone();
        assert_eq!((made.kind, made.end), (RunKind::Promotion, RunEnd::Completed));
        assert_eq!(made.request.unwrap().reason.as_deref(), Some("alpha is dead"));

        let again = promote(&sandbox, &[]).await?;
        assert_eq!(again.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&again.stderr).contains("is main already"), "{again:?}");
        Ok(())
    });
}

#[test]
fn while_main_answers_a_promotion_is_refused_with_the_evidence_and_forced_it_fences_main_first() {
    run(async {
        let sandbox = two_nodes().build().await?;
        no_automatic_failover(&sandbox).await?;
        let writer = sandbox.start_writer(100.0)?;
        writer.wait_acknowledged(20, LIMIT).await?;
        let planned = promote(&sandbox, &["--dry-run"]).await?;
        assert_eq!(planned.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&planned.stdout).contains("alpha is alive"), "{planned:?}");
        let refused = promote(&sandbox, &[]).await?;
        assert_eq!(refused.status.code(), Some(1));
        let words = String::from_utf8_lossy(&refused.stderr).into_owned();
        for part in ["alpha is alive", "answers as a primary", "interrex switchover --to beta"] {
            assert!(words.contains(part), "{words}");
        }
        assert!(sandbox.takes_writes(ALPHA).await);
        assert_eq!(sandbox.cluster(BETA)?.runs.newest(), None, "nothing was begun");

        let before = SystemEnv.moment();
        let forced = promote(&sandbox, &["--force", "--reason", "its disk is dying"]).await?;
        assert!(forced.status.success(), "{forced:?}");
        let fenced = |envelope: &interrex_events::Envelope| matches!(envelope.event, Event::NodeFenced(_));
        sandbox.wait_event(ALPHA, "it is fenced", fenced).await?;
        assert!(!sandbox.takes_writes(ALPHA).await);
        writer.wait_ack_by(sandbox.node(BETA)?.postgres_port, before, LIMIT).await?;
        let acknowledged = writer.stop();
        assert_eq!(
            sandbox.rows_lost(&acknowledged, BETA).await?,
            Vec::<i64>::new(),
            "it stopped in good order"
        );
        Ok(())
    });
}
