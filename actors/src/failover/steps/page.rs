//! `docs/RUNS.md`: its second half is generated from the tables. `UPDATE_GOLDEN=1 cargo test -p interrex-actors steps` writes it.

use std::{fmt::Write as _, path::Path};

use interrex_events::RunKind;
use interrex_projections::human_ms;

use super::{Need, StepRule, UNTIL_ANSWERED, table};

/// The part of the page above this mark is written by hand.
const MARK: &str = "<!-- made from the code from here on; see actors/src/failover/steps/page.rs -->\n";

/// One table each: a kind of run, its heading, and what it is.
const TABLES: [(RunKind, &str, &str); 3] = [
    (
        RunKind::Failover,
        "Failover, promotion, takeover",
        "How a node becomes main: by itself because main was lost, because a person asked for it, or as the target's part of a \
         switchover.",
    ),
    (
        RunKind::Switchover,
        "Switchover",
        "How main hands its role over without loss and follows the new main: main's part of a switchover.",
    ),
    (
        RunKind::Rejoin,
        "Rejoin",
        "How a node comes back as a secondary, and how what only this node had is found and kept.",
    ),
];

#[test]
fn the_page_says_what_the_tables_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/RUNS.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (by_hand, made) = page.split_once(MARK).unwrap();
    let wanted: String = TABLES.map(|(kind, title, meaning)| section(kind, title, meaning)).concat();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, format!("{by_hand}{MARK}{wanted}")).unwrap();
    } else {
        assert!(
            made == wanted,
            "docs/RUNS.md is out of date: run UPDATE_GOLDEN=1 cargo test -p interrex-actors steps"
        );
    }
    for (_, title, _) in TABLES {
        let anchor = title.to_lowercase().replace(',', "").replace(' ', "-");
        let link = format!("[{title}](#{anchor})");
        assert!(by_hand.contains(&link), "the table of contents lacks {link}");
    }
}

fn section(kind: RunKind, title: &str, meaning: &str) -> String {
    let mut section = format!("\n## {title}\n\n{meaning}\n\n");
    section.push_str("| # | step | what it does | what proves it | limit | attempts | need | undo |\n");
    section.push_str("| --- | --- | --- | --- | --- | --- | --- | --- |\n");
    for row in table(kind) {
        let number = kind.number(row.step);
        let is_last_way_back = row.step == kind.point_of_no_return();
        let mark = if is_last_way_back { "<br>**point of no return**" } else { "" };
        let StepRule { step, effect, success, .. } = row;
        writeln!(
            section,
            "| {number} | `{step}`{mark} | {effect} | {success} | {} | {} | {} | {} |",
            limit(row),
            attempts(row),
            need(row.need),
            row.undo.unwrap_or("-"),
        )
        .unwrap();
    }
    section
}

fn limit(row: &StepRule) -> String {
    if row.limit_ms == 0 { "-".to_owned() } else { human_ms(row.limit_ms) }
}

fn attempts(row: &StepRule) -> String {
    if row.attempts == UNTIL_ANSWERED { "until answered".to_owned() } else { row.attempts.to_string() }
}

fn need(need: Need) -> &'static str {
    match need {
        Need::Required => "required",
        Need::BestEffort => "best effort",
    }
}
