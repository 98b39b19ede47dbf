//! The lines between the actors of one node, listed once: which message goes to which actor.

use std::collections::BTreeMap;

use crate::{
    line::{DropCount, Line},
    messages::{
        Append, Claim, CloseWindows, Fence, FenceEnded, FenceRequest, Follow, KeepCopies, LiftRequest,
        LookAhead, Measured, Operate, Persisted, ProbeEnded, RunStep, Seal, ServeAgain, SettingsHeard,
        Settled, StepEnded, UndoEnded, UndoStep,
    },
};

/// The actors, by name.
pub mod actor_names {
    /// Owns the journal.
    pub const JOURNAL: &str = "journal";
    /// Probes peers.
    pub const HEARTBEAT: &str = "heartbeat";
    /// Starts, resumes and finishes runs.
    pub const FAILOVER: &str = "failover";
    /// Owns PostgreSQL and Redis.
    pub const REPLICATION: &str = "replication";
    /// Notifies peers, dependents and hooks.
    pub const NOTIFIER: &str = "notifier";
    /// All of them.
    pub const ALL: [&str; 5] = [JOURNAL, HEARTBEAT, FAILOVER, REPLICATION, NOTIFIER];
}

macro_rules! lines {
    ($($line:ident: $message:ident => $actor:ident,)+) => {
        /// One line per message, to the actor that receives it.
        #[derive(Clone)]
        pub struct Lines {
            $(#[doc = concat!("[`", stringify!($message), "`], to the actor `", stringify!($actor), "`.")]
            pub $line: Line<$message>,)+
            pub(super) dropped: BTreeMap<&'static str, DropCount>,
        }

        impl Default for Lines {
            fn default() -> Self {
                let dropped: BTreeMap<&'static str, DropCount> =
                    actor_names::ALL.into_iter().map(|actor| (actor, DropCount::default())).collect();
                let to = |actor: &str| dropped.get(actor).cloned().unwrap_or_default();
                Self { $($line: Line::new(to(actor_names::$actor)),)+ dropped }
            }
        }
    };
}

lines! {
    append: Append => JOURNAL,
    keep_copies: KeepCopies => JOURNAL,
    seal: Seal => JOURNAL,
    heartbeat_persisted: Persisted => HEARTBEAT,
    measured: Measured => HEARTBEAT,
    probe_ended: ProbeEnded => HEARTBEAT,
    claim: Claim => HEARTBEAT,
    settings_heard: SettingsHeard => HEARTBEAT,
    close_windows: CloseWindows => HEARTBEAT,
    heartbeat_step: RunStep => HEARTBEAT,  // which holds the lease: the step `win_epoch`
    failover_persisted: Persisted => FAILOVER,
    step_ended: StepEnded => FAILOVER,
    undo_ended: UndoEnded => FAILOVER,
    fence_request: FenceRequest => FAILOVER,
    lift_request: LiftRequest => FAILOVER,
    fence_ended: FenceEnded => FAILOVER,
    operate: Operate => FAILOVER,  // from people and peers
    settled: Settled => FAILOVER,  // from the start
    replication_step: RunStep => REPLICATION,
    undo_step: UndoStep => REPLICATION,
    look_ahead: LookAhead => REPLICATION,  // from people who ask what would happen
    fence: Fence => REPLICATION,
    serve_again: ServeAgain => REPLICATION,
    follow: Follow => REPLICATION,
    notifier_step: RunStep => NOTIFIER,
}
