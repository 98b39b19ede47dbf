//! The store among other users of the same database: views, locks, roles and scripts of others.

use std::time::Duration;

use interrex::sandbox::{ALPHA, Done, Sandbox, until};
use interrex_tests::run;

use crate::two_nodes;

const LIMIT: Duration = Duration::from_secs(20);

async fn one_node() -> Done<Sandbox> {
    let sandbox = two_nodes().nodes(1).postgres_only().build().await?;
    sandbox.start().await?;
    wait_value(&sandbox, "SELECT count(*) FROM interrex.projection_checkpoints WHERE state = 'live'", "3").await?;
    Ok(sandbox)
}

async fn wait_value(sandbox: &Sandbox, sql: &str, wanted: &str) -> Done<()> {
    until(sql, LIMIT, || async {
        match sandbox.psql_value(ALPHA, sql).await {
            Ok(found) if found == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// A change of settings goes all the way: asked for, recorded, relayed.
async fn relay_lives(sandbox: &Sandbox, seconds: u32) -> Done<()> {
    sandbox
        .psql(ALPHA, &format!("UPDATE cluster_config SET auto_failover_threshold_seconds = {seconds}"))
        .await?;
    wait_value(sandbox, "SELECT count(*) FROM interrex.settings_requests", "0").await?;
    let stored = format!(
        "SELECT count(*) > 0 FROM cluster_events WHERE kind = 'settings_changed' AND \
         payload::jsonb @? '$.** ? (@ == {})'",
        u64::from(seconds) * 1000
    );
    wait_value(sandbox, &stored, "t").await
}

#[test]
fn views_of_others_upon_a_projection_outlive_its_rebuild_and_so_do_grants() {
    run(async {
        let sandbox = one_node().await?;
        sandbox
            .psql(
                ALPHA,
                "CREATE ROLE grafana; GRANT SELECT ON interrex.cluster_nodes TO grafana; \
                 CREATE VIEW public.board AS SELECT name, role FROM interrex.cluster_nodes",
            )
            .await?;
        sandbox.psql(ALPHA, "UPDATE interrex.projection_checkpoints SET state = 'rebuild'").await?;
        relay_lives(&sandbox, 77).await?;
        wait_value(&sandbox, "SELECT count(*) FROM interrex.projection_checkpoints WHERE state = 'live'", "3").await?;
        assert_eq!(sandbox.psql_value(ALPHA, "SELECT count(*) FROM public.board").await?, "1");
        let may = "SELECT has_table_privilege('grafana', 'interrex.cluster_nodes', 'SELECT')";
        assert_eq!(sandbox.psql_value(ALPHA, may).await?, "t");
        Ok(())
    });
}

#[test]
fn a_long_reader_delays_a_rebuild_and_nothing_else() {
    run(async {
        let sandbox = one_node().await?;
        let reading = sandbox.psql(ALPHA, "BEGIN; SELECT count(*) FROM cluster_nodes; SELECT pg_sleep(25); COMMIT");
        let meanwhile = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            sandbox.psql(ALPHA, "UPDATE interrex.projection_checkpoints SET state = 'rebuild'").await?;
            tokio::time::sleep(Duration::from_secs(2)).await;
            let began = std::time::Instant::now();
            relay_lives(&sandbox, 77).await?;
            println!("the relay took {:?}", began.elapsed());
            assert!(began.elapsed() < Duration::from_secs(12));
            Ok::<_, interrex::sandbox::SandboxError>(())
        };
        let (_, meanwhile) = tokio::join!(reading, meanwhile);
        meanwhile?;
        wait_value(&sandbox, "SELECT count(*) FROM interrex.projection_checkpoints WHERE state = 'live'", "3").await
    });
}

#[test]
fn a_locked_projection_is_late_and_not_paused_for_ever() {
    run(async {
        let sandbox = one_node().await?;
        let generation = "SELECT generation FROM interrex.projection_checkpoints WHERE projection = 'cluster_nodes'";
        let rows = format!("interrex.cluster_nodes_{}", sandbox.psql_value(ALPHA, generation).await?);
        let lock = format!("BEGIN; LOCK TABLE {rows} IN SHARE MODE; SELECT pg_sleep(14); COMMIT");
        let locked = sandbox.psql(ALPHA, &lock);
        let meanwhile = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            sandbox.psql(ALPHA, "UPDATE cluster_config SET auto_failover_threshold_seconds = 66").await
        };
        let (_, meanwhile) = tokio::join!(locked, meanwhile);
        meanwhile?;
        relay_lives(&sandbox, 67).await?;
        let live = "SELECT count(*) FROM interrex.projection_checkpoints WHERE state = 'live'";
        assert_eq!(sandbox.psql_value(ALPHA, live).await?, "3");
        Ok(())
    });
}

#[test]
fn of_a_hundred_changes_at_once_the_last_one_holds() {
    run(async {
        let sandbox = one_node().await?;
        let script = "DO $$ BEGIN FOR i IN 1..100 LOOP \
                      UPDATE cluster_config SET auto_failover_threshold_seconds = 100 + i; END LOOP; END $$";
        sandbox.psql(ALPHA, script).await?;
        wait_value(&sandbox, "SELECT count(*) FROM interrex.settings_requests", "0").await?;
        let shown = "SELECT auto_failover_threshold_seconds FROM cluster_config";
        let count = "SELECT count(*) FROM cluster_events WHERE kind = 'settings_changed'";
        tokio::time::sleep(Duration::from_secs(2)).await;
        let (shown, count) = (sandbox.psql_value(ALPHA, shown).await?, sandbox.psql_value(ALPHA, count).await?);
        assert_eq!((shown.as_str(), count.as_str()), ("200", "100"));
        Ok(())
    });
}

#[test]
fn who_may_only_look_can_neither_change_settings_nor_become_superuser() {
    run(async {
        let sandbox = one_node().await?;
        sandbox.psql(ALPHA, "CREATE ROLE watcher; GRANT pg_monitor TO watcher; GRANT CREATE ON SCHEMA public TO watcher").await?;
        let attack = "SET ROLE watcher; \
            CREATE TYPE public.trick AS ENUM ('x'); \
            CREATE FUNCTION public.become(public.trick) RETURNS boolean LANGUAGE plpgsql AS \
              $$ BEGIN ALTER ROLE watcher SUPERUSER; RETURN false; END $$; \
            CREATE CAST (public.trick AS boolean) WITH FUNCTION public.become(public.trick) AS ASSIGNMENT; \
            CREATE TABLE public.bait (server_role text, main_server_ip text, main_node_id integer, \
              main_postgres_address text, epoch bigint, auto_failover_enabled public.trick, \
              auto_failover_threshold_seconds numeric); \
            CREATE TRIGGER pull BEFORE UPDATE ON public.bait FOR EACH ROW EXECUTE FUNCTION interrex.request_settings(); \
            INSERT INTO public.bait VALUES ('a', 'b', 1, 'c', 1, 'x', 5); \
            UPDATE public.bait SET auto_failover_threshold_seconds = 6";
        let outcome = sandbox.psql(ALPHA, attack).await;
        println!("{outcome:?}");
        let is = "SELECT concat(rolsuper, ' ', (SELECT count(*) FROM cluster_events WHERE kind = 'settings_changed')) \
                  FROM pg_roles WHERE rolname = 'watcher'";
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(sandbox.psql_value(ALPHA, is).await?, "f 0");
        Ok(())
    });
}
