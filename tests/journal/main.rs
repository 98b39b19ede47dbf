//! The journal against what the world does to it: processes that are killed, logs that are torn, disks that fail
//! and clocks that are wrong.
//!
//! What is checked is what whoever appended was told: an event that was acknowledged is there, with its hash.

#![allow(clippy::unwrap_used, reason = "all of it is tests: a surprise fails the one it happens in")]

mod answers;
mod clocks;
mod crashes;
mod failing_disk;
mod failing_supervisor;
mod relayed;
mod torn_log;
mod writer;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use interrex_events::{ChainHash, Event, NodeSeq, Record, journal::JournalReader};
use interrex_tests::{FACTS_OF_A_RUN, journal_of_a_test};

/// Events whose append was answered.
type Acknowledged = BTreeMap<NodeSeq, ChainHash>;

/// A number that the environment gives.
fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

/// What the random numbers of a test grow from. It is printed, and `INTERREX_SEED` gives it again.
fn seed() -> u64 {
    let seed = from_environment("INTERREX_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("INTERREX_SEED={seed}");
    seed
}

/// The journal is whole, and every acknowledged event is in it as it was acknowledged.
#[track_caller]
fn assert_sound(journal: &Path, acknowledged: &Acknowledged) -> Vec<Record> {
    let reader = JournalReader::open(journal).unwrap();
    assert_eq!(reader.verify().unwrap().broken, None);
    let records = reader.page(journal_of_a_test().node_id, NodeSeq(0), u32::MAX).unwrap();
    assert!(
        records.iter().zip(1..).all(|(record, seq)| record.node_seq == NodeSeq(seq)),
        "a gap or a double"
    );
    let ids: BTreeSet<_> = records.iter().map(|record| record.event_id).collect();
    assert_eq!(ids.len(), records.len(), "an event is there twice");
    assert!(records.is_sorted_by(|one, next| one.hlc < next.hlc), "the order of events is not their story's");
    let unknown = |record: &Record| matches!(record.open().event, Event::Unknown(_));
    assert!(!records.iter().any(unknown), "an event is half there");
    let mut runs: BTreeMap<_, usize> = BTreeMap::new();
    records.iter().filter_map(|record| record.run_id).for_each(|run| *runs.entry(run).or_default() += 1);
    assert!(runs.values().all(|facts| *facts == FACTS_OF_A_RUN), "a batch was torn");
    let stored: Acknowledged = records.iter().map(|record| (record.node_seq, record.hash)).collect();
    let lost: Vec<_> = acknowledged.iter().filter(|(seq, hash)| stored.get(seq) != Some(hash)).collect();
    assert!(lost.is_empty(), "acknowledged, and not there: {lost:?}");
    records
}
