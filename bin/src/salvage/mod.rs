//! `interrex salvage`: writes what only an old main has to files, which a person reviews and applies.
//!
//! ```text
//! kept data directory ─cp─> scratch (a server for this salvage only) ┐
//!      │                    └─ rows by the ids of the fork report ───┴─ stranded ─> files ┐
//!      └─ pg_waldump ─> fork report             new main, read-only ─┘                    ├─> output, summary
//! kept Redis files ────cp─> scratch (a server for this salvage only) ┬─ comparison > files ┘
//!                                         new main's Redis, only read ┘
//! ```
//!
//! PostgreSQL's WAL shows which rows are new. Redis has no such log: every key is compared.
//!
//! **Invariants:** the kept copy is only read; the new main is only read; when the salvage ends, also by an error or a signal, the
//! scratch servers are stopped and their copies removed; the output folder is complete or does not exist. Only SIGKILL of the
//! salvage itself, or a machine that stops, leaves scratch folders behind, named `interrex-salvage-*` and `interrex-log-*`.

mod output;
mod postgres;
mod redis;
mod scratch;
mod summary;

use std::{io, path::PathBuf};

use interrex_adapters::checksums::{self, CHECKSUMS};
use interrex_events::Address;
use tokio::signal::unix::{SignalKind, signal};

pub use self::summary::{
    CheckedFiles, DatabaseSummary, LargeObjects, LeftOut, LeftOutKeys, PostgresSummary, RedisSummary,
    Summary, TableSummary,
};
use self::{output::Output, scratch::failed};
use crate::config::Config;

/// The result of a part of a salvage.
type Done<T> = Result<T, SalvageError>;

/// Why a salvage did not complete. It leaves no files.
#[derive(Debug, thiserror::Error)]
pub enum SalvageError {
    /// The request cannot be done, or is not clear.
    #[error("{0}")]
    Usage(String),
    /// The system, a program or a server reported an error.
    #[error("{0}")]
    Failed(String),
    /// A signal asked the salvage to end.
    #[error("interrupted")]
    Interrupted,
}

/// What to salvage: PostgreSQL's rows, Redis' keys, or both.
#[derive(Debug, Clone)]
pub struct SalvageOptions {
    /// The old main's data directory, or a copy of it; no server may run on it.
    pub kept: Option<PathBuf>,
    /// The folder of the old main's Redis, or a copy of it; no server may run on it.
    pub kept_redis: Option<PathBuf>,
    /// Folder for the output files; it must be empty or not exist.
    pub output: PathBuf,
    /// The new main as `host:port`; by default the only server of the configuration that takes writes.
    pub main: Option<Address>,
    /// The new main's Redis as `host:port`; by default the only Redis of the configuration that is a master.
    pub main_redis: Option<Address>,
    /// Only these tables; all tables if the list is empty.
    pub tables: Vec<String>,
}

/// Salvages. `tell` gets a message for every stage. Call this within a `LocalSet`.
///
/// # Errors
/// The output was not written, and nothing of the scratch servers is left, unless the message says otherwise.
pub async fn salvage(options: &SalvageOptions, config: &Config, tell: impl Fn(&str)) -> Done<Summary> {
    let mut signals = Vec::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        signals.push(signal(kind).map_err(failed("listening for Ctrl-C"))?);
    }
    let mut kept = Kept {
        postgres: match &options.kept {
            Some(folder) => Some(postgres::Kept::open(folder, config)?),
            None => None,
        },
        redis: match &options.kept_redis {
            Some(folder) => Some(redis::Kept::open(folder)?),
            None => None,
        },
    };
    if kept.postgres.is_none() && kept.redis.is_none() {
        return Err(SalvageError::Usage("no kept copy is named: give --kept, --kept-redis or both".into()));
    }
    let interrupted =
        futures_util::future::select_all(signals.iter_mut().map(|signal| Box::pin(signal.recv())));
    let done = tokio::select! {
        done = Box::pin(compare(options, config, &tell, &mut kept)) => done,
        _ = interrupted => Err(SalvageError::Interrupted),
    };
    if let (Ok(summary), Some(postgres)) = (&done, &kept.postgres) {
        note_salvaged(summary, postgres, options, &tell);
    }
    let scratches = [kept.postgres.map(|kept| kept.scratch), kept.redis.map(|kept| kept.scratch)];
    let mut ended = Ok(());
    for scratch in scratches.into_iter().flatten() {
        ended = ended.and(scratch.end().await);
    }
    let summary = done?;
    ended?;
    Ok(summary)
}

/// Notes next to a kept copy that the output has all its stranded rows: from then on a later rejoin may remove it.
fn note_salvaged(summary: &Summary, kept: &postgres::Kept, options: &SalvageOptions, tell: impl Fn(&str)) {
    let is_whole = summary.postgres.as_ref().is_some_and(|postgres| !postgres.is_incomplete());
    if is_whole && options.tables.is_empty() {
        // the output is complete all the same
        if let Err(error) = kept.note_salvaged(&options.output) {
            tell(&format!("could not note next to the kept copy that it is salvaged: {error}"));
        }
    }
}

/// The kept copies that were named.
struct Kept {
    postgres: Option<postgres::Kept>,
    redis: Option<redis::Kept>,
}

/// Compares the kept files with their checksums, if a rejoin left checksums. Damaged files do not stop the salvage: the rest can
/// still be read.
async fn check_kept(kept: &Kept, tell: &dyn Fn(&str)) -> Done<Option<CheckedFiles>> {
    let postgres = kept.postgres.as_ref().and_then(postgres::Kept::checksums);
    let redis = kept.redis.as_ref().map(redis::Kept::checksums);
    let mut all: Option<CheckedFiles> = None;
    for folder in postgres.into_iter().chain(redis).filter(|folder| folder.join(CHECKSUMS).exists()) {
        tell(&format!("comparing the files of {} with their checksums", folder.display()));
        let (ended, end) = tokio::sync::oneshot::channel();
        let of = folder.to_owned();
        // an interrupted salvage does not wait for this thread
        std::thread::spawn(move || ended.send(checksums::check(&of)));
        let doing = format!("reading {}", folder.join(CHECKSUMS).display());
        let checked = end.await.map_err(io::Error::other).and_then(|checked| checked);
        if let Some(checked) = checked.map_err(failed(&doing))? {
            let all = all.get_or_insert_default();
            all.sound += checked.sound;
            all.damaged.extend(checked.damaged.iter().map(|file| folder.join(file)));
        }
    }
    Ok(all)
}

/// Both mains are asked before anything is copied: a wrong password is reported at once.
async fn compare(
    options: &SalvageOptions,
    config: &Config,
    tell: &dyn Fn(&str),
    kept: &mut Kept,
) -> Done<Summary> {
    let output = Output::beside(&options.output)?;
    let mut work = postgres::Work::new(options, config, tell);
    let postgres_main = match &kept.postgres {
        Some(_) => Some(work.main().await?),
        None => None,
    };
    let redis_main = match &kept.redis {
        Some(_) => Some(redis::main(options.main_redis.as_ref(), config).await?),
        None => None,
    };
    let checked = check_kept(kept, tell).await?;
    let postgres = match (&postgres_main, &mut kept.postgres) {
        (Some(main), Some(kept)) => Some(work.compare_with(main, kept, output.folder()).await?),
        _ => None,
    };
    let redis = match (&redis_main, &mut kept.redis) {
        (Some(main), Some(kept)) => Some(redis::compare(kept, main, config, tell, output.folder()).await?),
        _ => None,
    };
    let summary = Summary { checked, postgres, redis, output: options.output.clone() };
    output.finish(&summary)?;
    Ok(summary)
}
