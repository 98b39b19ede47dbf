//! Each PostgreSQL by itself: would it serve as main, and could it come back as a standby?

use interrex_adapters::postgres::inherited::{READ_ONLY as READ_ONLY_DEFAULT, is_on};
use interrex_events::{Address, NodeId, postgres::identifier};

use super::silent;
use crate::doctor::{
    facts::{Facts, FileLine, NoAnswer, ServerFacts},
    finding::{ALL_ACTS, Act, Check, Finding, Judgement, Subject},
};

const ABOUT: Subject = Subject::PostgreSql;

const ANSWERS: Check = ABOUT.check(
    "postgres_answers",
    ALL_ACTS,
    "each PostgreSQL lets the supervisor's user in, and reports its state",
    "Every run uses this connection to measure, stop or promote PostgreSQL, or to make it follow.",
);
const SUPERUSER: Check = ABOUT.check(
    "postgres_superuser",
    ALL_ACTS,
    "the supervisor's user is a superuser",
    "PostgreSQL refuses promotion, ALTER SYSTEM and slots to any other user, in the middle of a run.",
);
const REPLICATION_ROLE: Check = ABOUT.check(
    "replication_role",
    &[Act::Switchover, Act::Rejoin],
    "the replication user may log in and replicate, and its password has not expired",
    "After a change of main the other node logs in here as that user; without it the cluster has no standby.",
);
const WAL_LEVEL: Check = ABOUT.check(
    "wal_level",
    ALL_ACTS,
    "wal_level is replica or logical",
    "With wal_level minimal no standby can follow, and a change of it needs a restart.",
);
const HOT_STANDBY: Check = ABOUT.check(
    "hot_standby",
    ALL_ACTS,
    "hot_standby is on",
    "The supervisor cannot measure or promote a standby that accepts no connections.",
);
const SENDERS_ROOM: Check = ABOUT.check(
    "senders_room",
    &[Act::Switchover, Act::Rejoin],
    "max_wal_senders and max_replication_slots leave room for every other node and a base backup",
    "Without a free sender or slot no standby can connect to this node when it is main.",
);
const REWIND_POSSIBLE: Check = ABOUT.check(
    "rewind_possible",
    &[],
    "full_page_writes, and wal_log_hints or data checksums",
    "Without them pg_rewind refuses to run: a rejoin then copies all of main's data, which takes longer the larger they are.",
);
const SLOT_LIMIT: Check = ABOUT.check(
    "slot_limit",
    &[],
    "max_slot_wal_keep_size is limited",
    "Main keeps its WAL for a standby that is away: without a limit that WAL fills main's disk.",
);
const SYNCHRONOUS: Check = ABOUT.check(
    "synchronous_standbys",
    &[Act::Failover, Act::Switchover],
    "synchronous_standby_names would not block any commit",
    "A main that waits for a missing synchronous standby acknowledges no write, and no timeout ends the wait.",
);
const READ_ONLY: Check = ABOUT.check(
    "read_only_default",
    &[Act::Failover, Act::Switchover],
    "default_transaction_read_only is off, for the server and for the clients of every database",
    "Clients of a new main could not write. A change of main clears the setting in the server's files, and does not change \
     databases and roles; if the setting is on the server's command line, the change of main is refused.",
);
const ARCHIVING: Check = ABOUT.check(
    "archiving",
    &[Act::Switchover],
    "the archiver, if there is one, succeeds",
    "PostgreSQL waits for its archiver before it stops: a switchover would hang when it stops main, and the disk fills up.",
);
const PREPARED: Check = ABOUT.check(
    "prepared_transactions",
    &[],
    "no prepared transaction is undecided",
    "A prepared transaction and its locks survive the change of main, until a person commits it or rolls it back there.",
);
const RESTART_AFTER_CRASH: Check = ABOUT.check(
    "restart_after_crash",
    &[],
    "restart_after_crash is on",
    "With the setting off, one crashed session ends the server: that causes a failover, although the server could recover in a \
     second.",
);
const ENDS_RECOVERY: Check = ABOUT.check(
    "ends_recovery",
    &[],
    "no configuration file would end the recovery of a standby",
    "A standby with such a setting promotes itself, or does not start. When the supervisor makes or starts a standby, it overrides \
     the setting in postgresql.auto.conf; in a standby that is made by hand the setting is in force.",
);
const UNLOGGED: Check = ABOUT.check(
    "unlogged_tables",
    &[],
    "no table is unlogged",
    "Unlogged tables are not replicated: on a new main they are empty.",
);
const TABLESPACES: Check = ABOUT.check(
    "tablespaces",
    &[],
    "no tablespace is outside the data directory",
    "A rejoin that cannot rewind makes a copy, and does not copy tablespaces outside the data directory: a person has to.",
);
const FILES: Check = ABOUT.check(
    "settings_files",
    &[Act::Switchover, Act::Rejoin],
    "the server would accept every line of its configuration files at its next start",
    "A line with an error keeps the server from starting, and that shows only when a run restarts it.",
);

pub(super) const CHECKS: &[&Check] = &[
    &ANSWERS,
    &SUPERUSER,
    &REPLICATION_ROLE,
    &WAL_LEVEL,
    &HOT_STANDBY,
    &SENDERS_ROOM,
    &REWIND_POSSIBLE,
    &SLOT_LIMIT,
    &SYNCHRONOUS,
    &READ_ONLY,
    &ARCHIVING,
    &PREPARED,
    &RESTART_AFTER_CRASH,
    &ENDS_RECOVERY,
    &UNLOGGED,
    &TABLESPACES,
    &FILES,
];

/// Judges every server. A server that does not answer has only that finding.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    facts.nodes.iter().flat_map(|named| of_server(facts, named.id, &named.postgres)).collect()
}

fn of_server(facts: &Facts, node: NodeId, address: &Address) -> Vec<Finding> {
    let server = match facts.servers.get(&node) {
        Some(Ok(server)) => server,
        Some(Err(NoAnswer { words, code: Some(code) })) => {
            return vec![ANSWERS.on(node, Judgement::fail(words, let_in(code, facts.name(node))))];
        }
        Some(Err(NoAnswer { words, code: None })) => {
            let settings = "postgres.host and port";
            return vec![ANSWERS.on(node, silent(facts, node, words, settings))];
        }
        None => return Vec::new(),
    };
    let role = if server.in_recovery { "standby" } else { "primary" };
    let version = server.version;
    let words = format!("{address} is a {role} of version {}.{}", version / 10_000, version % 10_000);
    let mut findings = vec![
        ANSWERS.on(node, Judgement::pass(words)),
        SUPERUSER.on(node, superuser(server)),
        REPLICATION_ROLE.on(node, replication_role(server, &facts.replication_user)),
        WAL_LEVEL.on(node, wal_level(server)),
        HOT_STANDBY.on(node, hot_standby(server)),
        SENDERS_ROOM.on(node, senders_room(server, facts.nodes.len())),
        REWIND_POSSIBLE.on(node, rewind_possible(server)),
        SLOT_LIMIT.on(node, slot_limit(server)),
        SYNCHRONOUS.on(node, synchronous(server)),
        READ_ONLY.on(node, read_only(server)),
        ARCHIVING.on(node, archiving(server)),
        RESTART_AFTER_CRASH.on(node, restart_after_crash(server)),
        ENDS_RECOVERY.on(node, ends_recovery(server)),
        FILES.on(node, files(server)),
    ];
    if !server.in_recovery {
        findings.push(PREPARED.on(node, prepared(server.prepared)));
        findings.push(TABLESPACES.on(node, tablespaces(&server.tablespaces)));
    }
    if let Some(tables) = &server.unlogged {
        // a promotion works all the same: missing knowledge is a risk, not an obstacle
        let by_hand = "in each database: SELECT oid::regclass FROM pg_class WHERE relpersistence = 'u';";
        let not_listed = |reason: &String| Judgement::warn(reason, by_hand);
        findings.push(UNLOGGED.on(node, tables.as_ref().map_or_else(not_listed, |tables| unlogged(tables))));
    }
    findings
}

/// The fix by the SQLSTATE of the refusal: the message is in the server's language.
fn let_in(code: &str, name: &str) -> String {
    let fix = match code {
        "28P01" => {
            "write the password of postgres.user into postgres.password_file, or set the role's password to the one in that file"
        }
        "28000" => {
            "let postgres.user in from here: add a line to pg_hba.conf there, then SELECT pg_reload_conf(); or, if the role is \
             missing or may not log in, create or change the role"
        }
        "3D000" => "set postgres.database to a database that exists",
        "55000" => {
            "allow connections to the database of postgres.database: ALTER DATABASE ... ALLOW_CONNECTIONS true;"
        }
        "53300" => {
            "end sessions there, or raise max_connections, which needs a restart; superuser_reserved_connections keeps room for a \
             supervisor that is a superuser"
        }
        "42501" => "let postgres.user connect: the role must be a superuser",
        "57P03" => "wait until the server has started or stopped; its own log shows how far it is",
        "53100" => "free space on its disk",
        "53200" => "free memory on its machine",
        "58030" | "XX001" | "XX002" => "check its disk, and read its own log",
        _ => "the server answers, but refuses the supervisor: read its own log",
    };
    format!("on {name}: {fix}; then: interrex doctor")
}

/// A command for `psql` that changes a setting, with a note if the change needs a restart.
fn set(name: &str, value: &str, restart: bool) -> String {
    let then = if restart { "-- and restart it" } else { "SELECT pg_reload_conf();" };
    format!("ALTER SYSTEM SET {name} = {value}; {then}")
}

fn superuser(server: &ServerFacts) -> Judgement {
    let words = if server.superuser { "a superuser" } else { "not a superuser" };
    Judgement::pass_or_fail(
        server.superuser,
        words,
        "ALTER ROLE interrex SUPERUSER;  -- or the role of postgres.user",
    )
}

fn replication_role(server: &ServerFacts, user: &str) -> Judgement {
    let quoted = identifier(user);
    match server.replication_role {
        None => Judgement::fail(
            format!("there is no role {user}"),
            format!("CREATE ROLE {quoted} LOGIN REPLICATION PASSWORD '...';  -- on main"),
        ),
        Some(role) if !role.login || !role.replication => Judgement::fail(
            format!("{user} lacks LOGIN or REPLICATION"),
            format!("ALTER ROLE {quoted} LOGIN REPLICATION;  -- on main"),
        ),
        Some(role) if role.expired => Judgement::fail(
            format!("the password of {user} has expired"),
            format!("ALTER ROLE {quoted} VALID UNTIL 'infinity';  -- on main"),
        ),
        Some(_) => Judgement::pass(format!("{user} may replicate")),
    }
}

fn wal_level(server: &ServerFacts) -> Judgement {
    let level = server.setting("wal_level");
    Judgement::pass_or_fail(
        matches!(level, "replica" | "logical"),
        format!("wal_level {level}"),
        set("wal_level", "'replica'", true),
    )
}

fn hot_standby(server: &ServerFacts) -> Judgement {
    let value = server.setting("hot_standby");
    Judgement::pass_or_fail(value == "on", format!("hot_standby {value}"), set("hot_standby", "on", true))
}

/// One sender for each other node and two for a base backup, which streams the WAL and the files; one slot for each other node
/// and one for the backup.
fn senders_room(server: &ServerFacts, nodes: usize) -> Judgement {
    let others = i64::try_from(nodes.saturating_sub(1)).unwrap_or(i64::MAX);
    let slots = server.number("max_replication_slots").unwrap_or(0);
    let senders = server.number("max_wal_senders").unwrap_or(0);
    let ours = |slot: &&crate::doctor::facts::Slot| slot.name.starts_with("replica_");
    let foreign = i64::try_from(server.slots.iter().filter(|slot| !ours(slot)).count()).unwrap_or(i64::MAX);
    let measured =
        format!("max_wal_senders {senders}, max_replication_slots {slots}, {foreign} slots used by others");
    if senders < others || slots - foreign < others {
        let fix = format!(
            "{}  {}",
            set("max_wal_senders", &(others + 3).to_string(), true),
            set("max_replication_slots", &(others + foreign + 2).to_string(), true)
        );
        return Judgement::fail(measured, fix);
    }
    Judgement::pass_or_warn(
        senders >= others + 2 && slots - foreign > others,
        measured,
        set("max_wal_senders", &(others + 3).to_string(), true),
    )
}

fn rewind_possible(server: &ServerFacts) -> Judgement {
    let names = ["full_page_writes", "wal_log_hints", "data_checksums"];
    let measured = names.map(|name| format!("{name} {}", server.setting(name))).join(", ");
    let on = |name| server.setting(name) == "on";
    let mut fixes = Vec::new();
    if !on("full_page_writes") {
        fixes.push(set("full_page_writes", "on", false));
    }
    if !on("wal_log_hints") && !on("data_checksums") {
        fixes.push(set("wal_log_hints", "on", true));
    }
    Judgement::pass_or_warn(fixes.is_empty(), measured, fixes.join("  "))
}

fn slot_limit(server: &ServerFacts) -> Judgement {
    match server.number("max_slot_wal_keep_size") {
        Some(-1) => Judgement::warn(
            "max_slot_wal_keep_size is unlimited (a new main sets 10GB)",
            set("max_slot_wal_keep_size", "'10GB'", false),
        ),
        Some(megabytes) => Judgement::pass(format!(
            "max_slot_wal_keep_size {megabytes} MB, wal_keep_size {} MB",
            server.setting("wal_keep_size")
        )),
        None => Judgement::unknown(
            "the server does not report max_slot_wal_keep_size",
            "install PostgreSQL 13 or newer",
        ),
    }
}

fn synchronous(server: &ServerFacts) -> Judgement {
    let names = server.setting("synchronous_standby_names");
    if names.is_empty() {
        return Judgement::pass("synchronous_standby_names is empty");
    }
    if server.on_command_line("synchronous_standby_names").is_some() {
        return on_the_command_line("synchronous_standby_names", names);
    }
    let fix = set("synchronous_standby_names", "''", false);
    let waits_for = |state: &str| matches!(state, "sync" | "quorum");
    let someone = server.standbys.iter().any(|standby| waits_for(&standby.sync_state));
    if !server.in_recovery && !someone {
        return Judgement::fail(
            format!("main waits for `{names}`, and none of these standbys is connected"),
            fix,
        );
    }
    Judgement::warn(format!("synchronous_standby_names is `{names}`: a promotion clears it"), fix)
}

/// A value on the command line overrides every configuration file.
fn on_the_command_line(name: &str, value: &str) -> Judgement {
    Judgement::fail(
        format!("{name} is `{value}` on the server's command line, where a change of main cannot clear it"),
        format!(
            "start PostgreSQL without {name} on its command line (pg_ctl -o, the service or the container)"
        ),
    )
}

fn read_only(server: &ServerFacts) -> Judgement {
    let on_command_line = server.on_command_line(READ_ONLY_DEFAULT);
    if let Some(value) = on_command_line.filter(|value| is_on(value)) {
        return on_the_command_line(READ_ONLY_DEFAULT, value);
    }
    // with `off` on the command line, the files do not count
    let in_files = server.read_only_in_files.as_deref().filter(|_| on_command_line.is_none());
    if in_files.is_some_and(is_on) {
        let words = format!("{READ_ONLY_DEFAULT} is on in the configuration files: a promotion clears it");
        return Judgement::warn(words, set(READ_ONLY_DEFAULT, "off", false));
    }
    let (every_role, one_role): (Vec<_>, Vec<_>) =
        server.read_only_settings.iter().partition(|setting| setting.every_role);
    if !every_role.is_empty() {
        let statements: Vec<String> =
            every_role.iter().map(|setting| format!("{};", setting.undone_by)).collect();
        return Judgement::warn(
            "a setting of their database makes clients read-only, and a change of main does not clear it",
            format!("{}  -- on main, unless this is intended", statements.join(" ")),
        );
    }
    Judgement::pass(match one_role.len() {
        0 => format!("{READ_ONLY_DEFAULT} off"),
        roles => {
            let undone: Vec<&str> = one_role.iter().map(|setting| setting.undone_by.as_str()).collect();
            format!(
                "{READ_ONLY_DEFAULT} off, except for {} with settings of their own, undone by: {}",
                interrex_projections::counted(roles as u64, "role"),
                undone.join("; ")
            )
        }
    })
}

fn archiving(server: &ServerFacts) -> Judgement {
    if server.setting("archive_mode") == "off" {
        return Judgement::pass("archive_mode off");
    }
    match &server.archive_failing {
        Some(file) => Judgement::fail(
            format!("archiving {file} fails"),
            "fix archive_command: read its messages in the server's log, and run: SELECT * FROM pg_stat_archiver;",
        ),
        None => Judgement::pass(format!(
            "archive_mode {}, no failure since the last success",
            server.setting("archive_mode")
        )),
    }
}

fn prepared(count: u64) -> Judgement {
    Judgement::pass_or_warn(
        count == 0,
        format!("{count} prepared"),
        "SELECT gid, prepared, owner FROM pg_prepared_xacts;  -- then COMMIT PREPARED or ROLLBACK PREPARED",
    )
}

fn tablespaces(outside: &[String]) -> Judgement {
    let words = if outside.is_empty() { "none".to_owned() } else { outside.join(", ") };
    let fix = "keep rewinds possible; to copy by hand: pg_basebackup --tablespace-mapping";
    Judgement::pass_or_warn(outside.is_empty(), words, fix)
}

fn ends_recovery(server: &ServerFacts) -> Judgement {
    let told = |it: &FileLine| format!("{} = '{}' ({}:{})", it.name, it.setting, it.file, it.line);
    let found: Vec<String> = server.ends_recovery.iter().map(told).collect();
    if found.is_empty() {
        return Judgement::pass("no recovery target and no trigger file is set");
    }
    Judgement::warn(found.join(", "), "remove these lines from the files")
}

fn restart_after_crash(server: &ServerFacts) -> Judgement {
    let value = server.setting("restart_after_crash");
    Judgement::pass_or_warn(
        value == "on",
        format!("restart_after_crash {value}"),
        set("restart_after_crash", "on", false),
    )
}

fn unlogged(tables: &[String]) -> Judgement {
    let Some(first) = tables.first() else { return Judgement::pass("none") };
    let shown = tables.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    let more = if tables.len() > 5 { format!(" and {} more", tables.len() - 5) } else { String::new() };
    let table = first.split_once('.').map_or(first.as_str(), |(_, table)| table);
    Judgement::warn(format!("{shown}{more}"), format!("ALTER TABLE {table} SET LOGGED;"))
}

fn files(server: &ServerFacts) -> Judgement {
    Judgement::pass_or_fail(
        server.file_errors.is_empty(),
        if server.file_errors.is_empty() { "no errors".to_owned() } else { server.file_errors.join("; ") },
        "correct the line, then: SELECT * FROM pg_file_settings WHERE error IS NOT NULL;",
    )
}

#[cfg(test)]
mod tests {
    use interrex_actors::ports::ReadOnlySetting;

    use super::*;
    use crate::doctor::{
        Verdict,
        examples::{ALPHA, BETA, change, server, wrong},
    };

    fn setting(node: NodeId, name: &'static str, value: &'static str) -> Vec<(&'static str, Verdict)> {
        wrong(|facts| {
            change(facts, node, |server| {
                server.settings.insert(name.to_owned(), value.to_owned());
            });
        })
    }

    #[test]
    fn a_setting_that_stands_in_the_way_is_found_on_the_node_that_has_it() {
        assert_eq!(setting(ALPHA, "wal_level", "minimal"), [("wal_level", Verdict::Fail)]);
        assert_eq!(setting(BETA, "full_page_writes", "off"), [("rewind_possible", Verdict::Warn)]);
        assert_eq!(setting(ALPHA, "max_wal_senders", "0"), [("senders_room", Verdict::Fail)]);
        assert_eq!(setting(ALPHA, "max_wal_senders", "2"), [("senders_room", Verdict::Warn)]);
        assert_eq!(setting(ALPHA, "max_slot_wal_keep_size", "-1"), [("slot_limit", Verdict::Warn)]);
        assert_eq!(setting(ALPHA, "restart_after_crash", "off"), [("restart_after_crash", Verdict::Warn)]);
    }

    #[test]
    fn a_refusal_names_what_lets_the_supervisor_in_by_its_code_and_not_by_its_words() {
        let fix = |code: &str| {
            let refused = NoAnswer {
                words: "Passwort-Authentifizierung fehlgeschlagen".to_owned(),
                code: Some(code.to_owned()),
            };
            let mut facts = crate::doctor::examples::healthy();
            facts.servers.insert(BETA, Err(refused));
            let findings = judge(&facts);
            let found = findings.iter().find(|finding| finding.node == Some(BETA)).unwrap();
            assert_eq!((found.check, found.verdict), ("postgres_answers", Verdict::Fail));
            found.fix.clone().unwrap()
        };
        assert!(fix("28P01").contains("postgres.password_file"));
        assert!(fix("28000").contains("pg_hba.conf"));
        assert!(fix("3D000").contains("postgres.database"));
        assert!(fix("53300").contains("max_connections"));
        assert!(!fix("57P03").contains("start it"));
        assert!(fix("XX000").contains("its own log"));
    }

    #[test]
    fn a_setting_that_would_end_a_recovery_is_named_with_its_place() {
        let line = FileLine {
            name: "recovery_target".to_owned(),
            setting: "immediate".to_owned(),
            file: "/etc/conf.d/x.conf".to_owned(),
            line: 3,
        };
        let server = ServerFacts { ends_recovery: vec![line], ..crate::doctor::examples::server(false) };
        let judged = ends_recovery(&server);
        assert!(
            format!("{judged:?}").contains("recovery_target = 'immediate' (/etc/conf.d/x.conf:3)"),
            "{judged:?}"
        );
    }

    #[test]
    fn read_only_fails_where_nothing_clears_it_warns_where_something_does_and_roles_may_be_so() {
        let beta = |change_it: fn(&mut ServerFacts)| wrong(|facts| change(facts, BETA, change_it));
        let [fails, warns] = [Verdict::Fail, Verdict::Warn].map(|verdict| [("read_only_default", verdict)]);
        let on_command_line = |server: &mut ServerFacts| {
            server.started_with = Some("postgres \"-c\" \"default_transaction_read_only=on\"".to_owned());
        };
        assert_eq!(beta(on_command_line), fails);
        assert_eq!(beta(|server| server.read_only_in_files = Some("true".to_owned())), warns);
        let set_for = |every_role| {
            let mut server = server(true);
            let undone_by = "ALTER DATABASE shop RESET default_transaction_read_only".to_owned();
            server.read_only_settings.push(ReadOnlySetting { undone_by, every_role });
            read_only(&server)
        };
        let database = set_for(true);
        assert_eq!(database.verdict, Verdict::Warn);
        assert!(database.fix.is_some_and(|fix| fix.starts_with("ALTER DATABASE shop RESET")));
        assert_eq!(set_for(false).verdict, Verdict::Pass);
    }

    #[test]
    fn a_main_that_waits_for_nobody_it_has_fails_and_one_that_has_somebody_is_warned() {
        let named = |in_recovery| {
            let mut server = server(in_recovery);
            server.settings.insert("synchronous_standby_names".to_owned(), "gamma".to_owned());
            server
        };
        assert_eq!(synchronous(&named(false)).verdict, Verdict::Fail);
        assert_eq!(synchronous(&named(true)).verdict, Verdict::Warn);
    }

    #[test]
    fn a_rewind_needs_full_pages_and_hints_or_checksums() {
        for bits in 0..8 {
            let on = |bit: u8| if bits & bit != 0 { "on" } else { "off" };
            let mut server = server(false);
            for (name, bit) in [("full_page_writes", 1), ("wal_log_hints", 2), ("data_checksums", 4)] {
                server.settings.insert(name.to_owned(), on(bit).to_owned());
            }
            let possible = bits & 1 != 0 && bits & 6 != 0;
            let found = rewind_possible(&server);
            assert_eq!(
                (found.verdict == Verdict::Pass, found.fix.is_none()),
                (possible, possible),
                "{found:?}"
            );
        }
    }

    #[test]
    fn what_is_lost_at_a_promotion_is_named() {
        let found = unlogged(&["shop.public.carts".to_owned()]);
        assert_eq!(found.fix.as_deref(), Some("ALTER TABLE public.carts SET LOGGED;"));
        assert_eq!(prepared(2).verdict, Verdict::Warn);
        assert_eq!(tablespaces(&["fast".to_owned()]).verdict, Verdict::Warn);
    }

    #[test]
    fn a_replication_user_that_cannot_replicate_fails() {
        let change_role = |change_it: fn(&mut ServerFacts)| wrong(|facts| change(facts, ALPHA, change_it));
        let fails = [("replication_role", Verdict::Fail)];
        assert_eq!(change_role(|server| server.replication_role = None), fails);
        let expired = |server: &mut ServerFacts| {
            if let Some(role) = &mut server.replication_role {
                role.expired = true;
            }
        };
        assert_eq!(change_role(expired), fails);
        assert_eq!(change_role(|server| server.superuser = false), [("postgres_superuser", Verdict::Fail)]);
        assert_eq!(
            change_role(|server| server.file_errors.push("line 3".to_owned())),
            [("settings_files", Verdict::Fail)]
        );
    }
}
