//! kill -9 of a writer that relays into a real PostgreSQL: what arrives there is the journal, each event once.

use fastrand::Rng;
use interrex::sandbox::{ALPHA, Done, Sandbox};
use interrex_events::Record;
use interrex_tests::{RELAY_PASSWORD, RELAY_TO, interrex, run};
use tokio::process::Command;

use crate::{Acknowledged, assert_sound, from_environment, seed, writer};

#[test]
fn what_a_killed_relay_sent_is_the_journal_and_nothing_is_there_twice() {
    run(async {
        // each start of the writer reads all that there is: few events for many kills
        let crashes = from_environment("INTERREX_CRASHES").unwrap_or(500);
        let sandbox = Sandbox::builder(interrex()).nodes(1).postgres_only().build().await?;
        sandbox.start_postgres(ALPHA).await?;
        let journal = sandbox.folder().join("relayed.db");
        let writing = || -> Done<Command> {
            let mut writing = writer::command(&journal);
            let port = sandbox.node(ALPHA)?.postgres_port;
            writing.env(RELAY_TO, format!("127.0.0.1:{port}"));
            writing.env(RELAY_PASSWORD, sandbox.superuser_password());
            Ok(writing)
        };
        let mut rng = Rng::with_seed(seed());
        let mut acknowledged = Acknowledged::new();
        for _ in 0..crashes {
            let mut writer = writer::Writer::start(writing()?)?;
            writer.hear(rng.usize(1..200)).await?;
            acknowledged.extend(writer.kill().await?.stored);
        }
        let sent = sandbox.psql_value(ALPHA, "SELECT count(*) FROM interrex.cluster_events").await?;
        println!("{sent} events were sent by relays that were killed");
        assert!(sent.parse::<u64>().unwrap() > crashes, "only {sent} events were sent before the last kill");
        let mut last = writing()?;
        last.args(["--appends", "3"]);
        let ended = writer::Writer::start(last)?.end().await?;
        assert_eq!(ended.code, Some(0), "{}", ended.message);
        acknowledged.extend(ended.said.stored);

        let records = assert_sound(&journal, &acknowledged);
        let as_row =
            |record: &Record| vec![Some(record.node_seq.to_string()), Some(record.event_id.to_string())];
        let stream = "SELECT node_seq, event_id FROM interrex.cluster_events ORDER BY pos";
        let stream = sandbox.psql(ALPHA, stream).await?;
        assert_eq!(stream.len(), records.len());
        assert!(stream.into_iter().eq(records.iter().map(as_row)), "the stream is not the journal");
        let agreeing = "SELECT count(*) FROM interrex.projection_checkpoints AS checkpoint, interrex.stream_head AS head \
                        WHERE state = 'live' AND checkpoint.pos = head.pos AND head_hash = head.hash";
        assert_eq!(
            sandbox.psql_value(ALPHA, agreeing).await?,
            "3",
            "a projection does not agree with the stream"
        );
        let lines = sandbox.psql_value(ALPHA, "SELECT count(*) FROM interrex.cluster_timeline").await?;
        assert_eq!(lines, records.len().to_string());
        Ok(())
    });
}
