//! How long nobody acknowledges a write when main dies, and how much of it is Interrex's own doing.

use std::time::Duration;

use interrex::sandbox::{ALPHA, BETA, Builder, Done, Sandbox};
use interrex_actors::env::{Env, SystemEnv};
use interrex_events::Event;

use crate::{
    by_hand,
    figure::{Figure, ms_between, wall_ms},
};

/// Main may be silent for so long; the figures of detection contain it.
const THRESHOLD: Duration = Duration::from_secs(1);
/// One row a millisecond, so that the client's rhythm hides nothing.
const ROWS_PER_SECOND: f64 = 1_000.0;
const PATIENCE: Duration = Duration::from_secs(30);

struct Failover {
    total: f64,
    detection: f64,
    promotion: f64,
}

/// Runs of both kinds, in turn.
pub(crate) async fn measure(runs: u32) -> Done<Vec<Figure>> {
    let mut failovers = Vec::new();
    let mut floors = Vec::new();
    for run in 1..=runs {
        let failover = failover().await?;
        let floor = bare_promotion().await?;
        eprintln!(
            "run {run} of {runs}: {:.0} ms (detect {:.0}, promote {:.0}); bare pg_promote() {floor:.0}",
            failover.total, failover.detection, failover.promotion
        );
        failovers.push(failover);
        floors.push(floor);
    }
    let of = |pick: fn(&Failover) -> f64| failovers.iter().map(pick).collect::<Vec<f64>>();
    Ok(vec![
        Figure::of("failover_kill_to_first_write", "ms", &of(|failover| failover.total)),
        Figure::of("failover_detection", "ms", &of(|failover| failover.detection)),
        Figure::of("failover_decision_to_first_write", "ms", &of(|failover| failover.promotion))
            .beside(&floors),
        Figure::of("bare_promotion_to_first_write", "ms", &floors),
    ])
}

fn cluster() -> Builder {
    Sandbox::builder(interrex_tests::interrex())
        .postgres_only()
        .threshold(THRESHOLD)
        .probe_interval(Duration::from_millis(100))
        .probe_timeout(Duration::from_millis(500))
}

/// SIGKILL of main's PostgreSQL and supervisor, until the client is told of a commit again.
async fn failover() -> Done<Failover> {
    let sandbox = cluster().build().await?;
    sandbox.start().await?;
    let writer = sandbox.start_writer(ROWS_PER_SECOND)?;
    writer.wait_acknowledged(500, PATIENCE).await?;
    // no Redis, no RADIUS: everything of this node is PostgreSQL and the supervisor
    let killed = sandbox.kill_everything_of(ALPHA);
    let first = writer.wait_ack_by(sandbox.node(BETA)?.postgres_port, killed, PATIENCE).await?;
    sandbox.wait_run_ended(BETA).await?;
    let started = |event: &Event| matches!(event, Event::FailoverStarted(_));
    let decided = sandbox.wait_event(BETA, "failover_started", |envelope| started(&envelope.event)).await?;
    sandbox.teardown()?;
    Ok(Failover {
        total: ms_between(killed, first.at),
        detection: wall_ms(decided.recorded_at - killed.wall),
        promotion: wall_ms(first.at.wall - decided.recorded_at),
    })
}

/// The same without Interrex: `SELECT pg_promote()` on a connection that is open already, once main has been
/// dead for the threshold, until the client is told of a commit again.
async fn bare_promotion() -> Done<f64> {
    let sandbox = cluster().build().await?;
    sandbox.start_postgres(ALPHA).await?;
    sandbox.start_postgres(BETA).await?;
    sandbox.wait_streaming(ALPHA, BETA).await?;
    let writer = sandbox.start_writer(ROWS_PER_SECOND)?;
    writer.wait_acknowledged(500, PATIENCE).await?;
    let client = by_hand::connect(&sandbox, BETA).await?;
    sandbox.kill_postgres(ALPHA);
    tokio::time::sleep(THRESHOLD).await;
    let asked = SystemEnv.moment();
    by_hand::promote(&client).await?;
    let first = writer.wait_ack_by(sandbox.node(BETA)?.postgres_port, asked, PATIENCE).await?;
    sandbox.teardown()?;
    Ok(ms_between(asked, first.at))
}
