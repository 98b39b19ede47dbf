//! Conversion of old payloads to the current version, one version at a time.
//!
//! ```text
//! version 1 ──step──> version 2 ──step──> version 3 ──> the payload type of today
//! ```
//!
//! A step is a pure function from one version's JSON to the next version's. Most events are of the current version and
//! are read directly. Stored text never changes: only the reader sees the new shape.

use std::cmp::Ordering;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::UnknownEvent;

/// The conversion from one version of a kind's payload to the next.
pub(super) struct Upcaster {
    pub(super) kind: &'static str,
    pub(super) from: u32,
    pub(super) step: fn(Value) -> Value,
}

/// Every step. None is ever removed, because a recorded event must stay readable for ever.
pub(super) const UPCASTERS: &[Upcaster] = &[
    // before version 2 a person could not ask for a failover, and no main handed over
    Upcaster { kind: "failover_started", from: 1, step: |old| with_nulls(old, &["request", "handover"]) },
];

/// A payload with additional fields that are `null`.
fn with_nulls(mut payload: Value, fields: &[&str]) -> Value {
    if let Value::Object(object) = &mut payload {
        object.extend(fields.iter().map(|field| ((*field).to_owned(), Value::Null)));
    }
    payload
}

/// A payload as it was recorded.
#[derive(Clone, Copy)]
pub(super) struct Stored<'a> {
    pub(super) kind: &'a str,
    pub(super) version: u32,
    pub(super) payload: &'a str,
}

impl Stored<'_> {
    /// The payload as the current version's type, or the reason why it cannot be read.
    pub(super) fn read<Payload: DeserializeOwned>(
        self,
        current: u32,
        upcasters: &[Upcaster],
    ) -> Result<Payload, String> {
        match self.version.cmp(&current) {
            Ordering::Equal => serde_json::from_str(self.payload).map_err(unreadable),
            Ordering::Less => {
                let up_to_date = self.brought_up_to(current, upcasters)?;
                serde_json::from_value(up_to_date).map_err(unreadable)
            }
            Ordering::Greater => Err(format!(
                "version {} of its payload, and this program knows versions up to {current}",
                self.version
            )),
        }
    }

    fn brought_up_to(self, current: u32, upcasters: &[Upcaster]) -> Result<Value, String> {
        let mut payload = serde_json::from_str(self.payload).map_err(unreadable)?;
        for version in self.version..current {
            let upcaster = upcasters.iter().find(|it| it.kind == self.kind && it.from == version);
            let Some(upcaster) = upcaster else {
                return Err(format!("nothing brings version {version} of its payload up to date"));
            };
            payload = (upcaster.step)(payload);
        }
        Ok(payload)
    }

    /// The event as it was recorded, because it cannot be read.
    pub(super) fn kept(self, reason: String) -> UnknownEvent {
        UnknownEvent {
            kind: self.kind.to_owned(),
            schema_version: self.version,
            payload: self.payload.to_owned(),
            reason,
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as map_err hands it over")]
fn unreadable(error: serde_json::Error) -> String {
    format!("payload of a known kind cannot be read: {error}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::{Event, KINDS, Kind, SupervisorStopped},
        *,
    };

    /// `why` became `cause.words` in version 2 and `reason` in version 3; no step can stand in for another.
    const STEPS: &[Upcaster] = &[
        Upcaster {
            kind: "supervisor_stopped",
            from: 1,
            step: |old| json!({ "cause": { "words": old["why"] } }),
        },
        Upcaster {
            kind: "supervisor_stopped",
            from: 2,
            step: |old| json!({ "reason": old["cause"]["words"] }),
        },
        Upcaster { kind: "main_lost", from: 1, step: |_| panic!("a step of another kind was taken") },
        Upcaster { kind: "supervisor_stopped", from: 3, step: |_| panic!("the current version was changed") },
    ];

    fn read(version: u32, payload: &str) -> Result<SupervisorStopped, String> {
        Stored { kind: "supervisor_stopped", version, payload }.read(3, STEPS)
    }

    #[test]
    fn an_older_payload_is_brought_up_to_date_step_by_step() {
        let asked_to = Ok(SupervisorStopped { reason: "asked to".to_owned() });
        assert_eq!(read(1, r#"{"why":"asked to"}"#), asked_to);
        assert_eq!(read(2, r#"{"cause":{"words":"asked to"}}"#), asked_to);
        assert_eq!(read(3, r#"{"reason":"asked to"}"#), asked_to);
    }

    #[test]
    fn a_payload_is_read_as_the_version_it_was_recorded_in_and_no_other() {
        for (version, payload, complaint) in [
            (
                4,
                r#"{"reason":"asked to"}"#,
                "version 4 of its payload, and this program knows versions up to 3",
            ),
            (0, r#"{"reason":"asked to"}"#, "nothing brings version 0 of its payload up to date"),
            (2, r#"{"reason":"asked to"}"#, "cannot be read"),
            (3, r#"{"why":"asked to"}"#, "missing field `reason`"),
            (1, "not JSON", "cannot be read"),
        ] {
            let reason = read(version, payload).unwrap_err();
            assert!(reason.contains(complaint), "version {version}, {payload}: {reason}");
        }
    }

    #[test]
    fn an_event_is_read_through_the_steps_of_its_kind() {
        let before_the_first =
            [Upcaster { kind: "supervisor_stopped", from: 0, step: |old| json!({ "reason": old["why"] }) }];
        let stored = Stored { kind: "supervisor_stopped", version: 0, payload: r#"{"why":"asked to"}"# };
        let event = Event::read_with(&before_the_first, stored);
        assert_eq!(event, SupervisorStopped { reason: "asked to".to_owned() }.into());
        assert!(matches!(Event::read("supervisor_stopped", 0, stored.payload), Event::Unknown(_)));
    }

    #[test]
    fn every_older_version_of_every_kind_has_one_way_up_and_no_step_leads_elsewhere() {
        let older = |kind: &'static Kind| (1..kind.version).map(|from| (kind.name, from));
        let mut wanted: Vec<_> = KINDS.iter().flat_map(older).collect();
        let mut there: Vec<_> = UPCASTERS.iter().map(|it| (it.kind, it.from)).collect();
        wanted.sort_unstable();
        there.sort_unstable();
        assert_eq!(there, wanted);
    }
}
