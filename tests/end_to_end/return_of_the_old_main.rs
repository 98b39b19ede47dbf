//! The old main comes back and finds that its reign is over.

use std::time::Duration;

use interrex::sandbox::{ALPHA, BETA, until};
use interrex_actors::wire::NodeReport;
use interrex_events::{Event, PostgresStatus};
use interrex_projections::NodeStatus;
use interrex_tests::run;

use crate::two_nodes;

#[test]
fn it_stays_fenced_and_lets_no_client_in() {
    run(async {
        let sandbox = two_nodes().build().await?;
        sandbox.start().await?;
        sandbox.kill_everything_of(ALPHA);
        sandbox.wait_run_ended(BETA).await?;
        let before = sandbox.events(ALPHA)?.len();
        sandbox.start_supervisor(ALPHA)?;
        let fenced = |event: &Event| matches!(event, Event::NodeFenced(_));
        sandbox.wait_event(ALPHA, "node_fenced", |envelope| fenced(&envelope.event)).await?;
        let report =
            sandbox.wait_health(ALPHA, "fenced", |report| report.status == NodeStatus::Fenced).await?;
        assert_eq!((report.main, report.epoch), (Some(BETA), interrex_events::Epoch(2)));
        assert!(!report.healthy);
        let examined = sandbox.doctor(BETA).await?;
        for check in ["postgres_answers", "redis_answers"] {
            let found = examined.checks.iter().find(|it| it.check == check && it.node == Some(ALPHA));
            let fix = found.and_then(|it| it.fix.as_deref()).unwrap_or_default();
            assert!(fix.starts_with("interrex rejoin alpha"), "{check}: {fix}");
        }

        assert_eq!(sandbox.postmaster_pid(ALPHA), None);
        assert!(sandbox.redis(ALPHA, &["PING"]).await.is_err());
        let events = sandbox.events(ALPHA)?;
        let served = events[before..].iter().any(|envelope| {
            matches!(&envelope.event, Event::PostgresChanged(changed) if changed.status == PostgresStatus::Primary)
        });
        assert!(!served, "it served before it learned of its successor");
        let log = std::fs::read_to_string(sandbox.node(ALPHA)?.postgres_log()).unwrap();
        assert_eq!(log.matches("ready to accept connections").count(), 1, "it was started: {log}");
        // and again: being fenced outlives the supervisor
        sandbox.kill_supervisor(ALPHA);
        sandbox.start_supervisor(ALPHA)?;
        sandbox.wait_health(ALPHA, "fenced", |report| report.status == NodeStatus::Fenced).await?;
        assert_eq!(sandbox.postmaster_pid(ALPHA), None);
        assert!(sandbox.takes_writes(BETA).await);
        Ok(())
    });
}

#[test]
fn a_postgresql_that_somebody_started_by_hand_is_stopped() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        sandbox.start().await?;
        sandbox.kill_everything_of(ALPHA);
        sandbox.wait_run_ended(BETA).await?;
        sandbox.start_postgres(ALPHA).await?;
        assert!(sandbox.takes_writes(ALPHA).await, "the test wants two mains to begin with");
        let told = |report: &NodeReport| report.problems.iter().any(|problem| problem.contains("TWO MAINS"));
        sandbox.wait_health(BETA, "it tells of the other one", told).await?;
        sandbox.start_supervisor(ALPHA)?;
        sandbox.wait_health(ALPHA, "fenced", |report| report.status == NodeStatus::Fenced).await?;
        assert!(!sandbox.takes_writes(ALPHA).await);
        assert_eq!(sandbox.postmaster_pid(ALPHA), None);
        Ok(())
    });
}

#[test]
fn a_fenced_postgresql_that_somebody_starts_under_its_supervisor_is_stopped_again() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        sandbox.start().await?;
        sandbox.kill_everything_of(ALPHA);
        sandbox.wait_run_ended(BETA).await?;
        sandbox.start_supervisor(ALPHA)?;
        sandbox.wait_health(ALPHA, "fenced", |report| report.status == NodeStatus::Fenced).await?;
        // it may be stopped before pg_ctl has seen it run
        let _ = sandbox.start_postgres(ALPHA).await;
        let proofs = || async {
            let events = sandbox.events(ALPHA).map_err(|error| error.to_string())?;
            let proofs =
                events.iter().filter(|envelope| matches!(envelope.event, Event::NodeFenced(_))).count();
            if proofs == 2 { Ok(()) } else { Err(format!("{proofs} proofs of a fence")) }
        };
        until("it is fenced again", Duration::from_secs(30), proofs).await?;
        assert_eq!(sandbox.postmaster_pid(ALPHA), None);
        assert!(!sandbox.takes_writes(ALPHA).await);
        Ok(())
    });
}

#[test]
fn a_main_that_restarts_without_a_successor_goes_on_as_main() {
    run(async {
        let sandbox = two_nodes().build().await?;
        sandbox.start().await?;
        sandbox.kill_supervisor(BETA);
        sandbox.kill_everything_of(ALPHA);
        sandbox.start_supervisor(ALPHA)?;
        sandbox.wait_healthy(ALPHA).await?;
        let alone = |event: &Event| matches!(event, Event::StartedUnconfirmed(_));
        sandbox.wait_event(ALPHA, "started_unconfirmed", |envelope| alone(&envelope.event)).await?;
        assert!(sandbox.takes_writes(ALPHA).await);
        Ok(())
    });
}
