//! What a switchover or a rejoin would do is told without a trace of it.

use std::{
    fs::{self, File},
    time::Duration,
};

use interrex::sandbox::{ALPHA, BETA, Done, Sandbox, SandboxError, until};
use interrex_actors::failover::plan::Plan;
use interrex_events::{KINDS, Recorder, RunKind, StepId};
use interrex_projections::{RunEnd, StepState};
use interrex_tests::run;
use rustix::process::Signal;

use crate::{
    checks::session,
    rejoin::{back_and_fenced, newest, parted, rejoin},
    switchover::switch,
    two_nodes,
};

const LIMIT: Duration = Duration::from_secs(100);

/// What `interrex switchover --dry-run --json` says, and with which exit code.
async fn planned(sandbox: &Sandbox, to: &str) -> Done<(Option<i32>, Plan)> {
    let said = switch(sandbox, ALPHA, to, &["--dry-run", "--json", "--drain", "7s"]).await?;
    let plan = serde_json::from_slice(&said.stdout);
    Ok((said.status.code(), plan.map_err(|error| SandboxError::failed(format!("{said:?}"), error))?))
}

/// What a node's journal holds that somebody decided.
fn decisions(sandbox: &Sandbox) -> Done<Vec<String>> {
    let by_the_decider = |kind: &str| {
        let known = KINDS.iter().find(|known| known.name == kind);
        known.is_none_or(|known| known.recorded_by.contains(&Recorder::FailoverActor))
    };
    let events = sandbox.events(ALPHA)?.into_iter().map(|envelope| envelope.event.kind().to_owned());
    Ok(events.filter(|kind| by_the_decider(kind)).collect())
}

/// The value that a check observed.
fn observed(plan: &Plan, name: &str) -> Option<u64> {
    plan.checks.iter().find_map(|check| check.observed.get(name)?.as_u64())
}

#[test]
fn a_dry_run_tells_what_is_and_leaves_no_trace() {
    run(async {
        let sandbox = two_nodes().postgres_only().threshold(2 * LIMIT).build().await?;
        sandbox.start().await?;
        for node in [ALPHA, BETA] {
            sandbox.wait_healthy(node).await?;
        }
        let idle = session(&sandbox, ALPHA).await?;
        idle.batch_execute("BEGIN; SELECT 1").await.unwrap();
        let (code, plan) = planned(&sandbox, "beta").await?;
        assert_eq!((code, plan.would_begin), (Some(0), true), "{plan:?}");
        assert_eq!((plan.kind, plan.old_main, plan.new_main), (RunKind::Switchover, ALPHA, BETA));
        assert_eq!(observed(&plan, "open_transactions"), Some(1), "{plan:?}");
        assert!(observed(&plan, "behind_bytes").is_some(), "{plan:?}");
        let drain = plan.steps.iter().find(|step| step.step == StepId::Drain).unwrap();
        assert_eq!((plan.loss_bytes, drain.limit_ms), (Some(0), 7_000));
        assert_eq!(plan.without_writes.measured, None);

        // one that is frozen says nothing at all
        sandbox.signal_supervisor(BETA, Signal::STOP);
        let (_, plan) = planned(&sandbox, "beta").await?;
        sandbox.signal_supervisor(BETA, Signal::CONT);
        assert!(plan.stopped_by().any(|check| check.detail.contains("no answer within")), "{plan:?}");

        sandbox.kill_supervisor(BETA);
        let (code, plan) = planned(&sandbox, "beta").await?;
        assert_eq!((code, plan.would_begin), (Some(1), false), "{plan:?}");
        let reasons: Vec<&str> = plan.stopped_by().map(|check| check.detail.as_str()).collect();
        assert!(
            matches!(&reasons[..], [only] if only.contains("supervisor of beta does not answer")),
            "{reasons:?}"
        );
        assert_eq!(decisions(&sandbox)?, Vec::<String>::new());
        assert!(sandbox.takes_writes(ALPHA).await);
        // the transaction that was open has lost nothing by it
        idle.batch_execute("COMMIT").await.unwrap();

        sandbox.start_supervisor(BETA)?;
        sandbox.wait_healthy(BETA).await?;
        let said = switch(&sandbox, ALPHA, "beta", &["--drain", "0s"]).await?;
        assert!(said.status.success(), "{said:?}");
        let switched = sandbox.cluster(ALPHA)?.runs.newest().cloned().unwrap();
        // the new main tells it as soon as it holds a copy of the old one's events
        let measured = until("it is told how long that took", LIMIT, || async {
            let (_, plan) = planned(&sandbox, "alpha").await.map_err(|error| error.to_string())?;
            plan.without_writes.measured.ok_or_else(|| format!("{plan:?}"))
        });
        let measured = measured.await?;
        assert_eq!((measured.runs, Some(measured.median_ms)), (1, switched.without_writes_ms));
        Ok(())
    });
}

/// What `interrex rejoin alpha --dry-run --json` says, and with which exit code.
pub(crate) async fn return_planned(sandbox: &Sandbox, more: &[&str]) -> Done<(Option<i32>, Plan)> {
    let said = rejoin(sandbox, BETA, &[&["--dry-run", "--json"], more].concat()).await?;
    let plan = serde_json::from_slice(&said.stdout);
    Ok((said.status.code(), plan.map_err(|error| SandboxError::failed(format!("{said:?}"), error))?))
}

#[test]
fn what_would_stop_a_rejoin_is_named_before_anything_is_done() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        let _writer = parted(&sandbox).await?;
        back_and_fenced(&sandbox).await?;
        let before = decisions(&sandbox)?;
        // the only thing that speaks against it: subject and message
        let stopped_by = async |more: &[&str], subject: &str, message: &str| {
            let (code, plan) = return_planned(&sandbox, more).await?;
            let reasons: Vec<_> = plan.stopped_by().collect();
            assert_eq!((code, plan.would_begin), (Some(1), false), "{plan:?}");
            assert!(
                matches!(reasons[..], [only] if only.subject == subject && only.detail.contains(message)),
                "{reasons:?}"
            );
            Done::Ok(())
        };
        let (code, plan) = return_planned(&sandbox, &[]).await?;
        let subjects: Vec<&str> = plan.checks.iter().map(|check| check.subject.as_str()).collect();
        assert_eq!(subjects, ["lineage", "slot on main", "replication login", "room"]);
        assert_eq!((code, plan.would_begin), (Some(0), true), "{plan:?}");

        // main has no slot for it, and none that is free
        let fill = "SELECT pg_drop_replication_slot('replica_1');
            SELECT pg_create_physical_replication_slot('spare_' || number)
            FROM generate_series(1, current_setting('max_replication_slots')::int
                                    - (SELECT count(*)::int FROM pg_replication_slots)) AS number";
        let slots = "SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots";
        for statement in fill.split(';') {
            sandbox.psql(BETA, statement).await?;
        }
        let there = sandbox.psql_value(BETA, slots).await?;
        stopped_by(&[], "slot on main", "max_replication_slots").await?;
        assert_eq!(sandbox.psql_value(BETA, slots).await?, there);
        let drop =
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name ~ '^spare'";
        sandbox.psql(BETA, drop).await?;
        let (_, plan) = return_planned(&sandbox, &[]).await?;
        assert!(plan.would_begin, "it would be made: {plan:?}");
        assert!(!sandbox.psql_value(BETA, slots).await?.contains("replica_1"));

        // no room for a copy of main's data: a file there that is long, and takes none
        let long = sandbox.node(BETA)?.data_dir().join("base/long");
        File::create(&long).unwrap().set_len(1 << 43).unwrap();
        stopped_by(&["--copy"], "room", "too little space").await?;
        fs::remove_file(long).unwrap();
        let (_, plan) = return_planned(&sandbox, &["--copy"]).await?;
        assert!(plan.would_begin, "{plan:?}");

        // the standby's password is another one
        let passfile = sandbox.node(ALPHA)?.secrets_dir().join("replication.pgpass");
        let right = fs::read_to_string(&passfile).unwrap();
        fs::write(&passfile, "*:*:*:replicator:wrong\n").unwrap();
        stopped_by(&[], "replication login", "password authentication failed").await?;
        assert_eq!(decisions(&sandbox)?, before);
        // and the run itself finds it before it copies or rewrites anything
        let said = rejoin(&sandbox, ALPHA, &[]).await?;
        assert!(!said.status.success(), "{said:?}");
        let failed = newest(&sandbox, ALPHA)?;
        assert_eq!(failed.end, RunEnd::RolledBack);
        assert!(failed.step(StepId::CheckLineage).detail.contains("password authentication failed"));
        assert!(matches!(failed.step(StepId::KeepDiverged).state, StepState::Pending), "{failed:?}");

        fs::write(&passfile, right).unwrap();
        let said = rejoin(&sandbox, ALPHA, &[]).await?;
        assert!(said.status.success(), "{said:?}");
        sandbox.wait_streaming(BETA, ALPHA).await
    });
}
