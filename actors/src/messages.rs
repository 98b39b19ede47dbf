//! What actors say to each other. Every message is typed, and every one that acts carries its run or epoch.

use std::{sync::Arc, time::Duration};

use actix::Message;
use chrono::{DateTime, Utc};
use interrex_events::{
    Cause, ClusterSettings, Draft, Envelope, Epoch, Evidence, Finding, HandoverAccepted, LastReport,
    LearnedBy, Lsn, MainAnnounced, NodeId, NodeSeq, Request, RunId, RunKind, SettingsStamp, StepId,
    StepOutcome, TimelineId, journal::Segment,
};
use interrex_projections::Run;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    env::Moment,
    line::Gone,
    ports::NoReply,
    wire::{Check, HandoverOffer, JournalPage, MainPostgres, NodeReport, PostgresFacts, RedisFacts},
};

/// To the JournalActor: store these facts together. The answer is the last one's place, once all are on disk.
#[derive(Debug, Message)]
#[rtype(result = "Result<NodeSeq, Gone>")]
pub struct Append(pub Vec<Draft>);

/// To the JournalActor: keep these events of one node, as that node recorded them. The answer is how many were
/// new, once all are on disk, or why they are refused.
#[derive(Debug, Message)]
#[rtype(result = "Result<Result<usize, Refused>, Gone>")]
pub struct KeepCopies(pub JournalPage);

/// To the JournalActor: drop these events, whose file is whole and on disk, and record that. The answer comes once
/// it is done, or why it is refused.
#[derive(Debug, Message)]
#[rtype(result = "Result<Result<(), Refused>, Gone>")]
pub struct Seal(pub Segment);

/// Copies that do not continue what is here, or a segment that may not be sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// To the HeartbeatActor: the settings that a peer says were changed.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct SettingsHeard {
    /// Who says so.
    pub from: NodeId,
    /// What shall hold.
    pub settings: ClusterSettings,
    /// By which change.
    pub stamp: SettingsStamp,
}

/// From the JournalActor, to all who fold: these events are on disk. Every event comes once, in order.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Persisted(pub Arc<[Envelope]>);

/// From the FailoverActor: make this step. Its intent is on disk.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct RunStep {
    /// The run as folded when the intent was stored.
    pub run: Arc<Run>,
    /// Which step.
    pub step: StepId,
    /// From 1.
    pub attempt: u32,
    /// When it is given up.
    pub limit: Duration,
    /// Pause before a repeated attempt.
    pub pause: Duration,
}

/// From the FailoverActor: take this step back. The intent is on disk.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct UndoStep {
    /// The run.
    pub run: Arc<Run>,
    /// Which step.
    pub step: StepId,
    /// When it is given up.
    pub limit: Duration,
}

/// What this node sees of main right now: of its last probe, and of the log that arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MainSight {
    /// Who is main.
    pub main: NodeId,
    /// From when its silence counts.
    pub silent_since: Moment,
    /// Witnesses for and against it.
    pub evidence: Evidence,
    /// What it last said of its log.
    pub last_report: Option<LastReport>,
    /// Whether it says itself that it has stopped, and offers its role.
    pub offers: bool,
    /// Whether its supervisor gave no answer of any kind to the last probe.
    pub supervisor_is_silent: bool,
}

impl MainSight {
    /// Whether main gives any sign of life that speaks for it.
    #[must_use]
    pub fn answers(&self) -> bool {
        let Evidence { supervisor, postgres, wal_receiver, .. } = &self.evidence;
        [supervisor, postgres, wal_receiver].into_iter().any(Finding::is_good)
    }

    /// Whether main has given no sign of life at all since this supervisor began to watch it.
    #[must_use]
    pub fn is_unseen(&self) -> bool {
        self.evidence.last_good_at.is_none() && !self.answers()
    }
}

/// What somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Main hands its role to another node.
    Switchover {
        /// To whom.
        to: NodeId,
        /// How long open transactions may take to finish, in milliseconds.
        drain_ms: u64,
        /// What the person said.
        request: Request,
    },
    /// The other node records that it would take the role, before main stops for it.
    AcceptHandover(HandoverAccepted),
    /// The other half of it.
    TakeOver(HandoverOffer),
    /// A person makes this secondary main, now.
    Promote {
        /// What the person said.
        request: Request,
        /// What this node sees of main.
        sight: Option<MainSight>,
    },
    /// This node comes back as a secondary.
    Rejoin {
        /// By a copy of main's data, even where its own could be rewound.
        copy: bool,
        /// What the person said.
        request: Request,
    },
    /// The run of this node is given up.
    Cancel {
        /// Why.
        reason: Option<String>,
        /// A person answers for a target that cannot: it is not main, and never will be by this offer.
        force: bool,
    },
}

/// To the FailoverActor: somebody asks for something. The answer is what it comes to, once that is on disk.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Accepted, Declined>")]
pub struct Operate {
    /// What.
    pub operation: Operation,
    /// When, if not now.
    pub due: Option<DateTime<Utc>>,
    /// Who.
    pub asker: Cause,
}

/// What becomes of what somebody asked for; over HTTP, an object with this one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Accepted {
    /// This run begins, or goes on, or is given up.
    #[serde(rename = "run_id")]
    Run(RunId),
    /// It begins then.
    #[serde(rename = "scheduled_for")]
    Scheduled(DateTime<Utc>),
    /// What was scheduled for then never begins.
    Unscheduled(DateTime<Utc>),
    /// This node, which was fenced for that run of another node, serves again.
    FenceLifted(RunId),
}

/// To the ReplicationActor: look at everything that a run of this kind looks at first. Nothing is changed.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Vec<Check>")]
pub struct LookAhead {
    /// What it would be for.
    pub kind: RunKind,
    /// Who would be main after it.
    pub new_main: NodeId,
    /// Whether it would be done against the evidence, or by a copy.
    pub insists: bool,
}

/// Why what somebody asked for is not done. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Declined {
    /// For programs.
    pub code: &'static str,
    /// For people: what is wrong, and what to do.
    pub message: String,
}

impl Declined {
    /// A reason.
    #[must_use]
    pub fn new(code: &'static str, message: String) -> Self {
        Self { code, message }
    }
}

/// Under this name a step that succeeded says what that cost.
pub const PRICE_OBSERVED: &str = "price";

/// What a step or its undo came to, as observed.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// How it ended.
    pub outcome: StepOutcome,
    /// In a sentence.
    pub detail: String,
    /// The observations.
    pub observed: Map<String, Value>,
}

impl StepReport {
    /// An outcome without further observations.
    #[must_use]
    pub fn new(outcome: StepOutcome, detail: impl Into<String>) -> Self {
        Self { outcome, detail: detail.into(), observed: Map::new() }
    }

    /// The same, where it came about at a price that somebody must hear of: its run is completed, and degraded.
    #[must_use]
    pub fn at_a_price(mut self, words: &str) -> Self {
        self.detail = format!("{}; {words}", self.detail);
        self.with(PRICE_OBSERVED, words)
    }

    /// The same with one more observation.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.observed.insert(name.to_owned(), value.into());
        self
    }
}

/// To the FailoverActor: a step ended.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct StepEnded {
    /// The run.
    pub run: RunId,
    /// Which step.
    pub step: StepId,
    /// Which attempt.
    pub attempt: u32,
    /// What it came to.
    pub report: StepReport,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// To the FailoverActor: an undo ended.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct UndoEnded {
    /// The run.
    pub run: RunId,
    /// Which step.
    pub step: StepId,
    /// Whether it was observed to work.
    pub undone: bool,
    /// In a sentence.
    pub detail: String,
}

/// From the ReplicationActor to the HeartbeatActor: what the local servers are doing.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Measured {
    /// When.
    pub at: Moment,
    /// The local PostgreSQL.
    pub postgres: PostgresFacts,
    /// How long ago the log receiver last heard from main, where it is connected.
    pub receiver_heard: Option<Duration>,
    /// The local Redis.
    pub redis: RedisFacts,
}

/// To the HeartbeatActor, from its own probe task: one probe of one peer ended.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct ProbeEnded {
    /// Which peer.
    pub peer: NodeId,
    /// When the probe began.
    pub began: Moment,
    /// When it ended.
    pub ended: Moment,
    /// Its supervisor's words, or the error.
    pub supervisor: Result<Arc<NodeReport>, NoReply>,
    /// Its PostgreSQL's words, or the error; nothing where it was not asked.
    pub postgres: Option<Result<MainPostgres, NoReply>>,
    /// Its Redis' words, or the error; nothing where it was not asked.
    pub redis: Option<Result<String, NoReply>>,
}

/// To the HeartbeatActor: what somebody said about who is main.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Claim {
    /// Who is main.
    pub main: NodeId,
    /// In which epoch.
    pub epoch: Epoch,
    /// On which timeline.
    pub timeline: Option<TimelineId>,
    /// Where that timeline left the old one.
    pub switchpoint: Option<Lsn>,
    /// Who said so.
    pub from: NodeId,
    /// By which way.
    pub learned_by: LearnedBy,
    /// Whether a switchover made it main, where that was said.
    pub planned: Option<bool>,
}

impl Claim {
    /// What a peer's report says about who is main; of its timeline only a main speaks for itself.
    #[must_use]
    pub fn of(report: &NodeReport, learned_by: LearnedBy) -> Option<Self> {
        Some(Self {
            main: report.main?,
            epoch: report.epoch,
            timeline: report.postgres.timeline.filter(|_| report.main == Some(report.node)),
            switchpoint: report.switchpoint,
            from: report.node,
            learned_by,
            planned: report.planned,
        })
    }

    /// The fact that follows once it is believed.
    #[must_use]
    pub fn announced(&self) -> MainAnnounced {
        MainAnnounced {
            main: self.main,
            epoch: self.epoch,
            timeline: self.timeline,
            switchpoint: self.switchpoint,
            announced_by: self.from,
            learned_by: self.learned_by,
            planned: self.planned,
        }
    }
}

/// To the FailoverActor: a peer has won a later epoch and asks this node to stop serving.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct FenceRequest {
    /// Who asks.
    pub by: NodeId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its run.
    pub run: RunId,
}

/// To the FailoverActor: the run for which this node was fenced has ended, and promoted nobody.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct LiftRequest {
    /// Who made the run.
    pub by: NodeId,
    /// The run.
    pub run: RunId,
}

/// To the FailoverActor: this node's start holds nothing up any more.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Settled;

/// From the FailoverActor to the ReplicationActor: start every server of this node, which is main as before.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct ServeAgain;

/// From the FailoverActor to the ReplicationActor: stop every server of this node, and prove it.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Fence {
    /// The epoch that superseded this node's.
    pub epoch: Epoch,
    /// Pause before a repeated attempt.
    pub pause: Duration,
}

/// To the FailoverActor: what fencing came to.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct FenceEnded {
    /// The epoch that superseded this node's.
    pub epoch: Epoch,
    /// What PostgreSQL, Redis and the dependents were found to be, or the error.
    pub result: Result<FenceProof, String>,
}

/// What was observed of a fenced node's servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FenceProof {
    /// PostgreSQL.
    pub postgres: String,
    /// Redis.
    pub redis: String,
    /// Dependents.
    pub dependents: String,
}

/// From the FailoverActor to the ReplicationActor: follow a main.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Follow {
    /// Whom.
    pub main: NodeId,
    /// Whether it is the one that a run here left, by the way in which this node followed it then.
    pub returns: bool,
}

/// To the HeartbeatActor of a supervisor that ends: close the windows that are open. What they hold.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Vec<Draft>")]
pub struct CloseWindows;
