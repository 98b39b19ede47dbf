//! The control file of a data directory, `global/pg_control`: readable whether the server runs or not.
//!
//! ```text
//! identity, state, last checkpoint, settings that a standby needs | CRC-32C of all before it
//! ```
//!
//! PostgreSQL writes the file as its machine stores a C struct (`ControlFileData` in `catalog/pg_control.h`). The places of the
//! fields that are read here are the same in versions 13 to 18; the checksum covers the whole struct, so that a file of another
//! layout is an error, and not read wrongly. Tried with PostgreSQL 15.

use std::{io, time::Duration};

use interrex_actors::ports::{Answer, PortError};
use interrex_events::{Lsn, TimelineId};

use super::LocalPostgres;

/// How often a file is read again whose checksum does not match: a running server may be writing it.
const LOOKS: u32 = 20;
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// The server's states, by their number (`DBState`), as `pg_controldata` prints them.
const STATES: [&str; 7] = [
    "starting up",
    "shut down",
    "shut down in recovery",
    "shutting down",
    "in crash recovery",
    "in archive recovery",
    "in production",
];
/// Where the version of the file is.
const VERSION: usize = 8;

/// The contents of a control file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlFile {
    /// System identifier: the same on every copy of a cluster.
    pub system_id: u64,
    /// The state of the server when it last wrote the file, as `pg_controldata` prints it.
    pub state: String,
    /// Where the record of the last checkpoint begins.
    pub checkpoint: Lsn,
    /// Where recovery would begin.
    pub redo: Lsn,
    /// Timeline of the last checkpoint. It lags behind a promotion (MEASURED M5).
    pub timeline: TimelineId,
    /// The timeline before it, if that checkpoint was the first of its timeline.
    pub previous_timeline: TimelineId,
    /// How far a standby must replay before its data is consistent; zero on a main.
    pub min_recovery_end: Lsn,
    /// The timeline of that LSN.
    pub min_recovery_timeline: TimelineId,
    /// Whether changed hint bits are logged, so that `pg_rewind` sees every changed page.
    pub wal_log_hints: bool,
    /// Whether whole pages were written to the WAL at the last checkpoint.
    pub full_page_writes: bool,
    /// Version of the data checksums; 0 without checksums.
    pub checksum_version: u32,
    /// How many prepared transactions the server allowed.
    pub max_prepared_transactions: u32,
    /// Bytes of one WAL file.
    pub segment_size: u64,
}

impl ControlFile {
    /// Reads the bytes of a control file.
    ///
    /// # Errors
    /// The file is damaged, or of a version that is not known.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let file = Bytes(bytes);
        let checksum = match file.u32(VERSION)? {
            1300 | 1700 => 288,
            1800 => 292,
            other => {
                return Err(format!(
                    "the control file has version {other}: Interrex reads those of PostgreSQL 13 to 18"
                ));
            }
        };
        let covered = bytes.get(..checksum).ok_or("the control file is too short")?;
        if crc32c::crc32c(covered) != file.u32(checksum)? {
            return Err("the control file is damaged: its checksum does not match".to_owned());
        }
        let state = file.u32(16)?;
        let name = usize::try_from(state).ok().and_then(|state| STATES.get(state));
        Ok(Self {
            system_id: file.u64(0)?,
            state: name.map_or_else(|| format!("unknown ({state})"), |name| (*name).to_owned()),
            checkpoint: Lsn(file.u64(32)?),
            redo: Lsn(file.u64(40)?),
            timeline: TimelineId(file.u32(48)?),
            previous_timeline: TimelineId(file.u32(52)?),
            full_page_writes: file.is_on(56)?,
            min_recovery_end: Lsn(file.u64(136)?),
            min_recovery_timeline: TimelineId(file.u32(144)?),
            wal_log_hints: file.is_on(176)?,
            max_prepared_transactions: file.u32(192)?,
            segment_size: file.u32(228)?.into(),
            checksum_version: file.u32(252)?,
        })
    }

    /// Whether the server was shut down cleanly, as a main or as a standby.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.state == "shut down" || self.state == "shut down in recovery"
    }

    /// The newest timeline of this directory: a promoted server notes it before its first checkpoint.
    #[must_use]
    pub fn own_timeline(&self) -> TimelineId {
        self.timeline.max(self.min_recovery_timeline)
    }
}

/// The bytes, by their offset.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], String> {
        let bytes = self.0.get(at..at + N).and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or_else(|| "the control file is too short".to_owned())
    }

    fn u32(&self, at: usize) -> Result<u32, String> {
        self.array(at).map(u32::from_ne_bytes)
    }

    fn u64(&self, at: usize) -> Result<u64, String> {
        self.array(at).map(u64::from_ne_bytes)
    }

    fn is_on(&self, at: usize) -> Result<bool, String> {
        self.array::<1>(at).map(|[byte]| byte != 0)
    }
}

impl LocalPostgres {
    /// Reads the control file of the data directory.
    ///
    /// # Errors
    /// The file is missing, damaged, or of a version that is not known.
    pub async fn control_file(&self) -> Answer<ControlFile> {
        let mut looks = 0;
        loop {
            let read = self.control_bytes().await.map_err(|error| error.to_string());
            match read.and_then(|bytes| ControlFile::read(&bytes)) {
                Ok(control) => return Ok(control),
                Err(problem) if looks >= LOOKS || self.settings.runtime.find().await.is_none() => {
                    let file = self.settings.data_dir.join("global/pg_control");
                    return Err(PortError::new(&format!("reading {}", file.display()), problem));
                }
                Err(_) => looks += 1,
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn control_bytes(&self) -> io::Result<Vec<u8>> {
        let file = self.settings.data_dir.join("global/pg_control");
        tokio::task::spawn_blocking(|| std::fs::read(file)).await.map_err(io::Error::other)?
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

    /// The bytes of a file of this version, with a checksum that matches.
    fn bytes(version: u32, checksum: usize) -> Vec<u8> {
        let mut bytes = vec![0_u8; 8192];
        bytes[VERSION..VERSION + 4].copy_from_slice(&version.to_ne_bytes());
        bytes[0..8].copy_from_slice(&7_u64.to_ne_bytes());
        bytes[16..20].copy_from_slice(&1_u32.to_ne_bytes());
        let sum = crc32c::crc32c(&bytes[..checksum]);
        bytes[checksum..checksum + 4].copy_from_slice(&sum.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_damaged_control_file_is_no_answer_and_nor_is_one_of_another_layout() {
        for (version, checksum) in [(1300, 288), (1700, 288), (1800, 292)] {
            let good = bytes(version, checksum);
            let control = ControlFile::read(&good).unwrap();
            assert_eq!((control.system_id, control.is_clean()), (7, true));
            for at in 0..checksum {
                let mut damaged = good.clone();
                damaged[at] ^= 1;
                ControlFile::read(&damaged).unwrap_err();
            }
            ControlFile::read(&good[..checksum]).unwrap_err();
        }
        let error = ControlFile::read(&bytes(1201, 288)).unwrap_err();
        assert!(error.contains("version 1201"), "{error}");
    }
}
