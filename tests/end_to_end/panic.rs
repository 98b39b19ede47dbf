//! An actor panics inside a real supervisor.

use std::time::Duration;

use interrex::sandbox::{ALPHA, BETA};
use interrex_actors::env::{Env, SystemEnv};
use interrex_events::{Event, StepId, StepOutcome};
use interrex_tests::run;

use crate::{checks::sound_failover, two_nodes};

#[test]
fn it_is_survived_counted_and_visible_and_the_next_failover_works() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        sandbox.set_environment(BETA, "INTERREX_BARRIER", Some("panic:heartbeat"));
        sandbox.start().await?;
        let restarted = |event: &Event| matches!(event, Event::ActorRestarted(it) if it.actor == "heartbeat");
        sandbox.wait_event(BETA, "actor_restarted", |envelope| restarted(&envelope.event)).await?;
        let report = sandbox.wait_healthy(BETA).await?;
        assert_eq!(report.actors["heartbeat"].restarts, 1);
        let writer = sandbox.start_writer(100.0)?;
        writer.wait_acknowledged(20, Duration::from_secs(30)).await?;
        let seen = |event: &Event| matches!(event, Event::MainSeen(_));
        sandbox.wait_event(BETA, "main_seen", |envelope| seen(&envelope.event)).await?;
        sandbox.kill_everything_of(ALPHA);
        let run = sandbox.wait_run_ended(BETA).await?;
        writer
            .wait_ack_by(sandbox.node(BETA)?.postgres_port, SystemEnv.moment(), Duration::from_secs(30))
            .await?;
        sound_failover(&sandbox, &run, &writer.stop()).await
    });
}

#[test]
fn in_the_middle_of_a_step_it_makes_the_run_try_that_step_again() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        sandbox.set_environment(BETA, "INTERREX_BARRIER", Some("panic:detach"));
        sandbox.start().await?;
        let writer = sandbox.start_writer(100.0)?;
        writer.wait_acknowledged(20, Duration::from_secs(30)).await?;
        sandbox.kill_everything_of(ALPHA);
        let run = sandbox.wait_run_ended(BETA).await?;
        assert_eq!(run.step(StepId::Detach).attempts, 2);
        let told = sandbox.events(BETA)?.into_iter().find_map(|it| match it.event {
            Event::StepFinished(it) if it.step == StepId::Detach => Some((it.outcome, it.detail)),
            _ => None,
        });
        let (outcome, detail) = told.unwrap();
        assert!(
            outcome == StepOutcome::Unknown && detail.contains("it panicked: the test asked for it"),
            "{detail}"
        );
        // the actor that made it lives on, with all that it knew
        assert_eq!(sandbox.health(BETA).await?.report.actors["replication"].restarts, 0);
        let beta = sandbox.node(BETA)?.postgres_port;
        writer.wait_ack_by(beta, SystemEnv.moment(), Duration::from_secs(30)).await?;
        sound_failover(&sandbox, &run, &writer.stop()).await
    });
}
