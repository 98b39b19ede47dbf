//! What only the old main has, saved: a standby is cut off, main goes on, dies, and the standby is promoted.

use std::{
    collections::BTreeMap,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{BufRead as _, BufReader, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use interrex::sandbox::{ALPHA, BETA, Done, Sandbox, SandboxError, until};
use interrex_tests::run;
use serde_json::Value;

use crate::{checks::has_its_own_tables, two_nodes};

const LIMIT: Duration = Duration::from_secs(30);

const BEFORE: &str = r#"
SET search_path = public;
CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, price numeric(8,2),
                     twice numeric GENERATED ALWAYS AS (price * 2) STORED);
INSERT INTO orders (price) VALUES (1), (2), (3);
CREATE TABLE "odd ""table" ("the key" text COLLATE "C", part char(3), v varchar(9), PRIMARY KEY (part, "the key"));
INSERT INTO "odd ""table" VALUES ('old', 'a', 'x');
CREATE TYPE mood AS ENUM ('well', 'not so');
CREATE TABLE kinds (id uuid PRIMARY KEY, j jsonb, b bytea, t timestamptz, n text, e text, a text[], f float8,
                    i interval, m mood, o money);
CREATE TABLE unkeyed (v text);
CREATE TABLE untouched (id int PRIMARY KEY);
INSERT INTO untouched VALUES (1);
CREATE TABLE interrex.of_users (id int PRIMARY KEY);
CREATE TABLE parted (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (100);
CREATE TABLE broken (id int PRIMARY KEY);
INSERT INTO broken VALUES (1);
CREATE UNLOGGED TABLE volatile (id int PRIMARY KEY);
CREATE TABLE lowered (id int PRIMARY KEY, v text);
CREATE UNIQUE INDEX ON lowered (lower(v)) WHERE v <> '';
CREATE ROLE mallory;
CREATE FUNCTION leave_a_trace() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
    BEGIN COPY (SELECT 1) TO '{TRACE}'; EXCEPTION WHEN OTHERS THEN NULL; END;
    RETURN 1; END $$;
CREATE FUNCTION seen(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN public.leave_a_trace(); END $$;
CREATE TABLE watched (id int PRIMARY KEY);
CREATE INDEX ON watched ((seen(1)));
CREATE TABLE counted (id int PRIMARY KEY, v int);
CREATE STATISTICS of_counted ON (v + seen(1)) FROM counted;
ALTER FUNCTION leave_a_trace() OWNER TO mallory;
ALTER FUNCTION seen(int) OWNER TO mallory;
"#;

/// Statements that only the old main gets, each its own transaction unless it says otherwise.
const AFTER: [&str; 18] = [
    "INSERT INTO orders (price) VALUES (10)",
    "INSERT INTO orders (price) VALUES (11.5)",
    "UPDATE orders SET price = 99 WHERE id = 2",
    "DELETE FROM orders WHERE id = 3",
    // the new main will have this one with the same values, and the next with others
    "INSERT INTO untouched VALUES (7)",
    // where a superuser of that name puts its tables unless told otherwise
    "INSERT INTO interrex.of_users VALUES (1), (2)",
    "INSERT INTO parted VALUES (5, 1), (6, 1)",
    r#"INSERT INTO "odd ""table" VALUES (E'it''s \\ "new",\nline', 'a', ''), ('old', 'b', NULL)"#,
    "INSERT INTO unkeyed VALUES ('nobody can tell')",
    "BEGIN; INSERT INTO untouched VALUES (100); ROLLBACK",
    "BEGIN; INSERT INTO untouched VALUES (8); SAVEPOINT s; INSERT INTO untouched VALUES (9); RELEASE s; \
     SAVEPOINT s; INSERT INTO untouched VALUES (101); ROLLBACK TO s; COMMIT",
    r#"INSERT INTO kinds VALUES ('018f0000-0000-7000-8000-000000000001', '{"a": [1, null, "q''\\"]}', '\x00ff27',
       '2026-11-23 10:00:00.123456+05', NULL, '', ARRAY['x,y', NULL, 'NULL', '"'], 0.1::float8 + 0.2,
       '1 mon -3 days 00:00:01.5', 'not so', '12.34')"#,
    "CREATE TABLE public.newer (id int PRIMARY KEY); INSERT INTO newer VALUES (1)",
    "INSERT INTO parted VALUES (50, 1)",
    r"SELECT lo_from_bytea(4711, '\x01')",
    "INSERT INTO lowered VALUES (1, 'X')",
    "INSERT INTO watched VALUES (1)",
    "INSERT INTO counted VALUES (1, 1)",
];

/// A database whose values need not be text, which is rare and old and there.
const ASCII: &str =
    "CREATE DATABASE ascii ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
const ASCII_BEFORE: &str = r#"
CREATE TABLE notes (v text PRIMARY KEY, more text[]);
INSERT INTO notes VALUES (convert_from('\xe9', 'SQL_ASCII'), NULL);
CREATE TABLE fine (id int PRIMARY KEY);
DO $$ BEGIN EXECUTE format('CREATE TABLE %I (id int PRIMARY KEY)', convert_from('\x6de4', 'SQL_ASCII')); END $$;
"#;
const ASCII_AFTER: [&str; 2] = [
    r"INSERT INTO notes VALUES (convert_from('\xe46b', 'SQL_ASCII'), ARRAY['plain', convert_from('\xfc', 'SQL_ASCII')]),
      ('Märkte', NULL)",
    "INSERT INTO fine VALUES (1)",
];

/// A cluster whose old main died with rows that the new main lacks; no supervisor runs any more.
async fn parted() -> Done<Sandbox> {
    let sandbox = two_nodes().without_redis().build().await?;
    sandbox.start().await?;
    has_its_own_tables(&sandbox, ALPHA).await?;
    let folder = trace(&sandbox).parent().unwrap().to_owned();
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    sandbox.psql(ALPHA, &BEFORE.replace("{TRACE}", &trace(&sandbox).display().to_string())).await?;
    session(&sandbox, "postgres").await?.batch_execute(ASCII).await.map_err(refused)?;
    let ascii = session(&sandbox, "ascii").await?;
    ascii.batch_execute(ASCII_BEFORE).await.map_err(refused)?;
    let broken = sandbox.psql_value(ALPHA, "SELECT pg_relation_filepath('public.broken')").await?;
    sandbox.psql(ALPHA, "CHECKPOINT").await?;
    for node in [ALPHA, BETA] {
        sandbox.kill_supervisor(node);
    }
    // its row reaches the standby, its commit does not
    let begun = session(&sandbox, "postgres").await?;
    begun.batch_execute("BEGIN; INSERT INTO untouched VALUES (200)").await.map_err(refused)?;
    sandbox.psql(ALPHA, "CREATE TABLE marker (id int PRIMARY KEY)").await?;
    until("the standby has it", LIMIT, || async {
        let there = sandbox.psql_value(BETA, "SELECT count(*) FROM marker").await;
        there.map(|_| ()).map_err(|error| error.to_string())
    })
    .await?;
    sandbox.psql(BETA, "ALTER SYSTEM SET primary_conninfo = ''").await?;
    sandbox.psql(BETA, "SELECT pg_reload_conf()").await?;
    until("the standby is cut off", LIMIT, || async {
        match sandbox.psql_value(ALPHA, "SELECT count(*) FROM pg_stat_replication").await {
            Ok(count) if count == "0" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    for sql in AFTER {
        sandbox.psql(ALPHA, sql).await?;
    }
    for sql in ASCII_AFTER {
        ascii.batch_execute(sql).await.map_err(refused)?;
    }
    begun.batch_execute("COMMIT").await.map_err(refused)?;
    begun.batch_execute("SET allow_in_place_tablespaces = on").await.map_err(refused)?;
    for sql in ["CREATE TABLESPACE elsewhere LOCATION ''", "ALTER TABLE unkeyed SET TABLESPACE elsewhere"] {
        begun.batch_execute(sql).await.map_err(refused)?;
    }
    sandbox.kill_everything_of(ALPHA);
    move_tablespaces(&sandbox.node(ALPHA)?.data_dir());
    // pages that no server can read; recovery begins after the checkpoint, and does not touch them
    let broken = sandbox.node(ALPHA)?.data_dir().join(broken);
    let length = fs::metadata(&broken).unwrap().len();
    fs::write(&broken, vec![0xff; usize::try_from(length).unwrap()]).unwrap();
    assert_eq!(sandbox.psql_value(BETA, "SELECT pg_promote()").await?, "t");
    sandbox.psql(BETA, "INSERT INTO untouched VALUES (7)").await?;
    sandbox.psql(BETA, "INSERT INTO parted VALUES (6, 2)").await?;
    fs::remove_file(trace(&sandbox)).unwrap();
    Ok(sandbox)
}

/// What the function of a role that is no superuser leaves where a superuser runs it.
fn trace(sandbox: &Sandbox) -> PathBuf {
    sandbox.folder().join("attack/trace")
}

/// As if they had been made at another place: a link each.
fn move_tablespaces(data_dir: &Path) {
    for space in fs::read_dir(data_dir.join("pg_tblspc")).unwrap().map(|entry| entry.unwrap()) {
        let place = data_dir.with_file_name("elsewhere");
        fs::rename(space.path(), &place).unwrap();
        std::os::unix::fs::symlink(place, space.path()).unwrap();
    }
}

/// A session on the old main.
async fn session(sandbox: &Sandbox, database: &str) -> Done<tokio_postgres::Client> {
    sandbox.session(ALPHA, database).await
}

fn refused(error: tokio_postgres::Error) -> SandboxError {
    SandboxError::failed("asking the old main", error)
}

/// The program, with a folder for temporary files that a test can look into.
fn salvage(sandbox: &Sandbox, more: &[&str]) -> Command {
    let node = sandbox.node(ALPHA).unwrap();
    let temporary = temporary(sandbox);
    fs::create_dir_all(&temporary).unwrap();
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(interrex_tests::interrex());
    command.arg("salvage").arg("--config").arg(node.config()).arg("--kept").arg(node.data_dir());
    command.arg("--output").arg(output(sandbox)).args(more);
    command.env("TMPDIR", temporary).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn temporary(sandbox: &Sandbox) -> PathBuf {
    // the path of a socket must be short
    sandbox.folder().join("t")
}

fn output(sandbox: &Sandbox) -> PathBuf {
    sandbox.folder().join("stranded")
}

async fn end_of(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// Nothing of a scratch copy: no folder, no socket, no process.
fn assert_nothing_left(sandbox: &Sandbox) {
    let beside = sandbox.node(ALPHA).unwrap().data_dir().parent().unwrap().to_owned();
    for folder in [temporary(sandbox), beside.clone(), sandbox.folder().to_owned()] {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let is_ours = |name: &str| name.starts_with("interrex-salvage-") || name.starts_with("interrex-log-");
        let left: Vec<_> = names.filter(|name| is_ours(&name.to_string_lossy())).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    let scratch = beside.join("interrex-salvage-").display().to_string();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let command_line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&command_line).contains(&scratch), "a process is left: {process:?}");
    }
}

/// Every file's content and permissions.
fn fingerprint(folder: &Path) -> BTreeMap<PathBuf, (u64, u32)> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
        if entry.path().is_dir() {
            files.extend(fingerprint(&entry.path()));
        }
        let mut hash = DefaultHasher::new();
        fs::read(entry.path()).unwrap_or_default().hash(&mut hash);
        let mode = entry.metadata().unwrap().permissions().mode();
        files.insert(entry.path(), (hash.finish(), mode));
    }
    files
}

fn table<'a>(summary: &'a Value, name: &str) -> &'a Value {
    let tables = summary["tables"].as_array().unwrap();
    tables.iter().find(|table| table["table"] == format!("postgres.public.{name}")).unwrap_or(&Value::Null)
}

fn file(sandbox: &Sandbox, name: &str) -> String {
    fs::read_to_string(output(sandbox).join(format!("postgres.public.{name}"))).unwrap()
}

/// Applies a file as the README says.
fn apply(sandbox: &Sandbox, database: &str, name: &str) {
    let mut psql = Command::new(sandbox.postgres_programs().join("psql"));
    let port = sandbox.node(BETA).unwrap().postgres_port.to_string();
    psql.args([
        "-X",
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "-U",
        "interrex",
        "-d",
        database,
        "-v",
        "ON_ERROR_STOP=1",
    ]);
    psql.arg("-f").arg(output(sandbox).join(format!("{database}.public.{name}")));
    let done = psql.env("PGPASSWORD", sandbox.superuser_password()).output().unwrap();
    assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn exactly_the_rows_that_the_new_main_lacks_are_written_out_and_can_be_applied() {
    run(async {
        let sandbox = parted().await?;
        let kept = sandbox.node(ALPHA)?.data_dir();
        let before = fingerprint(&kept);
        let end = end_of(salvage(&sandbox, &["--json"])).await;
        let said = String::from_utf8_lossy(&end.stderr).into_owned();
        assert_eq!(end.status.code(), Some(9), "{said}");
        assert!(fingerprint(&kept) == before, "the kept copy was changed");
        assert_nothing_left(&sandbox);

        let summary: Value = serde_json::from_slice(&end.stdout).unwrap();
        let in_file = fs::read_to_string(output(&sandbox).join("summary.json")).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&in_file).unwrap(), summary);
        // one is rolled back; all others are single, and the creation of a table is one with its row
        assert_eq!((&summary["fork"]["committed"], &summary["fork"]["aborted"]), (&22.into(), &2.into()));
        let orders = summary["fork"]["relations"].as_array().unwrap().iter();
        let orders = orders.clone().find(|relation| relation["name"] == "postgres.public.orders").unwrap();
        let counts = ["inserts", "updates", "deletes"].map(|what| orders[what].as_u64().unwrap());
        assert_eq!(counts, [2, 1, 1]);

        let counts = |name| ["rows", "inserts", "conflicts"].map(|what| table(&summary, name)[what].as_u64());
        assert_eq!(counts("orders"), [Some(3), Some(2), Some(1)]);
        assert_eq!(counts("untouched"), [Some(4), Some(3), Some(0)]);
        assert_eq!(counts("odd \"table"), [Some(2), Some(2), Some(0)]);
        assert_eq!(counts("parted_low"), [Some(3), Some(2), Some(1)]);
        assert_eq!(counts("kinds"), [Some(1), Some(1), Some(0)]);
        assert_eq!(file(&sandbox, "orders.inserts.csv"), "id,price,twice\n4,10.00,20.00\n5,11.50,23.00\n");
        assert_eq!(
            file(&sandbox, "orders.conflicts.csv"),
            "version,id,price,twice\nkept,2,99.00,198.00\nmain,2,2.00,4.00\n"
        );
        assert_eq!(file(&sandbox, "untouched.inserts.csv"), "id\n200\n8\n9\n");
        assert_eq!(file(&sandbox, "parted_low.conflicts.csv"), "version,id,v\nkept,6,1\nmain,6,2\n");
        let left_out: Vec<String> =
            summary["left_out"].as_array().unwrap().iter().map(Value::to_string).collect();
        let is_left_out = |name: &str, why: &str| {
            left_out.iter().any(|one| one.contains(&format!("postgres.public.{name}\"")) && one.contains(why))
        };
        assert!(is_left_out("unkeyed", "it has no primary key"), "{left_out:?}");
        assert!(is_left_out("newer", "the new main has no such table"), "{left_out:?}");
        assert!(is_left_out("volatile", "it is unlogged"), "{left_out:?}");
        assert_eq!(file(&sandbox, "unkeyed.rows.csv"), "v\nnobody can tell\n");
        assert_eq!(file(&sandbox, "newer.rows.csv"), "id\n1\n");
        // the trouble of one ends no other's
        let failed = |name: &str, why: &str| {
            let failed = left_out.iter().filter(|one| one.contains("\"failed\":true"));
            failed.clone().count() == 4
                && failed.into_iter().any(|one| one.contains(name) && one.contains(why))
        };
        assert!(failed("postgres.public.broken", "invalid page"), "{left_out:?}");
        assert!(failed(r"ascii.public.m\\xe4", "its name is not UTF-8"), "{left_out:?}");
        assert!(failed("postgres.public.watched", "is not a superuser"), "{left_out:?}");
        assert!(failed("postgres.public.counted", "is not a superuser"), "{left_out:?}");
        assert_eq!(counts("lowered"), [Some(1), Some(1), Some(0)]);
        assert!(!trace(&sandbox).exists(), "its code ran as a superuser");
        // it does where the program is not asked
        sandbox.psql(BETA, "SELECT count(*) FROM public.watched").await?;
        assert!(trace(&sandbox).exists(), "the test's own function leaves no trace");
        let objects = serde_json::json!([{ "database": "postgres", "objects": 1, "examples": ["4711"] }]);
        assert_eq!(summary["large_objects"], objects);
        let of_ascii = |name: &str| fs::read_to_string(output(&sandbox).join(format!("ascii.public.{name}")));
        let latin = r"\xe46b,\x7b706c61696e2cfc7d";
        assert_eq!(of_ascii("notes.inserts.csv").unwrap(), format!("v,more\n{latin}\nMärkte,\n"));
        assert_eq!(of_ascii("fine.inserts.csv").unwrap(), "id\n1\n");
        let own: Vec<_> = left_out.iter().filter(|one| one.contains("Interrex's own")).collect();
        let is_own = |name: &str| own.iter().any(|one| one.contains(&format!("postgres.interrex.{name}\"")));
        assert!(is_own("cluster_events") && is_own("stream_head") && !is_own("of_users"), "{own:?}");
        let of_users =
            fs::read_to_string(output(&sandbox).join("postgres.interrex.of_users.inserts.csv")).unwrap();
        assert_eq!(of_users, "id\n1\n2\n");
        let readme = fs::read_to_string(output(&sandbox).join("README.txt")).unwrap();
        assert!(readme.contains("postgres.public.unkeyed: it has no primary key; 1 row written"), "{readme}");

        assert_eq!(
            sandbox.psql_value(BETA, "SELECT count(*) FROM orders").await?,
            "3",
            "it was applied by itself"
        );
        for name in ["orders", "untouched", "odd__table", "parted_low", "kinds"] {
            apply(&sandbox, "postgres", &format!("{name}.inserts.sql"));
        }
        apply(&sandbox, "ascii", "notes.inserts.sql");
        let ascii = sandbox.session(BETA, "ascii").await?;
        let sql = r"SELECT count(*) FROM notes WHERE v IN (convert_from('\xe46b', 'SQL_ASCII'), 'Märkte')
                    AND more[2] IS NOT DISTINCT FROM CASE WHEN v <> 'Märkte' THEN convert_from('\xfc', 'SQL_ASCII') END";
        let found = ascii.query_one(sql, &[]).await.map_err(refused)?;
        assert_eq!(found.try_get::<_, i64>(0).unwrap(), 2);
        assert_values(&sandbox).await?;
        fs::remove_dir_all(output(&sandbox)).unwrap();
        let end = end_of(salvage(&sandbox, &["--table", "orders", "--table", "public.kinds"])).await;
        let message = String::from_utf8_lossy(&end.stdout).into_owned();
        assert!(
            message.contains("0 rows stranded, 1 in conflict") && message.contains("2 tables read"),
            "{message}"
        );
        Ok(())
    });
}

/// What was applied is what the old main had.
async fn assert_values(sandbox: &Sandbox) -> Done<()> {
    let row = sandbox.psql(BETA, "SELECT j, encode(b, 'hex'), t AT TIME ZONE 'UTC', n, e, a, f = 0.1::float8 + 0.2::float8, i, m, o FROM kinds").await?;
    let row: Vec<Option<&str>> = row[0].iter().map(Option::as_deref).collect();
    let expected = [
        Some(r#"{"a": [1, null, "q'\\"]}"#),
        Some("00ff27"),
        Some("2026-11-23 05:00:00.123456"),
        None,
        Some(""),
        Some(r#"{"x,y",NULL,"NULL","\""}"#),
        Some("t"),
        Some("1 mon -3 days +00:00:01.5"),
        Some("not so"),
        Some("12.34"),
    ];
    assert_eq!(row[..9], expected[..9]);
    assert!(row[9].is_some_and(|money| money.contains("12.34")), "{row:?}");
    let odd =
        sandbox.psql(BETA, r#"SELECT "the key", v FROM "odd ""table" ORDER BY part, "the key""#).await?;
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        odd,
        [
            vec![text("it's \\ \"new\",\nline"), text("")],
            vec![text("old"), text("x")],
            vec![text("old"), None]
        ]
    );
    Ok(())
}

#[test]
fn nothing_is_left_after_an_error_or_a_ctrl_c() {
    run(async {
        let sandbox = parted().await?;
        let refused = [
            (vec!["--main", "127.0.0.1:1"], 1, "Connection refused"),
            (vec!["--main", "nowhere"], 2, "HOST:PORT"),
            (vec!["--table", "nothing"], 2, "no such table"),
        ];
        for (more, code, message) in refused {
            let end = end_of(salvage(&sandbox, &more)).await;
            let said = String::from_utf8_lossy(&end.stderr).into_owned();
            assert!(end.status.code() == Some(code) && said.contains(message), "{more:?}: {said}");
            assert_nothing_left(&sandbox);
        }

        for moment in ["copying", "starting a server", "comparing"] {
            let mut child = salvage(&sandbox, &[]).spawn().unwrap();
            let pid = rustix::process::Pid::from_child(&child);
            let mut said = BufReader::new(child.stderr.take().unwrap());
            let mut line = String::new();
            while !line.starts_with(moment) {
                line.clear();
                assert!(said.read_line(&mut line).unwrap() > 0, "it ended before it was {moment}");
            }
            rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
            said.read_to_string(&mut line).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(130), "{moment}: {line}");
            assert_nothing_left(&sandbox);
            assert!(!output(&sandbox).exists());
        }

        let kept = sandbox.node(ALPHA)?.data_dir();
        fs::rename(kept.join("pg_xact"), kept.join("pg_xact.away")).unwrap();
        let end = end_of(salvage(&sandbox, &[])).await;
        let said = String::from_utf8_lossy(&end.stderr).into_owned();
        assert!(end.status.code() == Some(1) && said.contains("could not access status"), "{said}");
        assert_nothing_left(&sandbox);
        assert!(!output(&sandbox).exists());

        // a server that runs is not salvaged
        let mut running = salvage(&sandbox, &[]);
        running.arg("--kept").arg(sandbox.node(BETA)?.data_dir());
        assert_eq!(end_of(running).await.status.code(), Some(2));
        Ok(())
    });
}
