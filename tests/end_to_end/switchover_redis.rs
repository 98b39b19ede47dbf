//! Redis follows the role, or is kept: a switchover never waits for it, and never loses what it has in silence.

use interrex::sandbox::{ALPHA, BETA, Done, Sandbox};
use interrex_actors::wire::NodeReport;
use interrex_events::{Event, NodeId, RedisStatus, StepId};
use interrex_projections::RunEnd;
use interrex_tests::run;
use rustix::process::Signal;

use crate::{
    checks::session,
    switchover::{LIMIT, ended, switch},
    two_nodes,
};

#[test]
fn an_old_redis_is_no_second_master_for_long_and_what_only_it_has_is_kept() {
    run(async {
        let sandbox = two_nodes().build().await?;
        sandbox.start().await?;
        for node in [ALPHA, BETA] {
            sandbox.wait_healthy(node).await?;
        }
        let said = switch(&sandbox, ALPHA, "beta", &["--drain", "0s"]).await?;
        assert!(said.status.success(), "{said:?}");
        let linked = |report: &NodeReport| report.redis.status == RedisStatus::Linked;
        sandbox.wait_health(ALPHA, "its Redis is a replica", linked).await?;

        // as one that hung while its role moved, and a client that has not heard of the change of main
        sandbox.redis(ALPHA, &["REPLICAOF", "NO", "ONE"]).await?;
        sandbox.redis(ALPHA, &["SET", "only", "alpha"]).await?;
        sandbox.redis(BETA, &["SET", "only", "beta"]).await?;
        redis_alarm(&sandbox, ALPHA, "a second master, although beta is main").await?;
        redis_alarm(&sandbox, ALPHA, "what it had is kept in").await?;
        sandbox.wait_health(ALPHA, "its Redis is a replica", linked).await?;
        assert_eq!(sandbox.redis(ALPHA, &["GET", "only"]).await?, "beta");
        assert!(sandbox.redis(ALPHA, &["INFO", "replication"]).await?.contains("role:slave"));
        let kept = sandbox.node(ALPHA)?.redis_dir().with_extension("kept");
        let kept: Vec<_> = std::fs::read_dir(kept).unwrap().map(|entry| entry.unwrap().path()).collect();
        let [kept] = &kept[..] else { panic!("{kept:?}") };
        let log = kept.join("appendonlydir");
        let has_it = std::fs::read_dir(log).unwrap().any(|file| {
            let text = std::fs::read(file.unwrap().path()).unwrap();
            String::from_utf8_lossy(&text).contains("alpha")
        });
        assert!(has_it, "what only alpha had is not in {kept:?}");
        sandbox.wait_healthy(ALPHA).await?;

        // as the loser of a race that was left behind an old main
        let nobody = sandbox.spare_port(0).to_string();
        sandbox.redis(ALPHA, &["REPLICAOF", "127.0.0.1", &nobody]).await?;
        redis_alarm(&sandbox, ALPHA, &format!("it follows 127.0.0.1:{nobody}, and not the Redis of beta"))
            .await?;
        sandbox.wait_healthy(ALPHA).await.map(drop)
    });
}

/// Waits for an alarm about a node's Redis.
async fn redis_alarm(sandbox: &Sandbox, node: NodeId, message: &str) -> Done<()> {
    let tells = |event: &Event| matches!(event, Event::RedisChanged(changed) if changed.alarm && changed.detail.contains(message));
    sandbox.wait_event(node, message, |envelope| tells(&envelope.event)).await.map(drop)
}

#[test]
fn a_redis_that_refuses_to_change_places_is_told_and_what_it_has_is_kept() {
    run(async {
        let sandbox = two_nodes().threshold(2 * LIMIT).build().await?;
        sandbox.start().await?;
        for node in [ALPHA, BETA] {
            sandbox.wait_healthy(node).await?;
        }
        // forbidden once the switchover has looked at it
        let open = session(&sandbox, ALPHA).await?;
        open.batch_execute("BEGIN; SELECT 1").await.unwrap();
        let forbids = async {
            let drains = |event: &Event| matches!(event, Event::StepStarted(it) if it.step == StepId::Drain);
            sandbox.wait_event(ALPHA, "it drains", |envelope| drains(&envelope.event)).await?;
            sandbox.redis(ALPHA, &["ACL", "SETUSER", "default", "-failover"]).await?;
            let refused = |event: &Event| {
                matches!(event, Event::StepFinished(it) if it.step == StepId::HandOverRedis && it.detail.contains("no permissions")
                    && it.detail.contains("takes no writes"))
            };
            sandbox.wait_event(ALPHA, "it is refused", |envelope| refused(&envelope.event)).await?;
            // nobody hears that it was written: it waits, until Redis here ends
            Done::Ok(sandbox.redis(ALPHA, &["SET", "acknowledged", "by alpha"]).await.is_ok())
        };
        let (said, acknowledged) = tokio::join!(switch(&sandbox, ALPHA, "beta", &["--drain", "1s"]), forbids);
        assert!(!acknowledged?, "a write was acknowledged that nobody has");
        let said = said?;
        let message =
            String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
        assert!(said.status.success() && message.contains("salvage --kept-redis"), "{message}");
        for (node, step) in [(ALPHA, StepId::HandOverRedis), (BETA, StepId::PromoteRedis)] {
            let half = ended(&sandbox, node).await?;
            assert_eq!((half.end, half.degraded), (RunEnd::CompletedDegraded, vec![step]), "{message}");
        }
        assert!(sandbox.node(ALPHA)?.redis_dir().with_extension("kept").is_dir());
        for node in [ALPHA, BETA] {
            sandbox.wait_healthy(node).await?;
        }
        Ok(())
    });
}

#[test]
fn a_redis_whose_commands_are_renamed_is_found_before_anything_is_stopped() {
    run(async {
        let sandbox = two_nodes().threshold(2 * LIMIT).build().await?;
        let file = sandbox.node(BETA)?.redis_dir().join("redis.conf");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text + "\nrename-command CONFIG \"\"\n").unwrap();
        sandbox.start().await?;
        let said = switch(&sandbox, ALPHA, "beta", &["--drain", "0s"]).await?;
        let message =
            String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
        assert!(!said.status.success() && message.contains("CONFIG is renamed or disabled"), "{message}");
        assert_eq!(ended(&sandbox, ALPHA).await?.end, RunEnd::Refused);
        assert!(sandbox.takes_writes(ALPHA).await);
        let examined = sandbox.doctor(ALPHA).await?;
        assert!(examined.wrong().contains(&("redis_commands", Some(BETA))), "{:?}", examined.wrong());
        Ok(())
    });
}

#[test]
fn a_redis_that_hangs_does_not_keep_the_role_from_moving() {
    run(async {
        let sandbox = two_nodes().build().await?;
        sandbox.start().await?;
        for node in [ALPHA, BETA] {
            sandbox.wait_healthy(node).await?;
        }
        // it hangs once the switchover has looked at it
        let open = session(&sandbox, ALPHA).await?;
        open.batch_execute("BEGIN; SELECT 1").await.unwrap();
        let hang = async {
            let drains = |event: &Event| matches!(event, Event::StepStarted(it) if it.step == StepId::Drain);
            sandbox.wait_event(ALPHA, "it drains", |envelope| drains(&envelope.event)).await?;
            Done::Ok(sandbox.signal_redis(ALPHA, Signal::STOP))
        };
        let (said, hung) = tokio::join!(switch(&sandbox, ALPHA, "beta", &["--drain", "2s"]), hang);
        assert_eq!(hung?, 1, "{said:?}");
        let is_main =
            |report: &NodeReport| report.main == Some(BETA) && report.redis.status == RedisStatus::Master;
        sandbox.wait_health(BETA, "it is main, with its Redis", is_main).await?;
        sandbox.signal_redis(ALPHA, Signal::CONT);
        let linked = |report: &NodeReport| report.redis.status == RedisStatus::Linked;
        sandbox.wait_health(ALPHA, "its Redis is a replica", linked).await?;
        assert_eq!(sandbox.psql_value(BETA, "SELECT pg_is_in_recovery()").await?, "f");
        sandbox.wait_streaming(BETA, ALPHA).await
    });
}
