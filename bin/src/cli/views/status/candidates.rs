//! Who could take over now, and what that would cost: as the decider of a failover would see it.

use interrex_actors::wire::{Lag, NodeReport};
use interrex_events::{PostgresStatus, Role};
use interrex_projections::{NodeStatus, human_bytes, human_ms};
use serde::Serialize;

use super::setting;
use crate::cli::sight::Sight;

/// A node that answers and has a standby to promote.
#[derive(Serialize)]
pub(super) struct Candidate {
    pub(super) name: String,
    /// What main reported and a standby that no longer receives WAL lacks, as text.
    pub(super) would_lose: Option<String>,
    /// Why it would not be promoted now.
    pub(super) hindered: Option<String>,
    /// Why it would not promote itself, and only a person could have it promoted.
    pub(super) not_by_itself: Option<String>,
}

/// All of them.
pub(super) fn candidates(sight: &Sight) -> Vec<Candidate> {
    let main = sight.reign().0;
    let has_standby = |report: &&NodeReport| {
        Some(report.node) != main
            && report.role == Role::Secondary
            && report.status == NodeStatus::Online
            && matches!(report.postgres.status, PostgresStatus::Streaming | PostgresStatus::Detached)
    };
    let candidate = |report: &NodeReport| Candidate {
        name: report.name.clone(),
        would_lose: (report.postgres.status == PostgresStatus::Detached).then(|| would_lose(report.lag)),
        hindered: hindered(report, sight),
        not_by_itself: not_by_itself(report, sight),
    };
    sight.reports().filter(has_standby).map(candidate).collect()
}

fn would_lose(lag: Option<Lag>) -> String {
    match lag {
        Some(Lag { bytes, lower_bound, .. }) => {
            let at_least = if lower_bound { "at least " } else { "" };
            format!("{at_least}{}", human_bytes(bytes))
        }
        None => "an unknown amount".to_owned(),
    }
}

fn hindered(report: &NodeReport, sight: &Sight) -> Option<String> {
    let (main, epoch) = sight.reign();
    if report.epoch < epoch || report.main != main {
        let known = report.main.map_or_else(|| "no node".to_owned(), |main| sight.name(main));
        return Some(format!("it knows epoch {} of {known}, and the newest epoch is {epoch}", report.epoch));
    }
    // one run at a time; the run that makes it main is no hindrance
    if let Some((run, _)) = report.run.as_ref().filter(|_| report.taking_over != Some(true)) {
        return Some(format!("its run {} is still running", run.short()));
    }
    let limit = setting(sight, report.node, "maximum_lag_bytes")?.as_u64()?;
    let lag = report.lag.filter(|lag| lag.bytes > limit)?;
    Some(format!(
        "it would lose {}, more than failover.maximum_lag_bytes = {limit} allows",
        would_lose(Some(lag))
    ))
}

/// As the decider withholds a failover: what it goes by is in the journals.
fn not_by_itself(report: &NodeReport, sight: &Sight) -> Option<String> {
    let changed = sight.story.cluster.settings.in_force_on(report.node);
    let configured = || setting(sight, report.node, "auto_failover_enabled")?.as_bool();
    if changed.map(|settings| settings.auto_failover_enabled).or_else(configured) == Some(false) {
        return Some("failover.auto_failover_enabled is false there".to_owned());
    }
    if let Some(why) = not_the_candidate(report, sight) {
        return Some(why);
    }
    let rest = report.rests.as_ref()?;
    Some(format!("{}; that is over in {}", rest.because, human_ms(rest.left_ms)))
}

/// With quorum none one node of three or more promotes itself, and all name the same.
fn not_the_candidate(report: &NodeReport, sight: &Sight) -> Option<String> {
    // a node that was removed from the configuration counts no more
    let known = || sight.story.cluster.nodes.nodes.len();
    let nodes = sight.config.as_ref().map_or_else(known, |config| config.peers.len() + 1);
    match report.candidate {
        Some(candidate) if candidate != report.node => {
            return Some(format!("failover.candidate there is {}", sight.name(candidate)));
        }
        None if nodes > 2 => {
            return Some(
                "failover.candidate is not set there, and the cluster has three nodes or more".to_owned(),
            );
        }
        _ => {}
    }
    let other =
        sight.reports().find_map(|peer| Some((peer, peer.candidate.filter(|it| *it != report.node)?)));
    other.map(|(peer, named)| format!("failover.candidate of {} is {}", peer.name, sight.name(named)))
}
