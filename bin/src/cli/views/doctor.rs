//! `interrex doctor`: every precondition, proved or not, and what follows for a failover, a switchover and a rejoin.

use interrex_events::NodeId;

use super::super::{
    arguments::Doctor,
    exit::Exit,
    failure::Failure,
    output::{Output, Style, Tone},
    progress::Progress,
    source,
    table::{Cell, Table},
};
use crate::{
    config::Config,
    doctor::{self, Examination, Finding, Readiness, Subject, Verdict},
};

/// For both forms of the help.
pub(in crate::cli) const EXAMPLES: &str = "\
Examples:
  interrex doctor
  interrex doctor --strict    # exit code 8 for warnings too
  interrex doctor --json | jq '.checks[] | select(.verdict == \"fail\")'
";

/// Runs the checks and shows the result.
pub(in crate::cli) fn show(arguments: &Doctor, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let config = Config::load(&source::config_path(arguments.config.as_deref())?)?;
    let progress = Progress::of("looking at every node".to_owned(), None);
    let examination = doctor::examine(&config)?;
    drop(progress);
    if arguments.json {
        output.json(&examination)?;
    } else {
        let text = in_text(&examination, output.style);
        output.text(&text)?;
    }
    Ok(exit(&examination, arguments.strict))
}

/// A check that fails or is not proved makes it not ready; a warning only with --strict.
fn exit(examination: &Examination, strict: bool) -> Exit {
    match examination.verdict {
        Some(Verdict::Pass) => Exit::Fine,
        Some(Verdict::Warn) if !strict => Exit::Fine,
        _ => Exit::NotReady,
    }
}

fn in_text(examination: &Examination, style: Style) -> String {
    let mut text = String::new();
    for subject in Subject::ALL {
        let findings: Vec<&Finding> =
            examination.checks.iter().filter(|finding| finding.subject == subject).collect();
        if findings.is_empty() {
            continue;
        }
        text.push_str(&style.paint(Tone::Strong, subject.heading()));
        text.push('\n');
        text.push_str(&table(examination, &findings).render(style));
        text.push('\n');
    }
    text.push_str(&style.paint(Tone::Strong, "Would it work now?"));
    text.push('\n');
    text.push_str(&acts(&examination.acts).render(style));
    text.push('\n');
    text.push_str(&summary(examination, style));
    text
}

/// One line per check; if it is not ok, also why it matters and how to fix it.
fn table(examination: &Examination, findings: &[&Finding]) -> Table {
    let mut table = Table::plain();
    for finding in findings {
        let (word, tone) = match finding.verdict {
            Verdict::Pass => ("  ok", Tone::Good),
            Verdict::Warn => ("  warn", Tone::Warning),
            Verdict::Unknown => ("  unknown", Tone::Bad),
            Verdict::Fail => ("  fail", Tone::Bad),
        };
        table.row([
            Cell::toned(tone, word),
            finding.check.into(),
            name(examination, finding.node).into(),
            finding.measured.as_str().into(),
        ]);
        if finding.verdict != Verdict::Pass {
            let mut beneath = |what: &str, words: &str| {
                table.row(["".into(), "".into(), Cell::toned(Tone::Faint, what), words.into()]);
            };
            beneath("why", finding.why);
            if let Some(fix) = &finding.fix {
                beneath("fix", fix);
            }
        }
    }
    table
}

fn name(examination: &Examination, node: Option<NodeId>) -> &str {
    node.and_then(|node| examination.names.get(&node)).map_or("all", String::as_str)
}

fn acts(acts: &[Readiness]) -> Table {
    let mut table = Table::plain();
    for act in acts {
        let (word, tone) = if act.ready { ("ready", Tone::Good) } else { ("not ready", Tone::Bad) };
        let because =
            if act.ready { "no check speaks against it".to_owned() } else { act.because.join(", ") };
        table.row([format!("  {}", act.what).into(), Cell::toned(tone, word), because.into()]);
        if let Some(unseen) = &act.not_looked_at {
            table.row([
                "".into(),
                Cell::toned(Tone::Faint, "unseen"),
                Cell::toned(Tone::Faint, unseen.as_str()),
            ]);
        }
    }
    table
}

fn summary(examination: &Examination, style: Style) -> String {
    let count = |verdict| examination.count(verdict);
    let tone = match examination.verdict {
        Some(Verdict::Pass) => Tone::Good,
        Some(Verdict::Warn) => Tone::Warning,
        _ => Tone::Bad,
    };
    let words = format!(
        "{} checks from {}: {} passed, {} warned, {} failed, {} could not be made",
        examination.checks.len(),
        name(examination, Some(examination.node)),
        count(Verdict::Pass),
        count(Verdict::Warn),
        count(Verdict::Fail),
        count(Verdict::Unknown)
    );
    style.paint(tone, &words) + "\n"
}

/// Every check with what it looks at, for `interrex doctor --help`.
pub(in crate::cli) fn explained() -> String {
    let mut lines = vec![EXAMPLES.to_owned()];
    for subject in Subject::ALL {
        lines.push(format!("{}:", subject.heading()));
        let checks = doctor::checks().into_iter().filter(|check| check.subject == subject);
        // a line that wraps keeps its indent, and no other
        lines.extend(checks.map(|check| format!("  {}\n          {}", check.name, check.looks_at)));
    }
    lines.push("\nExit code 0: no check failed; 8: a check failed, or could not be made".to_owned());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::doctor::{
        Examination,
        examples::{ALPHA, BETA, change, healthy},
        facts::Facts,
    };

    fn golden(name: &str, content: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/golden").join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, content).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(golden == content, "{name} is not as in its golden file, but:\n{content}");
    }

    fn ill() -> Facts {
        let mut facts = healthy();
        change(&mut facts, ALPHA, |server| server.slots.clear());
        change(&mut facts, BETA, |server| server.libc = Some("2.41".to_owned()));
        facts.replication_logins.insert(BETA, Ok(Err("psql: password authentication failed".to_owned())));
        facts.machine.rivals = Err("systemctl: did not end within 5s, and was killed".to_owned());
        facts
    }

    #[test]
    fn a_healthy_cluster_and_an_ill_one_are_told_whole() {
        let style = Style { colour: false, width: Some(110) };
        golden("doctor-healthy.txt", &in_text(&Examination::of(&healthy()), style));
        let ill = Examination::of(&ill());
        let text = in_text(&ill, style);
        golden("doctor-ill.txt", &text);
        let mut bytes = Vec::new();
        Output::to(&mut bytes, style).json(&ill).unwrap();
        golden("doctor-ill.json", &String::from_utf8(bytes).unwrap());
        assert!(in_text(&ill, Style { colour: true, ..style }).contains("\x1b[31m  fail\x1b[0m"));
    }

    #[test]
    fn the_exit_code_counts_what_is_not_proved_and_warnings_where_it_is_asked_to() {
        let healthy = Examination::of(&healthy());
        assert_eq!((exit(&healthy, false), exit(&healthy, true)), (Exit::Fine, Exit::NotReady));
        assert_eq!(exit(&Examination::of(&ill()), false), Exit::NotReady);
    }

    #[test]
    fn the_help_wraps_what_a_check_looks_at_beneath_its_name() {
        let mut command = clap::Command::new("doctor").after_long_help(explained()).term_width(60);
        let help = command.render_long_help().to_string();
        let mut lines = help.lines().skip_while(|line| *line != "  journal_room").skip(1);
        let told: Vec<&str> = lines.by_ref().take_while(|line| *line != "  journal_sound").collect();
        assert!(told.len() > 1 && told.iter().all(|line| line.starts_with("          ")), "{told:?}");
    }

    /// The table in docs/OPERATIONS.md.
    fn page() -> String {
        let rows = crate::doctor::checks().into_iter().map(|check| {
            let breaks: Vec<String> = check
                .breaks
                .iter()
                .map(|act| serde_json::to_string(act).unwrap().trim_matches('"').to_owned())
                .collect();
            let breaks =
                if breaks.is_empty() { "nothing, with a risk".to_owned() } else { breaks.join(", ") };
            format!("| `{}` | {} | {} | {breaks} |\n", check.name, check.looks_at, check.why)
        });
        let head = "| check | looks whether | why | breaks |\n| --- | --- | --- | --- |\n";
        rows.fold(head.to_owned(), |page, row| page + &row)
    }

    #[test]
    fn the_page_for_operators_has_every_check() {
        const BEGIN: &str = "<!-- made from bin/src/doctor/judge by UPDATE_GOLDEN=1 cargo test -p interrex --lib doctor -->\n";
        const END: &str = "<!-- end of what is made -->";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/OPERATIONS.md");
        let text = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = text.split_once(BEGIN).unwrap();
        let (_, after) = rest.split_once(END).unwrap();
        let wanted = format!("{before}{BEGIN}{}{END}{after}", page());
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &wanted).unwrap();
            return;
        }
        assert!(text == wanted, "docs/OPERATIONS.md has other checks than the program");
    }
}
