//! The step by which a node's PostgreSQL comes to follow main: the end of a switchover for the old main, and of a rejoin.

use std::time::Duration;

use interrex_events::{
    Draft, NodeDemoted, NodeId, PostgresStatus, RoleTaken, RunKind, StepId, StepOutcome, TimelineId,
};
use interrex_projections::Run;

use super::{Servers, rejoin};
use crate::{
    env::Moment,
    messages::{Append, StepReport},
    node::Shared,
    ports::{Answer, PortError, StopMode, slot_name},
};

/// How long a server that is no main may take to stop in good order.
pub(super) const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// How often a condition is looked at.
const LOOK_CALMLY: Duration = Duration::from_millis(50);
/// How long nothing may arrive until main is asked whether it lets a standby in.
const ASK_WHY: Duration = Duration::from_secs(2);
/// How long nothing may arrive at all.
const IDLE_LIMIT: Duration = Duration::from_secs(45);
/// How long PostgreSQL waits for what Redis has to be kept; `follow_redis` takes as long as it takes.
const REDIS_PATIENCE: Duration = Duration::from_secs(120);

/// This node's PostgreSQL receives the new main's WAL. From the record of it on, the directory cannot start as a
/// primary, and so it may run.
pub(super) async fn become_standby(shared: &Shared, servers: &Servers, run: &Run) -> Answer<StepReport> {
    let switchpoint = run.observed(StepId::HandOver).and_then(|RoleTaken { switchpoint, .. }| switchpoint);
    if let (Some(handover), Some(switchpoint)) = (&run.handover, switchpoint)
        && switchpoint < handover.end
    {
        return Err(PortError(format!(
            "the new main left the old timeline at {switchpoint}, and this node's WAL ends at {}: this node would have to be \
             rewound",
            handover.end
        )));
    }
    let epoch = shared.epoch();
    if epoch > run.epoch {
        return Err(PortError(format!(
            "epoch {epoch} was opened meanwhile: this node must follow its main, not the one of epoch {}",
            run.epoch
        )));
    }
    let status = servers.postgres.measure().await.facts.status;
    if status == PostgresStatus::Primary {
        return Err(PortError(
            "PostgreSQL on this node runs as a primary: it cannot follow before it is stopped".to_owned(),
        ));
    }
    let (me, mut price) = (shared.settings.me, None);
    let fenced = shared.look(|view| view.cluster.nodes.is_superseded(me));
    if status == PostgresStatus::Stopped || fenced {
        // however it was started, it is started again as a standby
        servers.postgres.stop(StopMode::Within(STOP_PATIENCE)).await?;
        make_standby_of(servers, me, run.new_main).await?;
        if run.kind == RunKind::Rejoin {
            // what keeps Redis away keeps PostgreSQL from nothing: the step that starts Redis goes on with it
            let late = || Err(PortError(format!("not done within {REDIS_PATIENCE:?}")));
            let coming = tokio::time::timeout(REDIS_PATIENCE, rejoin::redis_comes_back(shared, servers, run));
            match coming.await.unwrap_or_else(|_| late()) {
                Ok(cost) => price = cost,
                Err(error) => tracing::warn!(%error, "Redis does not come back yet"),
            }
        }
        let demoted = NodeDemoted { main: run.new_main, epoch: run.epoch, by: rejoin::demotion(run) };
        let fact = Draft::new(shared.epoch(), demoted).in_run(run.id).because_of(run.lineage);
        let stored = shared.lines.append.ask(Append(vec![fact])).await;
        stored
            .and_then(|stored| stored)
            .map_err(|error| PortError::new("recording that this node only follows from here on", error))?;
        servers.postgres.start().await?;
    }
    let timeline = mains_log_arrives(shared, servers, run).await?;
    // slots that this node held as main would keep WAL here for ever
    servers.handover.drop_unused_slots().await?;
    rejoin::main_streams(&*servers.main_server(run.new_main)?, shared).await?;
    let words = format!("main streams to PostgreSQL here, on timeline {timeline}");
    if run.kind != RunKind::Rejoin {
        return Ok(StepReport::new(StepOutcome::Succeeded, words));
    }
    let words = words + &rejoin::prune(shared, servers, run).await;
    let report = StepReport::new(StepOutcome::Succeeded, words);
    let report = rejoin::naming_kept_redis(servers, run, report).await;
    Ok(price.map_or(report.clone(), |price| report.at_a_price(&price)))
}

/// Makes the stopped PostgreSQL here a standby of main. If it also reads WAL from an archive, it follows main's timeline by number:
/// with "latest", a history file that another server left there leads it to a timeline which main never had, and it does not start.
async fn make_standby_of(servers: &Servers, me: NodeId, main: NodeId) -> Answer<()> {
    let along = match servers.handover.restores_from_archive().await? {
        true => Some(servers.main_server(main)?.lineage().await?),
        false => None,
    };
    servers.handover.become_standby(&servers.conninfo_of(main)?, &slot_name(me), along.as_ref()).await
}

/// Lets the standby here receive from another main. A reload is enough, except if a timeline is followed by its number: only a
/// start takes the next number.
pub(super) async fn follow_another(servers: &Servers, me: NodeId, main: NodeId) -> Answer<()> {
    let (upstream, handover) = (servers.conninfo_of(main)?, &servers.handover);
    let (restores, followed) = (handover.restores_from_archive().await?, handover.followed_timeline().await?);
    if !restores && followed.is_none() {
        return servers.postgres.set_upstream(&upstream).await;
    }
    // nothing is stopped for a main that cannot be asked
    let line = servers.server_of(main)?.lineage().await?;
    let stopped = servers.postgres.measure().await.facts.status == PostgresStatus::Stopped;
    if followed == Some(line.timeline) && !stopped {
        return servers.postgres.set_upstream(&upstream).await;
    }
    servers.postgres.stop(StopMode::Within(STOP_PATIENCE)).await?;
    let made = handover.become_standby(&upstream, &slot_name(me), restores.then_some(&line)).await;
    // whatever came of it, it is a standby still
    servers.postgres.start().await?;
    made
}

/// Waits until PostgreSQL here receives main's WAL, and returns main's timeline. The replay before that has no limit; but a standby
/// that main refuses would retry for ever, and report that only in its log file.
async fn mains_log_arrives(shared: &Shared, servers: &Servers, run: &Run) -> Answer<TimelineId> {
    let wanted = shared.look(|view| view.cluster.nodes.timeline).unwrap_or_default();
    let (mut reached, mut moved, mut asked) = (None, shared.env.moment(), shared.env.moment());
    let mut refused = false;
    loop {
        let facts = servers.postgres.measure().await.facts;
        if let Some(timeline) = facts.timeline.filter(|timeline| *timeline >= wanted)
            && facts.status == PostgresStatus::Streaming
        {
            return Ok(timeline);
        }
        let now = shared.env.moment();
        if facts.lsn != reached {
            (reached, moved, asked) = (facts.lsn, now, now);
        }
        let since = |then: Moment| now.monotonic.saturating_sub(then.monotonic);
        if since(asked) > ASK_WHY {
            asked = now;
            let logged_in = rejoin::log_in(servers, run.new_main).await;
            match logged_in {
                // once may be the program's own trouble
                Err(error) if servers.turned_away(run.new_main).await => {
                    if std::mem::replace(&mut refused, true) {
                        return Err(error);
                    }
                }
                _ => refused = false,
            }
        }
        if since(moved) > IDLE_LIMIT {
            return Err(nothing_arrives(servers));
        }
        tokio::time::sleep(LOOK_CALMLY).await;
    }
}

fn nothing_arrives(servers: &Servers) -> PortError {
    let why = match servers.handover.last_complaint() {
        Some(complaint) => format!("PostgreSQL's log on this node says: {complaint}"),
        None => "see PostgreSQL's log on this node".to_owned(),
    };
    PortError(format!(
        "PostgreSQL runs as a standby, but no WAL has arrived from main for {IDLE_LIMIT:?}; {why}"
    ))
}
