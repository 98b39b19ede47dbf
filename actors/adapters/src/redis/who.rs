//! Which process serves on Redis' port. A pid file proves nothing: it may be missing, stale, or name another server's process.

use std::{io, path::Path};

use interrex_actors::ports::{Answer, PortError};
use tokio::net::TcpStream;

use super::{COMMAND_LIMIT, LocalRedis, info::field};
use crate::runtime::{Instance, is_same_file};

/// Which process it is.
#[derive(Debug)]
pub(super) enum Who {
    /// Nothing answers on the port, and no process of this Redis lives.
    Nobody,
    /// This Redis.
    Ours(Instance),
    /// Something else, or unknown: the supervisor does not touch it. The message for people.
    Other(String),
}

impl LocalRedis {
    /// Asks the server on the port first; without an answer, looks for processes that work in Redis' folder.
    pub(super) async fn who(&self) -> Who {
        let error = match self.server_info().await {
            Ok(info) => return self.judge(&info).await,
            Err(error) => error,
        };
        if let Some(instance) = self.known().await {
            self.seen.replace(Some(instance.clone()));
            return Who::Ours(instance);
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

    /// The instance that was seen last, or that its runtime finds.
    async fn known(&self) -> Option<Instance> {
        let seen = self.seen.borrow().clone();
        if let Some(seen) = seen
            && self.settings.runtime.lives(&seen).await
        {
            return Some(seen);
        }
        self.settings.runtime.find().await
    }

    /// Notes an instance that has answered, and the folder in which it works: before its answer it may not be there yet.
    async fn answered(&self, instance: Instance) -> Who {
        if let Some(folder) = self.settings.runtime.folder(&instance).await {
            self.folder.replace(Some(folder));
        }
        self.seen.replace(Some(instance.clone()));
        Who::Ours(instance)
    }

    /// `INFO server` through a new connection: an old one may belong to a process that has ended.
    async fn server_info(&self) -> Answer<String> {
        let asking = async {
            let mut connection = self.open(Some(COMMAND_LIMIT)).await?;
            redis::cmd("INFO").arg("server").query_async(&mut connection).await
        };
        asking.await.map_err(|error: redis::RedisError| PortError::new("asking Redis who it is", error))
    }

    async fn judge(&self, info: &str) -> Who {
        let (own, runtime) = (&self.settings.config_file, &self.settings.runtime);
        let (host, port) = (&self.settings.host, self.settings.port);
        let number = field(info, "process_id").and_then(|pid| pid.parse().ok());
        // the configured program, or the program that Redis itself reports
        let programs = [Some(self.settings.program.as_path()), field(info, "executable").map(Path::new)];
        let programs: Vec<&Path> = programs.into_iter().flatten().collect();
        let instance = match number {
            Some(number) => runtime.numbered(number, &programs).await,
            None => None,
        };
        let file = field(info, "config_file").unwrap_or_default();
        let is_own = match (file, &instance) {
            // started without a file, for example by hand: its folder decides
            ("", Some(instance)) => self.works_in_its_folder(instance).await,
            (file, _) => runtime.outside(Path::new(file)).is_some_and(|file| is_same_file(&file, own)),
        };
        match instance {
            Some(instance) if is_own => self.answered(instance).await,
            _ => Who::Other(format!(
                "another Redis serves on {host} port {port} (process {}, configuration {}), not the Redis of {}. The supervisor \
                 does not touch it. Stop it, or correct redis.port and redis.config_file",
                number.map_or("unknown".to_owned(), |pid| pid.to_string()),
                if file.is_empty() { "unknown" } else { file },
                own.display()
            )),
        }
    }

    async fn works_in_its_folder(&self, instance: &Instance) -> bool {
        let (folder, works_in) = (self.data_folder(), self.settings.runtime.folder(instance).await);
        folder.ok().zip(works_in).is_some_and(|(folder, works_in)| is_same_file(&works_in, &folder))
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
