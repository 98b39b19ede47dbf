//! The events: one kind per fact, named in the past tense, with its payload.
//!
//! A decision not to act is a fact too. A kind is never reused. A payload that changes gets a new version, and old
//! payloads are converted to it when they are read ([`upcast`]). An event of a kind or version that this program does
//! not know is kept as [`Event::Unknown`], never dropped. `docs/EVENTS.md` is generated from this folder, and says how
//! a payload may change.

mod handover;
mod health;
mod observed;
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
pub use self::{
    handover::*, health::*, observed::*, rejoin::*, role::*, run::*, step::*, store::*, supervisor::*,
};

/// An event whose kind or payload this version cannot read. It is kept, counted and shown as it was recorded.
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

/// The description of a kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Its name in snake_case, as stored.
    pub name: &'static str,
    /// Its meaning, in a sentence.
    pub meaning: &'static str,
    /// The version of its payload's shape that this program records.
    pub version: u32,
    /// The parts of a supervisor that record it.
    pub recorded_by: &'static [Recorder],
    /// The type of its payload.
    pub payload: &'static str,
}

/// A part of a supervisor that records events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorder {
    /// Probes main and the peers, and judges main.
    HeartbeatActor,
    /// Decides about runs and makes their steps.
    FailoverActor,
    /// Controls PostgreSQL and Redis.
    ReplicationActor,
    /// Informs peers, restarts dependents and runs hooks.
    NotifierActor,
    /// Keeps the journal.
    JournalActor,
    /// The process around the actors: it starts, ends, and restarts actors that fail.
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

        /// Every kind that this version can record.
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
            /// If the payload cannot be written as JSON. The tests exclude that for every kind.
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
    /// Reads an event back, and converts an older payload to the current version. Never fails: an event that cannot be
    /// read becomes [`Event::Unknown`] with the reason.
    #[must_use]
    pub fn read(kind: &str, schema_version: u32, payload: &str) -> Self {
        Self::read_with(UPCASTERS, Stored { kind, version: schema_version, payload })
    }
}

event_kinds! {
    /// A supervisor process started on a node.
    "supervisor_started" version 1 by Supervisor => SupervisorStarted,
    /// A supervisor process ended in good order.
    "supervisor_stopped" version 1 by Supervisor => SupervisorStopped,
    /// The supervisor itself did not run for a while (frozen, starved, machine suspended): it judges no node by that time.
    "supervisor_stalled" version 1 by HeartbeatActor => SupervisorStalled,
    /// The wall clock was set, or drifted from the monotonic clock.
    "clock_jumped" version 1 by HeartbeatActor => ClockJumped,
    /// An actor panicked or ended, and was restarted with its state rebuilt from the journal.
    "actor_restarted" version 1 by Supervisor => ActorRestarted,
    /// The local PostgreSQL changed its state.
    "postgres_changed" version 1 by ReplicationActor => PostgresChanged,
    /// The local Redis changed its state.
    "redis_changed" version 1 by ReplicationActor, Supervisor => RedisChanged,
    /// PostgreSQL (this node's, or main's as seen from here) answers open sessions and admits no new one, or admits new ones again.
    "admission_changed" version 1 by ReplicationActor => AdmissionChanged,
    /// A local dependent, such as RADIUS, changed its state.
    "dependent_changed" version 1 by ReplicationActor, NotifierActor => DependentChanged,
    /// The first sign of life of main since this supervisor started.
    "main_seen" version 1 by HeartbeatActor => MainSeen,
    /// A probe of main got no answer. The silence is being measured.
    "main_suspected" version 1 by HeartbeatActor => MainSuspected,
    /// Main answered again before a verdict.
    "main_recovered" version 1 by HeartbeatActor => MainRecovered,
    /// Main has been silent for the whole threshold, and no evidence speaks for it.
    "main_lost" version 1 by HeartbeatActor => MainLost,
    /// A peer other than main stopped answering.
    "peer_unreachable" version 1 by HeartbeatActor => PeerUnreachable,
    /// A peer other than main answers again.
    "peer_reachable" version 1 by HeartbeatActor => PeerReachable,
    /// All probes of one peer in a window: counts, round trips, and the time of every miss.
    "heartbeats_observed" version 1 by HeartbeatActor => HeartbeatsObserved,
    /// A failover was due by the threshold and was not made: the rule that withheld it, and the evidence.
    "failover_withheld" version 1 by HeartbeatActor, FailoverActor => FailoverWithheld,
    /// A failover run began.
    "failover_started" version 2 by FailoverActor => FailoverStarted,
    /// A failover run was refused by policy, before anything changed.
    "failover_refused" version 1 by FailoverActor => FailoverRefused,
    /// A switchover or a rejoin was refused before anything changed.
    "run_refused" version 1 by FailoverActor => RunRefused,
    /// A switchover or a rejoin ended without success, or needs an operator.
    "run_failed" version 1 by FailoverActor => RunFailed,
    /// A person asked to cancel a run. Its steps are taken back, unless it is past its point of no return.
    "run_cancel_requested" version 1 by FailoverActor => RunCancelRequested,
    /// A run that a dead supervisor left unfinished was resumed.
    "run_resumed" version 1 by FailoverActor => RunResumed,
    /// A step of a run is about to begin.
    "step_started" version 1 by FailoverActor => StepStarted,
    /// A step of a run ended, with its observed outcome.
    "step_finished" version 1 by FailoverActor => StepFinished,
    /// A step is about to be taken back, before the point of no return.
    "step_undo_started" version 1 by FailoverActor => StepUndoStarted,
    /// A step's effect was taken back before the point of no return.
    "step_undone" version 1 by FailoverActor => StepUndone,
    /// A failover run ended with a new main.
    "failover_completed" version 1 by FailoverActor => FailoverCompleted,
    /// A failover run ended without a new main, or needs an operator.
    "failover_failed" version 1 by FailoverActor => FailoverFailed,
    /// A switchover began on main.
    "switchover_started" version 1 by FailoverActor => SwitchoverStarted,
    /// A switchover was scheduled for a later time.
    "switchover_scheduled" version 1 by FailoverActor => SwitchoverScheduled,
    /// A switchover is no longer scheduled: it began, or that schedule will never begin it.
    "switchover_unscheduled" version 1 by FailoverActor => SwitchoverUnscheduled,
    /// This node has recorded that it will take over in main's switchover. That also proves that its journal can store events.
    "handover_accepted" version 1 by FailoverActor => HandoverAccepted,
    /// Main has stopped, has proved that the target has all of its WAL, and offers the target the role.
    "handover_offered" version 1 by FailoverActor => HandoverOffered,
    /// The role stays with this node: the target did not take it, and cannot take it by this offer any more.
    "handover_withdrawn" version 1 by FailoverActor => HandoverWithdrawn,
    /// A switchover ended: a new main serves, and the old main follows it.
    "switchover_completed" version 1 by FailoverActor => SwitchoverCompleted,
    /// A node that was main, or that cannot follow, began to come back as a secondary.
    "rejoin_started" version 1 by FailoverActor => RejoinStarted,
    /// A node came back as a secondary. Data that only it had are reported and kept.
    "rejoin_completed" version 1 by FailoverActor => RejoinCompleted,
    /// A node's data directory can no longer start as a primary, so PostgreSQL may run again.
    "node_demoted" version 1 by ReplicationActor => NodeDemoted,
    /// A node became main of a new epoch: its PostgreSQL was promoted, and a write proved it.
    "epoch_opened" version 1 by FailoverActor => EpochOpened,
    /// This node learned from a peer which node is main now.
    "main_announced" version 1 by HeartbeatActor, Supervisor => MainAnnounced,
    /// An announcement of an older epoch was refused.
    "notice_refused" version 1 by HeartbeatActor => NoticeRefused,
    /// Main started its servers without confirmation by a peer that it is still main.
    "started_unconfirmed" version 1 by Supervisor => StartedUnconfirmed,
    /// This node's PostgreSQL takes writes, and this node is not main: a person or a program promoted it, or started it
    /// as a primary.
    "stray_primary_found" version 1 by FailoverActor => StrayPrimaryFound,
    /// Servers of this node that should run are held stopped. The start continues when the obstacle is gone.
    "start_held_up" version 1 by Supervisor => StartHeldUp,
    /// Another node is main of a newer epoch, or takes over: this node's servers are being stopped.
    "fencing_started" version 1 by FailoverActor => FencingStarted,
    /// This node no longer acknowledges writes; that was observed.
    "node_fenced" version 1 by FailoverActor => NodeFenced,
    /// Fencing has not succeeded yet; it is retried.
    "fencing_failed" version 1 by FailoverActor => FencingFailed,
    /// No node was promoted in place of this one, and none will be by that run: this node is main as before, and serves again.
    "fence_lifted" version 1 by FailoverActor => FenceLifted,
    /// This node's PostgreSQL and Redis were made to follow the announced main.
    "follow_finished" version 1 by ReplicationActor => FollowFinished,
    /// A person changed the cluster's settings through `cluster_config`.
    "settings_changed" version 1 by ReplicationActor => SettingsChanged,
    /// This node took over settings that were changed on main.
    "settings_adopted" version 1 by HeartbeatActor => SettingsAdopted,
    /// A peer's clock differs too much from this node's. A clock that is ahead is not followed, and the order of the
    /// story is doubtful.
    "clock_skew_observed" version 1 by HeartbeatActor => ClockSkewObserved,
    /// A journal has two continuations: two machines use one node's number, or an old disk image was restored.
    "journal_forked" version 1 by JournalActor, Supervisor => JournalForked,
    /// This node's journal had lost its newest events, and restored them from a copy.
    "journal_restored" version 1 by Supervisor => JournalRestored,
    /// A projection in PostgreSQL could not apply an event, and stays at that position until the problem is fixed.
    "projection_paused" version 1 by ReplicationActor => ProjectionPaused,
    /// A projection in PostgreSQL was rebuilt from the stream, next to the old one, and replaced it.
    "projection_rebuilt" version 1 by ReplicationActor => ProjectionRebuilt,
    /// A part of a journal was exported to a file and dropped from the database.
    "journal_sealed" version 1 by JournalActor => JournalSealed,
}
