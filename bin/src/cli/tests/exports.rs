//! Exports: written, read by every command, and damaged ones named. And copies of journals on other nodes.

use interrex_events::journal::{JournalReader, Selection};

use super::*;

const NOON: i64 = 4 * 3_600_000;
const FILES: [&str; 3] = ["story.jsonl", "story.jsonl.gz", "story.jsonl.zst"];

pub(super) fn records(journal: &Path) -> Vec<interrex_events::Record> {
    JournalReader::open(journal).unwrap().read(&Selection::default()).unwrap()
}

impl Stage {
    /// The whole answer to a command that must not fail.
    fn answer(&self, line: &str) -> String {
        let (exit, text) = self.show(line, Style::default());
        assert!(matches!(exit, Exit::Fine | Exit::NotHealthy), "{line}: {exit:?} {text}");
        text
    }
}

#[test]
fn an_export_on_standard_output() {
    let stage = Stage::set(90_000, Author::quiet_morning);
    stage.golden("export.jsonl", "export --journal @beta.db", Exit::Fine);
    let part = "export --output - --journal @beta.db --since 08:01:00 --until 08:01:08";
    stage.golden("export-part.jsonl", part, Exit::Fine);
}

#[test]
fn every_reading_command_reads_an_export_as_it_reads_the_journal() {
    let stage = Stage::failed_over();
    let run = format!("run show {}", RUN.short());
    let commands = ["status", "nodes", "timeline", "events", "events --kind main_lost", "run list", &run];
    for file in FILES {
        let said = stage.answer(&format!("export --journal @beta.db --output @{file}"));
        assert!(
            said.starts_with(&format!("FOLDER/{file}: 39 events of node 2's store, up to 2/39, ")),
            "{said}"
        );
        for command in commands {
            let of_journal = stage.answer(&format!("{command} --journal @beta.db"));
            let of_export = stage.answer(&format!("{command} --journal @{file}"));
            assert_eq!(of_export, of_journal, "{command} of {file}");
        }
    }
    stage.golden("verify-export.txt", "journal verify --journal @story.jsonl.zst", Exit::Fine);
    stage.golden(
        "export-file.json",
        "export --json --journal @story.jsonl.gz --output @again.jsonl",
        Exit::Fine,
    );
    assert_eq!(
        stage.answer("events --json --journal @again.jsonl"),
        stage.answer("events --json --journal @beta.db")
    );
}

#[test]
fn the_events_of_one_run_are_an_export_too() {
    let stage = Stage::failed_over();
    stage.answer(&format!("export --journal @beta.db --run {} --output @run.jsonl.zst", RUN.short()));
    let of_journal = stage.answer(&format!("events --journal @beta.db --run {}", RUN.short()));
    assert_eq!(stage.answer("events --journal @run.jsonl.zst"), of_journal);
    let verified = stage.answer("journal verify --journal @run.jsonl.zst");
    assert!(verified.contains("events between them are not in this export"), "{verified}");
}

#[test]
fn an_export_replaces_nothing_but_an_older_export_of_the_same_node() {
    let stage = Stage::failed_over();
    let export = "export --journal @beta.db --output @beta.jsonl";
    stage.answer(&format!("{export} --until 08:05:00"));
    assert!(stage.answer(export).contains("39 events"));
    let onto_the_journal = stage.fail("export --journal @beta.db --output @beta.db");
    assert!(onto_the_journal.to_string().contains("is not an export of node 2"), "{onto_the_journal}");
    assert_eq!(onto_the_journal.exit(), Exit::WrongUsage);
    let into_a_folder = stage.fail("export --journal @beta.db --output @");
    assert!(into_a_folder.to_string().contains("is a folder"), "{into_a_folder}");
    let nowhere = stage.fail("export --journal @beta.db --output @nowhere/beta.jsonl");
    assert!(nowhere.in_words().contains("No such file or directory"), "{}", nowhere.in_words());
    assert_eq!(stage.answer("export --journal @beta.db --output /dev/null"), "");
    let left: Vec<_> = std::fs::read_dir(stage.folder.path()).unwrap().collect();
    assert!(!format!("{left:?}").contains(".interrex-export-"), "{left:?}");
}

#[test]
fn a_damaged_journal_is_not_exported() {
    let stage = Stage::failed_over();
    damage(&stage.path("beta.db"));
    let refused = stage.fail("export --journal @beta.db --output @beta.jsonl");
    assert_eq!(refused.exit(), Exit::JournalUnusable);
    assert!(refused.to_string().contains("is damaged: event 20 of node 2: its content is not"), "{refused}");
    assert!(!stage.path("beta.jsonl").exists());
}

#[test]
fn a_damaged_export_is_named_by_whoever_reads_it() {
    let stage = Stage::failed_over();
    stage.answer("export --journal @beta.db --output @beta.jsonl");
    let text = std::fs::read_to_string(stage.path("beta.jsonl")).unwrap();
    std::fs::write(stage.path("beta.jsonl"), text.replace("all recei", "All recei")).unwrap();
    let line = "journal verify --journal @beta.jsonl";
    stage.golden("verify-export-damaged.txt", line, Exit::JournalUnusable);
    let timeline = stage.fail("timeline --journal @beta.jsonl");
    assert_eq!(timeline.exit(), Exit::JournalUnusable);
    assert!(timeline.to_string().starts_with("line 21 of the export"), "{timeline}");
    let lines: Vec<&str> = text.lines().take(30).collect();
    std::fs::write(stage.path("beta.jsonl"), lines.join("\n")).unwrap();
    let line = "journal verify --json --journal @beta.jsonl";
    stage.golden("verify-export-cut-off.json", line, Exit::JournalUnusable);
}

#[test]
fn what_is_neither_a_journal_nor_an_export_is_refused() {
    let stage = Stage::failed_over();
    std::fs::write(stage.path("notes.txt"), "no events at all\n").unwrap();
    let refused = stage.fail("status --journal @notes.txt");
    assert_eq!(refused.exit(), Exit::JournalUnusable);
    assert!(refused.to_string().contains("neither a journal nor an export"), "{refused}");
    std::fs::write(stage.path("notes.json"), "{\"events\":[]}\n").unwrap();
    let refused = stage.fail("status --journal @notes.json");
    assert!(refused.to_string().contains("is no export of this program"), "{refused}");
    stage.answer("export --journal @beta.db --output @beta.jsonl");
    let folder = stage.fail("status --journal @");
    assert!(folder.to_string().contains("is a folder: name the journal or the export in it"), "{folder}");
    let missing = stage.fail("import @missing.jsonl --journal @new.db");
    assert!(missing.to_string().ends_with("missing.jsonl to import"), "{missing}");
    let follow = stage.fail("events --follow --journal @beta.jsonl");
    assert!(follow.to_string().contains("is an export, which gets no new events"), "{follow}");
}

#[test]
fn an_export_becomes_the_same_journal_again() {
    let stage = Stage::failed_over();
    for file in FILES {
        stage.answer(&format!("export --journal @beta.db --output @{file}"));
        let made = stage.answer(&format!("import @{file} --journal @{file}.db"));
        assert_eq!(made, format!("FOLDER/{file}.db: made, with 39 events, up to 2/39\n"));
        assert_eq!(records(&stage.path(&format!("{file}.db"))), records(&stage.path("beta.db")));
        let again = stage.answer(&format!("import @{file} --journal @{file}.db"));
        assert_eq!(again, format!("FOLDER/{file}.db: nothing was missing\n"));
    }
    stage.golden("import.json", "import --json @story.jsonl --journal @story.jsonl.db", Exit::Fine);
    let left = std::fs::read_dir(stage.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().starts_with(".interrex")));
}

#[test]
fn a_journal_with_copies_of_its_peers_is_carried_whole() {
    let stage = Stage::failed_over();
    Author::of(&stage.path("alpha.db"), ALPHA).return_of_the_old_main();
    let of_alpha = records(&stage.path("alpha.db"));
    Author::of(&stage.path("beta.db"), BETA).learns(of_alpha, Epoch(2));
    let said = stage.answer("export --journal @beta.db --output @both.jsonl.zst");
    assert!(said.contains("43 events of node 2's store, up to 1/4 and 2/39"), "{said}");
    stage.answer("import @both.jsonl.zst --journal @again.db");
    assert_eq!(records(&stage.path("again.db")), records(&stage.path("beta.db")));
    stage.golden("timeline-learned-later.txt", "timeline --journal @again.db --since 08:11:00", Exit::Fine);
    stage.golden("verify-both.txt", "journal verify --journal @both.jsonl.zst", Exit::Fine);
}

#[test]
fn what_a_journal_lacks_is_added_and_nothing_else() {
    let stage = Stage::failed_over();
    stage.answer("export --journal @beta.db --output @morning.jsonl --until 08:05:00");
    stage.answer("export --journal @beta.db --output @rest.jsonl.gz --since 08:05:00");
    let cut_at = |name: &str| crate::cli::store::Store::open(&stage.path(name)).unwrap().cut_at();
    assert_eq!(
        (cut_at("morning.jsonl").len(), cut_at("rest.jsonl.gz").len()),
        (0, 1),
        "who reads it is told"
    );
    let gap = stage.fail("import @rest.jsonl.gz --journal @new.db");
    assert_eq!(gap.exit(), Exit::JournalUnusable);
    assert!(gap.to_string().starts_with("events 1 to 9 of node 2 are missing: they are neither in"), "{gap}");
    assert!(!stage.path("new.db").exists());
    stage.answer("import @morning.jsonl --journal @new.db");
    let added = stage.answer("import @rest.jsonl.gz --journal @new.db");
    assert_eq!(added, "FOLDER/new.db: 30 events added, 0 were there already, up to 2/39\n");
    assert_eq!(records(&stage.path("new.db")), records(&stage.path("beta.db")));
    assert!(stage.answer("import @beta.db --journal @new.db").ends_with("nothing was missing\n"));
}

#[test]
fn an_import_that_does_not_fit_changes_nothing() {
    let stage = Stage::failed_over();
    stage.answer("export --journal @beta.db --output @beta.jsonl");
    Author::of(&stage.path("other.db"), BETA).bad_day();
    let before = records(&stage.path("other.db"));
    let fork = stage.fail("import @beta.jsonl --journal @other.db");
    assert_eq!(fork.exit(), Exit::JournalUnusable);
    assert!(fork.to_string().contains("event 1 of node 2 is"), "{fork}");
    assert_eq!(records(&stage.path("other.db")), before);
    Author::of(&stage.path("alpha.db"), ALPHA);
    let stranger = stage.fail("import @beta.jsonl --journal @alpha.db");
    assert!(stranger.to_string().contains("belongs to node 1 of cluster"), "{stranger}");
    let used = Author::of(&stage.path("beta.db"), BETA);
    stage.answer("export --journal @beta.db --output @beta.jsonl");
    assert!(stage.answer("import @beta.jsonl --journal @beta.db").ends_with("nothing was missing\n"));
    drop(used);
    stage.answer(&format!("export --journal @beta.db --run {} --output @run.jsonl", RUN.short()));
    assert_eq!(stage.fail("import @run.jsonl --journal @new.db").exit(), Exit::WrongUsage);
    let text = std::fs::read_to_string(stage.path("beta.jsonl")).unwrap();
    std::fs::write(stage.path("beta.jsonl"), text.replace("all recei", "All recei")).unwrap();
    assert_eq!(stage.fail("import @beta.jsonl --journal @new.db").exit(), Exit::JournalUnusable);
    assert!(!stage.path("new.db").exists());
}

#[test]
fn a_journal_in_use_is_left_alone() {
    let stage = Stage::set(NOON, Author::quiet_morning);
    stage.answer("export --journal @beta.db --output @morning.jsonl");
    let rest = Stage::failed_over();
    rest.answer("export --journal @beta.db --output @all.jsonl");
    std::fs::copy(rest.path("all.jsonl"), stage.path("all.jsonl")).unwrap();
    let used = Author::of(&stage.path("beta.db"), BETA);
    let refused = stage.fail("import @all.jsonl --journal @beta.db");
    assert_eq!(refused.exit(), Exit::InUse);
    drop(used);
    assert!(
        stage
            .answer("import @all.jsonl --journal @beta.db")
            .contains("30 events added, 9 were there already")
    );
}

/// A supervisor that holds these events of beta's journal, and of alpha's.
fn holding(node: NodeId, of_beta: &interrex_events::Record, of_alpha: u64) -> NodeReport {
    let head = |node_id, node_seq, hash| interrex_events::Head { node_id, node_seq, hash };
    let mut report = report(node);
    report.journal_heads = vec![
        head(ALPHA, interrex_events::NodeSeq(of_alpha), of_beta.hash),
        head(BETA, of_beta.node_seq, of_beta.hash),
    ];
    report
}

#[test]
fn copies_elsewhere_are_compared() {
    let stage = Stage::failed_over();
    let records = records(&stage.path("beta.db"));
    let stage = stage.with([holding(ALPHA, &records[30], 12), holding(BETA, &records[38], 0)]);
    stage.golden("verify-copies.txt", "journal verify --config @interrex.toml", Exit::Fine);
    stage.golden("verify-copies.json", "journal verify --json --config @interrex.toml", Exit::Fine);
}

#[test]
fn a_copy_that_goes_further_or_tells_another_story_is_an_alarm() {
    let stage = Stage::failed_over();
    let records = records(&stage.path("beta.db"));
    let mut further = records[38].clone();
    further.node_seq = interrex_events::NodeSeq(41);
    let stage = stage.with([holding(ALPHA, &further, 0)]);
    let line = "journal verify --config @interrex.toml";
    stage.golden("verify-lost.txt", line, Exit::JournalUnusable);
    let mut stage = stage;
    let mut forked = records[30].clone();
    forked.hash = records[0].hash;
    stage.reports = vec![holding(ALPHA, &forked, 0)];
    stage.golden("verify-forked.txt", line, Exit::JournalUnusable);
}
