//! What the stream says, as the views need it: the cluster, and the newest event of a few other kinds.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use interrex_events::{
    Base, Bases, Envelope, Epoch, Event, FailoverStarted, FailoverWithheld, NodeId, NodeStatus, RunId,
    StrayAnswer,
};
use interrex_projections::{Cluster, Projection};
use serde::Serialize;
use serde_json::{Map, Value};

use super::failure::Failure;

/// What the operator does while a fence is not complete.
const WAIT: &str = "wait until its servers are observed to be stopped";

/// A failover that was due and was not made.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Withheld {
    /// When it was decided.
    pub(super) at: DateTime<Utc>,
    /// By which node.
    pub(super) node: NodeId,
    /// The decision.
    #[serde(flatten)]
    pub(super) decision: FailoverWithheld,
}

/// A node that was superseded.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Fence {
    /// The epoch that superseded it.
    pub(super) epoch: Epoch,
    /// When it learned of that.
    pub(super) since: DateTime<Utc>,
    /// Whether it was observed to acknowledge no more writes.
    pub(super) complete: bool,
    /// The last failure of the fence, if the fence is not complete.
    pub(super) error: Option<String>,
    /// What the operator does next.
    pub(super) next: String,
}

/// The fold.
#[derive(Debug, Default)]
pub(super) struct Story {
    /// The nodes, and every run.
    pub(super) cluster: Cluster,
    /// Each node's settings at its supervisor's last start.
    pub(super) settings: BTreeMap<NodeId, Map<String, Value>>,
    /// The last decision not to act.
    pub(super) withheld: Option<Withheld>,
    /// Superseded nodes.
    pub(super) fences: BTreeMap<NodeId, Fence>,
    /// How each run began.
    pub(super) begins: BTreeMap<RunId, FailoverStarted>,
    /// What the operator does after a run that ended badly.
    pub(super) next_steps: BTreeMap<RunId, String>,
    /// When the newest event was recorded.
    pub(super) newest: Option<DateTime<Utc>>,
}

impl Projection for Story {
    fn begin_after(&mut self, bases: &Bases) {
        self.cluster.begin_after(bases);
        let superseded = bases.iter().filter(|(node, _)| self.cluster.nodes.is_superseded(**node));
        self.fences =
            superseded.filter_map(|(node, base)| Some((*node, sealed_fence(*node, base)?))).collect();
    }

    fn apply(&mut self, envelope: &Envelope) {
        self.cluster.apply(envelope);
        let (node, at) = (envelope.node_id, envelope.recorded_at);
        self.newest = Some(at);
        match &envelope.event {
            Event::SupervisorStarted(started) => {
                self.settings.insert(node, started.settings.clone());
            }
            Event::FailoverWithheld(decision) => {
                self.withheld = Some(Withheld { at, node, decision: decision.clone() });
            }
            Event::FencingStarted(fencing) => {
                let next = WAIT.to_owned();
                let fence = Fence { epoch: fencing.epoch, since: at, complete: false, error: None, next };
                self.fences.insert(node, fence);
            }
            Event::StrayPrimaryFound(stray) if stray.answer == StrayAnswer::Stopped => {
                let next = WAIT.to_owned();
                let fence = Fence { epoch: stray.epoch, since: at, complete: false, error: None, next };
                self.fences.insert(node, fence);
            }
            Event::FencingFailed(failed) => {
                if let Some(fence) = self.fences.get_mut(&node) {
                    fence.error = Some(failed.error.clone());
                }
            }
            Event::NodeFenced(fenced) => {
                let since = self.fences.get(&node).map_or(at, |fence| fence.since);
                let next = fenced.next.clone();
                let fence = Fence { epoch: fenced.epoch, since, complete: true, error: None, next };
                self.fences.insert(node, fence);
            }
            Event::FenceLifted(_) => {
                self.fences.remove(&node);
            }
            event => self.note_run(envelope.run_id, event),
        }
    }
}

/// What a node said of its own fence before that was sealed.
fn sealed_fence(node: NodeId, base: &Base) -> Option<Fence> {
    let row = base.carried.nodes.iter().find(|row| row.spec.node == node)?;
    let proof = base.carried.fence_proof.as_ref().filter(|_| row.status == NodeStatus::Fenced);
    Some(Fence {
        epoch: base.carried.epoch,
        since: row.status_since?,
        complete: proof.is_some(),
        error: None,
        next: proof.map_or_else(|| WAIT.to_owned(), |proof| proof.next.clone()),
    })
}

impl Story {
    fn note_run(&mut self, run: Option<RunId>, event: &Event) {
        let Some(run) = run else { return };
        match event {
            Event::FailoverStarted(started) => {
                self.begins.insert(run, started.clone());
            }
            Event::FailoverRefused(refused) => {
                self.next_steps.insert(run, refused.next.clone());
            }
            Event::FailoverFailed(failed) => {
                self.next_steps.insert(run, failed.next.clone());
            }
            Event::RunRefused(refused) => {
                self.next_steps.insert(run, refused.next.clone());
            }
            Event::RunFailed(failed) => {
                self.next_steps.insert(run, failed.next.clone());
            }
            _ => {}
        }
    }

    /// The run that a person means: its whole id, or a begin or end of it that no other run shares.
    pub(super) fn find_run(&self, text: &str) -> Result<RunId, Failure> {
        let wanted: String = text.to_lowercase().chars().filter(|letter| *letter != '-').collect();
        if wanted.is_empty() || !wanted.chars().all(|letter| letter.is_ascii_hexdigit()) {
            return Err(Failure::Usage(format!(
                "`{text}` is not the id of a run: an id is hexadecimal, and its last eight digits are enough"
            )));
        }
        let fits = |id: &&RunId| {
            let id = id.0.simple().to_string();
            id.starts_with(&wanted) || id.ends_with(&wanted)
        };
        let found: Vec<RunId> = self.cluster.runs.runs.keys().filter(fits).copied().collect();
        match found.as_slice() {
            [run] => Ok(*run),
            [] if self.cluster.runs.runs.is_empty() => {
                Err(Failure::NoSuchRun(format!("there is no run `{text}`: the journal holds no run at all")))
            }
            [] => Err(Failure::NoSuchRun(format!(
                "there is no run `{text}` in the journal; see every run with: interrex run list"
            ))),
            several => {
                let ids: Vec<String> = several.iter().map(ToString::to_string).collect();
                Err(Failure::NoSuchRun(format!("`{text}` may mean any of {}", ids.join(", "))))
            }
        }
    }
}
