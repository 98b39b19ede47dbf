//! What a supervisor costs while nothing happens.

use std::time::Duration;

use interrex::sandbox::{ALPHA, BETA, Done, Sandbox, SandboxError};
use interrex_actors::env::{Env, SystemEnv};

use crate::figure::Figure;

/// How long each sample watches.
const WATCH: Duration = Duration::from_secs(10);

/// Samples of both supervisors of one cluster, PostgreSQL, Redis and RADIUS included, at a probe a second.
pub(crate) async fn measure(runs: u32) -> Done<Vec<Figure>> {
    let sandbox = Sandbox::builder(interrex_tests::interrex())
        .threshold(Duration::from_secs(120))
        .probe_interval(Duration::from_secs(1))
        .build()
        .await?;
    sandbox.start().await?;
    let (mut memory, mut processor) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        let before = both(&sandbox, ticks)?;
        let began = SystemEnv.moment();
        tokio::time::sleep(WATCH).await;
        let seconds = (SystemEnv.moment().monotonic - began.monotonic).as_secs_f64();
        for (after, before) in both(&sandbox, ticks)?.into_iter().zip(before) {
            // the kernel counts processor time in hundredths of a second
            processor.push((after - before) / seconds);
        }
        memory.extend(both(&sandbox, resident_mib)?);
        eprintln!("sample {run} of {runs}");
    }
    sandbox.teardown()?;
    Ok(vec![
        Figure::of("idle_supervisor_memory", "MiB", &memory),
        Figure::of("idle_supervisor_processor", "%", &processor),
    ])
}

fn both(sandbox: &Sandbox, read: fn(u32) -> Option<f64>) -> Done<Vec<f64>> {
    let of = |node| sandbox.supervisor_pid(node).and_then(read);
    let gone = || SandboxError::failed("measuring a supervisor", "it ended");
    [ALPHA, BETA].into_iter().map(|node| of(node).ok_or_else(gone)).collect()
}

fn ticks(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

fn resident_mib(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1024.0)
}
