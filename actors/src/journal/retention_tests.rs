use std::sync::{
    Mutex,
    atomic::{AtomicI64, Ordering},
};

use chrono::{DateTime, Utc};
use interrex_events::{
    Carried, ClusterId, Draft, Epoch, Event, EventId, Evidence, FailedEnd, FailoverFailed, FailoverStarted,
    Finding, RunId, StepId, SupervisorStopped, Trigger, UnknownEvent,
    journal::{Identity, Journal, Stamp},
};
use uuid::Uuid;

use super::*;

const ME: NodeId = NodeId(2);

/// A second passes with every event.
struct Seconds(AtomicI64);

impl Stamp for Seconds {
    fn now(&self) -> DateTime<Utc> {
        at(self.0.fetch_add(1, Ordering::Relaxed))
    }

    fn event_id(&self) -> EventId {
        EventId(Uuid::from_u128(9))
    }
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

struct Scratch {
    journal: Journal,
    folder: tempfile::TempDir,
    runs: Mutex<u128>,
}

impl Scratch {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity { cluster_id: ClusterId(Uuid::from_u128(7)), node_id: ME };
        let stamp = Arc::new(Seconds(AtomicI64::new(1)));
        let journal = Journal::open(&folder.path().join("journal.db"), identity, stamp).unwrap();
        Self { journal, folder, runs: Mutex::new(0) }
    }

    fn record(&self, event: impl Into<Event>, run: Option<RunId>) {
        let draft = Draft { run_id: run, ..Draft::new(Epoch(1), event.into()) };
        self.journal.append(&[draft]).unwrap().blocking_recv().unwrap().unwrap();
    }

    fn quiet(&self, events: usize) -> &Self {
        (0..events).for_each(|_| self.record(SupervisorStopped { reason: String::new() }, None));
        self
    }

    fn run(&self) -> RunId {
        let mut runs = self.runs.lock().unwrap();
        *runs += 1;
        let run = RunId(Uuid::from_u128(*runs));
        let silent = || Finding::bad("connection refused");
        let evidence = Evidence {
            supervisor: silent(),
            postgres: silent(),
            redis: silent(),
            wal_receiver: silent(),
            last_good_at: None,
            missed_probes: 3,
        };
        let started = FailoverStarted {
            trigger: Trigger::Automatic,
            old_main: NodeId(1),
            new_main: ME,
            epoch: Epoch(2),
            evidence,
            silent_ms: 1,
            threshold_ms: 1,
            last_report: None,
            quorum: "none".to_owned(),
            request: None,
            handover: None,
        };
        self.record(started, Some(run));
        run
    }

    fn ended(&self, run: RunId, end: FailedEnd) {
        let failed = FailoverFailed { end, step: StepId::Promote, error: String::new(), next: String::new() };
        self.record(failed, Some(run));
    }

    /// The next segment of at least four events, as first and last, where events up to a second are old.
    fn next(&self, until: i64) -> Option<(u64, u64)> {
        let until = Hlc::from_wall_ms(at(until).timestamp_millis());
        let found = next_segment(&self.journal.reader().unwrap(), ME, 4, until).unwrap();
        found.map(|(first, end)| (first.0, end.head.node_seq.0))
    }
}

#[test]
fn a_segment_is_old_enough_long_enough_and_never_the_newest_event() {
    let scratch = Scratch::new();
    scratch.quiet(4);
    assert_eq!(scratch.next(100), None, "the newest event stays");
    scratch.quiet(6);
    assert_eq!(scratch.next(4), None, "the fourth event is too young");
    assert_eq!(scratch.next(5), Some((1, 4)));

    let reader = scratch.journal.reader().unwrap();
    let (events, folder) = (NodeSeq(1)..=NodeSeq(4), scratch.folder.path().join("segments"));
    let file = segment_file::write(&reader, ME, &events, &folder).unwrap();
    let record = reader.page(ME, NodeSeq(3), 1).unwrap().remove(0);
    let end = Base { head: record.as_head(), moment: record.hlc, carried: Carried::default() };
    let segment = Segment { first: NodeSeq(1), end, file: Some(file) };
    scratch.journal.seal(segment, Epoch(1)).unwrap().blocking_recv().unwrap().unwrap();
    assert_eq!(scratch.next(100), Some((5, 8)));
}

#[test]
fn a_segment_goes_on_until_nothing_in_it_is_unfinished_or_unread() {
    let scratch = Scratch::new();
    scratch.quiet(2);
    let run = scratch.run();
    scratch.quiet(3);
    assert_eq!(scratch.next(100), None, "the run goes on");
    scratch.ended(run, FailedEnd::RolledBack);
    scratch.quiet(3);
    assert_eq!(scratch.next(100), Some((1, 7)), "up to the end of the run");

    let waiting = Scratch::new();
    let run = waiting.run();
    waiting.ended(run, FailedEnd::NeedsOperator);
    waiting.quiet(9);
    assert_eq!(waiting.next(100), None, "a person must look at it");

    let older = Scratch::new();
    let unknown = UnknownEvent {
        kind: "from_the_future".to_owned(),
        schema_version: 1,
        payload: "{}".to_owned(),
        reason: String::new(),
    };
    older.record(Event::Unknown(unknown), None);
    older.quiet(9);
    assert_eq!(older.next(100), None, "a newer program may read what this one passed over");
}

#[test]
fn a_long_journal_is_folded_page_by_page() {
    let scratch = Scratch::new();
    let run = scratch.run();
    let drafts = vec![Draft::new(Epoch(1), SupervisorStopped { reason: String::new() }); 1_200];
    scratch.journal.append(&drafts).unwrap().blocking_recv().unwrap().unwrap();
    scratch.ended(run, FailedEnd::Failed);
    scratch.quiet(1);
    assert_eq!(scratch.next(100_000), Some((1, 1_202)));
}
