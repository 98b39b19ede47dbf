//! What was found, for people and programs.

use std::path::PathBuf;

use interrex_actors::replication::fork::ForkReport;
use serde::Serialize;

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
    /// `database.schema.table`.
    pub table: String,
    /// Why.
    pub reason: String,
    /// Rows that transactions after the switchpoint left there.
    pub rows: u64,
}

/// What a salvage found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
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
    /// Rows whose key the new main lacks, in all tables.
    pub inserts: u64,
    /// Rows that the new main has with other values, in all tables.
    pub conflicts: u64,
    /// The folder with the files.
    pub output: PathBuf,
}

impl Summary {
    /// For people.
    #[must_use]
    pub fn in_words(&self) -> String {
        let mut words = format!(
            "{}\n\n{} rows stranded, {} in conflict with the new main at {}; {} tables read\n",
            self.fork.in_words(),
            self.inserts,
            self.conflicts,
            self.main,
            self.tables_read,
        );
        for TableSummary { table, rows, inserts, conflicts, .. } in &self.tables {
            words.push_str(&format!(
                "  {table}: {rows} rows written after the switchpoint, {inserts} stranded, {conflicts} in conflict\n"
            ));
        }
        if !self.left_out.is_empty() {
            words.push_str("\nleft out:\n");
        }
        for LeftOut { table, reason, rows } in &self.left_out {
            words.push_str(&format!("  {table}: {reason}; {rows} rows written after the switchpoint\n"));
        }
        words
    }

    /// The page that lies beside the files.
    pub(super) fn readme(&self) -> String {
        format!(
            "Rows that only the old main has, from the kept data directory {}\n\n{}\n{READ_THIS}",
            self.kept.display(),
            self.in_words()
        )
    }
}

const READ_THIS: &str = "\
Nothing of this was applied anywhere. Files, for each table with such rows:

  NAME.inserts.sql    rows whose primary key the new main lacks, as INSERT statements in one transaction
  NAME.inserts.csv    the same rows, for reading; NULL is an empty field, an empty text is \"\"
  NAME.conflicts.csv  rows whose key the new main has with other values: a line `kept`, then a line `main`
  summary.json        the counts above, for programs

Before you apply inserts, know that:

- A row that was changed on the old main, and has since been deleted on the new one, looks like an insert too.
- Rows that were deleted on the old main after the switchpoint are still on the new main. Only their number is known.
- Triggers fire and foreign keys are checked: apply the tables in the order in which they refer to each other.
- Sequences do not move by themselves; the end of each SQL file says how to move one.
- Only what differs is listed: a row that was changed twice and looks like the new main's is no conflict.
- The new main went on while it was read. Apply soon, or salvage again.
- Tables without a primary key, and the schema `interrex`, are left out; Redis is not looked at.
";
