//! Redis' own configuration file, for values that are needed while Redis does not run.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// How deep files may include each other; deeper is a loop.
const DEPTH: usize = 8;

/// The settings of a configuration file and its included files. A later line wins, as in Redis.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConfigFile(Vec<(String, String)>);

impl ConfigFile {
    /// # Errors
    /// It cannot be read.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let mut lines = Vec::new();
        read_into(path, &mut lines, DEPTH)?;
        Ok(Self(lines))
    }

    #[cfg(test)]
    pub(crate) fn of(text: &str) -> Self {
        Self(text.lines().filter_map(line).collect())
    }

    /// The value of a setting, without quotes.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether Redis would start with it as a replica.
    pub(crate) fn names_a_master(&self) -> bool {
        let last = self.0.iter().rev().find(|(key, _)| is_upstream(key));
        last.is_some_and(|(_, value)| !value.eq_ignore_ascii_case("no one"))
    }

    /// The folder of its data. The supervisor starts Redis in `/`.
    pub(crate) fn data_folder(&self) -> PathBuf {
        Path::new("/").join(self.value("dir").unwrap_or_default())
    }

    /// Whether it keeps an append-only file.
    pub(crate) fn appends(&self) -> bool {
        self.value("appendonly").is_some_and(|value| value.eq_ignore_ascii_case("yes"))
    }

    /// How long Redis itself waits for its replicas before it ends: since 7.0, 10 s unless the file says otherwise.
    pub(crate) fn shutdown_timeout(&self) -> Duration {
        let seconds = self.value("shutdown-timeout").and_then(|value| value.parse().ok());
        Duration::from_secs(seconds.unwrap_or(10))
    }
}

/// Whether a keyword names a replica's master.
pub(crate) fn is_upstream(keyword: &str) -> bool {
    keyword.eq_ignore_ascii_case("replicaof") || keyword.eq_ignore_ascii_case("slaveof")
}

fn read_into(path: &Path, lines: &mut Vec<(String, String)>, depth: usize) -> io::Result<()> {
    let text = fs::read(path)?;
    for (key, value) in String::from_utf8_lossy(&text).lines().filter_map(line) {
        match key.as_str() {
            "include" if depth > 0 => {
                // a pattern for several files is not followed: a running Redis is asked for such settings
                let included = Path::new("/").join(&value);
                if included.is_file() {
                    read_into(&included, lines, depth - 1)?;
                }
            }
            _ => lines.push((key, value)),
        }
    }
    Ok(())
}

fn line(text: &str) -> Option<(String, String)> {
    let text = text.trim();
    if text.starts_with('#') {
        return None;
    }
    let (key, value) = text.split_once(char::is_whitespace)?;
    let value = value.trim();
    let quoted = ['"', '\''].into_iter().find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
    let value = quoted.map_or_else(|| value.split_whitespace().collect::<Vec<_>>().join(" "), str::to_owned);
    Some((key.to_ascii_lowercase(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_left_in_the_configuration_file_is_found_however_it_is_written() {
        let names_a_master = |text: &str| ConfigFile::of(text).names_a_master();
        assert!(names_a_master("port 1\nreplicaof 127.0.0.1 6379\n"));
        assert!(names_a_master("\tSlaveOf\t127.0.0.1\t6379"));
        assert!(!names_a_master("replicaof 127.0.0.1 6379\nreplicaof no  one"));
        assert!(!names_a_master("port 1\n# replicaof 127.0.0.1 6379\nreplica-read-only yes\n"));
    }

    #[test]
    fn the_last_line_counts_and_included_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let (file, more) = (folder.path().join("redis.conf"), folder.path().join("more.conf"));
        fs::write(&more, "dir '/var/lib/it is'\nAppendOnly yes\n").unwrap();
        fs::write(&file, format!("dir /nowhere\ninclude {}\nport 1\ninclude /etc/*.none\n", more.display()))
            .unwrap();
        let config = ConfigFile::read(&file).unwrap();
        assert_eq!((config.data_folder(), config.appends()), ("/var/lib/it is".into(), true));
        assert_eq!(config.shutdown_timeout(), Duration::from_secs(10));
        assert_eq!(ConfigFile::of("port 1").data_folder(), Path::new("/"));
        // a circle ends
        fs::write(&more, format!("include {}\n", more.display())).unwrap();
        ConfigFile::read(&file).unwrap();
    }
}
