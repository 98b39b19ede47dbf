//! What nodes must have in common so that each can follow the other.

use interrex_actors::ports::{StandbyLimits, TooSmall};
use interrex_events::NodeId;

use crate::doctor::{
    facts::{Collation, Facts, ServerFacts},
    finding::{ALL_ACTS, Act, Check, Finding, Judgement, Subject},
};

/// Clocks further apart than this make the story hard to read.
const CLOCKS_WARN_MS: u64 = 500;
/// Peers do not follow clocks that are further apart than this, and times of day mean nothing.
const CLOCKS_FAIL_MS: u64 = 5_000;

const ABOUT: Subject = Subject::Replication;

const SAME_CLUSTER: Check = ABOUT.check(
    "same_cluster",
    ALL_ACTS,
    "the secondary's system identifier is main's",
    "Another identifier means another database: it has none of main's data.",
);
const SAME_VERSION: Check = ABOUT.check(
    "same_version",
    ALL_ACTS,
    "both have the same major version",
    "Physical replication and pg_rewind work only between equal major versions.",
);
const STANDBY_LIMITS: Check = ABOUT.check(
    "standby_limits",
    ALL_ACTS,
    "at its next start, no limit of a node is below that of the node it would follow, now or after a change of main",
    "A standby whose limits are below main's refuses to start, or stops replaying.",
);
const COLLATIONS: Check = ABOUT.check(
    "collations",
    &[Act::Failover, Act::Switchover],
    "both nodes sort text by the same version of their collations, and their indexes were built with that version",
    "Another version of the C library or ICU sorts text differently: an index no longer finds rows that exist.",
);
const CLOCKS: Check = ABOUT.check(
    "clocks",
    &[],
    "the servers' clocks are within half a second of this machine's clock; a difference of five seconds fails",
    "Times in the story cannot be compared, and peers do not follow a clock that is far off.",
);

pub(super) const CHECKS: &[&Check] = &[&SAME_CLUSTER, &SAME_VERSION, &STANDBY_LIMITS, &COLLATIONS, &CLOCKS];

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(main) = facts.main() {
        findings.extend(facts.secondaries().into_iter().flat_map(|node| of_pair(facts, main, node)));
    }
    for (node, server) in &facts.servers {
        if let Ok(server) = server
            && *node != facts.here
        {
            findings.push(CLOCKS.on(*node, clocks(server)));
        }
    }
    findings
}

/// A node that does not answer has a finding of its own.
fn of_pair(facts: &Facts, main: NodeId, node: NodeId) -> Vec<Finding> {
    let (Some(main_server), Some(standby)) = (facts.server(main), facts.server(node)) else {
        return Vec::new();
    };
    let (of_main, of_standby) = ((facts.name(main), main_server), (facts.name(node), standby));
    vec![
        SAME_CLUSTER.on(node, same_cluster(main_server, standby)),
        SAME_VERSION.on(node, same_version(main_server, standby)),
        STANDBY_LIMITS.on(node, standby_limits(of_standby, of_main)),
        STANDBY_LIMITS.on(main, standby_limits(of_main, of_standby)),
        COLLATIONS.on(node, collations(of_main, of_standby)),
    ]
}

fn same_cluster(main: &ServerFacts, standby: &ServerFacts) -> Judgement {
    Judgement::pass_or_fail(
        main.system_id == standby.system_id,
        if main.system_id == standby.system_id {
            format!("system identifier {}", main.system_id)
        } else {
            format!("system identifier {}, main has {}", standby.system_id, main.system_id)
        },
        "make a new copy of main: pg_basebackup -R",
    )
}

fn same_version(main: &ServerFacts, standby: &ServerFacts) -> Judgement {
    let (ours, theirs) = (standby.major(), main.major());
    Judgement::pass_or_fail(
        ours == theirs,
        if ours == theirs { format!("both {ours}") } else { format!("{ours}, main has {theirs}") },
        format!("install PostgreSQL {theirs} on that node"),
    )
}

/// Whether a node could follow the other node. Asked both ways: after a change of main the old main is the standby.
fn standby_limits(
    (name, server): (&str, &ServerFacts),
    (other_name, other): (&str, &ServerFacts),
) -> Judgement {
    let limits = |(name, server): (&str, &ServerFacts)| {
        let setting = |limit: &str| server.at_next_start.get(limit).map(String::as_str);
        StandbyLimits::read(setting).map_err(|limit| {
            // PostgreSQL reports such a line as a change that waits for a restart
            let value = setting(limit).unwrap_or_default();
            Judgement::fail(
                format!("{limit} is `{value}` on {name}, which is not a number"),
                format!("correct {limit} in the configuration file"),
            )
        })
    };
    let (own, others) = match (limits((name, server)), limits((other_name, other))) {
        (Ok(own), Ok(others)) => (own, others),
        (Err(wrong), _) | (_, Err(wrong)) => return wrong,
    };
    let low = own.smaller_than(others);
    let told = |words: &dyn Fn(&TooSmall) -> String| low.iter().map(words).collect::<Vec<_>>();
    Judgement::pass_or_fail(
        low.is_empty(),
        if low.is_empty() {
            format!("{} limits are at least those of {other_name}", StandbyLimits::NAMES.len())
        } else {
            told(&|limit| format!("{} is {}, on {other_name} {}", limit.name, limit.has, limit.needs))
                .join("; ")
        },
        told(&|limit| {
            format!("ALTER SYSTEM SET {} = {};  -- on {name}, and restart it", limit.name, limit.needs)
        })
        .join("  "),
    )
}

fn collations((main_name, main): (&str, &ServerFacts), (name, standby): (&str, &ServerFacts)) -> Judgement {
    for (server_name, server) in [(main_name, main), (name, standby)] {
        let stale =
            |versions: &Collation| versions.recorded.is_some() && versions.recorded != versions.actual;
        if let Some((database, versions)) = server.collations.iter().find(|(_, versions)| stale(versions)) {
            let [recorded, actual] =
                [&versions.recorded, &versions.actual].map(|version| version.as_deref().unwrap_or("none"));
            return Judgement::fail(
                format!(
                    "indexes of {database} were built with collation version {recorded}, and {server_name} sorts with {actual}"
                ),
                format!(
                    "install the same operating system on both; or: REINDEX DATABASE {database}; ALTER DATABASE {database} \
                     REFRESH COLLATION VERSION;"
                ),
            );
        }
    }
    let [main_libc, libc] = [main, standby].map(|server| server.libc.as_deref().unwrap_or("unknown"));
    Judgement::pass_or_warn(
        main_libc == libc,
        if main_libc == libc {
            format!("both sort text the same way (C library {libc})")
        } else {
            format!("C library {libc}, main has {main_libc}")
        },
        "install the same release of the operating system on both; after a change of main, REINDEX every index on text",
    )
}

fn clocks(server: &ServerFacts) -> Judgement {
    let Some(distance) = server.clock else {
        return Judgement::unknown("the server did not report its time", "run again: interrex doctor");
    };
    let fix = "chronyc tracking  # or timedatectl, on both machines";
    match distance.at_least_ms {
        ms if ms > CLOCKS_FAIL_MS => Judgement::fail(format!("at least {ms} ms apart"), fix),
        ms if ms > CLOCKS_WARN_MS => Judgement::warn(format!("at least {ms} ms apart"), fix),
        _ => Judgement::pass(format!("at most {} ms apart", distance.at_most_ms)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{
        Verdict,
        examples::{ALPHA, BETA, change, healthy, wrong},
        facts::ClockDistance,
    };

    #[test]
    fn a_limit_that_differs_fails_on_the_lower_one_and_tells_the_value() {
        let mut facts = healthy();
        change(&mut facts, BETA, |server| {
            server.at_next_start.insert("max_connections".to_owned(), "5".to_owned());
        });
        let [main, standby] = [ALPHA, BETA].map(|node| (facts.name(node), facts.server(node).unwrap()));
        let found = standby_limits(standby, main);
        assert_eq!(found.measured, "max_connections is 5, on alpha 10");
        assert_eq!(
            found.fix.as_deref(),
            Some("ALTER SYSTEM SET max_connections = 10;  -- on beta, and restart it")
        );
        assert_eq!(
            standby_limits(main, standby).verdict,
            Verdict::Pass,
            "a standby that has less than main cannot follow; main could follow it"
        );
        let no_number = |server: &mut ServerFacts| {
            server.at_next_start.insert("max_connections".to_owned(), "many".to_owned());
        };
        let fails = ("standby_limits", Verdict::Fail);
        assert_eq!(wrong(|facts| change(facts, BETA, no_number)), [fails, fails]);
    }

    #[test]
    fn another_c_library_warns_and_an_index_that_sorts_otherwise_fails() {
        let beta = |change_it: fn(&mut ServerFacts)| wrong(|facts| change(facts, BETA, change_it));
        assert_eq!(beta(|server| server.libc = Some("2.41".to_owned())), [("collations", Verdict::Warn)]);
        let stale = |server: &mut ServerFacts| {
            let [recorded, actual] = ["2.36", "2.41"].map(|version| Some(version.to_owned()));
            server.collations.insert("shop".to_owned(), Collation { recorded, actual });
        };
        assert_eq!(beta(stale), [("collations", Verdict::Fail)]);
    }

    #[test]
    fn clocks_warn_at_half_a_second_and_fail_at_five() {
        let apart = |at_least_ms| {
            wrong(|facts| {
                change(facts, BETA, |server| {
                    server.clock = Some(ClockDistance { at_least_ms, at_most_ms: at_least_ms + 2 });
                });
            })
        };
        assert_eq!(apart(500), []);
        assert_eq!(apart(501), [("clocks", Verdict::Warn)]);
        assert_eq!(apart(5_001), [("clocks", Verdict::Fail)]);
    }
}
