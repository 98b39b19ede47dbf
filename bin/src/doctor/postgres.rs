//! Judgement of what PostgreSQL says of itself.

use std::collections::BTreeMap;

use super::finding::{Breaks, Check, Finding, Measured, Verdict};

/// A standby with less than main of any of these does not start, or pauses its replay.
pub const STANDBY_MUST_MATCH: [&str; 5] = [
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_worker_processes",
];

const STANDBY_SETTINGS: Check = Check {
    name: "standby_settings",
    breaks: Breaks::Rejoin,
    why: "A standby whose limits are below main's refuses to start, or stops replaying: it cannot take over.",
};

const REWIND_POSSIBLE: Check = Check {
    name: "rewind_possible",
    breaks: Breaks::Rejoin,
    why: "Without full pages, and hints in the WAL or checksums, pg_rewind refuses: the old main is copied anew.",
};

const SLOT_KEEPS_WAL: Check = Check {
    name: "slot_keeps_wal",
    breaks: Breaks::Failover,
    why: "Without a slot main removes WAL that its standby still needs, and the standby can never catch up.",
};

/// Whether the standby's limits are at least main's.
#[must_use]
pub fn standby_settings(limits: Measured<(BTreeMap<String, u64>, BTreeMap<String, u64>)>) -> Finding {
    STANDBY_SETTINGS.judge(limits, |(main, standby)| {
        let limit_of = |limits: &BTreeMap<String, u64>, name| limits.get(name).copied();
        let mut low = Vec::new();
        let mut fixes = Vec::new();
        for name in STANDBY_MUST_MATCH {
            match (limit_of(&main, name), limit_of(&standby, name)) {
                (Some(main), Some(standby)) if standby >= main => {}
                (Some(main), Some(standby)) => {
                    low.push(format!("{name} is {standby}, main has {main}"));
                    fixes.push(format!("ALTER SYSTEM SET {name} = {main};"));
                }
                _ => return (Verdict::Skipped, format!("{name} was not told by both servers"), None),
            }
        }
        if low.is_empty() {
            return (Verdict::Pass, "all 5 limits are at least main's".to_owned(), None);
        }
        (Verdict::Fail, low.join("; "), Some(fixes.join(" ")))
    })
}

/// What pg_rewind needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewinding {
    /// `full_page_writes`.
    pub full_page_writes: bool,
    /// `wal_log_hints`.
    pub wal_log_hints: bool,
    /// `data_checksums`.
    pub data_checksums: bool,
}

/// Whether an old main can be rewound.
#[must_use]
pub fn rewind_possible(rewinding: Measured<Rewinding>) -> Finding {
    REWIND_POSSIBLE.judge(rewinding, |found| {
        let word = |on| if on { "on" } else { "off" };
        let measured = format!(
            "full_page_writes {}, wal_log_hints {}, data_checksums {}",
            word(found.full_page_writes),
            word(found.wal_log_hints),
            word(found.data_checksums)
        );
        let mut fixes = Vec::new();
        if !found.full_page_writes {
            fixes.push("ALTER SYSTEM SET full_page_writes = on;");
        }
        if !found.wal_log_hints && !found.data_checksums {
            fixes.push("ALTER SYSTEM SET wal_log_hints = on;");
        }
        if fixes.is_empty() {
            return (Verdict::Pass, measured, None);
        }
        (Verdict::Fail, measured, Some(fixes.join(" ")))
    })
}

/// Whether main keeps the WAL its standby needs: `wal_status` of the slot, or nothing where there is no slot.
#[must_use]
pub fn slot_keeps_wal(slot: &str, wal_status: Measured<Option<String>>) -> Finding {
    SLOT_KEEPS_WAL.judge(wal_status, |status| match status.as_deref() {
        None => {
            let quoted = slot.replace('\'', "''");
            let fix = format!("SELECT pg_create_physical_replication_slot('{quoted}', true);");
            (Verdict::Fail, format!("main has no slot {slot}"), Some(fix))
        }
        Some("reserved" | "extended") => (Verdict::Pass, format!("slot {slot} keeps its WAL"), None),
        Some("unreserved") => {
            let fix = "SHOW max_slot_wal_keep_size;".to_owned();
            (Verdict::Warn, format!("slot {slot} is about to lose its WAL"), Some(fix))
        }
        Some(status) => {
            (Verdict::Fail, format!("slot {slot} is {status}: its standby must be copied anew"), None)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{super::worst, *};

    fn limits(connections: u64) -> BTreeMap<String, u64> {
        let mut limits: BTreeMap<_, _> = STANDBY_MUST_MATCH.map(|name| (name.to_owned(), 8)).into();
        limits.insert("max_connections".to_owned(), connections);
        limits
    }

    #[test]
    fn a_standby_below_main_fails_and_is_told_mains_value() {
        let finding = standby_settings(Ok((limits(100), limits(50))));
        assert_eq!(finding.verdict, Verdict::Fail);
        assert_eq!(finding.measured, "max_connections is 50, main has 100");
        assert_eq!(finding.fix.as_deref(), Some("ALTER SYSTEM SET max_connections = 100;"));
        assert_eq!(standby_settings(Ok((limits(50), limits(100)))).verdict, Verdict::Pass);
    }

    #[test]
    fn what_was_not_measured_never_passes() {
        let silent = standby_settings(Err("beta does not answer".to_owned()));
        assert_eq!((silent.verdict, silent.measured.as_str()), (Verdict::Skipped, "beta does not answer"));
        assert_eq!(standby_settings(Ok((limits(1), BTreeMap::new()))).verdict, Verdict::Skipped);
        assert_eq!(worst(&[]), None);
        assert_eq!(worst(&[silent]), Some(Verdict::Skipped));
    }

    #[test]
    fn a_rewind_needs_full_pages_and_hints_or_checksums() {
        for bits in 0..8 {
            let [full_page_writes, wal_log_hints, data_checksums] = [1, 2, 4].map(|bit| bits & bit != 0);
            let found = rewind_possible(Ok(Rewinding { full_page_writes, wal_log_hints, data_checksums }));
            let possible = full_page_writes && (wal_log_hints || data_checksums);
            assert_eq!(found.verdict == Verdict::Pass, possible, "{found:?}");
            assert_eq!(found.fix.is_none(), possible);
        }
    }

    #[test]
    fn a_slot_is_there_and_keeps_its_wal_or_says_what_is_wrong() {
        let verdict = |status: Option<&str>| slot_keeps_wal("beta", Ok(status.map(str::to_owned))).verdict;
        assert_eq!(verdict(Some("reserved")), Verdict::Pass);
        assert_eq!(verdict(Some("unreserved")), Verdict::Warn);
        assert_eq!(verdict(Some("lost")), Verdict::Fail);
        assert_eq!(verdict(None), Verdict::Fail);
    }
}
