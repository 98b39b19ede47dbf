//! A promotion that is asked for and not seen to succeed, and could still succeed at any later moment.
//!
//! The process that replays the log is stopped: `pg_promote()` is answered, and nothing happens until it goes on.

use std::{process::Output, sync::Arc, time::Duration};

use interrex::sandbox::{ALPHA, BETA, Builder, Done, Sandbox, until};
use interrex_actors::{
    env::{Env as _, SystemEnv},
    failover::steps::{StepRule, rule},
};
use interrex_events::{
    Draft, Epoch, Event, PostgresStatus, RunKind, StepFinished, StepId, StepOutcome, StepStarted,
    StepUndoStarted,
    journal::{Identity, Journal},
};
use interrex_projections::{NodeStatus, Run, RunEnd, Undo};
use interrex_tests::run;
use rustix::process::Signal;

use crate::{bad_input::interrex_with, checks::sound_failover, two_nodes};

const LIMIT: Duration = Duration::from_secs(60);

/// Main is dead, and the promotion of the standby is asked for and pending.
async fn pending(builder: Builder) -> Done<Sandbox> {
    let sandbox = builder.build().await?;
    sandbox.start().await?;
    assert_eq!(sandbox.signal_replay(BETA, Signal::STOP), 1);
    sandbox.kill_everything_of(ALPHA);
    until("the promotion is asked for", LIMIT, || async {
        if is_asked(&sandbox) { Ok(()) } else { Err("nobody asked".to_owned()) }
    })
    .await?;
    Ok(sandbox)
}

/// PostgreSQL's own sign that it is to be promoted; gone as soon as that is taken up.
fn is_asked(sandbox: &Sandbox) -> bool {
    sandbox.node(BETA).unwrap().data_dir().join("promote").exists()
}

fn attempts_at_promotion(sandbox: &Sandbox) -> Done<Vec<StepFinished>> {
    let events = sandbox.events(BETA)?.into_iter().filter_map(|envelope| match envelope.event {
        Event::StepFinished(it) if it.step == StepId::Promote => Some(it),
        _ => None,
    });
    Ok(events.collect())
}

async fn show(sandbox: &Sandbox) -> Done<String> {
    let config = sandbox.node(BETA)?.config();
    let asked = move || interrex_with(&["run", "show", "--config", &config.to_string_lossy()], &[]);
    let shown: Output = tokio::task::spawn_blocking(asked).await.unwrap()?;
    Ok(String::from_utf8_lossy(&shown.stdout).into_owned())
}

#[test]
fn a_promotion_that_is_late_is_waited_for_and_recognised_and_made_once() {
    run(async {
        let sandbox = pending(two_nodes().patience(Duration::from_secs(150))).await?;
        let timed_out = |envelope: &interrex_events::Envelope| matches!(&envelope.event, Event::StepFinished(it) if it.step == StepId::Promote);
        sandbox.wait_event(BETA, "an attempt at the promotion is given up", timed_out).await?;
        let given_up = attempts_at_promotion(&sandbox)?.remove(0);
        assert_eq!(given_up.outcome, StepOutcome::Unknown, "{given_up:?}");
        assert!(given_up.detail.contains("may or may not have happened"), "{given_up:?}");
        // the run goes on, and says where it is and why
        let under_way = sandbox.cluster(BETA)?.runs.newest().unwrap().clone();
        assert!(under_way.is_running(), "{under_way:?}");
        let shown = show(&sandbox).await?;
        for message in ["promote", "attempt 2"] {
            assert!(shown.contains(message), "{shown}");
        }
        assert!(!sandbox.takes_writes(BETA).await && is_asked(&sandbox));

        assert_eq!(sandbox.signal_replay(BETA, Signal::CONT), 1);
        let made = sandbox.wait_run_ended(BETA).await?;
        assert_eq!(made.step(StepId::Promote).attempts, 2);
        let writer = sandbox.start_writer(100.0)?;
        let beta = sandbox.node(BETA)?.postgres_port;
        writer.wait_ack_by(beta, SystemEnv.moment(), LIMIT).await?;
        // of timeline 2 and epoch 2, however often it was asked
        sound_failover(&sandbox, &made, &writer.stop()).await?;
        let opened = |envelope: &&interrex_events::Envelope| matches!(envelope.event, Event::EpochOpened(_));
        assert_eq!(sandbox.events(BETA)?.iter().filter(opened).count(), 1);

        sandbox.start_supervisor(ALPHA)?;
        sandbox.wait_health(ALPHA, "fenced", |report| report.status == NodeStatus::Fenced).await?;
        assert!(!sandbox.takes_writes(ALPHA).await && sandbox.takes_writes(BETA).await);
        Ok(())
    });
}

/// The supervisor that asked dies, main comes back and serves, and the supervisor starts again.
async fn resumes_beside_a_main_that_is_back(sandbox: &Sandbox) -> Done<Run> {
    sandbox.kill_supervisor(BETA);
    sandbox.start_supervisor(ALPHA)?;
    sandbox.wait_healthy(ALPHA).await?;
    assert!(sandbox.takes_writes(ALPHA).await);
    sandbox.start_supervisor(BETA)?;
    sandbox.wait_run_ended(BETA).await
}

#[test]
fn a_promotion_that_was_asked_for_is_withdrawn_where_main_serves_again() {
    run(async {
        let sandbox = pending(two_nodes()).await?;
        let before = sandbox.postmaster_pid(BETA);
        let made = resumes_beside_a_main_that_is_back(&sandbox).await?;
        sandbox.signal_replay(BETA, Signal::CONT);
        assert_eq!(made.end, RunEnd::Refused, "{:?}", made.problem);
        assert!(made.problem.as_ref().unwrap().contains("is withdrawn"), "{:?}", made.problem);
        assert_eq!(made.step(StepId::Detach).undo, Undo::Done);
        assert!(!is_asked(&sandbox));
        assert_ne!(sandbox.postmaster_pid(BETA), before, "a server that was asked runs on");

        sandbox.wait_streaming(ALPHA, BETA).await?;
        let writer = sandbox.start_writer(100.0)?;
        writer.wait_acknowledged(50, LIMIT).await?;
        for node in [ALPHA, BETA] {
            sandbox.wait_healthy(node).await?;
        }
        assert!(sandbox.takes_writes(ALPHA).await && !sandbox.takes_writes(BETA).await);
        let (here, there) = (sandbox.cluster(ALPHA)?.nodes, sandbox.cluster(BETA)?.nodes);
        assert_eq!((here.main, there.main, here.epoch), (Some(ALPHA), Some(ALPHA), there.epoch));
        assert_eq!(sandbox.rows_lost(&writer.stop(), ALPHA).await?, Vec::<i64>::new());
        sandbox.doctor_clean().await
    });
}

/// Four hours of attempts are too long for a test: the journal of a supervisor that is dead is continued by hand.
async fn continue_run(sandbox: &Sandbox, facts: Vec<Event>) -> Done<()> {
    let run = sandbox.cluster(BETA)?.runs.newest().unwrap().id;
    let identity = Identity { cluster_id: sandbox.cluster_id(), node_id: BETA };
    let journal = Journal::open(&sandbox.node(BETA)?.journal(), identity, Arc::new(SystemEnv)).unwrap();
    let drafts: Vec<Draft> = facts.into_iter().map(|fact| Draft::new(Epoch(1), fact).in_run(run)).collect();
    let stored = journal.append(&drafts).unwrap();
    tokio::task::spawn_blocking(move || stored.blocking_recv()).await.unwrap().unwrap().unwrap();
    Ok(())
}

/// An attempt at the promotion is under way, after which so many are left.
fn attempt_with(left: u32) -> StepStarted {
    let StepRule { step, attempts, limit_ms, .. } = *rule(RunKind::Failover, StepId::Promote);
    StepStarted { step, attempt: attempts - left, limit_ms }
}

/// The attempts are used up, and the supervisor has died when it was about to withdraw the promotion.
async fn cut_off_in_withdrawing(sandbox: &Sandbox) -> Done<()> {
    let StepStarted { step, attempt, .. } = attempt_with(0);
    let unknown = StepFinished {
        step,
        attempt,
        outcome: StepOutcome::Unknown,
        detail: "no outcome".to_owned(),
        observed: serde_json::Map::new(),
        took_ms: 60_000,
    };
    let facts = vec![attempt_with(0).into(), unknown.into(), StepUndoStarted { step }.into()];
    continue_run(sandbox, facts).await
}

#[test]
fn a_promotion_whose_attempts_are_used_up_is_withdrawn_and_the_old_main_may_come_back() {
    run(async {
        let sandbox = pending(two_nodes().patience(Duration::from_secs(150))).await?;
        let before = sandbox.postmaster_pid(BETA);
        sandbox.kill_supervisor(BETA);
        continue_run(&sandbox, vec![attempt_with(1).into()]).await?;
        sandbox.start_supervisor(BETA)?;
        let made = sandbox.wait_run_ended(BETA).await?;
        assert_eq!(made.end, RunEnd::NeedsOperator, "{:?}", made.problem);
        let problem = made.problem.as_ref().unwrap();
        for message in
            ["is withdrawn", "started again as a standby", "nothing is pending", "interrex promote"]
        {
            assert!(problem.contains(message), "{problem}");
        }
        assert_eq!(
            (made.step(StepId::Promote).undo, made.step(StepId::Detach).undo),
            (Undo::Done, Undo::Done)
        );
        assert!(!is_asked(&sandbox));
        assert_ne!(sandbox.postmaster_pid(BETA), before, "a server that was asked runs on");

        sandbox.start_supervisor(ALPHA)?;
        sandbox.wait_streaming(ALPHA, BETA).await?;
        let writer = sandbox.start_writer(100.0)?;
        writer.wait_acknowledged(50, LIMIT).await?;
        for node in [ALPHA, BETA] {
            sandbox.wait_healthy(node).await?;
        }
        assert!(sandbox.takes_writes(ALPHA).await && !sandbox.takes_writes(BETA).await);
        let (here, there) = (sandbox.cluster(ALPHA)?.nodes, sandbox.cluster(BETA)?.nodes);
        assert_eq!((here.main, there.main, here.epoch), (Some(ALPHA), Some(ALPHA), there.epoch));
        assert_eq!(sandbox.rows_lost(&writer.stop(), ALPHA).await?, Vec::<i64>::new());
        sandbox.doctor_clean().await
    });
}

#[test]
fn a_server_that_hangs_is_stopped_to_withdraw_its_promotion() {
    run(async {
        let sandbox = pending(two_nodes()).await?;
        sandbox.kill_supervisor(BETA);
        cut_off_in_withdrawing(&sandbox).await?;
        assert!(sandbox.signal_postgres(BETA, Signal::STOP) > 1);
        sandbox.start_supervisor(BETA)?;
        let made = sandbox.wait_run_ended(BETA).await?;
        assert_eq!(made.end, RunEnd::NeedsOperator, "{:?}", made.problem);
        assert!(made.problem.as_ref().unwrap().contains("started again as a standby"), "{:?}", made.problem);
        assert!(!is_asked(&sandbox) && !sandbox.takes_writes(BETA).await);
        Ok(())
    });
}

#[test]
fn a_promotion_that_had_begun_stays_stopped_and_the_message_leads_to_a_main_again() {
    run(async {
        let sandbox = pending(two_nodes()).await?;
        let folder = sandbox.node(BETA)?.data_dir();
        let (signal, aside) = (folder.join("standby.signal"), folder.with_file_name("standby.signal"));
        sandbox.kill_supervisor(BETA);
        sandbox.kill_postgres(BETA);
        std::fs::rename(&signal, &aside).unwrap();
        cut_off_in_withdrawing(&sandbox).await?;
        // whoever starts it must not start a second main
        sandbox.start_supervisor(BETA)?;
        let made = sandbox.wait_run_ended(BETA).await?;
        assert_eq!(made.end, RunEnd::NeedsOperator, "{:?}", made.problem);
        assert!(made.problem.as_ref().unwrap().contains("create standby.signal"), "{:?}", made.problem);
        assert_eq!(sandbox.postmaster_pid(BETA), None);

        sandbox.kill_supervisor(BETA);
        sandbox.start_supervisor(BETA)?;
        let would_be_a_second_main = |report: &interrex_actors::wire::NodeReport| {
            report.problems.iter().any(|problem| problem.contains("second main"))
        };
        sandbox.wait_health(BETA, "it says why it starts no primary", would_be_a_second_main).await?;
        assert_eq!(sandbox.postmaster_pid(BETA), None);

        std::fs::rename(&aside, &signal).unwrap();
        sandbox.kill_supervisor(BETA);
        sandbox.start_supervisor(BETA)?;
        sandbox
            .wait_health(BETA, "a standby", |report| report.postgres.status == PostgresStatus::Detached)
            .await?;
        let config = sandbox.node(BETA)?.config();
        let asked = move || interrex_with(&["promote", "--config", &config.to_string_lossy()], &[]);
        let said = tokio::task::spawn_blocking(asked).await.unwrap()?;
        assert!(said.status.success(), "{said:?}");
        assert!(sandbox.takes_writes(BETA).await);
        Ok(())
    });
}

#[test]
fn a_promotion_that_succeeded_while_nobody_looked_is_recognised_and_the_old_main_yields() {
    run(async {
        let sandbox = pending(two_nodes()).await?;
        sandbox.kill_supervisor(BETA);
        assert_eq!(sandbox.signal_replay(BETA, Signal::CONT), 1);
        until("it is promoted", LIMIT, || async {
            if sandbox.takes_writes(BETA).await { Ok(()) } else { Err("it is a standby".to_owned()) }
        })
        .await?;
        sandbox.start_supervisor(BETA)?;
        let made = sandbox.wait_run_ended(BETA).await?;
        assert_eq!((made.end, made.resumed), (RunEnd::Completed, 1), "{:?}", made.problem);
        assert_eq!(made.step(StepId::Promote).observed["timeline"], 2);
        sandbox.start_supervisor(ALPHA)?;
        sandbox.wait_health(ALPHA, "fenced", |report| report.status == NodeStatus::Fenced).await?;
        assert!(!sandbox.takes_writes(ALPHA).await && sandbox.takes_writes(BETA).await);
        Ok(())
    });
}

#[test]
fn a_promotion_that_had_begun_when_main_serves_again_leaves_the_server_stopped() {
    run(async {
        let sandbox = pending(two_nodes()).await?;
        // a server that ends its recovery removes this first
        std::fs::remove_file(sandbox.node(BETA)?.data_dir().join("standby.signal")).unwrap();
        let made = resumes_beside_a_main_that_is_back(&sandbox).await?;
        assert_eq!(made.end, RunEnd::Failed, "{:?}", made.problem);
        assert!(made.problem.as_ref().unwrap().contains("interrex rejoin"), "{:?}", made.problem);
        assert_eq!(sandbox.postmaster_pid(BETA), None);
        assert!(sandbox.takes_writes(ALPHA).await);

        // and the message leads to a standby again
        let config = sandbox.node(ALPHA)?.config();
        let asked = move || interrex_with(&["rejoin", "beta", "--config", &config.to_string_lossy()], &[]);
        let said = tokio::task::spawn_blocking(asked).await.unwrap()?;
        assert!(said.status.success(), "{said:?}");
        sandbox.wait_streaming(ALPHA, BETA).await?;
        for node in [ALPHA, BETA] {
            sandbox.wait_healthy(node).await?;
        }
        assert!(sandbox.takes_writes(ALPHA).await && !sandbox.takes_writes(BETA).await);
        Ok(())
    });
}
