//! What was found, for people and programs.

use std::path::{Path, PathBuf};

use interrex_actors::ports::ForkReport;
use interrex_projections::counted;
use serde::Serialize;

use crate::harmless::harmless;

fn shown(path: &Path) -> String {
    harmless(&path.display().to_string())
}

/// What was found in one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableSummary {
    /// `database.schema.table`.
    pub table: String,
    /// Rows that transactions after the switchpoint left there.
    pub rows: u64,
    /// Those whose key the new main lacks.
    pub inserts: u64,
    /// Those whose key the new main has with other values. The rest it has as they are.
    pub conflicts: u64,
    /// Where they are, in the output folder.
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
    /// `database.schema.table`; of a whole database `database.*`.
    pub table: String,
    /// Why.
    pub reason: String,
    /// Rows that transactions after the switchpoint left there; nothing where they could not be counted.
    pub rows: Option<u64>,
    /// Where they are, in the output folder.
    pub files: Vec<String>,
    /// Whether they could not be read or written. The other tables' were.
    pub failed: bool,
}

impl LeftOut {
    /// One whose rows could not be read or written.
    pub(super) fn trouble(table: String, reason: impl std::fmt::Display) -> Self {
        Self { table, reason: reason.to_string(), rows: None, files: Vec::new(), failed: true }
    }

    fn in_words(&self) -> String {
        let Self { table, reason, rows, files, .. } = self;
        let rows = match rows {
            Some(rows) => format!("{} written after the switchpoint", counted(rows, "row")),
            None => "its rows are not counted".to_owned(),
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
    /// Numbers of some.
    pub examples: Vec<String>,
}

/// What was found of PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PostgresSummary {
    /// The kept data directory.
    pub kept: PathBuf,
    /// The new main, `host:port`.
    pub main: String,
    /// Both servers' system identifier.
    pub system_identifier: String,
    /// What only the old main's log has.
    pub fork: ForkReport,
    /// Tables that were read.
    pub tables_read: u64,
    /// Those of them in which transactions after the switchpoint left rows.
    pub tables: Vec<TableSummary>,
    /// Those that were not compared.
    pub left_out: Vec<LeftOut>,
    /// Large objects that are not written out.
    pub large_objects: Vec<LargeObjects>,
    /// Rows whose key the new main lacks, in all tables.
    pub inserts: u64,
    /// Rows that the new main has with other values, in all tables.
    pub conflicts: u64,
}

impl PostgresSummary {
    /// Whether rows are left that are not in the output.
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

/// What was found in one database of Redis.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DatabaseSummary {
    /// Its number.
    pub database: u64,
    /// Keys that were looked at, also those that were then left out. One that is shown twice by a table of keys that
    /// shrinks meanwhile counts twice.
    pub keys: u64,
    /// Those that the new main lacks.
    pub missing: u64,
    /// Those that the new main has with another value.
    pub conflicts: u64,
    /// Those that the new main has with the same value and another time to live.
    pub other_expiry: u64,
    /// Where they are, in the output folder.
    pub files: Vec<String>,
}

/// Keys that were not compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOutKeys {
    /// Number of their database.
    pub database: u64,
    /// Why.
    pub reason: String,
    /// How many.
    pub keys: u64,
    /// One of them.
    pub example: Option<String>,
}

/// What was found of Redis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RedisSummary {
    /// The kept folder.
    pub kept: PathBuf,
    /// What of it was read: an append-only folder or file, or a snapshot.
    pub source: String,
    /// The new main's Redis, `host:port`.
    pub main: String,
    /// Databases with keys that were compared.
    pub databases: Vec<DatabaseSummary>,
    /// Keys that were not.
    pub left_out: Vec<LeftOutKeys>,
    /// Keys that were looked at, in all databases: as [`DatabaseSummary::keys`].
    pub keys: u64,
    /// Keys that the new main lacks, in all databases.
    pub missing: u64,
    /// Keys that the new main has with another value, in all databases.
    pub conflicts: u64,
    /// Keys that the new main has with the same value and another time to live, in all databases.
    pub other_expiry: u64,
    /// Keys that were kept and whose time is over: no loss, and not compared. A Redis before version 7 does not
    /// count those that it finds in a snapshot.
    pub expired: u64,
}

impl RedisSummary {
    fn in_words(&self) -> String {
        let mut words = format!(
            "Redis: {} missing, {} with another value than on the new main at {}, {} with another time to live; \
             {} looked at in {}, {} had expired\n",
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

/// Whether what was kept is still what it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CheckedFiles {
    /// Files that are as they were copied.
    pub sound: u64,
    /// Files that are not: changed, or gone.
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
            "{} of {} kept files are no longer as they were copied; what follows may lack some of it:\n{}",
            damaged.len(),
            sound + damaged.len() as u64,
            named.collect::<String>()
        )
    }
}

/// What a salvage found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Of the kept files, if there are checksums of them.
    pub checked: Option<CheckedFiles>,
    /// Of PostgreSQL, if its data directory was named; its fields stand beside the others.
    #[serde(flatten)]
    pub postgres: Option<PostgresSummary>,
    /// Of Redis, if its folder was named.
    pub redis: Option<RedisSummary>,
    /// The folder with the files.
    pub output: PathBuf,
}

impl Summary {
    /// Whether something could not be read or written. It is named, and the rest is there.
    #[must_use]
    pub fn has_trouble(&self) -> bool {
        self.postgres.as_ref().is_some_and(|postgres| postgres.left_out.iter().any(|table| table.failed))
    }

    /// For people.
    #[must_use]
    pub fn in_words(&self) -> String {
        let postgres = self.postgres.as_ref().map(PostgresSummary::in_words);
        let redis = self.redis.as_ref().map(RedisSummary::in_words);
        let checked = self.checked.as_ref().map(CheckedFiles::in_words);
        checked.into_iter().chain(postgres).chain(redis).collect::<Vec<_>>().join("\n")
    }

    /// The page that lies beside the files.
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
Nothing of this was applied anywhere. The counts above are in summary.json too, for programs.
";

const ABOUT_POSTGRES: &str = "
PostgreSQL: files, for each table with such rows:

  NAME.inserts.sql    rows whose primary key the new main lacks, as INSERT statements in one transaction
  NAME.inserts.csv    the same rows, for reading; NULL is an empty field, an empty text is \"\"
  NAME.conflicts.csv  rows whose key the new main has with other values: a line `kept`, then a line `main`
  NAME.rows.csv       all rows of a table that was not compared, see `left out` above: the new main may have some of them

Before you apply inserts, know that:

- A row that was changed on the old main, and has since been deleted on the new one, looks like an insert too.
- Rows that were deleted on the old main after the switchpoint are still on the new main. Only their number is known.
- Triggers fire and foreign keys are checked: apply the tables in the order in which they refer to each other.
- Sequences do not move by themselves; the end of each SQL file says how to move one.
- Only what differs is listed: a row that was changed twice and looks like the new main's is no conflict.
- The new main went on while it was read. Apply soon, or salvage again.
- A statement fails where the new main has another row for a unique or exclusion constraint beside the primary key.
- A value whose bytes are no text is written in hexadecimal digits: in CSV as \\x..., in SQL as convert_from(...).
- Tables of the schema `interrex` that are Interrex's own are left out, and so are foreign and unlogged tables, whose rows
  no log has.
- Large objects are not written out. To get one, start a server on a copy of the kept directory, and there:
  psql --command '\\lo_export NUMBER FILE'
";

const ABOUT_REDIS: &str = "
Redis: files, for each database N with such keys:

  redis-N.missing.txt    keys that the new main lacks, one a line, for reading
  redis-N.missing.resp   the same keys with their whole values and times to live, as RESTORE commands
  redis-N.conflicts.txt  keys that the new main has with another value or time to live: a line `kept`, then a line `main`

To apply the missing keys of a database, on the new main:

  redis-cli -h HOST -p PORT --pipe < redis-N.missing.resp

A key that exists there by then is not overwritten: its line says BUSYKEY. Conflicts are never applied.

Before you do, know that:

- Redis has no log that tells when a key was written. Every key is compared as it is now, also those that never differed
  when the nodes parted.
- A key that was deleted, or has expired, on the new main since looks missing; review the list before you apply it.
- Conflicts include every key that the new main has changed since.
- Keys that were deleted on the old main in its last moments are still on the new main, and are not listed.
- A key whose time is over is no loss: it is counted as expired. One that expires before you apply it is not made.
- What the old main had not written to its files when it died is in no copy (appendfsync).
- Where the folder holds an append-only file it is read, and a snapshot beside it is not.
- Times to live within a second of each other count as the same; those of single fields of a hash, and the owners and
  times of pending entries of streams, are not compared.
- A key whose value takes more than 512 MiB of memory, on the old main or the new one, is not compared: it is counted
  above as left out.
- A Redis that is older than the kept one may refuse values (\"DUMP payload version or checksum are wrong\").
- The new main went on while it was read. Apply soon, or salvage again.
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
