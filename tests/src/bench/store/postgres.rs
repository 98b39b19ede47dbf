//! The stream in PostgreSQL: relays beside `INSERT`s by hand, the rebuild of its projections, and pages of them.

use std::time::Duration;

use fastrand::Rng;
use interrex::sandbox::{ALPHA, Done, Sandbox};
use interrex_actors::env::{Env as _, SystemEnv};
use interrex_events::{
    ChainHash, Epoch, NodeId, Record,
    cluster_events::{Relay, migrate},
};
use interrex_projections::postgres::Projector;
use tokio_postgres::{Client, types::ToSql};

use super::{Stream, failed, seconds_since};
use crate::figure::Figure;

/// Events in one transaction, as the relay has them.
const PAGE: usize = 500;
/// Transactions of one sample.
const PAGES: usize = 20;
/// The only main there is.
const EPOCH: Epoch = Epoch(1);
/// Questions to each projection.
const QUESTIONS: usize = 500;
/// Lines in a page of the timeline.
const LINES: i64 = 50;
/// A rebuild takes long: that often is enough.
const REBUILDS: u32 = 3;

/// All of it; `events` is how long the stream is that the projections are rebuilt from.
pub(super) async fn measure(runs: u32, events: u64) -> Done<Vec<Figure>> {
    let sandbox = Sandbox::builder(interrex_tests::interrex()).postgres_only().build().await?;
    sandbox.start_postgres(ALPHA).await?;
    let mut figures = relays(&sandbox, runs).await?;
    figures.extend(rebuilds(&sandbox, runs.min(REBUILDS), events).await?);
    sandbox.teardown()?;
    Ok(figures)
}

/// A database of its own, with the tables in it.
async fn database(sandbox: &Sandbox, name: &str) -> Done<Client> {
    sandbox.psql(ALPHA, &format!("CREATE DATABASE {name}")).await?;
    let mut client = sandbox.session(ALPHA, name).await?;
    migrate(&mut client).await.map_err(failed("creating the tables"))?;
    Ok(client)
}

/// Events a second, of one node's journal: with the projections, without them, and by hand.
async fn relays(sandbox: &Sandbox, runs: u32) -> Done<Vec<Figure>> {
    let mut whole = database(sandbox, "whole").await?;
    let mut bare = database(sandbox, "bare").await?;
    let mut projector = Projector::default();
    projector.mend(&mut whole).await.map_err(failed("creating the projections"))?;
    let mut by_hand = ByHand::prepare(database(sandbox, "by_hand").await?).await?;
    let mut events = Stream::begin().filter(|record| record.node_id == NodeId(1));
    let (mut relayed, mut appended, mut inserted) = (Vec::new(), Vec::new(), Vec::new());
    for run in 1..=runs {
        let records: Vec<Record> = events.by_ref().take(PAGE * PAGES).collect();
        let began = SystemEnv.moment().monotonic;
        for page in records.chunks(PAGE) {
            relay(&mut whole, page, Some(&mut projector)).await?;
        }
        relayed.push(rate(&records, began));
        let began = SystemEnv.moment().monotonic;
        for page in records.chunks(PAGE) {
            relay(&mut bare, page, None).await?;
        }
        appended.push(rate(&records, began));
        let began = SystemEnv.moment().monotonic;
        for page in records.chunks(PAGE) {
            by_hand.insert(page).await.map_err(failed("inserting by hand"))?;
        }
        inserted.push(rate(&records, began));
        eprintln!("relay {run} of {runs}");
    }
    Ok(vec![
        Figure::of("relay", "event/s", &appended).beside(&inserted),
        Figure::of("relay_with_projections", "event/s", &relayed).beside(&inserted),
    ])
}

fn rate(records: &[Record], began: Duration) -> f64 {
    records.len() as f64 / seconds_since(began)
}

/// One transaction of the relay, with events of one node.
async fn relay(client: &mut Client, records: &[Record], projector: Option<&mut Projector>) -> Done<()> {
    let mut relay = Relay::begin(client, EPOCH).await.map_err(failed("relaying"))?;
    let appended = relay.append(records).await.map_err(failed("relaying"))?;
    let Some(projector) = projector else {
        return relay.commit().await.map(drop).map_err(failed("relaying"));
    };
    projector.project(&mut relay, &appended).await.map_err(failed("projecting"))?;
    let head = relay.commit().await.map_err(failed("relaying"))?;
    projector.committed(head);
    Ok(())
}

/// The same rows in the same table, with nothing around them.
struct ByHand {
    client: Client,
    insert: tokio_postgres::Statement,
    pos: i64,
}

impl ByHand {
    async fn prepare(client: Client) -> Done<Self> {
        let row = |row: usize| {
            let values = (1..=19).map(|column| match column {
                16 | 17 => format!("${}::text::json", row * 19 + column),
                _ => format!("${}", row * 19 + column),
            });
            format!("({})", values.collect::<Vec<_>>().join(", "))
        };
        let rows = (0..PAGE).map(row).collect::<Vec<_>>().join(", ");
        let sql = format!(
            "INSERT INTO interrex.cluster_events (pos, position_epoch, event_id, cluster_id, node_id, node_seq, epoch, \
             learned_in, hlc, recorded_at, kind, schema_version, run_id, correlation_id, causation_id, actor, payload, \
             prev_hash, hash) VALUES {rows}"
        );
        let insert = client.prepare(&sql).await.map_err(failed("preparing an INSERT by hand"))?;
        Ok(Self { client, insert, pos: 0 })
    }

    async fn insert(&mut self, records: &[Record]) -> Result<(), tokio_postgres::Error> {
        let bytes = |hash: &ChainHash| hash.as_bytes().to_vec();
        let mut values: Vec<Box<dyn ToSql + Sync>> = Vec::with_capacity(records.len() * 19);
        for record in records {
            self.pos += 1;
            let row: [Box<dyn ToSql + Sync>; 19] = [
                Box::new(self.pos),
                Box::new(EPOCH.0.cast_signed()),
                Box::new(record.event_id.0),
                Box::new(record.cluster_id.0),
                Box::new(record.node_id.0.cast_signed()),
                Box::new(record.node_seq.0.cast_signed()),
                Box::new(record.epoch.0.cast_signed()),
                Box::new(record.learned_in.0.cast_signed()),
                Box::new(record.hlc.0),
                Box::new(record.recorded_at),
                Box::new(record.kind.clone()),
                Box::new(record.schema_version.cast_signed()),
                Box::new(record.run_id.map(|id| id.0)),
                Box::new(record.correlation_id.0),
                Box::new(record.causation_id.map(|id| id.0)),
                Box::new(record.actor.clone()),
                Box::new(record.payload.clone()),
                Box::new(bytes(&record.prev_hash)),
                Box::new(bytes(&record.hash)),
            ];
            values.extend(row);
        }
        let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(AsRef::as_ref).collect();
        self.client.execute(&self.insert, &values).await.map(drop)
    }
}

/// Events a second, and how long pages of what was rebuilt take.
async fn rebuilds(sandbox: &Sandbox, runs: u32, events: u64) -> Done<Vec<Figure>> {
    let mut client = database(sandbox, "years").await?;
    fill(&mut client, events).await?;
    let mut rebuilt = Vec::new();
    for run in 1..=runs {
        let ask = "UPDATE interrex.projection_checkpoints SET state = 'rebuild'";
        client.batch_execute(ask).await.map_err(failed("asking for a rebuild"))?;
        let began = SystemEnv.moment().monotonic;
        Projector::default().mend(&mut client).await.map_err(failed("rebuilding"))?;
        rebuilt.push(events as f64 / seconds_since(began));
        eprintln!("rebuild from PostgreSQL {run} of {runs}");
    }
    let (cold, warm) = first_relays(&mut client, runs, events).await?;
    let (pages, nodes) = (timeline_pages(&client).await?, nodes_queries(&client).await?);
    Ok(vec![
        Figure::of("rebuild_from_postgresql", "event/s", &rebuilt),
        Figure::of("first_relay_unfolded", "ms", &cold),
        Figure::of("first_relay_followed", "ms", &warm),
        Figure::of("timeline_page", "ms", &pages).with_tail(&pages),
        Figure::of("cluster_nodes_query", "ms", &nodes).with_tail(&nodes),
    ])
}

/// Milliseconds for the first relay of a new main: of one that never saw the stream, and of one that followed it as a
/// standby until shortly before.
async fn first_relays(client: &mut Client, runs: u32, events: u64) -> Done<(Vec<f64>, Vec<f64>)> {
    let stream = Stream::begin().skip(usize::try_from(events).unwrap_or(usize::MAX));
    let mut stream = stream.filter(|record| record.node_id == NodeId(1));
    let mut page = || stream.by_ref().take(PAGE).collect::<Vec<_>>();
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        let (mut unfolded, mut followed) = (Projector::default(), Projector::default());
        let [first, between, last] = std::array::from_fn(|_| page());
        let began = SystemEnv.moment().monotonic;
        relay(client, &first, Some(&mut unfolded)).await?;
        cold.push(seconds_since(began) * 1_000.0);
        followed.follow(client).await.map_err(failed("following the stream"))?;
        relay(client, &between, Some(&mut unfolded)).await?;
        let began = SystemEnv.moment().monotonic;
        relay(client, &last, Some(&mut followed)).await?;
        warm.push(seconds_since(began) * 1_000.0);
        eprintln!("first relay {run} of {runs}");
    }
    Ok((cold, warm))
}

async fn fill(client: &mut Client, events: u64) -> Done<()> {
    const BATCH: usize = 8_192;
    let mut stream = Stream::begin().take(usize::try_from(events).unwrap_or(usize::MAX));
    let mut filled = 0;
    loop {
        let mut batch: Vec<_> = stream.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            return client.batch_execute("ANALYZE").await.map_err(failed("filling PostgreSQL"));
        }
        batch.sort_by_key(|record| record.node_id);
        for of_one in batch.chunk_by(|one, next| one.node_id == next.node_id) {
            relay(client, of_one, None).await?;
        }
        filled += batch.len();
        eprint!("\r{filled} events relayed");
    }
}

/// Milliseconds for a page of the timeline after a place anywhere in it.
async fn timeline_pages(client: &Client) -> Done<Vec<f64>> {
    let page = "SELECT * FROM interrex.cluster_timeline WHERE (hlc, node_id, node_seq) > ($1, $2, $3) \
                ORDER BY hlc, node_id, node_seq LIMIT $4";
    let page = client.prepare(page).await.map_err(failed("asking for a page"))?;
    let span = "SELECT min(hlc), max(hlc) FROM interrex.cluster_timeline";
    let span = client.query_one(span, &[]).await.map_err(failed("asking for the span"))?;
    let end = |place: usize| span.try_get::<_, i64>(place).map_err(failed("reading the span"));
    let span = end(0)?..=end(1)?;
    let mut random = Rng::with_seed(11);
    let mut took = Vec::new();
    for _ in 0..QUESTIONS {
        let after = random.i64(span.clone());
        let began = SystemEnv.moment().monotonic;
        let lines = client.query(&page, &[&after, &0_i32, &0_i64, &LINES]).await;
        took.push(seconds_since(began) * 1_000.0);
        lines.map_err(failed("asking for a page"))?;
    }
    Ok(took)
}

async fn nodes_queries(client: &Client) -> Done<Vec<f64>> {
    let mut took = Vec::new();
    for _ in 0..QUESTIONS {
        let began = SystemEnv.moment().monotonic;
        let nodes = client.query("SELECT * FROM interrex.cluster_nodes ORDER BY node_id", &[]).await;
        took.push(seconds_since(began) * 1_000.0);
        nodes.map_err(failed("asking for cluster_nodes"))?;
    }
    Ok(took)
}
