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
    assert!(future.contains("that moment is in the future: this is the newest state"), "{future}");
    let none = stage.fail("status --at 2/40 --journal @beta.db");
    assert_eq!(none.exit(), Exit::NotFound);
    assert!(none.to_string().contains("there is no event 2/40"), "{none}");
    let position = stage.fail("status --at 2:31 --journal @beta.db");
    assert_eq!(position.exit(), Exit::WrongUsage);
    assert!(position.to_string().contains("only PostgreSQL has those"), "{position}");
    let empty = Stage::set(0, |author| author);
    let (_, empty) = empty.show("status --at 1s --journal @beta.db", Style::default());
    assert!(empty.ends_with("no event was ever recorded here\n"), "{empty}");
}

#[test]
fn a_replay_shows_what_changed_and_why() {
    let stage = Stage::failed_over();
    stage.golden("replay.txt", "replay --journal @beta.db", Exit::Fine);
    stage.golden("replay-part.txt", "replay --from 2/25 --until 08:10:05.170 --journal @beta.db", Exit::Fine);
    stage.golden(
        "replay-part.jsonl",
        "replay --json --from 2/25 --until 2/27 --journal @beta.db",
        Exit::Fine,
    );
    let (_, nothing) = stage.show("replay --from 2/9 --until 2/9 --journal @beta.db", Style::default());
    assert_eq!(nothing, "0 of 1 events changed something.\n");
    let reversed = stage.fail("replay --from 2/9 --until 2/8 --journal @beta.db");
    assert_eq!(reversed.exit(), Exit::WrongUsage);
}

#[test]
fn a_replay_takes_the_time_that_is_asked_for() {
    let stage = Stage::failed_over();
    stage.show("replay --speed 10 --from 2/10 --until 2/13 --journal @beta.db", Style::default());
    let waits: Vec<u128> = stage.waits.borrow().iter().map(std::time::Duration::as_micros).collect();
    assert_eq!(waits, [505_000, 100, 900]);
}

#[test]
fn a_replay_goes_on_at_each_enter_and_ends_at_q() {
    let stage = Stage::failed_over();
    let line = "replay --step --json --journal @beta.db";
    let refused = stage.fail(line);
    assert!(refused.to_string().contains("standard input is not a terminal"), "{refused}");
    stage.enters.set(Some(2));
    let mut bytes = Vec::new();
    run(stage.parse(line).command, &stage, &mut Output::to(&mut bytes, Style::default()));
    assert_eq!(String::from_utf8(bytes).unwrap().lines().count(), 3);
}

#[test]
fn what_is_different_between_two_moments() {
    let stage = Stage::set(NOON, |author| author.quiet_morning().death_of_main().new_main());
    stage.golden("diff.txt", "diff --at 08:05 --at 08:10:05.700 --journal @beta.db", Exit::Fine);
    stage.golden("diff.json", "diff --json --at 2/31 --at 2/24 --journal @beta.db", Exit::Fine);
    stage.golden("diff-run.txt", "diff --at 2/24 --journal @beta.db", Exit::Fine);
    stage.golden("diff-beginning.txt", "diff --at 07:00 --at 08:00:00 --journal @beta.db", Exit::Fine);
    let (_, same) = stage.show("diff --at 2/39 --at 12:00 --journal @beta.db", Style::default());
    assert!(same.contains("Nothing is different.") && same.contains("none between the two"), "{same}");
    let three = stage.fail("diff --at 1h --at 2h --at 3h --journal @beta.db");
    assert_eq!(three.exit(), Exit::WrongUsage);
}
