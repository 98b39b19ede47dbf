//! What keeps a node from promoting itself for a while: main moved unplanned, or its own runs come to nothing.
//!
//! Every unplanned change of main counts, whichever node made it, from when this node recorded that it had learned of it. A run
//! that ended before it changed anything is no change: the next one waits for a short pause, which grows with every such run.

use chrono::{DateTime, Utc};
use interrex_events::{Envelope, Epoch, Event, LearnedBy, NodeId, RunId, StepId, StepOutcome, Trigger};

/// The fold, over one node's own events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rests {
    /// The last time that the role of main moved unplanned, or nearly did.
    pub upset: Option<Upset>,
    /// Runs that this node began by itself and that ended before they changed anything, since main last gave a sign of life.
    pub in_vain: Option<InVain>,
    /// The run that this node makes to become main.
    run: Option<OwnRun>,
    /// Whether a switchover opened the newest epoch, if that is known.
    pub planned: Option<bool>,
}

/// What starts the cool-down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upset {
    /// When this node recorded it.
    pub at: DateTime<Utc>,
    /// What it was.
    pub what: What,
}

/// What it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Another node became main.
    Moved {
        /// Which.
        main: NodeId,
        /// In which epoch.
        epoch: Epoch,
    },
    /// A run here fenced main, or had its standby leave main, and took that back.
    TakenBack(RunId),
}

/// Runs that came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InVain {
    /// When the last of them ended.
    pub at: DateTime<Utc>,
    /// That one.
    pub run: RunId,
    /// How many there were.
    pub times: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OwnRun {
    id: RunId,
    trigger: Trigger,
    changed_something: bool,
}

impl Rests {
    pub(crate) fn apply(&mut self, envelope: &Envelope) {
        let at = envelope.recorded_at;
        let run = self.run.filter(|run| Some(run.id) == envelope.run_id);
        match (&envelope.event, envelope.run_id, run) {
            (Event::FailoverStarted(started), Some(id), _) => {
                self.run = Some(OwnRun { id, trigger: started.trigger, changed_something: false });
            }
            (Event::StepStarted(started), _, Some(run)) if started.step == StepId::Detach => {
                self.run = Some(OwnRun { changed_something: true, ..run });
            }
            // a main that gave no answer, or said that it serves, is as it was
            (Event::StepFinished(finished), _, Some(run))
                if finished.step == StepId::FenceOldMain
                    && !matches!(finished.outcome, StepOutcome::Skipped | StepOutcome::Refused) =>
            {
                self.run = Some(OwnRun { changed_something: true, ..run });
            }
            (Event::EpochOpened(opened), _, run) => {
                let planned = run.map(|run| run.trigger == Trigger::Switchover);
                self.moved(opened.main, opened.epoch, planned, at);
            }
            (Event::MainAnnounced(announced), ..) => {
                let handed_over = announced.learned_by == LearnedBy::Handover;
                let planned = announced.planned.or(handed_over.then_some(true));
                self.moved(announced.main, announced.epoch, planned, at);
            }
            (Event::FailoverRefused(_) | Event::FailoverFailed(_), _, Some(run)) => self.ended(run, at),
            (Event::FailoverCompleted(_), _, Some(_)) => self.run = None,
            (Event::MainSeen(_) | Event::MainRecovered(_), ..) => self.in_vain = None,
            _ => {}
        }
    }

    /// What is not known to have been planned was not.
    fn moved(&mut self, main: NodeId, epoch: Epoch, planned: Option<bool>, at: DateTime<Utc>) {
        (self.planned, self.in_vain) = (planned, None);
        if planned != Some(true) {
            self.upset = Some(Upset { at, what: What::Moved { main, epoch } });
        }
    }

    fn ended(&mut self, run: OwnRun, at: DateTime<Utc>) {
        self.run = None;
        match run.trigger {
            Trigger::Switchover => {}
            _ if run.changed_something => self.upset = Some(Upset { at, what: What::TakenBack(run.id) }),
            Trigger::Automatic => {
                let times = self.in_vain.map_or(0, |in_vain| in_vain.times).saturating_add(1);
                self.in_vain = Some(InVain { at, run: run.id, times });
            }
            // a person sees for himself what came of it
            Trigger::Operator | Trigger::ByHand => {}
        }
    }
}
