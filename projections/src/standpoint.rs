//! What one node has seen itself and still has to do, from its own events alone: what others recorded is
//! evidence for people, and never a reason to act (ADR 7).

use interrex_events::{
    Bases, Envelope, Event, Lineage, Lsn, MainLost, NodeFenced, NodeId, PostgresStatus, RunId, StepId,
    StrayAnswer, WithheldRule,
};

use crate::{FOLDED_BY_NOBODY, Projection, Rests};

/// The fold. It must be given one node's events only.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Standpoint {
    /// A verdict of this supervisor that main is lost, and that nothing has overtaken yet. A new supervisor
    /// begins without one: it must see main once before it judges it (MEASURED M19).
    pub verdict: Option<Standing>,
    /// The main that this supervisor has seen well since it started.
    pub seen_main: Option<NodeId>,
    /// The announced main from which this node does not receive WAL yet.
    pub to_follow: Option<NodeId>,
    /// Whether this node's standby receives nothing, because a run had it leave main and could not take that back.
    pub is_left_alone: bool,
    /// Where the newest epoch's timeline left the old one, if it was opened here or announced.
    pub switchpoint: Option<Lsn>,
    /// What proved last that this node was fenced.
    pub fence_proof: Option<NodeFenced>,
    /// The run of another node that asked last for the fence.
    pub fenced_for: Option<RunId>,
    /// What this node's PostgreSQL does, as measured since this supervisor started and since the directory became a standby's.
    pub postgres: Option<PostgresStatus>,
    /// What was said last of a PostgreSQL here that takes writes while this node is not main.
    pub stray: Option<StrayAnswer>,
    /// The main that gave a sign of life after the last verdict against a main.
    pub main_is_back: Option<NodeId>,
    /// What keeps this node from promoting itself for a while.
    pub rests: Rests,
}

/// A verdict that is still valid.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The verdict.
    pub lost: MainLost,
    /// Its event, as the cause of what follows.
    pub lineage: Lineage,
    /// The rule that kept a failover from following it, if any was recorded.
    pub withheld: Option<WithheldRule>,
}

impl Projection for Standpoint {
    fn begin_after(&mut self, bases: &Bases) {
        if let Some((node, base)) = bases.iter().next() {
            *self = Self::sealed(*node, &base.carried);
        }
    }

    fn apply(&mut self, envelope: &Envelope) {
        self.rests.apply(envelope);
        match &envelope.event {
            Event::MainSeen(seen) => self.main_is_back = Some(seen.main),
            Event::MainRecovered(recovered) => self.main_is_back = Some(recovered.main),
            Event::MainLost(_) | Event::EpochOpened(_) | Event::MainAnnounced(_) => self.main_is_back = None,
            _ => {}
        }
        match &envelope.event {
            Event::SupervisorStarted(_) => self.seen_main = None,
            Event::MainSeen(seen) => self.seen_main = Some(seen.main),
            Event::MainAnnounced(announced) => {
                (self.to_follow, self.switchpoint) = (Some(announced.main), announced.switchpoint);
            }
            Event::FollowFinished(follow) if follow.streaming => self.to_follow = None,
            // the run that made the directory a standby also sees to it that it streams, from that main
            Event::NodeDemoted(demoted) if self.to_follow == Some(demoted.main) => self.to_follow = None,
            Event::EpochOpened(opened) => (self.to_follow, self.switchpoint) = (None, opened.switchpoint),
            Event::FencingStarted(fencing) => self.fenced_for = fencing.run,
            Event::NodeFenced(proof) => self.fence_proof = Some(proof.clone()),
            Event::FenceLifted(_) => (self.fence_proof, self.fenced_for) = (None, None),
            _ => {}
        }
        match &envelope.event {
            Event::StepUndone(undone) if undone.step == StepId::Detach => self.is_left_alone = !undone.undone,
            // whoever saw to it, it receives
            Event::PostgresChanged(changed) if changed.status == PostgresStatus::Streaming => {
                self.is_left_alone = false;
            }
            Event::FollowFinished(follow) if follow.streaming => self.is_left_alone = false,
            Event::MainAnnounced(_) | Event::NodeDemoted(_) | Event::EpochOpened(_) => {
                self.is_left_alone = false;
            }
            _ => {}
        }
        match &envelope.event {
            Event::SupervisorStarted(_) | Event::NodeDemoted(_) => (self.postgres, self.stray) = (None, None),
            Event::PostgresChanged(changed) => {
                self.postgres = Some(changed.status);
                if changed.status != PostgresStatus::Primary {
                    self.stray = None;
                }
            }
            Event::StrayPrimaryFound(stray) => self.stray = Some(stray.answer),
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

    fn folds(kind: &str) -> bool {
        kind != FOLDED_BY_NOBODY
    }
}
