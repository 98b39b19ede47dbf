//! The audit timeline: every event as one sentence, in story order.

use chrono::{DateTime, Utc};
use interrex_events::{
    Bases, Cause, ClusterSettings, Envelope, Event, Hlc, NodeId, NodeSeq, Request, RunId, StepId,
    StepOutcome, Trigger, Unscheduling,
};
use serde::Serialize;

use crate::{ClusterNodes, Projection, human_bytes, human_ms};

/// How loud an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Routine.
    Info,
    /// A change that somebody will ask about.
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
    /// Who recorded it.
    pub node: NodeId,
    /// Its place in that node's journal.
    pub node_seq: NodeSeq,
    /// That node's name.
    pub node_name: String,
    /// The event's kind.
    pub kind: String,
    /// The run it belongs to.
    pub run_id: Option<RunId>,
    /// How loud it is.
    pub level: Level,
    /// In a sentence.
    pub text: String,
    /// Who caused it, where it was not the system.
    pub actor: Option<String>,
    /// Whether it became known here only after a later epoch was open.
    pub learned_later: bool,
}

impl Entry {
    /// The line for an event, with the names that nodes have at its place in the story.
    #[must_use]
    pub fn of(envelope: &Envelope, nodes: &ClusterNodes) -> Self {
        let (level, text) = sentence(&envelope.event, nodes);
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
    /// The lines.
    pub entries: Vec<Entry>,
}

impl Projection for Timeline {
    fn begin_after(&mut self, bases: &Bases) {
        self.nodes.begin_after(bases);
    }

    fn apply(&mut self, envelope: &Envelope) {
        self.nodes.apply(envelope);
        self.entries.push(Entry::of(envelope, &self.nodes));
    }
}

fn sentence(event: &Event, nodes: &ClusterNodes) -> (Level, String) {
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
                "this supervisor itself did not run for {} (normal is up to {}); it judges nobody by that time",
                human_ms(stalled.stalled_ms),
                human_ms(stalled.tolerance_ms)
            ),
        ),
        Event::ClockJumped(jumped) => {
            let direction = if jumped.step_ms < 0 { "back" } else { "forward" };
            let text = format!(
                "the wall clock was moved {direction} by {}; verdicts run on another clock",
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
            (Level::Info, with_detail(format!("Redis is {}", changed.status), &changed.detail))
        }
        Event::DependentChanged(changed) => {
            (Level::Info, with_detail(format!("{} is {}", changed.name, changed.status), &changed.detail))
        }
        Event::MainSeen(seen) => {
            (Level::Info, format!("main {} answers, epoch {}", name(seen.main), seen.epoch))
        }
        Event::MainSuspected(suspected) => (
            Level::Alarm,
            format!(
                "main {} gives no good sign: PostgreSQL {}; supervisor {}; allowed silence {}",
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
                "main {} is lost: silent for {} (allowed {}); PostgreSQL {}; supervisor {}; log receiver {}",
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
        Event::FailoverWithheld(withheld) => {
            (Level::Notice, format!("no failover, rule {}: {}", withheld.rule, withheld.detail))
        }
        Event::FailoverStarted(started) if started.trigger == Trigger::Switchover => (
            Level::Notice,
            format!(
                "{} takes over from {} for epoch {}, whose log ended at {}",
                name(started.new_main),
                name(started.old_main),
                started.epoch,
                started
                    .handover
                    .as_ref()
                    .map_or_else(|| "an unknown place".to_owned(), |it| it.end.to_string())
            ),
        ),
        Event::FailoverStarted(started) if started.trigger == Trigger::Operator => (
            Level::Alarm,
            format!(
                "promotion of {} in place of {} started for epoch {}{}; quorum {}",
                name(started.new_main),
                name(started.old_main),
                started.epoch,
                asked(started.request.as_ref()),
                started.quorum
            ),
        ),
        Event::FailoverStarted(started) => (
            Level::Alarm,
            format!(
                "failover from {} to {} started for epoch {}, after {} of silence (allowed {}); quorum {}",
                name(started.old_main),
                name(started.new_main),
                started.epoch,
                human_ms(started.silent_ms),
                human_ms(started.threshold_ms),
                started.quorum
            ),
        ),
        Event::FailoverRefused(refused) => (
            Level::Alarm,
            format!("failover refused at {}: {}; next: {}", refused.step, refused.reason, refused.next),
        ),
        Event::RunRefused(refused) => (
            Level::Alarm,
            format!("run refused at {}: {}; next: {}", refused.step, refused.reason, refused.next),
        ),
        Event::RunFailed(failed) => (
            Level::Alarm,
            format!("run {} at {}: {}; next: {}", failed.end, failed.step, failed.error, failed.next),
        ),
        Event::RunCancelRequested(cancel) => {
            let why = cancel.reason.as_deref().unwrap_or_default();
            (Level::Notice, with_detail("the run was asked to be given up".to_owned(), why))
        }
        Event::SwitchoverStarted(started) => (
            Level::Notice,
            format!(
                "switchover from {} to {} started for epoch {}{}",
                name(started.old_main),
                name(started.new_main),
                started.epoch,
                asked(Some(&started.request))
            ),
        ),
        Event::SwitchoverScheduled(scheduled) => (
            Level::Notice,
            format!(
                "a switchover to {} is scheduled for {}{}",
                name(scheduled.target),
                date_and_time(scheduled.due),
                asked(Some(&scheduled.request))
            ),
        ),
        Event::SwitchoverUnscheduled(gone) => {
            let level = match gone.because {
                Unscheduling::Begun | Unscheduling::Cancelled => Level::Notice,
                Unscheduling::Refused | Unscheduling::Missed => Level::Alarm,
            };
            let text = format!(
                "the switchover to {} that was scheduled for {} is {}",
                name(gone.target),
                date_and_time(gone.due),
                gone.because
            );
            (level, with_detail(text, &gone.detail))
        }
        Event::HandoverOffered(offered) => (
            Level::Notice,
            format!(
                "{} is offered the role of main of epoch {}: timeline {} ended at {}",
                name(offered.to),
                offered.epoch,
                offered.handover.timeline,
                offered.handover.end
            ),
        ),
        Event::HandoverWithdrawn(withdrawn) => {
            (Level::Alarm, format!("the offer to {} is withdrawn: {}", name(withdrawn.to), withdrawn.reason))
        }
        Event::RejoinStarted(started) => {
            let how = if started.copy { ", by a copy of its data" } else { "" };
            let text = format!(
                "rejoin started: to follow {} of epoch {}{how}{}",
                name(started.main),
                started.epoch,
                asked(started.request.as_ref())
            );
            (Level::Notice, text)
        }
        Event::RejoinCompleted(completed) => {
            let stranded = completed.stranded.as_ref().map(|it| {
                let kept =
                    completed.kept.as_ref().map(|kept| format!(", kept in {kept}")).unwrap_or_default();
                format!(
                    "; only here were {} committed transactions with {} rows after {}{kept}",
                    it.committed, it.rows, it.switchpoint
                )
            });
            let text = format!(
                "rejoin completed{}: secondary of {}, its data {}{}",
                without(&completed.degraded),
                name(completed.main),
                completed.by,
                stranded.unwrap_or_default()
            );
            (Level::Notice, text)
        }
        Event::SwitchoverCompleted(completed) => {
            let proof = match &completed.certificate {
                Some(it) => format!(
                    "nothing is lost: timeline {} begins at {}, where timeline {} ended",
                    it.new_timeline, it.switchpoint, it.old_timeline
                ),
                None => "without a certificate".to_owned(),
            };
            let text = format!(
                "switchover completed{}: {} is main of epoch {}; {} without writes; {proof}",
                without(&completed.degraded),
                name(completed.main),
                completed.epoch,
                human_ms(completed.without_writes_ms)
            );
            (Level::Notice, text)
        }
        Event::NodeDemoted(demoted) => (
            Level::Notice,
            format!(
                "the data directory can only follow {} of epoch {} from here on ({})",
                name(demoted.main),
                demoted.epoch,
                demoted.by
            ),
        ),
        Event::RunResumed(resumed) => {
            let steps: Vec<_> = resumed.interrupted.iter().map(|step| step.name()).collect();
            let steps = if steps.is_empty() { "between two steps".to_owned() } else { steps.join(", ") };
            (Level::Notice, format!("run taken up again, interrupted at: {steps}"))
        }
        Event::StepStarted(started) => {
            let again =
                if started.attempt > 1 { format!(", attempt {}", started.attempt) } else { String::new() };
            (Level::Info, format!("step {} begins{again}", started.step))
        }
        Event::StepFinished(finished) => {
            let level = match finished.outcome {
                StepOutcome::Failed | StepOutcome::Unknown | StepOutcome::Refused => Level::Alarm,
                _ => Level::Info,
            };
            let text =
                format!("step {} {} in {}", finished.step, finished.outcome, human_ms(finished.took_ms));
            (level, with_detail(text, &finished.detail))
        }
        Event::StepUndoStarted(undo) => (Level::Notice, format!("step {} is being taken back", undo.step)),
        Event::StepUndone(undone) => {
            let how = if undone.undone { "taken back" } else { "could not be taken back" };
            (Level::Notice, with_detail(format!("step {} {how}", undone.step), &undone.detail))
        }
        Event::FailoverCompleted(completed) => {
            let time = completed.recovery_time;
            let degraded = without(&completed.degraded);
            let loss = match completed.loss.as_ref().and_then(|loss| loss.bytes) {
                Some(0) => "all that main had reported is here".to_owned(),
                Some(bytes) => format!("at least {} of log lost", human_bytes(bytes)),
                None => "loss unknown, for main never reported its position".to_owned(),
            };
            let text = format!(
                "failover completed{degraded}: {} is main of epoch {}; {} without writes (detect {}, decide {}, \
                 promote {}); {loss}",
                name(completed.main),
                completed.epoch,
                human_ms(time.without_writes_ms()),
                human_ms(time.detect_ms),
                human_ms(time.decide_ms),
                human_ms(time.promote_ms),
            );
            (Level::Notice, text)
        }
        Event::FailoverFailed(failed) => (
            Level::Alarm,
            format!("failover {} at {}: {}; next: {}", failed.end, failed.step, failed.error, failed.next),
        ),
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
                "refused what {} says of epoch {}, this node knows epoch {}: {}",
                name(refused.announced_by),
                refused.epoch,
                refused.known_epoch,
                refused.reason
            ),
        ),
        Event::StartedUnconfirmed(started) => (
            Level::Alarm,
            format!(
                "started as main with nobody to confirm it, after waiting {}: {}",
                human_ms(started.waited_ms),
                started.detail
            ),
        ),
        Event::FencingStarted(fencing) => (
            Level::Alarm,
            format!(
                "superseded: {} is main of epoch {}, this node was of epoch {}; stopping its servers",
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
        Event::FencingFailed(failed) => {
            (Level::Alarm, format!("fencing failed, trying again: {}", failed.error))
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
                "this node's journal had lost {} events, up to {}; they were taken back from the copy of {}",
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

fn without(degraded: &[StepId]) -> String {
    if degraded.is_empty() {
        return String::new();
    }
    let steps: Vec<_> = degraded.iter().map(|step| step.name()).collect();
    format!(", without {}", steps.join(", "))
}

fn date_and_time(moment: DateTime<Utc>) -> String {
    moment.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// What a person said when asking for it.
fn asked(request: Option<&Request>) -> String {
    let Some(request) = request else { return String::new() };
    let forced = if request.forced { ", forced" } else { "" };
    let why = request.reason.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    format!("{forced}{why}")
}

fn in_force(settings: ClusterSettings) -> String {
    let automatic = if settings.auto_failover_enabled { "on" } else { "off" };
    format!("automatic failover {automatic}, after {}", human_ms(settings.auto_failover_threshold_ms))
}

fn with_detail(text: String, detail: &str) -> String {
    if detail.is_empty() { text } else { format!("{text}: {detail}") }
}
