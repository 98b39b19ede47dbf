//! The result of a salvage, for people and programs.

use std::path::{Path, PathBuf};

use interrex_actors::ports::ForkReport;
use interrex_projections::counted;
use serde::Serialize;

use crate::harmless::harmless;

fn shown(path: &Path) -> String {
    harmless(&path.display().to_string())
}

/// The result for one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableSummary {
    /// `database.schema.table`.
    pub table: String,
    /// Rows that transactions after the switchpoint left there.
    pub rows: u64,
    /// Rows whose key the new main lacks.
    pub inserts: u64,
    /// Rows whose key the new main has with other values. The new main has the remaining rows unchanged.
    pub conflicts: u64,
    /// The names of their files in the output folder.
    pub files: Vec<String>,
}

impl TableSummary {
    pub(super) fn of(table: String) -> Self {
        Self { table, rows: 0, inserts: 0, conflicts: 0, files: Vec::new() }
    }
}

/// A table that was not compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// `database.schema.table`; `database.*` for a whole database.
    pub table: String,
    /// Why it was not compared.
    pub reason: String,
    /// Rows that transactions after the switchpoint left there; nothing if they could not be counted.
    pub rows: Option<u64>,
    /// The names of their files in the output folder.
    pub files: Vec<String>,
    /// Whether the rows could not be read or written. Other tables are not affected.
    pub failed: bool,
}

impl LeftOut {
    /// A table whose rows could not be read or written.
    pub(super) fn trouble(table: String, reason: impl std::fmt::Display) -> Self {
        Self { table, reason: reason.to_string(), rows: None, files: Vec::new(), failed: true }
    }

    fn in_words(&self) -> String {
        let Self { table, reason, rows, files, .. } = self;
        let rows = match rows {
            Some(rows) => format!("{} written after the switchpoint", counted(rows, "row")),
            None => "its rows were not counted".to_owned(),
        };
        let files = if files.is_empty() { String::new() } else { format!(", in {}", files.join(", ")) };
        format!("  {}: {}; {rows}{files}\n", harmless(table), harmless(reason))
    }
}

/// Large objects that transactions after the switchpoint wrote to, in one database. They are not written out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LargeObjects {
    /// Name of the database.
    pub database: String,
    /// How many.
    pub objects: u64,
    /// The numbers of some of them.
    pub examples: Vec<String>,
}

/// The result for PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PostgresSummary {
    /// The kept data directory.
    pub kept: PathBuf,
    /// The new main, `host:port`.
    pub main: String,
    /// Both servers' system identifier.
    pub system_identifier: String,
    /// The fork report: what only the old main's WAL has.
    pub fork: ForkReport,
    /// Tables that were read.
    pub tables_read: u64,
    /// The tables in which transactions after the switchpoint left rows.
    pub tables: Vec<TableSummary>,
    /// The tables that were not compared.
    pub left_out: Vec<LeftOut>,
    /// Large objects that are not written out.
    pub large_objects: Vec<LargeObjects>,
    /// Rows whose key the new main lacks, in all tables.
    pub inserts: u64,
    /// Rows that the new main has with other values, in all tables.
    pub conflicts: u64,
}

impl PostgresSummary {
    /// Whether there are stranded rows that the output does not have.
    pub(super) fn is_incomplete(&self) -> bool {
        self.left_out.iter().any(|table| table.failed) || !self.large_objects.is_empty()
    }

    fn in_words(&self) -> String {
        let mut fork = self.fork.clone();
        fork.name_relations(|relation| relation.name.as_deref().map(harmless));
        let mut words = format!(
            "{}\n\n{} stranded, {} in conflict with the new main at {}; {} read\n",
            fork.in_words(),
            counted(self.inserts, "row"),
            self.conflicts,
            self.main,
            counted(self.tables_read, "table"),
        );
        for TableSummary { table, rows, inserts, conflicts, .. } in &self.tables {
            words.push_str(&format!(
                "  {}: {} written after the switchpoint, {inserts} stranded, {conflicts} in conflict\n",
                harmless(table),
                counted(rows, "row")
            ));
        }
        let list = |heading: &str, failed: bool| {
            let of = self.left_out.iter().filter(|table| table.failed == failed);
            let lines: String = of.map(LeftOut::in_words).collect();
            if lines.is_empty() { lines } else { format!("\n{heading}\n{lines}") }
        };
        words.push_str(&list("could not be read or written:", true));
        words.push_str(&list("left out:", false));
        if !self.large_objects.is_empty() {
            words.push_str("\nlarge objects, which are not written out (see README.txt):\n");
        }
        for LargeObjects { database, objects, examples } in &self.large_objects {
            words.push_str(&format!(
                "  {}: {} written to after the switchpoint, such as {}\n",
                harmless(database),
                counted(objects, "large object"),
                examples.join(", ")
            ));
        }
        words
    }
}

/// The result for one database of Redis.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DatabaseSummary {
    /// Its number.
    pub database: u64,
    /// Keys that were read, including keys that were left out. While Redis shrinks its table, SCAN may return a key twice: then it
    /// counts twice.
    pub keys: u64,
    /// Keys that the new main lacks.
    pub missing: u64,
    /// Keys that the new main has with another value.
    pub conflicts: u64,
    /// Keys that the new main has with the same value and another time to live.
    pub other_expiry: u64,
    /// The names of their files in the output folder.
    pub files: Vec<String>,
}

/// Keys that were not compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOutKeys {
    /// Number of their database.
    pub database: u64,
    /// Why they were not compared.
    pub reason: String,
    /// How many.
    pub keys: u64,
    /// An example.
    pub example: Option<String>,
}

/// The result for Redis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RedisSummary {
    /// The kept folder.
    pub kept: PathBuf,
    /// The name of what was read there: an append-only folder or file, or a snapshot.
    pub source: String,
    /// The new main's Redis, `host:port`.
    pub main: String,
    /// The databases whose keys were compared.
    pub databases: Vec<DatabaseSummary>,
    /// The keys that were not compared.
    pub left_out: Vec<LeftOutKeys>,
    /// Keys that were read, in all databases: as [`DatabaseSummary::keys`].
    pub keys: u64,
    /// Keys that the new main lacks, in all databases.
    pub missing: u64,
    /// Keys that the new main has with another value, in all databases.
    pub conflicts: u64,
    /// Keys that the new main has with the same value and another time to live, in all databases.
    pub other_expiry: u64,
    /// Kept keys whose time to live is over: no loss, and not compared. A Redis before version 7 does not count such keys in a
    /// snapshot.
    pub expired: u64,
}

impl RedisSummary {
    fn in_words(&self) -> String {
        let mut words = format!(
            "Redis: {} missing, {} with another value than on the new main at {}, {} with another time to live; \
             {} read from {}, {} had expired\n",
            counted(self.missing, "key"),
            self.conflicts,
            self.main,
            self.other_expiry,
            counted(self.keys, "key"),
            self.source,
            self.expired,
        );
        for DatabaseSummary { database, keys, missing, conflicts, other_expiry, .. } in &self.databases {
            words.push_str(&format!(
                "  database {database}: {}, {missing} missing, {conflicts} with another value, \
                 {other_expiry} with another time to live\n",
                counted(keys, "key")
            ));
        }
        if !self.left_out.is_empty() {
            words.push_str("\nleft out of Redis:\n");
        }
        for LeftOutKeys { database, reason, keys, example } in &self.left_out {
            let example =
                example.as_ref().map(|key| format!(", such as {}", harmless(key))).unwrap_or_default();
            let reason = harmless(reason);
            words.push_str(&format!("  database {database}: {}{example}: {reason}\n", counted(keys, "key")));
        }
        words
    }
}

/// Whether the kept files are unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CheckedFiles {
    /// Files that are as they were copied.
    pub sound: u64,
    /// Files that were changed or removed.
    pub damaged: Vec<PathBuf>,
}

impl CheckedFiles {
    fn in_words(&self) -> String {
        let Self { sound, damaged } = self;
        if damaged.is_empty() {
            return match sound {
                1 => "1 kept file is as it was copied\n".to_owned(),
                _ => format!("{sound} kept files are as they were copied\n"),
            };
        }
        let named = damaged.iter().map(|file| format!("  {}\n", shown(file)));
        format!(
            "{} of {} kept files were changed or removed after they were copied; the results below may be incomplete:\n{}",
            damaged.len(),
            sound + damaged.len() as u64,
            named.collect::<String>()
        )
    }
}

/// The result of a salvage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The result for the kept files, if a rejoin left checksums.
    pub checked: Option<CheckedFiles>,
    /// The result for PostgreSQL, if its data directory was named. In JSON its fields are fields of the summary.
    #[serde(flatten)]
    pub postgres: Option<PostgresSummary>,
    /// The result for Redis, if its folder was named.
    pub redis: Option<RedisSummary>,
    /// The folder with the files.
    pub output: PathBuf,
}

impl Summary {
    /// Whether a table could not be read or written. The summary names it; the other tables are complete.
    #[must_use]
    pub fn has_trouble(&self) -> bool {
        self.postgres.as_ref().is_some_and(|postgres| postgres.left_out.iter().any(|table| table.failed))
    }

    /// The summary as a text for people.
    #[must_use]
    pub fn in_words(&self) -> String {
        let postgres = self.postgres.as_ref().map(PostgresSummary::in_words);
        let redis = self.redis.as_ref().map(RedisSummary::in_words);
        let checked = self.checked.as_ref().map(CheckedFiles::in_words);
        checked.into_iter().chain(postgres).chain(redis).collect::<Vec<_>>().join("\n")
    }

    /// The text of README.txt.
    pub(super) fn readme(&self) -> String {
        let postgres =
            self.postgres.as_ref().map(|it| ("Rows", format!("data directory {}", shown(&it.kept))));
        let redis = self.redis.as_ref().map(|it| ("Keys", format!("Redis folder {}", shown(&it.kept))));
        let kept: String = [&postgres, &redis]
            .into_iter()
            .flatten()
            .map(|(what, kept)| format!("{what} that only the old main has, from the kept {kept}\n"))
            .collect();
        let about_postgres = if self.postgres.is_some() { ABOUT_POSTGRES } else { "" };
        let about_redis = if self.redis.is_some() { ABOUT_REDIS } else { "" };
        format!("{kept}\n{}\n{NOTHING_APPLIED}{about_postgres}{about_redis}", self.in_words())
    }
}

const NOTHING_APPLIED: &str = "\
Nothing of this was applied anywhere. The counts above are also in summary.json, for programs.
";

const ABOUT_POSTGRES: &str = "
PostgreSQL: files, for each table with such rows:

  NAME.inserts.sql    rows whose primary key the new main lacks, as INSERT statements in one transaction
  NAME.inserts.csv    the same rows, for reading; NULL is an empty field, an empty text is \"\"
  NAME.conflicts.csv  rows whose key the new main has with other values: a line `kept`, then a line `main`
  NAME.rows.csv       all rows of a table that was not compared, see `left out` above: the new main may have some of them

Before you apply inserts, know that:

- A row that was changed on the old main and has since been deleted on the new main also looks like an insert.
- Rows that were deleted on the old main after the switchpoint are still on the new main. Only their number is known.
- Triggers fire and foreign keys are checked: apply the tables in the order in which they refer to each other.
- Sequences do not move by themselves; the end of each SQL file has the command that moves one.
- Only differences are listed: a row that was changed twice and equals the new main's row is not a conflict.
- The new main took writes while it was read. Apply soon, or salvage again.
- A statement fails if the new main has a conflicting row for another unique constraint or an exclusion constraint.
- A value whose bytes are not text is written in hexadecimal digits: in CSV as \\x..., in SQL as convert_from(...).
- Interrex's own tables of the schema `interrex` are left out. Foreign and unlogged tables are left out too, because their
  rows are not in the WAL.
- Large objects are not written out. To get one, start a server on a copy of the kept directory, and run there:
  psql --command '\\lo_export NUMBER FILE'
";

const ABOUT_REDIS: &str = "
Redis: files, for each database N with such keys:

  redis-N.missing.txt    keys that the new main lacks, one a line, for reading
  redis-N.missing.resp   the same keys with their whole values and times to live, as RESTORE commands
  redis-N.conflicts.txt  keys that the new main has with another value or time to live: a line `kept`, then a line `main`

To apply the missing keys of a database, on the new main:

  redis-cli -h HOST -p PORT --pipe < redis-N.missing.resp

A key that exists there by then is not overwritten: Redis answers BUSYKEY. Conflicts are never applied.

Before you apply them, know that:

- Redis has no log that shows when a key was written. Every key is compared as it is now, including keys that did not differ
  when the nodes parted.
- A key that has since been deleted or has expired on the new main looks missing; review the list before you apply it.
- Conflicts include every key that has since been changed on the new main.
- Keys that were deleted on the old main in its last moments are still on the new main, and are not listed.
- A key whose time to live is over is no loss: it is counted as expired. A key that expires before you apply it is not created.
- Data that the old main had not written to its files when it died is lost (appendfsync).
- If the folder has an append-only file, that file is read; a snapshot in the same folder is not.
- Times to live within a second of each other count as the same; those of single fields of a hash, and the owners and
  times of pending entries of streams, are not compared.
- A key whose value takes more than 512 MiB of memory, on the old main or the new one, is not compared: it is counted
  above as left out.
- A Redis that is older than the kept one may refuse values (\"DUMP payload version or checksum are wrong\").
- The new main took writes while it was read. Apply soon, or salvage again.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_others_chose_steer_no_terminal() {
        let evil = "db.public.esc\x1b[31mRED\x1b[2J\n  forged: 0 rows";
        let fork: ForkReport = serde_json::from_value(serde_json::json!({
            "timeline": 1, "switchpoint": "0/3000000", "end": "0/3000100", "bytes": 256, "records": 2, "committed": 1,
            "aborted": 0, "unfinished": 0, "first_commit": null, "last_commit": null, "incomplete": false, "end_of_log": "",
            "relations": [{
                "tablespace": 1663, "database": 5, "file": 16_385, "name": evil, "inserts": 1, "updates": 0, "deletes": 0
            }]
        }))
        .unwrap();
        let postgres = PostgresSummary {
            kept: format!("/kept/{evil}").into(),
            main: "beta:5432".to_owned(),
            system_identifier: "7".to_owned(),
            fork,
            tables_read: 1,
            tables: vec![TableSummary::of(evil.to_owned())],
            left_out: vec![
                LeftOut::trouble(evil.to_owned(), evil),
                LeftOut { failed: false, ..LeftOut::trouble(evil.to_owned(), evil) },
            ],
            large_objects: vec![LargeObjects {
                database: evil.to_owned(),
                objects: 1,
                examples: vec!["1".to_owned()],
            }],
            inserts: 1,
            conflicts: 0,
        };
        let redis = RedisSummary {
            kept: "/redis".into(),
            source: "dump.rdb".to_owned(),
            main: "beta:6379".to_owned(),
            databases: Vec::new(),
            left_out: vec![LeftOutKeys {
                database: 0,
                reason: evil.to_owned(),
                keys: 1,
                example: Some(evil.to_owned()),
            }],
            keys: 1,
            missing: 0,
            conflicts: 0,
            other_expiry: 0,
            expired: 0,
        };
        let checked = Some(CheckedFiles { sound: 1, damaged: vec![evil.into()] });
        let summary =
            Summary { checked, postgres: Some(postgres), redis: Some(redis), output: "/output".into() };
        for text in [summary.in_words(), summary.readme()] {
            assert!(text.contains("RED"), "{text}");
            assert!(!text.contains(|letter: char| letter.is_control() && letter != '\n'), "{text:?}");
            assert!(!text.lines().any(|line| line.starts_with("  forged")), "{text}");
        }
        // what programs read stays exact
        assert_eq!(serde_json::to_value(&summary).unwrap()["tables"][0]["table"], evil);
    }
}
