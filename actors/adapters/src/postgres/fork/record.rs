//! One line of `pg_waldump`: the parts of a WAL record that the fork report needs.
//!
//! Tested with PostgreSQL 15; newer forms are from the sources of 16 and 17 and not tested with a server. A line of another form
//! counts as a record without interest.

use chrono::{DateTime, NaiveDateTime, Utc};
use interrex_actors::ports::FileNode;
use interrex_events::Lsn;

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogRecord {
    /// An LSN that it reaches at least.
    pub(super) end: Lsn,
    /// Its transaction; 0 if it belongs to none.
    pub(super) xid: u32,
    /// What it does.
    pub(super) action: Action,
}

/// What a record does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// A transaction and its subtransactions commit.
    Commit {
        xid: u32,
        children: Vec<u32>,
        at: Option<DateTime<Utc>>,
    },
    /// A transaction and its subtransactions abort.
    Abort {
        xid: u32,
        children: Vec<u32>,
    },
    Insert {
        into: FileNode,
        rows: u64,
    },
    Update {
        of: FileNode,
    },
    Delete {
        from: FileNode,
    },
    /// A relation gets a new file, at its creation or later.
    Create {
        file: FileNode,
    },
    /// A transaction is prepared: what it did waits for a COMMIT PREPARED, and outlives a crash.
    Prepare,
    /// Of no interest here.
    Other,
}

impl LogRecord {
    /// Parses a line; nothing if the line is not a record.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let rest = line.strip_prefix("rmgr: ")?;
        let (manager, rest) = rest.split_once(' ')?;
        let (lengths, rest) = rest.split_once("tx:")?;
        let length: u64 = lengths.rsplit('/').next()?.trim().trim_end_matches(',').parse().ok()?;
        let (xid, rest) = rest.split_once(", lsn: ")?;
        let xid = xid.trim().parse().ok()?;
        let (lsn, rest) = rest.split_once(',')?;
        let lsn: Lsn = lsn.parse().ok()?;
        let (_, description) = rest.split_once("desc: ")?;
        let action = action(manager, xid, description).unwrap_or(Action::Other);
        Some(Self { end: Lsn(lsn.0.saturating_add(length)), xid, action })
    }
}

fn action(manager: &str, xid: u32, description: &str) -> Option<Action> {
    let (name, details) = description.split_once(' ').unwrap_or((description, ""));
    let name = name.trim_end_matches("+INIT").trim_end_matches(',');
    match (manager, name) {
        ("Transaction", "COMMIT" | "COMMIT_PREPARED") => {
            let (xid, time) = ended(xid, details);
            Some(Action::Commit { xid, children: children(details), at: moment(time) })
        }
        ("Transaction", "ABORT" | "ABORT_PREPARED") => {
            Some(Action::Abort { xid: ended(xid, details).0, children: children(details) })
        }
        ("Transaction", "PREPARE") => Some(Action::Prepare),
        ("Heap", "INSERT") => Some(Action::Insert { into: file_node(details)?, rows: 1 }),
        ("Heap2", "MULTI_INSERT") => Some(Action::Insert { into: file_node(details)?, rows: rows(details) }),
        ("Heap", "UPDATE" | "HOT_UPDATE") => Some(Action::Update { of: file_node(details)? }),
        ("Heap", "DELETE") => Some(Action::Delete { from: file_node(details)? }),
        ("Storage", "CREATE") => Some(Action::Create { file: file_at(details.trim())? }),
        _ => None,
    }
}

/// The transaction that ended, and when: the end of a prepared transaction names it, `738: 2026-...`.
fn ended(xid: u32, details: &str) -> (u32, &str) {
    let time = details.split(';').next().unwrap_or_default().trim();
    match time.split_once(": ") {
        Some((prepared, time)) => (prepared.parse().unwrap_or(xid), time),
        None => (xid, time),
    }
}

fn moment(text: &str) -> Option<DateTime<Utc>> {
    let text = text.strip_suffix(" UTC")?;
    NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").ok().map(|time| time.and_utc())
}

fn children(details: &str) -> Vec<u32> {
    let Some((_, list)) = details.split_once("; subxacts: ") else { return Vec::new() };
    let list = list.split(';').next().unwrap_or_default();
    list.split_whitespace().map_while(|xid| xid.parse().ok()).collect()
}

/// `2 tuples flags`, since PostgreSQL 16 `ntuples: 2, flags`.
fn rows(details: &str) -> u64 {
    let before = details.split_once(" tuples").map(|(number, _)| number);
    let after = || details.split_once("ntuples: ").and_then(|(_, rest)| rest.split(',').next());
    before.or_else(after).and_then(|number| number.trim().parse().ok()).unwrap_or(1)
}

fn file_node(details: &str) -> Option<FileNode> {
    let (_, rest) = details.split_once("rel ")?;
    let mut numbers = rest.split([' ', ',']).next()?.split('/').map(|number| number.parse().ok());
    Some(FileNode { tablespace: numbers.next()??, database: numbers.next()??, file: numbers.next()?? })
}

/// The file of a path in the data directory, if that is the main file of a relation.
fn file_at(path: &str) -> Option<FileNode> {
    let parts: Vec<&str> = path.split('/').collect();
    let (tablespace, database, file) = match parts.as_slice() {
        ["base", database, file] => (FileNode::DEFAULT_TABLESPACE, database.parse().ok()?, file),
        ["global", file] => (FileNode::GLOBAL_TABLESPACE, 0, file),
        ["pg_tblspc", tablespace, _, database, file] => {
            (tablespace.parse().ok()?, database.parse().ok()?, file)
        }
        _ => return None,
    };
    Some(FileNode { tablespace, database, file: file.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: FileNode = FileNode { tablespace: 1663, database: 5, file: 16385 };

    fn deed_of(manager: &str, description: &str) -> Action {
        let line = format!(
            "rmgr: {manager:11} len (rec/tot):     61/   137, tx:        727, lsn: 0/02000028, prev 0/0152F148, \
             desc: {description}"
        );
        let record = LogRecord::parse(&line).unwrap();
        assert_eq!((record.xid, record.end), (727, Lsn(0x0200_0028 + 137)));
        record.action
    }

    #[test]
    fn what_pg_waldump_says_of_rows_is_understood_in_old_and_new_words() {
        let place = "blkref #0: rel 1663/5/16385 blk 0";
        let insert = |rows| Action::Insert { into: T, rows };
        assert_eq!(deed_of("Heap", &format!("INSERT off 2 flags 0x00, {place}")), insert(1));
        assert_eq!(deed_of("Heap", &format!("INSERT+INIT off: 1, flags: 0x08, {place} FPW")), insert(1));
        assert_eq!(deed_of("Heap2", &format!("MULTI_INSERT+INIT 2 tuples flags 0x02, {place}")), insert(2));
        let newer = format!("MULTI_INSERT ntuples: 3, flags: 0x02, offsets: [1, 2, 3], {place}");
        assert_eq!(deed_of("Heap2", &newer), insert(3));
        let update = format!("HOT_UPDATE off 1 xmax 728 flags 0x20 ; new off 4 xmax 0, {place}");
        assert_eq!(deed_of("Heap", &update), Action::Update { of: T });
        assert_eq!(
            deed_of("Heap", &format!("DELETE off 2 flags 0x00 KEYS_UPDATED , {place}")),
            Action::Delete { from: T }
        );
        assert_eq!(deed_of("Heap", &format!("LOCK off 1: xid 728, {place}")), Action::Other);
    }

    #[test]
    fn the_end_of_a_transaction_names_its_children_and_one_that_was_prepared() {
        let at = moment("2026-11-23 10:39:29.582262 UTC");
        assert!(at.is_some());
        let commit = |xid, children: &[u32]| Action::Commit { xid, children: children.to_vec(), at };
        assert_eq!(deed_of("Transaction", "COMMIT 2026-11-23 10:39:29.582262 UTC"), commit(727, &[]));
        let with_children = "COMMIT 2026-11-23 10:39:29.582262 UTC; rels: base/5/1; subxacts: 731 732; inval msgs: catcache 55";
        assert_eq!(deed_of("Transaction", with_children), commit(727, &[731, 732]));
        assert_eq!(
            deed_of("Transaction", "COMMIT_PREPARED 700: 2026-11-23 10:39:29.582262 UTC; subxacts: 701"),
            commit(700, &[701])
        );
        let abort = Action::Abort { xid: 727, children: Vec::new() };
        assert_eq!(deed_of("Transaction", "ABORT 2026-11-23 10:39:29.582262 UTC"), abort);
        assert_eq!(deed_of("Transaction", "PREPARE gid x: 2026-11-23 10:39:29.582262 UTC"), Action::Prepare);
    }

    #[test]
    fn a_new_file_is_told_by_its_place_and_no_other_fork_of_it_counts() {
        let place =
            |tablespace, database, file| Action::Create { file: FileNode { tablespace, database, file } };
        assert_eq!(deed_of("Storage", "CREATE base/5/16390"), place(1663, 5, 16390));
        assert_eq!(
            deed_of("Storage", "CREATE pg_tblspc/16400/PG_15_202209061/5/16390"),
            place(16400, 5, 16390)
        );
        assert_eq!(deed_of("Storage", "CREATE global/16391"), place(1664, 0, 16391));
        assert_eq!(deed_of("Storage", "CREATE base/5/16390_init"), Action::Other);
        let written =
            [T, FileNode { tablespace: 1664, database: 0, file: 1262 }, FileNode { tablespace: 7, ..T }];
        assert_eq!(written.map(|file| file.to_string()), ["base/5/16385", "global/1262", "7/5/16385"]);
    }

    #[test]
    fn other_lines_are_no_records() {
        assert_eq!(
            LogRecord::parse("first record is after 0/2000100, at 0/2000128, skipping over 40 bytes"),
            None
        );
        assert_eq!(LogRecord::parse(""), None);
    }
}
