//! The store: every node holds every node's events, `cluster_events` and its projections agree with them, and
//! nothing is lost or doubled by a failover that loses rows.

use std::time::Duration;

use interrex::sandbox::{ALPHA, BETA, Done, Sandbox, until};
use interrex_events::{Event, Head, NodeId, RedisStatus};
use interrex_tests::{faketime, run};
use rustix::process::Signal;

use crate::{bad_input::interrex_with, checks::session, two_nodes};

const LIMIT: Duration = Duration::from_secs(30);

/// The newest event of every node that a node's journal holds.
fn heads(sandbox: &Sandbox, node: NodeId) -> Done<Vec<Head>> {
    Ok(sandbox.journal(node)?.verify().unwrap().heads)
}

/// Waits until `cluster_events` on a main has everything that its journal and the other node's hold.
async fn all_relayed(sandbox: &Sandbox, main: NodeId) -> Done<()> {
    until("cluster_events holds all journals", LIMIT, || async {
        let sql = "SELECT coalesce(string_agg(concat(node_id, '/', node_seq), ' ' ORDER BY node_id), '') \
                   FROM interrex.journal_heads";
        let there = sandbox.psql_value(main, sql).await.map_err(|error| error.to_string())?;
        let journal_heads = |node| {
            let heads = heads(sandbox, node).map_err(|error| error.to_string())?;
            let journal_heads: Vec<_> =
                heads.iter().map(|head| format!("{}/{}", head.node_id, head.node_seq)).collect();
            Ok::<_, String>(journal_heads.join(" "))
        };
        let (alpha, beta) = (journal_heads(ALPHA)?, journal_heads(BETA)?);
        if there == alpha && alpha == beta { Ok(()) } else { Err(format!("{there} | {alpha} | {beta}")) }
    })
    .await
}

/// What the stream and its projections say of themselves.
async fn agree(sandbox: &Sandbox, main: NodeId) -> Done<()> {
    let value = async |sql: &str| sandbox.psql_value(main, sql).await;
    assert_eq!(value("SELECT max(pos) - count(*) FROM interrex.cluster_events").await?, "0", "pos has gaps");
    assert_eq!(
        value("SELECT count(*) - count(DISTINCT (node_id, node_seq)) FROM interrex.cluster_events").await?,
        "0",
        "an event is there twice"
    );
    let behind = "SELECT coalesce(string_agg(projection, ' '), '') FROM interrex.projection_checkpoints, \
                  interrex.stream_head AS head WHERE state <> 'live' OR head_hash <> head.hash OR \
                  (projection_checkpoints.epoch, projection_checkpoints.pos) <> (head.epoch, head.pos)";
    assert_eq!(value(behind).await?, "", "projections that do not agree with the stream");
    let lines =
        "SELECT (SELECT count(*) FROM interrex.cluster_timeline) - count(*) FROM interrex.cluster_events";
    assert_eq!(value(lines).await?, "0", "the timeline has other events than the stream");
    Ok(())
}

fn verify(sandbox: &Sandbox, node: NodeId) -> Done<(Option<i32>, String)> {
    let config = sandbox.node(node)?.config();
    let output = interrex_with(&["journal", "verify", "--config", &config.to_string_lossy()], &[])?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// The cluster as the stream told it just before and just after the new epoch was opened, asked for by position.
async fn reads_back_in_time(sandbox: &Sandbox) -> Done<()> {
    let config = sandbox.node(BETA)?.config();
    let config = config.to_string_lossy();
    let ask = |arguments: &[&str]| -> Done<(Option<i32>, String)> {
        let output = interrex_with(&[arguments, &["--config", &config]].concat(), &[])?;
        let message = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8_lossy(&message).into_owned()))
    };
    let opened =
        sandbox.psql_value(BETA, "SELECT min(pos) FROM cluster_events WHERE position_epoch = 2").await?;
    let (code, before) = ask(&["nodes", "--at", &format!("1:{}", opened.parse::<u64>().unwrap() - 1)])?;
    assert!(code == Some(0) && before.contains("main") && before.starts_with("Epoch 1"), "{before}");
    let (code, after) = ask(&["nodes", "--at", &format!("2:{opened}")])?;
    assert!(code == Some(0) && after.starts_with("Epoch 2"), "{after}");
    let (code, message) = ask(&["nodes", "--at", &format!("1:{opened}")])?;
    assert_eq!(code, Some(7), "{message}");
    let (_, events) = ask(&["events", "--cluster-events", "--json"])?;
    let count = sandbox.psql_value(BETA, "SELECT count(*) FROM cluster_events").await?;
    assert!(events.lines().count() >= count.parse().unwrap());
    Ok(())
}

#[test]
fn every_node_holds_every_nodes_events_and_the_projections_agree_with_them() {
    run(async {
        let sandbox = two_nodes().build().await?;
        sandbox.start().await?;
        all_relayed(&sandbox, ALPHA).await?;
        agree(&sandbox, ALPHA).await?;
        // unqualified, as in the runbook, and on the standby too
        let config = "SELECT concat(server_role, ' ', main_server_ip, ' ', main_node_id) FROM cluster_config";
        assert_eq!(sandbox.psql_value(ALPHA, config).await?, "main 127.0.0.1 1");
        let roles = "SELECT string_agg(concat(name, ' ', role, ' ', status), ', ' ORDER BY node_id) FROM cluster_nodes";
        assert_eq!(sandbox.psql_value(ALPHA, roles).await?, "alpha main online, beta secondary online");
        until("the standby has it", LIMIT, || async {
            match sandbox.psql_value(BETA, config).await {
                Ok(found) if found == "secondary 127.0.0.1 1" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    });
}

#[test]
fn a_lossy_failover_loses_no_event_and_the_old_mains_last_words_are_learned_later() {
    run(async {
        let sandbox = two_nodes().build().await?;
        sandbox.start().await?;
        all_relayed(&sandbox, ALPHA).await?;
        // beta receives nothing more, neither log nor events, while alpha goes on
        sandbox.psql(BETA, "ALTER SYSTEM SET primary_conninfo = ''").await?;
        sandbox.psql(BETA, "SELECT pg_reload_conf()").await?;
        until("the receiver is gone", LIMIT, || async {
            match sandbox.psql_value(BETA, "SELECT count(*) FROM pg_stat_wal_receiver").await {
                Ok(count) if count == "0" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        sandbox.signal_supervisor(BETA, Signal::STOP);
        let before = sandbox.events(ALPHA)?.last().unwrap().node_seq;
        sandbox.kill_redis(ALPHA);
        let last_event = sandbox
            .wait_event(ALPHA, "its Redis is gone", |envelope| {
                // a supervisor that starts measures what is not started yet
                envelope.node_seq > before
                    && matches!(&envelope.event, Event::RedisChanged(it) if it.status == RedisStatus::Stopped)
            })
            .await?;
        let seq = last_event.node_seq;
        let there =
            format!("SELECT count(*) FROM interrex.cluster_events WHERE node_id = 1 AND node_seq = {seq}");
        until("alpha's PostgreSQL has its last event", LIMIT, || async {
            match sandbox.psql_value(ALPHA, &there).await {
                Ok(count) if count == "1" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        let ahead = "SELECT concat(epoch, ', ', pos, ', ''', head_hash, '''::bytea') \
                     FROM interrex.projection_checkpoints WHERE projection = 'cluster_timeline'";
        let ahead = sandbox.psql_value(ALPHA, ahead).await?;
        sandbox.kill_everything_of(ALPHA);
        sandbox.signal_supervisor(BETA, Signal::CONT);
        sandbox.wait_run_ended(BETA).await?;
        assert_eq!(sandbox.psql_value(BETA, &there).await?, "0", "the test wants a loss to begin with");

        // alpha's journal is reachable again, its servers stay stopped
        sandbox.start_supervisor(ALPHA)?;
        sandbox
            .wait_event(ALPHA, "node_fenced", |envelope| matches!(envelope.event, Event::NodeFenced(_)))
            .await?;
        all_relayed(&sandbox, BETA).await?;
        agree(&sandbox, BETA).await?;
        let mark =
            format!("SELECT learned_later FROM cluster_timeline WHERE node_id = 1 AND node_seq = {seq}");
        assert_eq!(sandbox.psql_value(BETA, &mark).await?, "t");
        let first = "SELECT kind FROM cluster_events WHERE position_epoch = 2 ORDER BY pos LIMIT 1";
        assert_eq!(sandbox.psql_value(BETA, first).await?, "epoch_opened");
        let nodes = "SELECT string_agg(concat(name, ' ', role, ' ', status), ', ' ORDER BY node_id) FROM cluster_nodes";
        assert_eq!(sandbox.psql_value(BETA, nodes).await?, "alpha secondary fenced, beta main online");

        // a checkpoint from the old main's stream, which went further than what was replicated
        let lines = "SELECT md5(string_agg(line::text, '' ORDER BY hlc, node_id, node_seq)) FROM cluster_timeline AS line \
                     WHERE node_id = 1";
        let before = sandbox.psql_value(BETA, lines).await?;
        let from_the_old_main = format!(
            "UPDATE interrex.projection_checkpoints SET (epoch, pos, head_hash) = ({ahead}) WHERE projection = 'cluster_timeline'"
        );
        sandbox.psql(BETA, &from_the_old_main).await?;
        sandbox
            .wait_event(BETA, "the rebuild", |envelope| {
                matches!(&envelope.event, Event::ProjectionRebuilt(it) if it.reason.contains("does not match the stream"))
            })
            .await?;
        assert_eq!(sandbox.psql_value(BETA, lines).await?, before, "rebuilt, it says something else");
        all_relayed(&sandbox, BETA).await?;
        agree(&sandbox, BETA).await?;
        for node in [ALPHA, BETA] {
            let (code, message) = verify(&sandbox, node)?;
            assert_eq!(code, Some(0), "{message}");
            assert!(message.contains("cluster_events"), "{message}");
        }
        reads_back_in_time(&sandbox).await
    });
}

#[test]
fn an_update_of_cluster_config_takes_effect_on_all_nodes_and_is_an_event_of_the_sql_user() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        sandbox.start().await?;
        all_relayed(&sandbox, ALPHA).await?;
        sandbox.psql(ALPHA, "UPDATE cluster_config SET auto_failover_enabled = false").await?;
        sandbox.psql(ALPHA, "UPDATE cluster_config SET auto_failover_threshold_seconds = 300").await?;
        let shown =
            "SELECT concat(auto_failover_enabled, ' ', auto_failover_threshold_seconds) FROM cluster_config";
        assert_eq!(
            sandbox.psql_value(ALPHA, shown).await?,
            "f 300",
            "at once, not when the supervisor has looked"
        );
        for node in [ALPHA, BETA] {
            sandbox
                .wait_health(node, "a threshold of 300 s", |report| report.threshold_ms == 300_000)
                .await?;
        }
        let changed = sandbox
            .wait_event(ALPHA, "settings_changed", |envelope| {
                matches!(envelope.event, Event::SettingsChanged(_))
            })
            .await?;
        let interrex_events::Cause::Person { name, source } = &changed.actor else {
            panic!("{:?}", changed.actor)
        };
        assert_eq!((name.as_str(), source.as_str()), ("interrex", "127.0.0.1"));
        until("the requests are answered", LIMIT, || async {
            match sandbox.psql_value(ALPHA, "SELECT count(*) FROM interrex.settings_requests").await {
                Ok(count) if count == "0" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        assert_eq!(sandbox.psql_value(ALPHA, shown).await?, "f 300");
        for (wrong, message) in [
            ("auto_failover_threshold_seconds = 0.1", "out of range: it must be from 0.4 to 86400"),
            ("auto_failover_threshold_seconds = NULL", "out of range"),
            ("auto_failover_enabled = NULL", "is true or false"),
            ("server_role = 'main', main_server_ip = '10.0.0.9'", "only auto_failover_enabled"),
        ] {
            let refused =
                sandbox.psql(ALPHA, &format!("UPDATE cluster_config SET {wrong}")).await.unwrap_err();
            assert!(refused.to_string().contains(message), "{wrong}: {refused}");
        }
        // what was changed outlives the supervisor, and decides: main dies, and nobody takes over
        sandbox.kill_supervisor(BETA);
        sandbox.start_supervisor(BETA)?;
        sandbox.wait_health(BETA, "a threshold of 300 s", |report| report.threshold_ms == 300_000).await?;
        sandbox.psql(ALPHA, "UPDATE cluster_config SET auto_failover_threshold_seconds = 1.5").await?;
        sandbox.wait_health(BETA, "a threshold of 1.5 s", |report| report.threshold_ms == 1_500).await?;
        sandbox.kill_everything_of(ALPHA);
        sandbox
            .wait_event(BETA, "the failover withheld", |envelope| {
                matches!(&envelope.event, Event::FailoverWithheld(it)
                    if it.rule == interrex_events::WithheldRule::AutoFailoverDisabled)
            })
            .await?;
        Ok(())
    });
}

#[test]
fn a_journal_from_an_old_disk_image_takes_its_lost_events_back_and_a_forked_one_stops_the_node() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        sandbox.start().await?;
        sandbox.kill_supervisor(BETA);
        let journal = sandbox.node(BETA)?.journal();
        let image = sandbox.folder().join("image.db");
        std::fs::copy(&journal, &image).unwrap();
        std::fs::copy(journal.with_extension("db-wal"), image.with_extension("db-wal")).ok();
        let imaged = sandbox.events(BETA)?.len();
        sandbox.start_supervisor(BETA)?;
        sandbox.wait_healthy(BETA).await?;
        // its last event for a while
        sandbox
            .wait_event(BETA, "main_seen", |envelope| {
                envelope.node_seq.0 as usize > imaged && matches!(envelope.event, Event::MainSeen(_))
            })
            .await?;
        until("alpha has all of beta's events", LIMIT, || async {
            let seen =
                |node| sandbox.journal(node).and_then(|_| heads(&sandbox, node)).map_err(|e| e.to_string());
            let (alpha, beta) = (seen(ALPHA)?, seen(BETA)?);
            let of_beta = |heads: &[Head]| heads.iter().find(|head| head.node_id == BETA).copied();
            if of_beta(&alpha) == of_beta(&beta) { Ok(()) } else { Err(format!("{alpha:?} {beta:?}")) }
        })
        .await?;
        sandbox.kill_supervisor(BETA);
        let lived = sandbox.events(BETA)?;
        assert!(lived.len() > imaged);
        let restore = |from: &std::path::Path| {
            for suffix in ["db", "db-wal", "db-shm"] {
                std::fs::remove_file(journal.with_extension(suffix)).ok();
                std::fs::copy(from.with_extension(suffix), journal.with_extension(suffix)).ok();
            }
        };
        restore(&image);
        sandbox.start_supervisor(BETA)?;
        let restored = sandbox
            .wait_event(BETA, "journal_restored", |envelope| {
                matches!(envelope.event, Event::JournalRestored(_))
            })
            .await?;
        assert_eq!(sandbox.events(BETA)?[..lived.len()], lived, "the lost events are back as they were");
        assert_eq!(restored.node_seq.0, lived.len() as u64 + 1);
        sandbox.wait_healthy(BETA).await?;

        // the image once more, continued while nobody could be asked: no peer, nor this node's own PostgreSQL,
        // whose cluster_events may hold all of it by now
        sandbox.kill_everything_of(BETA);
        sandbox.signal_supervisor(ALPHA, Signal::STOP);
        restore(&image);
        sandbox.start_supervisor(BETA)?;
        let forked = sandbox.events(BETA)?.len();
        until("it continued the old image", LIMIT, || async {
            let now = sandbox.events(BETA).map_err(|error| error.to_string())?.len();
            if now > forked { Ok(()) } else { Err(format!("{now} events")) }
        })
        .await?;
        sandbox.signal_supervisor(ALPHA, Signal::CONT);
        let end = sandbox.wait_supervisor_ended(BETA).await?;
        assert_eq!(end.code(), Some(4));
        let log = std::fs::read_to_string(sandbox.node(BETA)?.supervisor_log()).unwrap();
        assert!(log.contains("has two continuations") && log.contains("move it away"), "{log}");
        assert!(sandbox.takes_writes(ALPHA).await);

        // as the message says: moved away, the journal comes back from the peer's copy
        for suffix in ["db", "db-wal", "db-shm"] {
            std::fs::remove_file(journal.with_extension(suffix)).ok();
        }
        sandbox.start_supervisor(BETA)?;
        sandbox.wait_healthy(BETA).await?;
        assert_eq!(sandbox.events(BETA)?[..lived.len()], lived);
        Ok(())
    });
}

/// Until main's first relay has made the tables and views, there is nothing to be changed.
async fn settings_are_shown(sandbox: &Sandbox) -> Done<()> {
    until("settings are shown", LIMIT, || async {
        match sandbox.psql_value(ALPHA, "SELECT auto_failover_enabled FROM cluster_config").await {
            Ok(shown) if shown == "t" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

#[test]
fn a_change_of_settings_does_not_wait_for_the_next_heartbeat() {
    run(async {
        let seldom = Duration::from_secs(20);
        let sandbox =
            two_nodes().postgres_only().probe_interval(seldom).threshold(2 * seldom).build().await?;
        sandbox.start().await?;
        settings_are_shown(&sandbox).await?;
        let change = "UPDATE cluster_config SET auto_failover_threshold_seconds = 99";
        sandbox.psql(ALPHA, change).await?;
        let adopted = until("beta goes by it", seldom / 4, || async {
            let health = sandbox.health(BETA).await.map_err(|error| error.to_string())?;
            let threshold_ms = health.report.threshold_ms;
            if threshold_ms == 99_000 { Ok(()) } else { Err(format!("{threshold_ms} ms")) }
        });
        adopted.await
    });
}

#[test]
fn two_who_change_one_setting_each_at_the_same_time_both_have_their_way() {
    run(async {
        let sandbox = two_nodes().nodes(1).postgres_only().build().await?;
        sandbox.start().await?;
        settings_are_shown(&sandbox).await?;
        let slow = session(&sandbox, ALPHA).await?;
        slow.batch_execute("BEGIN; UPDATE cluster_config SET auto_failover_enabled = false").await.unwrap();
        sandbox.psql(ALPHA, "UPDATE cluster_config SET auto_failover_threshold_seconds = 77").await?;
        sandbox.wait_health(ALPHA, "a threshold of 77 s", |report| report.threshold_ms == 77_000).await?;
        slow.batch_execute("COMMIT").await.unwrap();
        sandbox
            .wait_event(ALPHA, "both changes", |envelope| {
                matches!(&envelope.event, Event::SettingsChanged(it)
                    if !it.settings.auto_failover_enabled && it.settings.auto_failover_threshold_ms == 77_000)
            })
            .await?;
        Ok(())
    });
}

#[test]
fn a_node_alone_takes_a_lost_journal_back_from_its_own_postgresql() {
    run(async {
        let sandbox = two_nodes().nodes(1).postgres_only().build().await?;
        sandbox.start().await?;
        sandbox.wait_healthy(ALPHA).await?;
        let relayed = async || {
            let count = sandbox.psql_value(ALPHA, "SELECT count(*) FROM interrex.cluster_events").await;
            count.map_err(|error| error.to_string())
        };
        let lived = until("all of it is in cluster_events", LIMIT, || async {
            let events = sandbox.events(ALPHA).map_err(|error| error.to_string())?;
            let there = relayed().await?;
            if there == events.len().to_string() {
                Ok(events)
            } else {
                Err(format!("{there} of {}", events.len()))
            }
        })
        .await?;
        sandbox.kill_supervisor(ALPHA);
        let journal = sandbox.node(ALPHA)?.journal();
        for suffix in ["db", "db-wal", "db-shm"] {
            std::fs::remove_file(journal.with_extension(suffix)).ok();
        }
        sandbox.start_supervisor(ALPHA)?;
        sandbox
            .wait_event(
                ALPHA,
                "journal_restored",
                |envelope| matches!(&envelope.event, Event::JournalRestored(it) if it.from == ALPHA),
            )
            .await?;
        assert_eq!(sandbox.events(ALPHA)?[..lived.len()], lived, "the lost events are back as they were");
        sandbox.wait_healthy(ALPHA).await?;
        Ok(())
    });
}

#[test]
fn a_node_whose_clock_is_ten_years_off_is_not_followed_and_its_events_are_held_all_the_same() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        let library = faketime()?;
        for (name, value) in [
            ("LD_PRELOAD", library.to_string_lossy().as_ref()),
            ("FAKETIME", "+3650d"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ] {
            sandbox.set_environment(BETA, name, Some(value));
        }
        sandbox.start().await?;
        for (node, peer, sign) in [(ALPHA, BETA, 1), (BETA, ALPHA, -1)] {
            sandbox
                .wait_event(node, "clock_skew_observed", |envelope| {
                    matches!(&envelope.event, Event::ClockSkewObserved(it) if it.peer == peer && it.ahead_ms.signum() == sign)
                })
                .await?;
        }
        all_relayed(&sandbox, ALPHA).await?;
        agree(&sandbox, ALPHA).await?;
        let years = "SELECT max((hlc >> 16) / 31557600000 + 1970) FROM cluster_events WHERE node_id = ";
        let year = async |node: u32| sandbox.psql_value(ALPHA, &format!("{years}{node}")).await;
        let (alpha, beta): (i64, i64) = (year(1).await?.parse().unwrap(), year(2).await?.parse().unwrap());
        assert!((9..=11).contains(&(beta - alpha)), "alpha records in {alpha}, beta in {beta}");
        Ok(())
    });
}

#[test]
fn an_event_that_a_projection_cannot_take_pauses_it_visibly_and_nothing_else() {
    run(async {
        let sandbox = two_nodes().build().await?;
        sandbox.start().await?;
        all_relayed(&sandbox, ALPHA).await?;
        let rows =
            "SELECT generation FROM interrex.projection_checkpoints WHERE projection = 'cluster_timeline'";
        let rows = format!("interrex.cluster_timeline_{}", sandbox.psql_value(ALPHA, rows).await?);
        let poison =
            format!("ALTER TABLE {rows} ADD CONSTRAINT no_redis CHECK (kind <> 'redis_changed') NOT VALID");
        sandbox.psql(ALPHA, &poison).await?;
        sandbox.kill_redis(ALPHA);
        let health = sandbox
            .wait_health(ALPHA, "a paused projection", |report| {
                report.stream.as_ref().is_some_and(|stream| stream.paused == ["cluster_timeline"])
            })
            .await?;
        assert!(health.problems.iter().any(|problem| problem.starts_with("cluster_timeline is paused")));
        sandbox
            .wait_event(ALPHA, "projection_paused", |envelope| {
                matches!(&envelope.event, Event::ProjectionPaused(it) if it.error.contains("no_redis"))
            })
            .await?;
        // the stream and the other projections go on, and tell of it
        all_relayed(&sandbox, ALPHA).await?;
        let others = "SELECT string_agg(concat(projection, ' ', state), ', ' ORDER BY projection) \
                      FROM interrex.projection_checkpoints";
        assert_eq!(
            sandbox.psql_value(ALPHA, others).await?,
            "cluster_nodes live, cluster_runs live, cluster_timeline paused"
        );
        // mended, and rebuilt because somebody asked for it
        sandbox
            .psql(
                ALPHA,
                "UPDATE interrex.projection_checkpoints SET state = 'rebuild' WHERE state = 'paused'",
            )
            .await?;
        sandbox
            .wait_event(ALPHA, "the rebuild", |envelope| {
                matches!(&envelope.event, Event::ProjectionRebuilt(it) if it.reason == "a rebuild was requested")
            })
            .await?;
        all_relayed(&sandbox, ALPHA).await?;
        agree(&sandbox, ALPHA).await
    });
}
