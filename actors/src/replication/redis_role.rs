//! Keeps this node's Redis in its role: on a node that is not main it takes no writes.
//!
//! ```text
//! a secondary's is a master ─> recorded ─> stopped, its data saved ─> what it has kept ─> starts as a replica of main's
//! a secondary's follows another ─> recorded ─> follows main's
//! a fenced node's runs, or one waits for a start ─> stopped, or started, once more
//! ```

use std::time::Duration;

use interrex_events::{Address, Draft, NodeId, RedisChanged, RedisStatus};
use interrex_projections::NodeStatus;

use super::Servers;
use crate::{
    messages::Append,
    node::{Shared, View},
    ports::{Answer, PortError, RedisPort},
    wire::RedisFacts,
};

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Pause before it is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// When keeping its data is given up; the next attempt copies all of it again.
const KEEP_LIMIT: Duration = Duration::from_secs(3_600);

/// What is wrong with this node's Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    /// It takes writes, and this node is not main.
    SecondMaster(NodeId),
    /// It follows another master than main's.
    Astray(NodeId),
    /// It runs, and this node is fenced.
    RunsFenced,
    /// It is stopped, and only this supervisor will start it.
    Waits,
}

/// Checks this node's Redis again and again, and corrects its role.
pub(super) async fn keep_one_master(shared: &Shared, servers: &Servers) {
    let Some(redis) = &servers.redis else { return };
    let mut recorded = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(found) = wrong(shared, servers, &**redis) else {
            recorded = None;
            continue;
        };
        let is_new = recorded.replace(found) != Some(found);
        let mended = match found {
            Wrong::SecondMaster(main) => make_replica(shared, servers, &**redis, main).await,
            Wrong::Astray(main) => turn_to(shared, servers, &**redis, main, is_new).await,
            Wrong::RunsFenced => redis.stop().await.map(drop),
            Wrong::Waits => servers.try_to_start_redis().await.map(drop),
        };
        // the obstacle may pass, such as too little room for a copy of its data
        if let Err(error) = mended {
            tracing::error!(%error, "Redis on this node does not have its role; the next attempt is in {AGAIN_AFTER:?}");
            let now = shared.look(|view| view.cluster.nodes.epoch);
            shared.wait_until(AGAIN_AFTER, |view| view.cluster.nodes.epoch != now).await;
        }
    }
}

/// What this node is, by its own journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// A run changes roles, and knows why they are what they are.
    AtWork,
    /// Another node is main, or about to be, and this one is being stopped.
    Fencing,
    /// The same, and it was proved to be stopped.
    Fenced,
    /// A secondary of this main.
    Follows(NodeId),
    /// Main, or it does not know who is.
    Leads,
}

impl Standing {
    fn of(view: &View, me: NodeId) -> Self {
        let nodes = &view.cluster.nodes;
        let fenced = || nodes.get(me).is_some_and(|row| row.status == NodeStatus::Fenced);
        match nodes.main.filter(|main| *main != me) {
            _ if view.cluster.runs.active(me).is_some() || nodes.is_handing_over(me) => Self::AtWork,
            _ if nodes.is_superseded(me) => {
                if fenced() {
                    Self::Fenced
                } else {
                    Self::Fencing
                }
            }
            Some(main) => Self::Follows(main),
            None => Self::Leads,
        }
    }
}

fn wrong(shared: &Shared, servers: &Servers, redis: &dyn RedisPort) -> Option<Wrong> {
    let me = shared.settings.me;
    let (standing, status, astray, has_started) = shared.look(|view| {
        // until the start is over, it alone decides what may run
        let has_started = !view.start.under_way && view.start.problem.is_none();
        (Standing::of(view, me), view.redis.status, view.redis_astray, has_started)
    });
    let waits = has_started && status == RedisStatus::Stopped && redis.waits_for_a_start();
    judge(standing, status, astray, waits).filter(|wrong| match wrong {
        Wrong::SecondMaster(main) | Wrong::Astray(main) => servers.redis_of(*main).is_some(),
        Wrong::RunsFenced | Wrong::Waits => true,
    })
}

/// By this node's own measurement and its own journal alone: whether main's Redis answers makes no difference.
fn judge(standing: Standing, status: RedisStatus, astray: bool, waits: bool) -> Option<Wrong> {
    match (standing, status) {
        (Standing::AtWork | Standing::Fencing, _) | (_, RedisStatus::None) => None,
        (Standing::Fenced, status) => (status != RedisStatus::Stopped).then_some(Wrong::RunsFenced),
        (Standing::Follows(main), RedisStatus::Master) => Some(Wrong::SecondMaster(main)),
        (Standing::Follows(main), RedisStatus::Unlinked) if astray => Some(Wrong::Astray(main)),
        (_, RedisStatus::Stopped) if waits => Some(Wrong::Waits),
        _ => None,
    }
}

/// Whether it is still so, by what was measured since.
fn is_still(shared: &Shared, found: Wrong) -> bool {
    let me = shared.settings.me;
    shared.look(|view| judge(Standing::of(view, me), view.redis.status, view.redis_astray, false))
        == Some(found)
}

/// A replica of another Redis than main's is no replica of main's: it is measured as one without a link. Whether that was so.
pub(super) async fn as_of_main(shared: &Shared, servers: &Servers, facts: &mut RedisFacts) -> bool {
    let me = shared.settings.me;
    let (main, superseded) =
        shared.look(|view| (view.cluster.nodes.main, view.cluster.nodes.is_superseded(me)));
    let master =
        main.filter(|main| *main != me && !superseded).and_then(|main| Some((main, servers.redis_of(main)?)));
    let (Some((main, master)), Some(upstream)) = (master, &facts.upstream) else { return false };
    let Some(redis) = &servers.redis else { return false };
    if redis.is_same_server(&master, upstream).await {
        return false;
    }
    let name = shared.look(|view| view.cluster.nodes.name(main));
    facts.detail = format!("it follows {upstream}, and not the Redis of {name}, which is main ({master})");
    facts.status = RedisStatus::Unlinked;
    true
}

/// It goes on with main's data. What it has is what another node's Redis had, which keeps it.
async fn turn_to(
    shared: &Shared,
    servers: &Servers,
    redis: &dyn RedisPort,
    main: NodeId,
    is_new: bool,
) -> Answer<()> {
    let master = master_of(servers, main)?;
    if is_new {
        let (facts, name) = shared.look(|view| (view.redis.clone(), view.cluster.nodes.name(main)));
        let detail = format!("{}: Redis is made a replica of {name}'s Redis", facts.detail);
        record(shared, &facts, detail).await?;
    }
    if !is_still(shared, Wrong::Astray(main)) {
        return Ok(());
    }
    redis.follow(&master).await?;
    measure(shared, servers, redis).await;
    Ok(())
}

fn master_of(servers: &Servers, main: NodeId) -> Answer<Address> {
    servers.redis_of(main).ok_or_else(|| PortError("main has no Redis".to_owned()))
}

async fn record(shared: &Shared, facts: &RedisFacts, detail: String) -> Answer<()> {
    let found = RedisChanged { status: facts.status, offset: facts.offset, detail, alarm: true };
    let stored = shared.lines.append.ask(Append(vec![Draft::new(shared.epoch(), found)])).await;
    stored.and_then(|stored| stored).map(drop).map_err(|error| PortError::new("recording it", error))
}

/// The next decision uses the present state.
async fn measure(shared: &Shared, servers: &Servers, redis: &dyn RedisPort) {
    let mut facts = redis.measure().await;
    let astray = as_of_main(shared, servers, &mut facts).await;
    shared.measured(|view| (view.redis, view.redis_astray) = (facts, astray));
}

/// As a rejoin does it: it is stopped, can only start as a replica from then on, and what it has is kept before it does.
async fn make_replica(shared: &Shared, servers: &Servers, redis: &dyn RedisPort, main: NodeId) -> Answer<()> {
    let master = master_of(servers, main)?;
    // the role may have moved since it was measured
    measure(shared, servers, redis).await;
    if !is_still(shared, Wrong::SecondMaster(main)) {
        return Ok(());
    }
    let (facts, name) = shared.look(|view| (view.redis.clone(), view.cluster.nodes.name(main)));
    let detail = format!(
        "Redis takes writes as a second master, although {name} is main: it is stopped, what it has is kept, and it starts as a \
         replica. To make this node main, on this node: interrex promote"
    );
    record(shared, &facts, detail).await?;
    if !is_still(shared, Wrong::SecondMaster(main)) {
        return Err(PortError("a run began, or the role moved: Redis is left as it is".to_owned()));
    }
    let at = shared.env.moment().wall;
    let keeping = redis.prepare_to_follow(&master, at, shared.settings.rejoin.keep_newest);
    let late = || Err(PortError(format!("what it has was not kept within {KEEP_LIMIT:?}")));
    let end = tokio::time::timeout(KEEP_LIMIT, keeping).await.unwrap_or_else(|_| late())?;
    let kept = redis.kept_at(at).await.map_or("nothing had to be kept".to_owned(), |folder| {
        let folder = folder.display();
        format!(
            "what it had is kept in {folder}; interrex salvage --kept-redis {folder} --output stranded-keys"
        )
    });
    let stopped = RedisFacts::silent(RedisStatus::Stopped, "");
    record(shared, &stopped, format!("{end}; {kept}")).await?;
    servers.try_to_start_redis().await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIN: NodeId = NodeId(1);

    #[test]
    fn a_redis_that_may_not_be_what_it_is_is_found_whoever_made_it_so() {
        use RedisStatus::{Linked, Master, Stopped, Unlinked, Unreachable};
        let follows = Standing::Follows(MAIN);
        let judge = |standing, status, astray| judge(standing, status, astray, false);
        assert_eq!(judge(follows, Master, false), Some(Wrong::SecondMaster(MAIN)));
        assert_eq!(judge(follows, Unlinked, true), Some(Wrong::Astray(MAIN)));
        for (status, astray) in [(Linked, false), (Unlinked, false), (Stopped, false), (Unreachable, true)] {
            assert_eq!(judge(follows, status, astray), None, "{status}");
        }
        for status in [Master, Unlinked, Linked, Unreachable] {
            assert_eq!(judge(Standing::Fenced, status, false), Some(Wrong::RunsFenced), "{status}");
            for exempt in [Standing::AtWork, Standing::Fencing, Standing::Leads] {
                assert_eq!(judge(exempt, status, true), None, "{exempt:?} {status}");
            }
        }
        assert_eq!(judge(Standing::Fenced, Stopped, false), None);
        assert_eq!(judge(Standing::Fenced, RedisStatus::None, false), None, "there is none");
    }

    #[test]
    fn one_that_waits_for_a_start_is_started_unless_the_node_is_fenced_or_at_work() {
        let waits = |standing| judge(standing, RedisStatus::Stopped, false, true) == Some(Wrong::Waits);
        assert!(waits(Standing::Leads) && waits(Standing::Follows(MAIN)));
        assert!(!waits(Standing::Fenced) && !waits(Standing::Fencing) && !waits(Standing::AtWork));
    }
}
