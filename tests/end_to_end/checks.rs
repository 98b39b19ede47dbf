//! What holds after every failover, whatever happened on the way.

use std::time::Duration;

use interrex::sandbox::{ALPHA, Acknowledged, BETA, Done, Sandbox, until};
use interrex_events::{Epoch, Event, NodeId, RunKind, StepId, StepOutcome};
use interrex_projections::{Run, RunEnd, StepState, postgres::Table};

/// A session of one's own, which may hold a transaction open.
pub(crate) async fn session(sandbox: &Sandbox, node: NodeId) -> Done<tokio_postgres::Client> {
    sandbox.session(node, "postgres").await
}

/// Waits until main has made the tables of Interrex itself: made later, they would be among what only one node has. The
/// projections' are the last.
pub(crate) async fn has_its_own_tables(sandbox: &Sandbox, main: NodeId) -> Done<()> {
    until("main has its own tables", Duration::from_secs(30), || async {
        let live = "SELECT count(*) FROM interrex.projection_checkpoints WHERE state = 'live'";
        match sandbox.psql_value(main, live).await {
            Ok(count) if count == Table::ALL.len().to_string() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// The steps that are recorded as intent and outcome; the first and the last are events themselves.
pub(crate) fn recorded() -> &'static [StepId] {
    &RunKind::Failover.steps()[1..13]
}

/// The run ended well, main is one, the epoch grew by one, every intent has its outcome, the chain is sound,
/// and what the client was told is committed is on the new main, up to the loss that the events state.
pub(crate) async fn sound_failover(sandbox: &Sandbox, run: &Run, acknowledged: &Acknowledged) -> Done<()> {
    assert_eq!(run.end, RunEnd::Completed, "{:?}", run.problem);
    assert_eq!((run.old_main, run.new_main, run.epoch), (ALPHA, BETA, Epoch(2)));

    let nodes = sandbox.cluster(BETA)?.nodes;
    assert_eq!((nodes.main, nodes.epoch), (Some(BETA), Epoch(2)));
    assert!(sandbox.takes_writes(BETA).await, "the new main takes no writes");
    assert!(!sandbox.takes_writes(ALPHA).await, "the old main takes writes too");

    intents_and_outcomes(sandbox)?;
    let verification = sandbox.journal(BETA)?.verify().unwrap();
    assert_eq!(verification.broken, None);

    stated_in_postgres(sandbox).await?;
    loss_is_as_stated(sandbox, run, acknowledged).await
}

/// Every attempt at every step has its intent before its outcome, and every step succeeded in the end.
fn intents_and_outcomes(sandbox: &Sandbox) -> Done<()> {
    let events = sandbox.events(BETA)?;
    let place = |wanted: &dyn Fn(&Event) -> bool| events.iter().position(|envelope| wanted(&envelope.event));
    for step in recorded() {
        let attempts = events
            .iter()
            .filter(|envelope| matches!(&envelope.event, Event::StepStarted(it) if it.step == *step));
        for attempt in 1..=u32::try_from(attempts.count()).unwrap() {
            let begin = place(
                &|event| matches!(event, Event::StepStarted(it) if it.step == *step && it.attempt == attempt),
            );
            let end = place(
                &|event| matches!(event, Event::StepFinished(it) if it.step == *step && it.attempt == attempt),
            );
            assert!(
                begin.is_some() && end > begin,
                "{step}, attempt {attempt}: intent at {begin:?}, outcome at {end:?}"
            );
        }
    }
    let cluster = sandbox.cluster(BETA)?;
    let run = cluster.runs.newest().unwrap();
    for (step, state) in &run.steps {
        assert!(
            matches!(state.state, StepState::Ended(outcome) if outcome.is_success()),
            "{step}: {state:?}"
        );
    }
    assert_eq!(run.step(StepId::Promote).observed["timeline"], 2);
    Ok(())
}

/// `cluster_events`, `cluster_nodes` and `cluster_config` say the same as the journal.
async fn stated_in_postgres(sandbox: &Sandbox) -> Done<()> {
    let config = sandbox
        .psql_value(
            BETA,
            "SELECT concat(server_role, ' ', main_node_id, ' ', epoch) FROM interrex.cluster_config",
        )
        .await?;
    assert_eq!(config, "main 2 2");
    let roles = sandbox
        .psql_value(BETA, "SELECT string_agg(concat(node_id, ' ', role), ', ' ORDER BY node_id) FROM interrex.cluster_nodes")
        .await?;
    assert_eq!(roles, "1 secondary, 2 main");
    let gaps = sandbox.psql_value(BETA, "SELECT max(pos) - count(*) FROM interrex.cluster_events").await?;
    assert_eq!(gaps, "0", "pos has gaps");
    Ok(())
}

/// Rows may be missing only if the client was told of them after main's last report that this node had
/// everything of: that is the window which the run states as its loss.
async fn loss_is_as_stated(sandbox: &Sandbox, run: &Run, acknowledged: &Acknowledged) -> Done<()> {
    let lost = sandbox.rows_lost(acknowledged, BETA).await?;
    if lost.is_empty() {
        return Ok(());
    }
    let loss = run.loss.as_ref().unwrap();
    assert!(loss.lower_bound && loss.seconds.is_some(), "rows are lost and the run states no loss: {loss:?}");
    let report = run.last_report.as_ref().unwrap();
    let held_until = if loss.bytes == Some(0) { Some(report.reported_at) } else { report.caught_up_at };
    let held_until = held_until.unwrap();
    for row in acknowledged.0.iter().filter(|row| lost.contains(&row.id)) {
        assert!(
            row.at.wall > held_until,
            "row {} is lost, and the run states that it is not: {loss:?}",
            row.id
        );
    }
    Ok(())
}

/// A step's outcome in a run.
pub(crate) fn outcome(run: &Run, step: StepId) -> Option<StepOutcome> {
    match run.step(step).state {
        StepState::Ended(outcome) => Some(outcome),
        _ => None,
    }
}
