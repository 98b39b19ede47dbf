//! Settings that a new main must not have: what is the server's own is cleared, what is a database's or a role's stays.

use std::{path::Path, time::Duration};

use interrex::sandbox::{ALPHA, BETA, Sandbox, until};
use interrex_actors::ports::{PostgresPort as _, StopMode};
use interrex_adapters::runtime::RunAs;
use interrex_events::{Epoch, cluster_events::migrate};

use crate::pair::{LIMIT, Pair, on_one_thread};

/// A step that waits for what never comes would take longer.
const AT_ONCE: Duration = Duration::from_secs(1);

#[test]
fn what_the_server_has_is_cleared_and_a_database_or_role_that_is_read_only_stays_so_and_hinders_nothing() {
    on_one_thread(async {
        let pair = Pair::start().await;
        let settings = [
            "CREATE ROLE reporting",
            "ALTER ROLE reporting SET default_transaction_read_only = on",
            "ALTER ROLE reporting IN DATABASE template1 SET default_transaction_read_only = on",
            "ALTER ROLE interrex SET default_transaction_read_only = on",
            "ALTER DATABASE postgres SET default_transaction_read_only = yes",
        ];
        pair.sandbox.psql(ALPHA, &settings.join(";")).await.unwrap();
        until("they have arrived", LIMIT, async || {
            let found = pair.beta.read_only_settings().await.map_err(|error| error.to_string())?;
            if found.len() == 4 { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await
        .unwrap();
        for setting in ["default_transaction_read_only = 'true'", "synchronous_standby_names = 'gamma'"] {
            pair.sandbox.psql(BETA, &format!("ALTER SYSTEM SET {setting}")).await.unwrap();
        }
        pair.sandbox.psql(BETA, "SELECT pg_reload_conf()").await.unwrap();

        assert_eq!(pair.beta.hindrances().await, Ok(Vec::new()));
        let cleared = tokio::time::timeout(AT_ONCE, pair.beta.sanitise()).await.unwrap().unwrap();
        assert_eq!(
            cleared,
            ["default_transaction_read_only (was `true`)", "synchronous_standby_names (was `gamma`)"]
        );
        let names = pair.sandbox.psql_value(BETA, "SHOW synchronous_standby_names").await.unwrap();
        assert_eq!((names.as_str(), pair.beta.sanitise().await), ("", Ok(Vec::new())));

        pair.beta.promote().await.unwrap();
        pair.beta.prove_write(Epoch(2)).await.unwrap();
        let found = pair.beta.read_only_settings().await.unwrap();
        let told: Vec<(bool, &str)> =
            found.iter().map(|setting| (setting.every_role, setting.undone_by.as_str())).collect();
        assert_eq!(
            told,
            [
                (true, "ALTER DATABASE postgres RESET default_transaction_read_only"),
                (false, "ALTER ROLE interrex RESET default_transaction_read_only"),
                (false, "ALTER ROLE reporting IN DATABASE template1 RESET default_transaction_read_only"),
                (false, "ALTER ROLE reporting RESET default_transaction_read_only"),
            ]
        );
    });
}

#[test]
fn what_the_command_line_has_is_told_at_once() {
    on_one_thread(async {
        let pair = Pair::start().await;
        pair.beta.stop(StopMode::Fast).await.unwrap();
        let node = pair.sandbox.node(BETA).unwrap();
        let run_as = RunAs::resolve(None, Path::new(&node.data_dir())).unwrap();
        let mut by_hand = run_as.command(pair.sandbox.postgres_programs().join("pg_ctl"));
        by_hand.arg("-D").arg(node.data_dir()).arg("-l").arg(node.postgres_log());
        by_hand.args(["-w", "-s", "-o", "-c default_transaction_read_only=on", "start"]);
        assert!(by_hand.status().await.unwrap().success());

        assert_eq!(pair.beta.hindrances().await.unwrap().len(), 1);
        let refused = tokio::time::timeout(AT_ONCE, pair.beta.sanitise()).await.unwrap();
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("default_transaction_read_only is `on` on the command line"), "{message}");

        pair.beta.stop(StopMode::Fast).await.unwrap();
        pair.beta.start().await.unwrap();
        assert_eq!(pair.beta.sanitise().await, Ok(Vec::new()), "the supervisor starts it without");
    });
}

#[test]
fn the_search_path_that_applications_live_by_is_kept() {
    on_one_thread(async {
        let sandbox = Sandbox::builder("/bin/false").nodes(1).postgres_only().build().await.unwrap();
        sandbox.start_postgres(ALPHA).await.unwrap();
        for (database, before, wanted) in [
            ("plain", "SELECT 1", "\"$user\", public, interrex"),
            ("of_its_own", "ALTER DATABASE of_its_own SET search_path = ''", "interrex"),
            ("of_the_file", "ALTER SYSTEM SET search_path = app, public", "app, public, interrex"),
        ] {
            sandbox.psql(ALPHA, &format!("CREATE DATABASE {database}")).await.unwrap();
            sandbox.psql(ALPHA, before).await.unwrap();
            sandbox.psql(ALPHA, "SELECT pg_reload_conf()").await.unwrap();
            migrate(&mut sandbox.session(ALPHA, database).await.unwrap()).await.unwrap();
            let session = sandbox.session(ALPHA, database).await.unwrap();
            let row = session.query_one("SHOW search_path", &[]).await.unwrap();
            assert_eq!(row.try_get::<_, &str>(0).unwrap(), wanted);
        }
    });
}
