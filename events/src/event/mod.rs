//! What can have happened: one kind per fact, in the past tense, its payload beside it.
//!
//! A decision not to act is a fact too. Kinds are never reused; a payload that changes gets a new
//! `schema_version`. A kind that this version does not know is kept as [`Event::Unknown`], never dropped.

mod health;
mod role;
mod run;
mod store;
mod supervisor;

use serde::{Deserialize, Serialize};

pub use self::{health::*, role::*, run::*, store::*, supervisor::*};

/// An event whose kind or payload this version cannot read; it is kept, counted and shown as it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownEvent {
    /// The kind as recorded.
    pub kind: String,
    /// The payload as recorded, JSON.
    pub payload: String,
    /// Why it could not be read.
    pub reason: String,
}

macro_rules! event_kinds {
    ($( $(#[doc = $doc:literal])+ $kind:literal => $Variant:ident ),+ $(,)?) => {
        /// A fact, in the past tense.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kind", content = "payload")]
        pub enum Event {
            $( $(#[doc = $doc])+ #[serde(rename = $kind)] $Variant($Variant), )+
            /// A kind from another version.
            #[serde(skip)]
            Unknown(UnknownEvent),
        }

        /// Every kind this version can record, with its meaning.
        pub const KINDS: &[(&str, &str)] = &[ $( ($kind, concat!($($doc),+)) ),+ ];

        impl Event {
            /// The kind in snake_case, as stored.
            #[must_use]
            pub fn kind(&self) -> &str {
                match self {
                    $( Self::$Variant(_) => $kind, )+
                    Self::Unknown(unknown) => &unknown.kind,
                }
            }

            /// The payload as JSON text, as stored.
            ///
            /// # Errors
            /// Only if a payload type cannot be JSON, which the tests rule out for every kind.
            pub fn payload(&self) -> Result<String, serde_json::Error> {
                match self {
                    $( Self::$Variant(payload) => serde_json::to_string(payload), )+
                    Self::Unknown(unknown) => Ok(unknown.payload.clone()),
                }
            }

            /// Reads an event back. Total: what cannot be read becomes [`Event::Unknown`] with the reason.
            #[must_use]
            pub fn read(kind: &str, payload: &str) -> Self {
                let unknown = |reason: String| {
                    Self::Unknown(UnknownEvent { kind: kind.to_owned(), payload: payload.to_owned(), reason })
                };
                match kind {
                    $( $kind => match serde_json::from_str(payload) {
                        Ok(payload) => Self::$Variant(payload),
                        Err(error) => unknown(format!("payload of a known kind cannot be read: {error}")),
                    }, )+
                    _ => unknown("a kind that this version does not know".to_owned()),
                }
            }
        }

        $( impl From<$Variant> for Event {
            fn from(payload: $Variant) -> Self {
                Self::$Variant(payload)
            }
        } )+
    };
}

event_kinds! {
    /// A supervisor process began its work on a node.
    "supervisor_started" => SupervisorStarted,
    /// A supervisor process ended its work in good order.
    "supervisor_stopped" => SupervisorStopped,
    /// The supervisor itself did not run for a while (frozen, starved, machine suspended): it judges nobody by that time.
    "supervisor_stalled" => SupervisorStalled,
    /// The wall clock was set, or drifted, against the monotonic clock.
    "clock_jumped" => ClockJumped,
    /// An actor panicked or ended and was started again, its state rebuilt from the journal.
    "actor_restarted" => ActorRestarted,
    /// The local PostgreSQL changed its state.
    "postgres_changed" => PostgresChanged,
    /// The local Redis changed its state.
    "redis_changed" => RedisChanged,
    /// A local dependent, such as RADIUS, changed its state.
    "dependent_changed" => DependentChanged,
    /// First good observation of main since this supervisor started.
    "main_seen" => MainSeen,
    /// A probe of main went unanswered; the silence is being measured.
    "main_suspected" => MainSuspected,
    /// Main answered again before any verdict.
    "main_recovered" => MainRecovered,
    /// Main has been silent for the whole threshold, with nothing speaking for it.
    "main_lost" => MainLost,
    /// A peer other than main stopped answering.
    "peer_unreachable" => PeerUnreachable,
    /// A peer other than main answers again.
    "peer_reachable" => PeerReachable,
    /// All probes of one peer in a window, without loss: counts, round trips, the moment of every miss.
    "heartbeats_observed" => HeartbeatsObserved,
    /// A failover was due by the clock, and was not made: which rule said no, and on what evidence.
    "failover_withheld" => FailoverWithheld,
    /// A failover run began.
    "failover_started" => FailoverStarted,
    /// A failover run was given up before anything changed, by policy.
    "failover_refused" => FailoverRefused,
    /// A run that a dead supervisor left behind was taken up again.
    "run_resumed" => RunResumed,
    /// A step of a run is about to be made.
    "step_started" => StepStarted,
    /// A step of a run ended, with what was observed of it.
    "step_finished" => StepFinished,
    /// A step is about to be taken back, before the point of no return.
    "step_undo_started" => StepUndoStarted,
    /// A step's effect was taken back before the point of no return.
    "step_undone" => StepUndone,
    /// A failover run ended with a new main.
    "failover_completed" => FailoverCompleted,
    /// A failover run ended without one, or needs a person.
    "failover_failed" => FailoverFailed,
    /// A node became main of a new epoch: its PostgreSQL was promoted and proved writable.
    "epoch_opened" => EpochOpened,
    /// This node learned from a peer who is main now.
    "main_announced" => MainAnnounced,
    /// An announcement of an older epoch was refused.
    "notice_refused" => NoticeRefused,
    /// Main started its database without any peer to confirm that it is still main.
    "started_unconfirmed" => StartedUnconfirmed,
    /// This node's reign was superseded: its servers are being stopped.
    "fencing_started" => FencingStarted,
    /// This node acknowledges no more writes, by observation.
    "node_fenced" => NodeFenced,
    /// Fencing did not succeed yet; it is tried again.
    "fencing_failed" => FencingFailed,
    /// This node's standbys follow the announced main.
    "follow_finished" => FollowFinished,
    /// Somebody changed the cluster's settings through `cluster_config`.
    "settings_changed" => SettingsChanged,
    /// This node took over settings that were changed on main.
    "settings_adopted" => SettingsAdopted,
    /// A peer's clock is too far ahead to be followed: the order of what it records is doubtful.
    "clock_skew_observed" => ClockSkewObserved,
    /// A journal was found with two continuations: two machines with one node's number, or an old disk image.
    "journal_forked" => JournalForked,
    /// This node's journal had lost its newest events, and took them back from a peer's copy.
    "journal_restored" => JournalRestored,
    /// A projection in PostgreSQL could not take in an event, and stays where it is until that is mended.
    "projection_paused" => ProjectionPaused,
    /// A projection in PostgreSQL was rebuilt from the stream beside the old one, and swapped in.
    "projection_rebuilt" => ProjectionRebuilt,
    /// A part of a journal was exported to a file and dropped from the database.
    "journal_sealed" => JournalSealed,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn a_kind_from_another_version_is_kept_as_it_came() {
        let event = Event::read("moon_phase_observed", r#"{"phase":"full"}"#);
        assert_eq!(event.kind(), "moon_phase_observed");
        assert_eq!(event.payload().unwrap(), r#"{"phase":"full"}"#);
        assert!(matches!(event, Event::Unknown(_)));
    }

    #[test]
    fn the_runbooks_kinds_are_there() {
        for kind in ["failover_started", "failover_completed"] {
            assert!(KINDS.iter().any(|(known, _)| known == &kind));
        }
    }

    #[test]
    fn the_tagged_form_and_the_stored_form_agree() {
        let event = Event::from(SupervisorStopped { reason: "asked to".to_owned() });
        let tagged = serde_json::to_value(&event).unwrap();
        assert_eq!(tagged["kind"], event.kind());
        assert_eq!(tagged["payload"].to_string(), event.payload().unwrap());
        assert_eq!(serde_json::from_value::<Event>(tagged).unwrap(), event);
    }
}
