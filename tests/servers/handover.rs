//! Handing a main's role down: the proof is compared with what the standby received and where it promoted.

use std::time::Duration;

use interrex::sandbox::{ALPHA, BETA, until};
use interrex_actors::ports::{HandoverPort as _, PostgresPort as _, ServerProcess, StopMode, Verdict};
use interrex_events::{PostgresStatus, TimelineId};

use crate::pair::{LIMIT, Pair, on_one_thread, slot};

/// Stops alpha, checks the proof against beta, promotes beta, and lets alpha follow without a rewind.
async fn hand_over(pair: &Pair) {
    let proof = pair.alpha.hand_down(LIMIT).await.unwrap();
    assert_eq!(pair.alpha.shutdown_proof().await.unwrap(), proof, "can be asked again");
    pair.beta_has(proof.end).await;
    let received = pair.beta.received().await.unwrap();
    assert_eq!(received.received, proof.end, "it received all of it, and nothing more");
    let other_half = pair.beta.log_record(proof.timeline, proof.checkpoint).await.unwrap();
    assert_eq!((other_half.end, other_half.sha256), (proof.end, proof.sha256.clone()));

    let promotion = pair.beta.promote().await.unwrap();
    assert_eq!(promotion.switchpoint, proof.end);
    pair.beta.ensure_slot(ALPHA).await.unwrap();

    let main = pair.beta.main_lineage().await.unwrap();
    let lineage = pair.alpha.lineage_against(&main, &*pair.server(BETA)).await.unwrap();
    assert_eq!((lineage.verdict, lineage.clean, lineage.end), (Verdict::SameLine, true, proof.end));
    for _ in 0..2 {
        pair.alpha.become_standby(&pair.conninfo(&pair.alpha, BETA), &slot(ALPHA), None).await.unwrap();
    }
    assert!(pair.alpha.is_standby_directory());
    pair.alpha.start().await.unwrap();
    pair.streams(BETA, ALPHA).await;
}

#[test]
fn the_proof_is_what_the_standby_received_and_where_it_promotes() {
    on_one_thread(async {
        let pair = Pair::start().await;
        hand_over(&pair).await;
    });
}

#[test]
fn a_standby_that_was_cut_off_still_tells_the_timeline_that_it_received() {
    on_one_thread(async {
        // no restartpoint names it in the control file
        let pair = Pair::start_with("checkpoint_timeout = 1d").await;
        hand_over(&pair).await;
        pair.sandbox.psql(BETA, "CREATE TABLE newer (id int)").await.unwrap();
        let end = pair.beta.main_lineage().await.unwrap().flushed;
        let detached = async |why: &str| {
            until(why, LIMIT, async || {
                let facts = pair.alpha.measure().await.facts;
                let is_alone = facts.status == PostgresStatus::Detached && facts.lsn >= Some(end);
                if is_alone { Ok(facts.timeline) } else { Err(format!("{facts:?}")) }
            })
            .await
            .unwrap()
        };
        pair.streams(BETA, ALPHA).await;
        pair.alpha.set_upstream("").await.unwrap();
        assert_eq!(detached("it is cut off").await, Some(TimelineId(2)));
        pair.alpha.stop(StopMode::Immediate).await.unwrap();
        pair.alpha.start().await.unwrap();
        assert_eq!(detached("it has replayed what it had").await, Some(TimelineId(2)));
    });
}

#[test]
fn the_proof_holds_with_an_archive_whose_last_file_is_switched_first() {
    on_one_thread(async {
        let pair = Pair::start_with("archive_mode = on\narchive_command = 'true'").await;
        hand_over(&pair).await;
    });
}

#[test]
fn the_proof_holds_where_the_record_crosses_a_page() {
    on_one_thread(async {
        let pair = Pair::start().await;
        // 8192 bytes less what the closing server writes before its checkpoint: it begins at most 112 before a border
        let sql = "CHECKPOINT;
            DO $$ DECLARE place bigint; BEGIN
              FOR attempt IN 1..4 LOOP
                place := (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint % 8192;
                IF place BETWEEN 8088 AND 8184 THEN EXIT; END IF;
                PERFORM pg_logical_emit_message(false, '', repeat('x', ((8192 + 8136 - place - 56) % 8192)::int));
              END LOOP;
            END $$";
        let mut crossed = false;
        for _ in 0..3 {
            pair.sandbox.psql(ALPHA, sql).await.unwrap();
            let proof = pair.alpha.hand_down(LIMIT).await.unwrap();
            crossed = proof.checkpoint.0 / 8192 != (proof.end.0 - 1) / 8192;
            if crossed {
                break;
            }
            pair.alpha.start().await.unwrap();
            pair.streams(ALPHA, BETA).await;
        }
        assert!(crossed, "no shutdown checkpoint crossed a page");
        hand_over(&pair).await;
    });
}

#[test]
fn a_main_that_does_not_stop_says_what_it_waits_for_and_is_not_forced() {
    on_one_thread(async {
        let pair = Pair::start_with("archive_mode = on\narchive_command = 'sleep 3'").await;
        let error = pair.alpha.hand_down(Duration::from_millis(400)).await.unwrap_err().to_string();
        assert!(error.contains("did not stop within 400ms") && error.contains("archiver"), "{error}");
        assert_eq!(pair.alpha.process().await, ServerProcess::Stopping);
        pair.alpha.hand_down(LIMIT).await.unwrap();
        assert_eq!(pair.alpha.process().await, ServerProcess::None);

        // one that ends and need not hand over is forced after its patience, and that is told
        pair.alpha.start().await.unwrap();
        assert_eq!(pair.alpha.process().await, ServerProcess::Up);
        pair.sandbox.psql(ALPHA, "CREATE TABLE more (id int)").await.unwrap();
        let end = pair.alpha.stop(StopMode::Within(Duration::from_millis(400))).await.unwrap();
        assert!(end.forced && end.words.contains("a clean stop did not end within 400ms"), "{end}");
        assert!(end.words.contains("archiver"), "{end}");
    });
}

#[test]
fn a_crash_is_no_proof_and_a_diverged_log_is_measured() {
    on_one_thread(async {
        let pair = Pair::start().await;
        pair.beta.promote().await.unwrap();
        pair.sandbox.psql(ALPHA, "CREATE TABLE stranded (id int)").await.unwrap();
        let flushed = pair.alpha.main_lineage().await.unwrap().flushed;
        pair.alpha.stop(StopMode::Immediate).await.unwrap();
        let error = pair.alpha.shutdown_proof().await.unwrap_err().to_string();
        assert!(error.contains("in production"), "{error}");
        let main = pair.beta.main_lineage().await.unwrap();
        let lineage = pair.alpha.lineage_against(&main, &*pair.server(BETA)).await.unwrap();
        assert!(!lineage.clean && lineage.end >= flushed, "{lineage:?}, flushed {flushed}");
        let by_log = matches!(&lineage.verdict, Verdict::Diverged { parted, .. } if parted.bytes > 0);
        assert!(by_log, "{lineage:?}");
        assert_eq!(pair.alpha.can_rewind().await, Ok(()));
    });
}
