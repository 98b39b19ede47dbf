//! All projections from a journal, beside a bare cursor over the columns that they look at.

use std::path::Path;

use interrex::sandbox::Done;
use interrex_events::journal::{JournalReader, Verify};
use interrex_projections::{Cluster, rebuild};
use rusqlite::{Connection, OpenFlags, types::ValueRef};

use super::{failed, timed};
use crate::figure::Figure;

const COLUMNS: &str = "SELECT hlc, recorded_at, epoch, kind, run_id, event_id, correlation_id, causation_id, learned_in, \
                       actor, payload FROM cluster_events ORDER BY node_id, node_seq";

/// Events a second, with and without every chain checked, and the memory it takes.
pub(super) fn measure(runs: u32, path: &Path) -> Done<Vec<Figure>> {
    let (mut bare, mut trusted, mut verified) = (Vec::new(), Vec::new(), Vec::new());
    let (mut walked, mut memory) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        bare.push(cursor(path).map_err(failed("reading with a bare cursor"))?);
        forget_peak();
        trusted.push(fold(path, Verify::Nothing)?);
        memory.extend(peak_mib());
        verified.push(fold(path, Verify::Chains)?);
        walked.push(walk(path)?);
        eprintln!("rebuild {run} of {runs}");
    }
    Ok(vec![
        Figure::of("rebuild", "event/s", &trusted).beside(&bare),
        Figure::of("rebuild_verified", "event/s", &verified).beside(&bare),
        Figure::of("journal_verify", "event/s", &walked).beside(&bare),
        Figure::of("rebuild_peak_memory", "MiB", &memory),
    ])
}

fn cursor(path: &Path) -> rusqlite::Result<f64> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    let mut statement = connection.prepare(COLUMNS)?;
    let columns = statement.column_count();
    let (seconds, events) = timed(|| {
        let mut rows = statement.query(())?;
        let (mut events, mut bytes) = (0_u32, 0);
        while let Some(row) = rows.next()? {
            events += 1;
            for column in 0..columns {
                bytes += match row.get_ref(column)? {
                    ValueRef::Text(text) | ValueRef::Blob(text) => text.len(),
                    _ => 8,
                };
            }
        }
        std::hint::black_box(bytes);
        Ok::<_, rusqlite::Error>(events)
    });
    Ok(f64::from(events?) / seconds)
}

fn fold(path: &Path, verify: Verify) -> Done<f64> {
    let reader = JournalReader::open(path).map_err(failed("opening a journal"))?;
    let (seconds, cluster) = timed(|| rebuild::<Cluster>(&reader, None, verify));
    let cluster = cluster.map_err(failed("rebuilding projections"))?;
    Ok(cluster.events as f64 / seconds)
}

/// What the opening for writing begins with.
fn walk(path: &Path) -> Done<f64> {
    let reader = JournalReader::open(path).map_err(failed("opening a journal"))?;
    let (seconds, found) = timed(|| reader.verify());
    Ok(found.map_err(failed("verifying a journal"))?.events as f64 / seconds)
}

/// Lets the kernel measure the peak of this process's memory anew.
fn forget_peak() {
    // where it does not, the peak is that of all that was measured before, and only looks worse
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn peak_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1024.0)
}
