//! What is shown of the time to come.

use interrex_actors::{
    failover::plan::{Findings, Measured, Plan, plan},
    wire::Check,
};
use interrex_events::{Epoch, NodeId, RunKind};
use interrex_projections::Runs;

use super::{
    super::{exit::Exit, output::Output, views},
    Stage, Style, beta_as_main, compare,
    stream::{ALPHA, BETA, report},
};

fn planned(checks: Vec<Check>) -> Plan {
    let findings = Findings {
        old_main: ALPHA,
        new_main: BETA,
        epoch: Epoch(2),
        drain_ms: 5_000,
        checks,
        loss_bytes: Some(0),
    };
    plan(RunKind::Switchover, findings, &Runs::default())
}

fn golden(file: &str, plan: &Plan, json: bool, expected: Exit) {
    let mut bytes = Vec::new();
    let mut output = Output::to(&mut bytes, Style { colour: false, width: Some(110) });
    let name = |node: NodeId| if node == ALPHA { "alpha".to_owned() } else { "beta".to_owned() };
    let exit = views::plan::show(plan, name, json, &mut output).unwrap();
    output.flush().unwrap();
    drop(output);
    compare(file, &String::from_utf8(bytes).unwrap());
    assert_eq!(exit, expected);
}

fn fine() -> Vec<Check> {
    vec![
        Check::good("PostgreSQL here", "PostgreSQL here is primary"),
        Check::good("WAL of the target", "beta is 0 bytes behind").with("behind_bytes", 0),
        Check::good("open transactions", "1 is open").with("open_transactions", 1),
    ]
}

#[test]
fn a_dry_run_shows_the_values_the_steps_and_what_earlier_runs_took() {
    let mut plan = planned(fine());
    plan.without_writes.measured =
        Some(Measured { kind: RunKind::Switchover, runs: 3, median_ms: 84, longest_ms: 910 });
    plan.whole_run =
        Some(Measured { kind: RunKind::Switchover, runs: 3, median_ms: 1_250, longest_ms: 4_000 });
    golden("plan-fine.txt", &plan, false, Exit::Fine);
    golden("plan-fine.json", &plan, true, Exit::Fine);
}

#[test]
fn times_of_runs_of_another_kind_say_so() {
    let failover = Measured { kind: RunKind::Failover, runs: 1, median_ms: 5_100, longest_ms: 5_100 };
    let mut plan = Plan { kind: RunKind::Promotion, ..planned(fine()) };
    (plan.without_writes.measured, plan.whole_run) = (Some(failover), None);
    let mut bytes = Vec::new();
    let mut output = Output::to(&mut bytes, Style::default());
    views::plan::show(&plan, |node| node.to_string(), false, &mut output).unwrap();
    drop(output);
    let text = String::from_utf8(bytes).unwrap();
    let words = "the median of 1 failover here that completed (with the same steps), the longest 5.1 s";
    assert!(text.contains(words), "{text}");
    assert!(text.contains("IN ALL   not known: no promotion has completed here yet"), "{text}");
}

#[test]
fn a_dry_run_names_everything_that_would_stop_it() {
    let mut checks = fine();
    checks.push(Check::bad("supervisor of the target", "the supervisor of beta does not answer: refused"));
    checks.push(Check::unknown("WAL of the target", "how far beta is behind is not known: no answer"));
    golden("plan-refused.txt", &planned(checks), false, Exit::Failed);
}

#[test]
fn a_switchover_that_is_scheduled_is_shown_with_who_asked_for_it() {
    let stage = Stage::set(900_000, |author| {
        author.quiet_morning().death_of_main().new_main().plans_a_switchover(800_000)
    });
    let stage = stage.with([beta_as_main()]);
    stage.golden("status-scheduled.txt", "status --config @interrex.toml", Exit::NotHealthy);
    let mut alpha = report(ALPHA);
    (alpha.main, alpha.epoch) = (Some(ALPHA), Epoch(3));
    let overtaken = stage.with([alpha]);
    let (_, now) = overtaken.show("status --config @interrex.toml", Style::default());
    assert!(!now.contains("SCHEDULED"), "what beta scheduled never begins once alpha is main: {now}");
    let (_, told) = overtaken.show("timeline --since 08:13:00 --config @interrex.toml", Style::default());
    let words = "a switchover to alpha is scheduled for 2027-01-15 22:00:00 UTC (new disk in beta)";
    assert!(told.contains(words), "{told}");
}

#[test]
fn a_time_to_come_and_a_dry_run_exclude_each_other() {
    let words = ["interrex", "switchover", "--to", "beta", "--at", "+30m", "--dry-run"];
    let parsed = <super::Arguments as clap::Parser>::try_parse_from(words);
    assert_eq!(parsed.unwrap_err().kind(), clap::error::ErrorKind::ArgumentConflict);
}
