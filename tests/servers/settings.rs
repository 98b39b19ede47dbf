//! Settings that a new main must not have: what is the server's own is cleared, what is a database's or a role's stays.

use std::{path::Path, time::Duration};

use interrex::sandbox::{ALPHA, BETA, until};
use interrex_actors::ports::{PostgresPort as _, StopMode};
use interrex_adapters::runtime::RunAs;
use interrex_events::Epoch;

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
        let words = refused.unwrap_err().to_string();
        assert!(words.contains("default_transaction_read_only is `on` on the command line"), "{words}");

        pair.beta.stop(StopMode::Fast).await.unwrap();
        pair.beta.start().await.unwrap();
        assert_eq!(pair.beta.sanitise().await, Ok(Vec::new()), "the supervisor starts it without");
    });
}
