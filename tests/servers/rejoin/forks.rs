//! Where two lines part, however they came to it: several promotions, a promotion by hand, a start as a main beside main.

use std::{collections::BTreeSet, fs};

use interrex::sandbox::{ALPHA, BETA};
use interrex_actors::ports::{
    HandoverPort as _, Lineage, Parted as PartedAt, PostgresPort as _, RejoinPort as _, Rewind, StopMode,
    Verdict,
};
use interrex_adapters::postgres::LocalPostgres;
use interrex_events::{Lsn, TimelineId};

use super::{Parted, STRANDED};
use crate::pair::{LIMIT, on_one_thread};

/// Becomes main once more, on a timeline of its own.
async fn is_promoted(server: &LocalPostgres) {
    server.stop(StopMode::Fast).await.unwrap();
    server.become_standby("", "none", None).await.unwrap();
    server.start().await.unwrap();
    server.promote().await.unwrap();
}

/// Alpha and beta are promoted so often, each apart from the other; beta is the main that counts.
fn forked(alphas: u32, betas: u32) {
    on_one_thread(async {
        let parted = Parted::make().await;
        let (alpha, beta) = (&parted.pair.alpha, &parted.pair.beta);
        for row in 1..=alphas {
            is_promoted(alpha).await;
            // the next timeline begins in another file of the log
            for sql in [format!("INSERT INTO t VALUES (-100 - {row}, '')"), "SELECT pg_switch_wal()".into()] {
                parted.pair.sandbox.psql(ALPHA, &sql).await.unwrap();
            }
        }
        parted.kill_alpha().await;
        for _ in 1..betas {
            is_promoted(beta).await;
        }
        let main = beta.main_lineage().await.unwrap();
        let lineage = parted.lineage().await;
        assert_eq!([lineage.timeline, main.timeline], [alphas + 1, betas + 1].map(TimelineId));
        // where beta left the first timeline
        let switchpoint = main.history[0].switchpoint;
        let bytes = lineage.end.bytes_ahead_of(switchpoint);
        let (found, by_rewind) = diverged(&lineage);
        assert_eq!(found, PartedAt { switchpoint, bytes, exact: true });
        assert_eq!(by_rewind.is_ok(), alphas != betas, "{by_rewind:?}");

        let fork = alpha.fork(lineage.timeline, switchpoint, LIMIT).await.unwrap();
        let stranded = fork.relations.iter().filter(|relation| !relation.is_catalog());
        let stranded = stranded.map(|relation| relation.inserts).sum::<u64>();
        assert_eq!(stranded, STRANDED + u64::from(alphas));
        let kept = alpha.keep_copy(&parted.request(1), &|_| {}).await.unwrap();
        assert_eq!(parted.salvaged(&kept.folder).await, stranded);
    });
}

#[test]
fn timelines_of_the_same_number_are_two() {
    forked(1, 1);
}

#[test]
fn a_timeline_that_mains_history_does_not_know_is_read_from_where_main_left_it() {
    forked(2, 1);
}

#[test]
fn a_timeline_of_mains_with_the_same_number_is_another() {
    forked(1, 2);
}

/// Rows that a client was told are committed, on both; then alpha dies. Those of alpha.
async fn writes_on_both(parted: &Parted) -> BTreeSet<i64> {
    let mut told = BTreeSet::new();
    for row in 1..=20 {
        for (node, own) in [(ALPHA, -row), (BETA, 100_000 + row)] {
            let sql = format!("INSERT INTO t VALUES ({own}, 'of {node}')");
            parted.pair.sandbox.psql(node, &sql).await.unwrap();
        }
        told.insert(-row);
    }
    parted.kill_alpha().await;
    told
}

/// Where the two lines parted, and whether pg_rewind may be used.
fn diverged(lineage: &Lineage) -> (PartedAt, Result<(), String>) {
    match &lineage.verdict {
        Verdict::Diverged { parted, by_rewind } => Some((*parted, by_rewind.clone())),
        _ => None,
    }
    .unwrap_or_else(|| unreachable!("{lineage:?}"))
}

/// Where alpha's directory and beta parted, how many rows its log has from there on, and what pg_rewind is trusted with.
async fn parting(parted: &Parted, told: &BTreeSet<i64>) -> (Lsn, Result<(), String>) {
    let lineage = parted.lineage().await;
    let (found, by_rewind) = diverged(&lineage);
    assert!(found.exact, "{lineage:?}");
    let fork = parted.pair.alpha.fork(lineage.timeline, found.switchpoint, LIMIT).await.unwrap();
    assert_eq!(fork.committed, told.len() as u64, "{fork:?}");
    let rows: u64 = fork.relations.iter().filter(|it| !it.is_catalog()).map(|it| it.inserts).sum();
    assert_eq!(rows, told.len() as u64);
    (found.switchpoint, by_rewind)
}

/// The rows in the output of a salvage of what was kept, which is noted there.
async fn salvaged(parted: &Parted, kept: &std::path::Path) -> BTreeSet<i64> {
    parted.salvaged(kept).await;
    assert!(kept.join("salvaged.json").is_file());
    let csv = parted.node().folder.join("salvaged/postgres.public.t.inserts.csv");
    let csv = fs::read_to_string(csv).unwrap();
    csv.lines().skip(1).map(|line| line.split_once(',').unwrap().0.parse().unwrap()).collect()
}

#[test]
fn what_was_promoted_by_hand_beside_main_parted_there_and_is_rewound() {
    on_one_thread(async {
        let parted = Parted::following().await;
        parted.alpha_follows().await;
        let promotion = parted.pair.alpha.promote().await.unwrap();
        let told = writes_on_both(&parted).await;
        let (switchpoint, by_rewind) = parting(&parted, &told).await;
        assert_eq!((switchpoint, by_rewind), (promotion.switchpoint, Ok(())));

        let kept = parted.pair.alpha.keep_copy(&parted.request(1), &|_| {}).await.unwrap();
        assert_eq!(parted.rewind().await, Ok(Rewind::Rewound));
        assert_eq!(parted.lineage().await.verdict, Verdict::SameLine);
        parted.comes_back().await;
        assert_eq!(salvaged(&parted, &kept.folder).await, told);
    });
}

#[test]
fn two_promotions_at_the_same_place_to_the_same_number_are_told_apart_where_pg_rewind_sees_one() {
    on_one_thread(async {
        let parted = Parted::following().await;
        // as one that a leftover recovery_target promotes before it has heard of main's timeline
        is_promoted(&parted.pair.alpha).await;
        let told = writes_on_both(&parted).await;
        let main = parted.pair.beta.main_lineage().await.unwrap();
        let (switchpoint, by_rewind) = parting(&parted, &told).await;
        assert_eq!(switchpoint, main.history[0].switchpoint);
        assert!(by_rewind.is_err());
        assert_eq!(parted.rewind().await, Ok(Rewind::NotNeeded), "why it is not trusted");

        let kept = parted.base_backup(&parted.pair.alpha, &parted.request(1)).await.unwrap();
        parted.comes_back().await;
        assert_eq!(salvaged(&parted, &kept.folder).await, told);
        assert_eq!(
            parted.pair.alpha.prune_kept(&parted.request(1).into, 0, None).await.unwrap(),
            [kept.folder]
        );
    });
}

#[test]
fn a_standby_that_was_started_as_a_main_parted_in_the_middle_of_a_timeline() {
    on_one_thread(async {
        let parted = Parted::following().await;
        parted.alpha_follows().await;
        let alpha = &parted.pair.alpha;
        alpha.stop(StopMode::Fast).await.unwrap();
        let before = parted.lineage().await;
        assert_eq!(before.verdict, Verdict::SameLine);
        fs::remove_file(parted.data_dir().join("standby.signal")).unwrap();
        alpha.start().await.unwrap();
        let told = writes_on_both(&parted).await;
        let (switchpoint, by_rewind) = parting(&parted, &told).await;
        assert_eq!(switchpoint, before.end);
        assert!(by_rewind.is_err());

        let kept = parted.base_backup(alpha, &parted.request(1)).await.unwrap();
        assert_eq!(
            alpha.prune_kept(&parted.request(1).into, 0, None).await.unwrap(),
            [] as [std::path::PathBuf; 0]
        );
        parted.comes_back().await;
        assert_eq!(salvaged(&parted, &kept.folder).await, told);
    });
}
