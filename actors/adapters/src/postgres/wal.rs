//! The WAL on the disk: a record's bytes, and where the WAL ends.
//!
//! A page begins with a header (16 bits of magic, 16 of flags, the timeline, its own address, how much of a record
//! from the page before goes on here; 24 bytes, 40 at the begin of a file). Records are aligned to 8 bytes, begin with
//! a header of 24 (length, transaction, begin of the record before, info, resource manager, checksum), and go on over
//! as many pages as they need. All versions since 9.5 agree on that (`access/xlogrecord.h`, `xlog_internal.h`).

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use interrex_events::{Lsn, TimelineId};
use sha2::{Digest, Sha256};

use super::line::Line;

const PAGE: u64 = 8192;
const SHORT_HEADER: u64 = 24;
const LONG_HEADER: u64 = 40;
const RECORD_HEADER: usize = 24;
/// No record is larger (`XLogRecordMaxSize`).
const LARGEST: usize = 1020 * 1024 * 1024;
/// Flag of a page whose begin replaces a record that was never finished.
const OVERWRITES: u16 = 8;

/// The WAL that a server has of one timeline, or of a row of timelines.
#[derive(Debug)]
pub(super) struct Wal {
    folder: PathBuf,
    line: Line,
    segment_size: u64,
    /// The file that was read last.
    open: Option<(u64, File)>,
}

/// A complete record.
#[derive(Debug)]
pub(super) struct Record {
    /// Where the next record begins, without the header of a page.
    pub(super) end: Lsn,
    bytes: Vec<u8>,
}

impl Record {
    /// Whether it is the checkpoint of a shutdown: the resource manager of the WAL itself, and no flags.
    pub(super) fn is_shutdown_checkpoint(&self) -> bool {
        self.kind() == (0, 0x00)
    }

    /// Whether the rest of the file after it is left empty.
    fn is_switch(&self) -> bool {
        self.kind() == (0, 0x40)
    }

    pub(super) fn sha256(&self) -> String {
        hex::encode(Sha256::digest(&self.bytes))
    }

    fn previous(&self) -> Lsn {
        Lsn(u64_at(&self.bytes, 8))
    }

    /// The resource manager, and its type of the record.
    fn kind(&self) -> (u8, u8) {
        (self.bytes[17], self.bytes[16] & 0xf0)
    }

    fn is_whole(&self) -> bool {
        let header = crc32c(!0, &self.bytes[RECORD_HEADER..]);
        !crc32c(header, &self.bytes[..20]) == u32_at(&self.bytes, 20)
    }
}

impl Wal {
    pub(super) fn new(data_dir: &Path, timeline: TimelineId, segment_size: u64) -> Self {
        Self::along(data_dir, Line::new(&[], timeline), segment_size)
    }

    /// Along all timelines that led to the newest timeline.
    pub(super) fn along(data_dir: &Path, line: Line, segment_size: u64) -> Self {
        Self { folder: data_dir.join("pg_wal"), line, segment_size, open: None }
    }

    /// The record that begins at an LSN; nothing if none begins there.
    pub(super) fn record(&mut self, at: Lsn) -> io::Result<Option<Record>> {
        let Some(mut place) = self.begin_of_record(at)? else { return Ok(None) };
        let mut length = [0; 4];
        self.read(place, &mut length)?;
        let length = u32::from_ne_bytes(length) as usize;
        if !(RECORD_HEADER..=LARGEST).contains(&length) {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        while bytes.len() < length {
            if place % PAGE == 0 {
                let Some(page) = self.page(place)? else { return Ok(None) };
                // the page goes on with this record, or the record was never finished
                if page.goes_on as usize != length - bytes.len() || page.flags & OVERWRITES != 0 {
                    return Ok(None);
                }
                place += page.header;
            }
            let part = (PAGE - place % PAGE).min((length - bytes.len()) as u64);
            let from = bytes.len();
            bytes.resize(from + usize::try_from(part).unwrap_or_default(), 0);
            self.read(place, &mut bytes[from..])?;
            place += part;
        }
        let record = Record { end: Lsn(place.next_multiple_of(8)), bytes };
        if !record.is_whole() {
            return Ok(None);
        }
        let end =
            if record.is_switch() { record.end.0.next_multiple_of(self.segment_size) } else { record.end.0 };
        Ok(Some(Record { end: Lsn(end), ..record }))
    }

    /// Where the WAL ends: after the last record of the unbroken chain from this record on.
    pub(super) fn end_after(&mut self, first: Lsn) -> io::Result<Option<Lsn>> {
        let (mut last, mut end) = match self.record(first)? {
            Some(record) => (Lsn(self.begin_of_record(first)?.unwrap_or(first.0)), record.end),
            None => return Ok(None),
        };
        loop {
            let next = self.record(end)?;
            // a recycled file has old records: they name another record before them
            match next.filter(|record| record.previous() == last) {
                Some(record) => {
                    last = Lsn(self.begin_of_record(end)?.unwrap_or(end.0));
                    end = record.end;
                }
                None => match self.after_unfinished(end)? {
                    Some(begin) => end = begin,
                    None => return Ok(Some(end)),
                },
            }
        }
    }

    /// Where the record with this byte begins; for a byte between two records, where the next record would begin. Nothing if the
    /// WAL from there on is not here.
    pub(super) fn begin_of_record_at(&mut self, byte: u64) -> io::Result<Option<Lsn>> {
        let mut page = byte - byte % PAGE;
        let mut begin = loop {
            let Some(found) = self.page(page)? else { return Ok(None) };
            let first = page + found.header + u64::from(found.goes_on).next_multiple_of(8);
            if first <= byte && first < page + PAGE {
                break Lsn(first);
            }
            let Some(before) = page.checked_sub(PAGE) else { return Ok(None) };
            page = before;
        };
        while let Some(record) = self.record(begin)?.filter(|record| record.end.0 <= byte) {
            begin = record.end;
        }
        Ok(Some(begin))
    }

    /// How far back from an LSN the WAL is here without a gap, but not before `not_before`.
    pub(super) fn reaches_back(&mut self, from: Lsn, not_before: Lsn) -> io::Result<Lsn> {
        let mut oldest = from.0 - from.0 % self.segment_size;
        while oldest > not_before.0 && self.read(oldest - self.segment_size, &mut [0])? {
            oldest -= self.segment_size;
        }
        Ok(not_before.max(Lsn(oldest)))
    }

    /// A part of one WAL file; nothing if it is not here.
    pub(super) fn part(&mut self, from: u64, to: u64) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; usize::try_from(to - from).unwrap_or_default()];
        Ok(self.read(from, &mut bytes)?.then_some(bytes))
    }

    /// Where the WAL continues after a record that a crash cut off and recovery overwrote (PostgreSQL 14 and later).
    fn after_unfinished(&mut self, at: Lsn) -> io::Result<Option<Lsn>> {
        let page = at.0.next_multiple_of(PAGE);
        let overwrites = self.page(page)?.is_some_and(|page| page.flags & OVERWRITES != 0);
        Ok((overwrites && page != at.0).then_some(Lsn(page)))
    }

    /// An LSN, or the place after the page's header if a page begins there; nothing without such a page.
    fn begin_of_record(&mut self, at: Lsn) -> io::Result<Option<u64>> {
        let Some(page) = self.page(at.0 - at.0 % PAGE)? else { return Ok(None) };
        Ok(Some(if at.0.is_multiple_of(PAGE) { at.0 + page.header } else { at.0 }))
    }

    /// A page's header; nothing if the page is missing, empty, or left over from the file's earlier use.
    fn page(&mut self, at: u64) -> io::Result<Option<PageHeader>> {
        let mut bytes = [0; SHORT_HEADER as usize];
        self.read(at, &mut bytes)?;
        let is_this = u32_at(&bytes, 0) & 0xffff != 0 && u64_at(&bytes, 8) == at;
        let header = if at.is_multiple_of(self.segment_size) { LONG_HEADER } else { SHORT_HEADER };
        let flags = u16::from_ne_bytes([bytes[2], bytes[3]]);
        Ok(is_this.then(|| PageHeader { header, flags, goes_on: u32_at(&bytes, 16) }))
    }

    /// Reads bytes of the WAL from one file; zeros if the file is missing or short. Returns whether it is complete.
    fn read(&mut self, at: u64, bytes: &mut [u8]) -> io::Result<bool> {
        bytes.fill(0);
        let number = at / self.segment_size;
        if self.open.as_ref().is_none_or(|(open, _)| *open != number) {
            self.open = None;
            for name in self.line.files(number, self.segment_size) {
                match File::open(self.folder.join(name)) {
                    Ok(file) => self.open = Some((number, file)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                }
                break;
            }
        }
        let Some((_, file)) = &self.open else { return Ok(false) };
        match file.read_exact_at(bytes, at % self.segment_size) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            other => other.map(|()| true),
        }
    }
}

#[derive(Debug)]
struct PageHeader {
    header: u64,
    flags: u16,
    goes_on: u32,
}

/// The name of a WAL file.
pub(in crate::postgres) fn file_name(timeline: TimelineId, number: u64, segment_size: u64) -> String {
    let in_one = 0x1_0000_0000 / segment_size;
    format!("{:08X}{:08X}{:08X}", timeline.0, number / in_one, number % in_one)
}

/// The address in a file's first page; 0 if the file was never written.
///
/// # Errors
/// The file cannot be read, or is too short.
pub(super) fn own_place(file: &Path) -> io::Result<u64> {
    // xlogdefs: magic and flags 2 bytes each, timeline 4, then the page's address
    let mut head = [0; 16];
    File::open(file)?.read_exact_at(&mut head, 0)?;
    Ok(u64_at(&head, 8))
}

/// The number of a WAL file from its name, on any timeline; nothing for other names.
pub(in crate::postgres) fn file_number(name: &str, segment_size: u64) -> Option<u64> {
    let is_of_log = name.len() == 24 && name.bytes().all(|digit| digit.is_ascii_hexdigit());
    let part = |from: usize| u64::from_str_radix(name.get(from..from + 8)?, 16).ok();
    is_of_log.then(|| Some(part(8)? * (0x1_0000_0000 / segment_size) + part(16)?))?
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_ne_bytes(number)
}

/// The checksum of WAL records (CRC-32C, Castagnoli), continued.
fn crc32c(start: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(start, |crc, byte| (crc >> 8) ^ TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize])
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
    }

    #[test]
    fn files_are_named_as_postgresql_names_them() {
        let name = |lsn: u64, size| file_name(TimelineId(2), lsn / size, size);
        assert_eq!(name(0x1_0300_0028, 16 << 20), "000000020000000100000003");
        assert_eq!(name(0x1_0310_0028, 1 << 20), "000000020000000100000031");
    }
}
