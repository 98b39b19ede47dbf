//! Whether all is well, by what live supervisors say. A journal alone cannot tell.

use interrex_actors::wire::NodeReport;
use interrex_events::{NodeId, PostgresStatus, RunKind};
use interrex_projections::NodeStatus;
use serde::Serialize;

use super::candidates::candidates;
use crate::cli::sight::Sight;

/// The answer in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Health {
    /// Main serves, and everything else is as it should be.
    Healthy,
    /// Main serves, and something else is not as it should be.
    Degraded,
    /// No node is known to accept writes.
    Down,
    /// More than one node accepts writes.
    Split,
    /// No supervisor answers.
    Unknown,
}

/// The answer, and everything that speaks against `healthy`.
pub(super) struct Judgement {
    pub(super) health: Health,
    pub(super) problems: Vec<String>,
}

/// Judges by the live reports.
pub(super) fn judge(sight: &Sight) -> Judgement {
    let me = sight.identity.node_id;
    let mut problems: Vec<String> = sight.supervisor().warning(&sight.name(me)).into_iter().collect();
    if sight.reports().next().is_none() {
        return Judgement { health: Health::Unknown, problems };
    }
    let writable = writable(sight);
    if writable.len() > 1 {
        problems.insert(0, split(&writable, sight));
    }
    let serves = match sight.reign().0 {
        Some(main) => main_serves(main, sight, &mut problems),
        None => {
            problems.push("no node is known to be main".to_owned());
            false
        }
    };
    let beside_main = if serves { None } else { beside_silent_main(&writable, sight) };
    let may_be_split = beside_main.is_some();
    if let Some(words) = beside_main {
        problems.insert(0, words);
    }
    for node in sight.nodes() {
        problems.extend(problems_of(node, sight));
    }
    problems.extend(main_admits_nobody(sight));
    problems.extend(unfinished_run(sight));
    let has_successor = || candidates(sight).iter().any(|candidate| candidate.hindered.is_none());
    if serves && writable.len() <= 1 && sight.nodes().len() > 1 && !has_successor() {
        problems.push("no node could take over if main died now".to_owned());
    }
    let health = match (writable.len(), serves, problems.is_empty()) {
        (2.., _, _) => Health::Split,
        _ if may_be_split => Health::Split,
        (_, false, _) => Health::Down,
        (_, true, false) => Health::Degraded,
        (_, true, true) => Health::Healthy,
    };
    Judgement { health, problems }
}

/// What a secondary sees of main's PostgreSQL, if main does not report it itself.
fn main_admits_nobody(sight: &Sight) -> Option<String> {
    let main = sight.reign().0?;
    if sight.report(main).is_some_and(|report| report.no_session.is_some()) {
        return None;
    }
    let (seen_by, words) =
        sight.reports().find_map(|report| Some((&report.name, report.main_no_session.as_ref()?)))?;
    Some(format!(
        "main {}: PostgreSQL answers open sessions and admits no new one, as seen from {seen_by}: {words}",
        sight.name(main)
    ))
}

/// Which of the nodes that accept writes keeps the role of main, and what happens to the others.
fn split(writable: &[NodeId], sight: &Sight) -> String {
    let names: Vec<String> = writable.iter().map(|node| sight.name(*node)).collect();
    let said = format!("{} accept writes at the same time", names.join(" and "));
    let (Some(main), epoch) = sight.reign() else {
        return format!(
            "{said}, and no node is known to be main: stop PostgreSQL on all of them but the one that shall be main"
        );
    };
    let holds = |node: &&NodeId| {
        let own = |report: &NodeReport| report.epoch == epoch && report.main == Some(report.node);
        sight.report(**node).is_some_and(own)
    };
    let name = sight.name(main);
    let keeps = if writable.iter().filter(holds).count() > 1 {
        format!("both hold epoch {epoch}, and then the lowest node id, {name}, keeps the role")
    } else {
        format!("the newest epoch, {epoch}, is {name}'s")
    };
    let others = writable.iter().filter(|node| **node != main).map(|node| sight.name(*node));
    let others = others.collect::<Vec<_>>().join(" and ");
    format!(
        "{said}; {keeps}. The supervisor of {others} stops its servers by itself; if it does not, stop PostgreSQL there. To keep \
         what was written there: interrex rejoin"
    )
}

/// Another node accepts writes, and the state of main is not known. That is not `down`.
fn beside_silent_main(writable: &[NodeId], sight: &Sight) -> Option<String> {
    let main = sight.reign().0.filter(|main| sight.report(*main).is_none())?;
    let takes_over = |node: NodeId| sight.report(node).is_some_and(|report| report.taking_over == Some(true));
    let other = writable.iter().find(|node| **node != main && !takes_over(**node))?;
    let (other, main) = (sight.name(*other), sight.name(main));
    Some(format!(
        "{other} accepts writes and is not main. The supervisor of main {main} does not answer, so PostgreSQL of {main} may accept \
         writes too: look there first"
    ))
}

fn writable(sight: &Sight) -> Vec<NodeId> {
    let primaries = sight.reports().filter(|report| report.postgres.status == PostgresStatus::Primary);
    primaries.map(|report| report.node).collect()
}

/// Whether main accepts writes: by its own report, or because a secondary still receives its WAL.
fn main_serves(main: NodeId, sight: &Sight, problems: &mut Vec<String>) -> bool {
    let name = sight.name(main);
    if let Some(report) = sight.report(main) {
        let serves = report.postgres.status == PostgresStatus::Primary;
        if !serves {
            let words =
                format!("main {name} does not accept writes: PostgreSQL is {}", report.postgres.status);
            problems.push(with_detail(words, &report.postgres.detail));
        }
        return serves;
    }
    let streams =
        |report: &&NodeReport| report.postgres.status == PostgresStatus::Streaming && !is_alone(report);
    match sight.reports().find(streams) {
        Some(report) => {
            let words = "only its PostgreSQL is known to run";
            problems.push(format!("main {name}: {words}, because {} still receives its WAL", report.name));
            true
        }
        None => {
            problems.push(format!("main {name} gives no sign of life, and no node receives its WAL"));
            false
        }
    }
}

/// Whether a secondary has had no sign of life of main for the whole threshold.
fn is_alone(report: &NodeReport) -> bool {
    report.main_silent_ms.is_some_and(|silent| silent >= report.threshold_ms)
}

/// What speaks against a node: its own report, or its silence.
fn problems_of(node: NodeId, sight: &Sight) -> Vec<String> {
    let (name, is_me) = (sight.name(node), node == sight.identity.node_id);
    let Some(report) = sight.report(node) else {
        // of this node's own silence the warning speaks already
        let silence = sight.silence(node).filter(|_| !is_me);
        return silence
            .map(|words| format!("{name}'s supervisor does not answer: {words}"))
            .into_iter()
            .collect();
    };
    let mut problems: Vec<String> =
        report.problems.iter().map(|problem| format!("{name}: {problem}")).collect();
    if problems.is_empty() && !report.healthy {
        problems.push(format!("{name} reports that it is not healthy"));
    }
    if problems.is_empty() && matches!(report.status, NodeStatus::Fenced | NodeStatus::Fencing) {
        problems.push(format!("{name} is {}", report.status));
    }
    let (_, epoch) = sight.reign();
    if report.epoch < epoch {
        problems
            .push(format!("{name} does not know epoch {epoch} yet; it is still in epoch {}", report.epoch));
    }
    problems
}

/// A run that goes on or was left unfinished: this node's by its journal, another's by its own report.
fn unfinished_run(sight: &Sight) -> Option<String> {
    if let Some(run) = sight.story.cluster.runs.newest_first().into_iter().find(|run| run.is_running()) {
        let (from, to) = (sight.name(run.old_main), sight.name(run.new_main));
        return Some(match sight.report(run.node) {
            Some(_) if run.kind == RunKind::Rejoin => format!("{from} is rejoining as a secondary of {to}"),
            None if run.kind == RunKind::Rejoin => format!("the rejoin of {from} was interrupted"),
            Some(_) => format!("the role of main is being moved from {from} to {to}"),
            None => format!("the move of the role of main from {from} to {to} was interrupted"),
        });
    }
    let report = sight.reports().find(|report| report.run.is_some())?;
    Some(match report.taking_over {
        Some(false) => format!("{} is rejoining, or is handing over its role", report.name),
        _ => format!("{} is moving the role of main", report.name),
    })
}

fn with_detail(words: String, detail: &str) -> String {
    if detail.is_empty() { words } else { format!("{words}: {detail}") }
}
