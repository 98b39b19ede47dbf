//! Which process serves on Redis' port. A pid file proves nothing: it may be missing, stale, or name another server's process.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use interrex_actors::ports::{Answer, PortError};
use tokio::net::TcpStream;

use super::{COMMAND_LIMIT, LocalRedis, info::field};
use crate::runtime::{self, Process};

/// Which process it is.
#[derive(Debug)]
pub(super) enum Who {
    /// Nothing answers on the port, and no process of this Redis lives.
    Nobody,
    /// This Redis.
    Ours(Process),
    /// Something else, or unknown: the supervisor does not touch it. The message for people.
    Other(String),
}

impl LocalRedis {
    /// Asks the server on the port first; without an answer, looks for processes that work in Redis' folder.
    pub(super) async fn who(&self) -> Who {
        let error = match self.server_info().await {
            Ok(info) => return self.judge(&info),
            Err(error) => error,
        };
        let known = self.seen.borrow().clone().filter(Process::lives);
        if let Some(process) = known.or_else(|| self.by_its_folder()) {
            return self.found(process);
        }
        let (host, port) = (&self.settings.host, self.settings.port);
        match is_silent(host, port).await {
            Ok(true) => Who::Nobody,
            Ok(false) => Who::Other(format!(
                "something answers on {host} port {port}, but no process of the Redis of {} was found here: {error}. The \
                 supervisor does not touch it. Stop it, or correct redis.port, redis.config_file and redis.password_file",
                self.settings.config_file.display()
            )),
            Err(error) => Who::Other(format!(
                "it is not known whether something answers on {host} port {port}: {error}"
            )),
        }
    }

    fn found(&self, process: Process) -> Who {
        if let Some(folder) = process.folder() {
            self.folder.replace(Some(folder));
        }
        self.seen.replace(Some(process.clone()));
        Who::Ours(process)
    }

    /// `INFO server` through a new connection: an old one may belong to a process that has ended.
    async fn server_info(&self) -> Answer<String> {
        let asking = async {
            let mut connection = self.open(Some(COMMAND_LIMIT)).await?;
            redis::cmd("INFO").arg("server").query_async(&mut connection).await
        };
        asking.await.map_err(|error: redis::RedisError| PortError::new("asking Redis who it is", error))
    }

    fn judge(&self, info: &str) -> Who {
        let own = &self.settings.config_file;
        let (host, port) = (&self.settings.host, self.settings.port);
        let number = field(info, "process_id").and_then(|pid| pid.parse().ok());
        let process = number.and_then(Process::of).filter(|process| self.has_its_name(process, info));
        let file = field(info, "config_file").unwrap_or_default();
        let is_own = match file {
            // started without a file, for example by hand: its folder decides
            "" => process.as_ref().is_some_and(|process| self.works_in_its_folder(process)),
            file => is_same_file(Path::new(file), own),
        };
        match process {
            Some(process) if is_own => self.found(process),
            _ => Who::Other(format!(
                "another Redis serves on {host} port {port} (process {}, configuration {}), not the Redis of {}. The supervisor \
                 does not touch it. Stop it, or correct redis.port and redis.config_file",
                number.map_or("unknown".to_owned(), |pid| pid.to_string()),
                if file.is_empty() { "unknown" } else { file },
                own.display()
            )),
        }
    }

    /// Whether its process has the name of the configured program, or of the program that `INFO` reports.
    fn has_its_name(&self, process: &Process, info: &str) -> bool {
        let executable = field(info, "executable").map(Path::new);
        let programs = [Some(self.settings.program.as_path()), executable];
        let name = process.name();
        programs.into_iter().flatten().any(|program| is_name_of(&name, program))
    }

    fn works_in_its_folder(&self, process: &Process) -> bool {
        let folder = self.config().map(|config| config.data_folder());
        folder.is_ok_and(|folder| process.folder().is_some_and(|works_in| is_same_file(&works_in, &folder)))
    }

    /// The process of the configured program that works in Redis' folder and shows no other server's port or file.
    fn by_its_folder(&self) -> Option<Process> {
        let folder = self.config().ok()?.data_folder();
        let program = self.settings.program.file_name()?.to_str()?;
        let numbers = runtime::processes_in(&folder, program);
        let is_own = |process: &Process| {
            let shown = process.shown_as();
            // a child process writes a snapshot
            !process.parent().is_some_and(|parent| numbers.contains(&parent))
                && may_be(&shown, &self.settings.config_file, self.settings.port)
        };
        numbers.iter().filter_map(|pid| Process::of(*pid)).find(is_own)
    }
}

/// The kernel keeps 15 characters of a name.
fn is_name_of(name: &str, program: &Path) -> bool {
    let program = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    !name.is_empty() && name == program.get(..15).unwrap_or(program)
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => one == other,
    }
}

/// Whether a process with this title may be the Redis of a file and a port: the title has its port, or its arguments.
fn may_be(shown: &[String], config_file: &Path, port: u16) -> bool {
    let shown_port = shown.iter().flat_map(|text| text.split_whitespace()).find_map(|word| {
        let (_, number) = word.rsplit_once(':')?;
        number.parse::<u16>().ok()
    });
    let name = |path: &Path| path.file_name().map(std::ffi::OsStr::to_owned);
    match (shown_port, shown.get(1).map(Path::new)) {
        (Some(shown), _) => shown == port,
        (None, Some(file)) if file.is_absolute() => is_same_file(file, config_file),
        // relative to a folder that it has left
        (None, Some(file)) if file.extension().is_some() => name(file) == name(config_file),
        _ => true,
    }
}

/// Whether nothing listens on a port. An error means that it is not known.
async fn is_silent(host: &str, port: u16) -> io::Result<bool> {
    let connecting = tokio::time::timeout(COMMAND_LIMIT, TcpStream::connect((host, port)));
    match connecting.await {
        Ok(Ok(_)) | Err(_) => Ok(false),
        Ok(Err(error)) => match error.kind() {
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable => Ok(true),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_shows_another_port_or_file_is_another_servers() {
        let shows = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            may_be(&words, Path::new("/etc/redis/redis.conf"), 6379)
        };
        assert!(shows(&["redis-server 127.0.0.1:6379"]) && shows(&["redis-server *:6379 [cluster]"]));
        assert!(!shows(&["redis-server 127.0.0.1:6380"]));
        assert!(shows(&["redis-server", "/etc/redis/redis.conf", "--daemonize", "yes"]));
        assert!(
            !shows(&["redis-server", "/etc/redis/other.conf"]) && !shows(&["redis-server", "other.conf"])
        );
        assert!(shows(&["redis-server", "redis.conf"]) && shows(&["redis-server"]));
        assert!(is_name_of("redis-server", Path::new("/usr/bin/redis-server")));
        assert!(
            is_name_of("a-very-long-nam", Path::new("a-very-long-name")) && !is_name_of("", Path::new("/"))
        );
    }

    #[tokio::test]
    async fn a_port_is_silent_only_if_nothing_listens_there() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!is_silent("127.0.0.1", port).await.unwrap());
        drop(listener);
        assert!(is_silent("127.0.0.1", port).await.unwrap());
        assert!(is_silent("no.such.host.invalid", port).await.is_err());
    }
}
