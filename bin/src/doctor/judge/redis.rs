//! Each Redis: does it follow main's Redis, and would it serve in its place?

use interrex_actors::wire::RedisFacts;
use interrex_events::RedisStatus;

use super::silent;
use crate::doctor::{
    facts::{Facts, RedisServerFacts},
    finding::{Act, Check, Finding, Judgement, Subject},
};

/// The first version of Redis with the command `FAILOVER`.
const FAILOVER_SINCE: (u32, u32) = (6, 2);

const MOVES: &[Act] = &[Act::Failover, Act::Switchover];

const ABOUT: Subject = Subject::Redis;

const ANSWERS: Check = ABOUT.check(
    "redis_answers",
    MOVES,
    "each Redis lets the supervisor in with its password",
    "A run changes the role of Redis through this connection.",
);
const COMMANDS: Check = ABOUT.check(
    "redis_commands",
    &[Act::Failover, Act::Switchover, Act::Rejoin],
    "each Redis accepts the commands that change its role",
    "Redis refuses a renamed or forbidden command half-way through a run: the new master is then made by force, or not at all.",
);
const ROLE: Check = ABOUT.check(
    "redis_role",
    MOVES,
    "main's Redis is a master, and a secondary's Redis is a replica with its link up",
    "A replica without a link has old data, and an unfinished copy is no copy: a change of main loses what the replica lacks.",
);
const MIN_REPLICAS: Check = ABOUT.check(
    "redis_min_replicas",
    MOVES,
    "min-replicas-to-write asks for no more replicas than a new master has",
    "A new master without replicas refuses every write.",
);
const MASTER_PASSWORD: Check = ABOUT.check(
    "redis_masterauth",
    &[Act::Switchover, Act::Rejoin],
    "each Redis has a password for the others, if they demand one",
    "An old master becomes a replica: without masterauth its new master refuses it.",
);
const CONFIG_FILE: Check = ABOUT.check(
    "redis_config_file",
    MOVES,
    "each Redis was started with a configuration file",
    "Redis saves a changed role there: without a file a restart loses the role, and the data written since.",
);
const PERSISTENCE: Check = ABOUT.check(
    "redis_persistence",
    &[],
    "Redis saves its data, by appendonly or save",
    "A master that starts empty empties its replicas.",
);
const MEMORY: Check = ABOUT.check(
    "redis_memory_policy",
    &[],
    "every Redis has the same maxmemory-policy",
    "A new master with another policy may drop or refuse data that the old master kept.",
);
const FAILOVER: Check = ABOUT.check(
    "redis_failover",
    &[],
    "Redis is 6.2 or newer, and has the command FAILOVER",
    "Without FAILOVER a switchover disconnects the replica, and data on its way there is lost.",
);

pub(super) const CHECKS: &[&Check] = &[
    &ANSWERS,
    &COMMANDS,
    &ROLE,
    &MIN_REPLICAS,
    &MASTER_PASSWORD,
    &CONFIG_FILE,
    &PERSISTENCE,
    &MEMORY,
    &FAILOVER,
];

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let policies = |redis: &RedisServerFacts| {
        let others = facts.redis.values().flatten();
        others.map(|other| &other.memory_policy).all(|other| *other == redis.memory_policy)
    };
    let demanded = facts.redis.values().flatten().any(|redis| redis.demands_password);
    let mut findings = Vec::new();
    for (node, redis) in &facts.redis {
        let redis = match redis {
            Ok(redis) => redis,
            Err(reason) => {
                let settings = "redis.port and password_file";
                findings.push(ANSWERS.on(*node, silent(facts, *node, reason, settings)));
                continue;
            }
        };
        findings.push(ANSWERS.on(*node, Judgement::pass(format!("Redis {}", redis.version))));
        findings.push(COMMANDS.on(*node, commands(redis)));
        let astray = facts.supervisors.get(node).and_then(|supervisor| supervisor.report.as_ref().ok());
        let astray = astray.map(|report| &report.redis).filter(|redis| is_astray(redis));
        findings.push(ROLE.on(*node, role(redis, facts.main().map(|main| main == *node), astray)));
        // the settings could not be read
        if !redis.lacks.is_empty() {
            continue;
        }
        findings.push(MIN_REPLICAS.on(*node, min_replicas(redis, facts.nodes.len())));
        findings.push(MASTER_PASSWORD.on(*node, master_password(redis, demanded)));
        findings.push(CONFIG_FILE.on(*node, config_file(redis)));
        findings.push(PERSISTENCE.on(*node, persistence(redis)));
        findings.push(MEMORY.on(*node, memory(redis, policies(redis))));
        findings.push(FAILOVER.on(*node, failover(redis)));
    }
    findings
}

fn commands(redis: &RedisServerFacts) -> Judgement {
    Judgement::pass_or_fail(
        redis.lacks.is_empty(),
        if redis.lacks.is_empty() { "all commands are accepted".to_owned() } else { redis.lacks.join("; ") },
        "remove rename-command for that command from redis.conf and restart Redis, or allow the command: ACL SETUSER user +command",
    )
}

/// Whether a Redis follows another master than main's Redis, as its own supervisor reports.
fn is_astray(redis: &RedisFacts) -> bool {
    redis.status == RedisStatus::Unlinked && redis.upstream.is_some() && !redis.detail.is_empty()
}

fn role(redis: &RedisServerFacts, of_main: Option<bool>, astray: Option<&RedisFacts>) -> Judgement {
    if let Some(astray) = astray.filter(|_| !redis.master) {
        let fix =
            "REPLICAOF host port  # of main, in redis-cli; the supervisor does this within seconds if it can";
        return Judgement::pass_or_fail(false, &astray.detail, fix);
    }
    let words = match (redis.master, redis.linked) {
        (true, _) => format!("a master with {} replicas", redis.replicas),
        (false, true) => "a replica, linked".to_owned(),
        (false, false) => "a replica without a link".to_owned(),
    };
    let Some(of_main) = of_main else {
        return Judgement::unknown(words, "find out first which node is main: interrex status");
    };
    let fix = if of_main {
        "REPLICAOF NO ONE  # in redis-cli; the supervisor does this at its start"
    } else {
        "REPLICAOF host port  # of main, in redis-cli; then INFO replication"
    };
    Judgement::pass_or_fail(redis.master == of_main && (of_main || redis.linked), words, fix)
}

/// In a cluster of `nodes`, a new master has two replicas less: itself and the old master.
fn min_replicas(redis: &RedisServerFacts, nodes: usize) -> Judgement {
    let left = u64::try_from(nodes.saturating_sub(2)).unwrap_or(u64::MAX);
    Judgement::pass_or_fail(
        redis.min_replicas <= left,
        format!("min-replicas-to-write {}", redis.min_replicas),
        format!("CONFIG SET min-replicas-to-write {left}  # then CONFIG REWRITE"),
    )
}

fn master_password(redis: &RedisServerFacts, demanded: bool) -> Judgement {
    let words = match (demanded, redis.has_password_for_master) {
        (false, _) => "no password is demanded",
        (true, true) => "masterauth is set",
        (true, false) => "masterauth is not set",
    };
    let good = !demanded || redis.has_password_for_master;
    Judgement::pass_or_fail(
        good,
        words,
        "CONFIG SET masterauth ...  # requirepass of the others; then CONFIG REWRITE",
    )
}

fn config_file(redis: &RedisServerFacts) -> Judgement {
    let words = if redis.config_file.is_empty() { "started without a file" } else { &redis.config_file };
    Judgement::pass_or_fail(
        !redis.config_file.is_empty(),
        words,
        "start Redis with the file of redis.config_file: the supervisor does so",
    )
}

fn persistence(redis: &RedisServerFacts) -> Judgement {
    let append_only = if redis.append_only { "yes" } else { "no" };
    Judgement::pass_or_warn(
        redis.append_only || !redis.save.is_empty(),
        format!("appendonly {append_only}, save \"{}\"", redis.save),
        "CONFIG SET appendonly yes  # then CONFIG REWRITE",
    )
}

fn memory(redis: &RedisServerFacts, same_everywhere: bool) -> Judgement {
    let words = format!("maxmemory-policy {}", redis.memory_policy);
    Judgement::pass_or_warn(
        same_everywhere,
        words,
        "CONFIG SET maxmemory-policy ...  # the same on every node",
    )
}

fn failover(redis: &RedisServerFacts) -> Judgement {
    let mut parts = redis.version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    let words = if version >= FAILOVER_SINCE { "has FAILOVER" } else { "has no FAILOVER" };
    Judgement::pass_or_warn(version >= FAILOVER_SINCE, words, "install Redis 6.2 or newer")
}

#[cfg(test)]
mod tests {
    use interrex_events::{Address, NodeId};

    use super::*;
    use crate::doctor::{
        Verdict,
        examples::{ALPHA, BETA, wrong},
    };

    fn change(node: NodeId, change: fn(&mut RedisServerFacts)) -> Vec<(&'static str, Verdict)> {
        wrong(|facts| {
            if let Some(Ok(redis)) = facts.redis.get_mut(&node) {
                change(redis);
            }
        })
    }

    #[test]
    fn a_redis_that_would_not_serve_as_the_new_master_is_found() {
        assert_eq!(change(BETA, |redis| redis.linked = false), [("redis_role", Verdict::Fail)]);
        assert_eq!(change(ALPHA, |redis| redis.master = false), [("redis_role", Verdict::Fail)]);
        assert_eq!(change(BETA, |redis| redis.min_replicas = 1), [("redis_min_replicas", Verdict::Fail)]);
        let forgets = |redis: &mut RedisServerFacts| {
            redis.append_only = false;
            redis.save.clear();
        };
        assert_eq!(change(ALPHA, forgets), [("redis_persistence", Verdict::Warn)]);
        assert_eq!(
            change(BETA, |redis| redis.version = "6.0.16".to_owned()),
            [("redis_failover", Verdict::Warn)]
        );
        assert_eq!(change(BETA, |redis| redis.version = "10.0.1".to_owned()), []);
        let alone = |redis: &mut RedisServerFacts| redis.demands_password = true;
        assert_eq!(
            change(ALPHA, alone),
            [("redis_masterauth", Verdict::Fail), ("redis_masterauth", Verdict::Fail)]
        );
        assert_eq!(change(BETA, |redis| redis.config_file.clear()), [("redis_config_file", Verdict::Fail)]);
        assert_eq!(
            change(ALPHA, |redis| redis.lacks.push("CONFIG is renamed".to_owned())),
            [("redis_commands", Verdict::Fail)]
        );
        let follows_another = |facts: &mut Facts| {
            if let Some(Ok(report)) = facts.supervisors.get_mut(&BETA).map(|it| it.report.as_mut()) {
                report.redis = RedisFacts::silent(RedisStatus::Unlinked, "it follows 10.0.0.9:6379");
                report.redis.upstream = Some(Address::new("10.0.0.9", 6379));
            }
        };
        assert_eq!(wrong(follows_another), [("redis_role", Verdict::Fail)]);
        let policy = |redis: &mut RedisServerFacts| redis.memory_policy = "allkeys-lru".to_owned();
        assert_eq!(change(BETA, policy).len(), 2, "on both: it is not known which one is meant");
        assert_eq!(
            wrong(|facts| {
                facts.redis.insert(BETA, Err("refused".to_owned()));
            }),
            [("redis_answers", Verdict::Fail)]
        );
    }
}
