//! A journal whose begin is sealed, and whatever can go wrong on the way there.

use std::{fs, path::Path, sync::Arc};

use chrono::{DateTime, Utc};
use rusqlite::Connection;
use uuid::Uuid;

use super::{
    segment_file::{self, Found},
    *,
};
use crate::{Bases, Carried, Epoch, Event, NodeSeq, SupervisorStopped};

/// Time passes with every event.
struct Ticking(Mutex<i64>);

impl Stamp for Ticking {
    fn now(&self) -> DateTime<Utc> {
        let mut ms = self.0.lock().unwrap();
        *ms += 1;
        DateTime::from_timestamp_millis(1_800_000_000_000 + *ms).unwrap()
    }

    fn event_id(&self) -> EventId {
        EventId(Uuid::from_u128(9))
    }
}

struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn open(&self, node: u32) -> Journal {
        let identity = Identity { cluster_id: ClusterId(Uuid::from_u128(7)), node_id: NodeId(node) };
        let path = self.path(&format!("journal-{node}.db"));
        Journal::open(&path, identity, Arc::new(Ticking(Mutex::new(0)))).unwrap()
    }

    fn filled(&self, node: u32, events: usize) -> Journal {
        let journal = self.open(node);
        (0..events).for_each(|index| append(&journal, &format!("event {index}")));
        journal
    }

    /// The segment with these events of a node, its file written.
    fn segment(&self, journal: &Journal, node: u32, first: u64, last: u64) -> Segment {
        let reader = journal.reader().unwrap();
        let events = NodeSeq(first)..=NodeSeq(last);
        let folder = self.path("segments");
        let file = segment_file::write(&reader, NodeId(node), &events, &folder).unwrap();
        let record = reader.page(NodeId(node), NodeSeq(last - 1), 1).unwrap().remove(0);
        let carried = Carried { epoch: Epoch(last), ..Carried::default() };
        let end = Base { head: record.as_head(), moment: record.hlc, carried };
        Segment { first: NodeSeq(first), end, file: Some(file) }
    }
}

fn append(journal: &Journal, reason: &str) {
    let fact = Draft::new(Epoch(1), SupervisorStopped { reason: reason.to_owned() });
    journal.append(&[fact]).unwrap().blocking_recv().unwrap().unwrap();
}

fn seal(journal: &Journal, segment: &Segment) -> AppendResult {
    journal.seal(segment.clone(), Epoch(1)).unwrap().blocking_recv().unwrap()
}

fn places(reader: &JournalReader, node: u32) -> Vec<u64> {
    let page = reader.page(NodeId(node), NodeSeq(0), u32::MAX).unwrap();
    page.iter().map(|record| record.node_seq.0).collect()
}

fn sound(reader: &JournalReader) -> Verification {
    let verification = reader.verify().unwrap();
    assert_eq!(verification.broken, None);
    verification
}

#[test]
fn what_was_sealed_is_gone_and_the_rest_is_chained_to_it() {
    let scratch = Scratch::new();
    let journal = scratch.filled(2, 12);
    let (first, second) = (scratch.segment(&journal, 2, 1, 5), scratch.segment(&journal, 2, 6, 9));
    let stated = seal(&journal, &first).unwrap();
    let [ref stated] = stated[..] else { panic!("{stated:?}") };
    let Event::JournalSealed(event) = stated.open().event else { panic!("{stated:?}") };
    assert_eq!(
        (stated.node_seq, event.last, event.carried),
        (NodeSeq(13), NodeSeq(5), first.end.carried.clone())
    );
    seal(&journal, &second).unwrap();
    append(&journal, "later");
    drop(journal);

    let journal = scratch.open(2);
    let reader = journal.reader().unwrap();
    assert_eq!(places(&reader, 2), (10..=15).collect::<Vec<_>>());
    assert_eq!((sound(&reader).events, journal.head().node_seq), (6, NodeSeq(15)));
    let (bases, told) =
        reader.tell(None, Verify::Chains, |bases| (bases, 0), |_| true, |told, _| told.1 += 1).unwrap();
    assert_eq!((bases, told), (Bases::from([(NodeId(2), second.end.clone())]), 6));
    reader.see_all(None, Verify::Chains, |_| true, |_| {}).unwrap();

    let folder = scratch.path("segments");
    let segments = reader.segments().unwrap();
    assert_eq!(segments, [first.clone(), second]);
    let before = [Head::empty(NodeId(2)), first.end.head];
    for (segment, before) in segments.iter().zip(before) {
        let found = segment_file::check(&folder, segment.file.as_ref().unwrap(), segment, Some(before));
        assert!(matches!(found, Found::Sound), "{found:?}");
    }
}

#[test]
fn only_what_follows_the_last_segment_and_lies_in_its_file_is_dropped() {
    let scratch = Scratch::new();
    let journal = scratch.filled(2, 8);
    let good = scratch.segment(&journal, 2, 1, 4);
    let changed = |change: &dyn Fn(&mut Segment)| {
        let mut segment = good.clone();
        change(&mut segment);
        seal(&journal, &segment).unwrap_err().to_string()
    };
    for (message, refusal) in [
        ("events up to 0 are sealed already", changed(&|it| it.first = NodeSeq(2))),
        ("another one", changed(&|it| it.end.head.hash = crate::ChainHash::GENESIS)),
        ("the newest event is never sealed", changed(&|it| it.end.head.node_seq = NodeSeq(8))),
        ("no file", changed(&|it| it.file = None)),
    ] {
        assert!(refusal.contains(message), "{refusal}");
    }
    seal(&journal, &good).unwrap();
    assert!(seal(&journal, &good).is_err(), "once is enough");
    let connection = Connection::open(scratch.path("journal-2.db")).unwrap();
    for sql in [
        "DELETE FROM cluster_events",
        "DELETE FROM sealed_segments",
        "UPDATE sealed_segments SET first_seq = 1",
    ] {
        let error = connection.execute(sql, ()).unwrap_err().to_string();
        assert!(error.contains("append-only"), "{error}");
    }
}

#[test]
fn a_crash_leaves_all_events_or_a_sealed_segment_and_its_file_is_whole_before_either() {
    let scratch = Scratch::new();
    let journal = scratch.filled(2, 40);
    // as after a crash on the way to the file, and then one behind it
    let torn = scratch.path("segments").join("node-2-1-30.jsonl.zst.partial");
    fs::create_dir(scratch.path("segments")).unwrap();
    fs::write(&torn, "half of it").unwrap();
    let segment = scratch.segment(&journal, 2, 1, 30);
    assert!(!torn.exists());
    assert_eq!(sound(&journal.reader().unwrap()).events, 40);
    let again = scratch.segment(&journal, 2, 1, 30);
    assert_eq!(again, segment, "the file is written once more, and is the same");

    seal(&journal, &segment).unwrap();
    let (file, log) = (scratch.path("journal-2.db"), scratch.path("journal-2.db-wal"));
    let written = fs::metadata(&log).unwrap().len();
    let mut seen = [0, 0];
    // the log's header, and then its pages, each with a header of its own
    for kept in (32..=written).step_by((4096 + 24) / 2) {
        // as a crash leaves it that cut the log off there
        let image = scratch.path("image.db");
        fs::remove_file(scratch.path("image.db-shm")).ok();
        fs::copy(&file, &image).unwrap();
        let log_image = scratch.path("image.db-wal");
        fs::write(&log_image, &fs::read(&log).unwrap()[..usize::try_from(kept).unwrap()]).unwrap();
        let Ok(reader) = JournalReader::open(&image) else { continue };
        let events = sound(&reader).events;
        let sealed = !reader.segments().unwrap().is_empty();
        assert!(if sealed { events == 11 } else { events <= 40 }, "{kept} bytes: {events} events");
        seen[usize::from(sealed)] += 1;
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}

#[test]
fn a_copy_may_begin_behind_what_its_node_has_sealed_and_only_there() {
    let scratch = Scratch::new();
    let theirs = scratch.filled(1, 12);
    let lagging = scratch.open(3);
    let store = |journal: &Journal, base: Option<Base>, records: Vec<Record>| {
        match base {
            Some(base) => journal.store_copies_after(base, records, Epoch(1)),
            None => journal.store_copies(records, Epoch(1)),
        }
        .unwrap()
        .blocking_recv()
        .unwrap()
    };
    let all = theirs.reader().unwrap().page(NodeId(1), NodeSeq(0), 100).unwrap();
    store(&lagging, None, all[..2].to_vec()).unwrap();
    let segment = scratch.segment(&theirs, 1, 1, 5);
    seal(&theirs, &segment).unwrap();

    let fresh = scratch.open(2);
    let gap = store(&fresh, Some(segment.end.clone()), all[6..].to_vec());
    assert!(gap.is_err() && fresh.heads().is_empty(), "what does not follow the base is refused with it");
    assert_eq!(store(&fresh, Some(segment.end.clone()), all[5..8].to_vec()).unwrap().len(), 3);
    assert_eq!(store(&fresh, None, all[8..].to_vec()).unwrap().len(), 4);
    assert!(store(&lagging, Some(segment.end.clone()), all[5..].to_vec()).is_err(), "a hole is no copy");
    drop(fresh);
    let fresh = scratch.open(2);
    let reader = fresh.reader().unwrap();
    assert_eq!((sound(&reader).events, places(&reader, 1)[0]), (7, 6));
    assert_eq!(reader.segments().unwrap(), [Segment { file: None, ..segment }]);

    // its own journal, lost and taken back from there, goes on behind it whatever the clock says
    drop(theirs);
    fs::remove_file(scratch.path("journal-1.db")).unwrap();
    let back = scratch.open(1);
    let base = reader.bases().unwrap().remove(&NodeId(1)).unwrap();
    store(&back, Some(base), places_of(&reader)).unwrap();
    append(&back, "and on");
    drop(back);
    assert_eq!(sound(&scratch.open(1).reader().unwrap()).events, 8);
}

fn places_of(reader: &JournalReader) -> Vec<Record> {
    reader.page(NodeId(1), NodeSeq(0), 100).unwrap()
}

#[test]
fn a_segments_file_that_is_not_what_was_sealed_is_named_and_one_that_is_elsewhere_is_missed() {
    let scratch = Scratch::new();
    let journal = scratch.filled(2, 12);
    let (first, second) = (scratch.segment(&journal, 2, 1, 5), scratch.segment(&journal, 2, 6, 9));
    let folder = scratch.path("segments");
    let file = |segment: &Segment| segment.file.clone().unwrap();
    let message = |found: Found| match found {
        Found::Wrong(error) => error.to_string(),
        other => format!("{other:?}"),
    };
    let unchained = segment_file::check(&folder, &file(&second), &second, Some(Head::empty(NodeId(2))));
    assert!(message(unchained).contains("is not chained to the segment before it"));
    let path = folder.join(file(&first).name);
    let bytes = fs::read(&path).unwrap();
    let replace = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        message(segment_file::check(&folder, &file(&first), &first, None))
    };
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    assert!(replace(&flipped).contains("SHA-256"));
    let other = fs::read(folder.join(file(&second).name)).unwrap();
    assert!(replace(&other).contains("SHA-256"));
    assert_eq!(replace(&bytes), "Sound");
    fs::remove_file(&path).unwrap();
    assert_eq!(message(segment_file::check(&folder, &file(&first), &first, None)), "Missing");
    assert_eq!(mode(&folder), 0o700);
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}
