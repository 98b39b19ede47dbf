use std::{path::Path, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use rusqlite::Connection;
use uuid::Uuid;

use super::*;
use crate::{Cause, Epoch, Lineage, NodeSeq, RunId, SupervisorStopped, UnknownEvent};

/// A wall clock that the test moves, and ids that count.
struct TestStamp(Mutex<(DateTime<Utc>, u128)>);

impl TestStamp {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new((DateTime::from_timestamp_millis(1_800_000_000_000).unwrap(), 0))))
    }

    fn jump(&self, by: TimeDelta) {
        self.0.lock().unwrap().0 += by;
    }
}

impl Stamp for TestStamp {
    fn now(&self) -> DateTime<Utc> {
        self.0.lock().unwrap().0
    }

    fn event_id(&self) -> EventId {
        let mut state = self.0.lock().unwrap();
        state.1 += 1;
        EventId(Uuid::from_u128(state.1))
    }
}

fn identity() -> Identity {
    Identity { cluster_id: ClusterId(Uuid::from_u128(7)), node_id: NodeId(2) }
}

fn draft(text: &str) -> Draft {
    Draft::new(Epoch(1), SupervisorStopped { reason: text.to_owned() })
}

fn append(journal: &Journal, drafts: &[Draft]) -> Vec<Record> {
    journal.append(drafts).unwrap().blocking_recv().unwrap().unwrap()
}

fn filled(path: &Path, events: usize) -> Vec<Record> {
    let journal = Journal::open(path, identity(), TestStamp::new()).unwrap();
    (0..events).flat_map(|index| append(&journal, &[draft(&format!("event {index}"))])).collect()
}

#[test]
fn what_was_appended_is_read_back_and_continues_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let mut written = filled(&path, 3);
    let journal = Journal::open(&path, identity(), TestStamp::new()).unwrap();
    written.extend(append(&journal, &[draft("a"), draft("b")]));
    assert_eq!(journal.reader().unwrap().read(&Selection::default()).unwrap(), written);
    assert_eq!(written.iter().map(|record| record.node_seq.0).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(journal.head().node_seq, NodeSeq(5));
    assert_eq!(journal.reader().unwrap().newest(NodeId(2), 2).unwrap(), written[3..]);
}

/// The journal of another node, and what it holds.
fn of_a_peer(folder: &Path, events: usize) -> Vec<Record> {
    let peer = Identity { node_id: NodeId(1), ..identity() };
    let journal = Journal::open(&folder.join("peer.db"), peer, TestStamp::new()).unwrap();
    (0..events).flat_map(|index| append(&journal, &[draft(&format!("peer {index}"))])).collect()
}

#[test]
fn copies_are_taken_once_and_in_order_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let theirs = of_a_peer(folder.path(), 6);
    let journal = Journal::open(&path, identity(), TestStamp::new()).unwrap();
    let store = |records: &[Record]| {
        journal.store_copies(records.to_vec(), Epoch(2)).unwrap().blocking_recv().unwrap()
    };
    append(&journal, &[draft("own")]);
    assert_eq!(store(&theirs[..3]).unwrap().len(), 3);
    assert_eq!(store(&theirs[1..4]).unwrap().len(), 1, "what is here already is passed over");
    let mut forged = theirs[4..].to_vec();
    forged[1].payload.push(' ');
    for refused in [&theirs[5..], &forged[..]] {
        assert!(matches!(store(refused), Err(JournalError::CopiesRefused(_))));
    }
    assert_eq!(append(&journal, &[draft("own again")])[0].node_seq, NodeSeq(2), "a refusal harms nobody");
    drop(journal);

    let journal = Journal::open(&path, identity(), TestStamp::new()).unwrap();
    assert_eq!(
        journal.heads().iter().map(|head| (head.node_id.0, head.node_seq.0)).collect::<Vec<_>>(),
        [(1, 4), (2, 2)]
    );
    let copies = journal.reader().unwrap().page(NodeId(1), NodeSeq(0), 100).unwrap();
    assert!(copies.iter().all(|copy| copy.open().learned_later()), "learned in epoch 2, recorded in epoch 1");
    assert_eq!(
        copies.iter().map(|copy| copy.hash).collect::<Vec<_>>(),
        theirs[..4].iter().map(|event| event.hash).collect::<Vec<_>>()
    );
}

#[test]
fn a_wall_clock_that_is_set_back_cannot_reorder_history() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let stamp = TestStamp::new();
    let first = {
        let journal = Journal::open(&path, identity(), stamp.clone()).unwrap();
        append(&journal, &[draft("before")])
    };
    stamp.jump(TimeDelta::days(-3650));
    let journal = Journal::open(&path, identity(), stamp).unwrap();
    let second = append(&journal, &[draft("after")]);
    assert!(second[0].hlc > first[0].hlc);
    assert!(second[0].recorded_at < first[0].recorded_at, "the wall clock is recorded as it was");
}

#[test]
fn events_can_be_neither_changed_nor_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    filled(&path, 2);
    let connection = Connection::open(&path).unwrap();
    for sql in ["UPDATE cluster_events SET payload = '{}'", "DELETE FROM cluster_events"] {
        let error = connection.execute(sql, ()).unwrap_err().to_string();
        assert!(error.contains("append-only"), "{error}");
    }
}

#[test]
fn a_second_supervisor_is_refused_and_so_is_another_nodes_journal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let journal = Journal::open(&path, identity(), TestStamp::new()).unwrap();
    assert!(matches!(Journal::open(&path, identity(), TestStamp::new()), Err(JournalError::InUse(_))));
    drop(journal);
    let other = Identity { node_id: NodeId(3), ..identity() };
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(Journal::open(&path, other, TestStamp::new()), Err(JournalError::OtherIdentity { .. })));
    assert!(std::fs::read(&path).unwrap() == before, "a refused opening changed the file");
}

#[test]
fn a_file_that_is_no_journal_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    assert!(matches!(Journal::open(&path, identity(), TestStamp::new()), Err(JournalError::NotAJournal(_))));
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "not a database at all, but long enough to have a header of its own\n".repeat(99))
        .unwrap();
    assert!(matches!(Journal::open(&text, identity(), TestStamp::new()), Err(JournalError::Failed { .. })));
}

#[test]
fn a_creation_that_a_crash_cut_short_is_begun_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    Connection::open(&path).unwrap().pragma_update(None, "journal_mode", "WAL").unwrap();
    assert_eq!(filled(&path, 1).len(), 1);
}

/// A failed fsync may have left it in the system's buffers alone: nothing is appended behind it there.
#[test]
fn what_a_dead_writer_left_in_the_log_is_in_the_file_before_anything_is_appended() {
    let folder = tempfile::tempdir().unwrap();
    let (dead, path) = (folder.path().join("dead.db"), folder.path().join("journal.db"));
    let journal = Journal::open(&dead, identity(), TestStamp::new()).unwrap();
    let written = append(&journal, &[draft("a"), draft("b")]);
    // what a kill would leave: the file, and the log beside it
    std::fs::copy(&dead, &path).unwrap();
    std::fs::copy(folder.path().join("dead.db-wal"), folder.path().join("journal.db-wal")).unwrap();
    let opened = Journal::open(&path, identity(), TestStamp::new()).unwrap();
    assert_eq!(std::fs::metadata(folder.path().join("journal.db-wal")).unwrap().len(), 0);
    assert_eq!(opened.reader().unwrap().read(&Selection::default()).unwrap(), written);
}

#[test]
fn many_appenders_share_fsyncs_and_keep_one_gapless_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let journal = Journal::open(&path, identity(), TestStamp::new()).unwrap();
    std::thread::scope(|scope| {
        for appender in 0..8 {
            let journal = &journal;
            scope.spawn(move || {
                for index in 0..50 {
                    append(journal, &[draft(&format!("{appender} {index}")), draft("and its twin")]);
                }
            });
        }
    });
    let verification = journal.reader().unwrap().verify().unwrap();
    assert_eq!((verification.events, verification.broken), (800, None));
}

#[test]
fn a_journal_alone_in_a_read_only_folder_can_be_read() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let written = filled(&path, 2);
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o555)).unwrap();
    let read = JournalReader::open(&path).unwrap().read(&Selection::default()).unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(read, written);
}

#[test]
fn the_walk_names_the_event_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    filled(&path, 4);
    let connection = Connection::open(&path).unwrap();
    let damage = "DROP TRIGGER cluster_events_no_update; UPDATE cluster_events SET recorded_at = 1 << 62 WHERE node_seq = 3";
    connection.execute_batch(damage).unwrap();
    let broken = JournalReader::open(&path).unwrap().verify().unwrap().broken.unwrap();
    assert_eq!((broken.node_id, broken.node_seq), (NodeId(2), NodeSeq(3)));
    assert!(broken.problem.starts_with("it cannot be read: "), "{broken}");
    let read = JournalReader::open(&path).unwrap().read(&Selection::default());
    assert!(matches!(read, Err(JournalError::Damaged { broken: named, .. }) if named == broken));
}

#[test]
fn an_event_whose_moment_is_not_after_its_predecessors_breaks_the_chain() {
    let folder = tempfile::tempdir().unwrap();
    let records = filled(&folder.path().join("journal.db"), 2);
    let mut second = records[1].clone();
    second.hlc = records[0].hlc;
    second.hash = second.computed_hash();
    let mut walk = ChainWalk::from_genesis(NodeId(2));
    walk.step(&records[0]).unwrap();
    assert!(walk.step(&second).unwrap_err().problem.contains("not after the time of the event before it"));
    walk.step(&records[1]).unwrap();
}

#[test]
fn people_read_the_story_with_the_sqlite3_command() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    filled(&path, 2);
    let connection = Connection::open(&path).unwrap();
    let story: String = connection
        .query_row(
            "SELECT group_concat(time || ' ' || node_seq || ' ' || kind || ' ' || event_id, '\n') FROM story",
            (),
            |row| row.get(0),
        )
        .unwrap();
    let (first, second) = story.split_once('\n').unwrap();
    assert_eq!(first, "2027-01-15T08:00:00.000Z 1 supervisor_stopped 00000000000000000000000000000001");
    assert!(second.starts_with("2027-01-15T08:00:00.000Z 2 "));
}

#[test]
fn a_selection_by_kind_run_and_time_finds_just_those() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let stamp = TestStamp::new();
    let journal = Journal::open(&path, identity(), stamp.clone()).unwrap();
    let run = RunId(Uuid::from_u128(9));
    append(&journal, &[draft("early")]);
    stamp.jump(TimeDelta::seconds(10));
    let middle = stamp.now();
    append(&journal, &[draft("in a run").in_run(run)]);
    stamp.jump(TimeDelta::seconds(10));
    append(&journal, &[draft("late")]);
    let reader = journal.reader().unwrap();
    let found = |selection: Selection| {
        reader.read(&selection).unwrap().iter().map(|record| record.node_seq.0).collect::<Vec<_>>()
    };
    assert_eq!(found(Selection { run: Some(run), ..Selection::default() }), [2]);
    assert_eq!(found(Selection { since: Some(middle), ..Selection::default() }), [2, 3]);
    assert_eq!(found(Selection { until: Some(middle), ..Selection::default() }), [1, 2]);
    assert!(found(Selection { kinds: vec!["main_lost".into()], ..Selection::default() }).is_empty());
}

#[test]
fn a_journal_of_another_schema_version_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    filled(&path, 3);
    for version in [1, 3] {
        let file = rusqlite::Connection::open(&path).unwrap();
        file.pragma_update(None, "user_version", version).unwrap();
        drop(file);
        let before = std::fs::read(&path).unwrap();
        let is_refused = |error: JournalError| match error {
            JournalError::OtherVersion { found, .. } => assert_eq!(found, version),
            other => panic!("{other}"),
        };
        is_refused(Journal::open(&path, identity(), TestStamp::new()).err().unwrap());
        is_refused(JournalReader::open(&path).err().unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}

#[test]
fn an_event_of_a_newer_version_is_kept_and_handed_on_to_the_byte() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(&folder.path().join("journal.db"), identity(), TestStamp::new()).unwrap();
    // what any detour through a parsed value would change
    let payload = r#"{ "seen":1.50e3,"phase" : "f\u0075ll\u0000", "phase":12345678901234567890123 }"#;
    for (kind, version) in [("moon_phase_observed", 1), ("supervisor_stopped", 2), ("main_lost", u32::MAX)] {
        let event = crate::Event::read(kind, version, payload);
        assert!(matches!(event, crate::Event::Unknown(_)));
        let stored = append(&journal, &[Draft { event, ..draft("") }]).remove(0);
        assert_eq!(
            (stored.kind.as_str(), stored.schema_version, stored.payload.as_str()),
            (kind, version, payload)
        );
        let read = journal.reader().unwrap().page(stored.node_id, NodeSeq(stored.node_seq.0 - 1), 1).unwrap();
        assert_eq!(read, std::slice::from_ref(&stored));
        let exported = serde_json::to_string(&stored).unwrap();
        assert!(exported.contains(payload), "{exported}");
        assert_eq!(serde_json::from_str::<Record>(&exported).unwrap(), stored);
        let event = stored.open().event;
        assert_eq!((event.kind(), event.schema_version()), (kind, version));
        assert_eq!(event.payload().unwrap(), payload);
    }
    assert!(journal.reader().unwrap().verify().unwrap().broken.is_none());
}

fn any_record() -> impl Strategy<Value = Record> {
    let ids =
        (any::<u128>(), any::<u128>(), any::<Option<u128>>(), any::<u32>(), 1u64..1 << 60, any::<u32>());
    let texts = ("[a-z_]{1,20}", "[^\0]{0,40}", any::<i64>(), 0i64..4_000_000_000_000);
    (ids, texts).prop_map(|((event, cluster, run, node, seq, epoch), (kind, text, hlc, wall_ms))| {
        let mut record = Record {
            event_id: EventId(Uuid::from_u128(event)),
            cluster_id: ClusterId(Uuid::from_u128(cluster)),
            node_id: NodeId(node),
            node_seq: NodeSeq(seq),
            epoch: Epoch(u64::from(epoch)),
            hlc: Hlc(hlc),
            recorded_at: DateTime::from_timestamp_millis(wall_ms).unwrap(),
            kind,
            schema_version: epoch,
            run_id: run.map(|id| RunId(Uuid::from_u128(id))),
            correlation_id: EventId(Uuid::from_u128(event ^ 1)),
            causation_id: run.map(|id| EventId(Uuid::from_u128(id))),
            actor: serde_json::to_string(&Cause::System).unwrap(),
            payload: serde_json::json!({ "text": text }).to_string(),
            prev_hash: crate::ChainHash::GENESIS,
            hash: crate::ChainHash::GENESIS,
            learned_in: Epoch(u64::from(epoch) + u64::from(run.is_some())),
        };
        record.hash = record.computed_hash();
        record
    })
}

/// Every single-field change that somebody could make to a stored event.
fn changes() -> Vec<fn(&mut Record)> {
    vec![
        |record| record.event_id.0 = Uuid::from_u128(record.event_id.0.as_u128() ^ 1),
        |record| record.cluster_id.0 = Uuid::from_u128(record.cluster_id.0.as_u128() ^ 1),
        |record| record.node_id.0 ^= 1,
        |record| record.node_seq.0 ^= 1,
        |record| record.epoch.0 ^= 1,
        |record| record.hlc.0 ^= 1,
        |record| record.recorded_at += TimeDelta::milliseconds(1),
        |record| record.kind.push('x'),
        |record| record.schema_version ^= 1,
        |record| record.run_id = if record.run_id.is_some() { None } else { Some(RunId(Uuid::from_u128(0))) },
        |record| record.correlation_id.0 = Uuid::from_u128(record.correlation_id.0.as_u128() ^ 1),
        |record| {
            record.causation_id =
                if record.causation_id.is_some() { None } else { Some(EventId(Uuid::from_u128(0))) };
        },
        |record| record.actor.push(' '),
        |record| record.payload.push(' '),
        |record| record.prev_hash = record.hash,
    ]
}

proptest! {
    #[test]
    fn a_record_survives_json_to_the_byte(record in any_record()) {
        let json = serde_json::to_string(&record).unwrap();
        let back: Record = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(back.computed_hash(), record.hash);
        prop_assert_eq!(back, record);
    }

    #[test]
    fn the_hash_shows_any_change_of_any_field(record in any_record(), which in 0..changes().len()) {
        let mut changed = record.clone();
        changes()[which](&mut changed);
        prop_assert_ne!(changed.computed_hash(), record.hash, "change number {} goes unseen", which);
    }

    #[test]
    fn a_fact_survives_the_journal(
        (kind, schema_version) in ("[a-z]{3,12}_x", any::<u32>()), text in "[^\0]{0,60}", epoch in 0u64..1 << 40
    ) {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(&folder.path().join("j.db"), identity(), TestStamp::new()).unwrap();
        let payload = serde_json::json!({ "text": text }).to_string();
        let cause = EventId(Uuid::from_u128(5));
        let lineage = Lineage { causation_id: cause, correlation_id: cause };
        let unknown = UnknownEvent { kind, schema_version, payload, reason: String::new() };
        let facts = [
            Draft::new(Epoch(epoch), SupervisorStopped { reason: text }).because_of(lineage),
            Draft { event: crate::Event::Unknown(unknown), ..draft("") },
        ];
        append(&journal, &facts);
        let read = journal.reader().unwrap().read(&Selection::default()).unwrap();
        for (fact, record) in facts.iter().zip(&read) {
            let envelope = record.open();
            prop_assert_eq!(envelope.event.kind(), fact.event.kind());
            prop_assert_eq!(envelope.event.schema_version(), fact.event.schema_version());
            prop_assert_eq!(envelope.event.payload().unwrap(), fact.event.payload().unwrap());
            prop_assert_eq!(envelope.epoch, fact.epoch);
            prop_assert_eq!(envelope.causation_id, fact.caused_by.map(|lineage| lineage.causation_id));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// The merge of several nodes' journals, whole or cut anywhere, against a plain filter and sort.
    #[test]
    fn a_selection_is_a_filter_of_the_story(
        steps in prop::collection::vec((1u32..=3, 0i64..3, any::<bool>()), 1..40),
        cuts in prop::collection::vec((0usize..40, 0usize..40, prop::option::of(1u32..=4), any::<bool>()), 8),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let stamp = TestStamp::new();
        let run = RunId(Uuid::from_u128(9));
        let nodes = [1, 2, 3].map(|node| {
            let of = Identity { node_id: NodeId(node), ..identity() };
            Journal::open(&folder.path().join(format!("{node}.db")), of, stamp.clone()).unwrap()
        });
        let journal = Journal::open(&folder.path().join("all.db"), Identity { node_id: NodeId(9), ..identity() }, stamp.clone()).unwrap();
        let mut all = Vec::new();
        for (node, pause, in_run) in steps {
            stamp.jump(TimeDelta::milliseconds(pause));
            let fact = if in_run { draft("x").in_run(run) } else { draft("x") };
            let records = append(&nodes[node as usize - 1], &[fact]);
            journal.store_copies(records.clone(), Epoch(1)).unwrap().blocking_recv().unwrap().unwrap();
            all.extend(records);
        }
        all.sort_by_key(Record::place);
        let reader = journal.reader().unwrap();
        for (since, until, node, in_run) in cuts {
            let at = |index: usize| all.get(index).map(|record| record.recorded_at);
            let selection = Selection {
                node: node.map(NodeId),
                run: in_run.then_some(run),
                since: at(since),
                until: at(until),
                after: all.get(since / 2).map(Record::place),
                kinds: Vec::new(),
            };
            let wanted: Vec<_> = all.iter().filter(|record| {
                selection.node.is_none_or(|node| record.node_id == node)
                    && selection.run.is_none_or(|run| record.run_id == Some(run))
                    && selection.since.is_none_or(|since| record.hlc.wall_ms() >= since.timestamp_millis())
                    && selection.until.is_none_or(|until| record.hlc.wall_ms() <= until.timestamp_millis())
                    && selection.after.is_none_or(|after| record.place() > after)
            }).cloned().collect();
            prop_assert_eq!(reader.read(&selection).unwrap(), wanted);
        }
        let first = all.iter().find(|record| record.node_id == NodeId(1)).cloned();
        prop_assert_eq!(reader.page(NodeId(1), NodeSeq(0), 1).unwrap(), Vec::from_iter(first));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Whatever is done to the stored rows behind the journal's back, the walk names it, and opening is refused.
    #[test]
    fn the_walk_finds_every_change_to_a_stored_chain(at in 1u64..=6, what in 0usize..4) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        filled(&path, 6);
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch("DROP TRIGGER cluster_events_no_update; DROP TRIGGER cluster_events_no_delete")
            .unwrap();
        let cut_the_end = what == 3 && at == 6;
        let sql = match what {
            0 => "UPDATE cluster_events SET payload = payload || ' ' WHERE node_seq = ?1",
            1 => "UPDATE cluster_events SET epoch = epoch + 1 WHERE node_seq = ?1",
            2 => "UPDATE cluster_events SET node_seq = node_seq + 100 WHERE node_seq = ?1",
            _ => "DELETE FROM cluster_events WHERE node_seq = ?1",
        };
        connection.execute(sql, [at.cast_signed()]).unwrap();
        drop(connection);
        let verification = JournalReader::open(&path).unwrap().verify().unwrap();
        // only the cut of the newest events cannot be seen from inside; the peers keep the heads for that
        prop_assert_eq!(verification.broken.is_none(), cut_the_end);
        let opened = Journal::open(&path, identity(), TestStamp::new());
        prop_assert_eq!(opened.is_ok(), cut_the_end);
    }
}

#[test]
fn own_events_that_come_back_from_a_peer_are_followed_by_later_ones() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let stamp = TestStamp::new();
    stamp.jump(TimeDelta::seconds(50));
    let lost: Vec<Record> = {
        let journal = Journal::open(&folder.path().join("lost.db"), identity(), stamp.clone()).unwrap();
        (0..3).flat_map(|index| append(&journal, &[draft(&format!("event {index}"))])).collect()
    };
    stamp.jump(TimeDelta::seconds(-50));
    let journal = Journal::open(&path, identity(), stamp.clone()).unwrap();
    journal.store_copies(lost, Epoch(1)).unwrap().blocking_recv().unwrap().unwrap();
    append(&journal, &[draft("after the restore")]);
    assert_eq!(journal.reader().unwrap().verify().unwrap().broken, None);
    drop(journal);
    Journal::open(&path, identity(), stamp).unwrap();
}
