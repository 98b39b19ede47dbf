//! `interrex run show`: one run, for the post-mortem.

use interrex_actors::replication;
use interrex_events::{
    Certificate, Envelope, Evidence, Finding, RunId, RunKind, StepId, StepOutcome, Verdict,
};
use interrex_projections::{
    Projection as _, Rejoin, Run, RunEnd, Step, StepState, Undo, counted, human_bytes, human_ms,
};

use super::{
    super::{
        arguments::RunShow,
        exit::Exit,
        failure::Failure,
        output::{Output, Style, Tone},
        source::Source,
        story::Story,
        table::{Cell, Table},
        when,
    },
    runs::{self, ToldRun},
};

/// Shows it.
pub(in crate::cli) fn show(arguments: &RunShow, output: &mut Output<'_>) -> Result<Exit, Failure> {
    show_with(arguments, &[], output)
}

/// The same with events that this node does not have yet, or never will: the node that made them sent them.
pub(in crate::cli) fn show_with(
    arguments: &RunShow,
    later: &[Envelope],
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let mut story = match Source::open(&arguments.reading).and_then(|source| source.fold::<Story>()) {
        Err(error) if later.is_empty() => return Err(error),
        story => story.unwrap_or_default(),
    };
    later.iter().for_each(|envelope| story.apply(envelope));
    let run = match &arguments.run {
        Some(text) => {
            let id = story.find_run(text)?;
            story.cluster.runs.get(id)
        }
        None => story.cluster.runs.newest_whole(),
    };
    let Some(run) = run else {
        return Err(Failure::NoSuchRun("the journal holds no run since it began".to_owned()));
    };
    let told = ToldRun::of(run, &story);
    if arguments.reading.json {
        output.json(&told)?;
    } else {
        let text = in_text(&told, &story, output.style);
        output.text(&text)?;
    }
    Ok(Exit::Fine)
}

fn in_text(told: &ToldRun<'_>, story: &Story, style: Style) -> String {
    let known = told.run.evidence.as_ref().filter(|_| told.run.kind != RunKind::Takeover);
    let tables = [
        Some(summary(told, story)),
        known.map(|known| evidence(told, known)),
        told.run.certificate.as_ref().map(certificate),
        told.run.rejoin.as_ref().map(|it| rejoin(told.run, it)),
        Some(outcome(told)),
        Some(steps(told.run)),
    ];
    let texts = tables.into_iter().flatten().map(|table| table.render(style));
    texts.filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n")
}

fn summary(told: &ToldRun<'_>, story: &Story) -> Table {
    let run = told.run;
    let mut table = Table::plain();
    let mut row = |label: &str, cell: Cell| table.row([Cell::toned(Tone::Strong, label), cell]);
    row(
        "RUN",
        format!("{}, epoch {}", run.kind.of_nodes(&told.old_main_name, &told.new_main_name), run.epoch)
            .into(),
    );
    row("ID", format!("{} (for short {})", run.id, run.id.short()).into());
    let by = story.cluster.nodes.name(run.node);
    row("STARTED", format!("{} by {by}", when::date_and_time_utc(run.started_at)).into());
    let ended = match (run.ended_at, told.took_ms) {
        (Some(at), Some(took)) => format!("{}, after {}", when::date_and_time_utc(at), human_ms(took)),
        _ => "not yet".to_owned(),
    };
    row("ENDED", ended.into());
    if run.resumed > 0 {
        row("RESUMED", format!("{}, after its supervisor died", counted(run.resumed, "time")).into());
    }
    row("OUTCOME", Cell::toned(runs::tone(run.end), run.end.to_string()));
    if let Some(half) = told.other_half {
        row("OTHER HALF", other_half(half, story).into());
    }
    table
}

/// What the other node does in the same switchover, and how to see it.
fn other_half(half: RunId, story: &Story) -> String {
    match story.cluster.runs.get(half) {
        Some(run) => {
            let by = story.cluster.nodes.name(run.node);
            format!("the {} by {by}, {}: interrex run show {}", run.kind, run.end, half.short())
        }
        None => format!("run {}; no event of it is here yet", half.short()),
    }
}

/// What was known when the verdict fell.
fn evidence(told: &ToldRun<'_>, known: &Evidence) -> Table {
    let run = told.run;
    let mut table = Table::plain();
    let allowed = match told.threshold_ms {
        Some(threshold) => format!(" (allowed {})", human_ms(threshold)),
        None => String::new(),
    };
    let silence = format!("main {} was silent for {}{allowed}", told.old_main_name, human_ms(run.silent_ms));
    table.row([Cell::toned(Tone::Strong, "EVIDENCE"), "silence".into(), silence.into()]);
    let mut row = |what: &str, cell: Cell| table.row([Cell::default(), what.into(), cell]);
    let last_good = match known.last_good_at {
        Some(at) => {
            format!("{}; {} probes missed since", when::date_and_time_utc(at), known.missed_probes)
        }
        None => format!("none; {} probes missed", known.missed_probes),
    };
    row("last sign of life", last_good.into());
    row("PostgreSQL", finding(&known.postgres));
    row("supervisor", finding(&known.supervisor));
    row("WAL receiver", finding(&known.wal_receiver));
    row("Redis", finding(&known.redis));
    let report = match &run.last_report {
        Some(report) => format!("{} at {}", report.lsn, when::date_and_time_utc(report.reported_at)),
        None => "none: main never reported its position in the WAL".to_owned(),
    };
    row("main's last report", report.into());
    if let Some(at) = run.last_report.as_ref().and_then(|report| report.caught_up_at) {
        row("held all of it", when::date_and_time_utc(at).into());
    }
    if let Some(at) = run.last_report.as_ref().and_then(|report| report.first_miss_at) {
        row("first miss after it", when::date_and_time_utc(at).into());
    }
    if let Some(quorum) = told.quorum {
        let asked = if quorum == "none" { "none: no third opinion was asked for" } else { quorum };
        row("quorum", asked.into());
    }
    table
}

/// What proves that a switchover lost nothing, each line with the tool that shows it again.
fn certificate(it: &Certificate) -> Table {
    let mut table = Table::plain();
    let mut label = Cell::toned(Tone::Strong, "CERTIFICATE");
    let mut row =
        |what: &str, value: String| table.row([std::mem::take(&mut label), what.into(), value.into()]);
    row("system", format!("{} (pg_controldata, both nodes)", it.system_id));
    row(
        "old main",
        format!(
            "shut down; its last checkpoint at {} ends timeline {} at {} (pg_controldata, pg_waldump)",
            it.checkpoint, it.old_timeline, it.end
        ),
    );
    row("new main", format!("had received up to {} when it was asked", it.received));
    row(
        "switchpoint",
        format!(
            "timeline {} begins at {} ({:08X}.history)",
            it.new_timeline, it.switchpoint, it.new_timeline.0
        ),
    );
    let zero = if it.end == it.switchpoint && it.received == it.end {
        "PostgreSQL lost nothing"
    } else {
        "THEY DIFFER"
    };
    row("so", zero.to_owned());
    for (whose, head) in [("old main's journal", it.old_main_head), ("new main's journal", it.new_main_head)]
    {
        row(whose, format!("event {}/{}, hash {}", head.node, head.node_seq, head.hash));
    }
    table
}

/// What only the returning node had, and what became of it.
fn rejoin(run: &Run, it: &Rejoin) -> Table {
    let mut table = Table::plain();
    let mut row = |label: &str, value: String| table.row([Cell::toned(Tone::Strong, label), value.into()]);
    if let Some(by) = it.by {
        row("DATA", by.to_string());
    }
    if let Some(stranded) = &it.stranded {
        let span = match (stranded.first_commit, stranded.last_commit) {
            (Some(first), Some(last)) => {
                format!(", from {} to {}", when::date_and_time_utc(first), when::date_and_time_utc(last))
            }
            _ => String::new(),
        };
        let words = format!(
            "{} with {} ({} of WAL after {}){span}",
            counted(stranded.committed, "committed transaction"),
            counted(stranded.rows, "row"),
            human_bytes(stranded.bytes),
            stranded.switchpoint
        );
        row("ONLY HERE", words);
        if let Some(tables) = &stranded.tables {
            row("IN TABLES", tables.to_string());
            if let Some(reason) = &tables.not_asked {
                row("", format!("main could not be asked for every name: {reason}"));
            }
        }
    }
    if let Some(kept) = &it.kept {
        row("KEPT IN", kept.clone());
        row("TO READ IT", format!("interrex salvage --kept {kept}/pgdata --output stranded"));
    }
    if let Some(kept) = replication::rejoin::kept_redis(run) {
        row("REDIS IN", kept.clone());
        row("TO READ IT", format!("interrex salvage --kept-redis {kept} --output stranded-keys"));
    }
    table
}

fn finding(finding: &Finding) -> Cell {
    let tone = match finding.verdict {
        Verdict::Good => Tone::Good,
        Verdict::Bad => Tone::Bad,
        Verdict::Unknown => Tone::Plain,
    };
    Cell::toned(tone, format!("{}: {}", finding.verdict, finding.detail))
}

/// Where the time went, what was lost, and what remains to be done.
fn outcome(told: &ToldRun<'_>) -> Table {
    let run = told.run;
    let mut table = Table::plain();
    let mut row = |label: &str, cell: Cell| table.row([Cell::toned(Tone::Strong, label), cell]);
    if let Some(time) = run.recovery_time {
        let split = format!(
            "{} without writes: detect {}, decide {}, promote {}; dependents ready {} after that",
            human_ms(time.without_writes_ms()),
            human_ms(time.detect_ms),
            human_ms(time.decide_ms),
            human_ms(time.promote_ms),
            human_ms(time.dependents_ms)
        );
        row("TIME", split.into());
    }
    if let Some(ms) = run.without_writes_ms {
        row("TIME", format!("{} without writes", human_ms(ms)).into());
    }
    if !matches!(run.kind, RunKind::Switchover | RunKind::Rejoin) {
        row("LOSS", loss(run).into());
    }
    if !run.degraded.is_empty() {
        let steps: Vec<_> = run.degraded.iter().map(|step| step.name()).collect();
        row("DONE WITHOUT", Cell::toned(Tone::Warning, steps.join(", ")));
    }
    if let Some(problem) = runs::problem(run, told.next) {
        row("LAST PROBLEM", Cell::toned(Tone::Warning, problem));
    }
    let next = told.next.map(|next| beside_this_view(next, run));
    match (next, run.end) {
        (Some(""), _) => {}
        (Some(next), _) => row("NEXT", Cell::toned(Tone::Strong, next)),
        (None, RunEnd::Running) => row(
            "NEXT",
            "its supervisor continues it, also after a restart; watch it with: interrex events --follow"
                .into(),
        ),
        (None, RunEnd::CompletedDegraded) => row("NEXT", after_doing_without(run).into()),
        (None, _) => {}
    }
    table
}

/// What the operator does next, but to look at what is shown here.
fn beside_this_view<'a>(next: &'a str, run: &Run) -> &'a str {
    match next.strip_prefix(&format!("interrex run show {}", run.id.short())) {
        Some(rest) => {
            let rest = rest.trim_start_matches([';', ',', ' ']);
            rest.strip_prefix("and ").unwrap_or(rest)
        }
        None => next,
    }
}

/// What is left to a person of a run that did without something.
fn after_doing_without(run: &Run) -> String {
    let by_hand = match run.degraded.contains(&StepId::RestartDependents) {
        true => {
            " For a dependent: stop its process and restart this node's supervisor, which starts what does not run and leaves \
             PostgreSQL alone."
        }
        false => "",
    };
    format!("fix what the detail of that step names.{by_hand} Then: interrex doctor")
}

fn loss(run: &Run) -> String {
    let Some(loss) = &run.loss else {
        return match run.end {
            RunEnd::Completed | RunEnd::CompletedDegraded => "not measured".to_owned(),
            _ => "not stated: the run did not complete".to_owned(),
        };
    };
    let Some(bytes) = loss.bytes else {
        return format!("unknown: main never reported its position; the WAL here ends at {}", loss.own_lsn);
    };
    let at_least = if loss.lower_bound { "at least " } else { "" };
    let seconds = match loss.seconds {
        Some(seconds) => format!(" and {seconds:.1} s"),
        None => String::new(),
    };
    let main = loss.main_lsn.map_or_else(|| "unknown".to_owned(), |lsn| lsn.to_string());
    format!(
        "{at_least}{}{seconds} of WAL: main was at {main}, the WAL here ends at {}",
        human_bytes(bytes),
        loss.own_lsn
    )
}

fn steps(run: &Run) -> Table {
    let mut table = Table::headed(["#", "STEP", "OUTCOME", "TOOK", "DETAIL"]).right([0, 3]);
    for (index, id) in run.kind.steps().iter().enumerate() {
        let step = run.step(*id);
        table.row([
            (index + 1).to_string().into(),
            id.name().into(),
            step_outcome(&step),
            step.took_ms.map_or_else(|| "-".to_owned(), human_ms).into(),
            step.detail.into(),
        ]);
    }
    table
}

fn step_outcome(step: &Step) -> Cell {
    let tone = match step.state {
        StepState::Pending => Tone::Faint,
        StepState::Running => Tone::Warning,
        StepState::Ended(StepOutcome::Succeeded | StepOutcome::AlreadyDone) => Tone::Good,
        StepState::Ended(StepOutcome::Skipped) => Tone::Plain,
        StepState::Ended(StepOutcome::Failed | StepOutcome::Refused | StepOutcome::Unknown) => Tone::Bad,
    };
    Cell::toned(tone, step_in_words(step))
}

/// How far a step is, in a few words.
pub(in crate::cli) fn step_in_words(step: &Step) -> String {
    let text = match step.state {
        StepState::Pending => "not begun".to_owned(),
        StepState::Running => "running".to_owned(),
        StepState::Ended(outcome) => outcome.to_string(),
    };
    let attempts = if step.attempts > 1 { format!(", attempt {}", step.attempts) } else { String::new() };
    let undo = match step.undo {
        Undo::NotAsked => "",
        Undo::Running => ", being taken back",
        Undo::Done => ", taken back",
        Undo::Failed => ", NOT taken back",
    };
    format!("{text}{attempts}{undo}")
}
