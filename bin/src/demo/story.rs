//! The run as it goes on: read from the secondary's journal, as the events are stored.

use chrono::{DateTime, Utc};
use interrex_actors::failover::steps::rule;
use interrex_events::{Event, NodeId, NodeSeq, RunKind, StepOutcome};
use interrex_projections::{Projection as _, Timeline, human_ms};

use super::{
    DemoError,
    screen::{Screen, Tone},
};
use crate::sandbox::Sandbox;

/// Events that are read at once.
const PAGE: u32 = 200;

/// A reader that remembers how far it came.
pub(super) struct Story {
    node: NodeId,
    read: NodeSeq,
    timeline: Timeline,
    /// The moment of the blow, from which times are counted.
    begin: DateTime<Utc>,
    /// Whether the run has ended.
    pub(super) is_over: bool,
}

impl Story {
    /// From a moment on.
    pub(super) fn from(node: NodeId, begin: DateTime<Utc>) -> Self {
        Self { node, read: NodeSeq::default(), timeline: Timeline::default(), begin, is_over: false }
    }

    /// Shows what was stored since it last looked.
    pub(super) fn go_on(&mut self, sandbox: &Sandbox, screen: &mut Screen) -> Result<(), DemoError> {
        let page = sandbox.journal(self.node)?.page(self.node, self.read, PAGE);
        let page = page.map_err(|error| crate::sandbox::SandboxError::failed("reading a journal", error))?;
        for record in &page {
            self.read = record.node_seq;
            let envelope = record.open();
            self.timeline.apply(&envelope);
            if envelope.recorded_at < self.begin {
                continue;
            }
            if let Some((tone, words)) = self.in_words(&envelope.event) {
                let since = (envelope.recorded_at - self.begin).num_milliseconds();
                let when = format!("   +{:>2}.{:02} s  ", since / 1_000, since % 1_000 / 10);
                screen.hanging(tone, &when, &words)?;
            }
            self.is_over |= matches!(
                envelope.event,
                Event::FailoverCompleted(_) | Event::FailoverFailed(_) | Event::FailoverRefused(_)
            );
        }
        Ok(())
    }

    /// Steps with what they are for; of the other events, the timeline's sentence for those that matter here.
    fn in_words(&self, event: &Event) -> Option<(Tone, String)> {
        let sentence = || self.timeline.entries.last().map(|entry| entry.text.clone()).unwrap_or_default();
        match event {
            Event::StepFinished(finished) => {
                let tone = match finished.outcome {
                    outcome if outcome.is_success() => Tone::Good,
                    StepOutcome::Failed | StepOutcome::Unknown | StepOutcome::Refused => Tone::Bad,
                    _ => Tone::Plain,
                };
                let (number, name, took) = (
                    RunKind::Failover.number(finished.step),
                    finished.step.name(),
                    human_ms(finished.took_ms),
                );
                let result = format!("step {number:>2} {name:<18} {:<12} {took:>6}", finished.outcome);
                // its first clause: the timeline shows the rest
                let effect = rule(RunKind::Failover, finished.step)
                    .effect
                    .split([';', ','])
                    .next()
                    .unwrap_or_default();
                Some((tone, format!("{result}  {effect}")))
            }
            Event::MainSuspected(_)
            | Event::MainLost(_)
            | Event::FailoverRefused(_)
            | Event::FailoverFailed(_) => Some((Tone::Bad, sentence())),
            Event::FailoverStarted(_)
            | Event::FailoverWithheld(_)
            | Event::EpochOpened(_)
            | Event::FailoverCompleted(_)
            | Event::RunResumed(_)
            | Event::StepUndone(_) => Some((Tone::Strong, sentence())),
            _ => None,
        }
    }
}
