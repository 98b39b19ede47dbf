//! Who could take over now, and what that would cost: as the decider of a failover would see it.

use interrex_actors::report::{Lag, NodeReport};
use interrex_events::{PostgresStatus, Role};
use interrex_projections::{NodeStatus, human_bytes};
use serde::Serialize;

use super::{super::super::sight::Sight, setting};

/// A node that answers and has a standby to promote.
#[derive(Serialize)]
pub(super) struct Candidate {
    pub(super) name: String,
    /// What main reported and a standby that receives nothing any more does not have, in words.
    pub(super) would_lose: Option<String>,
    /// Why it would not be promoted now.
    pub(super) hindered: Option<String>,
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
    // one run at a time; the run that makes it main is no hindrance
    if let Some((run, _)) = report.run.as_ref().filter(|_| report.taking_over != Some(true)) {
        return Some(format!("its run {} goes on", run.short()));
    }
    let limit = setting(sight, report.node, "maximum_lag_bytes")?.as_u64()?;
    let lag = report.lag.filter(|lag| lag.bytes > limit)?;
    Some(format!(
        "it would lose {}, more than failover.maximum_lag_bytes = {limit} allows",
        would_lose(Some(lag))
    ))
}
