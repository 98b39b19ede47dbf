//! Finds a server's configuration: in its data directory, or elsewhere, as Debian keeps it in `/etc/postgresql/VERSION/NAME`.
//!
//! `postgres -C` shows the values that a server would really use. This module reads a file for values that are needed before a
//! server is chosen, or without the 10 ms that a process takes.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use interrex_actors::ports::Answer;

use super::{PostgresSettings, START_LIMIT};
use crate::{
    guarded,
    runtime::{Program, RunAs},
};

/// Debian's clusters: a folder for each version, and in it a folder for each cluster.
pub const DEBIAN: &str = "/etc/postgresql";
/// The name of the file.
pub const NAME: &str = "postgresql.conf";
/// The default folder of the socket of Debian's PostgreSQL.
const DEBIAN_SOCKETS: &str = "/var/run/postgresql";
/// The folder of PostgreSQL's programs on Debian.
const DEBIAN_PROGRAMS: &str = "/usr/lib/postgresql";
/// With these the server's sessions drop its protection from the kernel's OOM killer, as `pg_ctlcluster` of Debian does.
const OOM_SETTINGS: [(&str, &str); 2] =
    [("PG_OOM_ADJUST_FILE", "/proc/self/oom_score_adj"), ("PG_OOM_ADJUST_VALUE", "0")];

/// How deep files may include each other, as in PostgreSQL.
const DEPTH: u32 = 10;

/// The configuration file of `/etc/postgresql` that names a data directory as its own.
#[must_use]
pub fn of_debian(data_dir: &Path) -> Option<PathBuf> {
    below(Path::new(DEBIAN), data_dir)
}

/// The same search below another folder.
#[must_use]
pub fn below(folder: &Path, data_dir: &Path) -> Option<PathBuf> {
    let inside = |folder: &Path| {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        paths.sort_unstable();
        paths
    };
    let files =
        inside(folder).into_iter().flat_map(|version| inside(&version)).map(|cluster| cluster.join(NAME));
    files
        .into_iter()
        .find(|file| value(file, "data_directory").is_some_and(|named| is_same(Path::new(&named), data_dir)))
}

/// Whether two paths lead to the same folder.
#[must_use]
pub fn is_same(one: &Path, other: &Path) -> bool {
    one == other || one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}

/// The value of a setting in a configuration file and its included files: the last line counts.
#[must_use]
pub fn value(file: &Path, name: &str) -> Option<String> {
    let mut found = None;
    read(file, DEPTH, &mut |key, value| {
        if key.eq_ignore_ascii_case(name) {
            found = Some(value);
        }
    });
    found
}

fn read(file: &Path, depth: u32, told: &mut dyn FnMut(&str, String)) {
    let Some(depth) = depth.checked_sub(1) else { return };
    let text = fs::read(file).unwrap_or_default();
    let folder = file.parent().unwrap_or(Path::new("/"));
    for (name, value) in lines(&String::from_utf8_lossy(&text)) {
        match name.to_ascii_lowercase().as_str() {
            "include" | "include_if_exists" => read(&folder.join(value), depth, told),
            "include_dir" => {
                let entries = fs::read_dir(folder.join(value)).into_iter().flatten().flatten();
                let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
                files.retain(|file| {
                    file.extension().is_some_and(|ending| ending == "conf")
                        && !file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
                });
                files.sort_unstable();
                files.iter().for_each(|file| read(file, depth, told));
            }
            _ => told(name, value),
        }
    }
}

/// The lines `name = value` of a text; `=` and quotation marks may be left out.
fn lines(text: &str) -> impl Iterator<Item = (&str, String)> {
    text.lines().filter_map(|line| {
        let line = line.trim_start();
        let is_part = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == '.';
        let end = line.find(|letter| !is_part(letter)).unwrap_or(line.len());
        let (name, rest) = line.split_at(end);
        let rest = rest.trim_start();
        let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
        (!name.is_empty() && !rest.is_empty()).then(|| (name, unquoted(rest)))
    })
}

fn unquoted(text: &str) -> String {
    let Some(quoted) = text.strip_prefix('\'') else {
        return text
            .split(|letter: char| letter.is_whitespace() || letter == '#')
            .next()
            .unwrap_or_default()
            .to_owned();
    };
    let mut value = String::new();
    let mut letters = quoted.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\'' if letters.peek() == Some(&'\'') => value.extend(letters.next()),
            '\'' => break,
            '\\' => value.extend(letters.next()),
            letter => value.push(letter),
        }
    }
    value
}

impl PostgresSettings {
    /// `postgres` with the arguments that decide which configuration it reads: for a start, a recovery and a query of a setting.
    #[must_use]
    pub fn server(&self) -> Program {
        self.server_in(&self.data_dir, &[])
    }

    /// The same with the real folder of the data directory, and with arguments that must come first.
    pub(super) fn server_in(&self, data_dir: &Path, first: &[&str]) -> Program {
        let mut command = Program::new(self.bin_dir.join("postgres"));
        command.args(first).args(self.which_configuration(data_dir));
        // the kernel must end a session before the server: the protection of this process is not for sessions
        for (name, otherwise) in OOM_SETTINGS {
            command.env(name, std::env::var_os(name).unwrap_or_else(|| otherwise.into()));
        }
        if let Some(file) = &self.config_file {
            // as Debian's own start does
            let environment = fs::read(file.with_file_name("environment")).unwrap_or_default();
            command.envs(lines(&String::from_utf8_lossy(&environment)));
        }
        command
    }

    fn which_configuration(&self, data_dir: &Path) -> Vec<OsString> {
        let mut words = vec!["-D".into(), self.runtime.inside(data_dir).into_os_string()];
        let Some(file) = &self.config_file else { return words };
        let mut set = |name: &str, file: &Path| {
            let mut assignment = OsString::from(format!("{name}="));
            assignment.push(self.runtime.inside(file));
            words.extend(["-c".into(), assignment]);
        };
        set("config_file", file);
        // PostgreSQL would look for these in the data directory, and Debian's own start looks next to the file
        for (name, beside) in [("hba_file", "pg_hba.conf"), ("ident_file", "pg_ident.conf")] {
            let beside = file.with_file_name(beside);
            if value(file, name).is_none() && beside.is_file() {
                set(name, &beside);
            }
        }
        words
    }

    /// The value that a setting has at the next start, as PostgreSQL reports it.
    ///
    /// # Errors
    /// The reason why the server would not start with its configuration files.
    pub async fn at_next_start(&self, name: &str) -> Answer<String> {
        let mut command = self.server();
        command.env("LC_ALL", "C").args(["-C", name]);
        self.runtime.output_of(&command, &format!("postgres -C {name}"), START_LIMIT).await
    }

    /// Makes folders in `/run` again that a restart of the machine removed: the folder of the socket, and the folder of statistics
    /// up to PostgreSQL 14. Only root can; otherwise PostgreSQL reports what is missing.
    pub(super) fn make_folders_in_run(&self) -> io::Result<()> {
        let user = self.runtime.user();
        if user == RunAs::Myself {
            return Ok(());
        }
        let files = [self.data_dir.join("postgresql.auto.conf"), self.settings_file()];
        let set = |name: &str| files.iter().find_map(|file| value(file, name));
        let by_default = || self.bin_dir.starts_with(DEBIAN_PROGRAMS).then(|| DEBIAN_SOCKETS.to_owned());
        let sockets = set("unix_socket_directories").or_else(by_default).unwrap_or_default();
        let statistics = set("stats_temp_directory").unwrap_or_default();
        for folder in sockets.split(',').map(str::trim).chain([statistics.as_str()]) {
            if self.runtime.outside(Path::new(folder)).as_deref() != Some(Path::new(folder)) {
                continue; // the server sees another `/run`
            }
            let in_run = ["/run/", "/var/run/"].iter().any(|run| folder.starts_with(run));
            if !in_run || Path::new(folder).exists() || folder.contains("..") {
                continue;
            }
            // the folder above may belong to the servers' user
            guarded::create_open_folder(Path::new(folder), user)?;
        }
        Ok(())
    }

    fn settings_file(&self) -> PathBuf {
        self.config_file.clone().unwrap_or_else(|| self.data_dir.join(NAME))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_read_with_what_the_file_includes_and_the_last_line_counts() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("conf.d")).unwrap();
        fs::write(at("conf.d/b.conf"), "port = 5499 # here\n").unwrap();
        fs::write(at("conf.d/a.conf"), "port 1\n").unwrap();
        fs::write(at("conf.d/.hidden.conf"), "port = 2\n").unwrap();
        fs::write(at("more.conf"), "Data_Directory='/it''s here/\\'15'#x\n").unwrap();
        let text = "#port = 3\nport = 4\ninclude_dir = 'conf.d'\ninclude 'more.conf'\ninclude_if_exists 'gone'\nssl=on\n";
        fs::write(at(NAME), text).unwrap();
        let value = |name: &str| value(&at(NAME), name);
        assert_eq!(value("port").as_deref(), Some("5499"));
        assert_eq!(value("data_directory").as_deref(), Some("/it's here/'15"));
        assert_eq!((value("ssl").as_deref(), value("hba_file")), (Some("on"), None));
        fs::write(at("round.conf"), "include 'round.conf'\nport = 6\n").unwrap();
        assert_eq!(super::value(&at("round.conf"), "port").as_deref(), Some("6"));
    }

    #[test]
    fn debians_file_is_found_by_the_data_directory_that_it_names() {
        let folder = tempfile::tempdir().unwrap();
        let (etc, data) = (folder.path().join("etc"), folder.path().join("data"));
        for (name, named) in [("14/main", "/elsewhere"), ("15/main", data.to_str().unwrap())] {
            fs::create_dir_all(etc.join(name)).unwrap();
            fs::write(etc.join(name).join(NAME), format!("data_directory = '{named}'\n")).unwrap();
        }
        let file = etc.join("15/main").join(NAME);
        assert_eq!(below(&etc, &data), Some(file.clone()));
        fs::create_dir(&data).unwrap();
        std::os::unix::fs::symlink(&data, folder.path().join("link")).unwrap();
        assert_eq!(below(&etc, &folder.path().join("link")), Some(file));
        assert_eq!((below(&etc, Path::new("/other")), below(Path::new("/none"), &data)), (None, None));
    }
}
