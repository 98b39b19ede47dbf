//! A secondary's Redis that is a master beside main's: one that hung while the role moved, or that came up so.
//!
//! ```text
//! seen for a while, and main's is a master too ─> recorded ─> stopped ─> what it has kept ─> starts as a replica of main's
//! ```

use std::time::Duration;

use interrex_events::{Draft, NodeId, RedisChanged, RedisStatus};

use super::Servers;
use crate::{
    env::Moment,
    messages::Append,
    node::{Shared, View},
    ports::{Answer, PeersPort, PortError, RedisPort},
};

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long it must be seen before anything is done: roles that move are at rest by then.
const SEEN_FOR: Duration = Duration::from_secs(5);
/// Pause before it is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// When keeping what it has is given up; what was copied by then is copied anew.
const KEEP_LIMIT: Duration = Duration::from_secs(3_600);

/// Sees to it, again and again, that this node's Redis is no master beside main's.
pub(super) async fn keep_one_master(shared: &Shared, servers: &Servers, peers: &dyn PeersPort) {
    let Some(redis) = &servers.redis else { return };
    let mut since: Option<Moment> = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(main) = main_beside(shared, servers, peers).await else {
            since = None;
            continue;
        };
        let now = shared.env.moment();
        let first = *since.get_or_insert(now);
        if now.monotonic.saturating_sub(first.monotonic) < SEEN_FOR {
            continue;
        }
        since = None;
        if let Err(error) = make_replica(shared, servers, &**redis, main).await {
            tracing::error!(%error, "Redis here was a master beside main's, and is no replica of it yet");
        }
        // what is in the way may pass, such as missing room for what it has
        while !is_up(shared, servers, &**redis).await {
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }
}

/// Starts it, once what is owed is kept. A run, or the fence of this node, takes it from there.
async fn is_up(shared: &Shared, servers: &Servers, redis: &dyn RedisPort) -> bool {
    if !shared.look(|view| is_at_rest(view, shared.settings.me)) {
        return true;
    }
    if let Err(error) = servers.start_redis().await {
        tracing::error!(%error, "Redis does not start");
    }
    redis.measure().await.status != RedisStatus::Stopped
}

/// Main, if its Redis is a master and this secondary's is one too. Two signs: what was measured here, and main's own answer.
async fn main_beside(shared: &Shared, servers: &Servers, peers: &dyn PeersPort) -> Option<NodeId> {
    let me = shared.settings.me;
    let main = shared.look(|view| one_too_many(view, me))?;
    servers.redis_of(main)?;
    let role = peers.redis(main).await?.ok()?;
    (role == "master").then_some(main)
}

/// Main, where this node is a secondary at rest whose Redis is a master.
fn one_too_many(view: &View, me: NodeId) -> Option<NodeId> {
    let is_master = view.redis.status == RedisStatus::Master;
    view.cluster.nodes.main.filter(|main| is_master && *main != me && is_at_rest(view, me))
}

fn is_at_rest(view: &View, me: NodeId) -> bool {
    let nodes = &view.cluster.nodes;
    view.cluster.runs.active(me).is_none()
        && !nodes.is_superseded(me)
        && !nodes.is_handing_over(me)
        && view.standpoint.to_follow.is_none()
}

/// As a rejoin does it: it is stopped, can only start as a replica from then on, and what it has is kept before it does.
async fn make_replica(shared: &Shared, servers: &Servers, redis: &dyn RedisPort, main: NodeId) -> Answer<()> {
    let master = servers.redis_of(main).ok_or_else(|| PortError("main has no Redis".to_owned()))?;
    let name = shared.look(|view| view.cluster.nodes.name(main));
    let facts = redis.measure().await;
    let detail = format!(
        "a second master, beside that of {name}, which is main: it is stopped, what it has is kept, and it starts as a replica"
    );
    let found = RedisChanged { status: facts.status, offset: facts.offset, detail };
    let stored = shared.lines.append.ask(Append(vec![Draft::new(shared.epoch(), found)])).await;
    stored.and_then(|stored| stored).map_err(|error| PortError::new("recording it", error))?;
    if shared.look(|view| one_too_many(view, shared.settings.me)) != Some(main) {
        return Err(PortError("a run began, or the role moved: it is left as it is".to_owned()));
    }
    let keeping =
        redis.come_back_behind(&master, shared.env.moment().wall, shared.settings.rejoin.keep_newest);
    let late = || Err(PortError(format!("what it has was not kept within {KEEP_LIMIT:?}")));
    tokio::time::timeout(KEEP_LIMIT, keeping).await.unwrap_or_else(|_| late())
}
