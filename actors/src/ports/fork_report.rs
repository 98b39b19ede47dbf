//! What only an old main has, counted from its WAL after the switchpoint at which the new main left it.

use std::fmt;

use chrono::{DateTime, Utc};
use interrex_events::{Lsn, TimelineId};
use interrex_projections::counted;
use serde::{Deserialize, Serialize};

/// Numbers below belong to PostgreSQL's own catalogs (`FirstNormalObjectId`).
const FIRST_OF_USERS: u32 = 16_384;

/// A relation's file: tablespace, database and file number, by which the WAL names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileNode {
    /// Number of its tablespace.
    pub tablespace: u32,
    /// Number of its database; 0 where all databases share it.
    pub database: u32,
    /// Its own number, as `pg_relation_filenode()` returns it.
    pub file: u32,
}

impl FileNode {
    /// The tablespace of a database that was given none (`DEFAULTTABLESPACE_OID`).
    pub const DEFAULT_TABLESPACE: u32 = 1663;
    /// That of what all databases share (`GLOBALTABLESPACE_OID`).
    pub const GLOBAL_TABLESPACE: u32 = 1664;
}

/// Its place in the data directory; in a tablespace that an operator made, the three numbers.
impl fmt::Display for FileNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tablespace, database, file } = self;
        match *tablespace {
            Self::DEFAULT_TABLESPACE => write!(f, "base/{database}/{file}"),
            Self::GLOBAL_TABLESPACE => write!(f, "global/{file}"),
            _ => write!(f, "{tablespace}/{database}/{file}"),
        }
    }
}

/// The changes of one relation by transactions that committed after the switchpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelationChanges {
    /// Number of its tablespace.
    pub tablespace: u32,
    /// Number of its database; 0 where all databases share it.
    pub database: u32,
    /// Number of its file, as `pg_relation_filenode()` returns it. A TOAST table counts by itself.
    pub file: u32,
    /// Its name, if a caller with access to a server filled it in.
    pub name: Option<String>,
    /// Whether its file may have been made after the switchpoint: another server's file of that number is another's then.
    #[serde(default)]
    pub is_new: bool,
    /// Rows inserted.
    pub inserts: u64,
    /// Rows updated.
    pub updates: u64,
    /// Rows deleted.
    pub deletes: u64,
}

impl RelationChanges {
    /// Its file.
    #[must_use]
    pub fn node(&self) -> FileNode {
        FileNode { tablespace: self.tablespace, database: self.database, file: self.file }
    }

    /// Rows inserted, updated or deleted.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.inserts.saturating_add(self.updates).saturating_add(self.deletes)
    }

    /// Whether it has the number of one of PostgreSQL's own catalogs. So has a table that was made in single-user mode.
    #[must_use]
    pub fn is_catalog(&self) -> bool {
        self.file < FIRST_OF_USERS
    }
}

/// What only an old main has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkReport {
    /// The last timeline of the WAL that was read; the reading may have begun on an earlier timeline.
    pub timeline: TimelineId,
    /// The last LSN that both share.
    pub switchpoint: Lsn,
    /// End of the last record, without the padding after it.
    pub end: Lsn,
    /// Bytes of WAL from the switchpoint to that end.
    pub bytes: u64,
    /// Records in them.
    pub records: u64,
    /// Transactions that committed; a subtransaction counts with its parent.
    pub committed: u64,
    /// Transactions that aborted.
    pub aborted: u64,
    /// Transactions that were prepared, whatever became of them.
    #[serde(default)]
    pub prepared: u64,
    /// Transactions and subtransactions that wrote rows and had not ended: they are lost, as after any crash.
    pub unfinished: u64,
    /// When the first of them committed, by the old main's clock.
    pub first_commit: Option<DateTime<Utc>>,
    /// When the last one did.
    pub last_commit: Option<DateTime<Utc>>,
    /// Their changes, relation by relation.
    pub relations: Vec<RelationChanges>,
    /// Whether the counts are incomplete: some relations, or the ids of some transactions, had no room.
    pub incomplete: bool,
    /// Why the WAL ends there, in `pg_waldump`'s message.
    pub end_of_log: String,
}

impl ForkReport {
    /// How many transactions main does not have. Prepared transactions count, because a client may still commit them.
    #[must_use]
    pub fn only_here(&self) -> u64 {
        self.committed.saturating_add(self.prepared)
    }

    /// The report for a WAL in which no record follows the switchpoint.
    #[must_use]
    pub fn nothing(timeline: TimelineId, switchpoint: Lsn) -> Self {
        Self {
            timeline,
            switchpoint,
            end: switchpoint,
            bytes: 0,
            records: 0,
            committed: 0,
            aborted: 0,
            prepared: 0,
            unfinished: 0,
            first_commit: None,
            last_commit: None,
            relations: Vec::new(),
            incomplete: false,
            end_of_log: String::new(),
        }
    }

    /// Fills in the names of relations. `name_of` returns nothing for an unknown relation.
    pub fn name_relations(&mut self, name_of: impl Fn(&RelationChanges) -> Option<String>) {
        for relation in &mut self.relations {
            relation.name = name_of(relation);
        }
    }

    /// For people: one sentence, then a line for each relation that is not PostgreSQL's own.
    #[must_use]
    pub fn in_words(&self) -> String {
        let (timeline, switchpoint) = (self.timeline.0, self.switchpoint);
        if self.committed == 0 {
            return format!("no transaction committed on timeline {timeline} after {switchpoint}");
        }
        let when = match (self.first_commit, self.last_commit) {
            (Some(first), Some(last)) => {
                let format = "%Y-%m-%d %H:%M:%S%.3f UTC";
                format!(", from {} to {}", first.format(format), last.format(format))
            }
            _ => String::new(),
        };
        let mut words = format!(
            "{} committed on timeline {timeline} after {switchpoint}{when}; {} aborted; {} bytes of WAL",
            counted(self.committed, "transaction"),
            self.aborted,
            self.bytes,
        );
        for relation in self.relations.iter().filter(|relation| !relation.is_catalog()) {
            let RelationChanges { tablespace, database, file, inserts, updates, deletes, .. } = relation;
            let name = relation.name.clone();
            let name = name.unwrap_or_else(|| format!("relation {tablespace}/{database}/{file}"));
            words.push_str(&format!("\n  {name}: {inserts} inserted, {updates} updated, {deletes} deleted"));
        }
        if self.incomplete {
            words.push_str("\n  there are more than could be counted");
        }
        words
    }
}
