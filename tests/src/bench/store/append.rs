//! Durable appends, alone and many at a time, beside `INSERT`s of the same bytes into the same tables.

use std::{path::Path, rc::Rc, slice};

use interrex::sandbox::Done;
use interrex_actors::env::{Env as _, SystemEnv};
use interrex_events::{
    Draft, Lineage, NodeSeq, Record,
    journal::{Journal, JournalError},
};
use rusqlite::{Connection, TransactionBehavior, params};

use super::{Stream, failed, open, seconds_since, timed};
use crate::figure::Figure;

/// Appends of one sample, by one who waits for each. Samples take turns with those of the floor, and are short:
/// what else the disk has to do changes from second to second.
const ALONE: usize = 128;
/// Who appends at the same time.
const TASKS: usize = 64;
/// Appends of one sample, by all of them.
const TOGETHER: usize = 16 * TASKS;
/// Samples that a run takes.
const SAMPLES: u32 = 4;

/// Events a second: one by one, and from many tasks at once.
pub(super) async fn measure(runs: u32, folder: &Path) -> Done<Vec<Figure>> {
    let facts: Vec<Draft> = Stream::begin().take(TOGETHER).map(|record| again(&record)).collect();
    let journal = Rc::new(open(&folder.join("appends.db"))?);
    let mut by_hand = tables(&folder.join("by-hand.db")).map_err(failed("opening tables"))?;
    let (mut single, mut raw_single, mut grouped, mut raw_grouped) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for sample in 1..=runs * SAMPLES {
        let before = journal.head().node_seq;
        single.push(one_by_one(&journal, &facts[..ALONE]).await?);
        raw_single.push(raw(&mut by_hand, &stored(&journal, before)?, 1)?);
        let before = journal.head().node_seq;
        grouped.push(at_once(&journal, &facts).await?);
        raw_grouped.push(raw(&mut by_hand, &stored(&journal, before)?, TASKS)?);
        eprintln!("append {sample} of {}", runs * SAMPLES);
    }
    Ok(vec![
        Figure::of("append_single", "event/s", &single).beside(&raw_single),
        Figure::of("append_from_64_tasks", "event/s", &grouped).beside(&raw_grouped),
    ])
}

/// The fact of an event, to be recorded again.
fn again(record: &Record) -> Draft {
    let envelope = record.open();
    let lineage = |cause| Lineage { causation_id: cause, correlation_id: envelope.correlation_id };
    Draft {
        epoch: envelope.epoch,
        run_id: envelope.run_id,
        caused_by: envelope.causation_id.map(lineage),
        actor: envelope.actor,
        event: envelope.event,
    }
}

async fn append(journal: &Journal, fact: &Draft) -> Result<(), JournalError> {
    let answer = journal.append(slice::from_ref(fact))?.await;
    let ended = || JournalError::Failed { path: "journal".into(), detail: "its writer ended".to_owned() };
    answer.unwrap_or_else(|_| Err(ended())).map(|_| ())
}

async fn one_by_one(journal: &Journal, facts: &[Draft]) -> Done<f64> {
    let began = SystemEnv.moment().monotonic;
    for fact in facts {
        append(journal, fact).await.map_err(failed("appending"))?;
    }
    Ok(facts.len() as f64 / seconds_since(began))
}

async fn at_once(journal: &Rc<Journal>, facts: &[Draft]) -> Done<f64> {
    let began = SystemEnv.moment().monotonic;
    let tasks = facts.chunks(facts.len() / TASKS).map(|share| {
        let (journal, share) = (journal.clone(), share.to_vec());
        tokio::task::spawn_local(async move {
            for fact in share {
                append(&journal, &fact).await?;
            }
            Ok::<_, JournalError>(())
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.map_err(failed("appending"))?.map_err(failed("appending"))?;
    }
    Ok(facts.len() as f64 / seconds_since(began))
}

/// What a sample wrote.
fn stored(journal: &Journal, before: NodeSeq) -> Done<Vec<Record>> {
    let page = journal.reader().and_then(|reader| reader.page(journal.head().node_id, before, u32::MAX));
    page.map_err(failed("reading a journal"))
}

/// The tables of a journal, as durable as it, with nothing around them.
fn tables(path: &Path) -> Result<Connection, Box<dyn std::error::Error>> {
    drop(open(path)?);
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

/// Events a second that plain transactions of so many `INSERT`s store.
fn raw(connection: &mut Connection, records: &[Record], at_a_time: usize) -> Done<f64> {
    let (seconds, written) = timed(|| insert(connection, records, at_a_time));
    written.map_err(failed("inserting"))?;
    Ok(records.len() as f64 / seconds)
}

fn insert(connection: &mut Connection, records: &[Record], at_a_time: usize) -> rusqlite::Result<()> {
    for batch in records.chunks(at_a_time) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO cluster_events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?;
            for record in batch {
                insert.execute(params![
                    record.node_id.0,
                    record.node_seq.0.cast_signed(),
                    record.hlc.0,
                    record.recorded_at.timestamp_millis(),
                    record.epoch.0.cast_signed(),
                    record.kind,
                    record.run_id.as_ref().map(|id| id.0.as_bytes()),
                    record.event_id.0.as_bytes(),
                    record.correlation_id.0.as_bytes(),
                    record.causation_id.as_ref().map(|id| id.0.as_bytes()),
                    record.schema_version,
                    record.cluster_id.0.as_bytes(),
                    record.prev_hash.as_bytes(),
                    record.hash.as_bytes(),
                    record.learned_in.0.cast_signed(),
                    record.actor,
                    record.payload,
                ])?;
            }
        }
        transaction.commit()?;
    }
    Ok(())
}
