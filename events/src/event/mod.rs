//! What can have happened: one kind per fact, in the past tense, its payload beside it.
//!
//! A decision not to act is a fact too. Kinds are never reused; a payload that changes gets a new version, and
//! old ones are brought up to it ([`upcast`]). A kind or version that this program does not know is kept as
//! [`Event::Unknown`], never dropped. `docs/EVENTS.md` is made from this folder, and says how a payload may change.

mod handover;
mod health;
mod rejoin;
mod role;
mod run;
mod step;
mod store;
mod supervisor;
#[cfg(test)]
mod tests;
mod upcast;

use std::fmt;

use self::upcast::{Stored, UPCASTERS, Upcaster};
pub use self::{handover::*, health::*, rejoin::*, role::*, run::*, step::*, store::*, supervisor::*};

/// An event whose kind or payload this version cannot read; it is kept, counted and shown as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownEvent {
    /// The kind as recorded.
    pub kind: String,
    /// The version of the payload's shape as recorded.
    pub schema_version: u32,
    /// The payload as recorded, JSON.
    pub payload: String,
    /// Why it could not be read.
    pub reason: String,
}

/// What there is to know about a kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Its name in snake_case, as stored.
    pub name: &'static str,
    /// What it means, in a sentence.
    pub meaning: &'static str,
    /// The version of its payload's shape that this program records.
    pub version: u32,
    /// Who records it.
    pub recorded_by: &'static [Recorder],
    /// The type of its payload.
    pub payload: &'static str,
}

/// A part of a supervisor that records events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorder {
    /// Probes main and the peers, and judges main.
    HeartbeatActor,
    /// Decides about a failover and its steps.
    FailoverActor,
    /// Works with PostgreSQL and Redis.
    ReplicationActor,
    /// Tells peers, dependents and hooks.
    NotifierActor,
    /// Keeps the journal.
    JournalActor,
    /// The process around the actors: its start, its end, and its care for actors that fail.
    Supervisor,
}

impl fmt::Display for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::HeartbeatActor => "HeartbeatActor",
            Self::FailoverActor => "FailoverActor",
            Self::ReplicationActor => "ReplicationActor",
            Self::NotifierActor => "NotifierActor",
            Self::JournalActor => "JournalActor",
            Self::Supervisor => "the supervisor process",
        })
    }
}

macro_rules! event_kinds {
    ($(
        $(#[doc = $doc:literal])+
        $kind:literal version $version:literal by $($recorder:ident),+ => $Variant:ident
    ),+ $(,)?) => {
        /// A fact, in the past tense.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Event {
            $( $(#[doc = $doc])+ $Variant($Variant), )+
            /// A kind or a payload from another version.
            Unknown(UnknownEvent),
        }

        /// Every kind this version can record.
        pub const KINDS: &[Kind] = &[ $( Kind {
            name: $kind,
            meaning: concat!($($doc),+).trim_ascii(),
            version: $version,
            recorded_by: &[ $( Recorder::$recorder ),+ ],
            payload: stringify!($Variant),
        } ),+ ];

        impl Event {
            /// The kind in snake_case, as stored.
            #[must_use]
            pub fn kind(&self) -> &str {
                match self {
                    $( Self::$Variant(_) => $kind, )+
                    Self::Unknown(unknown) => &unknown.kind,
                }
            }

            /// The version of the payload's shape, as stored.
            #[must_use]
            pub fn schema_version(&self) -> u32 {
                match self {
                    $( Self::$Variant(_) => $version, )+
                    Self::Unknown(unknown) => unknown.schema_version,
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

            fn read_with(upcasters: &[Upcaster], stored: Stored<'_>) -> Self {
                let read = match stored.kind {
                    $( $kind => stored.read($version, upcasters).map(Self::$Variant), )+
                    _ => Err("a kind that this version does not know".to_owned()),
                };
                read.unwrap_or_else(|reason| Self::Unknown(stored.kept(reason)))
            }
        }

        $( impl From<$Variant> for Event {
            fn from(payload: $Variant) -> Self {
                Self::$Variant(payload)
            }
        } )+
    };
}

impl Event {
    /// Reads an event back, an older payload brought up to date. Total: what cannot be read becomes
    /// [`Event::Unknown`] with the reason.
    #[must_use]
    pub fn read(kind: &str, schema_version: u32, payload: &str) -> Self {
        Self::read_with(UPCASTERS, Stored { kind, version: schema_version, payload })
    }
}

event_kinds! {
    /// A supervisor process began its work on a node.
    "supervisor_started" version 1 by Supervisor => SupervisorStarted,
    /// A supervisor process ended its work in good order.
    "supervisor_stopped" version 1 by Supervisor => SupervisorStopped,
    /// The supervisor itself did not run for a while (frozen, starved, machine suspended): it judges nobody by that time.
    "supervisor_stalled" version 1 by HeartbeatActor => SupervisorStalled,
    /// The wall clock was set, or drifted, against the monotonic clock.
    "clock_jumped" version 1 by HeartbeatActor => ClockJumped,
    /// An actor panicked or ended and was started again, its state rebuilt from the journal.
    "actor_restarted" version 1 by Supervisor => ActorRestarted,
    /// The local PostgreSQL changed its state.
    "postgres_changed" version 1 by ReplicationActor => PostgresChanged,
    /// The local Redis changed its state.
    "redis_changed" version 1 by ReplicationActor, Supervisor => RedisChanged,
    /// PostgreSQL answers the sessions that are open and admits no new one, or admits them again; this node's, or main's as seen from here.
    "admission_changed" version 1 by ReplicationActor => AdmissionChanged,
    /// A local dependent, such as RADIUS, changed its state.
    "dependent_changed" version 1 by ReplicationActor, NotifierActor => DependentChanged,
    /// First good observation of main since this supervisor started.
    "main_seen" version 1 by HeartbeatActor => MainSeen,
    /// A probe of main went unanswered; the silence is being measured.
    "main_suspected" version 1 by HeartbeatActor => MainSuspected,
    /// Main answered again before any verdict.
    "main_recovered" version 1 by HeartbeatActor => MainRecovered,
    /// Main has been silent for the whole threshold, with nothing speaking for it.
    "main_lost" version 1 by HeartbeatActor => MainLost,
    /// A peer other than main stopped answering.
    "peer_unreachable" version 1 by HeartbeatActor => PeerUnreachable,
    /// A peer other than main answers again.
    "peer_reachable" version 1 by HeartbeatActor => PeerReachable,
    /// All probes of one peer in a window, without loss: counts, round trips, the moment of every miss.
    "heartbeats_observed" version 1 by HeartbeatActor => HeartbeatsObserved,
    /// A failover was due by the clock, and was not made: which rule said no, and on what evidence.
    "failover_withheld" version 1 by HeartbeatActor, FailoverActor => FailoverWithheld,
    /// A failover run began.
    "failover_started" version 2 by FailoverActor => FailoverStarted,
    /// A failover run was given up before anything changed, by policy.
    "failover_refused" version 1 by FailoverActor => FailoverRefused,
    /// A switchover or a rejoin was given up before anything changed.
    "run_refused" version 1 by FailoverActor => RunRefused,
    /// A switchover or a rejoin ended without its purpose, or needs a person.
    "run_failed" version 1 by FailoverActor => RunFailed,
    /// Somebody asked for a run to be given up: it is taken back, unless it is past its point of no return.
    "run_cancel_requested" version 1 by FailoverActor => RunCancelRequested,
    /// A run that a dead supervisor left behind was taken up again.
    "run_resumed" version 1 by FailoverActor => RunResumed,
    /// A step of a run is about to be made.
    "step_started" version 1 by FailoverActor => StepStarted,
    /// A step of a run ended, with what was observed of it.
    "step_finished" version 1 by FailoverActor => StepFinished,
    /// A step is about to be taken back, before the point of no return.
    "step_undo_started" version 1 by FailoverActor => StepUndoStarted,
    /// A step's effect was taken back before the point of no return.
    "step_undone" version 1 by FailoverActor => StepUndone,
    /// A failover run ended with a new main.
    "failover_completed" version 1 by FailoverActor => FailoverCompleted,
    /// A failover run ended without one, or needs a person.
    "failover_failed" version 1 by FailoverActor => FailoverFailed,
    /// A switchover began on main.
    "switchover_started" version 1 by FailoverActor => SwitchoverStarted,
    /// A switchover was asked for at a later time.
    "switchover_scheduled" version 1 by FailoverActor => SwitchoverScheduled,
    /// A switchover is scheduled no more: it began, or it never will by that schedule.
    "switchover_unscheduled" version 1 by FailoverActor => SwitchoverUnscheduled,
    /// This node has recorded that it would take the role by main's switchover: its journal can store that.
    "handover_accepted" version 1 by FailoverActor => HandoverAccepted,
    /// Main has stopped, has proved that the target lacks nothing, and offers it the role.
    "handover_offered" version 1 by FailoverActor => HandoverOffered,
    /// The role stays where it was: the target did not take it, and never will by this offer.
    "handover_withdrawn" version 1 by FailoverActor => HandoverWithdrawn,
    /// A switchover ended with a new main, and the old one following it.
    "switchover_completed" version 1 by FailoverActor => SwitchoverCompleted,
    /// A node that was main, or cannot follow, began to come back as a secondary.
    "rejoin_started" version 1 by FailoverActor => RejoinStarted,
    /// A node came back as a secondary; what only it had is named and kept.
    "rejoin_completed" version 1 by FailoverActor => RejoinCompleted,
    /// A node's data directory cannot start as a primary any more: it may run again.
    "node_demoted" version 1 by ReplicationActor => NodeDemoted,
    /// A node became main of a new epoch: its PostgreSQL was promoted and proved writable.
    "epoch_opened" version 1 by FailoverActor => EpochOpened,
    /// This node learned from a peer who is main now.
    "main_announced" version 1 by HeartbeatActor, Supervisor => MainAnnounced,
    /// An announcement of an older epoch was refused.
    "notice_refused" version 1 by HeartbeatActor => NoticeRefused,
    /// Main started its database without any peer to confirm that it is still main.
    "started_unconfirmed" version 1 by Supervisor => StartedUnconfirmed,
    /// This node's PostgreSQL takes writes, and this node is not main: somebody promoted it, or started it as a primary.
    "stray_primary_found" version 1 by FailoverActor => StrayPrimaryFound,
    /// Servers of this node that should run stay stopped, or were stopped: the start goes on when that has passed.
    "start_held_up" version 1 by Supervisor => StartHeldUp,
    /// This node's reign was superseded: its servers are being stopped.
    "fencing_started" version 1 by FailoverActor => FencingStarted,
    /// This node acknowledges no more writes, by observation.
    "node_fenced" version 1 by FailoverActor => NodeFenced,
    /// Fencing did not succeed yet; it is tried again.
    "fencing_failed" version 1 by FailoverActor => FencingFailed,
    /// Nobody was promoted in place of this node, and nobody will be: it is main as before, and serves again.
    "fence_lifted" version 1 by FailoverActor => FenceLifted,
    /// This node's standbys follow the announced main.
    "follow_finished" version 1 by ReplicationActor => FollowFinished,
    /// Somebody changed the cluster's settings through `cluster_config`.
    "settings_changed" version 1 by ReplicationActor => SettingsChanged,
    /// This node took over settings that were changed on main.
    "settings_adopted" version 1 by HeartbeatActor => SettingsAdopted,
    /// A peer's clock is too far from this node's: one that is ahead is not followed, and the order of the story is doubtful.
    "clock_skew_observed" version 1 by HeartbeatActor => ClockSkewObserved,
    /// A journal was found with two continuations: two machines with one node's number, or an old disk image.
    "journal_forked" version 1 by JournalActor, Supervisor => JournalForked,
    /// This node's journal had lost its newest events, and took them back from a peer's copy.
    "journal_restored" version 1 by Supervisor => JournalRestored,
    /// A projection in PostgreSQL could not take in an event, and stays where it is until that is mended.
    "projection_paused" version 1 by ReplicationActor => ProjectionPaused,
    /// A projection in PostgreSQL was rebuilt from the stream beside the old one, and swapped in.
    "projection_rebuilt" version 1 by ReplicationActor => ProjectionRebuilt,
    /// A part of a journal was exported to a file and dropped from the database.
    "journal_sealed" version 1 by JournalActor => JournalSealed,
}
