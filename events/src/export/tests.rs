use std::io::Write as _;

use proptest::prelude::*;
use uuid::Uuid;

use super::{chains::Chains, *};
use crate::{ChainHash, Epoch, EventId, Hlc, Record};

const PACKINGS: [Packing; 3] = [Packing::Plain, Packing::Gzip, Packing::Zstd];

fn cluster() -> ClusterId {
    ClusterId(Uuid::from_u128(7))
}

fn moment() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_800_000_000_000).unwrap()
}

/// What two nodes recorded, in story order; each number is who recorded the next event.
fn story(nodes: &[u32], texts: &[String]) -> Vec<Record> {
    let mut chains = Chains::after(&[Head::empty(NodeId(1)), Head::empty(NodeId(2))], false);
    let mut records: Vec<Record> = Vec::new();
    for (index, (node, text)) in nodes.iter().zip(texts).enumerate() {
        let number = index as u128 + 1;
        let before = chains.head(NodeId(*node));
        let wall_ms = 1_800_000_000_000 + number as i64;
        let mut record = Record {
            event_id: EventId(Uuid::from_u128(number)),
            cluster_id: cluster(),
            node_id: NodeId(*node),
            node_seq: before.node_seq.next(),
            epoch: Epoch(1),
            learned_in: Epoch(1 + u64::from(index % 3 == 0)),
            hlc: Hlc::from_wall_ms(wall_ms),
            recorded_at: DateTime::from_timestamp_millis(wall_ms).unwrap(),
            kind: "supervisor_stopped".to_owned(),
            schema_version: 1,
            run_id: (index % 2 == 0).then_some(RunId(Uuid::from_u128(5))),
            correlation_id: EventId(Uuid::from_u128(number)),
            causation_id: None,
            actor: r#"{"kind":"system"}"#.to_owned(),
            payload: serde_json::json!({ "reason": text }).to_string(),
            prev_hash: before.hash,
            hash: ChainHash::GENESIS,
        };
        record.hash = record.computed_hash();
        chains.step(&record).unwrap();
        records.push(record);
    }
    records
}

fn fixed_story() -> Vec<Record> {
    let texts = ["a", "b", "c", "d", "e"].map(str::to_owned);
    story(&[1, 2, 1, 2, 2], &texts)
}

fn export_part(records: &[Record], part: Part, packing: Packing) -> Vec<u8> {
    let mut survey = Survey::of(part);
    records.iter().for_each(|record| survey.take(record).unwrap());
    let header = survey.header(cluster(), NodeId(2), moment());
    let mut writer = ExportWriter::begin(Vec::new(), packing, &header).unwrap();
    records.iter().for_each(|record| writer.write(record).unwrap());
    writer.finish().unwrap()
}

fn export(records: &[Record], packing: Packing) -> Vec<u8> {
    export_part(records, Part::default(), packing)
}

fn read(bytes: &[u8]) -> Result<Vec<Record>, ExportError> {
    ExportReader::read_from(std::io::Cursor::new(bytes.to_vec()), "FILE")?.collect()
}

proptest! {
    #[test]
    fn what_is_exported_is_read_back_to_the_byte(
        told in prop::collection::vec((1u32..=2, "\\PC{0,40}"), 0..40),
        packing in prop::sample::select(PACKINGS.to_vec()),
    ) {
        let (nodes, texts): (Vec<u32>, Vec<String>) = told.into_iter().unzip();
        let records = story(&nodes, &texts);
        prop_assert_eq!(read(&export(&records, packing)).unwrap(), records);
    }

    #[test]
    fn an_export_that_was_cut_off_is_never_taken_for_whole(
        at in 0.0..1.0f64, packing in prop::sample::select(PACKINGS.to_vec()),
    ) {
        let bytes = export(&fixed_story(), packing);
        let kept = (bytes.len() as f64 * at) as usize;
        // without its last line break a plain file still holds all of it
        prop_assume!(packing != Packing::Plain || kept + 1 < bytes.len());
        prop_assert!(read(&bytes[..kept]).is_err(), "{kept} of {} bytes were enough", bytes.len());
    }
}

/// The plain export of the fixed story, with one of its lines changed.
fn with_line(line: usize, change: impl Fn(&str) -> String) -> Vec<u8> {
    let text = String::from_utf8(export(&fixed_story(), Packing::Plain)).unwrap();
    let lines = text.lines().enumerate();
    let lines = lines.map(|(index, text)| if index == line { change(text) } else { text.to_owned() + "\n" });
    lines.collect::<String>().into_bytes()
}

#[test]
fn whatever_was_changed_is_named_with_its_line() {
    let changed = read(&with_line(3, |line| line.replace("\"c\"", "\"C\"") + "\n")).unwrap_err().to_string();
    assert_eq!(
        changed,
        "line 4 of the export FILE is wrong: event 2 of node 1: its content is not as it was recorded: the hash does not match"
    );
    let missing = read(&with_line(2, |_| String::new())).unwrap_err().to_string();
    assert_eq!(
        missing,
        "line 4 of the export FILE is wrong: event 2 of node 2: event 1 is missing before it"
    );
    let shorter = read(&with_line(5, |_| String::new())).unwrap_err().to_string();
    assert!(
        shorter.contains("was cut off: it should go up to event 3 of node 2, and ends at event 2"),
        "{shorter}"
    );
    let nonsense = read(&with_line(2, |_| "{}\n".to_owned())).unwrap_err().to_string();
    assert!(nonsense.starts_with("line 3 of the export FILE is no event: missing field"), "{nonsense}");
    let strange = read(&with_line(0, |line| line.replace("\"node_id\":1", "\"node_id\":3") + "\n"));
    assert!(strange.unwrap_err().to_string().contains("the header names no event of this node"));
}

#[test]
fn a_part_of_a_story_is_chained_to_what_is_named_in_its_header() {
    let records = fixed_story();
    let (later, since) = (&records[2..], Some(moment()));
    let bytes = export_part(later, Part { since, ..Part::default() }, Packing::Plain);
    let reader = ExportReader::read_from(std::io::Cursor::new(bytes), "FILE").unwrap();
    let begins: Vec<u64> = reader.header().begins.iter().map(|begin| begin.node_seq.0).collect();
    assert_eq!(begins, [1, 1]);
    assert_eq!(reader.collect::<Result<Vec<_>, _>>().unwrap(), later);
}

#[test]
fn the_events_of_one_run_stand_each_for_itself() {
    let run = Some(RunId(Uuid::from_u128(5)));
    let picked: Vec<Record> = fixed_story().into_iter().filter(|record| record.run_id == run).collect();
    let bytes = export_part(&picked, Part { run, ..Part::default() }, Packing::Zstd);
    assert_eq!(read(&bytes).unwrap(), picked);
}

#[test]
fn what_is_recorded_after_the_survey_is_left_out() {
    let records = fixed_story();
    let mut survey = Survey::of(Part::default());
    records[..3].iter().for_each(|record| survey.take(record).unwrap());
    let covered: Vec<bool> = records.iter().map(|record| survey.covers(record)).collect();
    assert_eq!(covered, [true, true, true, false, false]);
}

#[test]
fn a_damaged_store_is_not_exported() {
    let mut records = fixed_story();
    records[1].payload = "{}".to_owned();
    let mut survey = Survey::of(Part::default());
    let broken = records.iter().find_map(|record| survey.take(record).err()).unwrap();
    assert_eq!((broken.node_id, broken.node_seq), (NodeId(2), NodeSeq(1)));
}

#[test]
fn an_export_is_told_by_its_content_whatever_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some.db");
    for packing in PACKINGS {
        std::fs::File::create(&path).unwrap().write_all(&export(&fixed_story(), packing)).unwrap();
        assert!(looks_like_an_export(&path).unwrap());
        assert_eq!(ExportReader::open(&path).unwrap().count(), 5);
    }
    std::fs::write(&path, b"SQLite format 3\0").unwrap();
    assert!(!looks_like_an_export(&path).unwrap());
    std::fs::write(&path, b"{\"event_id\":1}\n").unwrap();
    let error = ExportReader::open(&path).err().unwrap();
    assert!(matches!(error, ExportError::NotAnExport(_)), "{error}");
    std::fs::write(&path, b"{\"interrex_export\":2}\n").unwrap();
    let error = ExportReader::open(&path).err().unwrap();
    assert!(matches!(error, ExportError::Newer { found: 2, .. }), "{error}");
}
