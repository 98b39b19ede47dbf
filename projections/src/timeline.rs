//! The audit timeline: every event as one sentence, in story order.

mod runs;

use chrono::{DateTime, Utc};
use interrex_events::{Bases, Cause, ClusterSettings, Envelope, Event, Hlc, NodeId, NodeSeq, RunId, RunKind};
use serde::Serialize;

use crate::{ClusterNodes, Projection, Runs, human_ms};

/// How important an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Routine.
    Info,
    /// A change that an operator will ask about.
    Notice,
    /// Something is wrong, or was done about it.
    Alarm,
}

/// One line of the timeline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// The recording node's wall clock.
    pub at: DateTime<Utc>,
    /// Place in the story.
    pub hlc: Hlc,
    /// The node that recorded it.
    pub node: NodeId,
    /// Its place in that node's journal.
    pub node_seq: NodeSeq,
    /// That node's name.
    pub node_name: String,
    /// The event's kind.
    pub kind: String,
    /// The run it belongs to.
    pub run_id: Option<RunId>,
    /// How important it is.
    pub level: Level,
    /// The sentence.
    pub text: String,
    /// The person who caused it; `None` for the system.
    pub actor: Option<String>,
    /// Whether it became known here only after a later epoch was open.
    pub learned_later: bool,
}

impl Entry {
    /// The line for an event, with the names that nodes have at its place in the story, and the kind of its run.
    #[must_use]
    pub fn of(envelope: &Envelope, nodes: &ClusterNodes, runs: &Runs) -> Self {
        let run = envelope.run_id.and_then(|id| runs.get(id));
        let kind = run.map_or(RunKind::Failover, |run| run.kind);
        let (level, text) = sentence(&envelope.event, kind, nodes);
        Self {
            at: envelope.recorded_at,
            hlc: envelope.hlc,
            node: envelope.node_id,
            node_seq: envelope.node_seq,
            node_name: nodes.name(envelope.node_id),
            kind: envelope.event.kind().to_owned(),
            run_id: envelope.run_id,
            level,
            text,
            actor: match &envelope.actor {
                Cause::System => None,
                Cause::Person { name, source } => Some(format!("{name} from {source}")),
            },
            learned_later: envelope.learned_later(),
        }
    }
}

/// The fold: entries in the order in which the events were handed in.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    nodes: ClusterNodes,
    runs: Runs,
    /// The lines.
    pub entries: Vec<Entry>,
}

impl Projection for Timeline {
    fn begin_after(&mut self, bases: &Bases) {
        self.nodes.begin_after(bases);
    }

    fn apply(&mut self, envelope: &Envelope) {
        self.nodes.apply(envelope);
        self.runs.apply(envelope);
        self.entries.push(Entry::of(envelope, &self.nodes, &self.runs));
    }
}

fn sentence(event: &Event, kind: RunKind, nodes: &ClusterNodes) -> (Level, String) {
    let name = |node: NodeId| nodes.name(node);
    match event {
        Event::SupervisorStarted(started) => {
            let resumed = match started.interrupted_run {
                Some(run) => format!(", run {} was left unfinished", run.short()),
                None => String::new(),
            };
            let text = format!(
                "supervisor {} started as {}, pid {}{resumed}",
                started.version, started.role, started.pid
            );
            (Level::Notice, text)
        }
        Event::SupervisorStopped(stopped) => {
            (Level::Notice, format!("supervisor stopped: {}", stopped.reason))
        }
        Event::SupervisorStalled(stalled) => (
            Level::Alarm,
            format!(
                "this supervisor itself did not run for {} (normal is up to {}); it judges no node by that time",
                human_ms(stalled.stalled_ms),
                human_ms(stalled.tolerance_ms)
            ),
        ),
        Event::ClockJumped(jumped) => {
            let direction = if jumped.step_ms < 0 { "back" } else { "forward" };
            let text = format!(
                "the wall clock was moved {direction} by {}; verdicts use another clock",
                human_ms(jumped.step_ms.unsigned_abs())
            );
            (Level::Alarm, text)
        }
        Event::ActorRestarted(restarted) => (
            Level::Alarm,
            format!(
                "{} was restarted ({} of at most {} within {} s): {}",
                restarted.actor,
                restarted.restarts,
                restarted.limit,
                restarted.window_seconds,
                restarted.reason
            ),
        ),
        Event::PostgresChanged(changed) => {
            let place = match (changed.timeline, changed.lsn) {
                (Some(timeline), Some(lsn)) => format!(", timeline {timeline} at {lsn}"),
                _ => String::new(),
            };
            (Level::Info, with_detail(format!("PostgreSQL is {}{place}", changed.status), &changed.detail))
        }
        Event::RedisChanged(changed) => {
            let level = if changed.alarm { Level::Alarm } else { Level::Info };
            (level, with_detail(format!("Redis is {}", changed.status), &changed.detail))
        }
        Event::AdmissionChanged(changed) if changed.admits => {
            (Level::Notice, format!("PostgreSQL of {} admits new sessions again", name(changed.node)))
        }
        Event::AdmissionChanged(changed) => (
            Level::Alarm,
            format!(
                "PostgreSQL of {} answers open sessions and admits no new one: {}",
                name(changed.node),
                changed.detail
            ),
        ),
        Event::DependentChanged(changed) => {
            (Level::Info, with_detail(format!("{} is {}", changed.name, changed.status), &changed.detail))
        }
        Event::MainSeen(seen) => {
            (Level::Info, format!("main {} answers, epoch {}", name(seen.main), seen.epoch))
        }
        Event::MainSuspected(suspected) => (
            Level::Alarm,
            format!(
                "main {} gives no sign of life: PostgreSQL {}; supervisor {}; allowed silence {}",
                name(suspected.main),
                suspected.evidence.postgres.detail,
                suspected.evidence.supervisor.detail,
                human_ms(suspected.threshold_ms)
            ),
        ),
        Event::MainRecovered(recovered) => (
            Level::Notice,
            format!(
                "main {} answers again after {} of silence (allowed {})",
                name(recovered.main),
                human_ms(recovered.silent_ms),
                human_ms(recovered.threshold_ms)
            ),
        ),
        Event::MainLost(lost) => (
            Level::Alarm,
            format!(
                "main {} is lost: silent for {} (allowed {}); PostgreSQL {}; supervisor {}; WAL receiver {}",
                name(lost.main),
                human_ms(lost.silent_ms),
                human_ms(lost.threshold_ms),
                lost.evidence.postgres.detail,
                lost.evidence.supervisor.detail,
                lost.evidence.wal_receiver.detail
            ),
        ),
        Event::PeerUnreachable(peer) => {
            (Level::Alarm, format!("{} does not answer: {}", name(peer.peer), peer.detail))
        }
        Event::PeerReachable(peer) => {
            let after = match peer.silent_ms {
                Some(ms) => format!(" again after {}", human_ms(ms)),
                None => String::new(),
            };
            (Level::Notice, format!("{} answers{after}", name(peer.peer)))
        }
        Event::HeartbeatsObserved(window) => (
            Level::Info,
            format!(
                "{} probes of {} in {}: {} answered, {} missed",
                window.answered as usize + window.missed_at_ms.len(),
                name(window.peer),
                human_ms(window.window_ms),
                window.answered,
                window.missed_at_ms.len()
            ),
        ),
        Event::FailoverWithheld(_)
        | Event::FailoverStarted(_)
        | Event::FailoverRefused(_)
        | Event::RunRefused(_)
        | Event::RunFailed(_)
        | Event::RunCancelRequested(_)
        | Event::SwitchoverStarted(_)
        | Event::SwitchoverScheduled(_)
        | Event::SwitchoverUnscheduled(_)
        | Event::HandoverAccepted(_)
        | Event::HandoverOffered(_)
        | Event::HandoverWithdrawn(_)
        | Event::RejoinStarted(_)
        | Event::RejoinCompleted(_)
        | Event::SwitchoverCompleted(_)
        | Event::NodeDemoted(_)
        | Event::RunResumed(_)
        | Event::StepStarted(_)
        | Event::StepFinished(_)
        | Event::StepUndoStarted(_)
        | Event::StepUndone(_)
        | Event::FailoverCompleted(_)
        | Event::FailoverFailed(_) => runs::sentence(event, kind, nodes),
        Event::EpochOpened(opened) => {
            let from = match opened.switchpoint {
                Some(lsn) => format!(" from {lsn}"),
                None => String::new(),
            };
            let text = format!(
                "{} is main of epoch {}, timeline {}{from}",
                name(opened.main),
                opened.epoch,
                opened.timeline
            );
            (Level::Notice, text)
        }
        Event::MainAnnounced(announced) => (
            Level::Notice,
            format!(
                "{} says that {} is main of epoch {} (learned by {})",
                name(announced.announced_by),
                name(announced.main),
                announced.epoch,
                announced.learned_by
            ),
        ),
        Event::NoticeRefused(refused) => (
            Level::Alarm,
            format!(
                "refused the claim of {} about epoch {}; this node knows epoch {}: {}",
                name(refused.announced_by),
                refused.epoch,
                refused.known_epoch,
                refused.reason
            ),
        ),
        Event::StartedUnconfirmed(started) => (
            Level::Alarm,
            format!(
                "started as main without confirmation by a peer, after waiting {}: {}",
                human_ms(started.waited_ms),
                started.detail
            ),
        ),
        Event::StrayPrimaryFound(stray) => (
            Level::Alarm,
            format!(
                "PostgreSQL here takes writes, and this node is not main: {}; next: {}",
                stray.detail, stray.next
            ),
        ),
        Event::StartHeldUp(held_up) => (Level::Alarm, held_up.detail.clone()),
        Event::FencingStarted(fencing) => (
            Level::Alarm,
            format!(
                "superseded: {} is main of epoch {}, this node was main of epoch {}; stopping its servers",
                name(fencing.superseded_by),
                fencing.epoch,
                fencing.own_epoch
            ),
        ),
        Event::NodeFenced(fenced) => (
            Level::Alarm,
            format!(
                "fenced by epoch {}: PostgreSQL {}; Redis {}; dependents {}; next: {}",
                fenced.epoch, fenced.postgres, fenced.redis, fenced.dependents, fenced.next
            ),
        ),
        Event::FenceLifted(lifted) => {
            let message = match &lifted.reason {
                Some(reason) => {
                    format!("the fence is lifted, because a person says that no node took over: {reason}")
                }
                None => format!("the fence is lifted: {} did not take over", name(lifted.by)),
            };
            (Level::Notice, message)
        }
        Event::FencingFailed(failed) => {
            (Level::Alarm, format!("fencing failed and is retried: {}", failed.error))
        }
        Event::FollowFinished(follow) => {
            let (level, state) =
                if follow.streaming { (Level::Notice, "streaming") } else { (Level::Alarm, "NOT streaming") };
            (level, with_detail(format!("follows {}, {state}", name(follow.main)), &follow.detail))
        }
        Event::SettingsChanged(changed) => (
            Level::Notice,
            format!("settings changed: {}, was {}", in_force(changed.settings), in_force(changed.before)),
        ),
        Event::SettingsAdopted(adopted) => (
            Level::Info,
            format!("settings from {}: {}", name(adopted.learned_from), in_force(adopted.settings)),
        ),
        Event::ClockSkewObserved(skew) => {
            let direction = if skew.ahead_ms < 0 { "behind" } else { "ahead" };
            let text = format!(
                "the clock of {} is {} {direction} of this node's, more than {}: the order of the story is doubtful",
                name(skew.peer),
                human_ms(skew.ahead_ms.unsigned_abs()),
                human_ms(skew.limit_ms.unsigned_abs())
            );
            (Level::Alarm, text)
        }
        Event::JournalForked(forked) => (Level::Alarm, forked.in_words()),
        Event::JournalRestored(restored) => (
            Level::Alarm,
            format!(
                "this node's journal had lost {} events, up to {}; they were restored from the copy of {}",
                restored.events,
                restored.last,
                name(restored.from)
            ),
        ),
        Event::ProjectionPaused(paused) => (
            Level::Alarm,
            format!(
                "{} is paused at position {}:{}: {}",
                paused.projection, paused.epoch, paused.pos, paused.error
            ),
        ),
        Event::ProjectionRebuilt(rebuilt) => (
            Level::Notice,
            format!(
                "{} (version {}) was rebuilt from {} events in {}: {}",
                rebuilt.projection,
                rebuilt.version,
                rebuilt.events,
                human_ms(rebuilt.took_ms),
                rebuilt.reason
            ),
        ),
        Event::JournalSealed(sealed) => (
            Level::Notice,
            format!(
                "events {} to {} of {} were sealed into {} and dropped from the journal",
                sealed.first,
                sealed.last,
                name(sealed.node),
                sealed.file
            ),
        ),
        Event::Unknown(unknown) => (
            Level::Notice,
            format!("an event this version cannot read ({}): {}", unknown.reason, unknown.payload),
        ),
    }
}

fn date_and_time(moment: DateTime<Utc>) -> String {
    moment.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn in_force(settings: ClusterSettings) -> String {
    let automatic = if settings.auto_failover_enabled { "on" } else { "off" };
    format!("automatic failover {automatic}, after {}", human_ms(settings.auto_failover_threshold_ms))
}

fn with_detail(text: String, detail: &str) -> String {
    if detail.is_empty() { text } else { format!("{text}: {detail}") }
}
