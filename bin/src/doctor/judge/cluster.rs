//! The supervisors: do they answer, do they agree, and would nothing stop a run?

use std::collections::BTreeMap;

use interrex_actors::wire::NodeReport;
use interrex_events::NodeId;

use crate::doctor::{
    facts::Facts,
    finding::{ALL_ACTS, Act, Check, Finding, Judgement, Subject},
};

const ABOUT: Subject = Subject::Supervisors;

const ANSWERS: Check = ABOUT.check(
    "supervisor_answers",
    ALL_ACTS,
    "each supervisor answers, and is the node that the configuration here names",
    "Without its supervisor, a node is not promoted, not stopped and follows no new main.",
);
const SECRET: Check = ABOUT.check(
    "cluster_secret",
    ALL_ACTS,
    "each supervisor accepts the cluster secret of this node",
    "A node with another secret takes part in no run and does not learn of a new main.",
);
const AGREE: Check = ABOUT.check(
    "supervisors_agree",
    ALL_ACTS,
    "all supervisors know the same epoch and the same main, and main's PostgreSQL takes writes",
    "A node that believes in another main follows the wrong node, or fences itself.",
);
const NO_RUN: Check = ABOUT.check(
    "no_run",
    &[Act::Switchover, Act::Rejoin],
    "no run is under way",
    "Only one run is possible at a time: the next one is refused until this run has ended.",
);
const SAME_PROGRAM: Check = ABOUT.check(
    "same_program",
    &[],
    "all supervisors have the version of the program that runs these checks",
    "An older supervisor may not know a message or a step of a newer supervisor.",
);
const HEALTHY: Check = ABOUT.check(
    "supervisor_content",
    &[Act::Switchover],
    "each supervisor finds its node healthy",
    "A problem that the supervisor reports is a problem for a run too.",
);
const QUORUM: Check = ABOUT.check(
    "quorum",
    &[],
    "a quorum is asked before a node becomes main",
    "With quorum none the cluster is unprotected: a cut link between two nodes looks like a dead main, and can lead to two mains.",
);

const CANDIDATE: Check = ABOUT.check(
    "candidate",
    &[Act::Failover],
    "with quorum none, all nodes of three or more name the same node as failover.candidate, and it is a secondary",
    "Only the candidate promotes itself, so that two nodes never do: without a candidate, a person must promote a node when main \
     dies.",
);

pub(super) const CHECKS: &[&Check] =
    &[&ANSWERS, &SECRET, &AGREE, &NO_RUN, &HEALTHY, &SAME_PROGRAM, &QUORUM, &CANDIDATE];

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = facts.nodes.iter().flat_map(|named| of_node(facts, named.id)).collect();
    findings.push(AGREE.found(None, agree(facts)));
    findings.push(QUORUM.found(None, quorum(facts)));
    findings.extend(candidate(facts).map(|judgement| CANDIDATE.found(None, judgement)));
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
        Ok(()) => Judgement::pass("the same secret as here"),
        Err(reason) => {
            Judgement::fail(reason, "copy cluster.secret_file of one node to the other nodes, then chmod 600")
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
        format!("{words}, of cluster {}, answers at the address of {}", report.cluster_id, facts.name(node));
    Judgement::fail(
        stranger,
        "set id, name and address of [[peers]] here to the values of [node] on that node",
    )
}

fn agree(facts: &Facts) -> Judgement {
    let reports: Vec<&NodeReport> =
        facts.supervisors.values().filter_map(|it| it.report.as_ref().ok()).collect();
    let Some(first) = reports.first() else {
        return Judgement::unknown(
            "no supervisor answers",
            "start the supervisors first: systemctl start interrex",
        );
    };
    let belief = |report: &NodeReport| match report.main {
        Some(main) => format!("{} in epoch {}", facts.name(main), report.epoch),
        None => format!("no main in epoch {}", report.epoch),
    };
    let told: Vec<String> =
        reports.iter().map(|report| format!("{} believes in {}", report.name, belief(report))).collect();
    let fix = "interrex timeline --since 1h  # and restart the supervisor that is behind";
    let of_one_mind = reports.iter().all(|report| (report.main, report.epoch) == (first.main, first.epoch));
    if !of_one_mind || first.main.is_none() {
        return Judgement::fail(told.join("; "), fix);
    }
    if facts.main().is_some_and(|main| Some(main) != first.main) {
        let really = facts.main().map_or("no node", |main| facts.name(main));
        return Judgement::fail(format!("{}, but {really} takes writes", told.join("; ")), fix);
    }
    if reports.len() < facts.nodes.len() {
        return Judgement::unknown(
            format!("{}; not every supervisor answers", told.join("; ")),
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
        format!("wait until it ends: interrex run show {run}; or cancel it: interrex run cancel"),
    )
}

fn healthy(report: &NodeReport) -> Judgement {
    let words = if report.healthy { "healthy".to_owned() } else { report.problems.join("; ") };
    Judgement::pass_or_fail(report.healthy, words, "interrex status")
}

fn same_program(report: &NodeReport, version: &str) -> Judgement {
    let theirs = if report.version.is_empty() { "an older version" } else { report.version.as_str() };
    let fix = format!("install {version} on that node, and restart the supervisor: the servers keep running");
    Judgement::pass_or_warn(theirs == version, format!("interrex {theirs}"), fix)
}

fn quorum(facts: &Facts) -> Judgement {
    if facts.quorum == "none" {
        return Judgement::warn(
            "unprotected: with quorum none, a node becomes main without a third opinion",
            "reduce the risk with auto_failover_enabled = false, or with a hook that cuts off the old main: see docs/OPERATIONS.md",
        );
    }
    Judgement::pass(format!("quorum {}", facts.quorum))
}

/// Nothing if no candidate has to be named, and none is.
fn candidate(facts: &Facts) -> Option<Judgement> {
    let reports = facts.supervisors.values().filter_map(|it| it.report.as_ref().ok());
    let named: BTreeMap<NodeId, Option<NodeId>> =
        reports.map(|report| (report.node, report.candidate)).collect();
    let needs_none = facts.nodes.len() < 3 && named.values().all(Option::is_none);
    if facts.quorum != "none" || named.is_empty() || needs_none {
        return None;
    }
    let by_hand = "no node promotes itself when main dies; a person must run: interrex promote";
    let fix = "set failover.candidate to the id of one secondary, the same on every node, and restart the supervisors";
    let mut different: Vec<Option<NodeId>> = named.values().copied().collect();
    different.sort_unstable();
    different.dedup();
    let [Some(one)] = different[..] else {
        let told = named.iter().map(|(node, candidate)| match candidate {
            Some(candidate) => format!("{} names {}", facts.name(*node), facts.name(*candidate)),
            None => format!("{} names no candidate", facts.name(*node)),
        });
        let told = told.collect::<Vec<_>>().join(", ");
        return Some(Judgement::warn(format!("{told}: {by_hand}"), fix));
    };
    let name = facts.name(one);
    if facts.main() == Some(one) {
        let fix = format!("{fix}; or move the role to another node: interrex switchover");
        return Some(Judgement::warn(format!("all name {name}, which is main now: {by_hand}"), fix));
    }
    Some(Judgement::pass(format!("all name {name}")))
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
    fn a_candidate_that_is_not_the_same_everywhere_or_is_main_is_told() {
        let named = |of_alpha: Option<NodeId>, of_beta: Option<NodeId>| {
            wrong(|facts| {
                for (node, candidate) in [(ALPHA, of_alpha), (BETA, of_beta)] {
                    if let Some(Ok(report)) = facts.supervisors.get_mut(&node).map(|it| it.report.as_mut()) {
                        report.candidate = candidate;
                    }
                }
            })
        };
        let told = [("candidate", Verdict::Warn)];
        assert_eq!(named(Some(BETA), Some(BETA)), []);
        assert_eq!(named(None, None), [], "two nodes need none");
        for (of_alpha, of_beta) in [(Some(BETA), None), (Some(BETA), Some(ALPHA)), (Some(ALPHA), Some(ALPHA))]
        {
            assert_eq!(named(of_alpha, of_beta), told);
        }
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
