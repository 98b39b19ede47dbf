//! Counts committed changes, record by record, in bounded memory.

use std::collections::{BTreeMap, HashMap, HashSet};

use interrex_actors::ports::{FileNode, ForkReport, RelationChanges};
use interrex_events::{Lsn, TimelineId};

use super::{
    Fork,
    record::{Action, LogRecord},
    xids::Xids,
};

/// The most relations that are counted separately.
const MOST_RELATIONS: usize = 10_000;
/// The most pairs of an open transaction and a relation that are remembered until the transaction ends.
const MOST_OPEN: usize = 1_000_000;
/// How far back a relation is searched: a second entry for it does no harm, but a long search for each record would.
const NEAR: usize = 64;
/// The most new files that are remembered.
const MOST_NEW: usize = 100_000;
/// The most intervals of committed transaction ids.
const MOST_INTERVALS: usize = 1_000_000;

#[derive(Debug, Clone, Copy, Default)]
struct Changes {
    inserts: u64,
    updates: u64,
    deletes: u64,
}

impl Changes {
    fn add(&mut self, other: Self) {
        self.inserts += other.inserts;
        self.updates += other.updates;
        self.deletes += other.deletes;
    }
}

/// The counts so far.
pub(super) struct Count {
    report: ForkReport,
    committed: Xids,
    open: HashMap<u32, Vec<(FileNode, Changes)>>,
    open_pairs: usize,
    relations: BTreeMap<FileNode, Changes>,
    new: HashSet<FileNode>,
}

impl Count {
    /// A count without records.
    pub(super) fn from(timeline: TimelineId, switchpoint: Lsn) -> Self {
        Self {
            report: ForkReport::nothing(timeline, switchpoint),
            committed: Xids::at_most(MOST_INTERVALS),
            open: HashMap::new(),
            open_pairs: 0,
            relations: BTreeMap::new(),
            new: HashSet::new(),
        }
    }

    /// Counts the next record.
    pub(super) fn take(&mut self, record: LogRecord) {
        self.report.records += 1;
        self.report.end = self.report.end.max(record.end);
        match record.action {
            Action::Commit { xid, children, at } => {
                self.report.committed += 1;
                // commits may be written in another order than their times
                self.report.first_commit = self.report.first_commit.into_iter().chain(at).min();
                self.report.last_commit = self.report.last_commit.max(at);
                for xid in std::iter::once(xid).chain(children) {
                    self.committed.insert(xid);
                    for (relation, changes) in self.close(xid) {
                        self.count(relation, changes);
                    }
                }
            }
            Action::Abort { xid, children } => {
                self.report.aborted += 1;
                for xid in std::iter::once(xid).chain(children) {
                    self.close(xid);
                }
            }
            Action::Insert { into, rows } => {
                self.remember(record.xid, into, Changes { inserts: rows, ..Changes::default() });
            }
            Action::Update { of } => {
                self.remember(record.xid, of, Changes { updates: 1, ..Changes::default() });
            }
            Action::Delete { from } => {
                self.remember(record.xid, from, Changes { deletes: 1, ..Changes::default() });
            }
            Action::Create { file } if self.new.len() < MOST_NEW => {
                self.new.insert(file);
            }
            Action::Prepare => self.report.prepared += 1,
            Action::Create { .. } | Action::Other => {}
        }
    }

    /// Keeps what a transaction did until it ends.
    fn remember(&mut self, xid: u32, relation: FileNode, changes: Changes) {
        let of_transaction = self.open.entry(xid).or_default();
        // nearly always the relation of the record before
        if let Some((_, so_far)) =
            of_transaction.iter_mut().rev().take(NEAR).find(|(known, _)| *known == relation)
        {
            so_far.add(changes);
        } else if self.open_pairs < MOST_OPEN {
            of_transaction.push((relation, changes));
            self.open_pairs += 1;
        } else {
            self.report.incomplete = true;
        }
    }

    fn close(&mut self, xid: u32) -> Vec<(FileNode, Changes)> {
        let closed = self.open.remove(&xid).unwrap_or_default();
        self.open_pairs = self.open_pairs.saturating_sub(closed.len());
        closed
    }

    fn count(&mut self, relation: FileNode, changes: Changes) {
        if self.relations.len() < MOST_RELATIONS || self.relations.contains_key(&relation) {
            self.relations.entry(relation).or_default().add(changes);
            return;
        }
        self.report.incomplete = true;
    }

    /// The result, with the message of pg_waldump at the end of the WAL.
    pub(super) fn finish(mut self, end_of_log: String) -> Fork {
        self.report.unfinished = self.open.len() as u64;
        self.report.bytes = self.report.end.bytes_ahead_of(self.report.switchpoint);
        self.report.end_of_log = end_of_log;
        self.report.incomplete |= self.committed.is_widened();
        // if some were not remembered, any may be new
        let has_all = self.new.len() < MOST_NEW;
        self.report.relations = self
            .relations
            .into_iter()
            .map(|(node, Changes { inserts, updates, deletes })| RelationChanges {
                tablespace: node.tablespace,
                database: node.database,
                file: node.file,
                name: None,
                is_new: !has_all || self.new.contains(&node),
                inserts,
                updates,
                deletes,
            })
            .collect();
        Fork { report: self.report, committed: self.committed }
    }
}
