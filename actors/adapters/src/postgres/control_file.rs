//! The control file of a data directory, as `pg_controldata` prints it: readable whether the server runs or not.

use std::{collections::BTreeMap, str::FromStr, time::Duration};

use interrex_actors::ports::{Answer, PortError};
use interrex_events::{Lsn, TimelineId};

use super::LocalPostgres;
use crate::runtime;

/// When reading it is given up.
const LIMIT: Duration = Duration::from_secs(5);

/// What a control file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlFile {
    /// System identifier: the same on every copy of a cluster.
    pub system_id: u64,
    /// What the server was doing when it last wrote it, in its own words.
    pub state: String,
    /// Begin of the last checkpoint's record.
    pub checkpoint: Lsn,
    /// Where recovery would begin.
    pub redo: Lsn,
    /// Timeline of the last checkpoint. It lags behind a promotion (MEASURED M5).
    pub timeline: TimelineId,
    /// Timeline before it, if that checkpoint was the first of its own.
    pub previous_timeline: TimelineId,
    /// How far a standby must replay before its data is consistent; zero on a main.
    pub min_recovery_end: Lsn,
    /// Timeline of that place.
    pub min_recovery_timeline: TimelineId,
    /// Whether changed hint bits are logged, so that `pg_rewind` sees every changed page.
    pub wal_log_hints: bool,
    /// Whether whole pages were logged at the last checkpoint.
    pub full_page_writes: bool,
    /// Version of the data checksums; zero without.
    pub checksum_version: u32,
    /// How many prepared transactions it allowed.
    pub max_prepared_transactions: u32,
    /// Bytes of one file of the log.
    pub segment_size: u64,
}

impl ControlFile {
    /// Reads what `pg_controldata` printed with `LC_ALL=C`.
    ///
    /// # Errors
    /// The file is damaged, or a line is missing.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(warning) = text.lines().find(|line| line.starts_with("WARNING")) {
            return Err(format!("the control file is damaged: {warning}"));
        }
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        let lines = Lines(lines.map(|(name, value)| (name, value.trim())).collect());
        Ok(Self {
            system_id: lines.get("Database system identifier")?,
            state: lines.get("Database cluster state")?,
            checkpoint: lines.get("Latest checkpoint location")?,
            redo: lines.get("Latest checkpoint's REDO location")?,
            timeline: TimelineId(lines.get("Latest checkpoint's TimeLineID")?),
            previous_timeline: TimelineId(lines.get("Latest checkpoint's PrevTimeLineID")?),
            min_recovery_end: lines.get("Minimum recovery ending location")?,
            min_recovery_timeline: TimelineId(lines.get("Min recovery ending loc's timeline")?),
            wal_log_hints: lines.is_on("wal_log_hints setting")?,
            full_page_writes: lines.is_on("Latest checkpoint's full_page_writes")?,
            checksum_version: lines.get("Data page checksum version")?,
            max_prepared_transactions: lines.get("max_prepared_xacts setting")?,
            segment_size: lines.get("Bytes per WAL segment")?,
        })
    }

    /// Whether the server was closed in good order, as a main or as a standby.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.state == "shut down" || self.state == "shut down in recovery"
    }

    /// The newest timeline that this directory was on: a promoted server notes it before its first checkpoint.
    #[must_use]
    pub fn own_timeline(&self) -> TimelineId {
        self.timeline.max(self.min_recovery_timeline)
    }
}

struct Lines<'a>(BTreeMap<&'a str, &'a str>);

impl Lines<'_> {
    fn get<T: FromStr>(&self, name: &str) -> Result<T, String> {
        let value = self.0.get(name).ok_or_else(|| format!("pg_controldata printed no line `{name}`"))?;
        value.parse().map_err(|_| format!("pg_controldata printed `{name}: {value}`"))
    }

    fn is_on(&self, name: &str) -> Result<bool, String> {
        self.get::<String>(name).map(|value| value == "on")
    }
}

/// A control file that was read, byte by byte, and what `pg_controldata` made of it.
pub(super) type Read = (Vec<u8>, ControlFile);

impl LocalPostgres {
    /// What the control file of the data directory says.
    ///
    /// # Errors
    /// It is missing or damaged.
    pub async fn control_file(&self) -> Answer<ControlFile> {
        let before = self.control_bytes().await;
        let known =
            self.control.borrow().as_ref().filter(|(bytes, _)| Some(bytes) == before.as_ref()).cloned();
        if let Some((_, control)) = known {
            // the program would say the same again: of a stopped server, step after step asks
            return Ok(control);
        }
        let mut command = self.program("pg_controldata");
        command.env("LC_ALL", "C");
        let text = runtime::run(command, "pg_controldata", LIMIT).await?;
        let control = ControlFile::parse(&text).map_err(PortError)?;
        // a running server may have written it meanwhile
        if let Some(bytes) = before.filter(|bytes| !bytes.is_empty())
            && self.control_bytes().await.as_ref() == Some(&bytes)
        {
            *self.control.borrow_mut() = Some((bytes, control.clone()));
        }
        Ok(control)
    }

    async fn control_bytes(&self) -> Option<Vec<u8>> {
        let file = self.settings.data_dir.join("global/pg_control");
        tokio::task::spawn_blocking(|| std::fs::read(file)).await.ok()?.ok()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// One of a main with files of a megabyte.
    pub(in crate::postgres) fn some() -> ControlFile {
        ControlFile {
            system_id: 7,
            state: "in production".to_owned(),
            checkpoint: Lsn(0),
            redo: Lsn(0),
            timeline: TimelineId(1),
            previous_timeline: TimelineId(1),
            min_recovery_end: Lsn(0),
            min_recovery_timeline: TimelineId(0),
            wal_log_hints: true,
            full_page_writes: true,
            checksum_version: 0,
            max_prepared_transactions: 0,
            segment_size: 1 << 20,
        }
    }

    #[test]
    fn a_damaged_control_file_is_no_answer() {
        let error = ControlFile::parse("WARNING: Calculated CRC checksum does not match").unwrap_err();
        assert!(error.contains("damaged"), "{error}");
        let error = ControlFile::parse("Database system identifier: 7").unwrap_err();
        assert_eq!(error, "pg_controldata printed no line `Database cluster state`");
    }
}
