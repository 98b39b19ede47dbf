//! The supervisors: do they answer, are they of one mind, and would nobody stand in the way of a run?

use interrex_actors::report::NodeReport;
use interrex_events::NodeId;

use crate::doctor::{
    facts::Facts,
    finding::{ALL_ACTS, Act, Check, Finding, Judgement, Subject},
};

const ABOUT: Subject = Subject::Supervisors;

const ANSWERS: Check = ABOUT.check(
    "supervisor_answers",
    ALL_ACTS,
    "each supervisor answers, as the node that the configuration here names",
    "Without its supervisor nobody promotes, stops or follows on that node.",
);
const SECRET: Check = ABOUT.check(
    "cluster_secret",
    ALL_ACTS,
    "each supervisor takes the secret that is here",
    "A node with another secret is asked for nothing and hears of no new main.",
);
const AGREE: Check = ABOUT.check(
    "supervisors_agree",
    ALL_ACTS,
    "all supervisors know the same epoch and the same main, and it is the one whose PostgreSQL takes writes",
    "A node that believes in another main follows the wrong one, or fences itself.",
);
const NO_RUN: Check = ABOUT.check(
    "no_run",
    &[Act::Switchover, Act::Rejoin],
    "no run is under way",
    "One run at a time: another one is refused until it has ended.",
);
const SAME_PROGRAM: Check = ABOUT.check(
    "same_program",
    &[],
    "all supervisors are of the version that looks",
    "An older one may not know a message or a step of a newer one.",
);
const HEALTHY: Check = ABOUT.check(
    "supervisor_content",
    &[Act::Switchover],
    "each supervisor finds its node healthy",
    "What it finds wrong is wrong for a run too.",
);
const QUORUM: Check = ABOUT.check(
    "quorum",
    &[],
    "somebody is asked before a node becomes main",
    "With quorum none the cluster is unprotected: a cut link between two nodes looks like a dead main, and can make two.",
);

pub(super) const CHECKS: &[&Check] = &[&ANSWERS, &SECRET, &AGREE, &NO_RUN, &HEALTHY, &SAME_PROGRAM, &QUORUM];

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = facts.nodes.iter().flat_map(|named| of_node(facts, named.id)).collect();
    findings.push(AGREE.found(None, agree(facts)));
    findings.push(QUORUM.found(None, quorum(facts)));
    findings
}

fn of_node(facts: &Facts, node: NodeId) -> Vec<Finding> {
    let Some(supervisor) = facts.supervisors.get(&node) else { return Vec::new() };
    let report = match &supervisor.report {
        Ok(report) => report,
        Err(reason) => {
            let fix = format!(
                "on {}: systemctl start interrex  # interrex supervise --config FILE",
                facts.name(node)
            );
            return vec![ANSWERS.on(node, Judgement::fail(reason, fix))];
        }
    };
    let secret = match &supervisor.admitted {
        Ok(()) => Judgement::pass("the same as here"),
        Err(reason) => {
            Judgement::fail(reason, "copy cluster.secret_file of one node to the others, chmod 600")
        }
    };
    vec![
        ANSWERS.on(node, answers(facts, node, report)),
        SECRET.on(node, secret),
        NO_RUN.on(node, no_run(report)),
        HEALTHY.on(node, healthy(report)),
        SAME_PROGRAM.on(node, same_program(report, facts.version)),
    ]
}

fn answers(facts: &Facts, node: NodeId, report: &NodeReport) -> Judgement {
    let expected = (facts.cluster_id, node, facts.name(node));
    let words = format!("node {} ({}), {}, {}", report.node, report.name, report.role, report.status);
    if (report.cluster_id, report.node, report.name.as_str()) == expected {
        return Judgement::pass(words);
    }
    let stranger =
        format!("{words}, of cluster {}, answers where {} should", report.cluster_id, facts.name(node));
    Judgement::fail(stranger, "make id, name and address of [[peers]] here what [node] says there")
}

fn agree(facts: &Facts) -> Judgement {
    let reports: Vec<&NodeReport> =
        facts.supervisors.values().filter_map(|it| it.report.as_ref().ok()).collect();
    let Some(first) = reports.first() else {
        return Judgement::unknown("no supervisor answers", "start the supervisors first");
    };
    let belief = |report: &NodeReport| match report.main {
        Some(main) => format!("{} in epoch {}", facts.name(main), report.epoch),
        None => format!("nobody in epoch {}", report.epoch),
    };
    let told: Vec<String> =
        reports.iter().map(|report| format!("{} believes in {}", report.name, belief(report))).collect();
    let fix = "interrex timeline --since 1h  # and restart the supervisor that is behind";
    let of_one_mind = reports.iter().all(|report| (report.main, report.epoch) == (first.main, first.epoch));
    if !of_one_mind || first.main.is_none() {
        return Judgement::fail(told.join("; "), fix);
    }
    if facts.main().is_some_and(|main| Some(main) != first.main) {
        let really = facts.main().map_or("nobody", |main| facts.name(main));
        return Judgement::fail(format!("{}, and {really} takes writes", told.join("; ")), fix);
    }
    if reports.len() < facts.nodes.len() {
        return Judgement::unknown(
            format!("{}; not everybody answers", told.join("; ")),
            "start the supervisors that do not answer",
        );
    }
    Judgement::pass(format!("all believe in {}", belief(first)))
}

fn no_run(report: &NodeReport) -> Judgement {
    let Some((run, _)) = &report.run else { return Judgement::pass("no run under way") };
    let run = run.short();
    Judgement::fail(
        format!("run {run} is under way"),
        format!("wait for it: interrex run show {run}; or give it up: interrex run cancel"),
    )
}

fn healthy(report: &NodeReport) -> Judgement {
    let words = if report.healthy { "content".to_owned() } else { report.problems.join("; ") };
    Judgement::pass_or_fail(report.healthy, words, "interrex status")
}

fn same_program(report: &NodeReport, version: &str) -> Judgement {
    let theirs = if report.version.is_empty() { "an older version" } else { report.version.as_str() };
    let fix = format!("install {version} there, and restart the supervisor: the servers go on meanwhile");
    Judgement::pass_or_warn(theirs == version, format!("interrex {theirs}"), fix)
}

fn quorum(facts: &Facts) -> Judgement {
    if facts.quorum == "none" {
        return Judgement::warn(
            "unprotected: quorum none, nobody is asked",
            "lessen it with auto_failover_enabled = false, or a hook that cuts the old main off: see docs/OPERATIONS.md",
        );
    }
    Judgement::pass(format!("quorum {}", facts.quorum))
}

#[cfg(test)]
mod tests {
    use interrex_events::Epoch;

    use super::*;
    use crate::doctor::{
        Verdict,
        examples::{ALPHA, BETA, wrong},
    };

    fn beta_says(change: impl FnOnce(&mut NodeReport)) -> Vec<(&'static str, Verdict)> {
        wrong(|facts| {
            if let Some(Ok(report)) = facts.supervisors.get_mut(&BETA).map(|it| it.report.as_mut()) {
                change(report);
            }
        })
    }

    #[test]
    fn supervisors_of_two_minds_fail() {
        let fails = [("supervisors_agree", Verdict::Fail)];
        assert_eq!(beta_says(|report| report.epoch = Epoch(2)), fails);
        assert_eq!(beta_says(|report| report.main = Some(BETA)), fails);
        assert_eq!(
            beta_says(|report| report.version = "0.0.9".to_owned()),
            [("same_program", Verdict::Warn)]
        );
        assert_eq!(
            beta_says(|report| report.name = "gamma".to_owned()),
            [("supervisor_answers", Verdict::Fail)]
        );
        assert_eq!(beta_says(|report| report.healthy = false), [("supervisor_content", Verdict::Fail)]);
    }

    #[test]
    fn one_that_is_silent_or_refuses_the_secret_fails() {
        let silent = |node| {
            wrong(|facts| {
                if let Some(supervisor) = facts.supervisors.get_mut(&node) {
                    supervisor.report = Err("refused".to_owned());
                }
            })
        };
        let expected = [("supervisor_answers", Verdict::Fail), ("supervisors_agree", Verdict::Unknown)];
        assert_eq!((silent(ALPHA), silent(BETA)), (expected.to_vec(), expected.to_vec()));
        let refused = wrong(|facts| {
            if let Some(supervisor) = facts.supervisors.get_mut(&BETA) {
                supervisor.admitted = Err("wrong secret".to_owned());
            }
        });
        assert_eq!(refused, [("cluster_secret", Verdict::Fail)]);
    }
}
