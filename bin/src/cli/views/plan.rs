//! `--dry-run`: what a run would do, and what would stop it.

use interrex_actors::{
    failover::plan::{Measured, Plan, PlannedStep, WithoutWrites},
    wire::Check,
};
use interrex_events::{NodeId, RunKind, StepId, Verdict};
use interrex_projections::{counted, human_bytes, human_ms};

use super::super::{
    exit::Exit,
    failure::Failure,
    output::{Output, Style, Tone},
    table::{Cell, Table},
};

/// Shows it. The exit code says whether it would begin.
pub(in crate::cli) fn show(
    plan: &Plan,
    name: impl Fn(NodeId) -> String,
    json: bool,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    if json {
        output.json(plan)?;
    } else {
        let text = in_text(plan, name, output.style);
        output.text(&text)?;
    }
    Ok(if plan.would_begin { Exit::Fine } else { Exit::Failed })
}

fn in_text(plan: &Plan, name: impl Fn(NodeId) -> String, style: Style) -> String {
    [summary(plan, name), checks(&plan.checks), steps(&plan.steps)]
        .map(|table| table.render(style))
        .join("\n")
}

fn summary(plan: &Plan, name: impl Fn(NodeId) -> String) -> Table {
    let mut table = Table::plain();
    let mut row = |label: &str, cell: Cell| table.row([Cell::toned(Tone::Strong, label), cell]);
    let (from, to) = (name(plan.old_main), name(plan.new_main));
    row(
        "DRY RUN",
        format!("{}, epoch {}; nothing was changed", plan.kind.of_nodes(&from, &to), plan.epoch).into(),
    );
    row(
        "OUTCOME",
        match plan.stopped_by().count() {
            0 => Cell::toned(Tone::Good, "it would begin"),
            1 => Cell::toned(Tone::Bad, "it would be refused, for the reason marked below"),
            many => {
                Cell::toned(Tone::Bad, format!("it would be refused, for the {many} reasons marked below"))
            }
        },
    );
    row("TIME", without_writes(plan.kind, &plan.without_writes).into());
    row("IN ALL", whole_run(plan.kind, plan.whole_run).into());
    row("LOSS", loss(plan).into());
    table
}

fn without_writes(kind: RunKind, expected: &WithoutWrites) -> String {
    let names: Vec<&str> = expected.steps.iter().map(|step| step.name()).collect();
    let span = match names.as_slice() {
        [] => return "writes go on".to_owned(),
        [only] => (*only).to_owned(),
        [first, .., last] => format!("{first} to {last}"),
    };
    let limit = match expected.limit_ms {
        Some(limit) => format!("at most {} by the limits", human_ms(limit)),
        None => "no limit if the target does not answer".to_owned(),
    };
    match expected.measured {
        Some(measured) => format!(
            "about {} without writes ({span}): {}; {limit}",
            human_ms(measured.median_ms),
            of_earlier(kind, measured)
        ),
        None => format!("not known: no {kind} has completed here yet; without writes from {span}; {limit}"),
    }
}

fn whole_run(kind: RunKind, measured: Option<Measured>) -> String {
    match measured {
        Some(measured) => {
            format!(
                "about {} from start to end: {}",
                human_ms(measured.median_ms),
                of_earlier(kind, measured)
            )
        }
        None => format!("not known: no {kind} has completed here yet"),
    }
}

/// From which runs that is known.
fn of_earlier(kind: RunKind, measured: Measured) -> String {
    let runs = counted(measured.runs, &measured.kind.to_string());
    let alike = if measured.kind == kind { "" } else { " (with the same steps)" };
    format!("the median of {runs} here that completed{alike}, the longest {}", human_ms(measured.longest_ms))
}

fn loss(plan: &Plan) -> String {
    match plan.loss_bytes {
        _ if plan.kind == RunKind::Rejoin => {
            "nothing that main has; data that only this node has is kept first".to_owned()
        }
        Some(0) if plan.kind == RunKind::Promotion => "nothing that main had reported".to_owned(),
        Some(0) => {
            "nothing: before the promotion the target is proved to have all of the WAL, or main keeps serving"
                .to_owned()
        }
        Some(bytes) => format!("{} of WAL", human_bytes(bytes)),
        None => "not known before the run".to_owned(),
    }
}

fn checks(checks: &[Check]) -> Table {
    let mut table = Table::headed(["", "CHECK", "FOUND"]);
    for check in checks {
        let (word, tone) = match check.verdict {
            Verdict::Good => ("fine", Tone::Good),
            Verdict::Bad => ("STOPS", Tone::Bad),
            Verdict::Unknown => ("UNKNOWN", Tone::Bad),
        };
        table.row([Cell::toned(tone, word), check.subject.as_str().into(), check.detail.as_str().into()]);
    }
    table
}

fn steps(steps: &[PlannedStep]) -> Table {
    let mut table = Table::headed(["#", "STEP", "LIMIT", "WHAT IT DOES"]).right([0, 2]);
    for step in steps {
        let undo = step.undo.iter().map(|undo| format!("undo: {undo}"));
        let mark = step.point_of_no_return.then(|| "point of no return".to_owned());
        let need = (!step.required).then(|| "best effort".to_owned());
        let notes: Vec<String> = undo.chain(mark).chain(need).collect();
        let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join("; ")) };
        table.row([
            step.number.to_string().into(),
            step.step.name().into(),
            limit(step).into(),
            format!("{}{notes}", step.effect).into(),
        ]);
    }
    table
}

fn limit(step: &PlannedStep) -> String {
    let limit = human_ms(step.limit_ms);
    match (step.step, step.attempts) {
        (StepId::RecordStart | StepId::RecordCompletion, _) => "-".to_owned(),
        (_, Some(1)) => limit,
        (_, Some(attempts)) => format!("{attempts} x {limit}"),
        (_, None) => format!("n x {limit}"),
    }
}
