//! The adapter for Redis: commands through one owned connection, start and stop with its own program.

mod config_file;
mod data_files;
mod info;
pub mod rights;
mod snapshot;
mod stopping;
mod who;

use std::{
    cell::{Cell, RefCell},
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use interrex_events::{Address, RedisStatus};
use interrex_projections::counted;
use redis::{
    ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, RedisError, RedisResult,
    aio::MultiplexedConnection,
};
use tokio::sync::Mutex;

use crate::no_reply;

pub(crate) use self::config_file::{ConfigFile, is_upstream};
use interrex_actors::{
    env::{Env as _, SystemEnv},
    ports::{Answer, NoReply, PortError, RedisEnd, RedisHandover, RedisPort},
    wire::RedisFacts,
};

use self::{
    data_files::DataFiles,
    info::Replication,
    snapshot::{Held, OnDisk},
    who::Who,
};
use super::copying::{self, Progress};
use crate::runtime::{InFolder, Instance, Program, RunAs, Runtime};

/// Time limit for one command, or a connection.
const COMMAND_LIMIT: Duration = Duration::from_secs(2);
/// Time limit for a start.
const START_LIMIT: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(10);

/// How to reach and run the local server.
#[derive(Clone)]
pub struct RedisSettings {
    /// Its configuration file, which it rewrites itself.
    pub config_file: PathBuf,
    /// The program.
    pub program: PathBuf,
    /// What runs it.
    pub runtime: Rc<dyn Runtime>,
    /// Host.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Password.
    pub password: Option<crate::secret::Secret>,
    /// How long a stop may make no progress.
    pub stop_timeout: Duration,
    /// The addresses of the other nodes' Redis.
    pub others: Vec<Address>,
}

/// The adapter.
pub struct LocalRedis {
    settings: RedisSettings,
    connection: RefCell<Option<MultiplexedConnection>>,
    /// The commands that the server of that connection refuses to the supervisor.
    lacks: RefCell<Vec<String>>,
    /// It, as it was last seen, and the folder in which it worked.
    seen: RefCell<Option<Instance>>,
    folder: RefCell<Option<PathBuf>>,
    /// Why it does not run, if this supervisor is the reason.
    told: RefCell<String>,
    /// Whether a start was asked for and not made: a replica has more data, or the old process was still ending.
    wanted: Cell<bool>,
    /// Locked by the only thread that works on its files.
    files: Arc<Mutex<()>>,
}

/// Opens a connection that does not reconnect by itself, because a reconnect would hide problems from a health check.
///
/// # Errors
/// The server's or the system's message.
pub async fn connect(
    host: &str,
    port: u16,
    password: Option<&str>,
) -> Result<MultiplexedConnection, NoReply> {
    open(host, port, password, Some(COMMAND_LIMIT)).await.map_err(|error| no_reply::of_redis(&error))
}

async fn open(
    host: &str,
    port: u16,
    password: Option<&str>,
    limit: Option<Duration>,
) -> RedisResult<MultiplexedConnection> {
    let mut server = RedisConnectionInfo::default();
    if let Some(password) = password {
        server = server.set_password(password);
    }
    let info: ConnectionInfo =
        ConnectionAddr::Tcp(host.to_owned(), port).into_connection_info()?.set_redis_settings(server);
    let client = redis::Client::open(info)?;
    let config = redis::AsyncConnectionConfig::new()
        .set_connection_timeout(Some(COMMAND_LIMIT))
        .set_response_timeout(limit);
    let opening = client.get_multiplexed_async_connection_with_config(&config);
    // a server that hangs accepts a connection, and does not answer
    let opened = tokio::time::timeout(COMMAND_LIMIT, opening).await;
    opened.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
}

/// The addresses of a name now; none if they cannot be resolved.
async fn addresses(host: &str, port: u16) -> Vec<IpAddr> {
    let looking = tokio::time::timeout(COMMAND_LIMIT, tokio::net::lookup_host((host, port)));
    let found = looking.await.ok().and_then(Result::ok).into_iter().flatten();
    found.map(|address| address.ip().to_canonical()).collect()
}

/// Whether two addresses belong to one server, as far as names show.
async fn is_same_place(one: &Address, other: &Address) -> bool {
    if one.port != other.port {
        return false;
    }
    if one.host.eq_ignore_ascii_case(&other.host) {
        return true;
    }
    let others = addresses(&other.host, other.port).await;
    addresses(&one.host, one.port).await.iter().any(|address| others.contains(address))
}

/// The name of the folder of a copy that was kept at this time.
fn name_of_time(at: DateTime<Utc>) -> String {
    at.format("%Y%m%dT%H%M%SZ").to_string()
}

impl RedisSettings {
    /// How the process of this Redis is known, with the program that it has and the user that owns its files.
    #[must_use]
    pub fn identity(program: &Path, config_file: &Path, port: u16, user: RunAs) -> InFolder {
        let data_folder = |file: &Path, user: RunAs| {
            // Redis does not use a file that its user cannot read
            user.act(|| ConfigFile::read(file)).ok().map(|config| config.data_folder())
        };
        InFolder { program: program.to_owned(), port, config_file: config_file.to_owned(), user, data_folder }
    }
}

impl LocalRedis {
    /// Makes an adapter that connects at the first request.
    #[must_use]
    pub fn new(settings: RedisSettings) -> Self {
        Self {
            settings,
            connection: RefCell::default(),
            lacks: RefCell::default(),
            seen: RefCell::default(),
            folder: RefCell::default(),
            told: RefCell::default(),
            wanted: Cell::default(),
            files: Arc::default(),
        }
    }

    async fn open(&self, limit: Option<Duration>) -> RedisResult<MultiplexedConnection> {
        let settings = &self.settings;
        open(&settings.host, settings.port, settings.password.as_deref(), limit).await
    }

    async fn query<T: redis::FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let existing = self.connection.borrow().clone();
        let mut connection = match existing {
            Some(connection) => connection,
            None => {
                let mut fresh = self.open(Some(COMMAND_LIMIT)).await?;
                // its rights change with its configuration, and so with its restart
                let lacks = rights::lacking(&mut fresh).await?;
                self.lacks.replace(lacks);
                *self.connection.borrow_mut() = Some(fresh.clone());
                fresh
            }
        };
        let mut command = redis::cmd(words.first().copied().unwrap_or_default());
        for word in words.iter().skip(1) {
            command.arg(*word);
        }
        let answer = command.query_async(&mut connection).await;
        if answer.as_ref().is_err_and(RedisError::is_unrecoverable_error) {
            self.connection.borrow_mut().take();
        }
        answer
    }

    async fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> Answer<T> {
        self.query(words).await.map_err(|error| PortError::new(&format!("Redis: {}", words.join(" ")), error))
    }

    async fn replication(&self) -> Answer<Replication> {
        let info: String = self.command(&["INFO", "replication"]).await?;
        Ok(Replication::read(&info))
    }

    fn config(&self) -> io::Result<ConfigFile> {
        // Redis does not use a file that its user cannot read
        let path = &self.settings.config_file;
        self.settings.runtime.user().act(|| ConfigFile::read(path))
    }

    fn configuration(&self) -> Answer<ConfigFile> {
        let path = &self.settings.config_file;
        self.config().map_err(|error| PortError::new(&format!("reading {}", path.display()), error))
    }

    /// Its data files: in the folder where it last worked, or in the configured folder.
    fn data(&self) -> Answer<DataFiles> {
        let config = self.configuration()?;
        let folder = self.folder.borrow().clone();
        let folder = match folder {
            Some(folder) => folder,
            None => self.data_folder()?,
        };
        Ok(DataFiles::of(&config, folder))
    }

    /// Its configured data folder, as this machine sees it.
    fn data_folder(&self) -> Answer<PathBuf> {
        let folder = self.configuration()?.data_folder();
        self.settings.runtime.outside(&folder).ok_or_else(|| {
            PortError(format!(
                "{} names the data folder {}, which this machine does not see",
                self.settings.config_file.display(),
                folder.display()
            ))
        })
    }

    /// Waits until it has loaded its data: until then it refuses nearly every command.
    async fn has_loaded(&self) -> Answer<()> {
        while let Err(error) = self.query::<String>(&["PING"]).await {
            if error.code() != Some("LOADING") {
                return Err(PortError::new("asking Redis whether it is ready", error));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Waits until the data that a replica copied is in its append-only file: until then a crash loses all data, although the role
    /// survives (MEASURED M18).
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

    /// Works on the files of a stopped Redis, one call at a time. When this future is dropped, the work is cancelled.
    async fn on_its_files(
        &self,
        doing: &str,
        work: impl FnOnce(&Progress) -> io::Result<()> + Send + 'static,
    ) -> Answer<()> {
        // a call that was given up may still be working
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
        if self.configuration()?.names_a_master() == master {
            return Err(PortError(format!(
                "{} does not have the new role of Redis: a restart would change the role back",
                self.settings.config_file.display()
            )));
        }
        Ok(())
    }

    /// Why it must not be started as a master, if it would be one: a replica has data that its disk lacks. A replica that does not
    /// answer cannot be compared.
    async fn is_behind_a_replica(&self) -> Answer<Option<String>> {
        let config = self.configuration()?;
        if config.names_a_master() {
            return Ok(None);
        }
        let on_disk = self.settings.runtime.user().act(|| OnDisk::look(&config));
        let on_disk = on_disk.map_err(|error| PortError::new("examining the files of Redis", error))?;
        for address in &self.settings.others {
            let asking = async {
                let password = self.settings.password.as_deref();
                let mut connection = open(&address.host, address.port, password, Some(COMMAND_LIMIT)).await?;
                let mut info = async |section: &str| -> RedisResult<String> {
                    redis::cmd("INFO").arg(section).query_async(&mut connection).await
                };
                Ok(Held::read(&info("replication").await?, &info("keyspace").await?))
            };
            let held: RedisResult<Held> = asking.await;
            let now = SystemEnv.moment().wall.timestamp();
            if let Some(why) = held.ok().and_then(|held| on_disk.lacks_what_it_holds(&held, now)) {
                return Ok(Some(snapshot::refusal(&self.settings.config_file, address, &why)));
            }
        }
        Ok(None)
    }

    async fn start_if_stopped(&self) -> Answer<bool> {
        match self.who().await {
            Who::Nobody => {}
            Who::Ours(_) => {
                // a process that is ending is started again once it has ended
                self.wanted.set(!self.take_writes().await);
                return Ok(false);
            }
            Who::Other(words) => return Err(PortError(words)),
        }
        let behind = self.is_behind_a_replica().await?;
        self.wanted.set(behind.is_some());
        if let Some(words) = behind {
            return Err(PortError(words));
        }
        let runtime = &self.settings.runtime;
        let mut server = Program::new(&self.settings.program);
        // a process of its runtime that stays in the foreground, with any configuration
        server.arg(runtime.inside(&self.settings.config_file)).args(["--daemonize", "no"]);
        let begin = runtime.output_end();
        let started = runtime.start(&server).await?;
        tokio::select! {
            answer = self.answers() => answer?,
            () = runtime.gone(&started) => {
                let output = runtime.output_since(begin);
                let last = output.lines().rev().find(|line| !line.trim().is_empty());
                return Err(PortError(format!(
                    "Redis was started and ended: {}; see its log {}",
                    last.unwrap_or("it wrote no message to its output"),
                    self.log_name()
                )));
            }
            () = tokio::time::sleep(START_LIMIT) => {
                return Err(PortError(format!(
                    "Redis was started and did not answer within {START_LIMIT:?}: see its log {}",
                    self.log_name()
                )));
            }
        }
        self.told.borrow_mut().clear();
        Ok(true)
    }

    /// Where its messages are: the file that its configuration names, or its output.
    fn log_name(&self) -> String {
        let config = self.configuration().unwrap_or_default();
        let named = config.value("logfile").filter(|file| !file.is_empty());
        named.map_or_else(|| self.settings.runtime.output_name(), str::to_owned)
    }

    /// Waits until it answers or loads its data, which may take long.
    async fn answers(&self) -> Answer<()> {
        loop {
            match self.query::<String>(&["PING"]).await {
                Ok(_) => return Ok(()),
                Err(error) => match error.code() {
                    Some("LOADING") => return Ok(()),
                    // an answer that will not change by itself
                    Some(_) => {
                        return Err(PortError::new("Redis was started, but refuses the supervisor", error));
                    }
                    None => tokio::time::sleep(LOOK).await,
                },
            }
        }
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
                self.told.borrow_mut().clear();
                self.wanted.set(false);
                let upstream = state.upstream.map(|(host, port)| Address::new(host, port));
                RedisFacts {
                    offset: state.offset,
                    upstream,
                    lacks: self.lacks.borrow().clone(),
                    ..RedisFacts::silent(status, "")
                }
            }
            Err(error) => match self.who().await {
                Who::Ours(_) => RedisFacts::silent(RedisStatus::Unreachable, error.to_string()),
                Who::Other(words) => RedisFacts::silent(RedisStatus::Unreachable, words),
                Who::Nobody => {
                    let told = self.told.borrow().clone();
                    let alarm = !told.is_empty();
                    let words = if alarm { told } else { error.to_string() };
                    RedisFacts { alarm, ..RedisFacts::silent(RedisStatus::Stopped, words) }
                }
            },
        }
    }

    async fn start(&self) -> Answer<bool> {
        let started = self.start_if_stopped().await;
        if let Err(error) = &started {
            self.told.replace(error.to_string());
        }
        started
    }

    async fn stop(&self) -> Answer<RedisEnd> {
        self.end().await
    }

    async fn take_no_writes(&self) -> Answer<String> {
        LocalRedis::take_no_writes(self).await
    }

    async fn promote(&self) -> Answer<String> {
        self.has_loaded().await?;
        let before = self.replication().await?;
        if !before.master {
            self.command::<String>(&["REPLICAOF", "NO", "ONE"]).await?;
        }
        self.take_writes().await;
        // clients that think they talk to a replica must reconnect
        let ended: i64 = self.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await?;
        if !self.replication().await?.master {
            return Err(PortError("Redis is still a replica after REPLICAOF NO ONE".to_owned()));
        }
        self.make_durable(true).await?;
        self.data_is_durable().await?;
        let was = if before.master { "was a master already" } else { "is a master" };
        let ended = counted(ended, "client connection");
        Ok(format!("{was}; {ended} ended; the role is in its configuration file"))
    }

    async fn hand_over(&self, replica: &Address, limit: Duration) -> Answer<RedisHandover> {
        let Address { host, port } = replica;
        let before = self.replication().await?;
        // a failover under way was begun by a supervisor that died: Redis ends it by itself
        if !before.changes_places {
            let target = match before.replica_at(host, &addresses(host, *port).await, *port) {
                Ok(target) => target,
                Err(known) => {
                    let words = format!("Redis has no replica at {replica}: {known}");
                    return Ok(RedisHandover::Refused(words));
                }
            };
            let (port, timeout) = (target.port.to_string(), limit.as_millis().to_string());
            let order = ["FAILOVER", "TO", &target.host, &port, "TIMEOUT", &timeout];
            match self.query::<String>(&order).await {
                Ok(_) => {}
                Err(error) if error.code().is_some() => {
                    let words = format!("FAILOVER TO {} {port}: {error}", target.host);
                    return Ok(RedisHandover::Refused(words));
                }
                Err(error) => return Err(PortError::new("FAILOVER", error)),
            }
        }
        // Redis answers at once, and continues by itself: to the end, or back to the old roles
        let over = async {
            loop {
                let state = self.replication().await?;
                if !state.changes_places {
                    return Ok::<_, PortError>(state);
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let late = || Err(PortError(format!("FAILOVER did not end within {limit:?}")));
        let state = tokio::time::timeout(limit + COMMAND_LIMIT, over).await.unwrap_or_else(|_| late())?;
        if state.master {
            let words = format!("Redis gave up FAILOVER TO {replica}: it is still the master");
            return Ok(RedisHandover::Refused(words));
        }
        self.make_durable(false).await?;
        Ok(RedisHandover::Done(format!("Redis has changed places with {replica}")))
    }

    async fn is_same_server(&self, one: &Address, other: &Address) -> bool {
        is_same_place(one, other).await
    }

    async fn is_copying(&self) -> bool {
        self.replication().await.is_ok_and(|state| state.copying)
    }

    async fn prepare_to_follow(
        &self,
        master: &Address,
        at: DateTime<Utc>,
        newest: usize,
    ) -> Answer<RedisEnd> {
        // after this its data is on its disk
        let end = self.end().await?;
        let master = master.clone();
        let (config_file, user) = (self.settings.config_file.clone(), self.settings.runtime.user());
        let (time, data) = (name_of_time(at), self.data()?);
        self.on_its_files("keeping a copy of Redis' data, and making it a replica", move |progress| {
            let owed = data_files::note_pending(&data, &time);
            // even after an error: from here on it can only start as a replica
            data_files::follow_from_the_start(&config_file, user, &master)?;
            owed?;
            data_files::keep(&data, &time, newest, progress).map(drop)
        })
        .await?;
        Ok(end)
    }

    async fn keep_pending(&self) -> Answer<()> {
        if !matches!(self.who().await, Who::Nobody) || !self.configuration()?.names_a_master() {
            return Ok(());
        }
        let data = self.data()?;
        self.on_its_files("keeping a copy of Redis' data before it becomes a replica", move |progress| {
            data_files::keep_pending(&data, progress)
        })
        .await
    }

    async fn kept_at(&self, at: DateTime<Utc>) -> Option<PathBuf> {
        let place = self.data().ok()?.kept_copies().join(name_of_time(at));
        place.is_dir().then_some(place)
    }

    async fn follow(&self, master: &Address) -> Answer<String> {
        self.has_loaded().await?;
        self.command::<String>(&["REPLICAOF", &master.host, &master.port.to_string()]).await?;
        self.make_durable(false).await?;
        self.take_writes().await;
        Ok(format!("replica of {master}"))
    }

    fn waits_for_a_start(&self) -> bool {
        self.wanted.get() || self.data().is_ok_and(|data| data_files::is_pending(&data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_place_has_many_spellings() {
        let same = async |one: &str, other: &str| {
            let (one, other): (Address, Address) = (one.parse().unwrap(), other.parse().unwrap());
            is_same_place(&one, &other).await
        };
        assert!(same("127.0.0.1:1", "127.0.0.1:1").await);
        assert!(same("[::ffff:127.0.0.1]:1", "127.0.0.1:1").await);
        assert!(same("localhost:1", "127.0.0.1:1").await);
        assert!(!same("127.0.0.1:1", "127.0.0.1:2").await);
        assert!(!same("127.0.0.1:1", "127.0.0.2:1").await);
    }
}
