//! With real servers, but without supervisors: those are tested end to end, in the `tests` crate.

use std::{sync::Arc, time::Duration};

use interrex_actors::env::{Env as _, SystemEnv};

use super::*;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_pair_streams_is_killed_and_promoted_and_leaves_nothing_behind() {
    let sandbox = Sandbox::builder("/bin/false").postgres_only().build().await.unwrap();
    let folder = sandbox.folder().to_owned();
    sandbox.start_postgres(ALPHA).await.unwrap();
    sandbox.start_postgres(BETA).await.unwrap();
    sandbox.wait_streaming(ALPHA, BETA).await.unwrap();
    let writer = sandbox.start_writer(200.0).unwrap();
    writer.wait_acknowledged(20, SOON).await.unwrap();
    assert!(sandbox.takes_writes(ALPHA).await && !sandbox.takes_writes(BETA).await);

    let killed_at = sandbox.kill_postgres(ALPHA);
    assert_eq!(sandbox.postmaster_pid(ALPHA), None);
    assert!(sandbox.psql(ALPHA, "SELECT 1").await.is_err());
    sandbox.psql(BETA, "SELECT pg_promote()").await.unwrap();
    let beta = sandbox.node(BETA).unwrap().postgres_port;
    let first = writer.wait_ack_by(beta, killed_at, SOON).await.unwrap();
    let acknowledged = writer.stop();
    let last = acknowledged.0.iter().rfind(|ack| ack.port != beta).unwrap();
    assert!(
        acknowledged.longest_gap_after(killed_at).unwrap().duration()
            >= first.at.monotonic - last.at.monotonic
    );
    // replication is asynchronous: what alpha acknowledged last may be missing, and nothing else
    let lost = sandbox.rows_lost(&acknowledged, BETA).await.unwrap();
    assert!(lost.len() < 10 && lost.iter().all(|id| *id > last.id - 10), "{lost:?}");
    let log = fs::read_to_string(folder.join("acknowledged.log")).unwrap();
    assert_eq!(log.lines().count(), acknowledged.0.len());

    sandbox.teardown().unwrap();
    assert!(!folder.exists());
    assert!(processes::of_folder(&folder).is_empty());
}

#[tokio::test]
async fn a_panic_leaves_nothing_behind_and_sandboxes_do_not_meet() {
    let cache = tempfile::tempdir().unwrap();
    layout_may_be_passed(cache.path());
    let one = Sandbox::builder("/bin/false").postgres_only().cache(cache.path());
    let (one, other) = tokio::join!(one.clone().build(), one.nodes(1).build());
    let (one, other) = (Arc::new(one.unwrap()), other.unwrap());
    one.start_postgres(ALPHA).await.unwrap();
    other.start_postgres(ALPHA).await.unwrap();
    let folder = one.folder().to_owned();
    let panicking = tokio::spawn(async move {
        assert!(one.takes_writes(BETA).await, "nothing was started there");
    });
    assert!(panicking.await.unwrap_err().is_panic());
    assert!(processes::of_folder(&folder).is_empty());
    assert!(!folder.exists());
    assert!(other.takes_writes(ALPHA).await, "the other one goes on");
}

/// The cache must be open to the user that the servers run as.
fn layout_may_be_passed(cache: &Path) {
    programs::set_mode(cache, 0o755).unwrap();
}

#[tokio::test]
async fn waiting_ends_with_what_was_seen_last() {
    let before = SystemEnv.moment();
    let limit = Duration::from_millis(100);
    let late = until("the moon", limit, || async { Err::<(), _>("clouds".to_owned()) }).await.unwrap_err();
    assert_eq!(late.to_string(), "waited 100ms in vain: the moon; last seen: clouds");
    assert!(SystemEnv.moment().ms_since(before) >= 100);
}
