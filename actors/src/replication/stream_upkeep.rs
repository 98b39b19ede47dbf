//! What a node does with `cluster_events` in addition to the relay: it seals what is stored safely elsewhere, and a standby folds.

use std::{rc::Rc, sync::Arc, time::Duration};

use interrex_events::PostgresStatus;

use super::Servers;
use crate::{barrier, journal::retention, node::Shared, ports::PortError};

/// Pause between two looks of a standby at its `cluster_events`: what comes in meanwhile is folded in no time.
const STREAM_FOLLOWED_EVERY: Duration = Duration::from_secs(30);
/// When one of them is given up; the next goes on from there.
const STREAM_FOLLOWED_WITHIN: Duration = Duration::from_secs(30);

/// Seals old events, again and again; an obstacle is logged when it changes.
pub(super) async fn keep_sealing(shared: Arc<Shared>, servers: Rc<Servers>) {
    let Some(policy) = shared.settings.retention.clone() else { return };
    let mut told = Vec::new();
    tokio::time::sleep(policy.pause(true)).await;
    loop {
        let pass = barrier::caught(retention::pass(&shared, &*servers.stream, &policy)).await;
        let problems = pass.map_or_else(|panic| vec![panic], |(_, problems)| problems);
        for problem in problems.iter().filter(|problem| !told.contains(*problem)) {
            tracing::warn!(problem, "retention");
        }
        told = problems;
        tokio::time::sleep(policy.pause(false)).await;
    }
}

/// A standby folds its `cluster_events` as they come in: the first relay after a promotion has to be quick.
pub(super) async fn keep_following(shared: Arc<Shared>, servers: Rc<Servers>) {
    loop {
        tokio::time::sleep(STREAM_FOLLOWED_EVERY).await;
        let standby = [PostgresStatus::Streaming, PostgresStatus::Detached];
        if !shared.look(|view| standby.contains(&view.postgres.status)) {
            continue;
        }
        let following = barrier::caught(servers.stream.follow());
        let followed = tokio::time::timeout(STREAM_FOLLOWED_WITHIN, following).await;
        match followed.map(|caught| caught.unwrap_or_else(|panic| Err(PortError(panic)))) {
            Ok(Ok(events)) => tracing::trace!(events, "cluster_events followed"),
            // nothing depends on it but how long a later promotion takes
            Ok(Err(error)) => tracing::debug!(%error, "cluster_events are not followed"),
            Err(_) => tracing::debug!("cluster_events are followed in parts: there is much to fold"),
        }
    }
}
