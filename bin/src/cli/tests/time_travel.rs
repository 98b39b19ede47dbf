//! The cluster as it was, what changed when, and what is different between two moments.

use super::*;

const NOON: i64 = 4 * 3_600_000;

#[test]
fn status_and_nodes_as_they_were_in_the_middle_of_a_run() {
    let stage = Stage::set(NOON, |author| author.quiet_morning().death_of_main().new_main())
        .with([report(ALPHA), beta_as_main()]);
    let at = "--at 2027-01-15T08:10:05.105Z --config @interrex.toml";
    stage.golden("status-at.txt", &format!("status {at}"), Exit::NotHealthy);
    stage.golden("status-at.json", &format!("status --json {at}"), Exit::NotHealthy);
    stage.golden("nodes-at.txt", &format!("nodes {at}"), Exit::Fine);
}

#[test]
fn one_moment_has_many_names() {
    let stage = Stage::failed_over();
    stage.show("export --journal @beta.db --output @beta.jsonl.gz", Style::default());
    let nodes = |at: &str| {
        let (exit, text) = stage.show(&format!("nodes --at {at} --journal @beta.db"), Style::default());
        let (_, of_export) =
            stage.show(&format!("nodes --at {at} --journal @beta.jsonl.gz"), Style::default());
        assert_eq!((exit, &text), (Exit::Fine, &of_export), "{at}");
        text
    };
    let by_event = nodes("2/11");
    assert!(
        by_event.contains("as of 2027-01-15 08:10:05.050 UTC (rebuilt from 11 events, up to 2/11)"),
        "{by_event}"
    );
    let number = interrex_events::Hlc::from_wall_ms(at(605_050).timestamp_millis()).0.to_string();
    for same in ["2027-01-15T08:10:05.050Z+0", &number, "2027-01-15T08:10:05.050Z", "08:10:05.050"] {
        assert_eq!(nodes(same), by_event, "{same}");
    }
    assert_ne!(nodes("2/10"), by_event);
}

#[test]
fn moments_outside_of_the_story_are_answered_too() {
    let stage = Stage::failed_over();
    stage.golden("status-at-before.txt", "status --at 07:00 --journal @beta.db", Exit::NotHealthy);
    stage.golden("nodes-at-before.txt", "nodes --at 07:00 --journal @beta.db", Exit::Fine);
    stage.golden("status-at-after.txt", "status --at 08:14 --journal @beta.db", Exit::NotHealthy);
    let (_, future) = stage.show("nodes --at 2030-01-01 --journal @beta.db", Style::default());
    assert!(future.contains("that moment is yet to come: this is the newest state"), "{future}");
    let none = stage.fail("status --at 2/40 --journal @beta.db");
    assert_eq!(none.exit(), Exit::NotFound);
    assert!(none.to_string().contains("there is no event 2/40"), "{none}");
    let position = stage.fail("status --at 2:31 --journal @beta.db");
    assert_eq!(position.exit(), Exit::WrongUsage);
    assert!(position.to_string().contains("only PostgreSQL has those"), "{position}");
    let empty = Stage::set(0, |author| author);
    let (_, empty) = empty.show("status --at 1s --journal @beta.db", Style::default());
    assert!(empty.ends_with("nothing was ever recorded here\n"), "{empty}");
}
