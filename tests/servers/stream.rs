//! `cluster_events` and the fold of it, on a real main and its standby.

use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use interrex::sandbox::{ALPHA, BETA, until};
use interrex_actors::{
    env::{Env, Moment, SystemEnv},
    ports::{PostgresPort as _, StopMode, StreamPort as _},
};
use interrex_adapters::stream::{LocalStream, StreamSettings};
use interrex_events::{
    ActorRestarted, ClusterId, Draft, Epoch, EpochOpened, Event, EventId, NodeId, NodeSeq, Record, RunId,
    TimelineId,
    cluster_events::{Relay, StoreError, is_current, migrate, stream_head},
    journal::{Identity, Journal, Stamp},
};
use interrex_projections::postgres::Projector;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::pair::{LIMIT, Pair, on_one_thread};

/// A journal in a folder of its own, whose records are what a relay appends.
struct Recorded {
    journal: Journal,
    _folder: tempfile::TempDir,
}

impl Recorded {
    fn of(node: NodeId) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity { cluster_id: ClusterId(Uuid::from_u128(7)), node_id: node };
        let journal =
            Journal::open(&folder.path().join("journal.db"), identity, Arc::new(SystemEnv)).unwrap();
        Self { journal, _folder: folder }
    }

    /// Records so many events of an epoch, and gives them.
    async fn more(&self, epoch: u64, events: usize) -> Vec<Record> {
        let restarted = |_| {
            let (actor, reason) = ("notifier".to_owned(), "a test wants it".to_owned());
            ActorRestarted { actor, reason, restarts: 1, limit: 3, window_seconds: 60 }.into()
        };
        self.record(epoch, (0..events).map(restarted).collect()).await
    }

    async fn opened(&self, epoch: u64) -> Vec<Record> {
        let main = self.journal.head().node_id;
        let opened = EpochOpened {
            epoch: Epoch(epoch),
            main,
            old_main: None,
            timeline: TimelineId(u32::try_from(epoch).unwrap()),
            switchpoint: None,
        };
        self.record(epoch, vec![opened.into()]).await
    }

    async fn record(&self, epoch: u64, events: Vec<Event>) -> Vec<Record> {
        let before = self.journal.head().node_seq;
        let drafts: Vec<Draft> = events.into_iter().map(|event| Draft::new(Epoch(epoch), event)).collect();
        self.journal.append(&drafts).unwrap().await.unwrap().unwrap();
        let node = self.journal.head().node_id;
        self.journal.reader().unwrap().page(node, before, u32::MAX).unwrap()
    }
}

async fn client(pair: &Pair, node: NodeId, database: &str) -> Client {
    pair.sandbox.session(node, database).await.unwrap()
}

/// A database of its own, with the tables in it.
async fn database(pair: &Pair, name: &str) -> Client {
    pair.sandbox.psql(ALPHA, &format!("CREATE DATABASE {name}")).await.unwrap();
    let mut client = client(pair, ALPHA, name).await;
    migrate(&mut client).await.unwrap();
    client
}

fn stream_of(pair: &Pair, node: NodeId) -> LocalStream {
    stream_with(pair, node, Arc::new(SystemEnv))
}

fn stream_with(pair: &Pair, node: NodeId, env: Arc<dyn Env>) -> LocalStream {
    let settings = StreamSettings {
        host: "127.0.0.1".to_owned(),
        port: pair.sandbox.node(node).unwrap().postgres_port,
        user: "interrex".to_owned(),
        password: Some(pair.sandbox.superuser_password().into()),
        database: "postgres".to_owned(),
    };
    LocalStream::new(settings, env)
}

/// One transaction of a relay without projections.
async fn append(client: &mut Client, epoch: u64, records: &[Record]) -> Result<u64, StoreError> {
    let mut relay = Relay::begin(client, Epoch(epoch)).await?;
    relay.append(records).await?;
    Ok(relay.commit().await?.position.pos)
}

/// One with them.
async fn relay(client: &mut Client, projector: &mut Projector, epoch: u64, records: &[Record]) {
    let mut relay = Relay::begin(client, Epoch(epoch)).await.unwrap();
    let appended = relay.append(records).await.unwrap();
    assert_eq!(projector.project(&mut relay, &appended).await.unwrap(), []);
    projector.committed(relay.commit().await.unwrap());
}

/// What every projection shows.
async fn shown(client: &Client) -> String {
    let sql = "SELECT md5(concat(
        (SELECT string_agg(line::text, '' ORDER BY hlc, node_id, node_seq) FROM interrex.cluster_timeline AS line),
        (SELECT string_agg(node::text, '' ORDER BY node_id) FROM interrex.cluster_nodes AS node),
        (SELECT string_agg(run::text, '' ORDER BY run_id) FROM interrex.cluster_runs AS run),
        (SELECT state::text FROM interrex.cluster_state AS state)))";
    client.query_one(sql, &[]).await.unwrap().try_get(0).unwrap()
}

/// Until beta shows what alpha's stream has.
async fn replayed(main: &Client, standby: &Client) {
    let head = stream_head(main).await.unwrap();
    until("the standby has the stream", LIMIT, async || match is_current(standby).await {
        Ok(true) => match stream_head(standby).await {
            Ok(there) if there == head => Ok(()),
            other => Err(format!("{other:?}")),
        },
        other => Err(format!("{other:?}")),
    })
    .await
    .unwrap();
}

#[test]
fn a_promoted_standby_folds_only_what_came_since_it_followed() {
    on_one_thread(async {
        let pair = Pair::start().await;
        let (alpha, beta) = (Recorded::of(ALPHA), Recorded::of(BETA));
        let (mut main, mut standby) =
            (client(&pair, ALPHA, "postgres").await, client(&pair, BETA, "postgres").await);
        let mut warm = Projector::default();
        warm.follow(&standby).await.unwrap();
        assert_eq!(warm.events_read(), 0, "there are no tables yet");

        migrate(&mut main).await.unwrap();
        let mut of_alpha = Projector::default();
        of_alpha.mend(&mut main).await.unwrap();
        // more than two pages, and not a whole number of them
        relay(&mut main, &mut of_alpha, 1, &alpha.more(1, 4_500).await).await;
        replayed(&main, &standby).await;
        warm.follow(&standby).await.unwrap();
        assert_eq!(warm.events_read(), 4_500);
        relay(&mut main, &mut of_alpha, 1, &alpha.more(1, 7).await).await;
        relay(&mut main, &mut of_alpha, 1, &beta.more(1, 5).await).await;
        replayed(&main, &standby).await;
        warm.follow(&standby).await.unwrap();
        warm.follow(&standby).await.unwrap();
        assert_eq!(warm.events_read(), 4_512, "each once");
        assert_eq!(of_alpha.events_read(), 0, "what a main appended it need not read again");
        relay(&mut main, &mut of_alpha, 1, &alpha.more(1, 3).await).await;
        replayed(&main, &standby).await;

        pair.beta.promote().await.unwrap();
        assert_eq!(warm.mend(&mut standby).await.unwrap().rebuilt, []);
        relay(&mut standby, &mut warm, 2, &beta.opened(2).await).await;
        assert_eq!(warm.events_read(), 4_515, "the three that came since");
        let continued = shown(&standby).await;
        standby.batch_execute("UPDATE interrex.projection_checkpoints SET state = 'rebuild'").await.unwrap();
        assert_eq!(Projector::default().mend(&mut standby).await.unwrap().rebuilt.len(), 3);
        assert_eq!(shown(&standby).await, continued, "a rebuild from zero says the same");

        // another connection
        let mut standby = client(&pair, BETA, "postgres").await;
        let next = beta.more(2, 4).await;
        relay(&mut standby, &mut warm, 2, &next).await;
        assert_eq!(warm.events_read(), 4_515);
        // a transaction that comes to nothing
        let next = beta.more(2, 4).await;
        let mut given_up = Relay::begin(&mut standby, Epoch(2)).await.unwrap();
        let appended = given_up.append(&next).await.unwrap();
        warm.project(&mut given_up, &appended).await.unwrap();
        drop(given_up);
        relay(&mut standby, &mut warm, 2, &next).await;
        assert_eq!(warm.events_read(), 4_515, "nothing is folded anew for it");
        let continued = shown(&standby).await;
        standby.batch_execute("UPDATE interrex.projection_checkpoints SET state = 'rebuild'").await.unwrap();
        Projector::default().mend(&mut standby).await.unwrap();
        assert_eq!(shown(&standby).await, continued, "what was not committed is not folded");

        // the old main went on alone: what it folded is of no use where beta is main
        relay(&mut main, &mut of_alpha, 1, &alpha.more(1, 2).await).await;
        of_alpha.follow(&standby).await.unwrap();
        assert_eq!(of_alpha.events_read(), 4_524, "all of beta's stream");
    });
}

#[test]
fn a_fold_of_another_stream_begins_at_zero_and_a_standby_follows_without_changing_anything() {
    on_one_thread(async {
        let pair = Pair::start().await;
        let (mut one, mut other) = (database(&pair, "one").await, database(&pair, "other").await);
        append(&mut one, 1, &Recorded::of(ALPHA).more(1, 20).await).await.unwrap();
        append(&mut other, 1, &Recorded::of(ALPHA).more(1, 30).await).await.unwrap();
        let mut projector = Projector::default();
        projector.follow(&one).await.unwrap();
        projector.follow(&other).await.unwrap();
        assert_eq!(projector.events_read(), 20 + 30, "another event is at the twentieth position");
        projector.follow(&one).await.unwrap();
        assert_eq!(projector.events_read(), 20 + 30 + 20, "and a shorter stream fits no better");

        // no tables, tables of this version, and tables of others
        let stream = stream_of(&pair, BETA);
        assert_eq!(stream.follow().await, Ok(0));
        let mut main = client(&pair, ALPHA, "postgres").await;
        migrate(&mut main).await.unwrap();
        append(&mut main, 1, &Recorded::of(ALPHA).more(1, 20).await).await.unwrap();
        let standby = client(&pair, BETA, "postgres").await;
        replayed(&main, &standby).await;
        // a server that would take a write is asked, too
        for (stream, first) in [(stream, 20), (stream_of(&pair, ALPHA), 20)] {
            assert_eq!((stream.follow().await, stream.follow().await), (Ok(first), Ok(0)));
        }
        let built = "SELECT count(*) FROM interrex.projection_checkpoints";
        assert_eq!(pair.sandbox.psql_value(ALPHA, built).await.unwrap(), "0");
        for version in ["0", "99"] {
            let change = format!("UPDATE interrex.schema_version SET version = {version}");
            main.batch_execute(&change).await.unwrap();
            assert_eq!(stream_of(&pair, ALPHA).follow().await, Ok(0));
            let there = "SELECT version FROM interrex.schema_version";
            assert_eq!(pair.sandbox.psql_value(ALPHA, there).await.unwrap(), version);
        }
    });
}

#[test]
fn what_was_folded_outlives_the_connection() {
    on_one_thread(async {
        let pair = Pair::start().await;
        let (stream, recorded) = (stream_of(&pair, ALPHA), Recorded::of(ALPHA));
        stream.look().await.unwrap();
        stream.relay(Epoch(1), &recorded.more(1, 20).await).await.unwrap();
        let end = "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity \
                   WHERE application_name = 'interrex' AND pid <> pg_backend_pid()";
        pair.sandbox.psql(ALPHA, end).await.unwrap();
        let next = recorded.more(1, 1).await;
        until("it is connected anew", LIMIT, async || match stream.relay(Epoch(1), &next).await {
            Ok(relayed) if relayed.position.pos == 21 => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await
        .unwrap();
        assert_eq!(stream.follow().await, Ok(0));
    });
}

/// The machine's clock, and so many milliseconds more.
#[derive(Default)]
struct Later(AtomicU64);

impl Stamp for Later {
    fn now(&self) -> DateTime<Utc> {
        SystemEnv.now()
    }

    fn event_id(&self) -> EventId {
        SystemEnv.event_id()
    }
}

impl Env for Later {
    fn moment(&self) -> Moment {
        let Moment { monotonic, wall } = SystemEnv.moment();
        Moment { monotonic: monotonic + Duration::from_millis(self.0.load(Ordering::Relaxed)), wall }
    }

    fn run_id(&self) -> RunId {
        SystemEnv.run_id()
    }
}

#[test]
fn a_rebuild_that_a_long_reader_keeps_out_is_tried_again_half_a_minute_later() {
    on_one_thread(async {
        let pair = Pair::start().await;
        let clock = Arc::new(Later::default());
        let stream = stream_with(&pair, ALPHA, clock.clone());
        stream.look().await.unwrap();
        let reader = client(&pair, ALPHA, "postgres").await;
        reader.batch_execute("BEGIN; SELECT count(*) FROM interrex.cluster_nodes").await.unwrap();
        pair.sandbox
            .psql(ALPHA, "UPDATE interrex.projection_checkpoints SET state = 'rebuild'")
            .await
            .unwrap();
        clock.0.fetch_add(10_000, Ordering::Relaxed);
        let kept_out = stream.look().await.unwrap().refused;
        assert!(kept_out.iter().any(|told| told.contains("cluster_nodes cannot be rebuilt")), "{kept_out:?}");
        reader.batch_execute("COMMIT").await.unwrap();
        assert_eq!(stream.look().await.unwrap().refused, kept_out, "not in a tight loop");
        clock.0.fetch_add(30_000, Ordering::Relaxed);
        assert_eq!(stream.look().await.unwrap().refused, Vec::<String>::new());
        let live = "SELECT count(*) FROM interrex.projection_checkpoints WHERE state = 'live'";
        assert_eq!(pair.sandbox.psql_value(ALPHA, live).await.unwrap(), "3");
    });
}

#[test]
fn cluster_events_takes_each_event_once_and_nothing_that_does_not_continue_it() {
    on_one_thread(async {
        let pair = Pair::start().await;
        let mut main = client(&pair, ALPHA, "postgres").await;
        migrate(&mut main).await.unwrap();
        let (alpha, twin) = (Recorded::of(ALPHA), Recorded::of(ALPHA));
        let events = alpha.more(1, 10).await;
        assert_eq!(append(&mut main, 1, &events[..4]).await.unwrap(), 4);
        assert_eq!(append(&mut main, 1, &events[..4]).await.unwrap(), 4, "the same again");
        assert_eq!(append(&mut main, 1, &events[2..6]).await.unwrap(), 6, "two known, two new");

        let gap = append(&mut main, 1, &events[7..]).await.unwrap_err();
        assert!(matches!(gap, StoreError::Gap { node_id: ALPHA, node_seq: NodeSeq(8) }), "{gap}");
        // another machine with this node's number: where both have an event, and where it goes on
        let forged = twin.more(1, 7).await;
        for (records, seq) in [(&forged[1..3], 2), (&forged[6..], 6)] {
            let forked = append(&mut main, 1, records).await.unwrap_err();
            assert!(
                matches!(forked, StoreError::JournalForked { node_id: ALPHA, node_seq, here, there }
                    if node_seq == NodeSeq(seq) && here != there),
                "{forked}"
            );
        }

        let beta = Recorded::of(BETA);
        let late = beta.more(1, 2).await;
        let unopened = append(&mut main, 2, &late).await.unwrap_err();
        assert!(matches!(unopened, StoreError::EpochNotOpened(Epoch(2))), "{unopened}");
        let opened = [late, beta.opened(2).await].concat();
        assert_eq!(append(&mut main, 2, &opened).await.unwrap(), 9);
        let first = "SELECT concat(pos, ' ', kind) FROM interrex.cluster_events WHERE position_epoch = 2 ORDER BY pos LIMIT 1";
        assert_eq!(pair.sandbox.psql_value(ALPHA, first).await.unwrap(), "7 epoch_opened");
        let older = append(&mut main, 1, &events[6..]).await.unwrap_err();
        assert!(matches!(older, StoreError::OlderEpoch { found: Epoch(2), epoch: Epoch(1) }), "{older}");

        // nothing of what was refused is there, and what was left out has its place now
        assert_eq!(append(&mut main, 2, &events).await.unwrap(), 13);
        let whole = interrex_events::cluster_events::verify(&main).await.unwrap();
        assert_eq!((whole.events, whole.broken, whole.positions), (13, None, None));
        for sql in [
            "UPDATE interrex.cluster_events SET kind = 'nothing_happened'",
            "DELETE FROM interrex.cluster_events",
            "TRUNCATE interrex.cluster_events",
        ] {
            let refused = pair.sandbox.psql(ALPHA, sql).await.unwrap_err();
            assert!(refused.to_string().contains("append-only"), "{sql}: {refused}");
        }
    });
}

#[test]
fn only_a_standby_holds_events_safely_and_no_subscriber() {
    on_one_thread(async {
        let pair = Pair::start_with("wal_level = logical").await;
        let (stream, recorded) = (stream_of(&pair, ALPHA), Recorded::of(ALPHA));
        stream.look().await.unwrap();
        stream.relay(Epoch(1), &recorded.more(1, 3).await).await.unwrap();
        assert_eq!(stream.holds_safely(recorded.journal.head()).await, Ok(()));

        pair.beta.stop(StopMode::Fast).await.unwrap();
        let slot = "SELECT pg_create_logical_replication_slot('subscriber', 'test_decoding')";
        pair.sandbox.psql(ALPHA, slot).await.unwrap();
        let server = pair.sandbox.node(ALPHA).unwrap().postgres_port.to_string();
        let mut subscriber =
            std::process::Command::new(pair.sandbox.postgres_programs().join("pg_recvlogical"))
                .args([
                    "--start",
                    "--slot=subscriber",
                    "--file=-",
                    "--status-interval=1",
                    "--fsync-interval=1",
                ])
                .args(["--host=127.0.0.1", "--username=interrex", "--dbname=postgres", "--port", &server])
                .env("PGPASSWORD", pair.sandbox.superuser_password())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
        stream.relay(Epoch(1), &recorded.more(1, 1).await).await.unwrap();
        let flushed = "SELECT pg_current_wal_flush_lsn()";
        let end = pair.sandbox.psql_value(ALPHA, flushed).await.unwrap();
        let told = format!(
            "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND flush_lsn >= '{end}'"
        );
        let subscribed = until("the subscriber has flushed all of it", LIMIT, async || {
            match pair.sandbox.psql_value(ALPHA, &told).await {
                Ok(count) if count == "1" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        let held = stream.holds_safely(recorded.journal.head()).await;
        subscriber.kill().unwrap();
        subscriber.wait().unwrap();
        subscribed.unwrap();
        let message = held.unwrap_err().to_string();
        assert!(message.contains("no standby flushed"), "{message}");

        pair.beta.start().await.unwrap();
        pair.streams(ALPHA, BETA).await;
        assert_eq!(stream.holds_safely(recorded.journal.head()).await, Ok(()));
    });
}
