//! What only an old main has: its WAL after the switchpoint of the new main.
//!
//! ```text
//! WAL (of several timelines: in a row) -> pg_waldump -> record (one line) -> count (transactions, relations, bytes)
//!   -> ForkReport and the committed ids
//! ```
//!
//! It only reads, and needs no running server. It makes only links in a temporary folder, and only if the WAL is on several
//! timelines or has files that were never written. Redis has no such log: its losses are not reported here.

mod count;
mod line;
mod record;
mod xids;

use std::{path::Path, time::Duration};

use interrex_actors::ports::{Answer, ForkReport, PortError};
use interrex_events::{Lsn, TimelineId};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};

pub use self::xids::Xids;
use self::{
    count::Count,
    line::{has_unwritten, in_a_row},
    record::LogRecord,
};
use crate::{
    postgres::lineage::own_history,
    runtime::{Messages, Program, Runtime},
};

/// The longest line that is read; a longer line, such as a commit of very many subtransactions, is an error.
const LONGEST_LINE: u64 = 64 << 20;
/// How many bytes of the program's messages are kept.
const MOST_WORDS: u64 = 4096;

/// A fork report, and the transactions that it is about.
#[derive(Debug, Clone)]
pub struct Fork {
    /// The report, for people and programs.
    pub report: ForkReport,
    /// The committed transactions, with their subtransactions.
    pub committed: Xids,
}

/// Reads a stopped server's WAL after the switchpoint, up to the end of its newest timeline, which is given.
///
/// `programs` is the folder of `pg_waldump`; `limit` is the time limit for the whole reading.
///
/// # Errors
/// The program cannot be run, finds no WAL of that timeline there, or does not end in time.
pub async fn read(
    (runtime, programs): (&dyn Runtime, &Path),
    data_dir: &Path,
    (timeline, switchpoint): (TimelineId, Lsn),
    limit: Duration,
) -> Answer<Fork> {
    let reading = read_all((runtime, programs), data_dir, (timeline, switchpoint));
    tokio::time::timeout(limit, reading)
        .await
        .map_err(|_| PortError(format!("pg_waldump: did not end within {limit:?}, and was killed")))?
}

async fn read_all(
    (runtime, programs): (&dyn Runtime, &Path),
    data_dir: &Path,
    (timeline, switchpoint): (TimelineId, Lsn),
) -> Answer<Fork> {
    let failed = |error: std::io::Error| PortError::new("pg_waldump", error);
    let doing = "putting the WAL files in a row";
    let history = own_history(data_dir, timeline).map_err(|words| PortError::new(doing, words))?;
    let log = data_dir.join("pg_wal");
    let changed_since = history.iter().any(|switch| switch.switchpoint > switchpoint);
    let row = (|| {
        let needs_row = changed_since || has_unwritten(&log)?;
        needs_row.then(|| in_a_row(runtime, &log, timeline, &history)).transpose()
    })();
    let row = row.map_err(|error: std::io::Error| PortError::new(doing, error))?;
    let log = row.as_ref().map_or(log.as_path(), TempDir::path);
    let mut program = Program::new(programs.join("pg_waldump"));
    program
        .arg("--path")
        .arg(runtime.inside(log))
        .args(["--timeline", &timeline.0.to_string(), "--start", &switchpoint.to_string()])
        // messages and times are parsed
        .envs([("LC_ALL", "C"), ("TZ", "UTC")]);
    let running = runtime.launch(&program, Messages::Piped).await.map_err(failed)?;
    let (stdout, stderr) = (running.stdout, running.stderr);
    let counting = count_lines(BufReader::new(stdout), Count::from(timeline, switchpoint));
    let (count, words) = futures_util::future::join(counting, last_words(stderr)).await;
    let (count, words) = (count.map_err(failed)?, words.map_err(failed)?);
    let status = running.end.await.map_err(failed)?;
    let fork = count.finish(words);
    // the program also fails at the end of every WAL; only without any record may that be another failure
    let words = &fork.report.end_of_log;
    let no_file = words.contains("could not find file");
    let is_lost = no_file && !was_never_written(words, log);
    let nothing_follows = no_file || words.contains("could not find a valid record after");
    let has_ended = fork.report.records > 0 || nothing_follows;
    if status.success() || (status.code() == Some(1) && has_ended && !is_lost) {
        return Ok(fork);
    }
    Err(PortError(format!("pg_waldump: {} ({status})", fork.report.end_of_log)))
}

/// Whether the server never wrote the missing file: then its timeline has no newer file. Files are removed from the oldest on, so a
/// removed file has newer files.
fn was_never_written(words: &str, log: &Path) -> bool {
    let Some((_, rest)) = words.split_once("could not find file \"") else { return false };
    let Some((missing, _)) = rest.split_once('"') else { return false };
    let Some(timeline) = missing.get(..8) else { return false };
    let Ok(files) = std::fs::read_dir(log) else { return false };
    let mut names = files.flatten().map(|file| file.file_name());
    // names have fixed digits: their order is the order of the WAL
    !names.any(|name| name.to_str().is_some_and(|name| name.starts_with(timeline) && name >= missing))
}

async fn count_lines(
    mut lines: impl tokio::io::AsyncBufRead + Unpin,
    mut count: Count,
) -> std::io::Result<Count> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut lines).take(LONGEST_LINE).read_until(b'\n', &mut line).await?;
        if read == 0 {
            return Ok(count);
        }
        if read as u64 == LONGEST_LINE {
            return Err(std::io::Error::other("a record is too long to be read"));
        }
        if let Some(record) = LogRecord::parse(String::from_utf8_lossy(&line).trim_end()) {
            count.take(record);
        }
    }
}

async fn last_words(mut stderr: impl AsyncRead + Unpin) -> std::io::Result<String> {
    let mut words = Vec::new();
    (&mut stderr).take(MOST_WORDS).read_to_end(&mut words).await?;
    // the rest is read, so that the program does not wait for it
    tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await?;
    Ok(String::from_utf8_lossy(&words).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
rmgr: Heap        len (rec/tot):     61/    61, tx:        730, lsn: 0/03000060, prev 0/03000028, desc: INSERT off 1 flags 0x00, blkref #0: rel 1663/5/16385 blk 0
rmgr: Heap        len (rec/tot):     61/    61, tx:        731, lsn: 0/030000A0, prev 0/03000060, desc: INSERT off 2 flags 0x00, blkref #0: rel 1663/5/16385 blk 0
rmgr: Heap        len (rec/tot):     61/    61, tx:        732, lsn: 0/030000E0, prev 0/030000A0, desc: DELETE off 2 flags 0x00, blkref #0: rel 1663/5/16385 blk 0
rmgr: Heap        len (rec/tot):     61/    61, tx:        733, lsn: 0/03000120, prev 0/030000E0, desc: DELETE off 2 flags 0x00, blkref #0: rel 1663/5/16385 blk 0
rmgr: Transaction len (rec/tot):     46/    46, tx:        730, lsn: 0/03000160, prev 0/03000120, desc: COMMIT 2026-11-23 10:39:29.582262 UTC; subxacts: 731
rmgr: Transaction len (rec/tot):     46/    46, tx:        732, lsn: 0/03000190, prev 0/03000160, desc: ABORT 2026-11-23 10:39:30.000000 UTC
";

    #[test]
    fn a_segment_that_was_never_written_is_no_log_that_was_removed() {
        let log = tempfile::tempdir().unwrap();
        let words =
            "pg_waldump: fatal: could not find file \"000000010000000000000004\": No such file or directory";
        std::fs::write(log.path().join("000000010000000000000003"), "").unwrap();
        std::fs::write(log.path().join("000000020000000000000005"), "").unwrap();
        assert!(was_never_written(words, log.path()));
        std::fs::write(log.path().join("000000010000000000000005"), "").unwrap();
        assert!(!was_never_written(words, log.path()));
        assert!(!was_never_written("pg_waldump: fatal: could not open directory", log.path()));
    }

    #[tokio::test]
    async fn a_file_that_was_made_since_is_known_as_new() {
        let log = "\
rmgr: Storage     len (rec/tot):     42/    42, tx:        730, lsn: 0/03000060, prev 0/03000028, desc: CREATE base/5/16390
rmgr: Heap2       len (rec/tot):     61/    61, tx:        730, lsn: 0/030000A0, prev 0/03000060, desc: MULTI_INSERT+INIT 4 tuples flags 0x02, blkref #0: rel 1663/5/16390 blk 0
rmgr: Heap        len (rec/tot):     61/    61, tx:        730, lsn: 0/030000E0, prev 0/030000A0, desc: HOT_UPDATE off 1 xmax 730 flags 0x20 ; new off 4 xmax 0, blkref #0: rel 1663/5/16385 blk 0
rmgr: Transaction len (rec/tot):     46/    46, tx:        730, lsn: 0/03000160, prev 0/030000E0, desc: COMMIT 2026-11-23 10:39:29.582262 UTC
";
        let start = Count::from(TimelineId(1), Lsn(0x0300_0060));
        let fork = count_lines(log.as_bytes(), start).await.unwrap().finish("the end".to_owned());
        let told: Vec<_> =
            fork.report.relations.iter().map(|it| (it.node().to_string(), it.rows(), it.is_new)).collect();
        assert_eq!(told, [("base/5/16385".to_owned(), 1, false), ("base/5/16390".to_owned(), 4, true)]);
    }

    #[tokio::test]
    async fn what_committed_is_counted_and_the_rest_is_not() {
        let start = Count::from(TimelineId(1), Lsn(0x0300_0060));
        let fork = count_lines(LOG.as_bytes(), start).await.unwrap().finish("the end".to_owned());
        let report = &fork.report;
        assert_eq!((report.records, report.committed, report.aborted, report.unfinished), (6, 1, 1, 1));
        assert_eq!(fork.committed.intervals().collect::<Vec<_>>(), [(730, 731)]);
        assert_eq!(report.bytes, 0x130 + 46);
        assert_eq!(
            report.in_words(),
            "1 transaction committed on timeline 1 after 0/3000060, from 2026-11-23 10:39:29.582 UTC to 2026-11-23 \
             10:39:29.582 UTC; 1 aborted; 350 bytes of WAL\n  relation 1663/5/16385: 2 inserted, 0 updated, 0 deleted"
        );
        let json = serde_json::to_string(report).unwrap();
        assert_eq!(&serde_json::from_str::<ForkReport>(&json).unwrap(), report);
    }
}
