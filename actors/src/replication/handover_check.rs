//! Whether a target could take over now: the checks by which the step `check_handover` decides, and which a dry run shows. They
//! change nothing.

use std::{future::Future, time::Duration};

use interrex_events::{NodeId, PostgresStatus, RedisStatus};
use interrex_projections::{NodeStatus, human_bytes};

use super::{Servers, rejoin::log_in};
use crate::{
    node::Shared,
    ports::{PeersPort, PortError, slot_name},
    wire::{Check, NodeReport, RedisFacts},
};

/// How far the target may be behind when a switchover begins, in bytes: it receives this much within a second or two.
pub(super) const BEHIND_LIMIT: u64 = 64 * 1024 * 1024;
/// How long each question may take.
const QUESTION_LIMIT: Duration = Duration::from_secs(3);

/// Everything that can be known before anything is stopped, good and bad.
pub(super) async fn look(
    shared: &Shared,
    servers: &Servers,
    peers: &dyn PeersPort,
    target: NodeId,
) -> Vec<Check> {
    let name = shared.look(|view| view.cluster.nodes.name(target));
    let own_report = shared.report();
    let (own, theirs) =
        tokio::join!(servers.postgres.measure(), in_time(peers.exchange(target, &own_report)));
    let mut checks = Vec::new();
    let is_primary = own.facts.status == PostgresStatus::Primary;
    let detail = format!("PostgreSQL here is {}", own.facts.status);
    checks.push(if is_primary {
        Check::good("PostgreSQL here", detail)
    } else {
        Check::bad("PostgreSQL here", format!("{detail}, not a primary: there is nothing to hand over"))
    });
    match theirs {
        // what else it lacks, it lacks because of that
        Ok(report) if report.status == NodeStatus::Fenced => {
            let detail = format!("{name} is fenced: bring it back first: interrex rejoin {name}");
            checks.push(Check::bad("supervisor of the target", detail));
            return checks;
        }
        Ok(report) => checks.extend(what_it_says(shared, servers, &name, &report)),
        Err(error) => checks.push(Check::bad(
            "supervisor of the target",
            format!("the supervisor of {name} does not answer: {error}"),
        )),
    }
    if is_primary {
        let (behind, settings, limits, files, slot, login, open) = tokio::join!(
            behind(servers, target, &name),
            settings(servers, target, &name),
            limits(servers, target, &name),
            files(servers),
            slot(servers, shared.settings.me, target, &name),
            login(servers, target, &name),
            open_transactions(servers)
        );
        checks.extend([behind, settings, limits, files, slot, login, open]);
    }
    checks
}

/// What the target says of itself.
fn what_it_says(shared: &Shared, servers: &Servers, name: &str, target: &NodeReport) -> Vec<Check> {
    let subject = "supervisor of the target";
    let own_epoch = shared.epoch();
    let mut checks = Vec::new();
    if target.epoch != own_epoch {
        let detail = format!("{name} knows epoch {}; this node knows epoch {own_epoch}", target.epoch);
        checks.push(Check::bad(subject, detail));
    }
    if let Some((run, _)) = &target.run {
        checks.push(Check::bad(subject, format!("{name} has a run of its own under way: {}", run.short())));
    }
    if checks.is_empty() {
        checks.push(Check::good(subject, format!("the supervisor of {name} takes part, epoch {own_epoch}")));
    }
    let postgres = format!("the PostgreSQL of {name} is {}", target.postgres.status);
    checks.push(match target.postgres.status {
        PostgresStatus::Streaming => Check::good("PostgreSQL of the target", postgres),
        _ => Check::bad("PostgreSQL of the target", format!("{postgres}, not streaming")),
    });
    if servers.redis.is_some() {
        let own = shared.look(|view| view.redis.clone());
        checks.push(rights("here", &own));
        checks.push(rights(&format!("of {name}"), &target.redis));
        let redis = format!("the Redis of {name} is {}", target.redis.status);
        checks.push(match target.redis.status {
            RedisStatus::Linked => Check::good("Redis of the target", redis),
            _ => Check::bad("Redis of the target", format!("{redis}, not linked")),
        });
    }
    checks
}

/// Redis would refuse half-way what the switchover asks of it.
fn rights(whose: &str, redis: &RedisFacts) -> Check {
    let subject = "commands of Redis";
    match redis.lacks.as_slice() {
        [] => Check::good(subject, format!("the Redis {whose} accepts the commands that move its role")),
        lacks => Check::bad(
            subject,
            format!(
                "the Redis {whose} does not accept every command that moves its role: {}. Allow them for the supervisor's user \
                 (ACL), and remove rename-command for them",
                lacks.join("; ")
            ),
        ),
    }
}

async fn behind(servers: &Servers, target: NodeId, name: &str) -> Check {
    let subject = "WAL of the target";
    match in_time(servers.handover.standby_behind(target)).await {
        Err(error) => Check::unknown(subject, format!("how far {name} is behind is not known: {error}")),
        Ok(None) => Check::bad(
            subject,
            format!(
                "no standby of {name} streams from this node: none uses the slot {slot}. On {name}: ALTER SYSTEM SET \
                 primary_slot_name = '{slot}'; SELECT pg_reload_conf(); and see interrex doctor",
                slot = slot_name(target)
            ),
        ),
        Ok(Some(bytes)) if bytes > BEHIND_LIMIT => Check::bad(
            subject,
            format!(
                "{name} is {} behind, more than {}: the switchover would wait too long",
                human_bytes(bytes),
                human_bytes(BEHIND_LIMIT)
            ),
        )
        .with("behind_bytes", bytes),
        Ok(Some(bytes)) => Check::good(subject, format!("{name} is {} behind", human_bytes(bytes)))
            .with("behind_bytes", bytes),
    }
}

/// The target would be given up half-way.
async fn settings(servers: &Servers, target: NodeId, name: &str) -> Check {
    let subject = "settings of the target";
    match in_time(async { servers.server_of(target)?.hindrances().await }).await {
        Err(error) => Check::unknown(subject, format!("the settings of {name} are not known: {error}")),
        Ok(found) if found.is_empty() => {
            Check::good(subject, format!("no setting of {name} hinders it as main"))
        }
        Ok(found) => Check::bad(subject, format!("{name}: {}", found.join("; "))),
    }
}

/// Main would hand over, and then not start as a standby of the target.
async fn limits(servers: &Servers, target: NodeId, name: &str) -> Check {
    let subject = "limits here";
    let both = async {
        let theirs = servers.server_of(target)?.limits().await?;
        Ok::<_, PortError>(servers.handover.limits_at_next_start().await?.smaller_than(theirs))
    };
    let low = match in_time(both).await {
        Err(error) => {
            let words = format!("whether PostgreSQL here could follow {name} is not known: {error}");
            return Check::unknown(subject, words);
        }
        Ok(low) if low.is_empty() => {
            return Check::good(
                subject,
                format!("PostgreSQL on this node could follow {name}: no limit is lower than on {name}"),
            );
        }
        Ok(low) => low,
    };
    let found = low.iter().map(|limit| {
        format!("{} is {} here from the next start on, and {} on {name}", limit.name, limit.has, limit.needs)
    });
    let fixes = low.iter().map(|limit| format!("ALTER SYSTEM SET {} = {};", limit.name, limit.needs));
    let detail = format!(
        "PostgreSQL on this node could not follow {name}: {}. Raise it on this node: {} No restart is needed before: the \
         switchover restarts PostgreSQL",
        found.collect::<Vec<_>>().join("; "),
        fixes.collect::<Vec<_>>().join(" ")
    );
    Check::bad(subject, detail)
}

/// Main would hand over, and then not be made a standby.
async fn files(servers: &Servers) -> Check {
    let subject = "files here";
    match in_time(servers.handover.could_become_standby()).await {
        Ok(()) => Check::good(subject, "the data directory of this node can be made a standby's"),
        Err(words) => Check::bad(subject, words),
    }
}

/// Main would hand over, and then find no slot to receive through.
async fn slot(servers: &Servers, me: NodeId, target: NodeId, name: &str) -> Check {
    let subject = "slot on the target";
    match in_time(async { servers.server_of(target)?.return_slot(me).await }).await {
        Err(error) => Check::unknown(subject, format!("the slots of {name} are not known: {error}")),
        Ok(found) => match found.obstacle() {
            Some(obstacle) => Check::bad(subject, format!("{name}: {obstacle}")),
            None => Check::good(subject, format!("{name} has slot {}, or room for it", slot_name(me))),
        },
    }
}

/// Main would hand over, and then not be let in as a standby.
async fn login(servers: &Servers, target: NodeId, name: &str) -> Check {
    let subject = "replication login";
    match in_time(log_in(servers, target)).await {
        Ok(words) => Check::good(subject, words),
        Err(refusal) => Check::bad(subject, format!("PostgreSQL here could not follow {name}: {refusal}")),
    }
}

/// They stop nothing: they are given time to finish, and are ended then.
async fn open_transactions(servers: &Servers) -> Check {
    let subject = "open transactions";
    match in_time(servers.handover.open_transactions()).await {
        Err(error) => Check::unknown(subject, format!("how many are open is not known: {error}")),
        Ok(open) => Check::good(
            subject,
            match open.len() {
                0 => "none is open".to_owned(),
                1 => "1 is open: it may finish before the drain ends, else it is ended".to_owned(),
                many => {
                    format!("{many} are open: they may finish before the drain ends, else they are ended")
                }
            },
        )
        .with("open_transactions", open.len()),
    }
}

/// A server that is frozen says nothing at all.
pub(super) async fn in_time<T, E: ToString>(
    question: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match tokio::time::timeout(QUESTION_LIMIT, question).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {QUESTION_LIMIT:?}")),
    }
}
