//! Redis behind the adapter that a supervisor would use: who it is, how it stops, and what it starts from.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    rc::Rc,
    time::Duration,
};

use interrex::sandbox::until;
use interrex_actors::{
    env::{Env as _, SystemEnv},
    ports::{RedisEnd, RedisHandover, RedisPort as _},
};
use interrex_adapters::{
    redis::{LocalRedis, RedisSettings},
    runtime::{Process, Processes, RunAs},
};
use interrex_events::{Address, RedisStatus};

use crate::pair::{LIMIT, on_one_thread};

/// One server in a folder of its own. Dropping it ends what runs there.
struct Redis {
    folder: tempfile::TempDir,
    port: u16,
    adapter: LocalRedis,
}

fn settings(folder: &Path, port: u16) -> RedisSettings {
    settings_with(PathBuf::from("redis-server"), folder, port)
}

fn settings_with(program: PathBuf, folder: &Path, port: u16) -> RedisSettings {
    let config_file = folder.join("redis.conf");
    let identity = RedisSettings::identity(&program, &config_file, port, RunAs::Myself);
    RedisSettings {
        config_file,
        program,
        runtime: Rc::new(Processes::new(RunAs::Myself, folder.join("output"), identity)),
        host: "127.0.0.1".to_owned(),
        port,
        password: None,
        stop_timeout: Duration::from_millis(100),
        others: Vec::new(),
    }
}

fn in_good_order(process: &Process) -> RedisEnd {
    RedisEnd::InGoodOrder(format!("process {}", process.pid()))
}

impl Redis {
    fn new(settings: &str) -> Self {
        Self::beside(&[], settings)
    }

    /// One that knows others.
    fn beside(others: &[&Self], more: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        let text = format!(
            "bind 127.0.0.1\nport {port}\nDir {}\nset-proc-title no\nlogfile {}\nshutdown-timeout 0\nsave \"\"\n\
             repl-diskless-sync-delay 0\n{more}\n",
            folder.path().join("data").display(),
            folder.path().join("log").display()
        );
        fs::write(folder.path().join("redis.conf"), text).unwrap();
        let others = others.iter().map(|other| Address::new("127.0.0.1", other.port)).collect();
        let adapter = LocalRedis::new(RedisSettings { others, ..settings(folder.path(), port) });
        Self { folder, port, adapter }
    }

    fn cli(&self, arguments: &[&str]) -> String {
        let port = self.port.to_string();
        let said = Command::new("redis-cli")
            .args(["-p", &port])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        String::from_utf8_lossy(&said.stdout).trim().to_owned()
    }

    fn process(&self) -> Process {
        let info = self.cli(&["INFO", "server"]);
        let pid = info.lines().find_map(|line| line.strip_prefix("process_id:")).unwrap();
        Process::of(pid.trim().parse().unwrap()).unwrap()
    }

    fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join("data").join(name)
    }

    /// Kills it as a power cut does.
    async fn kill(&self) {
        let process = self.process();
        process.signal(rustix::process::Signal::KILL);
        process.gone().await;
    }

    async fn is(&self, status: RedisStatus) {
        until("its Redis is as wanted", LIMIT, async || match self.adapter.measure().await {
            facts if facts.status == status => Ok(()),
            facts => Err(format!("{facts:?}")),
        })
        .await
        .unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.cli(&["SHUTDOWN", "NOSAVE", "FORCE"]);
    }
}

#[test]
fn a_redis_without_pid_file_title_or_password_is_stopped_and_another_one_on_its_port_is_left_alone() {
    on_one_thread(async {
        let redis = Redis::new("");
        redis.adapter.start().await.unwrap();
        redis.is(RedisStatus::Master).await;
        let before = redis.process();
        assert_eq!(redis.adapter.stop().await.unwrap(), in_good_order(&before));
        assert!(!before.lives());
        assert_eq!(redis.adapter.stop().await.unwrap(), RedisEnd::WasNotRunning);

        // it lets this supervisor in no more
        redis.adapter.start().await.unwrap();
        let before = redis.process();
        redis.cli(&["CONFIG", "SET", "requirepass", "another"]);
        let afresh = LocalRedis::new(settings(redis.folder.path(), redis.port));
        assert_eq!(afresh.measure().await.status, RedisStatus::Unreachable);
        assert_eq!(afresh.stop().await.unwrap(), in_good_order(&before));

        // the same port, another file
        let other = Redis::new(&format!("port {}", redis.port));
        let file = other.folder.path().join("redis.conf");
        Command::new("redis-server").arg(file).args(["--daemonize", "yes"]).status().unwrap();
        until("the other one serves", LIMIT, async || match redis.cli(&["PING"]).as_str() {
            "PONG" => Ok(()),
            other => Err(other.to_owned()),
        })
        .await
        .unwrap();
        let foreign = redis.process();
        let facts = redis.adapter.measure().await;
        assert!(facts.detail.contains("another Redis serves on 127.0.0.1"), "{facts:?}");
        assert_eq!(facts.status, RedisStatus::Unreachable);
        let message = redis.adapter.stop().await.unwrap_err().to_string();
        assert!(
            message.contains("not touch it") && message.contains(&foreign.pid().to_string()),
            "{message}"
        );
        assert!(foreign.lives());
    });
}

#[test]
fn the_data_of_a_redis_that_was_seen_while_it_started_is_found_in_its_folder() {
    on_one_thread(async {
        let mut redis = Redis::new("");
        let folder = redis.folder.path().to_owned();
        // until the test writes a line, it is a process in another folder
        let (program, pipe) = (folder.join("redis-server"), folder.join("pipe"));
        fs::write(&program, format!("#!/bin/sh\nread line < {}\nexec redis-server \"$@\"\n", pipe.display()))
            .unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        redis.adapter = LocalRedis::new(settings_with(program, &folder, redis.port));
        let start = async || {
            let seen_and_released = async {
                redis.is(RedisStatus::Unreachable).await;
                fs::write(&pipe, "go\n").unwrap();
            };
            assert_eq!(tokio::join!(redis.adapter.start(), seen_and_released).0, Ok(true));
        };
        start().await;
        redis.cli(&["SET", "key", "value"]);
        let at = SystemEnv.moment().wall;
        redis.adapter.prepare_to_follow(&Address::new("127.0.0.1", 1), at, 3).await.unwrap();
        start().await;
        assert!(redis.adapter.kept_at(at).await.unwrap().starts_with(&folder));
    });
}

#[test]
fn a_redis_that_ends_while_it_starts_is_reported_with_its_log() {
    on_one_thread(async {
        let redis = Redis::new("");
        fs::write(redis.data("dump.rdb"), "REDIS0011 damaged").unwrap();
        let error = redis.adapter.start().await.unwrap_err().to_string();
        assert!(error.contains("Redis was started and ended"), "{error}");
        assert!(error.contains(&redis.folder.path().join("log").display().to_string()), "{error}");
        // a program that is not there is named
        let none = settings_with(redis.folder.path().join("none"), redis.folder.path(), redis.port);
        let error = LocalRedis::new(none).start().await.unwrap_err().to_string();
        assert!(error.contains("/none") && error.contains("No such file"), "{error}");
    });
}

#[test]
fn a_slow_save_is_waited_for_and_what_is_kept_is_what_was_in_memory() {
    on_one_thread(async {
        // 6 s, longer than it may get nowhere; and nothing of it was ever saved
        let redis = Redis::new("rdb-key-save-delay 1000");
        redis.adapter.start().await.unwrap();
        redis.cli(&[
            "EVAL",
            "for i = 1, 6000 do redis.call('SET', 'key' .. i, string.rep('x', 100)) end",
            "0",
        ]);
        let (at, before) = (SystemEnv.moment().wall, redis.process());
        let end = redis.adapter.prepare_to_follow(&Address::new("127.0.0.1", 1), at, 3).await.unwrap();
        assert_eq!(end, in_good_order(&before));
        let kept = redis.adapter.kept_at(at).await.unwrap();
        assert!(fs::metadata(kept.join("dump.rdb")).unwrap().len() > 60_000);
        redis.adapter.start().await.unwrap();
        redis.is(RedisStatus::Unlinked).await;
        assert_eq!(redis.cli(&["DBSIZE"]), "6000");
        assert_eq!(redis.adapter.measure().await.upstream, Some(Address::new("127.0.0.1", 1)));
    });
}

#[test]
fn one_that_cannot_save_lives_and_takes_no_writes_and_one_that_hangs_is_killed_and_told() {
    on_one_thread(async {
        let redis = Redis::new("busy-reply-threshold 0");
        redis.adapter.start().await.unwrap();
        redis.cli(&["SET", "only", "here"]);
        // a snapshot cannot take the place of a folder
        fs::create_dir_all(redis.data("dump.rdb").join("in the way")).unwrap();
        let message = redis.adapter.stop().await.unwrap_err().to_string();
        assert!(message.contains("is not killed") && message.contains("takes no writes"), "{message}");
        assert_eq!(redis.cli(&["GET", "only"]), "here");
        let port = redis.port.to_string();
        let mut write =
            Command::new("redis-cli").args(["-p", &port, "SET", "only", "later"]).spawn().unwrap();
        // who is asked to start it lets it serve again
        assert_eq!(redis.cli(&["GET", "only"]), "here");
        assert!(write.try_wait().unwrap().is_none(), "a write was acknowledged");
        assert!(!redis.adapter.start().await.unwrap());
        assert!(write.wait().unwrap().success());

        let mut hangs =
            Command::new("redis-cli").args(["-p", &port, "EVAL", "while true do end", "0"]).spawn().unwrap();
        until("it hangs", LIMIT, async || match redis.adapter.measure().await.status {
            RedisStatus::Unreachable => Ok(()),
            other => Err(other.to_string()),
        })
        .await
        .unwrap();
        let end = redis.adapter.stop().await.unwrap();
        assert!(end.is_loss() && end.to_string().contains("KILLED"), "{end}");
        hangs.wait().unwrap();
        let facts = redis.adapter.measure().await;
        assert!(
            facts.status == RedisStatus::Stopped && facts.alarm && facts.detail.contains("KILLED"),
            "{facts:?}"
        );
    });
}

#[test]
fn a_master_does_not_start_from_less_than_its_replica_holds_unless_somebody_starts_it() {
    on_one_thread(async {
        let replica = Redis::new("");
        let master = Redis::beside(&[&replica], "repl-ping-replica-period 3600");
        master.adapter.start().await.unwrap();
        replica.adapter.start().await.unwrap();
        replica.adapter.follow(&Address::new("localhost", master.port)).await.unwrap();
        replica.is(RedisStatus::Linked).await;
        master.cli(&["SET", "a", "1"]);
        until("the replica has it", LIMIT, async || match replica.cli(&["GET", "a"]).as_str() {
            "1" => Ok(()),
            other => Err(other.to_owned()),
        })
        .await
        .unwrap();
        master.kill().await;
        let held_back = async |why: &str| {
            let message = master.adapter.start().await.unwrap_err().to_string();
            assert!(message.contains(why) && message.contains("redis-cli SAVE there"), "{message}");
            let facts = master.adapter.measure().await;
            assert!(
                facts.status == RedisStatus::Stopped && facts.alarm && facts.detail.contains(why),
                "{facts:?}"
            );
            assert!(master.adapter.waits_for_a_start());
        };
        held_back("no data on its disk").await;
        // as its message says
        replica.cli(&["SAVE"]);
        fs::copy(replica.data("dump.rdb"), master.data("dump.rdb")).unwrap();
        assert!(master.adapter.start().await.unwrap());
        assert_eq!(master.cli(&["GET", "a"]), "1");

        // what it saves to stop is as new as what the replica has
        replica.is(RedisStatus::Linked).await;
        master.cli(&["SET", "a", "2"]);
        master.adapter.stop().await.unwrap();
        assert!(master.adapter.start().await.unwrap());
        replica.is(RedisStatus::Linked).await;
        master.cli(&["SAVE"]);
        master.cli(&["SET", "a", "3"]);
        until("the replica has it", LIMIT, async || match replica.cli(&["GET", "a"]).as_str() {
            "3" => Ok(()),
            other => Err(other.to_owned()),
        })
        .await
        .unwrap();
        master.kill().await;
        held_back("its snapshot ends at offset").await;
        // nobody who answers holds more
        replica.adapter.stop().await.unwrap();
        assert!(master.adapter.start().await.unwrap());
        assert_eq!(master.cli(&["GET", "a"]), "2");
    });
}

#[test]
fn the_role_is_handed_over_by_the_masters_own_spelling_and_a_refusal_is_told_at_once() {
    on_one_thread(async {
        let (one, other) = (Redis::new(""), Redis::new("rename-command FAILOVER \"\"\n"));
        one.adapter.start().await.unwrap();
        other.adapter.start().await.unwrap();
        other.adapter.follow(&Address::new("127.0.0.1", one.port)).await.unwrap();
        other.is(RedisStatus::Linked).await;
        // the replica knows that it is linked a moment before the master does
        until("the master calls it online", LIMIT, async || match one.cli(&["INFO", "replication"]) {
            info if info.contains("state=online") => Ok(()),
            info => Err(info),
        })
        .await
        .unwrap();
        let handed = one.adapter.hand_over(&Address::new("localhost", other.port), LIMIT).await.unwrap();
        assert!(matches!(handed, RedisHandover::Done(_)), "{handed:?}");
        one.is(RedisStatus::Linked).await;
        assert_eq!(one.adapter.measure().await.lacks, Vec::<String>::new());

        let lacks = other.adapter.measure().await.lacks;
        assert_eq!(lacks, ["FAILOVER is renamed or disabled (rename-command)"]);
        let refused = other.adapter.hand_over(&Address::new("localhost", one.port), LIMIT).await.unwrap();
        assert!(
            matches!(&refused, RedisHandover::Refused(message) if message.contains("unknown command")),
            "{refused:?}"
        );
        let unknown = other.adapter.hand_over(&Address::new("localhost", 1), LIMIT).await.unwrap();
        let known = format!("127.0.0.1 port {}", one.port);
        assert!(
            matches!(&unknown, RedisHandover::Refused(message) if message.contains(&known)),
            "{unknown:?}"
        );
    });
}
