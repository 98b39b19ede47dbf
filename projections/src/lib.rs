//! What is: pure folds of the event stream into something to read.
//!
//! A fold never performs an effect, reads no clock and never fails: an event it does not know is counted and
//! shown. What an actor believes is a fold too, so a dashboard shows what the deciders act on.
//!
//! **Invariant:** this crate knows no actor and no I/O.

mod cluster_nodes;
mod runs;
mod timeline;
mod words;

use std::collections::BTreeMap;

use interrex_events::{Envelope, Event, Lineage, MainLost, NodeId, WithheldRule};
use serde::Serialize;

pub use cluster_nodes::{ClusterNodes, Node, NodeStatus};
pub use runs::{Run, RunEnd, Runs, Step, StepState, Undo};
pub use timeline::{Entry, Level, Timeline};
pub use words::{human_bytes, human_ms};

/// Something that is folded from events.
pub trait Projection {
    /// Takes in the next event.
    fn apply(&mut self, envelope: &Envelope);
}

/// Everything a supervisor and its readers believe about the cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cluster {
    /// Who is who, and how they are.
    pub nodes: ClusterNodes,
    /// Every run.
    pub runs: Runs,
    /// A verdict of this supervisor that main is lost, and that nothing has overtaken yet. A new supervisor
    /// begins without one: it must see main once before it judges it (facts, S6).
    #[serde(skip)]
    pub verdict: Option<Standing>,
    /// The main that this supervisor has seen well since it started.
    #[serde(skip)]
    pub seen_main: Option<NodeId>,
    /// The announced main that this node's standbys do not receive log from yet.
    pub to_follow: Option<NodeId>,
    /// Events folded.
    pub events: u64,
    /// Events that this version could not read, by kind.
    pub unknown_kinds: BTreeMap<String, u64>,
}

/// A verdict that stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The verdict.
    pub lost: MainLost,
    /// Its event, as the cause of what follows.
    pub lineage: Lineage,
    /// The rule that kept a failover from following it, if any was recorded.
    pub withheld: Option<WithheldRule>,
}

impl Cluster {
    fn judge(&mut self, envelope: &Envelope) {
        match &envelope.event {
            Event::SupervisorStarted(_) => self.seen_main = None,
            Event::MainSeen(seen) => self.seen_main = Some(seen.main),
            Event::MainAnnounced(announced) => self.to_follow = Some(announced.main),
            Event::FollowFinished(follow) if follow.streaming => self.to_follow = None,
            Event::EpochOpened(_) => self.to_follow = None,
            _ => {}
        }
        match &envelope.event {
            Event::MainLost(lost) => {
                self.verdict =
                    Some(Standing { lost: lost.clone(), lineage: envelope.lineage(), withheld: None });
            }
            Event::FailoverWithheld(withheld) => {
                if let Some(verdict) = &mut self.verdict {
                    verdict.withheld = Some(withheld.rule);
                }
            }
            Event::SupervisorStarted(_)
            | Event::SupervisorStalled(_)
            | Event::MainSeen(_)
            | Event::MainRecovered(_)
            | Event::EpochOpened(_)
            | Event::MainAnnounced(_) => self.verdict = None,
            _ => {}
        }
    }

    /// The fold of a whole stream.
    pub fn of<'a>(stream: impl IntoIterator<Item = &'a Envelope>) -> Self {
        let mut cluster = Self::default();
        for envelope in stream {
            cluster.apply(envelope);
        }
        cluster
    }
}

impl Projection for Cluster {
    fn apply(&mut self, envelope: &Envelope) {
        self.events += 1;
        if let Event::Unknown(unknown) = &envelope.event {
            *self.unknown_kinds.entry(unknown.kind.clone()).or_default() += 1;
        }
        self.judge(envelope);
        self.nodes.apply(envelope);
        self.runs.apply(envelope);
    }
}

#[cfg(test)]
mod tests;
