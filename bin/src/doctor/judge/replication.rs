//! Replication between main and its secondaries: on one timeline, connected now, each able to log in to the other.

use interrex_actors::ports::slot_name;
use interrex_events::NodeId;

use super::size;
use crate::doctor::{
    facts::{Facts, ServerFacts, Slot},
    finding::{ALL_ACTS, Act, Check, Finding, Judgement, Subject},
};

/// Bytes. With a standby that is further behind than this, a failover loses much and a switchover takes long.
const FAR_BEHIND: u64 = 64 << 20;
/// libpq's message if a server demands a password and the passfile has no line for it.
const NO_PASSWORD: &str = "no password supplied";

const NOBODY_USES_IT: &str = "no standby uses it";

const ABOUT: Subject = Subject::Replication;

const ONE_MAIN: Check = ABOUT.check(
    "one_main",
    ALL_ACTS,
    "exactly one PostgreSQL takes writes",
    "With two mains, each has rows that the other lacks; with none, a person must decide first.",
);
const SAME_TIMELINE: Check = ABOUT.check(
    "same_timeline",
    ALL_ACTS,
    "the secondary is on main's timeline",
    "A standby on another timeline looks healthy, but receives nothing: it needs a rejoin.",
);
const STREAMING: Check = ABOUT.check(
    "streaming",
    &[Act::Failover, Act::Switchover],
    "main reports that it sends WAL to the secondary now, and the secondary reports that it receives it",
    "A failover loses the WAL that was not sent, and a switchover is refused.",
);
const LAG: Check = ABOUT.check(
    "lag",
    &[],
    "the secondary is less than 64 MB behind",
    "A failover loses the WAL that has not arrived; a switchover waits for it while clients wait.",
);
const APPLIES: Check = ABOUT.check(
    "applies_at_once",
    &[],
    "the secondary replays received WAL at once: not paused, not delayed, along main's timeline",
    "A promotion first replays all received WAL, and clients wait for it. A standby with a fixed timeline follows no new main; \
     with a restore_command, the latest timeline may be one that main never had.",
);
const SLOT: Check = ABOUT.check(
    "slot",
    &[Act::Failover, Act::Switchover],
    "main has a replication slot for the secondary; it is in use and its WAL is there",
    "Without a slot main removes WAL that the standby still needs, and the standby can never catch up.",
);
const REPLICATION_LOGIN: Check = ABOUT.check(
    "replication_login",
    &[Act::Switchover, Act::Rejoin],
    "the replication user logs in from here to every server, for replication, with the passfile",
    "A standby connects in this way: without this check, a wrong password or pg_hba.conf shows only after the role has moved.",
);
pub(super) const CHECKS: &[&Check] =
    &[&ONE_MAIN, &SAME_TIMELINE, &STREAMING, &LAG, &APPLIES, &SLOT, &REPLICATION_LOGIN];

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![ONE_MAIN.found(None, one_main(facts))];
    if let Some((main, main_server)) = facts.main().and_then(|main| Some((main, facts.server(main)?))) {
        for node in facts.secondaries() {
            findings.extend(of_pair(facts, (main, main_server), node));
        }
    }
    for (node, login) in &facts.replication_logins {
        findings.push(REPLICATION_LOGIN.judge(*node, login, |login| replication_login(facts, *node, login)));
    }
    findings
}

fn of_pair(facts: &Facts, (main, main_server): (NodeId, &ServerFacts), node: NodeId) -> Vec<Finding> {
    let Some(standby) = facts.server(node) else {
        // a server that does not answer has a finding of its own; what main keeps for it is still worth a finding
        return vec![SLOT.on(node, kept_for_one_away(slot(facts.name(main), &slot_name(node), main_server)))];
    };
    vec![
        SAME_TIMELINE.on(node, same_timeline(main_server, standby, facts.name(node))),
        STREAMING.on(node, streaming(main_server, standby, node)),
        LAG.on(node, lag(main_server, node)),
        APPLIES.on(node, applies_at_once(standby)),
        SLOT.on(node, slot(facts.name(main), &slot_name(node), main_server)),
    ]
}

fn one_main(facts: &Facts) -> Judgement {
    let names: Vec<&str> = facts.primaries().iter().map(|node| facts.name(*node)).collect();
    match names.as_slice() {
        [only] => Judgement::pass(format!("{only} alone takes writes")),
        [] => Judgement::fail("no PostgreSQL that answers takes writes", "interrex status  # on every node"),
        several => Judgement::fail(
            format!("{} take writes: two mains", several.join(" and ")),
            "stop clients, keep both data directories, then: interrex status; interrex timeline",
        ),
    }
}

fn same_timeline(main: &ServerFacts, standby: &ServerFacts, name: &str) -> Judgement {
    match (main.timeline, standby.timeline) {
        (Some(main), Some(own)) if main == own => Judgement::pass(format!("timeline {own}")),
        (Some(main), Some(own)) => Judgement::fail(
            format!("timeline {own}, main has {main}"),
            format!(
                "let it log in to main: see the checks below; if that is not enough: interrex rejoin {name}"
            ),
        ),
        _ => Judgement::unknown(
            "a server does not report its timeline",
            "in a moment, run again: interrex doctor",
        ),
    }
}

fn standby_of(main: &ServerFacts, node: NodeId) -> Option<&crate::doctor::facts::Standby> {
    let (slot, name) = (slot_name(node), format!("interrex_{node}"));
    main.standbys.iter().find(|standby| standby.slot.as_deref() == Some(&slot) || standby.name == name)
}

fn streaming(main: &ServerFacts, standby: &ServerFacts, node: NodeId) -> Judgement {
    let sent = standby_of(main, node).map_or("nothing", |standby| standby.state.as_str());
    let received = standby.receiver.as_ref().map_or("nothing", |receiver| receiver.status.as_str());
    Judgement::pass_or_fail(
        sent == "streaming" && received == "streaming",
        format!("main reports {sent}, the WAL receiver reports {received}"),
        "interrex status; SHOW primary_conninfo;  -- and read the end of the secondary's log",
    )
}

fn lag(main: &ServerFacts, node: NodeId) -> Judgement {
    match standby_of(main, node).and_then(|standby| standby.behind_bytes) {
        Some(bytes) => {
            let bytes = u64::try_from(bytes).unwrap_or(0);
            Judgement::pass_or_warn(
                bytes < FAR_BEHIND,
                format!("{bytes} bytes behind"),
                "wait, or find out what slows the standby down: interrex status",
            )
        }
        None => Judgement::unknown("main does not send to it", "see the check streaming"),
    }
}

fn applies_at_once(standby: &ServerFacts) -> Judgement {
    let delay = standby.number("recovery_min_apply_delay").unwrap_or(0);
    let timeline = standby.setting("recovery_target_timeline");
    let restores = !standby.setting("restore_command").is_empty();
    let own = standby.timeline.map(|timeline| timeline.to_string()).unwrap_or_default();
    let words = match (standby.replay_paused, delay, timeline) {
        (true, ..) => "replay is paused".to_owned(),
        (false, 0, "latest") if restores => {
            let fix = format!("ALTER SYSTEM SET recovery_target_timeline = '{own}';  -- and restart it");
            let words = "recovery_target_timeline is latest, with a restore_command: with a foreign history file in the archive, \
                         the standby would follow a wrong timeline after its next start";
            return Judgement::warn(words, fix);
        }
        (false, 0, "latest") => return Judgement::pass("at once, along the latest timeline"),
        (false, 0, timeline) if restores && timeline == own => {
            return Judgement::pass(
                "at once, along main's timeline; a new timeline needs a restart of the standby",
            );
        }
        (false, 0, timeline) => format!("recovery_target_timeline is {timeline}"),
        (false, delay, _) => format!("recovery_min_apply_delay is {delay} ms"),
    };
    let fix = if standby.replay_paused {
        "SELECT pg_wal_replay_resume();"
    } else {
        "ALTER SYSTEM RESET recovery_min_apply_delay; ALTER SYSTEM RESET recovery_target_timeline;  -- and restart it"
    };
    Judgement::warn(words, fix)
}

/// The slot as main has it.
fn slot(main_name: &str, name: &str, main: &ServerFacts) -> Judgement {
    let create = format!("SELECT pg_create_physical_replication_slot('{name}', true);  -- on {main_name}");
    match main.slots.iter().find(|slot| slot.name == name) {
        None => Judgement::fail(format!("main has no slot {name}"), create),
        Some(Slot { wal_status: Some(status), active, .. }) => match status.as_str() {
            "reserved" | "extended" if *active => {
                Judgement::pass(format!("{name} is in use and keeps its WAL"))
            }
            "reserved" | "extended" => Judgement::fail(
                format!("{name} keeps its WAL, but {NOBODY_USES_IT}"),
                format!(
                    "ALTER SYSTEM SET primary_slot_name = '{name}'; SELECT pg_reload_conf();  -- on the secondary"
                ),
            ),
            "unreserved" => Judgement::warn(
                format!("{name} is about to lose its WAL"),
                set_larger("max_slot_wal_keep_size", main),
            ),
            lost => Judgement::fail(
                format!("{name} is {lost}: its standby must be copied again"),
                format!(
                    "SELECT pg_drop_replication_slot('{name}');  -- on {main_name}, then copy: pg_basebackup -R"
                ),
            ),
        },
        Some(_) => Judgement::fail(
            format!("{name} keeps no WAL yet"),
            format!("SELECT pg_drop_replication_slot('{name}'); {create}"),
        ),
    }
}

/// While a node does not answer, an unused slot is expected; but its WAL fills main's disk while the node is away.
fn kept_for_one_away(judgement: Judgement) -> Judgement {
    if judgement.measured.ends_with(NOBODY_USES_IT) {
        return Judgement::warn(
            judgement.measured,
            "bring the node back, or drop the slot before main's disk is full",
        );
    }
    judgement
}

fn set_larger(name: &str, server: &ServerFacts) -> String {
    let now = server.number(name).unwrap_or(0).max(512);
    format!("ALTER SYSTEM SET {name} = '{}MB'; SELECT pg_reload_conf();  -- on main", now * 2)
}

fn replication_login(facts: &Facts, node: NodeId, login: &Result<String, String>) -> Judgement {
    let name = facts.name(node);
    if login.is_err() && facts.servers.get(&node).is_some_and(Result::is_err) {
        return Judgement::unknown(
            format!("PostgreSQL of {name} does not answer"),
            "see the check postgres_answers",
        );
    }
    let expected = facts.server(node).map(|server| server.system_id.as_str());
    match login {
        Ok(system_id) if expected.is_none_or(|expected| expected == system_id) => {
            Judgement::pass(format!("{} logs in to {name}", facts.replication_user))
        }
        Ok(other) => Judgement::fail(
            format!("a server with system identifier {other} answers"),
            format!("correct the address of {name} in the configuration"),
        ),
        // this node never replicates from itself: its passfile need not know it
        Err(reason) if node == facts.here && reason.contains(NO_PASSWORD) => Judgement::pass(
            "the passfile has no line for this node itself: run interrex doctor on the other nodes",
        ),
        Err(reason) => {
            let fix = format!(
                "correct the line of {name} in postgres.replication_passfile, and in its pg_hba.conf: host replication {} ADDRESS \
                 scram-sha-256",
                facts.replication_user
            );
            // doctor on the other nodes proves that they may log in
            if node == facts.here { Judgement::warn(reason, fix) } else { Judgement::fail(reason, fix) }
        }
    }
}

/// Bytes of WAL that main may keep for an absent standby, and the same as a message.
pub(super) fn log_to_hold(server: &ServerFacts) -> Option<(u64, String)> {
    let megabytes = |name| server.number(name).and_then(|value| u64::try_from(value).ok());
    let held = megabytes("max_slot_wal_keep_size")?.saturating_add(megabytes("max_wal_size")?) << 20;
    Some((held, format!("max_slot_wal_keep_size and max_wal_size together are {}", size(held))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{
        Verdict,
        examples::{ALPHA, BETA, change, wrong},
    };

    #[test]
    fn a_slot_is_there_in_use_and_keeps_its_log_or_says_what_is_wrong() {
        let with = |status: &str, active| {
            wrong(|facts| {
                change(facts, ALPHA, |server| {
                    server.slots[0].wal_status = Some(status.to_owned());
                    server.slots[0].active = active;
                });
            })
        };
        assert_eq!(with("extended", true), []);
        assert_eq!(with("reserved", false), [("slot", Verdict::Fail)]);
        assert_eq!(with("unreserved", true), [("slot", Verdict::Warn)]);
        assert_eq!(with("lost", false), [("slot", Verdict::Fail)]);
        let away = wrong(|facts| {
            facts.servers.insert(BETA, Err("refused".to_owned().into()));
            change(facts, ALPHA, |server| server.slots[0].active = false);
        });
        assert_eq!(away, [("postgres_answers", Verdict::Fail), ("slot", Verdict::Warn)]);
        let none = wrong(|facts| change(facts, ALPHA, |server| server.slots.clear()));
        assert_eq!(none, [("slot", Verdict::Fail)]);
    }

    #[test]
    fn a_secondary_of_another_cluster_version_or_timeline_is_none() {
        let beta = |change_it: fn(&mut ServerFacts)| wrong(|facts| change(facts, BETA, change_it));
        assert_eq!(
            beta(|server| server.system_id = "8".to_owned()),
            [("replication_login", Verdict::Fail), ("same_cluster", Verdict::Fail)]
        );
        assert_eq!(beta(|server| server.version = 160_001), [("same_version", Verdict::Fail)]);
        assert_eq!(beta(|server| server.timeline = Some(2)), [("same_timeline", Verdict::Fail)]);
        assert_eq!(beta(|server| server.receiver = None), [("streaming", Verdict::Fail)]);
        assert_eq!(beta(|server| server.replay_paused = true), [("applies_at_once", Verdict::Warn)]);
        let restoring = |timeline: &str| {
            wrong(|facts| {
                change(facts, BETA, |server| {
                    for (name, value) in [("restore_command", "cp"), ("recovery_target_timeline", timeline)] {
                        server.settings.insert(name.to_owned(), value.to_owned());
                    }
                });
            })
        };
        assert_eq!(restoring("latest"), [("applies_at_once", Verdict::Warn)]);
        assert_eq!(restoring("1"), []);
        assert_eq!(restoring("2"), [("applies_at_once", Verdict::Warn)]);
        let two_mains = beta(|server| server.in_recovery = false);
        assert_eq!(two_mains.first(), Some(&("one_main", Verdict::Fail)));
    }

    #[test]
    fn a_login_that_fails_at_a_peer_fails_and_here_it_warns() {
        let login = |node, words: &str| {
            wrong(|facts| {
                facts.replication_logins.insert(node, Ok(Err(words.to_owned())));
            })
        };
        assert_eq!(login(BETA, "wrong password"), [("replication_login", Verdict::Fail)]);
        assert_eq!(login(ALPHA, "wrong password"), [("replication_login", Verdict::Warn)]);
        assert_eq!(login(BETA, "fe_sendauth: no password supplied"), [("replication_login", Verdict::Fail)]);
        assert_eq!(login(ALPHA, "fe_sendauth: no password supplied"), []);
        let down = wrong(|facts| {
            facts.servers.insert(BETA, Err("refused".to_owned().into()));
            facts.replication_logins.insert(BETA, Ok(Err("refused".to_owned())));
        });
        assert_eq!(down, [("postgres_answers", Verdict::Fail), ("replication_login", Verdict::Unknown)]);
        let not_attempted = wrong(|facts| {
            facts.replication_logins.insert(BETA, Err("there is no psql".to_owned()));
        });
        assert_eq!(not_attempted, [("replication_login", Verdict::Unknown)]);
    }
}
