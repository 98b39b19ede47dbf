//! How long after main's host falls silent its successor's PostgreSQL is asked to promote.

use std::time::Duration;

use interrex::sandbox::{ALPHA, BETA, Done, Sandbox};
use interrex_actors::env::{Env as _, SystemEnv};
use interrex_events::{Event, StepId};
use rustix::process::Signal;

use crate::figure::{Figure, wall_ms};

const THRESHOLD: Duration = Duration::from_secs(1);

/// The threshold is the floor: nothing may be asked before it is over.
pub(crate) async fn measure(runs: u32) -> Done<Vec<Figure>> {
    let (mut decisions, mut requests) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        let (decided, requested) = silence().await?;
        eprintln!(
            "run {run} of {runs}: decided after {decided:.0} ms, promotion asked for after {requested:.0} ms"
        );
        decisions.push(decided);
        requests.push(requested);
    }
    let floor = vec![THRESHOLD.as_secs_f64() * 1_000.0; requests.len()];
    Ok(vec![
        Figure::of("silence_to_decision", "ms", &decisions),
        Figure::of("silence_to_promote_request", "ms", &requests).beside(&floor),
    ])
}

async fn silence() -> Done<(f64, f64)> {
    let sandbox = Sandbox::builder(interrex_tests::interrex())
        .postgres_only()
        .threshold(THRESHOLD)
        .probe_interval(Duration::from_millis(250))
        .probe_timeout(Duration::from_millis(500))
        .build()
        .await?;
    sandbox.start().await?;
    for node in [ALPHA, BETA] {
        sandbox.wait_healthy(node).await?;
    }
    let cut = SystemEnv.moment();
    sandbox.signal_postgres(ALPHA, Signal::STOP);
    sandbox.signal_supervisor(ALPHA, Signal::STOP);
    let decides = |event: &Event| matches!(event, Event::FailoverStarted(_));
    let decided = sandbox.wait_event(BETA, "failover_started", |envelope| decides(&envelope.event)).await?;
    let asks = |event: &Event| matches!(event, Event::StepStarted(it) if it.step == StepId::Promote);
    let asked = sandbox.wait_event(BETA, "promote", |envelope| asks(&envelope.event)).await?;
    sandbox.teardown()?;
    Ok((wall_ms(decided.recorded_at - cut.wall), wall_ms(asked.recorded_at - cut.wall)))
}
