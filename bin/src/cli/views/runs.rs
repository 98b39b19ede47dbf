//! `interrex run list`: every run, a line each.

use interrex_events::{LossMeasured, RunId, RunKind, StepId};
use interrex_projections::{Run, RunEnd, human_bytes, human_ms};
use serde::Serialize;

use super::super::{
    arguments::Reading,
    exit::Exit,
    failure::Failure,
    output::{Output, Style, Tone},
    source::Source,
    story::Story,
    table::{Cell, Table},
    when,
};

/// A run, with what the fold of runs alone does not say.
#[derive(Serialize)]
pub(super) struct ToldRun<'a> {
    short_id: String,
    pub(super) old_main_name: String,
    pub(super) new_main_name: String,
    pub(super) took_ms: Option<u64>,
    pub(super) threshold_ms: Option<u64>,
    pub(super) quorum: Option<&'a str>,
    pub(super) next: Option<&'a str>,
    /// Of a switchover, what the other node makes of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) other_half: Option<RunId>,
    #[serde(flatten)]
    pub(super) run: &'a Run,
}

impl<'a> ToldRun<'a> {
    /// The run as the story tells it.
    pub(super) fn of(run: &'a Run, story: &'a Story) -> Self {
        let begin = story.begins.get(&run.id);
        Self {
            short_id: run.id.short(),
            old_main_name: story.cluster.nodes.name(run.old_main),
            new_main_name: story.cluster.nodes.name(run.new_main),
            took_ms: run.ended_at.map(|end| run.ms_until(end)),
            threshold_ms: begin.map(|begin| begin.threshold_ms),
            quorum: begin.map(|begin| begin.quorum.as_str()),
            next: story.next_steps.get(&run.id).map(String::as_str),
            other_half: story.cluster.runs.other_half(run),
            run,
        }
    }
}

/// How loud an outcome is.
pub(super) fn tone(end: RunEnd) -> Tone {
    match end {
        RunEnd::Completed => Tone::Good,
        RunEnd::Running | RunEnd::CompletedDegraded | RunEnd::Refused | RunEnd::RolledBack => Tone::Warning,
        RunEnd::Failed | RunEnd::NeedsOperator => Tone::Bad,
    }
}

/// The loss in a few words.
pub(super) fn loss(run: &Run) -> String {
    let measured = || run.observed(StepId::MeasureLoss).map(|LossMeasured { loss }| loss);
    let loss = run.loss.clone().or_else(|| measured().filter(|_| run.promoted));
    match loss.map(|loss| (loss.bytes, loss.lower_bound)) {
        Some((Some(bytes), true)) => format!("at least {}", human_bytes(bytes)),
        Some((Some(bytes), false)) => human_bytes(bytes),
        Some((None, _)) => "unknown".to_owned(),
        None => match (run.kind, run.end) {
            // its certificate says how that was proved
            (RunKind::Switchover, RunEnd::Completed | RunEnd::CompletedDegraded) => {
                if run.certificate.is_some() { "nothing" } else { "not measured" }.to_owned()
            }
            (RunKind::Failover | RunKind::Promotion | RunKind::Takeover, _) if run.promoted => {
                "not measured".to_owned()
            }
            // nothing is lost: what only the old main had is reported in the run, and kept
            _ => "-".to_owned(),
        },
    }
}

/// The last problem; what to do about it has a line of its own.
pub(super) fn problem<'a>(run: &'a Run, next: Option<&str>) -> Option<&'a str> {
    let suffix = next.map(|next| format!("; next: {next}")).unwrap_or_default();
    run.problem.as_ref().map(|problem| problem.strip_suffix(&suffix).unwrap_or(problem))
}

/// Shows them, oldest first.
pub(in crate::cli) fn list(reading: &Reading, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let story: Story = Source::open(reading)?.fold()?;
    let runs: Vec<ToldRun<'_>> =
        story.cluster.runs.newest_first().into_iter().rev().map(|run| ToldRun::of(run, &story)).collect();
    if reading.json {
        output.json(&runs)?;
    } else if runs.is_empty() {
        output.line("No run since this journal began.")?;
    } else {
        let text = in_text(&runs, output.style);
        output.text(&text)?;
    }
    Ok(Exit::Fine)
}

fn in_text(runs: &[ToldRun<'_>], style: Style) -> String {
    let headings = ["RUN", "KIND", "FROM -> TO", "EPOCH", "STARTED (UTC)", "TOOK", "LOST", "OUTCOME"];
    let mut table = Table::headed(headings).right([3, 5]);
    for told in runs {
        let run = told.run;
        table.row([
            run.id.short().into(),
            run.kind.to_string().into(),
            format!("{} -> {}", told.old_main_name, told.new_main_name).into(),
            run.epoch.to_string().into(),
            when::date_and_time(run.started_at).into(),
            told.took_ms.map_or_else(|| "-".to_owned(), human_ms).into(),
            loss(run).into(),
            Cell::toned(tone(run.end), run.end.to_string()),
        ]);
    }
    table.render(style)
}
