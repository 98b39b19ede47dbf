//! What the event store makes of a disk and a processor, each figure beside the least that it can cost.

mod append;
mod rebuild;
mod stream;

use std::path::Path;

use interrex::sandbox::{Done, SandboxError};
use interrex_actors::env::{Env as _, SystemEnv};
use interrex_events::{
    NodeId,
    journal::{Identity, Journal},
};

use self::stream::{CLUSTER, Stream};
use crate::figure::Figure;

/// All of it; `events` is how long the stream is that is rebuilt from.
pub(crate) async fn measure(runs: u32, events: u64) -> Done<Vec<Figure>> {
    let folder = tempfile::tempdir().map_err(failed("making a folder"))?;
    let mut figures = append::measure(runs, folder.path()).await?;
    let journal = folder.path().join("years.db");
    fill(&journal, events).await?;
    figures.extend(rebuild::measure(runs, &journal)?);
    Ok(figures)
}

/// Writes the stream into a journal, as copies from peers come in.
async fn fill(path: &Path, events: u64) -> Done<()> {
    const BATCH: usize = 8_192;
    let journal = open(path)?;
    let mut stream = Stream::begin().take(usize::try_from(events).unwrap_or(usize::MAX));
    loop {
        let mut batch: Vec<_> = stream.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            return Ok(());
        }
        batch.sort_by_key(|record| record.node_id);
        for of_one in batch.chunk_by(|one, next| one.node_id == next.node_id) {
            let epoch = of_one.last().map(|record| record.epoch).unwrap_or_default();
            let stored = journal.store_copies(of_one.to_vec(), epoch).map_err(failed("filling a journal"))?;
            stored.await.map_err(failed("filling a journal"))?.map_err(failed("filling a journal"))?;
        }
    }
}

/// A journal of a node that the stream is not of.
fn open(path: &Path) -> Done<Journal> {
    let identity = Identity { cluster_id: CLUSTER, node_id: NodeId(9) };
    Journal::open(path, identity, std::sync::Arc::new(SystemEnv)).map_err(failed("opening a journal"))
}

/// Seconds that something takes.
fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let began = SystemEnv.moment().monotonic;
    let value = work();
    (seconds_since(began), value)
}

fn seconds_since(began: std::time::Duration) -> f64 {
    SystemEnv.moment().monotonic.saturating_sub(began).as_secs_f64()
}

fn failed<E: std::fmt::Display>(doing: &'static str) -> impl Fn(E) -> SandboxError {
    move |error| SandboxError::failed(doing, error.to_string())
}
