//! How long an old main takes to come back after a failover that stranded rows on it, beside a bare `pg_rewind`.

use std::{collections::BTreeMap, path::Path, process::Stdio, time::Duration};

use interrex::sandbox::{ALPHA, BETA, Builder, Done, Sandbox, SandboxError, Writer, until};
use interrex_actors::{
    env::{Env as _, Moment, SystemEnv},
    ports::PortError,
};
use interrex_adapters::runtime::{self, RunAs};
use interrex_events::{RunKind, StepId};
use interrex_projections::{NodeStatus, Run};
use tokio_postgres::Client;

use crate::{
    by_hand,
    figure::{Figure, ms_between, wall_ms},
};

/// Main may be silent for so long: the failover is no part of the figures.
const THRESHOLD: Duration = Duration::from_secs(1);
const ROWS_PER_SECOND: f64 = 200.0;
const PATIENCE: Duration = Duration::from_secs(120);
/// Megabytes that are written at once: a standby that is further behind would lose its slot.
const BATCH: u64 = 5;
/// How often main is asked whether it streams.
const LOOK: Duration = Duration::from_millis(5);

/// All in milliseconds.
struct Rejoin {
    /// From the request until main streams.
    streaming: f64,
    /// From the request until the command has ended.
    command: f64,
    /// From the request until its first step began.
    before: f64,
    steps: BTreeMap<StepId, f64>,
}

impl Rejoin {
    fn step(&self, step: StepId) -> f64 {
        self.steps.get(&step).copied().unwrap_or_default()
    }
}

/// All in milliseconds.
struct Floor {
    checkpoint: f64,
    rewind: f64,
    start: f64,
}

impl Floor {
    fn streaming(&self) -> f64 {
        self.checkpoint + self.rewind + self.start
    }
}

/// Runs of both kinds, in turn, each on a fresh cluster with so many megabytes in a table.
pub(crate) async fn measure(runs: u32, megabytes: u64) -> Done<Vec<Figure>> {
    let (mut rejoins, mut floors) = (Vec::new(), Vec::new());
    // ext4 searches past each file that was removed within the last minutes when it makes one (ADR 13): a cluster that was torn
    // down would cost the next one, and still costs the next call of this
    let mut ended = Vec::new();
    for run in 1..=runs {
        let rejoin = rejoin(megabytes, &mut ended).await?;
        let floor = rewind_by_hand(megabytes, &mut ended).await?;
        eprintln!(
            "run {run} of {runs}: {:.0} ms until main streams, {:.0} ms in all; by hand {:.0} ms",
            rejoin.streaming,
            rejoin.command,
            floor.streaming()
        );
        rejoins.push(rejoin);
        floors.push(floor);
    }
    Ok(figures(&rejoins, &floors))
}

fn figures(rejoins: &[Rejoin], floors: &[Floor]) -> Vec<Figure> {
    let ours = |pick: &dyn Fn(&Rejoin) -> f64| rejoins.iter().map(pick).collect::<Vec<f64>>();
    let by_hand = |pick: &dyn Fn(&Floor) -> f64| floors.iter().map(pick).collect::<Vec<f64>>();
    let floor = by_hand(&Floor::streaming);
    let mut figures = vec![
        Figure::of("rejoin_request_to_streaming", "ms", &ours(&|rejoin| rejoin.streaming)).beside(&floor),
        Figure::of("rejoin_command", "ms", &ours(&|rejoin| rejoin.command)),
        Figure::of("rejoin_before_its_first_step", "ms", &ours(&|rejoin| rejoin.before)),
    ];
    for step in RunKind::Rejoin.steps().iter().filter(|step| takes_time(**step)) {
        figures.push(Figure::of(format!("rejoin_step_{step}"), "ms", &ours(&|rejoin| rejoin.step(*step))));
    }
    figures.extend([
        Figure::of("by_hand_to_streaming", "ms", &floor),
        Figure::of("by_hand_checkpoint", "ms", &by_hand(&|floor| floor.checkpoint)),
        Figure::of("by_hand_pg_rewind", "ms", &by_hand(&|floor| floor.rewind)),
        Figure::of("by_hand_start", "ms", &by_hand(&|floor| floor.start)),
    ]);
    figures
}

/// Two steps are but an event, and two have nothing to do where there is PostgreSQL alone.
fn takes_time(step: StepId) -> bool {
    use StepId::{FollowRedis, RecordCompletion, RecordStart, RestartDependents};
    !matches!(step, RecordStart | FollowRedis | RestartDependents | RecordCompletion)
}

fn cluster() -> Builder {
    Sandbox::builder(interrex_tests::interrex()).postgres_only().threshold(THRESHOLD).patience(PATIENCE)
}

/// `interrex rejoin`, on the new main.
async fn rejoin(megabytes: u64, ended: &mut Vec<Sandbox>) -> Done<Rejoin> {
    let sandbox = cluster().build().await?;
    sandbox.start().await?;
    fill(&sandbox, megabytes).await?;
    let writer = strand(&sandbox).await?;
    let killed = sandbox.kill_everything_of(ALPHA);
    sandbox.wait_run_ended(BETA).await?;
    writer.wait_ack_by(sandbox.node(BETA)?.postgres_port, killed, PATIENCE).await?;
    sandbox.start_supervisor(ALPHA)?;
    sandbox.wait_health(ALPHA, "fenced", |report| report.status == NodeStatus::Fenced).await?;
    let main = by_hand::connect(&sandbox, BETA).await?;
    settle();

    let asked = SystemEnv.moment();
    let mut command = tokio::process::Command::new(interrex_tests::interrex());
    command.args(["rejoin", "alpha", "--config"]).arg(sandbox.node(BETA)?.config());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let command_ended = async {
        match command.status().await {
            Ok(end) if end.success() => Ok(SystemEnv.moment()),
            Ok(end) => Err(SandboxError::failed("rejoining", end)),
            Err(error) => Err(SandboxError::failed("rejoining", error)),
        }
    };
    let (command_ended, streaming) = tokio::try_join!(command_ended, streams(&main))?;

    let run = rejoin_of_alpha(&sandbox)?;
    ended.push(put_away(sandbox)?);
    let first = run.step(StepId::CheckLineage).started_at;
    Ok(Rejoin {
        streaming: ms_between(asked, streaming),
        command: ms_between(asked, command_ended),
        before: first.map_or(f64::NAN, |first| wall_ms(first - asked.wall)),
        steps: times_of_steps(&run),
    })
}

fn rejoin_of_alpha(sandbox: &Sandbox) -> Done<Run> {
    let runs = sandbox.cluster(ALPHA)?.runs.runs;
    let run = runs.into_values().rev().find(|run| run.kind == RunKind::Rejoin);
    run.ok_or_else(|| SandboxError::failed("looking for the rejoin", "alpha's journal has none"))
}

/// As the journal has them, from the intent to the outcome.
fn times_of_steps(run: &Run) -> BTreeMap<StepId, f64> {
    let began_and_ended = run.steps.iter().filter(|(_, step)| step.attempts > 0);
    began_and_ended.filter_map(|(id, step)| Some((*id, wall_ms(step.ended_at? - step.started_at?)))).collect()
}

/// CHECKPOINT on the new main, `pg_rewind` with its own recovery from the crash, two files, `pg_ctl start`. Nothing is
/// looked at, nothing is kept.
async fn rewind_by_hand(megabytes: u64, ended: &mut Vec<Sandbox>) -> Done<Floor> {
    let sandbox = cluster().build().await?;
    sandbox.start_postgres(ALPHA).await?;
    sandbox.start_postgres(BETA).await?;
    sandbox.wait_streaming(ALPHA, BETA).await?;
    fill(&sandbox, megabytes).await?;
    let writer = strand(&sandbox).await?;
    let main = by_hand::connect(&sandbox, BETA).await?;
    let postmaster = sandbox.postmaster_pid(ALPHA);
    let killed = sandbox.kill_postgres(ALPHA);
    by_hand::promote(&main).await?;
    ask(&main, "SELECT pg_create_physical_replication_slot('replica_1', true)").await?;
    writer.wait_ack_by(sandbox.node(BETA)?.postgres_port, killed, PATIENCE).await?;
    if let Some(postmaster) = postmaster {
        // pg_rewind would take it for a living one
        runtime::wait_reaped(postmaster, PATIENCE).await;
    }
    settle();

    let began = SystemEnv.moment();
    ask(&main, "CHECKPOINT").await?;
    let checkpointed = SystemEnv.moment();
    pg_rewind(&sandbox).await?;
    let rewound = SystemEnv.moment();
    let start = async {
        follow_beta(&sandbox).await?;
        sandbox.start_postgres(ALPHA).await
    };
    let ((), streaming) = tokio::try_join!(start, streams(&main))?;
    ended.push(put_away(sandbox)?);
    Ok(Floor {
        checkpoint: ms_between(began, checkpointed),
        rewind: ms_between(checkpointed, rewound),
        start: ms_between(rewound, streaming),
    })
}

async fn pg_rewind(sandbox: &Sandbox) -> Done<()> {
    let data_dir = sandbox.node(ALPHA)?.data_dir();
    let source =
        format!("host=127.0.0.1 port={} user=interrex dbname=postgres", sandbox.node(BETA)?.postgres_port);
    let mut command = as_owner(&data_dir)?.command(sandbox.postgres_programs().join("pg_rewind"));
    command.arg("--target-pgdata").arg(&data_dir).args(["--source-server", &source]);
    command.env("PGPASSWORD", sandbox.superuser_password());
    runtime::run(command, "pg_rewind", PATIENCE).await.map(drop).map_err(failed)
}

/// `standby.signal` and the upstream.
async fn follow_beta(sandbox: &Sandbox) -> Done<()> {
    let alpha = sandbox.node(ALPHA)?;
    let upstream = format!(
        "primary_conninfo = 'host=127.0.0.1 port={} user=replicator passfile={} application_name=interrex_{ALPHA}'\n\
         primary_slot_name = 'replica_1'",
        sandbox.node(BETA)?.postgres_port,
        alpha.secrets_dir().join("replication.pgpass").display()
    );
    let mut command = as_owner(&alpha.data_dir())?.command("/bin/sh");
    command.args(["-c", r#"touch "$0/standby.signal" && echo "$1" >> "$0/postgresql.auto.conf""#]);
    command.arg(alpha.data_dir()).arg(upstream);
    runtime::run(command, "making it a standby", PATIENCE).await.map(drop).map_err(failed)
}

/// Ends a cluster. Its files stay on the disk, and not in memory: else the runs would use more and more of it, and a virtual machine
/// may have to get what it has not used for a while from its host, which makes writing into it ten times as slow.
fn put_away(sandbox: Sandbox) -> Done<Sandbox> {
    sandbox.end_processes()?;
    rustix::fs::sync();
    let mut folders: Vec<_> = sandbox.nodes().iter().map(|node| node.folder.clone()).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => forget(&entry.path()),
                _ => {}
            }
        }
    }
    Ok(sandbox)
}

/// A hint: a file that is not forgotten costs memory alone.
fn forget(file: &Path) {
    if let Ok(file) = std::fs::File::open(file) {
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    }
}

/// Until the disk has what was prepared: making clusters and filling them is no part of a rejoin, and whoever waits for the volume
/// would wait for that too.
fn settle() {
    rustix::fs::sync();
}

fn as_owner(data_dir: &Path) -> Done<RunAs> {
    RunAs::resolve(None, data_dir).map_err(failed)
}

#[allow(clippy::needless_pass_by_value, reason = "as map_err passes it")]
fn failed(error: PortError) -> SandboxError {
    SandboxError::Server(error.to_string())
}

async fn ask(client: &Client, sql: &str) -> Done<()> {
    client.batch_execute(sql).await.map_err(|error| SandboxError::failed(sql, error))
}

/// A table of that size on both nodes, and a checkpoint on both after it: so far a rewind goes back.
async fn fill(sandbox: &Sandbox, megabytes: u64) -> Done<()> {
    sandbox.psql(ALPHA, "CREATE TABLE ballast (id bigint, filling text)").await?;
    for begun in (0..megabytes).step_by(BATCH as usize) {
        // a row has a thousand bytes
        let rows = (megabytes - begun).min(BATCH) * 1_000;
        let sql = format!(
            "INSERT INTO ballast SELECT row, repeat(md5(row::text), 30) FROM generate_series(1, {rows}) AS row"
        );
        sandbox.psql(ALPHA, &sql).await?;
        beta_has_all(sandbox).await?;
    }
    // what a rewind needs of the log lies in one file from here on: one before it would be gone on the new main
    sandbox.psql(ALPHA, "SELECT pg_switch_wal()").await?;
    sandbox.psql(ALPHA, "CHECKPOINT").await?;
    beta_has_all(sandbox).await?;
    sandbox.psql(BETA, "CHECKPOINT").await.map(drop)
}

async fn beta_has_all(sandbox: &Sandbox) -> Done<()> {
    let sql = "SELECT replay_lsn >= pg_current_wal_lsn() FROM pg_stat_replication";
    until("beta has all of it", PATIENCE, || async {
        let has_all = sandbox.psql_value(ALPHA, sql).await;
        if has_all.as_deref().is_ok_and(|all| all == "t") { Ok(()) } else { Err(format!("{has_all:?}")) }
    })
    .await
}

/// Main acknowledges rows that its standby does not receive.
async fn strand(sandbox: &Sandbox) -> Done<Writer> {
    let writer = sandbox.start_writer(ROWS_PER_SECOND)?;
    writer.wait_acknowledged(20, PATIENCE).await?;
    sandbox.psql(BETA, "ALTER SYSTEM SET primary_conninfo = ''").await?;
    sandbox.psql(BETA, "SELECT pg_reload_conf()").await?;
    until("the receiver is gone", PATIENCE, || async {
        let receivers = sandbox.psql_value(BETA, "SELECT count(*) FROM pg_stat_wal_receiver").await;
        if receivers.as_deref().is_ok_and(|count| count == "0") {
            Ok(())
        } else {
            Err(format!("{receivers:?}"))
        }
    })
    .await?;
    writer.wait_acknowledged(writer.count() + 20, PATIENCE).await?;
    Ok(writer)
}

/// The moment from which main says that it streams to alpha.
async fn streams(main: &Client) -> Done<Moment> {
    let sql = format!(
        "SELECT 1 FROM pg_stat_replication WHERE application_name = 'interrex_{ALPHA}' AND state = 'streaming'"
    );
    let looking = async {
        loop {
            let rows = main.query(&sql, &[]).await;
            match rows.map_err(|error| SandboxError::failed("asking the new main", error)) {
                Ok(rows) if rows.is_empty() => tokio::time::sleep(LOOK).await,
                Ok(_) => return Ok(SystemEnv.moment()),
                Err(error) => return Err(error),
            }
        }
    };
    let late = |_| SandboxError::failed("waiting until main streams", format!("not within {PATIENCE:?}"));
    tokio::time::timeout(PATIENCE, looking).await.map_err(late)?
}
