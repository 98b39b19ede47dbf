//! A server that is known by the folder in which it works, and by the port or the file that it shows: Redis. A pid file proves
//! nothing there: it may be missing, stale, or name another server's process.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{Identity, Process, RunAs, kernel::processes_in};

/// The server of a program that works in its data folder.
#[derive(Debug)]
pub struct InFolder {
    /// The program.
    pub program: PathBuf,
    /// Its port.
    pub port: u16,
    /// Its configuration file.
    pub config_file: PathBuf,
    /// The user that reads this file.
    pub user: RunAs,
    /// Reads the data folder from the configuration file, each time: the file may have changed.
    pub data_folder: fn(&Path, RunAs) -> Option<PathBuf>,
}

impl InFolder {
    fn numbers(&self) -> Vec<i32> {
        let program = self.program.file_name().and_then(|name| name.to_str());
        let folder = (self.data_folder)(&self.config_file, self.user);
        folder.zip(program).map_or_else(Vec::new, |(folder, program)| processes_in(&folder, program))
    }
}

impl Identity for InFolder {
    fn find(&self) -> Option<Process> {
        let numbers = self.numbers();
        // a child process writes a snapshot
        let is_child = |process: &Process| process.parent().is_some_and(|parent| numbers.contains(&parent));
        self.processes().into_iter().find(|process| !is_child(process))
    }

    fn processes(&self) -> Vec<Process> {
        let is_own = |process: &Process| may_be(&process.shown_as(), &self.config_file, self.port);
        self.numbers().into_iter().filter_map(Process::of).filter(is_own).collect()
    }
}

/// Whether two paths lead to the same file.
#[must_use]
pub fn is_same_file(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => one == other,
    }
}

/// Whether a process with this title may be the server of a file and a port: the title has its port, or its arguments.
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
    }
}
