//! The steps that change PostgreSQL and Redis. Each looks first whether it is done already, and reports what
//! it observed after, never what it hoped.

use std::time::Duration;

use interrex_events::{
    Detached, EpochRelayed, Handover, LastReport, Loss, LossMeasured, Lsn, NodeId, PostgresStatus, Promoted,
    RedisPromoted, RedisStatus, RunKind, StepId, StepOutcome, TimelineId, Trigger,
};
use interrex_projections::{ClusterNodes, Run, human_bytes};

use super::{
    Servers,
    become_standby::{self, STOP_PATIENCE},
    fork_report, rejoin, rejoin_check,
    relay::relay,
    switchover,
    withdrawing::start_again_if_cut_off,
};
use crate::{
    failover::{policy::FailoverPolicy, what_speaks_against},
    messages::StepReport,
    node::Shared,
    ports::{Answer, PeersPort, PortError, PostgresPort, Promotion, ReplayState, StopMode, slot_name},
    wire::Check,
};

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(3);

/// How long a run waits for `cluster_events`: a relay may have a long stream to fold, or a lock to wait for.
const RELAY_PATIENCE: Duration = Duration::from_secs(5);

/// How long main's WAL is compared with a standby's that is to follow it.
const COMPARE_PATIENCE: Duration = Duration::from_secs(5);

/// How long the old main's Redis may take to hand its role over before this node's takes it.
const REDIS_PATIENCE: Duration = Duration::from_secs(15);

/// Makes one attempt at a step.
pub(super) async fn make(
    shared: &Shared,
    servers: &Servers,
    peers: &dyn PeersPort,
    run: &Run,
    step: StepId,
) -> StepReport {
    let made = match step {
        StepId::MeasureLoss => measure_loss(servers, run, &shared.settings.failover).await,
        StepId::Detach => detach(shared, servers, run).await,
        StepId::SanitiseSettings => sanitise(servers).await,
        StepId::Promote => promote(shared, servers, peers, run).await,
        StepId::PromoteRedis => promote_redis(servers, run).await,
        StepId::OpenEpoch => open_epoch(shared, servers).await,
        StepId::PrepareRejoin => prepare_rejoin(shared, servers, run).await,
        StepId::CheckHandover => switchover::check(shared, servers, peers, run).await,
        StepId::WriteCheckpoint => switchover::write_checkpoint(servers).await,
        StepId::Drain => switchover::drain(shared, servers, run).await,
        StepId::StopMain => switchover::stop_main(servers, run).await,
        StepId::ProveHandover => switchover::prove(shared, servers, peers, run).await,
        StepId::BecomeStandby => become_standby::become_standby(shared, servers, run).await,
        StepId::CheckLineage => rejoin_check::check_lineage(shared, servers, run).await,
        StepId::ReserveSlot => rejoin::reserve_slot(shared, servers, run).await,
        StepId::ReportFork => fork_report::report_fork(servers, run).await,
        StepId::KeepDiverged => rejoin::keep_diverged(shared, servers, run).await,
        StepId::Rebuild => rejoin::rebuild(shared, servers, run).await,
        StepId::FollowRedis => rejoin::follow_redis(shared, servers, run).await,
        StepId::HandOverRedis => switchover::hand_over_redis(shared, servers, peers, run).await,
        other => Err(PortError(format!("{other} is not a step of the ReplicationActor"))),
    };
    let report = made.unwrap_or_else(|error| StepReport::new(StepOutcome::Failed, error.to_string()));
    // main is not asked after it, or not soon
    if step == StepId::BecomeStandby || !report.outcome.is_success() {
        servers.leave_main();
    }
    report
}

fn succeeded(detail: impl Into<String>) -> StepReport {
    StepReport::new(StepOutcome::Succeeded, detail)
}

// ---- before the point of no return -------------------------------------------------------------------------

async fn measure_loss(servers: &Servers, run: &Run, policy: &FailoverPolicy) -> Answer<StepReport> {
    let measure = servers.postgres.measure().await.facts;
    if measure.status == PostgresStatus::Primary {
        let detail = "PostgreSQL accepts writes already: the loss was decided by the promotion";
        return Ok(StepReport::new(StepOutcome::AlreadyDone, detail));
    }
    // said now, before the old main is fenced for a run that cannot succeed
    let hindrances = servers.postgres.hindrances().await?;
    if !hindrances.is_empty() {
        return Ok(StepReport::new(StepOutcome::Refused, hindrances.join("; ")));
    }
    let own_lsn =
        measure.lsn.ok_or_else(|| PortError(format!("PostgreSQL gives no position: {}", measure.detail)))?;
    if let Some(handover) = &run.handover {
        return Ok(nothing_is_lost(handover, own_lsn));
    }
    let loss = loss(run.last_report.as_ref(), own_lsn);
    let detail = in_words(&loss);
    let accepted = run.request.as_ref().is_some_and(|request| request.forced);
    let too_much =
        loss.bytes.zip(policy.maximum_lag_bytes).filter(|(bytes, limit)| bytes > limit && !accepted);
    let report = match too_much {
        Some((_, limit)) => {
            let detail = format!("{detail}, more than failover.maximum_lag_bytes = {limit} allows");
            StepReport::new(StepOutcome::Refused, detail)
        }
        None => succeeded(detail),
    };
    Ok(report.observing(LossMeasured { loss }))
}

/// What a promotion would lose, as far as this node can know.
pub(super) async fn look_at_loss(shared: &Shared, servers: &Servers, accepted: bool) -> Check {
    let subject = "loss";
    let measure = servers.postgres.measure().await.facts;
    let Some(own_lsn) = measure.lsn else {
        return Check::unknown(subject, format!("PostgreSQL gives no position: {}", measure.detail));
    };
    let report = shared.look(|view| view.main_sight.as_ref().and_then(|sight| sight.last_report.clone()));
    let loss = loss(report.as_ref(), own_lsn);
    let limit = shared.settings.failover.maximum_lag_bytes.filter(|_| !accepted);
    let check = match loss.bytes.zip(limit).filter(|(bytes, limit)| bytes > limit) {
        Some((_, limit)) => {
            let words = format!("{}, more than failover.maximum_lag_bytes = {limit} allows", in_words(&loss));
            Check::bad(subject, words)
        }
        None => Check::good(subject, in_words(&loss)),
    };
    match loss.bytes {
        Some(bytes) => check.with("loss_bytes", bytes),
        None => check,
    }
}

/// Whether a setting would hinder this node as main permanently.
pub(super) async fn look_at_settings(servers: &Servers) -> Check {
    let subject = "settings";
    match servers.postgres.hindrances().await {
        Err(error) => Check::unknown(subject, error.to_string()),
        Ok(found) if found.is_empty() => {
            Check::good(subject, "no setting on this node hinders a main permanently")
        }
        Ok(found) => Check::bad(subject, found.join("; ")),
    }
}

/// A main that handed over has reported where its WAL ends: the standby has all of it, or must not be promoted.
fn nothing_is_lost(handover: &Handover, own_lsn: Lsn) -> StepReport {
    let end = handover.end;
    if own_lsn != end {
        let words = format!(
            "main's WAL ended at {end}, and this node's WAL ends at {own_lsn}: the two are not the same"
        );
        return StepReport::new(StepOutcome::Refused, words);
    }
    let (bytes, seconds) = (Some(0), Some(0.0));
    let loss = Loss { bytes, seconds, lower_bound: false, main_lsn: Some(end), own_lsn };
    succeeded(format!("this node has all of main's WAL, up to {end}")).observing(LossMeasured { loss })
}

/// Compares main's last report with the WAL here. Main may have written more after that report, so both figures are lower bounds
/// of the loss.
fn loss(report: Option<&LastReport>, own_lsn: Lsn) -> Loss {
    let bytes = report.map(|report| report.lsn.bytes_ahead_of(own_lsn));
    let seconds = report.map(|report| {
        let until = report.first_miss_at.unwrap_or(report.reported_at);
        let caught_up = report.caught_up_at.unwrap_or(report.first_reported_at);
        let held_at = if bytes == Some(0) { report.reported_at } else { caught_up };
        let missing = until - held_at;
        missing.to_std().unwrap_or_default().as_secs_f64()
    });
    Loss { bytes, seconds, lower_bound: true, main_lsn: report.map(|report| report.lsn), own_lsn }
}

fn in_words(loss: &Loss) -> String {
    let (Some(bytes), Some(main)) = (loss.bytes, loss.main_lsn) else {
        return format!(
            "the loss is unknown: main never reported its position; this node is at {}",
            loss.own_lsn
        );
    };
    let here = match bytes {
        0 => format!("this node has all that main had reported ({main})"),
        _ => format!(
            "at least {} are missing: main had reported {main}, this node is at {}",
            human_bytes(bytes),
            loss.own_lsn
        ),
    };
    let seconds = loss.seconds.unwrap_or_default();
    format!(
        "{here}; what main acknowledged in the last {seconds:.1} s before it fell silent is not known on this node"
    )
}

async fn detach(shared: &Shared, servers: &Servers, run: &Run) -> Answer<StepReport> {
    let postgres = &*servers.postgres;
    if run.trigger == Trigger::ByHand {
        leave_mains_timeline(shared, servers, run).await?;
    }
    if postgres.promotion().await?.is_some() {
        return Ok(StepReport::new(StepOutcome::AlreadyDone, "PostgreSQL is no longer a standby"));
    }
    postgres.leave_upstream().await?;
    let state = replayed_all(postgres).await?;
    let detail =
        format!("no more WAL is received, and all received WAL is replayed, up to {}", state.replayed);
    Ok(succeeded(detail).observing(Detached { replayed: state.replayed }))
}

/// A server that was started as a primary without a promotion writes main's own timeline: its WAL and main's could not be
/// distinguished. It is made a standby that follows no server, so that its promotion begins a timeline of its own.
async fn leave_mains_timeline(shared: &Shared, servers: &Servers, run: &Run) -> Answer<()> {
    let (postgres, handover) = (&*servers.postgres, &*servers.handover);
    let mut along = None;
    // stopped: an attempt before this one was cut off
    if postgres.measure().await.facts.status != PostgresStatus::Stopped {
        let mains = shared.look(|view| {
            let nodes = &view.cluster.nodes;
            nodes.get(run.old_main).and_then(|row| row.timeline).max(nodes.timeline)
        });
        if !postgres.writes_unpromoted(mains).await? {
            return Ok(());
        }
        if handover.restores_from_archive().await? {
            along = Some(handover.main_lineage().await?);
        }
        postgres.stop(StopMode::Within(STOP_PATIENCE)).await?;
    }
    if !postgres.is_standby_directory() {
        handover.become_standby("", &slot_name(shared.settings.me), along.as_ref()).await?;
    }
    postgres.start().await.map(drop)
}

/// Two positive signs instead of "the position stopped moving": the receiver is gone, and replay either has
/// reached the end of what was received or says itself that it waits for more (MEASURED M9).
async fn replayed_all(postgres: &dyn PostgresPort) -> Answer<ReplayState> {
    loop {
        let state = postgres.replay_state().await?;
        if !state.receiving && (state.replayed >= state.received || state.waits_for_more) {
            return Ok(state);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Follows the old upstream again, or the node that has become main instead.
pub(super) async fn undo_detach(shared: &Shared, servers: &Servers, run: &Run) -> Answer<String> {
    let nodes = shared.look(|view| view.cluster.nodes.clone());
    if let Some(main) = nodes.main.filter(|main| ![run.old_main, run.new_main].contains(main)) {
        become_standby::follow_another(servers, shared.settings.me, main).await?;
        return Ok(format!("primary_conninfo names {}, which became main meanwhile", nodes.name(main)));
    }
    servers.postgres.return_to_upstream(&servers.conninfo_of(run.old_main)?).await?;
    Ok("primary_conninfo names the old main again".to_owned())
}

async fn sanitise(servers: &Servers) -> Answer<StepReport> {
    let cleared = servers.postgres.sanitise().await?;
    if cleared.is_empty() {
        return Ok(StepReport::new(
            StepOutcome::AlreadyDone,
            "no setting inherited from the old main hinders a new one",
        ));
    }
    Ok(succeeded(format!("cleared {}", cleared.join(", "))))
}

// ---- the point of no return --------------------------------------------------------------------------------

async fn promote(shared: &Shared, servers: &Servers, peers: &dyn PeersPort, run: &Run) -> Answer<StepReport> {
    start_again_if_cut_off(servers, run).await?;
    let promoted_before = servers.postgres.promotion().await?.is_some();
    if !promoted_before && let Some(reason) = what_speaks_against(shared, peers, run).await {
        return Ok(StepReport::new(StepOutcome::Refused, reason));
    }
    let promotion = servers.postgres.promote().await?;
    let is_primary = format!(
        "PostgreSQL is a primary: timeline {} since {}, history file read",
        promotion.timeline, promotion.switchpoint
    );
    let report = match servers.postgres.prove_write(run.epoch).await {
        Ok(()) => succeeded(format!("{is_primary}, a write committed{}", still_read_only(servers).await)),
        // the epoch is open all the same: from here on this is the only main there may be
        Err(error) => {
            StepReport::new(StepOutcome::Failed, format!("{is_primary}, but it takes no write: {error}"))
        }
    };
    let Promotion { timeline, switchpoint } = promotion;
    Ok(report.observing(Promoted { timeline, switchpoint }))
}

/// Clients that still cannot write, as a message. That may be intended, and is replicated: nothing is changed.
async fn still_read_only(servers: &Servers) -> String {
    let found = match servers.postgres.read_only_settings().await {
        Ok(found) => found,
        Err(error) => return format!("; whether databases are read-only is not known: {error}"),
    };
    let (everyone, one_role): (Vec<_>, Vec<_>) = found.into_iter().partition(|setting| setting.every_role);
    let mut words = String::new();
    for (who, settings) in [("clients cannot write", everyone), ("single roles cannot write", one_role)] {
        if !settings.is_empty() {
            let statements: Vec<String> = settings.into_iter().map(|setting| setting.undone_by).collect();
            words += &format!(
                "; WARNING: {who} because of settings that were not changed; if that is not intended: {};",
                statements.join("; ")
            );
        }
    }
    words.trim_end_matches(';').to_owned()
}

// ---- after the point of no return --------------------------------------------------------------------------

async fn promote_redis(servers: &Servers, run: &Run) -> Answer<StepReport> {
    let Some(redis) = &servers.redis else {
        return Ok(StepReport::new(StepOutcome::Skipped, "no Redis is configured on this node"));
    };
    let is_master = async || redis.measure().await.status == RedisStatus::Master;
    let offered = run.kind == RunKind::Takeover && servers.redis_of(run.old_main).is_some();
    if offered {
        // the old main's Redis hands its role over, with all its data; if it does not, this one takes it
        let handed_over = async {
            while !is_master().await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(REDIS_PATIENCE, handed_over).await;
    }
    // a Redis that was just being made a replica is stopped
    servers.start_redis().await;
    let facts = redis.measure().await;
    let detail = redis.promote().await?;
    let linked =
        if facts.status == RedisStatus::Unlinked { " (its link to the old master was down)" } else { "" };
    let report =
        succeeded(format!("Redis {detail}{linked}")).observing(RedisPromoted { offset: facts.offset });
    if offered && facts.status != RedisStatus::Master {
        return Ok(report.at_a_price(&format!(
            "the old main's Redis did not hand its role over within {REDIS_PATIENCE:?}, and the role was TAKEN: what the old \
             main's Redis had not sent is kept there, see its switchover (interrex run show)"
        )));
    }
    Ok(report)
}

/// The events are safe in the journal: without this step the run can complete, and the relay is made again twice
/// a second.
async fn open_epoch(shared: &Shared, servers: &Servers) -> Answer<StepReport> {
    // hooks that move an address wait for this step: a long relay holds them up no longer than this
    let late = || Err(PortError(format!("not done within {RELAY_PATIENCE:?}")));
    let relayed = tokio::time::timeout(RELAY_PATIENCE, relay(shared, servers)).await;
    let facts = relayed.unwrap_or_else(|_| late())?;
    let position = facts.position.map(|position| position.to_string()).unwrap_or_default();
    shared.set_stream(facts);
    let words = format!("cluster_events, cluster_nodes and cluster_config name the new epoch, at {position}");
    Ok(succeeded(words).observing(EpochRelayed { position }))
}

async fn prepare_rejoin(shared: &Shared, servers: &Servers, run: &Run) -> Answer<StepReport> {
    let limit = servers.postgres.cap_slots().await?;
    let mut slots = Vec::new();
    for peer in shared.settings.peers() {
        servers.postgres.ensure_slot(peer.node).await?;
        slots.push(crate::ports::slot_name(peer.node));
    }
    servers.postgres.checkpoint().await?;
    let written = servers.postgres.control_timeline().await?;
    let Some(Promoted { timeline: promoted, .. }) = run.observed(StepId::Promote) else {
        return Err(PortError(
            "the timeline of this promotion is not known (see the step promote)".to_owned(),
        ));
    };
    if written < promoted {
        return Err(PortError(format!(
            "after a CHECKPOINT the control file still names timeline {written}, not {promoted}: a rewind would find nothing"
        )));
    }
    let slots = match slots.as_slice() {
        [only] => format!("slot {only} exists"),
        several => format!("slots {} exist", several.join(", ")),
    };
    let detail = format!(
        "{slots} (max_slot_wal_keep_size {limit}); the control file names timeline {written}: rewindable"
    );
    Ok(succeeded(detail))
}

// ---- following another main --------------------------------------------------------------------------------

/// Lets the standbys of this node follow a new main, and waits until its WAL arrives.
pub(super) async fn follow(
    servers: &Servers,
    nodes: &ClusterNodes,
    switchpoint: Option<Lsn>,
    (me, main): (NodeId, NodeId),
    limit: Duration,
) -> Answer<(bool, String)> {
    let own = servers.postgres.measure().await.facts;
    // cut off while it was started again to follow
    let is_at_rest = own.status == PostgresStatus::Stopped
        && servers.postgres.is_standby_directory()
        && servers.handover.restores_from_archive().await?;
    if !is_at_rest && servers.postgres.promotion().await?.is_some() {
        return Err(PortError(
            "PostgreSQL on this node is not a standby, and cannot follow. To bring the node back: interrex rejoin".to_owned(),
        ));
    }
    // PostgreSQL would not fail, it would wait for ever (MEASURED M12)
    if let (Some(received), Some(timeline), Some(switchpoint)) = (own.lsn, own.timeline, switchpoint)
        && received > switchpoint
        && Some(timeline) < nodes.timeline
    {
        // what is past it may be a part of a record, which is never replayed: main was promoted at the end of the last whole record
        let end = servers.handover.end_of_whole_log(timeline).await?;
        if end > switchpoint {
            return Err(PortError(format!(
                "this standby has WAL up to {end} that {} never had: the new main left the old timeline at {switchpoint}. This \
                 standby must be rewound or copied again: interrex rejoin",
                nodes.name(main)
            )));
        }
    }
    if let (Some(received), Some(timeline)) = (own.lsn, own.timeline) {
        shares_wal(servers, main, (timeline, received)).await?;
    }
    become_standby::follow_another(servers, me, main).await?;
    let mut words = vec![format!("primary_conninfo names {}", nodes.name(main))];
    if let (Some(redis), Some(master)) = (&servers.redis, servers.redis_of(main)) {
        match redis.follow(&master).await {
            Ok(text) => words.push(format!("Redis is a {text}")),
            Err(error) => words.push(format!("Redis does not follow: {error}")),
        }
    }
    let streaming = its_log_arrives(servers, nodes, limit).await;
    if !streaming {
        words.push(format!("main's WAL did not arrive within {limit:?}"));
    }
    Ok((streaming, words.join("; ")))
}

/// A main that once started without its `standby.signal` went on with the timeline of the main before it. PostgreSQL compares
/// numbers only, and a standby with the other WAL would follow it without being a copy of it.
async fn shares_wal(servers: &Servers, main: NodeId, received: (TimelineId, Lsn)) -> Answer<()> {
    let compare = async {
        let server = servers.server_of(main)?;
        let lineage = server.lineage().await?;
        servers.handover.parting_from(received, &lineage, &*server).await
    };
    match tokio::time::timeout(COMPARE_PATIENCE, compare).await {
        Ok(Ok(Some(at))) => Err(PortError(format!(
            "the WAL of this standby and main's WAL are different after {at}, although both are on timeline {}: this standby must \
             be rewound or copied again: interrex rejoin",
            received.0
        ))),
        // a main that cannot be asked is followed: what it has is compared when it can
        Ok(Ok(None)) | Err(_) => Ok(()),
        Ok(Err(error)) => {
            tracing::warn!(%error, "main's WAL is not compared with this standby's");
            Ok(())
        }
    }
}

/// Lets this node's standby follow main again after a run had detached it, and waits until main's WAL arrives.
pub(super) async fn return_to(
    servers: &Servers,
    nodes: &ClusterNodes,
    main: NodeId,
    limit: Duration,
) -> Answer<(bool, String)> {
    if servers.postgres.promotion().await?.is_some() {
        return Err(PortError(
            "PostgreSQL on this node is not a standby, and cannot follow. To bring the node back: interrex rejoin".to_owned(),
        ));
    }
    servers.postgres.return_to_upstream(&servers.conninfo_of(main)?).await?;
    let words =
        format!("primary_conninfo names {} again, after a run on this node had cleared it", nodes.name(main));
    Ok(if its_log_arrives(servers, nodes, limit).await {
        (true, words)
    } else {
        (false, format!("{words}; main's WAL did not arrive within {limit:?}"))
    })
}

async fn its_log_arrives(servers: &Servers, nodes: &ClusterNodes, limit: Duration) -> bool {
    let streams = async {
        loop {
            let facts = servers.postgres.measure().await.facts;
            if facts.status == PostgresStatus::Streaming
                && facts.timeline >= nodes.timeline.or(Some(TimelineId(0)))
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(limit, streams).await.is_ok()
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};

    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    #[test]
    fn the_loss_is_what_main_reported_and_this_node_lacks_and_always_a_lower_bound() {
        let report = LastReport {
            lsn: Lsn(5_000),
            first_reported_at: at(2),
            reported_at: at(10),
            caught_up_at: Some(at(7)),
            first_miss_at: Some(at(11)),
        };
        let behind = loss(Some(&report), Lsn(2_000));
        assert_eq!((behind.bytes, behind.seconds, behind.lower_bound), (Some(3_000), Some(4.0), true));
        let caught_up = loss(Some(&report), Lsn(5_000));
        assert_eq!((caught_up.bytes, caught_up.seconds, caught_up.lower_bound), (Some(0), Some(1.0), true));
        let never = LastReport { caught_up_at: None, ..report };
        assert_eq!(loss(Some(&never), Lsn(2_000)).seconds, Some(9.0), "since main was first heard of");
        let unknown = loss(None, Lsn(5_000));
        assert_eq!((unknown.bytes, unknown.seconds), (None, None));
    }
}
