//! The real Redis: commands through one owned connection, start and stop by its own program.

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
    path::PathBuf,
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
use crate::runtime::{self, Process, RunAs};

/// When one command, or a connection, is given up.
const COMMAND_LIMIT: Duration = Duration::from_secs(2);
/// When starting is given up.
const START_LIMIT: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(10);

/// How to reach and handle the local server.
#[derive(Clone)]
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
    /// How long it may get nowhere while it is being stopped.
    pub stop_timeout: Duration,
    /// Where the other nodes' Redis are.
    pub others: Vec<Address>,
}

/// The adapter.
pub struct LocalRedis {
    settings: RedisSettings,
    connection: RefCell<Option<MultiplexedConnection>>,
    /// What the server of that connection does not let the supervisor do.
    lacks: RefCell<Vec<String>>,
    /// Its process, as it was last seen, and the folder that this worked in.
    seen: RefCell<Option<Process>>,
    folder: RefCell<Option<PathBuf>>,
    /// Why it does not run, where that is this supervisor's doing.
    told: RefCell<String>,
    /// Whether a start was asked for and not made: a replica holds more, or the process before was still ending.
    wanted: Cell<bool>,
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
    // a server that hangs takes a connection, and says nothing
    let opened = tokio::time::timeout(COMMAND_LIMIT, opening).await;
    opened.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
}

/// What a name stands for now; nothing where that cannot be told.
async fn addresses(host: &str, port: u16) -> Vec<IpAddr> {
    let looking = tokio::time::timeout(COMMAND_LIMIT, tokio::net::lookup_host((host, port)));
    let found = looking.await.ok().and_then(Result::ok).into_iter().flatten();
    found.map(|address| address.ip().to_canonical()).collect()
}

/// Whether two addresses are one server's, as far as names tell.
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

/// What the folder of a copy that was kept then is called.
fn name_of_time(at: DateTime<Utc>) -> String {
    at.format("%Y%m%dT%H%M%SZ").to_string()
}

impl LocalRedis {
    /// An adapter that connects when it is first asked.
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
                // what it may not do changes with its configuration, and so with a restart of it
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
        // what Redis cannot read, it does not go by
        let path = &self.settings.config_file;
        self.settings.run_as.act(|| ConfigFile::read(path))
    }

    fn configuration(&self) -> Answer<ConfigFile> {
        let path = &self.settings.config_file;
        self.config().map_err(|error| PortError::new(&format!("reading {}", path.display()), error))
    }

    /// Its data files: where it last worked, or where its configuration says.
    fn data(&self) -> Answer<DataFiles> {
        let config = self.configuration()?;
        let folder = self.folder.borrow().clone();
        Ok(DataFiles::of(&config, folder.unwrap_or_else(|| config.data_folder())))
    }

    /// Waits until it has read its data: until then it refuses nearly everything.
    async fn has_loaded(&self) -> Answer<()> {
        while let Err(error) = self.query::<String>(&["PING"]).await {
            if error.code() != Some("LOADING") {
                return Err(PortError::new("asking Redis whether it is ready", error));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Waits until what a replica copied is in its append-only file: until then a crash loses all of it,
    /// although the role survives (MEASURED M18).
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
        work: impl FnOnce(&Progress) -> io::Result<()> + Send + 'static,
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
        if self.configuration()?.names_a_master() == master {
            return Err(PortError(format!(
                "{} does not say what Redis is now: a restart would change its role back",
                self.settings.config_file.display()
            )));
        }
        Ok(())
    }

    /// Why it must not be started as a master, if it would be one: a replica holds what its disk lacks. Who does not answer
    /// holds nothing that anybody could know of.
    async fn is_behind_a_replica(&self) -> Answer<Option<String>> {
        let config = self.configuration()?;
        if config.names_a_master() {
            return Ok(None);
        }
        let on_disk = self.settings.run_as.act(|| OnDisk::look(&config));
        let on_disk =
            on_disk.map_err(|error| PortError::new("looking at what Redis has on its disk", error))?;
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
                // one that was told to end is started once it has
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
        let mut command = self.settings.run_as.command(&self.settings.program);
        // as a process of its own that outlives the supervisor, whatever the file says
        command.arg(&self.settings.config_file).args(["--daemonize", "yes"]);
        runtime::run(command, "starting Redis", START_LIMIT).await?;
        let late = || {
            Err(PortError(format!(
                "Redis was started and does not answer within {START_LIMIT:?}; see its log"
            )))
        };
        tokio::time::timeout(START_LIMIT, self.answers()).await.unwrap_or_else(|_| late())?;
        self.told.borrow_mut().clear();
        Ok(true)
    }

    /// Until it answers, or reads its data: that takes as long as it takes.
    async fn answers(&self) -> Answer<()> {
        loop {
            match self.query::<String>(&["PING"]).await {
                Ok(_) => return Ok(()),
                Err(error) => match error.code() {
                    Some("LOADING") => return Ok(()),
                    // an answer, that will not change by itself
                    Some(_) => return Err(PortError::new("Redis was started, and refuses", error)),
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

    async fn hand_over(&self, replica: &Address, limit: Duration) -> Answer<RedisHandover> {
        let Address { host, port } = replica;
        let before = self.replication().await?;
        // one that a supervisor began which died meanwhile: Redis ends it by itself
        if !before.changes_places {
            let target = match before.replica_at(host, &addresses(host, *port).await, *port) {
                Ok(target) => target,
                Err(known) => {
                    let words = format!("it knows no replica at {replica}: {known}");
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
        // it answers at once, and goes on by itself: to its end, or back to where it was
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
            let words = format!("FAILOVER TO {replica} was given up by Redis: it is still the master");
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

    async fn come_back_behind(&self, master: &Address, at: DateTime<Utc>, newest: usize) -> Answer<RedisEnd> {
        // what it had in memory is on its disk then
        let end = self.end().await?;
        let master = master.clone();
        let (config_file, user) = (self.settings.config_file.clone(), self.settings.run_as);
        let (time, data) = (name_of_time(at), self.data()?);
        self.on_its_files("keeping what Redis has, and making it a replica", move |progress| {
            let owed = data_files::owe(&data, &time);
            // whatever became of that: from here on it can only start as a replica
            data_files::follow_from_the_start(&config_file, user, &master)?;
            owed?;
            data_files::keep(&data, &time, newest, progress).map(drop)
        })
        .await?;
        Ok(end)
    }

    async fn keep_what_is_owed(&self) -> Answer<()> {
        if !matches!(self.who().await, Who::Nobody) || !self.configuration()?.names_a_master() {
            return Ok(());
        }
        let data = self.data()?;
        self.on_its_files("keeping what Redis has, before it becomes a replica", move |progress| {
            data_files::keep_what_is_owed(&data, progress)
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
        self.wanted.get() || self.data().is_ok_and(|data| data_files::is_owed(&data))
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
