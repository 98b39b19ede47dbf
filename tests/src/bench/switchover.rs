//! How long nobody acknowledges a write when main hands its role over, beside the same by hand, without any proof.

use std::{process::Stdio, time::Duration};

use interrex::sandbox::{ALPHA, BETA, Builder, Done, Sandbox, SandboxError, Writer};
use interrex_actors::env::{Env, Moment, SystemEnv};
use interrex_adapters::runtime::Process;
use interrex_events::{Demotion, Event, NodeId};
use rustix::process::Signal;

use crate::{
    by_hand,
    figure::{Figure, ms_between},
};

const ROWS_PER_SECOND: f64 = 200.0;
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs of both kinds, in turn: one pair changes places again and again, the floor has a fresh pair each time.
pub(crate) async fn measure(runs: u32) -> Done<Vec<Figure>> {
    let sandbox = cluster().build().await?;
    sandbox.start().await?;
    let writer = sandbox.start_writer(ROWS_PER_SECOND)?;
    let (mut gaps, mut wholes, mut floors) = (Vec::new(), Vec::new(), Vec::new());
    let mut places = (ALPHA, BETA);
    for run in 1..=runs {
        let (gap, whole) = switchover(&sandbox, &writer, places).await?;
        places = (places.1, places.0);
        let floor = stop_and_promote().await?;
        eprintln!(
            "run {run} of {runs}: {gap:.0} ms without writes, {whole:.0} ms in all; by hand {floor:.0} ms"
        );
        gaps.push(gap);
        wholes.push(whole);
        floors.push(floor);
    }
    sandbox.wait_streaming(places.0, places.1).await?;
    nobody_was_rewound(&sandbox)?;
    let lost = sandbox.rows_lost(&writer.stop(), places.0).await?.len();
    sandbox.teardown()?;
    if lost > 0 {
        return Err(SandboxError::failed("switching over", format!("{lost} acknowledged rows are lost")));
    }
    Ok(vec![
        Figure::of("switchover_longest_write_gap", "ms", &gaps).beside(&floors),
        Figure::of("switchover_command", "ms", &wholes),
        Figure::of("by_hand_longest_write_gap", "ms", &floors),
    ])
}

fn nobody_was_rewound(sandbox: &Sandbox) -> Done<()> {
    for node in [ALPHA, BETA] {
        for envelope in sandbox.events(node)? {
            if let Event::NodeDemoted(demoted) = envelope.event
                && demoted.by != Demotion::Unchanged
            {
                let message = format!("node {node} had to be changed: {:?}", demoted.by);
                return Err(SandboxError::failed("switching over", message));
            }
        }
    }
    Ok(())
}

fn cluster() -> Builder {
    Sandbox::builder(interrex_tests::interrex()).postgres_only().threshold(PATIENCE)
}

/// The longest pause that a client met, and how long the command took, until the old main streamed.
async fn switchover(sandbox: &Sandbox, writer: &Writer, (from, to): (NodeId, NodeId)) -> Done<(f64, f64)> {
    for node in [ALPHA, BETA] {
        sandbox.wait_healthy(node).await?;
    }
    sandbox.wait_streaming(from, to).await?;
    writer.wait_ack_by(sandbox.node(from)?.postgres_port, SystemEnv.moment(), PATIENCE).await?;
    let _sessions = by_hand::sessions(sandbox, from).await?;
    let began = SystemEnv.moment();
    let mut command = tokio::process::Command::new(interrex_tests::interrex());
    let name = sandbox.node(to)?.name;
    command.args(["switchover", "--drain", "0s", "--to", name, "--config"]).arg(sandbox.node(from)?.config());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let status = command.status().await.map_err(|error| SandboxError::failed("switching over", error))?;
    let ended = SystemEnv.moment();
    if !status.success() {
        return Err(SandboxError::failed("switching over", status));
    }
    Ok((longest_gap(sandbox, writer, began, to).await?, ms_between(began, ended)))
}

/// CHECKPOINT, SIGINT, wait for the process, `SELECT pg_promote()` on a connection that is open already.
async fn stop_and_promote() -> Done<f64> {
    let sandbox = cluster().build().await?;
    sandbox.start_postgres(ALPHA).await?;
    sandbox.start_postgres(BETA).await?;
    sandbox.wait_streaming(ALPHA, BETA).await?;
    let writer = sandbox.start_writer(ROWS_PER_SECOND)?;
    writer.wait_acknowledged(100, PATIENCE).await?;
    let client = by_hand::connect(&sandbox, BETA).await?;
    let _sessions = by_hand::sessions(&sandbox, ALPHA).await?;
    sandbox.psql(ALPHA, "CHECKPOINT").await?;
    let began = SystemEnv.moment();
    let postmaster = sandbox.postmaster_pid(ALPHA).and_then(Process::of);
    let postmaster = postmaster.ok_or_else(|| SandboxError::failed("stopping by hand", "nothing runs"))?;
    postmaster.signal(Signal::INT);
    // a stop that takes longer makes a longer gap
    let _ = tokio::time::timeout(PATIENCE, postmaster.gone()).await;
    by_hand::promote(&client).await?;
    let gap = longest_gap(&sandbox, &writer, began, BETA).await?;
    sandbox.teardown()?;
    Ok(gap)
}

async fn longest_gap(sandbox: &Sandbox, writer: &Writer, began: Moment, main: NodeId) -> Done<f64> {
    writer.wait_ack_by(sandbox.node(main)?.postgres_port, began, PATIENCE).await?;
    let gap = writer.look(|acknowledged| acknowledged.longest_gap_after(began));
    let gap = gap.ok_or_else(|| SandboxError::failed("measuring", "no write was acknowledged"))?;
    Ok(gap.duration().as_secs_f64() * 1000.0)
}
