//! Would a failover, a switchover and a rejoin work? Decided from the findings about the nodes that take part.

use interrex_events::NodeId;
use serde::Serialize;

use super::{
    facts::Facts,
    finding::{Act, Finding, Verdict},
};

/// Whether one act would work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// The act.
    pub act: Act,
    /// The node that would become main, or would come back.
    pub node: Option<NodeId>,
    /// The act and the node for people, such as `a failover to beta`.
    pub what: String,
    /// Whether no finding speaks against it.
    pub ready: bool,
    /// The checks that speak against it, with their nodes, worst first.
    pub because: Vec<String>,
    /// What doctor could not check from this node.
    pub not_looked_at: Option<String>,
}

/// Checks that fail only because a node is away now. A rejoin is for that case, so they do not speak against it.
const AWAY: [&str; 3] = ["postgres_answers", "same_timeline", "streaming"];

/// The readiness of every act that is possible next.
pub(super) fn readiness(facts: &Facts, findings: &[Finding]) -> Vec<Readiness> {
    let main = facts.main();
    let is_away = |node: NodeId| {
        let about_it = findings.iter().filter(|finding| finding.node == Some(node));
        about_it
            .filter(|finding| AWAY.contains(&finding.check))
            .any(|finding| finding.verdict >= Verdict::Unknown)
    };
    let mut all = Vec::new();
    for node in facts.secondaries() {
        let to = |act: &str| format!("a {act} to {}", facts.name(node));
        // a failover needs nothing of the main that is lost
        all.push(about(facts, findings, (Act::Failover, node), to("failover"), &[node]));
        let both: Vec<NodeId> = main.into_iter().chain([node]).collect();
        all.push(about(facts, findings, (Act::Switchover, node), to("switchover"), &both));
        if is_away(node) {
            let what = format!("a rejoin of {}", facts.name(node));
            all.push(about(facts, findings, (Act::Rejoin, node), what, &both));
        }
    }
    if let Some(main) = main.filter(|_| facts.nodes.len() > 1) {
        let what = format!("a later rejoin of {}", facts.name(main));
        let everybody: Vec<NodeId> = facts.nodes.iter().map(|named| named.id).collect();
        all.push(about(facts, findings, (Act::Rejoin, main), what, &everybody));
    }
    all
}

fn about(
    facts: &Facts,
    findings: &[Finding],
    (act, node): (Act, NodeId),
    what: String,
    taking_part: &[NodeId],
) -> Readiness {
    // no standby logs in to a node before it has come back
    let of_one_away =
        |finding: &Finding| AWAY.contains(&finding.check) || finding.check == "replication_login";
    let speaks = |finding: &&Finding| {
        finding.verdict >= Verdict::Unknown
            && finding.breaks.contains(&act)
            && finding.node.is_none_or(|about| taking_part.contains(&about))
            && !(act == Act::Rejoin && finding.node == Some(node) && of_one_away(finding))
    };
    let mut against: Vec<&Finding> = findings.iter().filter(speaks).collect();
    against.sort_by_key(|finding| std::cmp::Reverse(finding.verdict));
    let mut because: Vec<String> = against.iter().map(|finding| in_words(facts, finding)).collect();
    let no_main = facts.main().is_none();
    if no_main && because.is_empty() {
        because.push("it is not known which node is main: run interrex status".to_owned());
    }
    let unseen: Vec<&str> =
        taking_part.iter().filter(|node| **node != facts.here).map(|node| facts.name(*node)).collect();
    let not_looked_at = (!unseen.is_empty()).then(|| {
        format!("files, programs and disks of {}: run interrex doctor there too", unseen.join(" and "))
    });
    Readiness { act, node: Some(node), what, ready: because.is_empty(), because, not_looked_at }
}

fn in_words(facts: &Facts, finding: &Finding) -> String {
    match finding.node {
        Some(node) => format!("{} ({})", finding.check, facts.name(node)),
        None => finding.check.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{
        examples::{ALPHA, BETA, change, healthy},
        judge::judge,
    };

    fn ready(change: impl FnOnce(&mut Facts)) -> Vec<(String, bool)> {
        let mut facts = healthy();
        change(&mut facts);
        readiness(&facts, &judge(&facts)).into_iter().map(|it| (it.what, it.ready)).collect()
    }

    fn expected(failover: bool, switchover: bool, rejoin: bool) -> Vec<(String, bool)> {
        let words =
            ["a failover to beta", "a switchover to beta", "a later rejoin of alpha"].map(str::to_owned);
        words.into_iter().zip([failover, switchover, rejoin]).collect()
    }

    #[test]
    fn a_healthy_cluster_is_ready_for_everything() {
        assert_eq!(ready(|_| {}), expected(true, true, true));
    }

    #[test]
    fn what_breaks_one_act_leaves_the_others_ready() {
        assert_eq!(ready(|facts| facts.machine.copy_room = Ok(0)), expected(true, true, false));
        let locked = || crate::doctor::facts::Problem { words: "x".to_owned(), fix: "y".to_owned() };
        assert_eq!(
            ready(|facts| facts.machine.settings_file = Ok(Some(locked()))),
            expected(true, false, false)
        );
        let on_the_standby = ready(|facts| {
            facts.here = BETA;
            facts.machine.signal_files =
                Ok(crate::doctor::facts::SignalFiles { standby: true, recovery: false });
            facts.machine.settings_file = Ok(Some(locked()));
        });
        assert_eq!(on_the_standby, expected(false, false, false));
        let no_login = |facts: &mut Facts| {
            facts.replication_logins.insert(BETA, Ok(Err("wrong password".to_owned())));
        };
        assert_eq!(ready(no_login), expected(true, false, false));
        assert_eq!(
            ready(|facts| change(facts, ALPHA, |server| server.slots.clear())),
            expected(false, false, true)
        );
    }

    #[test]
    fn one_that_is_away_can_come_back_if_main_and_its_machine_allow() {
        let found = ready(|facts| {
            facts.servers.insert(BETA, Err("refused".to_owned().into()));
            facts.replication_logins.insert(BETA, Ok(Err("refused".to_owned())));
        });
        assert!(found.contains(&("a rejoin of beta".to_owned(), true)), "{found:?}");
        assert!(found.contains(&("a failover to beta".to_owned(), false)), "{found:?}");
    }

    #[test]
    fn where_nobody_is_main_nothing_is_ready() {
        let found = ready(|facts| {
            facts.servers.insert(ALPHA, Err("refused".to_owned().into()));
        });
        assert!(!found.is_empty() && found.iter().all(|(_, ready)| !ready), "{found:?}");
    }
}
