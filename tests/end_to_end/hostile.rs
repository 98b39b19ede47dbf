//! The owner of every database, the supervisors' own among them, overloads what our SQL calls; roles and databases have names
//! that are no UTF-8. No code of that owner runs as a superuser, and no name is in the way of anything.

use std::{path::PathBuf, time::Duration};

use interrex::sandbox::{ALPHA, BETA, Done, Sandbox, until};
use interrex_events::NodeId;
use interrex_tests::run;

use crate::{bad_input::interrex_with, checks::has_its_own_tables, switchover::switch, two_nodes};

const LIMIT: Duration = Duration::from_secs(60);

/// Functions, with arguments that fit ours better than PostgreSQL's own do, or as well where `public` comes first.
const FUNCTIONS: [&str; 24] = [
    "concat(name, text, text)",
    "concat(name, text, text, text, text)",
    "concat(text, text, text, text, text)",
    "concat_ws(text, text, text)",
    "concat_ws(text, text, int, text, text)",
    "format(text, name)",
    "format(text, text)",
    "format(text, name, name)",
    "format(text, bigint, bigint, bigint)",
    "format(text, bigint, bigint, text)",
    "quote_ident(name)",
    "quote_ident(text)",
    "current_database()",
    "lower(text)",
    "encode(bytea, text)",
    "textsend(text)",
    "to_regclass(text)",
    "to_regnamespace(text)",
    "json_build_object(text, name, text, boolean)",
    "json_build_object(text, text, text, bigint)",
    "pg_relation_filenode(regclass)",
    "pg_filenode_relation(oid, oid)",
    "pg_walfile_name(pg_lsn)",
    "has_function_privilege(text, text)",
];

/// Operators, by their arguments.
const OPERATORS: [(&str, &str, &str); 6] = [
    ("||", "name", "text"),
    ("||", "text", "name"),
    ("||", "text", "int"),
    ("~", "name", "text"),
    ("-", "pg_lsn", "pg_lsn"),
    ("/", "bigint", "numeric"),
];

/// What is left behind by whichever of these a superuser runs, even where nothing may be written to tables.
pub(crate) struct Planted(PathBuf);

impl Planted {
    /// In `public` of every database, by a role that owns all of them and is no superuser.
    pub(crate) async fn in_every_database(sandbox: &Sandbox) -> Done<Self> {
        let Self(trace) = Self::before(sandbox)?;
        let role = "CREATE ROLE mallory; ALTER DATABASE postgres OWNER TO mallory; \
                    ALTER DATABASE postgres SET search_path = public, pg_catalog, interrex";
        sandbox.psql(ALPHA, role).await?;
        sandbox.psql(ALPHA, "CREATE DATABASE shop OWNER mallory").await?;
        sandbox.psql(ALPHA, "ALTER DATABASE shop SET search_path = public, pg_catalog").await?;
        for database in ["postgres", "shop"] {
            sandbox.session(ALPHA, database).await?.batch_execute(&attack(&trace)).await.unwrap();
        }
        // it does work on a session that is opened in another way
        let unaware = "SELECT concat('a'::name, 'b'::text, 'c'::text)";
        sandbox.session(ALPHA, "shop").await?.batch_execute(unaware).await.unwrap();
        std::fs::remove_file(&trace).unwrap();
        sandbox.psql(ALPHA, "ALTER ROLE mallory NOSUPERUSER").await?;
        Ok(Self(trace))
    }

    /// What was planted in this sandbox.
    pub(crate) fn before(sandbox: &Sandbox) -> Done<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        // the servers' user writes there: the node's own folder may be root's alone
        let folder = sandbox.node(ALPHA)?.data_dir().with_file_name("attack");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
        Ok(Self(folder.join("taken_in")))
    }

    /// No code of the owner ran.
    pub(crate) async fn took_in_no_session(&self, sandbox: &Sandbox, main: NodeId) -> Done<()> {
        let told = std::fs::read_to_string(&self.0).unwrap_or_default();
        assert!(!self.0.exists(), "a superuser ran {told}");
        let superuser = "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = 'mallory'";
        assert_eq!(sandbox.psql_value(main, superuser).await?, "f");
        Ok(())
    }
}

fn attack(trace: &std::path::Path) -> String {
    let body = |what: &str| {
        let what = what.replace('\'', "");
        format!(
            "LANGUAGE plpgsql AS $$ BEGIN \
               BEGIN COPY (SELECT '{what}') TO '{}'; EXCEPTION WHEN OTHERS THEN NULL; END; \
               BEGIN ALTER ROLE mallory SUPERUSER; EXCEPTION WHEN OTHERS THEN NULL; END; \
               RETURN NULL; END $$",
            trace.display()
        )
    };
    let functions = FUNCTIONS.iter().map(|function| {
        let returns = match *function {
            it if it.starts_with("json") => "json",
            it if it.starts_with("has_") => "boolean",
            it if it.starts_with("textsend") => "bytea",
            _ => "text",
        };
        format!("CREATE FUNCTION public.{function} RETURNS {returns} {};", body(function))
    });
    let operators = OPERATORS.iter().enumerate().map(|(number, (name, left, right))| {
        let returns = if *name == "~" { "boolean" } else { "text" };
        format!(
            "CREATE FUNCTION public.operator_{number}({left}, {right}) RETURNS {returns} {}; \
             CREATE OPERATOR public.{name} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = public.operator_{number});",
            body(name)
        )
    });
    let view = format!(
        "CREATE FUNCTION public.seen() RETURNS text {}; \
         CREATE VIEW public.pg_file_settings AS SELECT public.seen() AS name, '' AS setting, 1 AS seqno, NULL::text AS error; \
         CREATE VIEW public.pg_replication_slots AS SELECT public.seen() AS slot_name, 'physical' AS slot_type;",
        body("a view")
    );
    let all: String = functions.chain(operators).chain([view]).collect();
    format!(
        "SET SESSION AUTHORIZATION mallory; SET search_path = pg_catalog; {all} RESET SESSION AUTHORIZATION;"
    )
}

/// A role and a database whose names are no UTF-8, as whoever may create a database can make them.
async fn odd_names(sandbox: &Sandbox) -> Done<()> {
    let latin = "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0";
    sandbox.psql(ALPHA, latin).await?;
    let latin = sandbox.session(ALPHA, "latin").await?;
    for sql in [
        "CREATE ROLE \"café\" LOGIN",
        "ALTER ROLE \"café\" SET default_transaction_read_only = on",
        "CREATE DATABASE \"café\"",
    ] {
        latin.batch_execute(sql).await.unwrap();
    }
    until("the standby has them", LIMIT, || async {
        match sandbox.psql_value(BETA, "SELECT count(*) FROM pg_catalog.pg_database").await {
            // postgres, the two templates, and three more
            Ok(count) if count == "6" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// The role is shown, as something that whoever is to know it can read.
async fn doctor_tells_of_them(sandbox: &Sandbox) -> Done<()> {
    for node in [ALPHA, BETA] {
        let examined = sandbox.doctor(node).await?;
        let about = |check: &str| {
            let found = examined.checks.iter().filter(|found| found.check == check);
            found.map(|found| format!("{}; {:?}\n", found.measured, found.fix)).collect::<String>()
        };
        let (read_only, unlogged) = (about("read_only_default"), about("unlogged_tables"));
        assert!(read_only.contains(r"caf\351"), "{read_only}");
        assert!(unlogged.contains(r"database caf\351"), "{unlogged}");
    }
    Ok(())
}

#[test]
fn no_code_of_a_databases_owner_runs_as_a_superuser_and_no_name_is_in_the_way() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        sandbox.start().await?;
        has_its_own_tables(&sandbox, ALPHA).await?;
        let planted = Planted::in_every_database(&sandbox).await?;
        odd_names(&sandbox).await?;
        doctor_tells_of_them(&sandbox).await?;
        planted.took_in_no_session(&sandbox, ALPHA).await?;

        let switched = switch(&sandbox, ALPHA, "beta", &["--drain", "0s"]).await?;
        assert!(switched.status.success(), "{switched:?}");
        sandbox.wait_streaming(BETA, ALPHA).await?;
        let config = sandbox.node(ALPHA)?.config();
        let read = interrex_with(&["events", "--cluster-events", "--config", &config.to_string_lossy()], &[])
            .unwrap();
        assert!(read.status.success(), "{read:?}");
        planted.took_in_no_session(&sandbox, BETA).await?;

        sandbox.kill_everything_of(BETA);
        until("alpha serves again", LIMIT, || async {
            if sandbox.takes_writes(ALPHA).await { Ok(()) } else { Err("it does not".to_owned()) }
        })
        .await?;
        planted.took_in_no_session(&sandbox, ALPHA).await?;
        sandbox.teardown()
    });
}
