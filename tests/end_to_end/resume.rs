//! The secondary's supervisor dies at every step of the run, before its effect and after it, and its
//! successor finishes the run.

use std::time::Duration;

use interrex::sandbox::{ALPHA, BETA};
use interrex_actors::env::{Env, SystemEnv};
use interrex_events::Event;
use interrex_projections::RunEnd;
use interrex_tests::run;

use crate::{checks::sound_failover, two_nodes};

fn dies_at(barrier: &'static str) {
    run(async move {
        let sandbox = two_nodes().build().await?;
        sandbox.set_environment(BETA, "INTERREX_BARRIER", Some(barrier));
        sandbox.start().await?;
        let writer = sandbox.start_writer(100.0)?;
        writer.wait_acknowledged(20, Duration::from_secs(30)).await?;
        sandbox.kill_everything_of(ALPHA);
        let end = sandbox.wait_supervisor_ended(BETA).await?;
        assert!(std::os::unix::process::ExitStatusExt::signal(&end) == Some(9), "it ended by itself: {end}");
        assert!(sandbox.cluster(BETA)?.runs.newest().unwrap().is_running(), "it died too late");

        sandbox.set_environment(BETA, "INTERREX_BARRIER", None);
        sandbox.start_supervisor(BETA)?;
        let run = sandbox.wait_run_ended(BETA).await?;
        assert_eq!(run.resumed, 1);
        sandbox
            .wait_event(BETA, "run_resumed", |envelope| matches!(envelope.event, Event::RunResumed(_)))
            .await?;
        writer
            .wait_ack_by(sandbox.node(BETA)?.postgres_port, SystemEnv.moment(), Duration::from_secs(30))
            .await?;
        sound_failover(&sandbox, &run, &writer.stop()).await
    });
}

/// The verdict that a resumed run began with is old: main is asked once more before what cannot be taken back.
fn main_is_back_when_it_resumes(barrier: &'static str) {
    run(async move {
        let sandbox = two_nodes().build().await?;
        sandbox.set_environment(BETA, "INTERREX_BARRIER", Some(barrier));
        sandbox.start().await?;
        sandbox.kill_everything_of(ALPHA);
        sandbox.wait_supervisor_ended(BETA).await?;
        sandbox.set_environment(BETA, "INTERREX_BARRIER", None);
        sandbox.start_supervisor(ALPHA)?;
        sandbox.wait_healthy(ALPHA).await?;
        let writer = sandbox.start_writer(100.0)?;
        writer.wait_acknowledged(50, Duration::from_secs(30)).await?;

        sandbox.start_supervisor(BETA)?;
        let run = sandbox.wait_run_ended(BETA).await?;
        assert_eq!(run.end, RunEnd::Refused, "{:?}", run.problem);
        sandbox.wait_streaming(ALPHA, BETA).await?;
        assert!(sandbox.takes_writes(ALPHA).await && !sandbox.takes_writes(BETA).await);
        let acknowledged = writer.stop();
        assert_eq!(sandbox.rows_lost(&acknowledged, ALPHA).await?, Vec::<i64>::new());
        Ok(())
    });
}

#[test]
fn it_yields_to_a_main_that_is_back_before_it_is_fenced() {
    main_is_back_when_it_resumes("before:fence_old_main");
}

#[test]
fn it_yields_to_a_main_that_is_back_before_the_promotion_and_follows_it_again() {
    main_is_back_when_it_resumes("before:promote");
}

macro_rules! dies {
    ($($step:ident),+ $(,)?) => {
        mod before_the_effect {
            $( #[test] fn $step() { super::dies_at(concat!("before:", stringify!($step))); } )+
        }
        mod after_the_effect {
            $( #[test] fn $step() { super::dies_at(concat!("after:", stringify!($step))); } )+
        }
        #[test]
        fn every_step_with_an_effect_is_among_them() {
            let names = [$(stringify!($step)),+];
            let recorded: Vec<&str> = crate::checks::recorded().iter().map(|step| step.name()).collect();
            assert_eq!(recorded, names);
        }
    };
}

dies!(
    win_epoch,
    measure_loss,
    fence_old_main,
    detach,
    sanitise_settings,
    promote,
    promote_redis,
    open_epoch,
    restart_dependents,
    notify_peers,
    prepare_rejoin,
    run_hooks,
);
