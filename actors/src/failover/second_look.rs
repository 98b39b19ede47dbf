//! A second look at main and at the others, just before what cannot be taken back.
//!
//! The verdict is milliseconds old when a run goes straight through. A run that was resumed, or whose
//! supervisor was frozen, acts on an old one: main may be back, and serving. Then it is asked again. What the others agreed to is
//! as old: a node that asked while this supervisor gave no answer may be about to take the role.

use std::time::Duration;

use interrex_events::{PostgresStatus, RunKind, StepId};
use interrex_projections::Run;

use crate::{
    heartbeat::asking::ask_the_others,
    messages::MainSight,
    node::Shared,
    ports::{NoReply, PeersPort},
};

/// A verdict that is no older than this is taken as it is: asking a silent host again would cost its timeout.
const FRESH: Duration = Duration::from_secs(2);

/// The node that has opened the epoch that a run is to open, or a later epoch.
fn opened_by_another(shared: &Shared, run: &Run) -> Option<String> {
    shared.look(|view| {
        let nodes = &view.cluster.nodes;
        let main = nodes.main.filter(|main| *main != run.new_main && nodes.epoch >= run.epoch)?;
        Some(format!("{} opened epoch {} meanwhile", nodes.name(main), nodes.epoch))
    })
}

/// What main says, if the verdict is old and main serves again; or what another node says, if its agreement is old.
pub(crate) async fn what_speaks_against(shared: &Shared, peers: &dyn PeersPort, run: &Run) -> Option<String> {
    if let Some(reason) = opened_by_another(shared, run) {
        return Some(reason);
    }
    let is_back = run.kind == RunKind::Failover
        && shared.look(|view| {
            let seen = |sight: &MainSight| sight.main == run.old_main && sight.answers();
            view.standpoint.main_is_back == Some(run.old_main) || view.main_sight.as_ref().is_some_and(seen)
        });
    if is_back && run.step(StepId::FenceOldMain).is_running() {
        return Some("main is back: it has given a sign of life since the verdict".to_owned());
    }
    let age = (shared.env.moment().wall - run.started_at).to_std().unwrap_or(Duration::MAX);
    let fresh = run.resumed == 0 && age <= FRESH && !is_back;
    let forced = run.request.as_ref().is_some_and(|request| request.forced);
    // a main that hands over says itself who takes its place
    if !fresh
        && run.kind != RunKind::Takeover
        && let Err(words) = ask_the_others(shared, peers, run).await
    {
        return Some(words);
    }
    let looks = if forced {
        // what a person ordered against the evidence is not held up by it; but another one may have lifted the fence since
        run.step(StepId::FenceOldMain).succeeded() && !fresh
    } else {
        // what a person ordered without, goes by what main says at this very moment
        run.kind == RunKind::Promotion || !fresh
    };
    if !looks {
        return None;
    }
    let limit = shared.settings.probe_timeout;
    let own = shared.report();
    let (postgres, supervisor) = tokio::join!(
        tokio::time::timeout(limit, peers.postgres(run.old_main)),
        tokio::time::timeout(limit, peers.exchange(run.old_main, &own)),
    );
    match postgres {
        Ok(Ok(main)) if main.writable => {
            return Some("main is back: its PostgreSQL answers as a primary".to_owned());
        }
        Ok(Err(refusal @ NoReply::Refused { .. })) if !forced => {
            return Some(format!("main is alive: its PostgreSQL answers with an error ({refusal})"));
        }
        // by itself this node does nothing on what it does not know
        Ok(Err(unknown @ NoReply::Unknown(_))) if run.kind == RunKind::Failover => {
            return Some(unknown.to_string());
        }
        _ => {}
    }
    if let Ok(Ok(report)) = supervisor
        && report.postgres.status == PostgresStatus::Primary
    {
        return Some("main is back: its supervisor reports that its PostgreSQL serves".to_owned());
    }
    None
}
