//! What this version cannot read is kept as it came.

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
