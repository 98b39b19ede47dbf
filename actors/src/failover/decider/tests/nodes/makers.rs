//! Who makes the steps, by the rules of the real makers. Each looks first whether it is done already.

use interrex_events::*;
use interrex_projections::{NodeStatus, Run, StepState};

use super::{
    cluster::Cluster,
    world::{Kind, lsn, records},
};
use crate::{
    messages::{Operation, StepReport},
    wire::{HandoverOffer, NodeReport},
};

pub(super) type Made = Result<StepReport, String>;

pub(super) fn done() -> StepReport {
    StepReport::new(StepOutcome::Succeeded, "done")
}

pub(super) fn refused(words: &str) -> StepReport {
    StepReport::new(StepOutcome::Refused, words)
}

pub(super) fn must(condition: bool, words: &str) -> Result<(), String> {
    if condition { Ok(()) } else { Err(words.to_owned()) }
}

impl Cluster {
    /// One attempt at a step: what it came to, or nothing if it still waits. When it is late it waits no longer.
    pub(super) fn make(&mut self, node: NodeId, run: &Run, step: StepId, late: bool) -> Option<StepReport> {
        let made = match step {
            StepId::WinEpoch => self.win_epoch(node, run, late)?,
            StepId::FenceOldMain => self.fence_old_main(node, run, late)?,
            StepId::StopMain => self.stop_main(node, run, late)?,
            StepId::HandOver => self.hand_over(run)?,
            StepId::BecomeStandby => self.become_standby(node, run)?,
            StepId::HandOverRedis => {
                let both = self.world.linked(run.old_main, run.new_main)
                    && [run.old_main, run.new_main].iter().all(|it| self.world.of(*it).redis);
                return both.then(done);
            }
            StepId::MeasureLoss => self.measure_loss(node, run),
            StepId::Detach => self.detach(node, run),
            StepId::Promote => self.promote(node, run)?,
            StepId::NotifyPeers => Ok(self.notify(node)),
            StepId::SanitiseSettings | StepId::WriteCheckpoint | StepId::Drain => {
                must(self.world.of(node).running, "no answer").map(|()| done())
            }
            StepId::OpenEpoch | StepId::PrepareRejoin => {
                must(self.world.of(node).is_writable(), "it takes no writes").map(|()| done())
            }
            StepId::PromoteRedis => must(self.world.of(node).redis, "no answer").map(|()| done()),
            StepId::CheckHandover => self.check_handover(node, run),
            StepId::ProveHandover => self.prove(node, run),
            StepId::CheckLineage => self.check_lineage(node, run),
            StepId::ReserveSlot => self.main_answers(node, run).map(|()| done()),
            StepId::KeepDiverged => Ok(self.keep_diverged(node, run)),
            StepId::Rebuild => self.rebuild(node, run),
            StepId::FollowRedis => self.follow_redis(node, run),
            _ => Ok(done()),
        };
        Some(made.unwrap_or_else(|error| StepReport::new(StepOutcome::Failed, error)))
    }

    /// Half of a step that has two halves; of others, nothing.
    pub(super) fn half_way(&mut self, node: NodeId, run: &Run, step: StepId) {
        match step {
            StepId::Rebuild => self.world.of_mut(node).half_rewound = true,
            StepId::BecomeStandby => {
                self.world.stop(node);
                self.world.of_mut(node).kind = Kind::StandbyOf(run.new_main);
            }
            _ => {}
        }
    }

    pub(super) fn undo(
        &mut self,
        node: NodeId,
        run: Option<&Run>,
        step: StepId,
        late: bool,
    ) -> Option<Result<String, String>> {
        Some(match step {
            StepId::FenceOldMain => return self.undo_fence(run?, late),
            StepId::Detach => self.undo_detach(node, run?),
            StepId::Promote => self.withdraw(node, run?),
            StepId::StopMain => self.undo_stop_main(node),
            StepId::CheckLineage => {
                let superseded = self.of(node).is_superseded();
                let machine = self.world.of_mut(node);
                if !superseded && machine.kind != Kind::Primary && !machine.half_rewound {
                    machine.start();
                }
                Ok(String::new())
            }
            other => Err(format!("{other} has no undo")),
        })
    }

    fn undo_fence(&mut self, run: &Run, late: bool) -> Option<Result<String, String>> {
        let old = run.old_main;
        if run.handover.is_some() {
            return Some(Ok(String::new()));
        }
        if !self.answers(run.node, old) {
            let state = run.step(StepId::FenceOldMain).state;
            let was_not = matches!(state, StepState::Ended(StepOutcome::Skipped | StepOutcome::Refused));
            let ended = must(was_not, "the old main may be fenced").map(|()| String::new());
            return (was_not || late).then_some(ended);
        }
        if self.of(old).status() == NodeStatus::Fencing && !late {
            return None;
        }
        let request = crate::messages::LiftRequest { by: run.node, run: run.id };
        self.decide(old, &crate::failover::decider::Input::LiftRequested(request));
        Some(must(!self.of(old).is_superseded(), "it stays fenced").map(|()| String::new()))
    }

    // ---- handing over ---------------------------------------------------------------------------------------

    fn check_handover(&mut self, node: NodeId, run: &Run) -> Made {
        must(self.takes_requests(run.old_main, run.new_main), "the target does not answer")?;
        if !self.world.streams_from(run.new_main, run.old_main) {
            return Ok(refused("the target is not ready"));
        }
        Ok(if self.accepts(node, run) { done() } else { refused("the target does not accept") })
    }

    /// Whether the target has stored that it would take the role.
    fn accepts(&mut self, node: NodeId, run: &Run) -> bool {
        let asked = HandoverAccepted { from: node, epoch: run.epoch, run: run.id };
        self.takes_requests(node, run.new_main)
            && self.ask(run.new_main, &Operation::AcceptHandover(asked)).is_ok()
    }

    fn stop_main(&mut self, node: NodeId, run: &Run, late: bool) -> Option<Made> {
        if self.world.of(node).is_writable() {
            if !self.world.streams_from(run.new_main, node) {
                return late.then(|| Err("the target receives no log".to_owned()));
            }
            self.world.stop(node);
        }
        Some(must(self.world.of(node).shut_down, "it did not stop in good order").map(|()| done()))
    }

    pub(super) fn undo_stop_main(&mut self, node: NodeId) -> Result<String, String> {
        if self.of(node).is_superseded() || self.of(node).main() != Some(node) {
            return Ok("PostgreSQL stays stopped".to_owned());
        }
        if self.world.of(node).is_writable() {
            return Ok("it had not stopped".to_owned());
        }
        let rival = self.peers(node).into_iter().any(|peer| {
            let later = |said: &NodeReport| said.epoch > self.of(node).epoch() || said.takes_over();
            self.world.answers_as_primary(node, peer)
                || self.report(node, peer).is_ok_and(|said| later(&said))
        });
        must(!rival, "a rival")?;
        must(self.world.of_mut(node).start(), "it did not start")?;
        Ok(String::new())
    }

    fn prove(&mut self, node: NodeId, run: &Run) -> Made {
        let (own, target) = (self.world.of(node), self.world.of(run.new_main));
        must(!own.running && own.shut_down, "it did not stop in good order")?;
        must(
            self.world.linked(node, run.new_main) && target.running && target.kind != Kind::Primary,
            "the target does not answer",
        )?;
        must(target.end() == own.end(), "that is not the same log")?;
        let end = own.end();
        let timeline = TimelineId(own.timeline);
        if !self.accepts(node, run) {
            return Ok(refused("the target does not accept"));
        }
        Ok(done().observing(HandoverProved {
            system_id: "7312345678901234567".to_owned(),
            timeline,
            checkpoint: end,
            end,
            received: end,
            head: super::super::anchor(node),
        }))
    }

    fn hand_over(&mut self, run: &Run) -> Option<Made> {
        let Some(handover) = run.handover.clone() else { return Some(Ok(refused("nothing was proved"))) };
        let target = run.new_main;
        if !self.takes_requests(run.old_main, target) {
            return None;
        }
        let offer = HandoverOffer { from: run.old_main, epoch: run.epoch, handover };
        let answer = self.offer(target, &offer)?;
        Some(Ok(match answer {
            Ok(()) => {
                let machine = self.world.of(target);
                done().observing(RoleTaken {
                    timeline: TimelineId(machine.timeline),
                    switchpoint: Some(machine.switchpoint),
                    head: super::super::anchor(target),
                })
            }
            Err(reason) => refused(&reason),
        }))
    }

    // ---- following ------------------------------------------------------------------------------------------

    fn become_standby(&mut self, node: NodeId, run: &Run) -> Option<Made> {
        let switchpoint =
            run.observed(StepId::HandOver).and_then(|RoleTaken { switchpoint, .. }| switchpoint);
        if let (Some(handover), Some(switchpoint)) = (&run.handover, switchpoint)
            && switchpoint < handover.end
        {
            return Some(Err("it would have to be rewound".to_owned()));
        }
        if self.of(node).epoch() > run.epoch {
            return Some(Err("a later epoch was opened".to_owned()));
        }
        if self.world.of(node).is_writable() {
            return Some(Err("it runs as a primary".to_owned()));
        }
        if !self.world.of(node).running || self.of(node).is_superseded() {
            self.world.stop(node);
            self.world.of_mut(node).kind = Kind::StandbyOf(run.new_main);
            let by = Demotion::Unchanged;
            self.store(node, NodeDemoted { main: run.new_main, epoch: run.epoch, by }, Some(run.id));
            self.world.of_mut(node).start();
        }
        self.world.replicate();
        self.world.streams_from(node, run.new_main).then(|| Ok(done()))
    }

    /// Whether log arrives from a new main; nothing as long as it may still come.
    pub(super) fn follow(&mut self, node: NodeId, main: NodeId, late: bool) -> Option<bool> {
        let own = self.world.of(node);
        let nodes = &self.of(node).node.belief.cluster.nodes;
        let left = self.of(node).node.belief.standpoint.switchpoint;
        let older = Some(own.timeline()) < nodes.timeline;
        let ahead = older && left.is_some_and(|left| own.end() > left);
        if !own.running || own.kind == Kind::Primary || ahead {
            return Some(false);
        }
        self.world.of_mut(node).kind = Kind::StandbyOf(main);
        self.world.replicate();
        if self.world.streams_from(node, main) { Some(true) } else { late.then_some(false) }
    }

    // ---- coming back ----------------------------------------------------------------------------------------

    fn main_answers(&self, node: NodeId, run: &Run) -> Result<(), String> {
        must(self.world.answers_as_primary(node, run.new_main), "main's PostgreSQL does not answer")
    }

    fn is_on_mains_line(&self, node: NodeId, run: &Run) -> bool {
        self.world.of(run.new_main).log.starts_with(&self.world.of(node).log)
    }

    fn check_lineage(&mut self, node: NodeId, run: &Run) -> Made {
        self.main_answers(node, run)?;
        self.world.stop(node);
        if self.is_on_mains_line(node, run) {
            return Ok(done());
        }
        let own = self.world.of(node);
        let switchpoint = lsn(self.world.shared(node, run.new_main));
        let diverged = Divergence {
            timeline: TimelineId(own.timeline),
            switchpoint,
            bytes: own.end().bytes_ahead_of(switchpoint),
            exact: true,
            rewindable: Some(true),
        };
        Ok(done().observing(LineageCompared { end: own.end(), diverged: Some(diverged) }))
    }

    fn parting(run: &Run) -> Option<(usize, Lsn)> {
        let LineageCompared { end, diverged } = run.observed(StepId::CheckLineage)?;
        Some((records(diverged?.switchpoint), end))
    }

    fn keep_diverged(&mut self, node: NodeId, run: &Run) -> StepReport {
        let Some((shared, _)) = Self::parting(run) else {
            return StepReport::new(StepOutcome::Skipped, "nothing has to be kept");
        };
        let machine = self.world.of_mut(node);
        if machine.half_rewound {
            return StepReport::new(StepOutcome::AlreadyDone, "it was kept before");
        }
        machine.kept.extend(machine.log[shared..].to_vec());
        done()
    }

    fn rebuild(&mut self, node: NodeId, run: &Run) -> Made {
        self.world.stop(node);
        self.main_answers(node, run)?;
        let main = self.world.of(run.new_main).clone();
        let whole = !self.world.of(node).half_rewound;
        let parting = Self::parting(run);
        if !(whole && self.is_on_mains_line(node, run)) {
            let own = self.world.of(node).end();
            must(!whole || parting.is_some_and(|(_, end)| end == own), "somebody wrote meanwhile")?;
            let machine = self.world.of_mut(node);
            (machine.log, machine.timeline, machine.half_rewound) = (main.log, main.timeline, false);
        }
        let by = if parting.is_some() { Demotion::Rewound } else { Demotion::Unchanged };
        Ok(done().observing(Rebuilt { by, kept: None }))
    }

    fn follow_redis(&mut self, node: NodeId, run: &Run) -> Made {
        let answers = self.world.linked(node, run.new_main) && self.world.of(run.new_main).redis;
        must(answers, "main's Redis does not answer")?;
        self.world.of_mut(node).redis = true;
        Ok(done())
    }
}
