//! A person makes a secondary main.

use std::{process::Output, time::Duration};

use interrex::sandbox::{ALPHA, BETA, Done, Sandbox};
use interrex_actors::{
    env::{Env as _, SystemEnv},
    wire::NodeReport,
};
use interrex_adapters::runtime::RunAs;
use interrex_events::{Event, NodeId, RedisStatus, RunKind, StepId, StepOutcome};
use interrex_projections::{NodeStatus, RunEnd, StepState, Undo};
use interrex_tests::run;
use rustix::process::Signal;

use crate::{bad_input::interrex_with, switchover::switch, two_nodes};

const LIMIT: Duration = Duration::from_secs(60);

/// Runs `interrex promote` on beta, to its end.
async fn promote(sandbox: &Sandbox, more: &'static [&'static str]) -> Done<Output> {
    promote_on(sandbox, BETA, more).await
}

/// Runs `interrex promote` on a node, to its end.
pub(crate) async fn promote_on(
    sandbox: &Sandbox,
    node: NodeId,
    more: &'static [&'static str],
) -> Done<Output> {
    let config = sandbox.node(node)?.config();
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
        sandbox.wait_main_silent(BETA).await?;
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
        let message = String::from_utf8_lossy(&refused.stderr).into_owned();
        for part in ["alpha is alive", "answers as a primary", "interrex switchover --to beta"] {
            assert!(message.contains(part), "{message}");
        }
        assert!(sandbox.takes_writes(ALPHA).await);
        assert_eq!(sandbox.cluster(BETA)?.runs.newest(), None, "nothing was begun");

        let before = SystemEnv.moment();
        let forced = promote(&sandbox, &["--force", "--reason", "its disk is dying"]).await?;
        assert!(forced.status.success(), "{forced:?}");
        let fenced = |envelope: &interrex_events::Envelope| matches!(envelope.event, Event::NodeFenced(_));
        sandbox.wait_event(ALPHA, "it is fenced", fenced).await?;
        assert!(!sandbox.takes_writes(ALPHA).await);
        let hears = |envelope: &interrex_events::Envelope| matches!(envelope.event, Event::MainAnnounced(_));
        sandbox.wait_event(ALPHA, "it hears of the new main", hears).await?;
        sandbox.wait_health(ALPHA, "fenced", |report| report.status == NodeStatus::Fenced).await?;
        let events = sandbox.events(ALPHA)?;
        let proofs: Vec<&str> = events
            .iter()
            .filter_map(|envelope| match &envelope.event {
                Event::NodeFenced(proof) => Some(proof.postgres.as_str()),
                _ => None,
            })
            .collect();
        assert!(matches!(proofs[..], [proof] if proof.starts_with("stopped")), "{proofs:?}");
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

/// What `interrex run cancel --force` on a node comes to.
async fn answer_for_the_other(sandbox: &Sandbox, node: NodeId) -> Done<Output> {
    let config = sandbox.node(node)?.config();
    let asked = move || {
        let config = config.to_string_lossy();
        let arguments = ["run", "cancel", "--config", &config, "--force", "--reason", "beta burns"];
        interrex_with(&arguments, &[])
    };
    tokio::task::spawn_blocking(asked).await.unwrap()
}

fn is_lifted(envelope: &interrex_events::Envelope) -> bool {
    matches!(envelope.event, Event::FenceLifted(_))
}

#[test]
fn a_main_that_was_fenced_for_a_promotion_that_then_failed_serves_again() {
    run(async {
        let sandbox = two_nodes().build().await?;
        no_automatic_failover(&sandbox).await?;
        // ALTER SYSTEM writes this file first: beta can change no setting
        let in_the_way = sandbox.node(BETA)?.data_dir().join("postgresql.auto.conf.tmp");
        std::fs::create_dir(&in_the_way).unwrap();
        let said = promote(&sandbox, &["--force", "--reason", "its disk is dying"]).await?;
        assert!(!said.status.success(), "{said:?}");
        std::fs::remove_dir(&in_the_way).unwrap();
        let made = sandbox.cluster(BETA)?.runs.newest().unwrap().clone();
        assert_eq!(made.step(StepId::FenceOldMain).state, StepState::Ended(StepOutcome::Succeeded));
        assert_eq!(made.step(StepId::FenceOldMain).undo, Undo::Done, "{made:?}");
        sandbox.wait_event(ALPHA, "its fence is lifted", is_lifted).await?;
        sandbox.wait_streaming(ALPHA, BETA).await?;
        for node in [ALPHA, BETA] {
            sandbox.wait_healthy(node).await?;
        }
        assert!(sandbox.takes_writes(ALPHA).await && !sandbox.takes_writes(BETA).await);
        sandbox.doctor_clean().await
    });
}

#[test]
fn a_main_that_was_fenced_by_a_node_that_is_gone_serves_again_when_a_person_says_so() {
    run(async {
        let sandbox = two_nodes().build().await?;
        no_automatic_failover(&sandbox).await?;
        sandbox.kill_supervisor(BETA);
        sandbox.set_environment(BETA, "INTERREX_BARRIER", Some("before:detach"));
        sandbox.start_supervisor(BETA)?;
        sandbox.wait_healthy(BETA).await?;
        let _ = promote(&sandbox, &["--force", "--reason", "its disk is dying"]).await?;
        sandbox.wait_supervisor_ended(BETA).await?;
        let fenced = |report: &NodeReport| report.status == NodeStatus::Fenced;
        sandbox.wait_health(ALPHA, "fenced", fenced).await?;

        let said = answer_for_the_other(&sandbox, ALPHA).await?;
        assert!(said.status.success(), "{said:?}");
        sandbox.wait_healthy(ALPHA).await?;
        assert!(sandbox.takes_writes(ALPHA).await);
        let again = answer_for_the_other(&sandbox, ALPHA).await?;
        assert!(String::from_utf8_lossy(&again.stderr).contains("no run is under way"), "{again:?}");

        // a run that is resumed asks main before it takes over
        sandbox.set_environment(BETA, "INTERREX_BARRIER", None);
        sandbox.start_supervisor(BETA)?;
        let made = sandbox.wait_run_ended(BETA).await?;
        assert_eq!(made.end, RunEnd::Refused, "{made:?}");
        sandbox.wait_streaming(ALPHA, BETA).await?;
        assert!(sandbox.takes_writes(ALPHA).await && !sandbox.takes_writes(BETA).await);
        Ok(())
    });
}

#[test]
fn a_standby_that_could_not_be_told_to_follow_again_does_so_when_it_answers() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        no_automatic_failover(&sandbox).await?;
        sandbox.kill_supervisor(BETA);
        sandbox.set_environment(BETA, "INTERREX_BARRIER", Some("after:detach"));
        sandbox.start_supervisor(BETA)?;
        sandbox.wait_healthy(BETA).await?;
        let _ = promote(&sandbox, &["--force", "--reason", "its disk is dying"]).await?;
        sandbox.wait_supervisor_ended(BETA).await?;
        let upstream = "SHOW primary_conninfo";
        assert_eq!(sandbox.psql_value(BETA, upstream).await?, "");

        // it hangs while the run is given up
        assert!(sandbox.signal_postgres(BETA, Signal::STOP) > 0);
        sandbox.set_environment(BETA, "INTERREX_BARRIER", None);
        sandbox.start_supervisor(BETA)?;
        let made = sandbox.wait_run_ended(BETA).await?;
        assert_eq!((made.end, made.step(StepId::Detach).undo), (RunEnd::Failed, Undo::Failed), "{made:?}");
        sandbox.signal_postgres(BETA, Signal::CONT);
        sandbox.wait_streaming(ALPHA, BETA).await?;
        let returned = |envelope: &interrex_events::Envelope| matches!(&envelope.event, Event::FollowFinished(it) if it.main == ALPHA && it.streaming);
        sandbox.wait_event(BETA, "it follows alpha again", returned).await?;
        for node in [ALPHA, BETA] {
            sandbox.wait_healthy(node).await?;
        }
        assert!(sandbox.takes_writes(ALPHA).await);
        sandbox.doctor_clean().await
    });
}

/// Starts a node's PostgreSQL anew, as a person would. Whether it came up.
pub(crate) async fn restart_by_hand(sandbox: &Sandbox, node: NodeId, more: &[&str]) -> Done<bool> {
    let node = sandbox.node(node)?;
    let run_as = RunAs::resolve(None, &node.data_dir()).unwrap();
    let mut by_hand = run_as.command(sandbox.postgres_programs().join("pg_ctl"));
    by_hand.arg("-D").arg(node.data_dir()).arg("-l").arg(node.postgres_log());
    by_hand.args(["-w", "-s", "-m", "fast"]).args(more).arg("restart");
    Ok(by_hand.status().await.unwrap().success())
}

/// With a fence on its command line.
async fn read_only_by_command_line(sandbox: &Sandbox) -> Done<()> {
    assert!(restart_by_hand(sandbox, BETA, &["-o", "-c default_transaction_read_only=on"]).await?);
    sandbox.wait_streaming(ALPHA, BETA).await?;
    sandbox.wait_healthy(BETA).await.map(drop)
}

#[test]
fn what_nothing_can_clear_refuses_every_change_of_main_at_once_and_nobody_is_fenced_for_it() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        no_automatic_failover(&sandbox).await?;
        read_only_by_command_line(&sandbox).await?;
        let reason = "default_transaction_read_only is `on` on the command line";

        let forced = promote(&sandbox, &["--force", "--reason", "its disk is dying"]).await?;
        assert_eq!(forced.status.code(), Some(1));
        let refused = sandbox.cluster(BETA)?.runs.newest().unwrap().clone();
        assert_eq!(refused.end, RunEnd::Refused, "{:?}", refused.problem);
        assert!(refused.problem.unwrap().contains(reason));
        let offered = switch(&sandbox, ALPHA, "beta", &["--dry-run"]).await?;
        assert!(String::from_utf8_lossy(&offered.stdout).contains(reason), "{offered:?}");
        assert!(sandbox.takes_writes(ALPHA).await);
        sandbox.wait_healthy(ALPHA).await?;

        let examined = sandbox.doctor(BETA).await?;
        assert_eq!((examined.wrong(), examined.exit), (vec![("read_only_default", Some(BETA))], Some(8)));
        Ok(())
    });
}

#[test]
fn a_redis_that_saves_slowly_holds_up_no_promotion_and_saves_all_it_has() {
    run(async {
        let sandbox = two_nodes().threshold(2 * LIMIT).build().await?;
        sandbox.start().await?;
        for node in [ALPHA, BETA] {
            sandbox.wait_healthy(node).await?;
        }
        let fill = "for i = 1, 12000 do redis.call('SET', 'key' .. i, 'value') end";
        sandbox.redis(ALPHA, &["EVAL", fill, "0"]).await?;
        // 12 s, where 5 s were its time
        sandbox.redis(ALPHA, &["CONFIG", "SET", "rdb-key-save-delay", "1000"]).await?;
        let said = promote(&sandbox, &["--force", "--reason", "alpha is to be repaired"]).await?;
        assert!(said.status.success(), "{said:?}");
        let made = sandbox.cluster(BETA)?.runs.newest().unwrap().clone();
        assert_eq!(made.end, RunEnd::Completed, "{made:?}");
        let saves = |event: &Event| matches!(event, Event::NodeFenced(proof) if proof.redis.contains("was asked to end and does not answer"));
        sandbox
            .wait_event(ALPHA, "the proof that its Redis saves", |envelope| saves(&envelope.event))
            .await?;
        let stopped = |report: &NodeReport| report.redis.status == RedisStatus::Stopped;
        sandbox.wait_health(ALPHA, "its Redis has ended", stopped).await?;
        let data = sandbox.node(ALPHA)?.redis_dir();
        assert!(std::fs::metadata(data.join("dump.rdb")).unwrap().len() > 12_000 * 10, "it was not saved");
        let fenced = |report: &NodeReport| report.status == NodeStatus::Fenced;
        sandbox.wait_health(ALPHA, "it is fenced", fenced).await.map(drop)
    });
}
