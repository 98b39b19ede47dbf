//! What keeps old events readable, and `docs/EVENTS.md` true.
//!
//! After a change of payloads, `UPDATE_GOLDEN=1 cargo test -p interrex-events event` writes what has to be written:
//! golden files that have not been shipped yet, and the page.

mod golden;
mod page;
mod shape;
mod sources;

use super::*;

#[test]
fn a_kind_from_another_version_is_kept_as_it_came() {
    let event = Event::read("moon_phase_observed", 7, r#"{"phase":"full"}"#);
    assert!(matches!(event, Event::Unknown(_)));
    assert_eq!(event.kind(), "moon_phase_observed");
    assert_eq!(event.schema_version(), 7);
    assert_eq!(event.payload().unwrap(), r#"{"phase":"full"}"#);
}

#[test]
fn a_newer_version_of_a_known_kind_is_kept_as_it_came_even_where_it_looks_familiar() {
    for kind in KINDS {
        let familiar = golden::first_sample(kind);
        let event = Event::read(kind.name, kind.version + 1, &familiar);
        assert!(matches!(event, Event::Unknown(_)), "{}", kind.name);
        assert_eq!((event.kind(), event.schema_version()), (kind.name, kind.version + 1));
        assert_eq!(event.payload().unwrap(), familiar);
    }
}

#[test]
fn the_runbooks_kinds_are_there() {
    for name in ["failover_started", "failover_completed"] {
        assert!(KINDS.iter().any(|kind| kind.name == name));
    }
}

#[test]
fn no_name_stands_for_two_kinds() {
    let names: std::collections::BTreeSet<_> = KINDS.iter().map(|kind| kind.name).collect();
    assert_eq!(names.len(), KINDS.len());
}
