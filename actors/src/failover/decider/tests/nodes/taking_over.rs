//! Who makes the steps by which a node becomes main, by the rules of the real makers.

use interrex_events::*;
use interrex_projections::{NodeStatus, Run, StepState};

use super::{
    cluster::{Cluster, TIMING},
    faults::Fault,
    makers::{Made, done, must, refused},
    world::Kind,
};
use crate::{
    env::ms,
    heartbeat::asking::{Answer, Asked, weigh},
    messages::{Claim, StepReport},
};

/// Rounds until a late promotion happens: longer than a verdict is fresh.
const LATE: u32 = 80;
/// Rounds until one happens whose run has used up its attempts: longer than those take.
const TOO_LATE: u32 = 300;

impl Cluster {
    /// Every node but the old main is asked, and the real rule weighs what they say.
    pub(super) fn win_epoch(&mut self, node: NodeId, run: &Run, late: bool) -> Option<Made> {
        if run.kind == RunKind::Takeover {
            return Some(Ok(done()));
        }
        match self.weighed(node, run) {
            Answer::Agrees => Some(Ok(done())),
            Answer::Objects(words) => Some(Ok(refused(&words))),
            Answer::Wait(words) => late.then(|| Ok(refused(&words))),
        }
    }

    fn weighed(&self, node: NodeId, run: &Run) -> Answer {
        let others = self.peers(node).into_iter().filter(|peer| *peer != run.old_main);
        let reports: Vec<_> = others.filter_map(|peer| self.report(node, peer).ok()).collect();
        let since_start = (self.of(node).node.now.wall - run.started_at).num_milliseconds();
        let asked = Asked {
            me: node,
            run,
            silent_ms: run.silent_ms + since_start.max(0).cast_unsigned(),
            slack_ms: ms(TIMING.probe_interval + TIMING.probe_timeout),
        };
        weigh(asked, &reports)
    }

    /// A second look at main and at the others, where the verdict is old or a person asks.
    fn what_speaks_against(&self, node: NodeId, run: &Run) -> bool {
        let nodes = &self.of(node).node.belief.cluster.nodes;
        if nodes.epoch >= run.epoch && nodes.main.is_some_and(|main| main != run.new_main) {
            return true;
        }
        let forced = run.request.as_ref().is_some_and(|request| request.forced);
        let age = (self.of(node).node.now.wall - run.started_at).num_milliseconds();
        let fresh = run.resumed == 0 && age <= 2_000;
        let fenced = run.step(StepId::FenceOldMain).succeeded();
        let looks = if forced { fenced && !fresh } else { run.kind == RunKind::Promotion || !fresh };
        let agreed = || run.kind == RunKind::Takeover || self.weighed(node, run) == Answer::Agrees;
        (looks && self.world.answers_as_primary(node, run.old_main)) || (!fresh && !agreed())
    }

    pub(super) fn measure_loss(&self, node: NodeId, run: &Run) -> Made {
        let machine = self.world.of(node);
        must(machine.running, "PostgreSQL gives no position")?;
        let end = run.handover.as_ref().map(|handover| handover.end);
        if machine.kind != Kind::Primary && end.is_some_and(|end| end != machine.end()) {
            return Ok(refused("that is not the same log"));
        }
        Ok(done())
    }

    pub(super) fn fence_old_main(&mut self, node: NodeId, run: &Run, late: bool) -> Option<Made> {
        let old = run.old_main;
        if self.what_speaks_against(node, run) {
            return Some(Ok(refused("main is back")));
        }
        if run.handover.is_some() {
            let gone = !self.answers(node, old);
            let offers =
                self.of(old).status() == NodeStatus::HandingOver && !self.world.of(old).is_writable();
            return Some(Ok(if gone || offers { done() } else { refused("it offers its role no longer") }));
        }
        if !self.answers(node, old) {
            let nothing = StepReport::new(StepOutcome::Skipped, "nothing proves that it is fenced");
            return Some(Ok(nothing));
        }
        let own = self.of(old);
        let for_this = own.main() != Some(old) || own.node.belief.standpoint.fenced_for == Some(run.id);
        if own.status() == NodeStatus::Fenced && for_this {
            return Some(Ok(done()));
        }
        let superseded = self.of(old).is_superseded();
        if !superseded && run.epoch <= self.of(old).epoch() {
            return Some(Ok(refused("it knows a later epoch")));
        }
        if !superseded && self.of(old).main() != Some(old) {
            return Some(Err("it is not main".to_owned()));
        }
        let request = crate::messages::FenceRequest { by: node, epoch: run.epoch, run: run.id };
        self.decide(old, &crate::failover::decider::Input::FenceRequested(request));
        late.then(|| Err("not proved to be stopped".to_owned()))
    }

    pub(super) fn detach(&mut self, node: NodeId, run: &Run) -> Made {
        // main's own timeline has one writer: a stray that was never promoted is made a standby first
        if run.trigger == Trigger::ByHand && !self.world.is_promoted(node) {
            self.world.stop(node);
            self.world.of_mut(node).kind = Kind::StandbyOf(node);
            self.world.of_mut(node).start();
        }
        must(self.world.of(node).running, "no answer")?;
        self.writes_no_timeline_of_mains(node)?;
        let machine = self.world.of_mut(node);
        if machine.kind != Kind::Primary {
            // it receives from nobody
            machine.kind = Kind::StandbyOf(node);
        }
        Ok(done())
    }

    fn writes_no_timeline_of_mains(&self, node: NodeId) -> Result<(), String> {
        let unpromoted = self.world.of(node).is_writable() && !self.world.is_promoted(node);
        must(!unpromoted, "it was started without standby.signal")
    }

    pub(super) fn undo_detach(&mut self, node: NodeId, run: &Run) -> Result<String, String> {
        must(self.world.of(node).running, "no answer")?;
        // another one may have become main meanwhile
        let main = self.of(node).main().filter(|main| *main != run.new_main).unwrap_or(run.old_main);
        self.world.of_mut(node).kind = Kind::StandbyOf(main);
        Ok(String::new())
    }

    pub(super) fn promote(&mut self, node: NodeId, run: &Run) -> Option<Made> {
        if !self.world.of(node).running {
            return Some(Err("no answer".to_owned()));
        }
        if let Err(words) = self.writes_no_timeline_of_mains(node) {
            return Some(Err(words));
        }
        if self.world.of(node).kind != Kind::Primary {
            if self.what_speaks_against(node, run) {
                return Some(Ok(refused("main is back")));
            }
            let fault = self.case.fault;
            let is_late = fault.is_late() && !self.struck && self.case.strikes(run, StepId::Promote);
            let asked = &mut self.world.of_mut(node).promoted_in;
            if asked.is_some() || is_late {
                asked.get_or_insert(if fault == Fault::TooLate { TOO_LATE } else { LATE });
                return None;
            }
            self.world.promote(node);
        }
        let machine = self.world.of(node);
        let (timeline, switchpoint) = (TimelineId(machine.timeline), machine.switchpoint);
        Some(Ok(done().observing(Promoted { timeline, switchpoint })))
    }

    pub(super) fn withdraw(&mut self, node: NodeId, run: &Run) -> Result<String, String> {
        let promote = run.step(StepId::Promote);
        if promote.attempts == 1 && promote.state == StepState::Ended(StepOutcome::Refused) {
            return Ok("no promotion was asked for".to_owned());
        }
        must(!self.world.of(node).is_writable(), "it is a primary: that stands")?;
        self.world.stop(node);
        if self.world.of(node).kind != Kind::Primary {
            self.world.of_mut(node).start();
        }
        Ok("it is withdrawn".to_owned())
    }

    pub(super) fn notify(&mut self, node: NodeId) -> StepReport {
        let mut missed = false;
        for peer in self.peers(node) {
            // what it says of itself is what it tells
            let said = self.report(peer, node).ok().and_then(|said| Claim::of(&said, LearnedBy::Notice));
            match said.filter(|_| self.answers(node, peer)) {
                Some(claim) => self.announce(peer, claim),
                None => missed = true,
            }
        }
        if missed { StepReport::new(StepOutcome::Skipped, "not told") } else { done() }
    }
}
