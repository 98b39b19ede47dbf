//! What to do about a lost main, a finished step, a later epoch: a pure function of the fold and the input.
//!
//! A run is never stepped through from memory. [`plan`] looks at the run as folded and says what comes next,
//! so starting, going on, repeating and resuming after a crash are one piece of code.

mod carrying_on;
mod effects;
mod ending;
mod fencing;
mod outcomes;
mod planning;
mod returning;
mod scheduling;
mod starting;
mod stray;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use interrex_events::{Draft, NodeId, RunId};
use interrex_projections::{Cluster, Standpoint};

pub use self::{
    effects::{Effect, effects, outstanding},
    planning::{Move, plan},
    scheduling::answer,
    starting::asked,
    stray::main_beside,
};
use super::{policy::FailoverPolicy, resting::Resting};
use crate::{
    env::Moment,
    messages::{FenceEnded, FenceRequest, LiftRequest, MainSight, StepEnded, UndoEnded},
};

/// What a decision is made from, in addition to the input.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// This node.
    pub me: NodeId,
    /// The fold of this node's own events.
    pub cluster: &'a Cluster,
    /// What this node has observed and still has to do.
    pub standpoint: &'a Standpoint,
    /// What the operator configured.
    pub policy: &'a FailoverPolicy,
    /// The node that may promote itself, by the last report of each peer.
    pub candidates: &'a BTreeMap<NodeId, Option<NodeId>>,
    /// What this node sees of main right now.
    pub sight: Option<&'a MainSight>,
    /// What is left of the times in which no run begins automatically.
    pub resting: Resting,
    /// Now.
    pub now: Moment,
    /// The id for a run that begins now.
    pub fresh_run: RunId,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// The actor started, or started again.
    Booted,
    /// Time passed, and something may be due; or an event that matters to a verdict was stored.
    Looked,
    /// A step ended.
    StepEnded(StepEnded),
    /// An undo ended.
    UndoEnded(UndoEnded),
    /// A peer with a later epoch asks this node to stop serving.
    FenceRequested(FenceRequest),
    /// Fencing ended.
    FenceEnded(FenceEnded),
    /// The peer that asked for the fence takes that back.
    LiftRequested(LiftRequest),
}

impl Input {
    /// Whether the input is decided even while this node starts: a start may take long, and a fence must not wait for its end.
    #[must_use]
    pub fn concerns_a_fence(&self) -> bool {
        matches!(self, Self::FenceRequested(_) | Self::FenceEnded(_) | Self::LiftRequested(_))
    }
}

/// The facts that follow.
#[must_use]
pub fn decide(situation: Situation<'_>, input: &Input) -> Vec<Draft> {
    match input {
        Input::Booted => outcomes::resume(situation),
        Input::Looked => match scheduling::begin_what_is_due(situation) {
            nothing if nothing.is_empty() => starting::look(situation),
            facts => facts,
        },
        Input::StepEnded(ended) => outcomes::step_ended(situation, ended),
        Input::UndoEnded(ended) => outcomes::undo_ended(situation, ended),
        Input::FenceRequested(request) => fencing::fence_requested(situation, request),
        Input::FenceEnded(ended) => fencing::fence_ended(situation, ended),
        Input::LiftRequested(request) => fencing::lift_requested(situation, request),
    }
}
