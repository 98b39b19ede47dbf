//! Retention: events are sealed once a standby holds them, and the cluster that forgot them acts as before.

use std::time::Duration;

use interrex::sandbox::{ALPHA, BETA, Done, Sandbox, until};
use interrex_actors::env::{Env as _, SystemEnv};
use interrex_events::{
    Event, NodeId, NodeSeq,
    journal::{Segment, Selection},
};
use interrex_projections::NodeStatus;
use interrex_tests::run;

use crate::{bad_input::interrex_with, two_nodes};

const LIMIT: Duration = Duration::from_secs(60);
const KEEP_MS: i64 = 1_000;
const SEGMENT_EVENTS: u32 = 4;

/// Two nodes whose events are old after a second, and enough for a segment when they are four.
async fn forgetful_nodes() -> Done<Sandbox> {
    let sandbox = two_nodes().build().await?;
    for node in [ALPHA, BETA] {
        sandbox.set_config(node, "failover.cool_down", "1s")?;
        sandbox.set_config(node, "retention.keep", format!("{KEEP_MS}ms"))?;
        sandbox.set_config(node, "retention.segment_events", i64::from(SEGMENT_EVENTS))?;
    }
    Ok(sandbox)
}

/// The segments of a node's events that a node has sealed.
fn segments(sandbox: &Sandbox, at: NodeId, of: NodeId) -> Result<Vec<Segment>, String> {
    let reader = sandbox.journal(at).map_err(|error| error.to_string())?;
    let mut segments = reader.segments().map_err(|error| error.to_string())?;
    segments.retain(|segment| segment.node() == of);
    Ok(segments)
}

/// The last sealed event of a node; 0 where none is.
fn sealed_up_to(sandbox: &Sandbox, at: NodeId, of: NodeId) -> Result<NodeSeq, String> {
    Ok(segments(sandbox, at, of)?.last().map_or(NodeSeq(0), Segment::last))
}

/// Has main record some events: each is a change of the settings.
async fn change_settings(sandbox: &Sandbox, times: u32) -> Done<()> {
    until("main shows its settings", LIMIT, || async {
        match sandbox.psql_value(ALPHA, "SELECT auto_failover_enabled FROM cluster_config").await {
            Ok(shown) if shown == "t" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    for time in 0..times {
        let seconds = 200 + time % 2;
        let change = format!("UPDATE cluster_config SET auto_failover_threshold_seconds = {seconds}");
        sandbox.psql(ALPHA, &change).await?;
    }
    sandbox.psql(ALPHA, "UPDATE cluster_config SET auto_failover_threshold_seconds = 1.5").await?;
    // the last value is also the first one: that it is in force tells nothing until all are answered
    until("main answers every change", LIMIT, || async {
        let waiting = "SELECT count(*) FROM interrex.settings_requests";
        match sandbox.psql_value(ALPHA, waiting).await {
            Ok(none) if none == "0" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    let answered = sandbox.cluster(ALPHA)?.settings.stamp;
    for node in [ALPHA, BETA] {
        if sandbox.supervisor_pid(node).is_some() {
            let learned = || async {
                let stamp = sandbox.cluster(node).map_err(|error| error.to_string())?.settings.stamp;
                if stamp == answered { Ok(()) } else { Err(format!("{stamp:?}, not {answered:?}")) }
            };
            until("every node has main's answers", LIMIT, learned).await?;
            sandbox.wait_health(node, "a threshold of 1.5 s", |report| report.threshold_ms == 1_500).await?;
        }
    }
    Ok(())
}

/// Every sealed event is in a file that is what was recorded, in the standby's PostgreSQL, and in no journal.
async fn sealed_soundly(sandbox: &Sandbox) -> Done<()> {
    for at in [ALPHA, BETA] {
        let config = sandbox.node(at)?.config();
        let verified = interrex_with(&["journal", "verify", "--config", &config.to_string_lossy()], &[])?;
        let message = String::from_utf8_lossy(&verified.stdout).into_owned();
        assert_eq!(verified.status.code(), Some(0), "{message}");
        assert!(message.contains("every event is as it was recorded"), "{message}");
        for of in [ALPHA, BETA] {
            for segment in segments(sandbox, at, of).unwrap() {
                let (first, last) = (segment.first, segment.last());
                let stored = format!(
                    "SELECT count(*) FROM interrex.cluster_events WHERE node_id = {of} AND node_seq BETWEEN {first} AND {last}"
                );
                let expected = (last.0 - first.0 + 1).to_string();
                assert_eq!(sandbox.psql_value(BETA, &stored).await?, expected, "{of}: {first} to {last}");
                let left = sandbox.journal(at)?.page(of, NodeSeq(0), 1).unwrap();
                assert!(left[0].node_seq > last);
            }
        }
    }
    Ok(())
}

#[test]
fn events_are_sealed_once_a_standby_has_them_and_failover_and_fencing_go_on_without_them() {
    run(async {
        let sandbox = forgetful_nodes().await?;
        sandbox.start().await?;
        change_settings(&sandbox, 12).await?;
        let all_seal = || async {
            for (at, of) in [(ALPHA, ALPHA), (ALPHA, BETA), (BETA, ALPHA), (BETA, BETA)] {
                if sealed_up_to(&sandbox, at, of)? == NodeSeq(0) {
                    return Err(format!("node {at} keeps all of node {of}'s events"));
                }
            }
            Ok(())
        };
        until("every node seals every journal", LIMIT, all_seal).await?;
        sealed_soundly(&sandbox).await?;
        the_files_are_read_as_exports(&sandbox)?;

        // a supervisor that starts with what is left knows what the sealed events said
        sandbox.kill_supervisor(ALPHA);
        sandbox.start_supervisor(ALPHA)?;
        let report = sandbox.wait_healthy(ALPHA).await?;
        assert_eq!((report.main, report.threshold_ms), (Some(ALPHA), 1_500));
        sandbox.kill_supervisor(BETA);
        sandbox.start_supervisor(BETA)?;
        sandbox.wait_healthy(BETA).await?;
        sandbox
            .wait_event(BETA, "main_seen by the new supervisor", |envelope| {
                matches!(envelope.event, Event::MainSeen(_))
            })
            .await?;

        sandbox.kill_everything_of(ALPHA);
        sandbox.wait_run_ended(BETA).await?;
        assert!(sandbox.takes_writes(BETA).await);
        let kept = sealed_up_to(&sandbox, BETA, BETA).unwrap();
        for _ in 0..2 {
            sandbox.start_supervisor(ALPHA)?;
            sandbox.wait_health(ALPHA, "fenced", |report| report.status == NodeStatus::Fenced).await?;
            assert_eq!(sandbox.postmaster_pid(ALPHA), None);
            sandbox.kill_supervisor(ALPHA);
        }
        assert!(sandbox.takes_writes(BETA).await);
        assert_eq!(sealed_up_to(&sandbox, BETA, BETA).unwrap(), kept, "no standby is left to hold them");
        Ok(())
    });
}

/// The first segment, read by the commands that read any export.
fn the_files_are_read_as_exports(sandbox: &Sandbox) -> Done<()> {
    let folder = sandbox.node(ALPHA)?.folder.join("segments");
    let segment = segments(sandbox, ALPHA, ALPHA).unwrap().remove(0);
    let file = folder.join(segment.file.clone().unwrap().name).to_string_lossy().into_owned();
    let listed = interrex_with(&["events", "--journal", &file, "--json"], &[])?;
    assert_eq!(listed.status.code(), Some(0), "{}", String::from_utf8_lossy(&listed.stderr));
    assert_eq!(listed.stdout.split(|byte| *byte == b'\n').count() as u64, segment.last().0 + 1);
    let journal = sandbox.folder().join("from-a-segment.db").to_string_lossy().into_owned();
    let imported = interrex_with(&["import", &file, "--journal", &journal], &[])?;
    assert_eq!(imported.status.code(), Some(0), "{}", String::from_utf8_lossy(&imported.stderr));
    let verified = interrex_with(&["journal", "verify", "--journal", &journal], &[])?;
    assert_eq!(verified.status.code(), Some(0));
    Ok(())
}

#[test]
fn nothing_is_sealed_on_main_while_no_standby_holds_it_and_all_that_waited_is_when_one_does() {
    run(async {
        let sandbox = forgetful_nodes().await?;
        sandbox.start().await?;
        sandbox.kill_everything_of(BETA);
        let log = sandbox.node(ALPHA)?.supervisor_log();
        let heard = std::fs::read_to_string(&log).unwrap().len();
        change_settings(&sandbox, 12).await?;
        until("main misses its standby", LIMIT, || async {
            let log = std::fs::read_to_string(&log).map_err(|error| error.to_string())?;
            let told = log[heard..].contains("no standby flushed main's WAL");
            if told { Ok(()) } else { Err(log) }
        })
        .await?;
        let sealed = sealed_up_to(&sandbox, ALPHA, ALPHA).unwrap();
        let next = NodeSeq(sealed.0 + u64::from(SEGMENT_EVENTS));
        until("what would be sealed next is old for long", LIMIT, || async {
            let reader = sandbox.journal(ALPHA).map_err(|error| error.to_string())?;
            let due = reader.page(ALPHA, next, 1).map_err(|error| error.to_string())?.pop();
            let due = due.ok_or("it is not recorded yet")?;
            let age_ms = (SystemEnv.moment().wall - due.recorded_at).num_milliseconds();
            if age_ms > 12 * KEEP_MS { Ok(()) } else { Err(format!("{age_ms} ms")) }
        })
        .await?;
        assert_eq!(sealed_up_to(&sandbox, ALPHA, ALPHA).unwrap(), sealed);
        let all =
            sandbox.journal(ALPHA)?.read(&Selection { node: Some(ALPHA), ..Selection::default() }).unwrap();
        assert_eq!(all[0].node_seq, sealed.next());

        sandbox.start_supervisor(BETA)?;
        sandbox.wait_healthy(BETA).await?;
        until("main seals", LIMIT, || async {
            let now = sealed_up_to(&sandbox, ALPHA, ALPHA)?;
            if now > sealed { Ok(()) } else { Err(format!("up to {now}")) }
        })
        .await?;
        sealed_soundly(&sandbox).await
    });
}

#[test]
fn a_journal_that_was_lost_comes_back_from_where_the_peers_copy_begins() {
    run(async {
        let sandbox = forgetful_nodes().await?;
        sandbox.start().await?;
        change_settings(&sandbox, 6).await?;
        until("both nodes seal beta's events", LIMIT, || async {
            let (alpha, beta) = (sealed_up_to(&sandbox, ALPHA, BETA)?, sealed_up_to(&sandbox, BETA, BETA)?);
            if alpha.0.min(beta.0) > 0 { Ok(()) } else { Err(format!("up to {alpha} and {beta}")) }
        })
        .await?;
        sandbox.kill_supervisor(BETA);
        let journal = sandbox.node(BETA)?.journal();
        for suffix in ["db", "db-wal", "db-shm"] {
            std::fs::remove_file(journal.with_extension(suffix)).ok();
        }
        let lost = sealed_up_to(&sandbox, ALPHA, BETA).unwrap();
        sandbox.start_supervisor(BETA)?;
        // a change that alpha held no copy of yet comes with its next heartbeat
        let knows = "what was sealed, and what was changed since";
        sandbox.wait_health(BETA, knows, |report| report.healthy && report.threshold_ms == 1_500).await?;
        assert_eq!(sandbox.cluster(BETA)?.nodes.main, Some(ALPHA), "it knows what was sealed");
        let begins = segments(&sandbox, BETA, BETA).unwrap().remove(0);
        assert!(begins.file.is_none() && begins.last() >= lost, "{begins:?}");
        until("beta copies alpha's journal, from where it begins there", LIMIT, || async {
            let heads = sandbox.journal(BETA).map_err(|error| error.to_string())?.verify();
            let heads = heads.map_err(|error| error.to_string())?.heads;
            if heads.iter().any(|head| head.node_id == ALPHA) { Ok(()) } else { Err(format!("{heads:?}")) }
        })
        .await?;
        sealed_soundly(&sandbox).await
    });
}
