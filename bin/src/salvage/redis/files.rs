//! The files for a database's keys: for people and for `redis-cli --pipe`. Each file is made when its first key comes.

use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
    path::Path,
};

use chrono::{DateTime, SecondsFormat};

use super::{
    super::{SalvageError, output::create},
    session::words,
    value::readable,
};

/// The most letters of a key that are shown.
const LONGEST_KEY: usize = 300;

/// One version of a key, for people.
pub(super) struct Shown<'a> {
    /// `TYPE`.
    pub(super) kind: &'a str,
    /// When it expires, in milliseconds since 1970.
    pub(super) expires: Option<i64>,
    /// A short form of its value.
    pub(super) value: String,
}

impl Shown<'_> {
    fn in_fields(&self) -> String {
        let expires = self.expires.and_then(DateTime::from_timestamp_millis);
        let expires = expires.map_or_else(
            || "never expires".to_owned(),
            |at| format!("expires {}", at.to_rfc3339_opts(SecondsFormat::Millis, true)),
        );
        format!("{}\t{expires}\t{}", self.kind, self.value)
    }
}

/// The files of one database.
pub(super) struct DatabaseFiles<'a> {
    folder: &'a Path,
    database: u64,
    missing: Option<BufWriter<File>>,
    commands: Option<BufWriter<File>>,
    conflicts: Option<BufWriter<File>>,
    made: Vec<String>,
}

impl<'a> DatabaseFiles<'a> {
    /// No file is made yet.
    pub(super) fn new(folder: &'a Path, database: u64) -> Self {
        Self { folder, database, missing: None, commands: None, conflicts: None, made: Vec::new() }
    }

    /// A key that the new main lacks, with its value as `DUMP` gives it.
    pub(super) fn missing(
        &mut self,
        key: &[u8],
        shown: &Shown<'_>,
        payload: &[u8],
    ) -> Result<(), SalvageError> {
        self.try_missing(key, shown, payload).map_err(|error| self.failed(&error))
    }

    /// A key that differs on the new main: both versions.
    pub(super) fn conflict(
        &mut self,
        key: &[u8],
        kept: &Shown<'_>,
        main: &Shown<'_>,
    ) -> Result<(), SalvageError> {
        self.try_conflict(key, kept, main).map_err(|error| self.failed(&error))
    }

    /// Completes the files, and returns their names.
    pub(super) fn finish(mut self) -> Result<Vec<String>, SalvageError> {
        self.try_finish().map_err(|error| self.failed(&error))?;
        Ok(self.made)
    }

    fn failed(&self, error: &io::Error) -> SalvageError {
        SalvageError::Failed(format!("writing the keys of Redis' database {}: {error}", self.database))
    }

    fn create(&mut self, end: &str, head: &[u8]) -> io::Result<BufWriter<File>> {
        let name = format!("redis-{}.{end}", self.database);
        let mut file = BufWriter::new(create(&self.folder.join(&name))?);
        file.write_all(head)?;
        self.made.push(name);
        Ok(file)
    }

    fn try_missing(&mut self, key: &[u8], shown: &Shown<'_>, payload: &[u8]) -> io::Result<()> {
        let mut missing = match self.missing.take() {
            Some(missing) => missing,
            None => self.create("missing.txt", b"# database\tkey\ttype\ttime to live\tvalue\n")?,
        };
        writeln!(missing, "{}\t{}\t{}", self.database, readable(key, LONGEST_KEY), shown.in_fields())?;
        self.missing = Some(missing);
        let mut commands = match self.commands.take() {
            Some(commands) => commands,
            None => {
                let select = words(&["SELECT", &self.database.to_string()]);
                self.create("missing.resp", &select.get_packed_command())?
            }
        };
        commands.write_all(&restore(key, shown.expires, payload))?;
        self.commands = Some(commands);
        Ok(())
    }

    fn try_conflict(&mut self, key: &[u8], kept: &Shown<'_>, main: &Shown<'_>) -> io::Result<()> {
        let mut conflicts = match self.conflicts.take() {
            Some(conflicts) => conflicts,
            None => self.create("conflicts.txt", b"# version\tdatabase\tkey\ttype\ttime to live\tvalue\n")?,
        };
        for (version, shown) in [("kept", kept), ("main", main)] {
            let key = readable(key, LONGEST_KEY);
            writeln!(conflicts, "{version}\t{}\t{key}\t{}", self.database, shown.in_fields())?;
        }
        self.conflicts = Some(conflicts);
        Ok(())
    }

    fn try_finish(&mut self) -> io::Result<()> {
        let files = [self.missing.take(), self.commands.take(), self.conflicts.take()];
        for file in files.into_iter().flatten() {
            file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        }
        Ok(())
    }
}

/// The command that creates a key. Without `REPLACE`, Redis refuses it if the key exists.
fn restore(key: &[u8], expires: Option<i64>, payload: &[u8]) -> Vec<u8> {
    let mut command = redis::cmd("RESTORE");
    command.arg(key).arg(expires.unwrap_or_default()).arg(payload).arg("ABSTTL");
    command.get_packed_command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_overwritten_and_keeps_its_time_to_live() {
        let command = restore(b"k\r\n", Some(1_790_000_000_000), b"\0\xff");
        let expected: &[u8] =
            b"*5\r\n$7\r\nRESTORE\r\n$3\r\nk\r\n\r\n$13\r\n1790000000000\r\n$2\r\n\0\xff\r\n$6\r\nABSTTL\r\n";
        assert_eq!(command, expected);
    }
}
