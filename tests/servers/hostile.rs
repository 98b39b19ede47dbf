//! What the owner of a database, who is no superuser, can set and make for sessions that are a superuser's.

use interrex::sandbox::{ALPHA, BETA};
use interrex_actors::ports::PostgresPort as _;
use interrex_events::{
    PostgresStatus,
    cluster_events::{StoreError, is_there, migrate},
};

use crate::pair::{Pair, on_one_thread};

/// Everything that an owner may set, and that would keep our sessions from what they are for.
const SETTINGS: [&str; 14] = [
    "default_transaction_isolation = 'serializable'",
    "default_transaction_read_only = on",
    "default_transaction_deferrable = on",
    "statement_timeout = '1ms'",
    "lock_timeout = '1ms'",
    "idle_session_timeout = '1ms'",
    "idle_in_transaction_session_timeout = '1ms'",
    "exit_on_error = on",
    "search_path = 'nowhere'",
    "quote_all_identifiers = on",
    "datestyle = 'German'",
    "client_encoding = 'LATIN1'",
    "default_tablespace = 'nowhere'",
    "local_preload_libraries = 'nowhere'",
];

#[test]
fn what_an_owner_sets_for_a_database_does_not_hold_for_us() {
    on_one_thread(async {
        let pair = Pair::start().await;
        let owner = "CREATE ROLE mallory; ALTER DATABASE postgres OWNER TO mallory";
        pair.sandbox.psql(ALPHA, owner).await.unwrap();
        let here = pair.sandbox.session(ALPHA, "template1").await.unwrap();
        here.batch_execute("SET SESSION AUTHORIZATION mallory").await.unwrap();
        for setting in SETTINGS.into_iter().chain(["role = 'mallory'"]) {
            here.batch_execute(&format!("ALTER DATABASE postgres SET {setting}")).await.unwrap();
        }
        let end = here.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await.unwrap();
        pair.beta_has(end.try_get::<_, &str>(0).unwrap().parse().unwrap()).await;
        // their sessions were open before; these are new
        for (node, status) in [(ALPHA, PostgresStatus::Primary), (BETA, PostgresStatus::Streaming)] {
            let anew = pair.again(node);
            let measured = anew.measure().await;
            assert_eq!(measured.facts.status, status, "{:?}", measured.facts);
        }
        let main = pair.again(ALPHA);
        main.prove_write(interrex_events::Epoch(1)).await.unwrap();
        assert!(main.sanitise().await.unwrap().is_empty());
        let read_only = main.read_only_settings().await.unwrap();
        assert_eq!(read_only[0].undone_by, "ALTER DATABASE postgres RESET default_transaction_read_only");
    });
}

#[test]
fn what_an_owner_makes_under_our_names_is_not_used_and_cluster_config_has_its_one_row_for_good() {
    on_one_thread(async {
        let pair = Pair::start().await;
        let sandbox = &pair.sandbox;
        sandbox.psql(ALPHA, "CREATE ROLE mallory").await.unwrap();
        for database in ["trap", "path"] {
            sandbox.psql(ALPHA, &format!("CREATE DATABASE {database} OWNER mallory")).await.unwrap();
        }
        let mut trap = sandbox.session(ALPHA, "trap").await.unwrap();
        let made = "SET SESSION AUTHORIZATION mallory; CREATE SCHEMA interrex; \
                    CREATE VIEW interrex.schema_version AS SELECT 1 AS version; RESET SESSION AUTHORIZATION";
        trap.batch_execute(made).await.unwrap();
        let refused = migrate(&mut trap).await.unwrap_err();
        assert!(
            matches!(&refused, StoreError::StrangeSchema { what, owner }
            if what == "schema interrex" && owner == "mallory"),
            "{refused}"
        );
        // the schema alone given back is not enough
        trap.batch_execute("ALTER SCHEMA interrex OWNER TO interrex").await.unwrap();
        let refused = is_there(&trap).await.unwrap_err();
        assert!(
            matches!(&refused, StoreError::StrangeSchema { what, .. } if what == "interrex.schema_version"),
            "{refused}"
        );

        // a list of names for PostgreSQL, and three statements where it is said again as it is
        let path = "public;ALTER/**/ROLE/**/mallory/**/SUPERUSER;--";
        let mut here = sandbox.session(ALPHA, "path").await.unwrap();
        let set = format!(
            "SELECT set_config('search_path', '{path}', false); ALTER DATABASE path SET search_path FROM CURRENT"
        );
        here.batch_execute(&set).await.unwrap();
        migrate(&mut here).await.unwrap();
        let superuser = "SELECT rolsuper::text FROM pg_roles WHERE rolname = 'mallory'";
        assert_eq!(sandbox.psql_value(ALPHA, superuser).await.unwrap(), "false");

        here.batch_execute("INSERT INTO interrex.cluster_state (main_role, epoch) VALUES ('main', 1)")
            .await
            .unwrap();
        for change in
            ["DELETE FROM interrex.cluster_config", "INSERT INTO interrex.cluster_config (epoch) VALUES (2)"]
        {
            let error = here.batch_execute(change).await.unwrap_err();
            assert_eq!(
                error.code().map(tokio_postgres::error::SqlState::code),
                Some("0A000"),
                "{change}: {error}"
            );
        }
        let row = here.query_one("SELECT epoch FROM interrex.cluster_config", &[]).await.unwrap();
        assert_eq!(row.try_get::<_, i64>(0).unwrap(), 1);
    });
}
