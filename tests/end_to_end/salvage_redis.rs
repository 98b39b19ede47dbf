//! What only the old main's Redis has, saved: it acknowledged keys that its replica never received, and died.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use interrex::sandbox::{ALPHA, BETA, Done, Sandbox, until};
use interrex_events::{NodeId, RunKind, StepId};
use interrex_projections::NodeStatus;
use interrex_tests::run;
use serde_json::Value;

use crate::{bad_input::interrex_with, two_nodes};

const LIMIT: Duration = Duration::from_secs(60);

/// Commands that both nodes get.
const BEFORE: [&[&str]; 6] = [
    &["SET", "changed", "old"],
    &["SET", "refreshed", "same", "EX", "3600"],
    &["SET", "deleted since", "it was there"],
    // as tables of hashes, which no two servers store in the same order
    &["EVAL", "for i = 1, 700 do redis.call('HSET', 'wide hash', 'field' .. i, i) end", "0"],
    &["EVAL", "for i = 1, 700 do redis.call('SADD', 'wide set', 'member' .. i) end", "0"],
    &["XADD", "read by both", "1-0", "field", "value"],
];

/// Commands that only the old main gets, and acknowledges.
const AFTER: [&[&str]; 12] = [
    &["SET", "text", "it's \"new\"\n"],
    &["RPUSH", "list", "one", "two", "one"],
    &["SADD", "set", "b", "a"],
    &["ZADD", "sorted", "0.1", "low", "inf", "high"],
    &["HSET", "hash", "field", "value", "other", ""],
    &["XADD", "stream", "5-1", "field", "value"],
    &["SET", "lease", "for an hour", "EX", "3600"],
    &["EVAL", r"redis.call('SET', 'bin\0\255', '\1\2\254')", "0"],
    &["SET", "elsewhere", "in the other database"],
    &["MOVE", "elsewhere", "1"],
    &["SET", "changed", "new"],
    &["EXPIRE", "refreshed", "7200"],
];

async fn tell(sandbox: &Sandbox, node: NodeId, commands: &[&[&str]]) -> Done<()> {
    for command in commands {
        sandbox.redis(node, command).await?;
    }
    Ok(())
}

/// Main died with rows and keys that the other node had not received, and the other one is main. Nobody runs on alpha.
/// When the key with a time to live expires, by the dead main.
async fn parted(sandbox: &Sandbox) -> Done<i64> {
    sandbox.start().await?;
    for node in [ALPHA, BETA] {
        sandbox.wait_healthy(node).await?;
    }
    sandbox.psql(ALPHA, "CREATE TABLE public.orders (id int PRIMARY KEY)").await?;
    // what was acknowledged is in its file
    sandbox.redis(ALPHA, &["CONFIG", "SET", "appendfsync", "always"]).await?;
    tell(sandbox, ALPHA, &BEFORE).await?;
    until("the replica has it all", LIMIT, || async {
        match sandbox.redis(BETA, &["EXISTS", "read by both"]).await {
            Ok(there) if there == "1" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    // beta's supervisor would turn its Redis back to main: main lets no replica in
    sandbox.redis(ALPHA, &["ACL", "SETUSER", "default", "-psync", "-sync", "-replconf"]).await?;
    sandbox.redis(ALPHA, &["CLIENT", "KILL", "TYPE", "replica"]).await?;
    sandbox.psql(BETA, "ALTER SYSTEM SET primary_conninfo = ''").await?;
    sandbox.psql(BETA, "SELECT pg_reload_conf()").await?;
    until("both are cut off", LIMIT, || async {
        let receivers = sandbox.psql_value(BETA, "SELECT count(*) FROM pg_stat_wal_receiver").await;
        let replicas = sandbox.redis(ALPHA, &["INFO", "replication"]).await;
        match (receivers, replicas) {
            (Ok(count), Ok(info)) if count == "0" && info.contains("connected_slaves:0") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    sandbox.psql(ALPHA, "INSERT INTO public.orders VALUES (1)").await?;
    tell(sandbox, ALPHA, &AFTER).await?;
    let expires = sandbox.redis(ALPHA, &["PEXPIRETIME", "lease"]).await?;
    tell(sandbox, ALPHA, &[&["SET", "short lived", "x", "PX", "5000"]]).await?;
    sandbox.kill_everything_of(ALPHA);
    sandbox.wait_run_ended(BETA).await?;
    until("its Redis is a master", LIMIT, || async {
        match sandbox.redis(BETA, &["DEL", "deleted since"]).await {
            Ok(gone) if gone == "1" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    Ok(expires.parse().unwrap())
}

async fn interrex(arguments: &[&str]) -> Done<Output> {
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let asked = move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        interrex_with(&arguments, &[])
    };
    tokio::task::spawn_blocking(asked).await.unwrap()
}

/// The folder that a view names in a command, after an option.
fn folder_after<'w>(message: &'w str, option: &str) -> &'w str {
    let (_, after) = message.split_once(&format!("interrex salvage {option} ")).unwrap_or_default();
    after.split_whitespace().next().unwrap_or_default()
}

fn output(sandbox: &Sandbox) -> PathBuf {
    sandbox.folder().join("stranded")
}

fn temporary(sandbox: &Sandbox) -> PathBuf {
    // the path of a socket must be short
    sandbox.folder().join("t")
}

/// The program, with a folder for temporary files that a test can look into.
fn salvage(sandbox: &Sandbox, more: &[&str]) -> Command {
    let temporary = temporary(sandbox);
    fs::create_dir_all(&temporary).unwrap();
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(interrex_tests::interrex());
    command.arg("salvage").arg("--config").arg(sandbox.node(ALPHA).unwrap().config());
    command.arg("--output").arg(output(sandbox)).args(more);
    command.env("TMPDIR", temporary).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn end_of(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// Nothing of a scratch copy: no folder, no socket, no process.
fn assert_nothing_left(sandbox: &Sandbox) {
    let node = sandbox.node(ALPHA).unwrap();
    for folder in [temporary(sandbox), node.folder.clone(), sandbox.folder().to_owned()] {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = names.filter(|name| name.to_string_lossy().contains("interrex-salvage")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    let scratch = temporary(sandbox).join("interrex-salvage-").display().to_string();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let command_line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&command_line).contains(&scratch), "a process is left: {process:?}");
    }
}

/// Applies a file as the README says. How many commands were refused.
fn apply(sandbox: &Sandbox, name: &str) -> u64 {
    let port = sandbox.node(BETA).unwrap().redis_port.to_string();
    let mut command = Command::new("redis-cli");
    command.args(["-h", "127.0.0.1", "-p", &port, "--pipe"]);
    let done = command.stdin(File::open(output(sandbox).join(name)).unwrap()).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let errors = said.split("errors: ").nth(1).and_then(|rest| rest.split(',').next());
    errors.and_then(|errors| errors.trim().parse().ok()).unwrap()
}

/// The keys in the lines of a file.
fn keys(sandbox: &Sandbox, name: &str, column: usize) -> BTreeSet<String> {
    let text = fs::read_to_string(output(sandbox).join(name)).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split('\t').nth(column).unwrap().trim_matches('"').to_owned()).collect()
}

fn set(keys: &[&str]) -> BTreeSet<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

#[test]
fn exactly_the_keys_that_the_new_main_lacks_are_written_out_and_can_be_applied() {
    run(async {
        let sandbox = two_nodes().build().await?;
        let lease = parted(&sandbox).await?;
        sandbox.start_supervisor(ALPHA)?;
        sandbox.wait_health(ALPHA, "fenced", |report| report.status == NodeStatus::Fenced).await?;
        let config = sandbox.node(ALPHA)?.config().display().to_string();
        let said = interrex(&["rejoin", "alpha", "--config", &config]).await?;
        assert!(said.status.success(), "{said:?}");
        let shown = interrex(&["run", "show", "--config", &config]).await?;
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        let kept = folder_after(&shown, "--kept-redis");
        let postgres = folder_after(&shown, "--kept");
        assert!(Path::new(kept).join("appendonlydir").is_dir(), "{shown}");
        let runs = sandbox.cluster(ALPHA)?.runs.runs;
        let made = runs.into_values().rev().find(|run| run.kind == RunKind::Rejoin).unwrap();
        for step in [StepId::BecomeStandby, StepId::FollowRedis] {
            let made = made.step(step);
            let named = made.observed.get("kept_redis").and_then(|kept| kept.as_str());
            assert_eq!(named, Some(kept), "{step:?}: {made:?}");
        }

        until("the time of the last key is over", LIMIT, || async {
            let gone = "return redis.call('TIME')[1] * 1000 - ARGV[1] > -3590000 and 1 or 0";
            match sandbox.redis(BETA, &["EVAL", gone, "0", &lease.to_string()]).await {
                Ok(over) if over == "1" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        let both = ["--kept-redis", kept, "--kept", postgres, "--json"];
        let end = end_of(salvage(&sandbox, &both)).await;
        assert_eq!(end.status.code(), Some(0), "{}", String::from_utf8_lossy(&end.stderr));
        assert_nothing_left(&sandbox);
        let summary: Value = serde_json::from_slice(&end.stdout).unwrap();
        let in_file = fs::read_to_string(output(&sandbox).join("summary.json")).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&in_file).unwrap(), summary);
        assert_eq!(summary["inserts"], 1, "{summary}");
        let redis = &summary["redis"];
        let counts =
            ["keys", "missing", "conflicts", "other_expiry", "expired"].map(|what| redis[what].as_u64());
        assert_eq!(counts, [Some(15), Some(10), Some(1), Some(1), Some(1)], "{redis}");
        assert_eq!(redis["left_out"], Value::Array(Vec::new()));
        let first =
            ["text", "list", "set", "sorted", "hash", "stream", "lease", r"bin\x00\xff", "deleted since"];
        assert_eq!(keys(&sandbox, "redis-0.missing.txt", 1), set(&first));
        assert_eq!(keys(&sandbox, "redis-1.missing.txt", 1), set(&["elsewhere"]));
        assert_eq!(keys(&sandbox, "redis-0.conflicts.txt", 2), set(&["changed", "refreshed"]));
        let conflicts = fs::read_to_string(output(&sandbox).join("redis-0.conflicts.txt")).unwrap();
        assert!(
            conflicts.contains("kept\t0\t\"changed\"\tstring\tnever expires\t3 bytes: \"new\""),
            "{conflicts}"
        );
        assert!(
            conflicts.contains("main\t0\t\"changed\"\tstring\tnever expires\t3 bytes: \"old\""),
            "{conflicts}"
        );
        let readme = fs::read_to_string(output(&sandbox).join("README.txt")).unwrap();
        assert!(readme.contains("looks missing") && readme.contains("orders"), "{readme}");
        assert_eq!(sandbox.redis(BETA, &["EXISTS", "text"]).await?, "0", "it was applied by itself");

        assert_eq!(
            (apply(&sandbox, "redis-0.missing.resp"), apply(&sandbox, "redis-1.missing.resp")),
            (0, 0)
        );
        assert_values(&sandbox, lease).await?;
        // what is there by now stays
        sandbox.redis(BETA, &["SET", "text", "of the new main"]).await?;
        assert_eq!(apply(&sandbox, "redis-0.missing.resp"), first.len() as u64);
        assert_eq!(sandbox.redis(BETA, &["GET", "text"]).await?, "of the new main");

        // alone: nothing of PostgreSQL is asked for, and nothing is missing any more
        fs::remove_dir_all(output(&sandbox)).unwrap();
        let end = end_of(salvage(&sandbox, &["--kept-redis", kept])).await;
        let message = String::from_utf8_lossy(&end.stdout).into_owned();
        assert!(
            message.contains("0 keys missing, 2 with another value") && !message.contains("rows"),
            "{message}"
        );
        Ok(())
    });
}

/// What was applied is what the old main had.
async fn assert_values(sandbox: &Sandbox, lease: i64) -> Done<()> {
    let expected: [(&[&str], &str); 10] = [
        (&["GET", "text"], "it's \"new\"\n"),
        (&["LRANGE", "list", "0", "-1"], "one two one"),
        (&["SORT", "set", "ALPHA"], "a b"),
        (&["ZRANGE", "sorted", "0", "-1", "WITHSCORES"], "low 0.10000000000000001 high inf"),
        (&["HMGET", "hash", "field", "other"], "value "),
        (&["XRANGE", "stream", "-", "+"], "5-1 field value"),
        (&["EVAL", r"return redis.call('GET', 'bin\0\255') == '\1\2\254'", "0"], "1"),
        (
            &["EVAL", "redis.call('SELECT', 1) return redis.call('GET', 'elsewhere')", "0"],
            "in the other database",
        ),
        (&["GET", "changed"], "old"),
        (&["GET", "deleted since"], "it was there"),
    ];
    for (question, answer) in expected {
        assert_eq!(sandbox.redis(BETA, question).await?, answer, "{question:?}");
    }
    let restored: i64 = sandbox.redis(BETA, &["PEXPIRETIME", "lease"]).await?.parse().unwrap();
    assert!(restored.abs_diff(lease) < 1_000, "{restored} and {lease}");
    Ok(())
}

/// A copy of a folder by hand, its files open for everybody.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// The newest part of an append-only file.
fn append_only(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder.join("appendonlydir")).unwrap().map(|entry| entry.unwrap().path());
    files.into_iter().find(|path| path.to_string_lossy().ends_with(".incr.aof")).unwrap()
}

#[test]
fn what_cannot_be_read_is_said_and_nothing_is_left() {
    run(async {
        let sandbox = two_nodes().build().await?;
        sandbox.start().await?;
        for node in [ALPHA, BETA] {
            sandbox.wait_healthy(node).await?;
        }
        tell(&sandbox, ALPHA, &BEFORE).await?;
        let place = |name: &str| sandbox.folder().join(name).display().to_string();
        let (kept, broken, empty) = (place("copied"), place("broken"), place("empty"));
        let own = sandbox.node(ALPHA)?.redis_dir();
        copy(&own, Path::new(&kept));
        copy(&own, Path::new(&broken));
        fs::create_dir(&empty).unwrap();
        // a crash cut the last command off: what stands before it counts
        let mut cut = File::options().append(true).open(append_only(Path::new(&kept))).unwrap();
        // and a database that the new main does not have
        cut.write_all(b"*2\r\n$6\r\nSELECT\r\n$2\r\n20\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n")
            .unwrap();
        cut.write_all(b"*3\r\n$3\r\nSET\r\n$1").unwrap();
        let end = end_of(salvage(&sandbox, &["--kept-redis", &kept])).await;
        let message =
            String::from_utf8_lossy(&end.stdout).into_owned() + &String::from_utf8_lossy(&end.stderr);
        assert!(
            end.status.success() && message.contains("0 keys missing, 0 with another value"),
            "{message}"
        );
        assert!(message.contains("database 20: 1 key: the new main has no such database"), "{message}");
        fs::remove_dir_all(output(&sandbox)).unwrap();

        // a value that nobody wants to fetch
        let large = place("large");
        copy(&own, Path::new(&large));
        let mut longer = File::options().append(true).open(append_only(Path::new(&large))).unwrap();
        longer.write_all(b"*4\r\n$8\r\nSETRANGE\r\n$4\r\nhuge\r\n$9\r\n536870911\r\n$1\r\nx\r\n").unwrap();
        let end = end_of(salvage(&sandbox, &["--kept-redis", &large])).await;
        let message =
            String::from_utf8_lossy(&end.stdout).into_owned() + &String::from_utf8_lossy(&end.stderr);
        let left_out = "1 key, such as \"huge\": its value takes more than 512 MiB";
        assert!(message.contains("0 keys missing") && message.contains(left_out), "{message}");
        fs::remove_dir_all(output(&sandbox)).unwrap();

        // without an append-only file, the snapshot
        sandbox.redis(ALPHA, &["SAVE"]).await?;
        let snapshot = place("snapshot");
        fs::create_dir(&snapshot).unwrap();
        fs::copy(own.join("dump.rdb"), Path::new(&snapshot).join("dump.rdb")).unwrap();
        let end = end_of(salvage(&sandbox, &["--kept-redis", &snapshot, "--json"])).await;
        let summary: Value = serde_json::from_slice(&end.stdout).unwrap();
        let found = (&summary["redis"]["source"], &summary["redis"]["keys"], &summary["redis"]["missing"]);
        assert_eq!(found, (&"dump.rdb".into(), &6.into(), &0.into()), "{summary}");
        fs::remove_dir_all(output(&sandbox)).unwrap();

        let mut damaged = File::options().append(true).open(append_only(Path::new(&broken))).unwrap();
        damaged.write_all(b"this is no command\r\n*1\r\n$4\r\nPING\r\n").unwrap();
        let (own, beta) = (own.display().to_string(), sandbox.node(BETA)?.redis_port);
        let refused = [
            (vec!["--kept-redis".to_owned(), empty], 2, "the folder has no files of Redis"),
            (vec!["--kept-redis".to_owned(), place("nowhere")], 1, "No such file"),
            (vec!["--kept-redis".to_owned(), own], 2, "a Redis runs on this folder"),
            (vec!["--kept-redis".to_owned(), broken], 1, "Bad file format"),
            (
                vec!["--kept-redis".to_owned(), kept.clone(), "--main-redis=127.0.0.1:1".to_owned()],
                1,
                "refused",
            ),
            (vec!["--kept-redis".to_owned(), kept.clone(), "--main-redis=here".to_owned()], 2, "HOST:PORT"),
            (
                vec!["--kept-redis".to_owned(), kept.clone(), format!("--main-redis=127.0.0.1:{beta}")],
                2,
                "this Redis is a replica",
            ),
            (vec![], 2, "--kept"),
        ];
        for (more, code, message) in refused {
            let more: Vec<&str> = more.iter().map(String::as_str).collect();
            let end = end_of(salvage(&sandbox, &more)).await;
            let said = String::from_utf8_lossy(&end.stderr).into_owned();
            assert!(end.status.code() == Some(code) && said.contains(message), "{more:?}: {said}");
            assert_nothing_left(&sandbox);
        }

        for moment in ["copying", "starting a Redis", "comparing"] {
            let mut child = salvage(&sandbox, &["--kept-redis", &kept]).spawn().unwrap();
            let pid = rustix::process::Pid::from_child(&child);
            let mut said = BufReader::new(child.stderr.take().unwrap());
            let mut line = String::new();
            while !line.starts_with(moment) {
                line.clear();
                assert!(said.read_line(&mut line).unwrap() > 0, "it ended before it was {moment}");
            }
            rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
            said.read_to_string(&mut line).unwrap();
            // of the last moment little is left: it may have come to its end
            let code = child.wait().unwrap().code();
            assert!(code == Some(130) || (moment == "comparing" && code == Some(0)), "{moment}: {line}");
            assert_nothing_left(&sandbox);
            assert!(code == Some(0) || !output(&sandbox).exists());
            let _ = fs::remove_dir_all(output(&sandbox));
        }

        sandbox.redis(ALPHA, &["CONFIG", "SET", "requirepass", "secret"]).await?;
        let end = end_of(salvage(&sandbox, &["--kept-redis", &kept])).await;
        let said = String::from_utf8_lossy(&end.stderr).into_owned();
        assert!(end.status.code() == Some(1) && said.contains("redis.password_file"), "{said}");
        Ok(())
    });
}
