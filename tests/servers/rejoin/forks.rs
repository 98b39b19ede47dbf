//! Three nodes and two promotions, or more: the old main's timeline and the new one's are called as it came.

use interrex::sandbox::ALPHA;
use interrex_actors::{
    ports::{HandoverPort as _, PostgresPort as _, RejoinPort as _, StopMode, Verdict},
    replication::postgres::LocalPostgres,
};
use interrex_events::TimelineId;

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
        let lineage = alpha.lineage_against(&main).await.unwrap();
        assert_eq!([lineage.timeline, main.timeline], [alphas + 1, betas + 1].map(TimelineId));
        // where beta left the first timeline
        let switchpoint = main.history[0].switchpoint;
        let bytes = lineage.end.bytes_ahead_of(switchpoint);
        assert_eq!(lineage.verdict, Verdict::Diverged { switchpoint, bytes });

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
