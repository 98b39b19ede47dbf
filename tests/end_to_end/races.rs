//! Three nodes, main dies, and more than one node may want the role: one gets it at most, and all nodes agree which.
//!
//! `INTERREX_RACES` is the number of tries of each race: 3 by default, 30 in `bin/test --long`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use interrex::sandbox::{ALPHA, BETA, Done, GAMMA, Sandbox, until};
use interrex_actors::wire::NodeReport;
use interrex_events::{Epoch, Event, NodeId, PostgresStatus};
use interrex_projections::NodeStatus;
use interrex_tests::run;

use crate::{promotion::promote_on, two_nodes};

const LIMIT: Duration = Duration::from_secs(60);

fn tries() -> usize {
    std::env::var("INTERREX_RACES").ok().and_then(|tries| tries.parse().ok()).unwrap_or(3)
}

async fn three_nodes(automatic: bool) -> Done<Sandbox> {
    let sandbox = two_nodes().nodes(3).build().await?;
    for node in [ALPHA, BETA, GAMMA] {
        sandbox.set_config(node, "failover.auto_failover_enabled", automatic)?;
    }
    Ok(sandbox)
}

async fn started(sandbox: &Sandbox) -> Done<()> {
    sandbox.start().await?;
    for node in [ALPHA, BETA, GAMMA] {
        sandbox.wait_healthy(node).await?;
    }
    Ok(())
}

/// Both secondaries take writes at no moment until `ends`. The moments that were looked at.
async fn never_two(sandbox: &Sandbox, ends: Arc<AtomicBool>) -> usize {
    let mut looks = 0;
    while !ends.load(Ordering::Relaxed) {
        let both = tokio::join!(sandbox.takes_writes(BETA), sandbox.takes_writes(GAMMA));
        assert_ne!(both, (true, true), "two nodes take writes");
        looks += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    looks
}

/// What is done, while a look every 20 ms finds two mains at no time.
async fn watched<T>(sandbox: &Sandbox, doing: impl Future<Output = Done<T>>) -> Done<T> {
    let ends = Arc::new(AtomicBool::new(false));
    let done = async {
        let done = doing.await;
        ends.store(true, Ordering::Relaxed);
        done
    };
    let (done, looks) = tokio::join!(done, never_two(sandbox, ends.clone()));
    assert!(looks > 0);
    done
}

/// Both living nodes hold the same one to be main of epoch 2; it serves, and the other one follows it.
async fn agreed(sandbox: &Sandbox) -> Done<NodeId> {
    let settled =
        |report: &NodeReport| report.healthy && report.epoch == Epoch(2) && report.main != Some(ALPHA);
    let main = sandbox.wait_health(BETA, "settled", settled).await?.main;
    assert_eq!(sandbox.wait_health(GAMMA, "settled", settled).await?.main, main);
    let main = main.unwrap();
    let other = if main == BETA { GAMMA } else { BETA };
    sandbox.wait_streaming(main, other).await?;
    assert!(sandbox.takes_writes(main).await && !sandbox.takes_writes(other).await);
    Ok(main)
}

/// Whether its PostgreSQL was ever seen as a primary.
fn was_primary(sandbox: &Sandbox, node: NodeId) -> Done<bool> {
    let is_primary = |event: &Event| matches!(event, Event::PostgresChanged(changed) if changed.status == PostgresStatus::Primary);
    Ok(sandbox.events(node)?.iter().any(|envelope| is_primary(&envelope.event)))
}

#[test]
fn of_two_automatic_secondaries_the_candidate_alone_takes_the_role() {
    for _ in 0..tries() {
        run(async {
            let sandbox = three_nodes(true).await?;
            started(&sandbox).await?;
            watched(&sandbox, async {
                sandbox.kill_everything_of(ALPHA);
                assert_eq!(agreed(&sandbox).await?, BETA);
                Ok(())
            })
            .await?;
            assert!(!was_primary(&sandbox, GAMMA)?, "gamma was a primary");
            Ok(())
        });
    }
}

#[test]
fn of_two_operators_who_promote_at_the_same_time_one_succeeds_and_all_agree() {
    for _ in 0..tries() {
        run(async {
            let sandbox = three_nodes(false).await?;
            started(&sandbox).await?;
            watched(&sandbox, async {
                sandbox.kill_everything_of(ALPHA);
                for node in [BETA, GAMMA] {
                    sandbox.wait_main_silent(node).await?;
                }
                let (first, second) =
                    tokio::join!(promote_on(&sandbox, BETA, &[]), promote_on(&sandbox, GAMMA, &[]));
                let (first, second) = (first?, second?);
                let successes = [&first, &second].iter().filter(|said| said.status.success()).count();
                assert_eq!(successes, 1, "{first:?} {second:?}");
                let main = agreed(&sandbox).await?;
                assert_eq!(main == BETA, first.status.success());
                Ok(())
            })
            .await
        });
    }
}

#[test]
fn of_three_nodes_without_a_candidate_no_node_promotes_itself_and_each_says_why() {
    run(async {
        let sandbox = three_nodes(true).await?;
        for node in [ALPHA, BETA, GAMMA] {
            let file = sandbox.node(node)?.config();
            let named = std::fs::read_to_string(&file).unwrap();
            let left: Vec<&str> = named.lines().filter(|line| !line.starts_with("candidate")).collect();
            assert_eq!(left.len() + 1, named.lines().count(), "{named}");
            std::fs::write(&file, left.join("\n")).unwrap();
        }
        started(&sandbox).await?;
        sandbox.kill_everything_of(ALPHA);
        for node in [BETA, GAMMA] {
            let why = |event: &Event| matches!(event, Event::FailoverWithheld(it) if it.detail.contains("failover.candidate"));
            sandbox.wait_event(node, "why it stays", |envelope| why(&envelope.event)).await?;
            assert!(!was_primary(&sandbox, node)?);
        }
        let said = promote_on(&sandbox, GAMMA, &[]).await?;
        assert!(said.status.success(), "{said:?}");
        assert_eq!(agreed(&sandbox).await?, GAMMA);
        Ok(())
    });
}

#[test]
fn of_two_mains_of_one_epoch_the_one_with_the_higher_node_id_fences_itself() {
    run(async {
        let sandbox = three_nodes(false).await?;
        started(&sandbox).await?;
        // beta and gamma are promoted while the other one's supervisor is gone
        sandbox.kill_everything_of(ALPHA);
        for (node, other) in [(BETA, GAMMA), (GAMMA, BETA)] {
            sandbox.kill_supervisor(other);
            if sandbox.supervisor_pid(node).is_none() {
                sandbox.start_supervisor(node)?;
            }
            let silent = |report: &NodeReport| report.main == Some(ALPHA);
            sandbox.wait_health(node, "it holds alpha to be main", silent).await?;
            let said = promote_on(&sandbox, node, &["--force", "--reason", "alpha is dead"]).await?;
            assert!(said.status.success(), "{said:?}");
        }
        assert!(sandbox.takes_writes(BETA).await && sandbox.takes_writes(GAMMA).await);
        sandbox.start_supervisor(BETA)?;
        let fenced = |report: &NodeReport| report.status == NodeStatus::Fenced;
        let report = sandbox.wait_health(GAMMA, "fenced", fenced).await?;
        assert_eq!((report.main, report.epoch), (Some(BETA), Epoch(2)));
        until("gamma takes no writes, and beta does", LIMIT, || async {
            match (sandbox.takes_writes(BETA).await, sandbox.takes_writes(GAMMA).await) {
                (true, false) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    });
}
