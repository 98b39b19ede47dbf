//! The steps by which main hands its role over: it stops in good order, proves that the target has everything, and
//! follows the target once that has taken the role.

use std::{collections::BTreeSet, time::Duration};

use interrex_events::{
    Address, Drained, HandoverAccepted, HandoverChecked, HandoverProved, PostgresStatus, RedisStatus, StepId,
    StepOutcome, Verdict,
};
use interrex_projections::{Run, counted, human_ms};

use super::{
    Servers,
    handover_check::{self, BEHIND_LIMIT},
    rejoin::naming_kept_redis,
};
use crate::{
    env::ms,
    messages::StepReport,
    node::Shared,
    ports::{
        Answer, NotAccepted, PeersPort, PortError, PostgresPort, RedisHandover, RedisPort, ServerProcess,
        StopMode, slot_name,
    },
    wire::Check,
};

/// How often a condition is looked at while writes wait.
const LOOK: Duration = Duration::from_millis(3);
/// How often a condition is looked at while no write waits.
const LOOK_CALMLY: Duration = Duration::from_millis(100);
/// How long a stop in good order may take before it is taken back: a server that waits for an archiver or a WAL sender serves no
/// client meanwhile (MEASURED M11).
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// How long a stop that is taken back may take to end, before PostgreSQL is started again: with [`UNKNOWN_LIMIT`] and the start,
/// less than the limit of the step.
const UNDO_PATIENCE: Duration = Duration::from_secs(10);
/// How long the state of a server whose process lives may stay unknown.
const UNKNOWN_LIMIT: Duration = Duration::from_secs(20);
/// How long the target may take to receive again what it received when it was checked.
const RECEIVE_LIMIT: Duration = Duration::from_secs(10);
/// How long the target's last answer about what it received may be awaited.
const PROOF_LIMIT: Duration = Duration::from_secs(5);
/// How long one of those answers may take: its connection may hang.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// How long the target may be silent when it is asked whether it accepts: clients wait for it if main has stopped already.
const SILENCE_LIMIT: Duration = Duration::from_secs(2);
/// How long Redis may take to hand its role over.
const REDIS_LIMIT: Duration = Duration::from_secs(10);
/// How long the handover is tried, or the target's Redis is awaited, which takes the role by itself after a shorter wait.
const TAKEN_LIMIT: Duration = Duration::from_secs(40);

fn succeeded(detail: impl Into<String>) -> StepReport {
    StepReport::new(StepOutcome::Succeeded, detail)
}

fn refused(detail: impl Into<String>) -> StepReport {
    StepReport::new(StepOutcome::Refused, detail)
}

/// Checks everything that can be known before a server is stopped.
pub(super) async fn check(
    shared: &Shared,
    servers: &Servers,
    peers: &dyn PeersPort,
    run: &Run,
) -> Answer<StepReport> {
    let checks = handover_check::look(shared, servers, peers, run.new_main).await;
    let told = |wanted: &dyn Fn(&Check) -> bool| {
        let details: Vec<&str> =
            checks.iter().filter(|check| wanted(check)).map(|check| check.detail.as_str()).collect();
        details.join("; ")
    };
    if checks.iter().any(|check| check.verdict == Verdict::Bad) {
        return Ok(refused(told(&Check::stops)));
    }
    if checks.iter().any(Check::stops) {
        return Err(PortError(told(&Check::stops)));
    }
    if let Err(words) = accepted(shared, peers, run).await {
        return Ok(refused(words));
    }
    let measured = |name: &str| checks.iter().find_map(|check| check.observed.get(name)?.as_u64());
    Ok(succeeded(told(&|_| true)).observing(HandoverChecked {
        behind_bytes: measured("behind_bytes"),
        open_transactions: measured("open_transactions"),
    }))
}

/// Asks the target to store that it would take the role in this run; the error says why it did not. Until the offer is recorded
/// here, this node decides alone: a silent target costs clients this wait at most, and no outage that only a person could end.
async fn accepted(shared: &Shared, peers: &dyn PeersPort, run: &Run) -> Result<(), String> {
    let name = shared.look(|view| view.cluster.nodes.name(run.new_main));
    let asked = HandoverAccepted { from: run.old_main, epoch: run.epoch, run: run.id };
    let began = shared.env.moment();
    loop {
        match peers.accept_handover(run.new_main, &asked).await {
            Ok(()) => return Ok(()),
            Err(NotAccepted::Declined(words)) => return Err(format!("{name} does not accept it: {words}")),
            Err(NotAccepted::NoAnswer(words)) => {
                let waited = shared.env.moment().monotonic.saturating_sub(began.monotonic);
                if waited >= SILENCE_LIMIT {
                    return Err(format!(
                        "{name} has not recorded within {} that it would take over: {words}",
                        human_ms(ms(waited))
                    ));
                }
            }
        }
        tokio::time::sleep(LOOK_CALMLY).await;
    }
}

/// The checkpoint at the stop will be short.
pub(super) async fn write_checkpoint(servers: &Servers) -> Answer<StepReport> {
    servers.postgres.checkpoint().await?;
    Ok(succeeded("PostgreSQL has written a checkpoint"))
}

/// Clients are served meanwhile: only transactions that are open now get time to finish.
pub(super) async fn drain(shared: &Shared, servers: &Servers, run: &Run) -> Answer<StepReport> {
    let begun: BTreeSet<_> = servers.handover.open_transactions().await?.into_iter().collect();
    let began = shared.env.moment();
    let limit = Duration::from_millis(run.drain_ms);
    loop {
        let open: BTreeSet<_> = servers.handover.open_transactions().await?.into_iter().collect();
        let left = begun.intersection(&open).count();
        let waited = shared.env.moment().monotonic.saturating_sub(began.monotonic);
        let cancelled =
            shared.look(|view| view.cluster.runs.get(run.id).is_some_and(|run| run.cancelled.is_some()));
        if left == 0 {
            return Ok(succeeded(format!(
                "{} open at the start of the step, all finished",
                counted(begun.len(), "transaction")
            )));
        }
        if cancelled || waited >= limit {
            let fate = if cancelled { "the run is cancelled, and they go on" } else { "they will be ended" };
            let words = format!(
                "{left} of {} still open after {}: {fate}",
                counted(begun.len(), "transaction"),
                human_ms(ms(waited))
            );
            return Ok(succeeded(words).observing(Drained { left: left as u64 }));
        }
        tokio::time::sleep(LOOK_CALMLY.min(limit.saturating_sub(waited)).max(LOOK)).await;
    }
}

/// From here on no write passes: new sessions are refused, open ones end, standbys receive all of the WAL.
pub(super) async fn stop_main(servers: &Servers, run: &Run) -> Answer<StepReport> {
    target_receives(servers, run).await?;
    let proof = servers.handover.hand_down(STOP_LIMIT).await?;
    Ok(succeeded(format!("PostgreSQL has stopped in good order; its WAL ends at {}", proof.end)))
}

/// The check may be an hour old, and a PostgreSQL that was just started has no standby yet: a stop that the target does
/// not hear of would be taken back.
async fn target_receives(servers: &Servers, run: &Run) -> Answer<()> {
    if servers.postgres.measure().await.facts.status != PostgresStatus::Primary {
        return Ok(());
    }
    let receives = async {
        while servers.handover.standby_behind(run.new_main).await?.is_none_or(|behind| behind > BEHIND_LIMIT)
        {
            tokio::time::sleep(LOOK_CALMLY).await;
        }
        Ok(())
    };
    let late = || {
        Err(PortError(format!(
            "the target has received no WAL from this node for {RECEIVE_LIMIT:?}: no standby streams through the slot {}",
            slot_name(run.new_main)
        )))
    };
    tokio::time::timeout(RECEIVE_LIMIT, receives).await.unwrap_or_else(|_| late())
}

/// Main serves again.
pub(super) async fn undo_stop_main(
    shared: &Shared,
    servers: &Servers,
    peers: &dyn PeersPort,
) -> Answer<String> {
    let me = shared.settings.me;
    if shared.look(|view| view.cluster.nodes.is_superseded(me) || !view.cluster.nodes.is_main(me)) {
        return Ok("PostgreSQL stays stopped: another node is main".to_owned());
    }
    match settled(&*servers.postgres).await? {
        Settled::Serves => return Ok("PostgreSQL had not stopped, and serves".to_owned()),
        Settled::Stopped | Settled::InTheWay => {}
    }
    if let Some(rival) = rival(shared, peers).await {
        return Err(PortError(format!("PostgreSQL stays stopped: {rival}")));
    }
    // what is half-way down does not come back by itself, and is never ended before it had the time to do so in good order
    servers.postgres.stop(StopMode::Within(UNDO_PATIENCE)).await?;
    servers.postgres.start().await?;
    // starting may have taken long, and a peer may have taken over meanwhile
    if shared.look(|view| view.cluster.nodes.is_superseded(me)) {
        servers.postgres.stop(StopMode::Immediate).await?;
        return Err(PortError("another node became main meanwhile: PostgreSQL was stopped again".to_owned()));
    }
    let facts = servers.postgres.measure().await.facts;
    match facts.status {
        PostgresStatus::Primary => Ok("PostgreSQL runs again, and is writable".to_owned()),
        status => Err(PortError(format!("PostgreSQL is {status} after its start: {}", facts.detail))),
    }
}

/// What a stop that is taken back has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settled {
    /// It takes writes.
    Serves,
    /// No process of it runs.
    Stopped,
    /// It runs, and is not a primary, or is shutting down.
    InTheWay,
}

/// Looks until it is known: a measurement that got no answer says nothing of a server whose process is up.
async fn settled(postgres: &dyn PostgresPort) -> Answer<Settled> {
    let looking = async {
        loop {
            let facts = postgres.measure().await.facts;
            if let Some(settled) = known(facts.status, postgres.process().await) {
                return settled;
            }
            tracing::warn!(facts.detail, "PostgreSQL does not answer, and is looked at again");
            tokio::time::sleep(LOOK_CALMLY).await;
        }
    };
    tokio::time::timeout(UNKNOWN_LIMIT, looking).await.map_err(|_| {
        PortError(format!(
            "PostgreSQL's process is alive and has answered nothing for {UNKNOWN_LIMIT:?}: whether it serves is not known, so it \
             is not stopped; see its log, then: interrex status"
        ))
    })
}

/// What is proved of it, if anything is.
fn known(status: PostgresStatus, process: ServerProcess) -> Option<Settled> {
    match (status, process) {
        (PostgresStatus::Primary, _) => Some(Settled::Serves),
        (_, ServerProcess::None) => Some(Settled::Stopped),
        (PostgresStatus::Unreachable | PostgresStatus::Stopped, ServerProcess::Up) => None,
        (_, ServerProcess::Stopping)
        | (PostgresStatus::Streaming | PostgresStatus::Detached, ServerProcess::Up) => {
            Some(Settled::InTheWay)
        }
    }
}

/// A peer that is main of a later epoch, or about to be, or whose PostgreSQL takes writes already. A peer that does not answer is
/// none: two nodes cannot tell. Nor is a primary whose own supervisor says that this node is main: that supervisor stops it.
async fn rival(shared: &Shared, peers: &dyn PeersPort) -> Option<String> {
    let own = shared.report();
    let limit = shared.settings.probe_timeout;
    for peer in shared.settings.peers() {
        let report = tokio::time::timeout(limit, peers.exchange(peer.node, &own)).await;
        let report = report.ok().and_then(Result::ok);
        if report.as_ref().is_some_and(|report| report.epoch > shared.epoch() || report.takes_over()) {
            return Some(format!("{} is main of a later epoch, or is taking over", peer.name));
        }
        let is_stray = report.is_some_and(|report| report.main == Some(shared.settings.me));
        let postgres = tokio::time::timeout(limit, peers.postgres(peer.node)).await;
        if !is_stray && matches!(postgres, Ok(Ok(main)) if main.writable) {
            return Some(format!("the PostgreSQL of {} answers as a primary", peer.name));
        }
    }
    None
}

/// Compares the WAL that the target has received with the end of the WAL here, to the byte.
pub(super) async fn prove(
    shared: &Shared,
    servers: &Servers,
    peers: &dyn PeersPort,
    run: &Run,
) -> Answer<StepReport> {
    let proof = servers.handover.shutdown_proof().await?;
    let received = async {
        loop {
            match tokio::time::timeout(ANSWER_LIMIT, peers.received(run.new_main)).await {
                Ok(Ok(received)) if received >= proof.end => return Ok(received),
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    };
    let received = match tokio::time::timeout(PROOF_LIMIT, received).await {
        Ok(received) => received,
        Err(_) => peers.received(run.new_main).await,
    };
    let received =
        received.map_err(|error| PortError::new("asking the target what it has received", error))?;
    if received != proof.end {
        return Err(PortError(format!(
            "this node's WAL ends at {}, and the target has received it up to {received}: the two are not the same",
            proof.end
        )));
    }
    // the first one may be an hour old
    if let Err(words) = accepted(shared, peers, run).await {
        return Ok(refused(format!(
            "{words}; the role is not offered, and PostgreSQL on this node serves again"
        )));
    }
    let words = format!("this node's WAL ends at {}, and the target has all of it", proof.end);
    Ok(succeeded(words).observing(HandoverProved {
        system_id: proof.system_id.to_string(),
        timeline: proof.timeline,
        checkpoint: proof.checkpoint,
        end: proof.end,
        received,
        head: shared.journal.head().into(),
    }))
}

/// Redis waits for its replica by itself, and exchanges roles with it. If it does not, the target's Redis takes the role after a
/// while: then the data of this node's Redis is kept before it follows.
pub(super) async fn hand_over_redis(
    shared: &Shared,
    servers: &Servers,
    peers: &dyn PeersPort,
    run: &Run,
) -> Answer<StepReport> {
    let (Some(redis), Some(target)) = (&servers.redis, servers.redis_of(run.new_main)) else {
        return Ok(StepReport::new(StepOutcome::Skipped, "no Redis is configured on both nodes"));
    };
    let mut last = PortError("it does not answer".to_owned());
    let offering = async {
        loop {
            let taken = matches!(peers.redis(run.new_main).await, Some(Ok(role)) if role == "master");
            match redis.measure().await.status {
                RedisStatus::Linked | RedisStatus::Unlinked => {
                    // also if it is one of the target's already: that must outlive a restart of it
                    let words = redis.follow(&target).await?;
                    return Ok(Some(succeeded(format!("Redis is a {words}"))));
                }
                RedisStatus::Master | RedisStatus::Stopped if taken => return Ok(None),
                RedisStatus::Master => match redis.hand_over(&target, REDIS_LIMIT).await {
                    Ok(RedisHandover::Done(words)) => return Ok(Some(succeeded(words))),
                    Ok(RedisHandover::Refused(words)) => {
                        // what it acknowledged from here on might reach no replica
                        let sealed = redis.take_no_writes().await.unwrap_or_else(|error| error.to_string());
                        last = PortError(format!("Redis refuses to hand its role over: {words}; {sealed}"));
                        if run.step(StepId::HandOverRedis).attempts < 2 {
                            return Err(last.clone());
                        }
                    }
                    Err(error) => last = error,
                },
                RedisStatus::Stopped | RedisStatus::Unreachable | RedisStatus::None => {}
            }
            tokio::time::sleep(LOOK_CALMLY).await;
        }
    };
    match tokio::time::timeout(TAKEN_LIMIT, offering).await {
        Ok(Ok(Some(report))) => Ok(report),
        Ok(Ok(None)) => follow_by_force(shared, servers, run, &**redis, &target).await,
        Ok(Err(error)) => Err(error),
        Err(_) => {
            Err(PortError(format!("Redis has not handed its role over within {TAKEN_LIMIT:?}: {last}")))
        }
    }
}

/// The target's Redis became a master while this one still was: data of this one may have reached no replica.
async fn follow_by_force(
    shared: &Shared,
    servers: &Servers,
    run: &Run,
    redis: &dyn RedisPort,
    target: &Address,
) -> Answer<StepReport> {
    let end = redis.prepare_to_follow(target, run.started_at, shared.settings.rejoin.keep_newest).await?;
    servers.try_to_start_redis().await?;
    let report = succeeded(format!("Redis is a replica of {target}, which TOOK the role"));
    let report = naming_kept_redis(servers, run, report).await;
    let words = "the two did not change places in good order: compare what was kept with interrex salvage --kept-redis";
    Ok(report.at_a_price(&if end.is_loss() { format!("{words}; Redis: {end}") } else { words.to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_without_an_answer_is_no_reason_to_stop_a_server_whose_process_is_up() {
        use PostgresStatus as Status;
        use ServerProcess as Process;
        assert_eq!(known(Status::Unreachable, Process::Up), None);
        assert_eq!(known(Status::Unreachable, Process::Stopping), Some(Settled::InTheWay));
        assert_eq!(known(Status::Unreachable, Process::None), Some(Settled::Stopped));
        // its answer counts, and not what its files said a moment later
        assert_eq!(known(Status::Primary, Process::Up), Some(Settled::Serves));
        assert_eq!(known(Status::Primary, Process::Stopping), Some(Settled::Serves));
        assert_eq!(known(Status::Streaming, Process::Up), Some(Settled::InTheWay));
    }
}
