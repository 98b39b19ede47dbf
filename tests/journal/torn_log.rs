//! What a power cut may leave: a log that is cut, overwritten or changed anywhere. What was whole stays, what was
//! not never was, and a journal that lost its end goes on soundly: that the end is missing, only peers can know.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use fastrand::Rng;
use interrex_actors::env::SystemEnv;
use interrex_events::{
    Draft, Epoch, Record, SupervisorStopped,
    journal::{Journal, JournalError, Selection},
};
use interrex_tests::journal_of_a_test;
use tempfile::TempDir;

use crate::{Acknowledged, assert_sound, seed};

/// SQLite's log begins with a header, and each page in it has one.
const LOG_HEADER: u64 = 32;
const FRAME: u64 = 24 + 4096;

/// The files of a journal at work, copied between two appends: what a power cut would leave at best.
struct Image {
    folder: TempDir,
    /// Everything that was appended.
    records: Vec<Record>,
    /// How long the log was after each append, and how many events were stored by then.
    commits: Vec<(u64, usize)>,
}

/// What happened to the log, from an offset on.
#[derive(Debug, Clone, Copy)]
enum Tear {
    Cut(u64),
    Zeros(u64),
    Garbage(u64),
    /// One byte alone.
    Byte(u64),
}

#[test]
fn a_log_that_is_torn_anywhere_yields_exactly_the_appends_before_the_tear() {
    let mut rng = Rng::with_seed(seed());
    let image = Image::new();
    for tear in image.tears(&mut rng) {
        let torn = image.copy();
        let journal = torn.path().join("journal.db");
        let sound_until = tear.apply(&log_of(&journal), &mut rng);
        let left = image.records[..image.stored_within(sound_until)].to_vec();
        let opened = open(&journal).unwrap();
        let read = opened.reader().unwrap().read(&Selection::default()).unwrap();
        assert!(read == left, "{tear:?}: {} events instead of {}", read.len(), left.len());
        let all = [left, append(&opened, 2)].concat();
        drop(opened);
        assert!(assert_sound(&journal, &acknowledged(&all)) == all, "{tear:?} has a late effect");
    }
}

#[test]
fn a_changed_byte_in_the_file_is_refused_or_changes_no_event() {
    let mut rng = Rng::with_seed(seed());
    let image = Image::new();
    // an orderly end has moved everything from the log into the file
    drop(open(&image.journal()).unwrap());
    let length = fs::metadata(image.journal()).unwrap().len();
    for _ in 0..300 {
        let changed = image.copy();
        let journal = changed.path().join("journal.db");
        let tear = Tear::Byte(rng.u64(..length));
        tear.apply(&journal, &mut rng);
        if let Ok(opened) = open(&journal) {
            let read = opened.reader().unwrap().read(&Selection::default()).unwrap();
            let hashes = read.iter().map(Record::computed_hash);
            assert!(
                hashes.eq(image.records.iter().map(|record| record.hash)),
                "{tear:?} yields another story"
            );
        }
    }
}

impl Image {
    /// Some events in the file, more in the log, in appends of one event and of many, small ones and large ones.
    fn new() -> Self {
        let working = tempfile::tempdir().unwrap();
        let journal = working.path().join("journal.db");
        let opened = open(&journal).unwrap();
        let mut records: Vec<_> = (0..12).flat_map(|number| append(&opened, number)).collect();
        drop(opened);
        let opened = open(&journal).unwrap();
        let mut commits = vec![(0, records.len())];
        for number in 0..24 {
            records.extend(append(&opened, number));
            commits.push((fs::metadata(log_of(&journal)).unwrap().len(), records.len()));
        }
        let image = Self { folder: tempfile::tempdir().unwrap(), records, commits };
        copy(working.path(), image.folder.path());
        image
    }

    fn journal(&self) -> PathBuf {
        self.folder.path().join("journal.db")
    }

    fn copy(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        copy(self.folder.path(), folder.path());
        folder
    }

    /// Around every border of a commit, in every byte of some headers, and anywhere.
    fn tears(&self, rng: &mut Rng) -> Vec<Tear> {
        let end = self.commits.last().unwrap().0;
        let borders =
            self.commits.iter().flat_map(|(length, _)| [length.saturating_sub(1), *length, length + 23]);
        let mut tears: Vec<Tear> = borders.map(Tear::Cut).collect();
        tears.extend((0..LOG_HEADER).map(Tear::Byte));
        for _ in 0..3 {
            let frame = LOG_HEADER + rng.u64(..(end - LOG_HEADER) / FRAME) * FRAME;
            tears.extend((frame..frame + 24).map(Tear::Byte));
        }
        for kind in [Tear::Cut, Tear::Zeros, Tear::Garbage, Tear::Byte] {
            tears.extend((0..50).map(|_| kind(rng.u64(..end))));
        }
        tears
    }

    /// How many events were stored when the log was no longer than that.
    fn stored_within(&self, length: u64) -> usize {
        self.commits.iter().rfind(|(commit, _)| *commit <= length).unwrap().1
    }
}

impl Tear {
    /// Does it to a file. How much of that is as it was: zeros may have been there before.
    fn apply(self, file: &Path, rng: &mut Rng) -> u64 {
        let before = fs::read(file).unwrap();
        let mut after = before.clone();
        match self {
            Self::Cut(at) => after.truncate(at as usize),
            Self::Zeros(at) => after[at as usize..].fill(0),
            Self::Garbage(at) => rng.fill(&mut after[at as usize..]),
            Self::Byte(at) => after[at as usize] ^= rng.u8(1..),
        }
        fs::write(file, &after).unwrap();
        let changed = before.iter().zip(&after).position(|(before, after)| before != after);
        changed.unwrap_or(after.len()) as u64
    }
}

fn open(journal: &Path) -> Result<Journal, JournalError> {
    Journal::open(journal, journal_of_a_test(), Arc::new(SystemEnv))
}

/// One append: of one event, or of two or three, of which the last is larger than a page.
fn append(journal: &Journal, number: usize) -> Vec<Record> {
    let fact = |message: String| Draft::new(Epoch(1), SupervisorStopped { reason: message });
    let mut facts: Vec<_> = (0..number % 3).map(|part| fact(format!("{number}, part {part}"))).collect();
    facts.push(fact("a long story; ".repeat(number % 5 * 150)));
    journal.append(&facts).unwrap().blocking_recv().unwrap().unwrap()
}

fn acknowledged(records: &[Record]) -> Acknowledged {
    records.iter().map(|record| (record.node_seq, record.hash)).collect()
}

fn log_of(journal: &Path) -> PathBuf {
    journal.with_extension("db-wal")
}

fn copy(from: &Path, to: &Path) {
    for file in fs::read_dir(from).unwrap().flatten() {
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}
