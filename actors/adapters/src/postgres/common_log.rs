//! How far the WAL of a stopped directory and the WAL of a main are the same, byte by byte.
//!
//! Histories do not show this. Two servers may each be promoted at the same LSN to a timeline of the same number, and a server that
//! was started without its `standby.signal` keeps its number. pg_rewind compares only numbers.

use interrex_actors::ports::{Answer, MainServerPort, PortError};
use interrex_events::Lsn;
use sha2::{Digest as _, Sha256};

use super::{LocalPostgres, line::Line, wal::Wal};

/// The least bytes that are compared before the place in question.
const LEAST: u64 = 1 << 20;
/// Bytes of a part that has one checksum.
const PART: u64 = 1 << 20;
const PAGE: u64 = 8192;
/// After so many equal files, the files before them count as equal too.
const SAME_FILES: u64 = 8;

/// The result of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Common {
    /// The same up to the LSN that was asked for.
    Whole,
    /// They part before that LSN.
    Until {
        /// Where the first different record begins.
        at: Lsn,
        /// Whether it is exactly that record. If not, they part there or later: the WAL in between is no longer on both.
        exact: bool,
    },
    /// The WAL of that LSN is no longer on both, or may not be read.
    Unproved {
        /// The reason, for people.
        why: String,
        /// Whether they were on the same timeline all the same: timeline 1, or a timeline whose first page is on both.
        same_timeline: bool,
    },
}

/// What is compared.
pub(super) struct Compared<'a> {
    /// The directory's timelines and main's.
    pub(super) own: &'a Line,
    pub(super) main: &'a Line,
    /// Where the last timeline began that both histories know.
    pub(super) begin: Lsn,
    /// Where a recovery of the directory would begin.
    pub(super) redo: Lsn,
    /// Up to here both histories are the same.
    pub(super) until: Lsn,
    pub(super) segment_size: u64,
}

/// Whether a part is the same on both; nothing if one of them no longer has it.
type Same = Option<bool>;

impl LocalPostgres {
    pub(super) async fn common_log(
        &self,
        compared: &Compared<'_>,
        server: &dyn MainServerPort,
    ) -> Answer<Common> {
        let Compared { begin, redo, until, segment_size, .. } = *compared;
        let mut wal = Wal::along(&self.settings.data_dir, compared.own.clone(), segment_size);
        let from = redo.min(until).0.min(until.0.saturating_sub(LEAST));
        let from = from - from % PAGE;
        // the first page of a timeline has the moment of its promotion, wherever its end is
        let first = begin.0 - begin.0 % PAGE;
        let mut same_timeline = begin.0 == 0;
        if begin.0 > 0 && first + PAGE <= until.0.min(from) {
            let same = self.same(compared, &mut wal, (first, first + PAGE), server).await?;
            if same == Some(false) {
                return self.parting(compared, &mut wal, begin.0 / segment_size, server).await;
            }
            same_timeline = same == Some(true);
        }
        let mut last = None;
        for number in from / segment_size..=until.0.saturating_sub(1) / segment_size {
            let (of, to) = (number * segment_size, (number + 1) * segment_size);
            last = self.same(compared, &mut wal, (of.max(from), to.min(until.0)), server).await?;
            if last == Some(false) {
                return self.parting(compared, &mut wal, number, server).await;
            }
        }
        Ok(match last {
            Some(_) => Common::Whole,
            None => {
                let why = format!(
                    "main no longer has the WAL before {until}, or this node's login may not read it, so that it is not proved \
                     that the WAL is the same on both"
                );
                Common::Unproved { why, same_timeline }
            }
        })
    }

    /// Whether both have the same bytes, in one file of the WAL.
    async fn same(
        &self,
        compared: &Compared<'_>,
        wal: &mut Wal,
        (from, to): (u64, u64),
        server: &dyn MainServerPort,
    ) -> Answer<Same> {
        let sums = self.sums(compared, wal, (from, to, PART), server).await?;
        Ok(sums.map(|(own, mains)| own == mains))
    }

    /// Sums of both, part by part.
    async fn sums(
        &self,
        compared: &Compared<'_>,
        wal: &mut Wal,
        (from, to, part): (u64, u64, u64),
        server: &dyn MainServerPort,
    ) -> Answer<Option<(Vec<String>, Vec<String>)>> {
        let mut own = Vec::new();
        let mut place = from;
        while place < to {
            let next = (place + part).min(to);
            let bytes = wal.part(place, next).map_err(|error| PortError::new("reading the WAL", error))?;
            let Some(bytes) = bytes else { return Ok(None) };
            own.push(hex::encode(Sha256::digest(bytes)));
            place = next;
            // a whole file of the WAL takes some time
            tokio::task::yield_now().await;
        }
        let segment_size = compared.segment_size;
        let within = (from % segment_size, from % segment_size + (to - from), part);
        for file in compared.main.files(from / segment_size, segment_size) {
            if let Some(mains) = server.log_sums(&file, within).await? {
                return Ok(Some((own, mains)));
            }
        }
        Ok(None)
    }

    /// Where the two part: in this file of the WAL or before it.
    async fn parting(
        &self,
        compared: &Compared<'_>,
        wal: &mut Wal,
        differing: u64,
        server: &dyn MainServerPort,
    ) -> Answer<Common> {
        let Compared { begin, until, segment_size, .. } = *compared;
        // backwards, because different pages may be followed by pages that are the same on every server
        let (mut first, mut same_files, mut number) = (differing, 0, differing);
        let mut proved_before = false;
        while let Some(before) = number.checked_sub(1).filter(|_| same_files < SAME_FILES) {
            number = before;
            match self
                .same(compared, wal, (number * segment_size, (number + 1) * segment_size), server)
                .await?
            {
                None => break,
                Some(true) => same_files += 1,
                Some(false) => (first, same_files) = (number, 0),
            }
            proved_before = same_files > 0;
        }
        let (from, to) = (first * segment_size, ((first + 1) * segment_size).min(until.0));
        let pages = self.sums(compared, wal, (from, to, PAGE), server).await?;
        let lost = || PortError(format!("the WAL of {} is no longer there", Lsn(from)));
        let (own, mains) = pages.ok_or_else(lost)?;
        let page = own.iter().zip(&mains).position(|(own, main)| own != main).ok_or_else(lost)? as u64;
        if page == 0 && !proved_before && from > 0 {
            // before everything that both still have
            let at = wal
                .reaches_back(Lsn(from), begin)
                .map_err(|error| PortError::new("reading the WAL", error))?;
            return Ok(Common::Until { at, exact: false });
        }
        let (from, to) = (from + page * PAGE, (from + (page + 1) * PAGE).min(to));
        let byte = self.first_other_byte(compared, wal, (from, to), server).await?.ok_or_else(lost)?;
        let at = wal.begin_of_record_at(byte).map_err(|error| PortError::new("reading the WAL", error))?;
        Ok(match at {
            Some(at) => Common::Until { at: at.max(begin), exact: true },
            None => Common::Until { at: begin.max(Lsn(from)), exact: false },
        })
    }

    async fn first_other_byte(
        &self,
        compared: &Compared<'_>,
        wal: &mut Wal,
        (from, to): (u64, u64),
        server: &dyn MainServerPort,
    ) -> Answer<Option<u64>> {
        let own = wal.part(from, to).map_err(|error| PortError::new("reading the WAL", error))?;
        let segment_size = compared.segment_size;
        let within = (from % segment_size, to - from);
        for file in compared.main.files(from / segment_size, segment_size) {
            if let (Some(own), Some(mains)) = (&own, server.log_bytes(&file, within).await?) {
                let other = own.iter().zip(&mains).position(|(own, main)| own != main);
                return Ok(other.map(|other| from + other as u64));
            }
        }
        Ok(None)
    }
}
