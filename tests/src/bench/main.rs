//! The benchmarks: whole figures with their spread, each beside a floor measured in the same run.

mod by_hand;
mod failover;
mod figure;
mod idle;
mod rejoin;
mod silence;
mod store;
mod switchover;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

/// Measures what Interrex promises, on real servers on loopback.
///
/// Every figure is measured n times and given as minimum, median and maximum; where there is a floor, it is
/// measured in the same run, and the ratio of the medians is given: machines are noisy, ratios travel.
#[derive(Debug, Parser)]
#[command(name = "bin/bench")]
struct Arguments {
    /// What to measure.
    name: Name,
    /// How often.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Events in the stream that `store` rebuilds from.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    events: u64,
    /// Megabytes in the table of the cluster that `rejoin` brings back.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    size: u64,
    /// One JSON object a line, a figure each.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Name {
    /// SIGKILL of main's PostgreSQL and supervisor until the first acknowledged write on the new main, beside a bare
    /// `pg_promote()`.
    Failover,
    /// Memory and processor time of a supervisor whose cluster is well, at a probe a second.
    Idle,
    /// `interrex rejoin` of an old main that has rows which the new one lacks, until main streams to it, beside a bare
    /// `pg_rewind` by hand; and where the time goes.
    /// On ext4, wait some minutes after anything was removed on the volume, a call of this included: until then both write
    /// new files more slowly, and a rejoin, which keeps a copy, writes more of them.
    Rejoin,
    /// Main's host falls silent without a word (SIGSTOP of all that runs there), at a threshold of 1 s and a probe every 250 ms that
    /// may take 500 ms: until PostgreSQL of the secondary is asked to promote.
    Silence,
    /// Durable appends, relays and rebuilds of the event store, each beside the same done by hand.
    Store,
    /// The longest pause in a client's writes when main hands its role over, beside a fast stop and `pg_promote()` by hand.
    Switchover,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    interrex_tests::run(async move {
        let figures = match arguments.name {
            Name::Failover => failover::measure(arguments.runs).await?,
            Name::Idle => idle::measure(arguments.runs).await?,
            Name::Rejoin => rejoin::measure(arguments.runs, arguments.size).await?,
            Name::Switchover => switchover::measure(arguments.runs).await?,
            Name::Silence => silence::measure(arguments.runs).await?,
            Name::Store => store::measure(arguments.runs, arguments.events).await?,
        };
        figure::print(&figures, arguments.json);
        Ok(())
    });
    ExitCode::SUCCESS
}
