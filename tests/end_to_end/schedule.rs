//! A switchover at a time begins by itself, whoever died meanwhile, unless somebody cancels it.

use std::{process::Output, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use interrex::sandbox::{ALPHA, BETA, Done, Sandbox, SandboxError};
use interrex_actors::env::{Env as _, SystemEnv};
use interrex_events::{Cause, Event, RunKind, Unscheduling};
use interrex_projections::RunEnd;
use interrex_tests::run;

use crate::{bad_input::interrex_with, switchover::switch, two_nodes};

const LIMIT: Duration = Duration::from_secs(100);

async fn healthy_pair() -> Done<Sandbox> {
    let sandbox = two_nodes().postgres_only().threshold(2 * LIMIT).build().await?;
    sandbox.start().await?;
    for node in [ALPHA, BETA] {
        sandbox.wait_healthy(node).await?;
    }
    Ok(sandbox)
}

/// What `interrex switchover --to beta --at` says.
async fn scheduled(sandbox: &Sandbox, at: &str) -> Done<Output> {
    switch(sandbox, ALPHA, "beta", &["--drain", "0s", "--reason", "new disk", "--json", "--at", at]).await
}

/// When a schedule that was taken is due.
fn due(said: &Output) -> Done<DateTime<Utc>> {
    let odd = |error: String| SandboxError::failed(format!("{said:?}"), error);
    let told: serde_json::Value =
        serde_json::from_slice(&said.stdout).map_err(|error| odd(error.to_string()))?;
    let due = told["scheduled_for"].as_str().ok_or_else(|| odd("it names no time".to_owned()))?;
    due.parse().map_err(|_| odd("that is no time".to_owned()))
}

/// `interrex COMMAND` on main.
fn interrex_on_main(sandbox: &Sandbox, command: &[&str]) -> Done<Output> {
    let config = sandbox.node(ALPHA)?.config();
    interrex_with(&[command, &["--config", &config.to_string_lossy()]].concat(), &[])
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn it_begins_when_it_is_due_although_mains_supervisor_was_killed_meanwhile() {
    run(async {
        let sandbox = healthy_pair().await?;
        let due = due(&scheduled(&sandbox, "+6s").await?)?;
        sandbox.kill_supervisor(ALPHA);
        sandbox.start_supervisor(ALPHA)?;
        let begun = |it: &interrex_events::Envelope| matches!(it.event, Event::SwitchoverStarted(_));
        let begun = sandbox.wait_event(ALPHA, "it begins", begun).await?;
        assert!(begun.recorded_at >= due, "{} is before {due}", begun.recorded_at);
        assert!(matches!(&begun.actor, Cause::Person { .. }), "{:?}", begun.actor);
        let switched = sandbox.wait_run_ended(ALPHA).await?;
        assert_eq!((switched.kind, switched.end), (RunKind::Switchover, RunEnd::Completed), "{switched:?}");
        assert_eq!(switched.request.unwrap().reason.as_deref(), Some("new disk"));
        sandbox.wait_healthy(BETA).await?;
        assert!(sandbox.takes_writes(BETA).await);
        assert!(sandbox.cluster(ALPHA)?.runs.scheduled.is_empty());
        Ok(())
    });
}

#[test]
fn one_at_a_time_is_shown_and_can_be_cancelled() {
    run(async {
        let sandbox = healthy_pair().await?;
        let past = (SystemEnv.moment().wall - TimeDelta::hours(1)).to_rfc3339();
        let refused = scheduled(&sandbox, &past).await?;
        assert_eq!(refused.status.code(), Some(2));
        assert!(said(&refused).contains("is in the past"), "{}", said(&refused));

        due(&scheduled(&sandbox, "+1h").await?)?;
        let second = scheduled(&sandbox, "+2h").await?;
        assert_eq!(second.status.code(), Some(1));
        assert!(said(&second).contains("a switchover to beta is scheduled for"), "{}", said(&second));
        let shown = said(&interrex_on_main(&sandbox, &["status"])?);
        assert!(shown.contains("SCHEDULED") && shown.contains("(new disk)"), "{shown}");

        let cancelled = interrex_on_main(&sandbox, &["run", "cancel", "--reason", "wrong week"])?;
        assert!(cancelled.status.success(), "{}", said(&cancelled));
        let gone = |it: &interrex_events::Envelope| {
            matches!(&it.event, Event::SwitchoverUnscheduled(gone)
                if gone.because == Unscheduling::Cancelled && gone.detail == "wrong week")
        };
        sandbox.wait_event(ALPHA, "it is cancelled", gone).await?;
        let shown = said(&interrex_on_main(&sandbox, &["status"])?);
        assert!(!shown.contains("SCHEDULED"), "{shown}");
        let nothing = interrex_on_main(&sandbox, &["run", "cancel"])?;
        assert_eq!(nothing.status.code(), Some(1), "{}", said(&nothing));
        due(&scheduled(&sandbox, "+1h").await?)?;
        assert!(sandbox.cluster(ALPHA)?.runs.runs.is_empty());
        Ok(())
    });
}

#[test]
fn what_speaks_against_it_when_it_is_due_refuses_it_and_main_serves_on() {
    run(async {
        let sandbox = healthy_pair().await?;
        due(&scheduled(&sandbox, "+2s").await?)?;
        sandbox.kill_supervisor(BETA);
        let refused = sandbox.wait_run_ended(ALPHA).await?;
        assert_eq!(refused.end, RunEnd::Refused, "{refused:?}");
        assert!(refused.problem.unwrap().contains("supervisor of beta does not answer"));
        assert!(sandbox.takes_writes(ALPHA).await);
        assert!(sandbox.cluster(ALPHA)?.runs.scheduled.is_empty(), "it is not tried again");
        Ok(())
    });
}
