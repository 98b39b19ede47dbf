//! Judgement, subject by subject: pure functions from what was measured to findings.

pub(super) mod alike;
pub(super) mod cluster;
pub(super) mod machine;
pub(super) mod next_start;
pub(super) mod postgres;
pub(super) mod redis;
pub(super) mod replication;

use interrex_events::NodeId;

use super::{
    facts::Facts,
    finding::{Check, Finding, Judgement, Subject},
};

/// Every check, in the order of the answer. The table in docs/OPERATIONS.md is generated from this list.
#[must_use]
pub fn checks() -> Vec<&'static Check> {
    let all = [
        machine::CHECKS,
        next_start::CHECKS,
        postgres::CHECKS,
        replication::CHECKS,
        alike::CHECKS,
        redis::CHECKS,
        cluster::CHECKS,
    ];
    in_order(all.into_iter().flatten().copied().collect(), |check| check.subject)
}

/// Every finding that follows from the measured facts.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = machine::judge(facts);
    findings.extend(next_start::judge(facts));
    findings.extend(postgres::judge(facts));
    findings.extend(replication::judge(facts));
    findings.extend(alike::judge(facts));
    findings.extend(redis::judge(facts));
    findings.extend(cluster::judge(facts));
    machine::as_a_stranger(facts, &mut findings);
    in_order(findings, |finding| finding.subject)
}

/// By subject, and within a subject in the order in which they came.
fn in_order<T>(mut things: Vec<T>, subject: impl Fn(&T) -> Subject) -> Vec<T> {
    things.sort_by_key(|thing| Subject::ALL.iter().position(|known| *known == subject(thing)));
    things
}

/// A server that gave no answer. A server of a fenced node must not be started by hand: that makes a second main, or hides its
/// rows. If its supervisor does not answer, it is not known here whether the node is fenced.
pub(super) fn silent(facts: &Facts, node: NodeId, reason: &str, fix: &str) -> Judgement {
    let name = facts.name(node);
    if facts.is_fenced(node) {
        return Judgement::fail(
            format!("stopped on purpose: {name} is fenced because another node became main ({reason})"),
            format!("interrex rejoin {name}  # do not start it by hand"),
        );
    }
    let supervised = facts.supervisors.get(&node).is_some_and(|supervisor| supervisor.report.is_ok());
    let start = if supervised { "start it" } else { "start its supervisor, which knows whether it may run" };
    Judgement::fail(reason, format!("{start}, or correct {fix} of {name}; then: interrex status"))
}

/// A size for people.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} kB", bytes / 1024),
        1_048_576..10_737_418_240 => format!("{} MB", bytes / 1_048_576),
        _ => format!("{} GB", bytes / 1_073_741_824),
    }
}

#[cfg(test)]
mod tests {
    use interrex_projections::NodeStatus;

    use super::*;
    use crate::doctor::{
        Verdict,
        examples::{ALPHA, BETA, healthy, wrong},
        facts::MachineFacts,
    };

    #[test]
    fn a_healthy_cluster_has_one_standing_warning() {
        assert_eq!(wrong(|_| {}), []);
        let findings = judge(&healthy());
        let warnings = findings.iter().filter(|finding| finding.verdict != Verdict::Pass);
        assert_eq!(warnings.map(|finding| finding.check).collect::<Vec<_>>(), ["quorum"]);
    }

    #[test]
    fn every_finding_comes_from_a_check_of_the_table_and_every_name_is_there_once() {
        let mut names: Vec<_> = checks().iter().map(|check| check.name).collect();
        for finding in judge(&healthy()) {
            assert!(names.contains(&finding.check), "{}", finding.check);
        }
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn nobody_is_told_to_start_the_servers_of_a_fenced_node() {
        let mut facts = healthy();
        facts.servers.insert(BETA, Err("refused".to_owned().into()));
        facts.redis.insert(BETA, Err("refused".to_owned()));
        let told = |facts: &Facts| {
            let findings = judge(facts).into_iter();
            let silent = findings.filter(|finding| {
                ["postgres_answers", "redis_answers"].contains(&finding.check) && finding.fix.is_some()
            });
            silent.map(|finding| (finding.measured, finding.fix.unwrap_or_default())).collect::<Vec<_>>()
        };
        assert!(
            told(&facts).iter().all(|(_, fix)| fix.starts_with("start it, or correct ")),
            "{:?}",
            told(&facts)
        );
        let alive = facts.supervisors.remove(&BETA);
        assert!(
            told(&facts).iter().all(|(_, fix)| fix.starts_with("start its supervisor")),
            "{:?}",
            told(&facts)
        );
        facts.supervisors.extend(alive.map(|supervisor| (BETA, supervisor)));
        if let Some(Ok(report)) = facts.supervisors.get_mut(&BETA).map(|it| it.report.as_mut()) {
            report.status = NodeStatus::Fenced;
        }
        let words =
            "stopped on purpose: beta is fenced because another node became main (refused)".to_owned();
        let fix = "interrex rejoin beta  # do not start it by hand".to_owned();
        assert_eq!(told(&facts), [(words.clone(), fix.clone()), (words, fix)]);
    }

    #[test]
    fn whatever_is_wrong_is_told_with_a_way_out() {
        let mut facts = healthy();
        facts.machine = MachineFacts::unmeasured("it hangs");
        for node in [ALPHA, BETA] {
            facts.servers.insert(node, Err("no answer".to_owned().into()));
            facts.redis.insert(node, Err("no answer".to_owned()));
            facts.replication_logins.insert(node, Err("no answer".to_owned()));
        }
        for finding in judge(&facts) {
            assert!(
                finding.verdict == Verdict::Pass || finding.fix.is_some_and(|fix| !fix.is_empty()),
                "{}",
                finding.check
            );
        }
    }
}
