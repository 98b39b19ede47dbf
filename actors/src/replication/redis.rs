//! The real Redis: commands through one owned connection, start and stop by its own program.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use interrex_events::{Address, RedisStatus};
use interrex_projections::counted;
use redis::{
    ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, aio::MultiplexedConnection,
};
use rustix::process::Signal;
use tokio::sync::Mutex;

use super::{
    copying::{self, Progress},
    redis_files,
};
use crate::{
    ports::{Answer, NoReply, PortError, RedisPort},
    report::RedisFacts,
    runtime::{self, RunAs, is_alive, wait_gone},
};

/// When one command, or a connection, is given up.
const COMMAND_LIMIT: Duration = Duration::from_secs(2);
/// When starting is given up.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long a stop may take before the next harder one is tried; saving the data takes time.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);
const PROGRAM: &str = "redis-server";

/// How to reach and handle the local server.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// Its configuration file, which it rewrites itself.
    pub config_file: PathBuf,
    /// The program.
    pub program: PathBuf,
    /// Whom it runs as.
    pub run_as: RunAs,
    /// Host.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Password.
    pub password: Option<crate::secret::Secret>,
}

/// The adapter.
pub struct LocalRedis {
    settings: RedisSettings,
    connection: RefCell<Option<MultiplexedConnection>>,
    /// Held by the one thread that works on its files.
    files: Arc<Mutex<()>>,
}

/// A connection that does not reconnect by itself: that would hide what a health check looks for.
///
/// # Errors
/// The server's or the system's words.
pub async fn connect(
    host: &str,
    port: u16,
    password: Option<&str>,
) -> Result<MultiplexedConnection, NoReply> {
    let mut server = RedisConnectionInfo::default();
    if let Some(password) = password {
        server = server.set_password(password);
    }
    let info: ConnectionInfo = ConnectionAddr::Tcp(host.to_owned(), port)
        .into_connection_info()
        .map_err(|error| NoReply::of_redis(&error))?
        .set_redis_settings(server);
    let client = redis::Client::open(info).map_err(|error| NoReply::of_redis(&error))?;
    let config = redis::AsyncConnectionConfig::new()
        .set_connection_timeout(Some(COMMAND_LIMIT))
        .set_response_timeout(Some(COMMAND_LIMIT));
    let connecting = client.get_multiplexed_async_connection_with_config(&config).await;
    connecting.map_err(|error| NoReply::of_redis(&error))
}

/// What the folder of a copy that was kept then is called.
fn name_of_time(at: DateTime<Utc>) -> String {
    at.format("%Y%m%dT%H%M%SZ").to_string()
}

/// What `INFO replication` says.
struct Replication {
    master: bool,
    linked: bool,
    offset: Option<u64>,
}

fn parse_replication(info: &str) -> Replication {
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let master = field("role") == Some("master");
    // a copy under way is no copy yet: promoting it would lose everything (Redis hazards 5)
    let linked = field("master_link_status") == Some("up") && field("master_sync_in_progress") == Some("0");
    let offset = field(if master { "master_repl_offset" } else { "slave_repl_offset" });
    Replication { master, linked, offset: offset.and_then(|text| text.trim().parse().ok()) }
}

/// Whether a configuration file would start a replica.
fn names_a_master(config: &str) -> bool {
    config.lines().any(|line| {
        let line = line.trim_start();
        line.starts_with("replicaof ") || line.starts_with("slaveof ")
    })
}

impl LocalRedis {
    /// An adapter that connects when it is first asked.
    #[must_use]
    pub fn new(settings: RedisSettings) -> Self {
        Self { settings, connection: RefCell::new(None), files: Arc::default() }
    }

    async fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> Answer<T> {
        let doing = words.join(" ");
        let existing = self.connection.borrow().clone();
        let mut connection = match existing {
            Some(connection) => connection,
            None => {
                let settings = &self.settings;
                let fresh = connect(&settings.host, settings.port, settings.password.as_deref())
                    .await
                    .map_err(|error| PortError(format!("connecting to Redis: {error}")))?;
                *self.connection.borrow_mut() = Some(fresh.clone());
                fresh
            }
        };
        let mut command = redis::cmd(words.first().copied().unwrap_or_default());
        for word in words.iter().skip(1) {
            command.arg(*word);
        }
        let answer = command.query_async(&mut connection).await;
        if answer.as_ref().is_err_and(redis::RedisError::is_unrecoverable_error) {
            self.connection.borrow_mut().take();
        }
        answer.map_err(|error| PortError::new(&doing, error))
    }

    async fn replication(&self) -> Answer<Replication> {
        let info: String = self.command(&["INFO", "replication"]).await?;
        Ok(parse_replication(&info))
    }

    /// The process, by the pid file that the configuration names.
    fn process(&self) -> Option<i32> {
        let config = std::fs::read_to_string(&self.settings.config_file).ok()?;
        let file = config.lines().find_map(|line| line.trim().strip_prefix("pidfile "))?;
        let pid = std::fs::read_to_string(file.trim().trim_matches('"')).ok()?.trim().parse().ok()?;
        // a stale file may name another server's process by now; Redis shows its port in its title
        let title = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        (is_alive(pid, PROGRAM) && title.contains(&format!(":{}", self.settings.port))).then_some(pid)
    }

    /// Waits until what a replica copied is in its append-only file: until then a crash loses all of it,
    /// although the role survives (measured: promoted right after a full copy and killed, 6 of 6 came up empty).
    async fn data_is_durable(&self) -> Answer<()> {
        loop {
            let info: String = self.command(&["INFO", "persistence"]).await?;
            let is = |field: &str| info.lines().any(|line| line == field);
            let settled = is("aof_rewrite_in_progress:0") && is("aof_rewrite_scheduled:0");
            if is("aof_enabled:0") || (settled && is("aof_last_bgrewrite_status:ok")) {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Work on the files of a stopped Redis, one at a time; whoever waits no longer gives it up.
    async fn on_its_files(
        &self,
        doing: &str,
        work: impl FnOnce(&Progress) -> std::io::Result<()> + Send + 'static,
    ) -> Answer<()> {
        // a call that was given up may still be at it
        let held = self.files.clone().lock_owned().await;
        copying::watch(0, &|_| {}, async |progress| {
            let held_work = move || {
                let done = work(&progress);
                drop(held);
                done
            };
            let done = tokio::task::spawn_blocking(held_work).await;
            let done = done.map_err(|error| PortError::new(doing, error))?;
            done.map_err(|error| PortError::new(doing, error))
        })
        .await
    }

    /// Writes the role into the configuration file, and proves that a restart would keep it.
    async fn make_durable(&self, master: bool) -> Answer<()> {
        self.command::<String>(&["CONFIG", "REWRITE"]).await?;
        let path: &Path = &self.settings.config_file;
        let config = std::fs::read_to_string(path)
            .map_err(|error| PortError::new(&format!("reading {}", path.display()), error))?;
        if names_a_master(&config) == master {
            return Err(PortError(format!(
                "{} does not say what Redis is now: a restart would change its role back",
                path.display()
            )));
        }
        Ok(())
    }
}

#[async_trait(?Send)]
impl RedisPort for LocalRedis {
    async fn measure(&self) -> RedisFacts {
        match self.replication().await {
            Ok(state) => {
                let status = match (state.master, state.linked) {
                    (true, _) => RedisStatus::Master,
                    (false, true) => RedisStatus::Linked,
                    (false, false) => RedisStatus::Unlinked,
                };
                RedisFacts { status, offset: state.offset, detail: String::new() }
            }
            Err(error) => {
                let status =
                    if self.process().is_some() { RedisStatus::Unreachable } else { RedisStatus::Stopped };
                RedisFacts { status, offset: None, detail: error.to_string() }
            }
        }
    }

    async fn start(&self) -> Answer<bool> {
        if self.process().is_some() {
            return Ok(false);
        }
        let mut command = self.settings.run_as.command(&self.settings.program);
        // as a process of its own that outlives the supervisor, whatever the file says
        command.arg(&self.settings.config_file).args(["--daemonize", "yes"]);
        runtime::run(command, "starting Redis", START_LIMIT).await?;
        let answers = async {
            while self.command::<String>(&["PING"]).await.is_err() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(START_LIMIT, answers).await.map_err(|_| {
            PortError(format!("Redis was started and does not answer within {START_LIMIT:?}"))
        })?;
        Ok(true)
    }

    async fn stop(&self) -> Answer<String> {
        let Some(pid) = self.process() else { return Ok("was not running".to_owned()) };
        self.connection.borrow_mut().take();
        for number in [Signal::TERM, Signal::KILL] {
            runtime::signal(pid, number);
            runtime::signal(pid, Signal::CONT);
            if wait_gone(pid, PROGRAM, STOP_PATIENCE).await {
                return Ok(format!("stopped, process {pid} is gone"));
            }
        }
        Err(PortError(format!("Redis, process {pid}, lives on after SIGKILL")))
    }

    async fn promote(&self) -> Answer<String> {
        let before = self.replication().await?;
        if !before.master {
            self.command::<String>(&["REPLICAOF", "NO", "ONE"]).await?;
        }
        // clients that think they talk to a replica must come again
        let ended: i64 = self.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await?;
        if !self.replication().await?.master {
            return Err(PortError("ROLE still says replica after REPLICAOF NO ONE".to_owned()));
        }
        self.make_durable(true).await?;
        self.data_is_durable().await?;
        let was = if before.master { "was a master already" } else { "is a master" };
        let ended = counted(ended, "client connection");
        Ok(format!("{was}; {ended} ended; the role is in its configuration file"))
    }

    async fn hand_over(&self, replica: &Address, limit: Duration) -> Answer<String> {
        let (port, timeout) = (replica.port.to_string(), limit.as_millis().to_string());
        self.command::<String>(&["FAILOVER", "TO", &replica.host, &port, "TIMEOUT", &timeout]).await?;
        // it answers at once, and goes on by itself: to its end, or back to where it was
        let over = async {
            loop {
                let info: String = self.command(&["INFO", "replication"]).await?;
                if info.lines().any(|line| line == "master_failover_state:no-failover") {
                    return Ok::<_, PortError>(parse_replication(&info));
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let late = || Err(PortError(format!("FAILOVER did not end within {limit:?}")));
        let state = tokio::time::timeout(limit + COMMAND_LIMIT, over).await.unwrap_or_else(|_| late())?;
        if state.master {
            return Err(PortError(format!(
                "FAILOVER TO {replica} was given up by Redis: it is still the master"
            )));
        }
        self.make_durable(false).await?;
        Ok(format!("Redis has changed places with {replica}"))
    }

    async fn is_copying(&self) -> bool {
        let info: Answer<String> = self.command(&["INFO", "replication"]).await;
        info.is_ok_and(|info| info.lines().any(|line| line.trim() == "master_sync_in_progress:1"))
    }

    async fn come_back_behind(&self, master: &Address, at: DateTime<Utc>, newest: usize) -> Answer<()> {
        self.stop().await?;
        let master = master.clone();
        let (config_file, user) = (self.settings.config_file.clone(), self.settings.run_as);
        let time = name_of_time(at);
        self.on_its_files("keeping what Redis has, and making it a replica", move |progress| {
            let config = redis_files::read(&config_file, user)?;
            let data = redis_files::data_folder(&config);
            let owed = data.as_deref().map_or(Ok(()), |data| redis_files::owe(data, &time));
            // whatever became of that: from here on it can only start as a replica
            redis_files::follow_from_the_start(&config_file, user, &master)?;
            owed?;
            data.map_or(Ok(()), |data| redis_files::keep(&data, &time, newest, progress).map(drop))
        })
        .await
    }

    async fn keep_what_is_owed(&self) -> Answer<()> {
        let config_file = self.settings.config_file.clone();
        if self.process().is_some() {
            return Ok(());
        }
        self.on_its_files("keeping what Redis has, before it becomes a replica", move |progress| {
            let config = std::fs::read_to_string(&config_file)?;
            match redis_files::data_folder(&config) {
                Some(data) if names_a_master(&config) => redis_files::keep_what_is_owed(&data, progress),
                _ => Ok(()),
            }
        })
        .await
    }

    async fn kept_at(&self, at: DateTime<Utc>) -> Option<PathBuf> {
        let config = std::fs::read_to_string(&self.settings.config_file).ok()?;
        let place = redis_files::kept_copies(&redis_files::data_folder(&config)?).join(name_of_time(at));
        place.is_dir().then_some(place)
    }

    async fn follow(&self, master: &Address) -> Answer<String> {
        self.command::<String>(&["REPLICAOF", &master.host, &master.port.to_string()]).await?;
        self.make_durable(false).await?;
        Ok(format!("replica of {master}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_still_copies_is_not_linked() {
        let info = |sync: u8| {
            format!("role:slave\r\nmaster_link_status:up\r\nmaster_sync_in_progress:{sync}\r\nslave_repl_offset:42\r\n")
                .replace('\r', "")
        };
        assert!(!parse_replication(&info(1)).linked);
        let state = parse_replication(&info(0));
        assert!(state.linked && !state.master);
        assert_eq!(state.offset, Some(42));
    }

    #[test]
    fn a_role_left_in_the_configuration_file_is_found() {
        assert!(names_a_master("port 1\nreplicaof 127.0.0.1 6379\n"));
        assert!(!names_a_master("port 1\n# replicaof 127.0.0.1 6379\nreplica-read-only yes\n"));
    }
}
