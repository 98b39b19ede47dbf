//! What a supervisor is about to do is done, one thing a round; or a fault strikes it there.

use interrex_events::*;
use interrex_projections::Run;

use super::{
    cluster::Cluster,
    faults::Fault,
    supervisor::{Order, Process},
};
use crate::{
    failover::decider::*,
    messages::{FenceEnded, FenceProof, StepEnded, StepReport, UndoEnded},
};

/// Rounds that an attempt at a step may wait.
const LIMIT: u32 = 10;
/// Rounds without a link: a silent main is lost meanwhile, and a step that waits is not given up.
const FLAP: u32 = 8;
/// Rounds between two attempts at what is tried again and again.
const AGAIN: u32 = 6;

/// Rounds without a supervisor in which the other one starts alone.
const AWAY: u32 = 20;

/// The other node that a run is about.
fn other_of(run: &Run, node: NodeId) -> NodeId {
    if run.new_main == node { run.old_main } else { run.new_main }
}

enum Struck {
    GoesOn,
    Crashed,
    Ends(StepOutcome),
}

impl Cluster {
    /// Effects wait for their turn; what waits already is not done twice.
    pub(super) fn order(&mut self, node: NodeId, effects: Vec<Effect>) {
        for effect in effects {
            // what is outstanding is derived anew once the start is settled
            if self.of(node).is_held() && !effect.is_fence() {
                continue;
            }
            let supervisor = self.of_mut(node);
            let run = match &effect {
                Effect::RunStep(run, ..) | Effect::UndoStep(run, _) => {
                    supervisor.node.belief.cluster.runs.get(*run).cloned().map(Box::new)
                }
                Effect::Look => {
                    self.decide(node, &Input::Looked);
                    continue;
                }
                Effect::Fence { .. }
                | Effect::ServeAgain
                | Effect::Follow(_)
                | Effect::ReturnTo(_)
                | Effect::FollowLater(_) => None,
            };
            let waits = |order: &Order| order.effect == effect;
            let pause = if matches!(effect, Effect::FollowLater(_)) { AGAIN } else { 0 };
            if !supervisor.orders.iter().any(waits) {
                supervisor.orders.push_back(Order { effect, run, waited: 0, pause });
            }
        }
    }

    pub(super) fn work(&mut self, node: NodeId) {
        let Some(mut order) = self.of_mut(node).orders.pop_front() else { return };
        if order.pause > 0 {
            order.pause -= 1;
            return self.of_mut(node).orders.push_back(order);
        }
        match order.effect.clone() {
            Effect::RunStep(run, step, attempt) => self.work_on_step(node, order, run, step, attempt),
            Effect::UndoStep(run, step) => {
                let Some(result) = self.undo(node, order.run.as_deref(), step, order.waited >= LIMIT) else {
                    order.waited += 1;
                    return self.of_mut(node).orders.push_back(order);
                };
                let undone = result.is_ok();
                let detail = result.unwrap_or_else(|error| error);
                self.decide(node, &Input::UndoEnded(UndoEnded { run, step, undone, detail }));
            }
            Effect::Fence { epoch, .. } => {
                self.stop_all(node);
                let proof =
                    FenceProof { postgres: String::new(), redis: String::new(), dependents: String::new() };
                self.decide(node, &Input::FenceEnded(FenceEnded { epoch, result: Ok(proof) }));
            }
            Effect::ServeAgain => {
                let gave_up = order.waited >= LIMIT * AGAIN;
                if self.undo_stop_main(node).is_err() && !gave_up {
                    order.waited += 1;
                    self.of_mut(node).orders.push_back(order);
                }
            }
            Effect::Follow(main) | Effect::ReturnTo(main) => {
                let Some(streaming) = self.follow(node, main, order.waited >= LIMIT) else {
                    order.waited += 1;
                    return self.of_mut(node).orders.push_back(order);
                };
                if self.of_mut(node).followed.replace(streaming) != Some(streaming) {
                    let finished = FollowFinished { main, streaming, detail: String::new() };
                    self.store(node, finished, None);
                } else if !streaming {
                    self.order(node, vec![Effect::FollowLater(main)]);
                }
            }
            Effect::FollowLater(_) => {
                let outstanding = outstanding(node, &self.of(node).node.belief);
                self.order(node, outstanding);
            }
            Effect::Look => {}
        }
    }

    fn work_on_step(&mut self, node: NodeId, mut order: Order, id: RunId, step: StepId, attempt: u32) {
        let run = order.run.clone().unwrap();
        let here = self.case.strikes(&run, step) && !self.mended;
        if here && order.waited == 0 && (!self.struck || self.case.fault == Fault::FailsAlways) {
            match self.strike_before(node, &run, step) {
                Struck::GoesOn => {}
                Struck::Crashed => return,
                Struck::Ends(outcome) => {
                    return self.end(node, id, step, attempt, StepReport::new(outcome, "struck"));
                }
            }
        }
        let gave_up = || StepReport::new(StepOutcome::Unknown, "no outcome in time");
        // more attempts than rounds that a case may take
        let at_once = self.case.fault == Fault::TooLate && step == StepId::Promote;
        let late = at_once || order.waited >= LIMIT;
        let Some(report) = self.make(node, &run, step, late).or_else(|| late.then(gave_up)) else {
            order.waited += 1;
            return self.of_mut(node).orders.push_back(order);
        };
        let report = if here && !self.struck {
            self.struck = true;
            match self.case.fault {
                Fault::UnknownAfter => StepReport::new(StepOutcome::Unknown, "struck"),
                Fault::FailsAfter => StepReport::new(StepOutcome::Failed, "struck"),
                Fault::Twice => self.make(node, &run, step, true).unwrap_or(report),
                Fault::LateAndMainIsBack => {
                    if self.main_comes_back(node, run.old_main) {
                        return;
                    }
                    report
                }
                Fault::CrashesAfter => return self.crash(node, false),
                Fault::MakerGoneAfter => return self.crash(node, true),
                Fault::BothCrashAfter => {
                    self.crash(other_of(&run, node), false);
                    return self.crash(node, false);
                }
                _ => report,
            }
        } else {
            report
        };
        self.end(node, id, step, attempt, report);
    }

    /// The links are up again, or main's host is, while the supervisor here is not. Whether that one died for it.
    fn main_comes_back(&mut self, node: NodeId, main: NodeId) -> bool {
        self.world.mend_links();
        let dead = !self.of(main).is_alive();
        if dead {
            self.crash(main, false);
            self.crash(node, false);
            self.of_mut(node).process = Process::Down(Some(AWAY));
        }
        dead
    }

    fn end(&mut self, node: NodeId, run: RunId, step: StepId, attempt: u32, report: StepReport) {
        self.check();
        let ended = StepEnded { run, step, attempt, report, took_ms: 1 };
        self.decide(node, &Input::StepEnded(ended));
    }

    fn strike_before(&mut self, node: NodeId, run: &Run, step: StepId) -> Struck {
        let peer = other_of(run, node);
        let fault = self.case.fault;
        if !fault.strikes_before() {
            return Struck::GoesOn;
        }
        self.struck = true;
        match fault {
            Fault::FailsOnce | Fault::FailsAlways => return Struck::Ends(StepOutcome::Failed),
            Fault::UnknownBefore => return Struck::Ends(StepOutcome::Unknown),
            Fault::CrashesBefore => {
                self.crash(node, false);
                return Struck::Crashed;
            }
            Fault::CrashesMidway => {
                self.half_way(node, run, step);
                self.crash(node, false);
                return Struck::Crashed;
            }
            Fault::OtherCrashes => self.crash(peer, false),
            Fault::OtherGone => self.crash(peer, true),
            Fault::BothGone => {
                self.crash(peer, true);
                self.crash(node, true);
                return Struck::Crashed;
            }
            Fault::LinkCut => self.world.cut_all(),
            Fault::LinkFlaps => {
                self.world.cut_all();
                self.links_back_in = Some(FLAP);
            }
            Fault::PostgresKilled => self.kill(node),
            Fault::OtherPostgresKilled => self.kill(peer),
            _ => {}
        }
        Struck::GoesOn
    }
}
