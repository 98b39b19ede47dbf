//! A journal whose begin was sealed: what it still tells, and what it says of the rest.

use super::*;

/// The last event before the run that is told afterwards.
const LAST: u64 = 8;

fn sealed() -> Stage {
    let stage = Stage::failed_over();
    let author = Author::of(&stage.path("beta.db"), BETA);
    drop(author.seals(&stage.path("segments"), LAST));
    stage
}

#[test]
fn what_was_sealed_is_verified_where_its_file_is() {
    let stage = sealed();
    stage.golden("verify-sealed.txt", "journal verify --journal @beta.db", Exit::Fine);
    stage.golden("verify-sealed.json", "journal verify --json --journal @beta.db", Exit::Fine);
    let file = stage.path("segments").join("node-2-1-8.jsonl.zst");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.truncate(100);
    std::fs::write(&file, bytes).unwrap();
    let (exit, text) = stage.show("journal verify --journal @beta.db", Style::default());
    assert!(text.contains("DAMAGED") && text.contains("SHA-256"), "{text}");
    assert_eq!(exit, Exit::JournalUnusable);
    std::fs::remove_file(file).unwrap();
    let (exit, text) = stage.show("journal verify --journal @beta.db", Style::default());
    assert!(text.contains("not there: it may have been moved elsewhere"), "{text}");
    assert_eq!(exit, Exit::Fine, "segments may be kept elsewhere");
}

#[test]
fn what_is_left_tells_the_rest_of_the_story_with_everybodys_name() {
    let (whole, sealed) = (Stage::failed_over(), sealed());
    let answers = |line: &str| {
        let (_, of_whole) = whole.show(line, Style::default());
        let (_, of_sealed) = sealed.show(line, Style::default());
        (of_whole, of_sealed)
    };
    for same in ["nodes", "run list", "run show", "events --kind failover_started"] {
        let (of_whole, of_sealed) = answers(&format!("{same} --journal @beta.db"));
        assert_eq!(of_whole, of_sealed, "{same}");
    }
    let (of_whole, of_sealed) = answers("status --journal @beta.db");
    // these tell of the last of something, which was sealed, or is the seal
    let told_alike = |line: &&str| !["WITHHELD", "LAST EVENT"].iter().any(|last| line.starts_with(last));
    let lines = |text: &str| text.lines().filter(told_alike).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(&of_whole), lines(&of_sealed));
    let (of_whole, of_sealed) = answers("timeline --since 08:10:01 --journal @beta.db");
    assert!(of_sealed.starts_with(&of_whole), "{of_sealed}");
    let before = sealed.fail("status --at 07:00 --journal @beta.db");
    assert_eq!(before.exit(), Exit::NotFound);
    assert!(before.to_string().contains("that moment is before event 2/8"), "{before}");

    let line = "import @segments/node-2-1-8.jsonl.zst --journal @again.db";
    assert_eq!(sealed.show(line, Style::default()).0, Exit::Fine);
    assert_eq!(sealed.show("import @beta.db --journal @again.db", Style::default()).0, Exit::Fine);
    let (_, again) = sealed.show("events --json --journal @again.db", Style::default());
    let (_, of_whole) = whole.show("events --json --journal @beta.db", Style::default());
    assert!(again.starts_with(&of_whole), "the segment and the rest are the whole story again");
}
