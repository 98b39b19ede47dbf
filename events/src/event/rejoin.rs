//! Facts about rejoins: a node comes back as a secondary, and data that only it has are reported and kept.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{handover::Demotion, run::Request, step::StepId};
use crate::{Epoch, Lsn, NodeId};

/// Payload of `rejoin_started`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejoinStarted {
    /// The main.
    pub main: NodeId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Whether to copy main's data directory even if this node's could be rewound.
    pub copy: bool,
    /// What a person asked for; `null` if the rejoin began by itself.
    pub request: Option<Request>,
}

/// What a node has and main lacks, by the node's own WAL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stranded {
    /// The last LSN that both share.
    pub switchpoint: Lsn,
    /// Where the node's WAL ends.
    pub end: Lsn,
    /// Bytes of WAL in between.
    pub bytes: u64,
    /// Transactions that committed in that WAL.
    pub committed: u64,
    /// Rows that they inserted, updated or deleted in users' tables, as far as the WAL after the switchpoint shows:
    /// rows that such a transaction wrote before the switchpoint are not counted. Parts of large values (TOAST),
    /// materialized views and Interrex's own tables count only if main could not name their files.
    pub rows: u64,
    /// When the first of them committed, by the node's clock.
    pub first_commit: Option<DateTime<Utc>>,
    /// When the last of them committed.
    pub last_commit: Option<DateTime<Utc>>,
    /// The tables of these rows; left out if there are none, and by older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<StrandedTables>,
}

/// The rows that a node holds and main lacks, table by table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrandedTables {
    /// The tables with the most rows, largest first; at most 20.
    pub most: Vec<StrandedTable>,
    /// The number of further tables.
    pub more_tables: u64,
    /// Rows in the further tables.
    pub more_rows: u64,
    /// Why main could not name every table; `null` if it could.
    pub not_asked: Option<String>,
}

/// The changes of one table that a node has and main lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrandedTable {
    /// The table with its schema, by its name on main; `null` if main has no such file or could not be asked.
    pub table: Option<String>,
    /// Its database, likewise.
    pub database: Option<String>,
    /// Its file in the node's data directory, as the WAL names it.
    pub file: String,
    /// Whether main has no such file: the table was created or rewritten on one of the nodes after they diverged, or
    /// main dropped it.
    pub main_lacks_it: bool,
    /// Rows inserted.
    pub inserted: u64,
    /// Rows updated.
    pub updated: u64,
    /// Rows deleted.
    pub deleted: u64,
}

impl StrandedTable {
    /// Rows inserted, updated or deleted.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.inserted.saturating_add(self.updated).saturating_add(self.deleted)
    }
}

impl StrandedTables {
    /// How many tables are named one by one.
    pub const MOST: usize = 20;

    /// Sorts the tables by rows, largest first, and adds up those beyond [`Self::MOST`]. `None` if there are no tables.
    #[must_use]
    pub fn of(mut tables: Vec<StrandedTable>, not_asked: Option<String>) -> Option<Self> {
        if tables.is_empty() {
            return None;
        }
        // tables with as many rows keep their order
        tables.sort_by_key(|table| std::cmp::Reverse(table.rows()));
        let more = tables.split_off(tables.len().min(Self::MOST));
        let more_rows = more.iter().map(StrandedTable::rows).fold(0, u64::saturating_add);
        Some(Self { most: tables, more_tables: more.len() as u64, more_rows, not_asked })
    }

    /// Whether the tables are in more than one database, as far as their names are known.
    fn are_of_several_databases(&self) -> bool {
        let mut databases = self.most.iter().filter_map(|table| table.database.as_ref());
        let first = databases.next();
        databases.any(|database| Some(database) != first)
    }
}

/// `12 rows in app.orders, 3 in app.items, and 5 in 2 more tables`.
impl fmt::Display for StrandedTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with_database = self.are_of_several_databases();
        for (place, table) in self.most.iter().enumerate() {
            match (place, table.rows()) {
                (0, 1) => f.write_str("1 row in ")?,
                (0, rows) => write!(f, "{rows} rows in ")?,
                (_, rows) => write!(f, ", {rows} in ")?,
            }
            match (&table.table, &table.database) {
                (Some(name), Some(database)) if with_database => write!(f, "{name} of {database}")?,
                (Some(name), _) => f.write_str(name)?,
                (None, _) if table.main_lacks_it => {
                    write!(f, "a table that main does not have as it was here (file {})", table.file)?;
                }
                (None, _) => write!(f, "the table of file {}", table.file)?,
            }
        }
        match self.more_tables {
            0 => Ok(()),
            1 => write!(f, ", and {} in 1 more table", self.more_rows),
            more => write!(f, ", and {} in {more} more tables", self.more_rows),
        }
    }
}

/// Payload of `rejoin_completed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejoinCompleted {
    /// The main.
    pub main: NodeId,
    /// Its epoch.
    pub epoch: Epoch,
    /// How the data directory was made to follow main.
    pub by: Demotion,
    /// What only this node had, if it had diverged from main.
    pub stranded: Option<Stranded>,
    /// The folder that keeps the kept copy.
    pub kept: Option<String>,
    /// Best-effort steps that failed.
    pub degraded: Vec<StepId>,
    /// The folder that keeps a copy of this node's earlier Redis data; left out if nothing had to be kept. `interrex
    /// salvage --kept-redis` finds the keys that main lacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_redis: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: Option<&str>, database: Option<&str>, inserted: u64) -> StrandedTable {
        StrandedTable {
            table: name.map(str::to_owned),
            database: database.map(str::to_owned),
            file: "base/5/16412".to_owned(),
            main_lacks_it: name.is_none(),
            inserted,
            updated: 0,
            deleted: 0,
        }
    }

    fn as_message(tables: Vec<StrandedTable>) -> String {
        StrandedTables::of(tables, None).unwrap().to_string()
    }

    #[test]
    fn tables_with_most_rows_are_told_first_and_the_others_added_up() {
        let shop = Some("shop");
        let items = table(Some("app.items"), shop, 3);
        let orders = StrandedTable { updated: 1, deleted: 1, ..table(Some("app.orders"), shop, 10) };
        assert_eq!(as_message(vec![items.clone(), orders.clone()]), "12 rows in app.orders, 3 in app.items");
        assert_eq!(as_message(vec![table(Some("app.items"), shop, 1)]), "1 row in app.items");

        let many = (1..=22).map(|rows| table(Some(&format!("t{rows}")), shop, rows)).collect();
        let tables = StrandedTables::of(many, None).unwrap();
        assert_eq!((tables.most.len(), tables.more_tables, tables.more_rows), (StrandedTables::MOST, 2, 3));
        let message = tables.to_string();
        assert!(message.starts_with("22 rows in t22, 21 in t21, "), "{message}");
        assert!(message.ends_with(", 3 in t3, and 3 in 2 more tables"), "{message}");
        let one_more = StrandedTables { more_tables: 1, most: vec![items, orders], ..tables };
        assert_eq!(one_more.to_string(), "3 rows in app.items, 12 in app.orders, and 3 in 1 more table");
        assert_eq!(StrandedTables::of(Vec::new(), None), None);
    }

    #[test]
    fn a_table_without_a_name_is_told_as_its_file() {
        let unknown = table(None, None, 2);
        let not_asked = StrandedTable { main_lacks_it: false, ..table(None, None, 1) };
        assert_eq!(
            as_message(vec![not_asked, unknown]),
            "2 rows in a table that main does not have as it was here (file base/5/16412), 1 in the table of file base/5/16412"
        );
    }

    #[test]
    fn databases_are_named_where_there_are_several() {
        let tables =
            vec![table(Some("public.t"), Some("shop"), 2), table(Some("public.t"), Some("radius"), 1)];
        assert_eq!(as_message(tables), "2 rows in public.t of shop, 1 in public.t of radius");
    }
}
