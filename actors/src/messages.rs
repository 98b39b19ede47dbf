//! The messages between actors. Every message is typed, and every message that causes an effect carries its run or epoch.

use std::{sync::Arc, time::Duration};

use actix::Message;
use chrono::{DateTime, Utc};
use interrex_events::{
    Cause, ClusterSettings, Draft, Envelope, Epoch, Evidence, Finding, HandoverAccepted, LastReport,
    LearnedBy, Lsn, MainAnnounced, NodeId, NodeSeq, Observed, PRICE, Request, RunId, RunKind, SettingsStamp,
    StepId, StepOutcome, TimelineId, journal::Segment,
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

/// To the JournalActor: store these facts together. The answer is the place of the last fact, once all are on disk.
#[derive(Debug, Message)]
#[rtype(result = "Result<NodeSeq, Gone>")]
pub struct Append(pub Vec<Draft>);

/// To the JournalActor: keep these events of one node, as that node recorded them. The answer is how many were
/// new, once all are on disk, or why they are refused.
#[derive(Debug, Message)]
#[rtype(result = "Result<Result<usize, Refused>, Gone>")]
pub struct KeepCopies(pub JournalPage);

/// To the JournalActor: drop these events, whose file is complete and on disk, and record that. The answer comes once that is
/// done; or it is the refusal.
#[derive(Debug, Message)]
#[rtype(result = "Result<Result<(), Refused>, Gone>")]
pub struct Seal(pub Segment);

/// Copies that do not continue the events here, or a segment that may not be sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// To the HeartbeatActor: the changed settings that a peer reports.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct SettingsHeard {
    /// The peer.
    pub from: NodeId,
    /// The settings.
    pub settings: ClusterSettings,
    /// The change that set them.
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
    /// The step.
    pub step: StepId,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The time limit.
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
    /// The step.
    pub step: StepId,
    /// The time limit.
    pub limit: Duration,
}

/// What this node sees of main now: from its last probe, and from the WAL that arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MainSight {
    /// The main node.
    pub main: NodeId,
    /// The start of its silence.
    pub silent_since: Moment,
    /// The evidence about it.
    pub evidence: Evidence,
    /// Its last report of its WAL position.
    pub last_report: Option<LastReport>,
    /// Whether it reports that it has stopped and offers its role.
    pub offers: bool,
    /// Whether its supervisor gave no answer of any kind to the last probe.
    pub supervisor_is_silent: bool,
}

impl MainSight {
    /// Whether main gives a sign of life that counts as evidence for it.
    #[must_use]
    pub fn answers(&self) -> bool {
        let Evidence { supervisor, postgres, wal_receiver, .. } = &self.evidence;
        [supervisor, postgres, wal_receiver].into_iter().any(Finding::is_good)
    }

    /// Whether main has given no sign of life since this supervisor began to watch it.
    #[must_use]
    pub fn is_unseen(&self) -> bool {
        self.evidence.last_good_at.is_none() && !self.answers()
    }
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Main hands its role to another node.
    Switchover {
        /// The target.
        to: NodeId,
        /// How long open transactions may take to finish, in milliseconds.
        drain_ms: u64,
        /// The person's request.
        request: Request,
    },
    /// The other node records that it would take the role, before main stops for it.
    AcceptHandover(HandoverAccepted),
    /// The target takes the role over.
    TakeOver(HandoverOffer),
    /// A person promotes this secondary.
    Promote {
        /// The person's request.
        request: Request,
        /// What this node sees of main.
        sight: Option<MainSight>,
    },
    /// This node comes back as a secondary.
    Rejoin {
        /// Whether to copy main's data even if this node's data could be rewound.
        copy: bool,
        /// The person's request.
        request: Request,
    },
    /// The run of this node is cancelled.
    Cancel {
        /// The reason.
        reason: Option<String>,
        /// Whether a person states for a silent target that it is not main and never will be by this offer.
        force: bool,
    },
}

/// To the FailoverActor: a request. The answer is its result, once that is on disk.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Accepted, Declined>")]
pub struct Operate {
    /// The request.
    pub operation: Operation,
    /// The time, if not now.
    pub due: Option<DateTime<Utc>>,
    /// The sender.
    pub asker: Cause,
}

/// The result of a request that was accepted; over HTTP, an object with this name as its only key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Accepted {
    /// This run begins, or goes on, or is given up.
    #[serde(rename = "run_id")]
    Run(RunId),
    /// The switchover begins at this time.
    #[serde(rename = "scheduled_for")]
    Scheduled(DateTime<Utc>),
    /// The switchover that was scheduled for this time is cancelled.
    Unscheduled(DateTime<Utc>),
    /// This node, which was fenced for this run of another node, serves again.
    FenceLifted(RunId),
}

/// To the ReplicationActor: make all checks that a run of this kind makes first. Nothing is changed.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Vec<Check>")]
pub struct LookAhead {
    /// The kind of run.
    pub kind: RunKind,
    /// The node that would be main after the run.
    pub new_main: NodeId,
    /// Whether the run would be made against the evidence, or with a copy of main's data.
    pub insists: bool,
}

/// A refused request. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Declined {
    /// A code, for programs.
    pub code: &'static str,
    /// A message for people: what is wrong, and what to do.
    pub message: String,
}

impl Declined {
    /// A refusal with a code and a message.
    #[must_use]
    pub fn new(code: &'static str, message: String) -> Self {
        Self { code, message }
    }
}

/// The outcome of a step or its undo, as observed.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// The outcome.
    pub outcome: StepOutcome,
    /// What happened, in a sentence.
    pub detail: String,
    /// What was observed.
    pub observed: Observed,
    /// What a success cost, in a sentence; its run is completed, and degraded.
    pub price: Option<String>,
}

impl StepReport {
    /// An outcome without further observations.
    #[must_use]
    pub fn new(outcome: StepOutcome, detail: impl Into<String>) -> Self {
        Self { outcome, detail: detail.into(), observed: Observed::Nothing, price: None }
    }

    /// The same outcome at a price that the operator must see.
    #[must_use]
    pub fn at_a_price(mut self, price: &str) -> Self {
        self.detail = format!("{}; {price}", self.detail);
        self.price = Some(price.to_owned());
        self
    }

    /// The same with what was observed.
    #[must_use]
    pub fn observing(mut self, observed: impl Into<Observed>) -> Self {
        self.observed = observed.into();
        self
    }

    /// What was observed, and its price, as an event stores it.
    #[must_use]
    pub fn stored(&self) -> Map<String, Value> {
        let price = self.price.iter().map(|price| (PRICE.to_owned(), Value::from(price.as_str())));
        self.observed.stored().into_iter().chain(price).collect()
    }
}

/// To the FailoverActor: a step ended.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct StepEnded {
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepId,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The outcome, with what was observed.
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
    /// The step.
    pub step: StepId,
    /// Whether the undo was observed to work.
    pub undone: bool,
    /// What happened, in a sentence.
    pub detail: String,
}

/// From the ReplicationActor to the HeartbeatActor: what the local servers are doing.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Measured {
    /// When they were measured.
    pub at: Moment,
    /// The local PostgreSQL.
    pub postgres: PostgresFacts,
    /// How long ago the WAL receiver last heard from main, if it is connected.
    pub receiver_heard: Option<Duration>,
    /// The local Redis.
    pub redis: RedisFacts,
}

/// To the HeartbeatActor, from its own probe task: one probe of one peer ended.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct ProbeEnded {
    /// The peer.
    pub peer: NodeId,
    /// The start of the probe.
    pub began: Moment,
    /// The end of the probe.
    pub ended: Moment,
    /// The report of its supervisor, or the error.
    pub supervisor: Result<Arc<NodeReport>, NoReply>,
    /// The answer of its PostgreSQL, or the error; nothing if it was not asked.
    pub postgres: Option<Result<MainPostgres, NoReply>>,
    /// The answer of its Redis, or the error; nothing if it was not asked.
    pub redis: Option<Result<String, NoReply>>,
}

/// To the HeartbeatActor: a claim about which node is main.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Claim {
    /// The main node.
    pub main: NodeId,
    /// The epoch.
    pub epoch: Epoch,
    /// The timeline of that epoch.
    pub timeline: Option<TimelineId>,
    /// The switchpoint at which that timeline left the old one.
    pub switchpoint: Option<Lsn>,
    /// The node that made the claim.
    pub from: NodeId,
    /// How the claim arrived.
    pub learned_by: LearnedBy,
    /// Whether a switchover made it main, if the claim says so.
    pub planned: Option<bool>,
}

impl Claim {
    /// The claim in a peer's report. Only a main reports its own timeline.
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

    /// The fact to store once the claim is believed.
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
    /// The node that asks.
    pub by: NodeId,
    /// The epoch that it won.
    pub epoch: Epoch,
    /// Its run.
    pub run: RunId,
}

/// To the FailoverActor: the run for which this node was fenced has ended without a promotion.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct LiftRequest {
    /// The node that made the run.
    pub by: NodeId,
    /// The run.
    pub run: RunId,
}

/// To the FailoverActor: this node's start no longer holds anything up.
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

/// To the FailoverActor: the result of fencing.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct FenceEnded {
    /// The epoch that superseded this node's.
    pub epoch: Epoch,
    /// The observed state of PostgreSQL, Redis and the dependents, or the error.
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
    /// The main to follow.
    pub main: NodeId,
    /// Whether it is the main that a run of this node left: this node then follows it with its earlier connection settings.
    pub returns: bool,
}

/// To the HeartbeatActor of a supervisor that ends: close the open windows. The answer is their contents.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Vec<Draft>")]
pub struct CloseWindows;
