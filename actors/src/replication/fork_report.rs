//! The step that counts what only this node has, before it is rewound.

use std::{cell::RefCell, future::Future, rc::Rc, time::Duration};

use interrex_events::{
    DivergedKept, ForkReported, LineageCompared, NodeId, Observation as _, RunId, StepId, StepOutcome,
    Stranded, StrandedTable, StrandedTables,
};
use interrex_projections::{Run, counted};
use tokio::sync::OnceCell;

use super::{
    Servers,
    rejoin::{Parting, wants_copy},
};
use crate::{
    messages::StepReport,
    ports::{Answer, FileNode, ForkReport, Held, HeldOnMain, MainServerPort, PortError, RelationChanges},
};

/// How long the WAL may be read.
pub(super) const LOG_LIMIT: Duration = Duration::from_secs(590);

/// What the WAL had after the switchpoint. The steps that a run makes at the same time share it: the WAL is read once for them.
#[derive(Default)]
pub(super) struct ForkOfRun(RefCell<Option<(RunId, Reading)>>);

type Reading = Rc<OnceCell<Answer<ForkReport>>>;

impl ForkOfRun {
    fn of(&self, run: RunId) -> Reading {
        let mut known = self.0.borrow_mut();
        match &*known {
            Some((of, cell)) if *of == run => cell.clone(),
            _ => known.insert((run, Rc::default())).1.clone(),
        }
    }
}

/// What the WAL had when the first step of this run under this supervisor asked.
pub(super) async fn read_once(servers: &Servers, run: &Run, parting: &Parting) -> Answer<ForkReport> {
    let reading = || servers.handover.fork(parting.timeline, parting.switchpoint, LOG_LIMIT);
    servers.in_use.fork.of(run.id).get_or_init(reading).await.clone()
}

/// What only this node has.
pub(super) async fn report_fork(servers: &Servers, run: &Run) -> Answer<StepReport> {
    let Some(parting) = Parting::of(run) else {
        let compared: Option<LineageCompared> = run.observed(StepId::CheckLineage);
        // the step reports the end alone only if the WAL is a part of main's
        let words = if compared.is_some() {
            "this node has nothing that main does not have: its WAL is a part of main's"
        } else {
            "what only this directory has cannot be counted, because its WAL could not be compared with main's (the step \
             check_lineage says why); all of it is kept"
        };
        return Ok(StepReport::new(StepOutcome::Skipped, words));
    };
    let mut report = count_fork(servers, run.new_main, read_once(servers, run, &parting)).await?;
    if !parting.exact {
        report.detail.push_str(
            "; the WAL of the place at which the two diverged is no longer on both nodes: what they shared after the last known \
             place is counted too, and interrex salvage separates it",
        );
    }
    Ok(report)
}

/// The same, once it is known where the two diverged.
pub(super) async fn count_fork(
    servers: &Servers,
    main: NodeId,
    reading: impl Future<Output = Answer<ForkReport>>,
) -> Answer<StepReport> {
    // a session of its own: the one that this run shares waits for a CHECKPOINT
    let logging_in = async {
        let main = servers.server_of(main)?;
        main.log_in_ahead().await?;
        Ok(main)
    };
    let (found, main) = tokio::join!(reading, logging_in);
    let found = found?;
    let held = held_on_main(main, &found).await;
    let stranded = only_here(&found, held);
    let mut words = in_words(&stranded);
    if servers.redis.is_some() {
        words.push_str(
            "; Redis has no such WAL: interrex salvage --kept-redis finds the keys that only this Redis has",
        );
    }
    let observed = ForkReported { prepared: found.prepared, stranded };
    Ok(StepReport::new(StepOutcome::Succeeded, words).observing(observed))
}

/// Fills in the names of tables; a report without them is better than no report.
async fn held_on_main(main: Answer<Box<dyn MainServerPort>>, found: &ForkReport) -> HeldOnMain {
    // catalogs too: a table that was made in single-user mode has a number like theirs
    let known_before = found.relations.iter().filter(|relation| !relation.is_new);
    let files: Vec<FileNode> = known_before.map(RelationChanges::node).collect();
    if files.is_empty() {
        return HeldOnMain::default();
    }
    match main {
        Ok(main) => main.held_in(&files).await,
        Err(error) => HeldOnMain { not_asked: Some(error.to_string()), ..HeldOnMain::default() },
    }
}

/// The report as it is recorded, without the relations that main reports as no table of users.
fn only_here(found: &ForkReport, held: HeldOnMain) -> Stranded {
    let HeldOnMain { found: held, not_asked } = held;
    let changed = found.relations.iter().filter(|relation| relation.rows() > 0);
    let tables: Vec<StrandedTable> = changed
        .filter_map(|relation| {
            let (table, database, main_lacks_it) = match held.get(&relation.node()) {
                Some(Held::Table { database, name }) => (Some(name.clone()), Some(database.clone()), false),
                Some(Held::NoTableOfUsers) => return None,
                _ if relation.is_catalog() => return None,
                Some(Held::Nothing) => (None, None, true),
                None => (None, None, relation.is_new),
            };
            Some(StrandedTable {
                table,
                database,
                file: relation.node().to_string(),
                main_lacks_it,
                inserted: relation.inserts,
                updated: relation.updates,
                deleted: relation.deletes,
            })
        })
        .collect();
    Stranded {
        switchpoint: found.switchpoint,
        end: found.end,
        bytes: found.bytes,
        committed: found.committed,
        rows: tables.iter().map(StrandedTable::rows).fold(0, u64::saturating_add),
        first_commit: found.first_commit,
        last_commit: found.last_commit,
        tables: StrandedTables::of(tables, not_asked),
    }
}

fn in_words(stranded: &Stranded) -> String {
    let Stranded { committed, rows, tables, .. } = stranded;
    if *committed == 0 {
        return "no transaction was committed on this node after the two diverged".to_owned();
    }
    let mut words = format!(
        "{} with {} committed on this node after the two diverged, and main does not have them",
        counted(committed, "transaction"),
        counted(rows, "row")
    );
    if let Some(tables) = tables {
        words.push_str(&format!(": {tables}"));
        if let Some(reason) = &tables.not_asked {
            words.push_str(&format!("; main could not be asked for every name: {reason}"));
        }
    }
    words
}

/// How many transactions main lacks, by what the step observed.
pub(super) fn transactions_only_here(found: &ForkReported) -> u64 {
    found.stranded.committed.saturating_add(found.prepared)
}

/// Whether what the step observed says that no transaction here would be lost.
pub(super) fn main_lacks_nothing(report: &StepReport) -> bool {
    ForkReported::of(&report.observed).is_some_and(|found| transactions_only_here(found) == 0)
}

/// How many transactions of the kept copy, or of the directory that is to be replaced, main does not have. Not the report's count:
/// a supervisor that died before it could record its report counts again, and keeps nothing again.
fn counted_in_kept(
    is_replaced: bool,
    kept: Option<&DivergedKept>,
    report: Option<&ForkReported>,
) -> Option<u64> {
    if is_replaced { report.map(transactions_only_here) } else { kept?.only_here }
}

/// The WAL has grown since it was compared. A rewind that was cut off may have recovered the directory from its crash; but if
/// PostgreSQL was started by other means, what it wrote is neither kept nor counted.
pub(super) async fn nothing_was_committed_since(
    servers: &Servers,
    run: &Run,
    parting: &Parting,
) -> Answer<()> {
    let is_replaced = wants_copy(run) || !parting.is_rewindable();
    let (kept, report) = (run.observed(StepId::KeepDiverged), run.observed(StepId::ReportFork));
    let before = counted_in_kept(is_replaced, kept.as_ref(), report.as_ref());
    let Some(before) = before else {
        let words = "this node's WAL has grown since it was compared, and whether a recovery alone did that is not known, because \
                     what the WAL had before was not counted (the step report_fork says why); ask for the rejoin again, or replace \
                     this directory by a copy of main's, which keeps this one: interrex rejoin --copy";
        return Err(PortError(words.to_owned()));
    };
    let now = servers.handover.fork(parting.timeline, parting.switchpoint, LOG_LIMIT).await?;
    if now.only_here() == before {
        return Ok(());
    }
    Err(PortError(format!(
        "this node's WAL ended at {} when it was compared, and now ends at {}: PostgreSQL was started meanwhile, and what it wrote \
         was not kept; ask for the rejoin again",
        parting.end, now.end
    )))
}

#[cfg(test)]
mod tests {
    use interrex_events::{Lsn, TimelineId};

    use super::*;

    fn relation(file: u32, inserts: u64) -> RelationChanges {
        RelationChanges {
            tablespace: 1663,
            database: 5,
            file,
            name: None,
            is_new: false,
            inserts,
            updates: 0,
            deletes: 0,
        }
    }

    fn found(relations: Vec<RelationChanges>) -> ForkReport {
        let nothing = ForkReport::nothing(TimelineId(1), Lsn(0x0300_0000));
        ForkReport { committed: 3, relations, ..nothing }
    }

    #[test]
    fn rows_are_told_by_table_and_what_no_user_would_miss_is_left_out() {
        let made_since = RelationChanges { is_new: true, ..relation(30_000, 2) };
        let (catalog, from_single_user_mode) = (relation(1249, 40), relation(13_000, 1));
        let found = found(vec![
            catalog,
            from_single_user_mode,
            relation(20_001, 3),
            relation(20_002, 900),
            relation(20_003, 12),
            made_since,
        ]);
        let table = |name: &str| Held::Table { database: "shop".to_owned(), name: name.to_owned() };
        let held = [
            (13_000, table("public.first")),
            (20_001, table("app.items")),
            (20_002, Held::NoTableOfUsers),
            (20_003, table("app.orders")),
        ];
        let held = held.map(|(file, what)| (relation(file, 0).node(), what));
        let stranded = only_here(&found, HeldOnMain { found: held.into(), not_asked: None });
        assert_eq!(stranded.rows, 18);
        assert_eq!(
            in_words(&stranded),
            "3 transactions with 18 rows committed on this node after the two diverged, and main does not have them: \
             12 rows in app.orders, 3 in app.items, 2 in a table that main does not have as it was here (file base/5/30000), 1 in public.first"
        );
    }

    #[test]
    fn a_main_that_does_not_answer_costs_the_names_only() {
        let held = HeldOnMain { not_asked: Some("no answer within 1s".to_owned()), ..HeldOnMain::default() };
        let stranded = only_here(&found(vec![relation(20_001, 3)]), held);
        let words = in_words(&stranded);
        assert!(
            words.ends_with(
                "3 rows in the table of file base/5/20001; main could not be asked for every name: no answer within 1s"
            ),
            "{words}"
        );
    }

    #[test]
    fn what_was_committed_after_the_copy_is_not_taken_for_kept_because_a_later_report_counts_it() {
        let stranded = Stranded { committed: 5, ..only_here(&found(Vec::new()), HeldOnMain::default()) };
        let report = ForkReported { prepared: 1, stranded };
        let (report, kept) =
            (Some(&report), DivergedKept { kept: None, only_here: Some(3), checksums_sha256: None });
        assert_eq!(counted_in_kept(false, Some(&kept), report), Some(3));
        assert_eq!(counted_in_kept(false, None, report), None, "a copy of which nothing is known");
        assert_eq!(counted_in_kept(true, None, report), Some(6), "the directory itself is kept");
    }
}
