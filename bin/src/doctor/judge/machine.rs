//! The machine on which doctor runs: its files, programs, users, services and disks. Each other machine needs its own doctor.

use std::path::{Path, PathBuf};

use interrex_events::Role;

use super::{replication::log_to_hold, size};
use crate::doctor::{
    facts::{Facts, MachineFacts, Problem, Programs, Rival, SignalFiles},
    finding::{ALL_ACTS, Act, Check, Finding, Judgement, Measured, Subject, Verdict},
};

/// The fix if the user who runs doctor may not look at a file.
pub(in crate::doctor) const LOOK_AGAIN: &str =
    "run doctor as root, or as the user that the supervisor runs as: sudo interrex doctor";

/// Free bytes for the journal below which the check fails.
const JOURNAL_LEAST: u64 = 16 << 20;
/// Free bytes for the journal below which the check warns.
const JOURNAL_WARN: u64 = 256 << 20;
/// Bytes that a promotion needs in addition to two segments of WAL (MEASURED M14).
const MARGIN: u64 = 64 << 20;

const CONFIGURATION: Subject = Subject::Configuration;
const MACHINE: Subject = Subject::Machine;

const SECRETS: Check = Check {
    name: "secret_files",
    subject: CONFIGURATION,
    breaks: ALL_ACTS,
    looks_at: "every file with a secret exists, and only its owner can read it",
    why: "A supervisor does not start with a secret that others can read, and libpq ignores such a passfile.",
};
const JOURNAL_ROOM: Check = Check {
    name: "journal_room",
    subject: CONFIGURATION,
    breaks: ALL_ACTS,
    looks_at: "the journal is outside the data directory, on a file system that can be written to and has free space",
    why: "The supervisor records every act in the journal first: if it cannot write there, it ends.",
};
const JOURNAL_SOUND: Check = Check {
    name: "journal_sound",
    subject: CONFIGURATION,
    breaks: ALL_ACTS,
    looks_at: "the journal's newest events are as they were recorded",
    why: "A supervisor does not start with a damaged journal.",
};
const PROGRAMS: Check = Check {
    name: "programs",
    subject: MACHINE,
    breaks: ALL_ACTS,
    looks_at: "PostgreSQL's programs are installed, in the version of the data directory",
    why: "A run needs these programs to start, stop, rewind and copy PostgreSQL.",
};
const RUN_AS: Check = Check {
    name: "run_as",
    subject: MACHINE,
    breaks: ALL_ACTS,
    looks_at: "the user that servers run as exists, and is not root",
    why: "A server that cannot be started as its user is not started at all.",
};
const SIGNAL_FILE: Check = Check {
    name: "standby_signal",
    subject: MACHINE,
    breaks: ALL_ACTS,
    looks_at: "the data directory would start again in the role that it has now",
    why: "A standby without standby.signal starts as a second main; a main with it starts as a standby, and with recovery.signal \
          on another timeline.",
};
const SETTINGS_FILE: Check = Check {
    name: "settings_file",
    subject: MACHINE,
    breaks: ALL_ACTS,
    looks_at: "the servers' user can read and replace postgresql.auto.conf in the data directory",
    why: "A failover, a switchover and a rejoin change settings there, as ALTER SYSTEM does: they replace the file.",
};
const WAL_ROOM: Check = Check {
    name: "wal_room",
    subject: MACHINE,
    breaks: ALL_ACTS,
    looks_at: "the volume of pg_wal has room for two segments, and for the WAL that main keeps for an absent standby",
    why: "A promotion on a full disk fails half-way, and a main whose WAL fills the disk stops.",
};
const COPY_ROOM: Check = Check {
    name: "copy_room",
    subject: MACHINE,
    breaks: &[Act::Rejoin],
    looks_at: "there is room for a copy of main's data next to the data directory, and for the old directory in rejoin.keep_in if \
               that is another volume",
    why: "A rejoin keeps the data that only the old main has. It may also make a new copy next to the old directory, which stays \
          until the new copy streams.",
};
const KEEPS: Check = Check {
    name: "kept_folder",
    subject: MACHINE,
    breaks: &[Act::Rejoin],
    looks_at: "the folder for kept copies is on the volume of the data directory",
    why: "On the same volume a rename keeps the old directory at once; on another volume it is copied first, which takes time and \
          space.",
};
const NOT_SALVAGED: Check = Check {
    name: "kept_copies",
    subject: MACHINE,
    breaks: &[],
    looks_at: "every kept copy with rows that main lacked was salvaged",
    why: "A kept copy with rows that exist nowhere else is never removed automatically: it takes space until a person removes it.",
};
const RIVALS: Check = Check {
    name: "started_by_interrex",
    subject: MACHINE,
    breaks: &[],
    looks_at: "no service of the operating system starts this node's PostgreSQL or Redis, or ends them with the supervisor",
    why: "A server that starts at boot serves before its supervisor has asked which node is main: it may be a second main. \
          If a server ends with the supervisor, every restart of the supervisor is an outage.",
};
const COMMANDS: Check = Check {
    name: "commands",
    subject: Subject::Dependents,
    breaks: &[Act::Failover, Act::Switchover],
    looks_at: "the programs of dependents, readiness checks and hooks exist and can be run",
    why: "They run at the end of a run, while clients wait: without this check, a missing program shows only then.",
};
const READY: Check = Check {
    name: "dependents_ready",
    subject: Subject::Dependents,
    breaks: &[Act::Switchover],
    looks_at: "on main, every dependent passes its readiness check",
    why: "A readiness check that fails on the node that serves now fails after a change of main too, and the run waits for it in \
          vain.",
};

pub(super) const CHECKS: &[&Check] = &[
    &SECRETS,
    &JOURNAL_ROOM,
    &JOURNAL_SOUND,
    &PROGRAMS,
    &RUN_AS,
    &SIGNAL_FILE,
    &SETTINGS_FILE,
    &WAL_ROOM,
    &COPY_ROOM,
    &KEEPS,
    &NOT_SALVAGED,
    &RIVALS,
    &COMMANDS,
    &READY,
];

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let (here, machine) = (facts.here, &facts.machine);
    let mut findings = vec![
        SECRETS.judge(here, &machine.secret_problems, |problems| secrets(problems)),
        JOURNAL_ROOM.on(here, journal_room(&machine.journal_room)),
        JOURNAL_SOUND.judge(here, &machine.journal_sound, journal_sound),
        PROGRAMS.judge(here, &machine.programs, |found| programs(found, machine)),
        RUN_AS.on(here, run_as(&machine.run_as)),
        SETTINGS_FILE.judge(here, &machine.settings_file, |problem| settings_file(problem.as_ref())),
        WAL_ROOM.judge(here, &machine.wal_room, |room| wal_room(*room, facts)),
        COPY_ROOM.judge(here, &machine.copy_room, |room| copy_room(*room, &machine.keep_room, facts)),
        KEEPS.judge(here, &machine.keeps_on_volume, |same| keeps(*same)),
        RIVALS.judge(here, &machine.rivals, |rivals| no_rivals(rivals)),
    ];
    if let Some(role) = facts.starts_as() {
        findings.push(SIGNAL_FILE.judge(here, &machine.signal_files, |there| signal_file(role, *there)));
    }
    if let Ok(kept) = &machine.not_salvaged
        && let [(newest, _), ..] = kept.as_slice()
    {
        findings.push(NOT_SALVAGED.on(here, not_salvaged(newest, kept)));
    }
    match &machine.commands {
        Ok(commands) if commands.is_empty() => {}
        commands => findings.push(COMMANDS.judge(here, commands, |commands| runnable(commands))),
    }
    if !machine.ready.is_empty() {
        findings.push(READY.on(here, ready(&machine.ready)));
    }
    findings
}

/// If the user who runs doctor may not look at every file, a problem may be only that. Then no other fix is shown: it could give a
/// file to the wrong user.
pub(super) fn as_a_stranger(facts: &Facts, findings: &mut [Finding]) {
    let Some(stranger) = &facts.machine.stranger else { return };
    let is_of_files = |finding: &&mut Finding| matches!(finding.subject, CONFIGURATION | MACHINE);
    for finding in findings.iter_mut().filter(is_of_files) {
        if finding.verdict >= Verdict::Unknown {
            finding.fix = Some(format!("{LOOK_AGAIN}  # {stranger}"));
        }
    }
}

fn settings_file(problem: Option<&Problem>) -> Judgement {
    match problem {
        None => Judgement::pass("the servers' user can change the settings"),
        Some(Problem { words, fix }) => Judgement::fail(words, fix),
    }
}

fn secrets(problems: &[Problem]) -> Judgement {
    let join =
        |part: fn(&Problem) -> &str, between| problems.iter().map(part).collect::<Vec<_>>().join(between);
    Judgement::pass_or_fail(
        problems.is_empty(),
        if problems.is_empty() {
            "only their owners can read them".to_owned()
        } else {
            join(|it| &it.words, "; ")
        },
        join(|it| &it.fix, "; "),
    )
}

fn journal_room(room: &Measured<u64>) -> Judgement {
    let fix = "free space there, or move the journal: set node.journal";
    match room {
        Err(reason) => Judgement::fail(reason, fix),
        Ok(room) if *room < JOURNAL_LEAST => Judgement::fail(format!("{} free", size(*room)), fix),
        Ok(room) => Judgement::pass_or_warn(*room >= JOURNAL_WARN, format!("{} free", size(*room)), fix),
    }
}

fn journal_sound(found: &Result<Option<usize>, String>) -> Judgement {
    match found {
        Ok(None) => Judgement::pass("no journal yet: the supervisor creates it at its first start"),
        Ok(Some(events)) => Judgement::pass(format!("the newest {events} events are sound")),
        Err(problem) => Judgement::fail(problem, "interrex journal verify  # and keep the file as evidence"),
    }
}

fn programs(found: &Programs, machine: &MachineFacts) -> Judgement {
    let folder = found.folder.display();
    if !found.missing.is_empty() {
        return Judgement::fail(
            format!("{} are not in {folder}", found.missing.join(", ")),
            "install the server's and the client's packages, or set postgres.bin_dir",
        );
    }
    match (found.major, &machine.data_version) {
        (Some(programs), Ok(data)) if programs == *data => {
            Judgement::pass(format!("version {programs}, in {folder}"))
        }
        (Some(programs), Ok(data)) => Judgement::fail(
            format!("the programs in {folder} have version {programs}, the data directory has {data}"),
            format!("set postgres.bin_dir to the programs of version {data}"),
        ),
        (None, _) => {
            Judgement::fail(format!("{folder}/postgres does not report its version"), "install it again")
        }
        (_, Err(reason)) => Judgement::unknown(reason, "set postgres.data_dir to the data directory"),
    }
}

fn run_as(found: &Measured<String>) -> Judgement {
    match found {
        Ok(words) => Judgement::pass(words),
        Err(reason) => Judgement::fail(reason, "set node.run_as to the owner of the data directory"),
    }
}

fn signal_file(role: Role, there: SignalFiles) -> Judgement {
    let in_recovery = role == Role::Secondary;
    if !in_recovery && there.recovery {
        return Judgement::fail("a primary with recovery.signal", "rm recovery.signal in its data directory");
    }
    match (in_recovery, there.standby) {
        (true, true) => Judgement::pass("a standby, and standby.signal exists"),
        (false, false) => Judgement::pass("a primary, and there is no standby.signal"),
        (true, false) => Judgement::fail(
            "a standby without standby.signal would start as a second main",
            "touch standby.signal in its data directory, as the user that PostgreSQL runs as, before it starts",
        ),
        (false, true) => {
            Judgement::fail("a primary with standby.signal", "rm standby.signal in its data directory")
        }
    }
}

fn wal_room(room: u64, facts: &Facts) -> Judgement {
    let server = facts.server(facts.here);
    let segment =
        server.and_then(|server| server.number("wal_segment_size")).and_then(|it| u64::try_from(it).ok());
    let least = 2 * segment.unwrap_or(16 << 20) + MARGIN;
    let fix = "free space there, or lower max_slot_wal_keep_size";
    if room < least {
        return Judgement::fail(format!("{} free, {} needed", size(room), size(least)), fix);
    }
    match server.and_then(log_to_hold) {
        Some((held, words)) => {
            Judgement::pass_or_warn(room >= held, format!("{} free; {words}", size(room)), fix)
        }
        None => Judgement::pass(format!("{} free", size(room))),
    }
}

/// A copy needs a tenth more bytes than main's databases have now.
fn copy_room(room: u64, keep_room: &Measured<Option<u64>>, facts: &Facts) -> Judgement {
    let answering = facts.main().and_then(|main| facts.server(main)).or_else(|| facts.server(facts.here));
    let Some(bytes) = answering.and_then(|server| server.database_bytes) else {
        return Judgement::unknown(
            "no server reported the size of the databases",
            "when main answers, run again: interrex doctor",
        );
    };
    let needed = bytes + bytes / 10 + MARGIN;
    if room < needed {
        return Judgement::fail(
            format!("{} free next to the data directory, a copy takes about {}", size(room), size(needed)),
            "free space on the volume of postgres.data_dir",
        );
    }
    let words = format!("{} free, a copy takes about {}", size(room), size(needed));
    match keep_room {
        Ok(None) => Judgement::pass(words),
        Ok(Some(there)) => Judgement::pass_or_fail(
            *there >= needed,
            format!("{words}; {} free where the old directory is kept (rejoin.keep_in)", size(*there)),
            "free space there, or set rejoin.keep_in to a folder on the volume of postgres.data_dir",
        ),
        Err(reason) => Judgement::unknown(reason, "check rejoin.keep_in"),
    }
}

fn keeps(same_volume: bool) -> Judgement {
    let words = if same_volume {
        "on the data directory's volume"
    } else {
        "on another volume: a rejoin first archives the whole old directory there"
    };
    Judgement::pass_or_warn(
        same_volume,
        words,
        "set rejoin.keep_in to a folder on the volume of postgres.data_dir",
    )
}

fn not_salvaged(newest: &Path, kept: &[(PathBuf, u64)]) -> Judgement {
    let bytes = kept.iter().map(|(_, bytes)| bytes).fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
    Judgement::warn(
        format!(
            "{} with rows that main lacks or may lack, not salvaged: {}",
            if kept.len() == 1 { "1 kept copy".to_owned() } else { format!("{} kept copies", kept.len()) },
            size(bytes)
        ),
        format!(
            "interrex salvage --kept {0}/pgdata --output FOLDER; or, if these rows are not needed: rm -r {0}",
            newest.display()
        ),
    )
}

fn no_rivals(rivals: &[Rival]) -> Judgement {
    if rivals.is_empty() {
        return Judgement::pass("no such service");
    }
    let words: Vec<String> = rivals.iter().map(|rival| format!("{} {}", rival.unit, rival.does)).collect();
    let mut fixes: Vec<&str> = rivals.iter().map(|rival| rival.fix.as_str()).collect();
    fixes.dedup();
    Judgement::warn(words.join("; "), fixes.join("; "))
}

fn runnable(commands: &[(String, Result<(), String>)]) -> Judgement {
    let wrong: Vec<&str> =
        commands.iter().filter_map(|(_, found)| found.as_ref().err()).map(String::as_str).collect();
    Judgement::pass_or_fail(
        wrong.is_empty(),
        if wrong.is_empty() { format!("{} commands", commands.len()) } else { wrong.join("; ") },
        "install the program, correct the command of [[dependents]] or [[hooks]], or make it executable: chmod +x",
    )
}

fn ready(dependents: &[(String, Result<(), String>)]) -> Judgement {
    let wrong: Vec<String> = dependents
        .iter()
        .filter_map(|(name, found)| Some(format!("{name}: {}", found.as_ref().err()?)))
        .collect();
    let names: Vec<&str> = dependents.iter().map(|(name, _)| name.as_str()).collect();
    Judgement::pass_or_fail(
        wrong.is_empty(),
        if wrong.is_empty() { format!("{} ready", names.join(", ")) } else { wrong.join("; ") },
        "run its ready_command by hand, and read its log file",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{
        Verdict,
        examples::{BETA, wrong},
    };

    fn machine(change: impl FnOnce(&mut MachineFacts)) -> Vec<(&'static str, Verdict)> {
        wrong(|facts| change(&mut facts.machine))
    }

    #[test]
    fn what_is_wrong_with_the_machine_is_named() {
        let problem = Problem { words: "it can be read".to_owned(), fix: "chmod 600 it".to_owned() };
        assert_eq!(machine(|it| it.secret_problems = Ok(vec![problem])), [("secret_files", Verdict::Fail)]);
        assert_eq!(machine(|it| it.journal_room = Ok(1 << 20)), [("journal_room", Verdict::Fail)]);
        assert_eq!(machine(|it| it.journal_room = Ok(100 << 20)), [("journal_room", Verdict::Warn)]);
        assert_eq!(
            machine(|it| it.journal_sound = Ok(Err("bad".to_owned()))),
            [("journal_sound", Verdict::Fail)]
        );
        assert_eq!(machine(|it| it.journal_sound = Ok(Ok(None))), []);
        assert_eq!(machine(|it| it.data_version = Ok(16)), [("programs", Verdict::Fail)]);
        for (standby, recovery) in [(true, false), (false, true)] {
            let signal_files = Ok(SignalFiles { standby, recovery });
            assert_eq!(machine(|it| it.signal_files = signal_files), [("standby_signal", Verdict::Fail)]);
        }
        let problem = Problem { words: "it cannot be read".to_owned(), fix: "chown it".to_owned() };
        let settings_file = Ok(Some(problem));
        assert_eq!(machine(|it| it.settings_file = settings_file), [("settings_file", Verdict::Fail)]);
        assert_eq!(machine(|it| it.wal_room = Ok(90 << 20)), [("wal_room", Verdict::Fail)]);
        assert_eq!(machine(|it| it.wal_room = Ok(1 << 30)), [("wal_room", Verdict::Warn)]);
        assert_eq!(machine(|it| it.copy_room = Ok(90 << 20)), [("copy_room", Verdict::Fail)]);
        assert_eq!(machine(|it| it.keep_room = Ok(Some(90 << 20))), [("copy_room", Verdict::Fail)]);
        assert_eq!(machine(|it| it.keeps_on_volume = Ok(false)), [("kept_folder", Verdict::Warn)]);
        let kept = vec![(PathBuf::from("/srv/kept/a"), 1 << 20)];
        assert_eq!(machine(|it| it.not_salvaged = Ok(kept)), [("kept_copies", Verdict::Warn)]);
        let rival = Rival {
            unit: "postgresql.service".to_owned(),
            does: "is enabled".to_owned(),
            fix: "x".to_owned(),
        };
        assert_eq!(machine(|it| it.rivals = Ok(vec![rival])), [("started_by_interrex", Verdict::Warn)]);
        let missing = Ok(vec![("dns".to_owned(), Err("no dns-update".to_owned()))]);
        assert_eq!(machine(|it| it.commands = missing), [("commands", Verdict::Fail)]);
        assert_eq!(
            machine(|it| it.ready[0].1 = Err("silent".to_owned())),
            [("dependents_ready", Verdict::Fail)]
        );
    }

    #[test]
    fn a_standby_without_its_signal_file_would_start_as_a_second_main() {
        let found = wrong(|facts| facts.here = BETA);
        assert!(found.contains(&("standby_signal", Verdict::Fail)), "{found:?}");
    }

    #[test]
    fn a_stopped_secondary_without_its_signal_file_is_told_by_its_supervisor_or_its_journal() {
        let stopped = |facts: &mut Facts| {
            facts.here = BETA;
            facts.servers.insert(BETA, Err("refused".to_owned().into()));
        };
        let signal = ("standby_signal", Verdict::Fail);
        assert!(wrong(stopped).contains(&signal), "by its supervisor");
        let by_journal = |role: Option<Role>| {
            wrong(|facts| {
                stopped(facts);
                facts.supervisors.remove(&BETA);
                facts.machine.role_in_journal = role;
            })
        };
        assert!(by_journal(Some(Role::Secondary)).contains(&signal), "by its journal");
        assert!(!by_journal(Some(Role::Main)).contains(&signal));
        assert!(!by_journal(None).contains(&signal), "nothing is known");
        let fenced = wrong(|facts| {
            stopped(facts);
            if let Some(Ok(report)) = facts.supervisors.get_mut(&BETA).map(|it| it.report.as_mut()) {
                report.status = interrex_projections::NodeStatus::Fenced;
            }
        });
        assert!(!fenced.contains(&signal), "a rejoin gives it its file: {fenced:?}");
    }

    #[test]
    fn a_user_who_may_not_look_is_told_to_look_as_another_and_nothing_else() {
        let mut facts = crate::doctor::examples::healthy();
        facts.machine = MachineFacts::unmeasured("Permission denied");
        let problem = Problem { words: "cannot be read".to_owned(), fix: "chown nobody it".to_owned() };
        facts.machine.secret_problems = Ok(vec![problem]);
        facts.machine.stranger = Some("nobody may not read it".to_owned());
        let findings = crate::doctor::judge::judge(&facts);
        let fixes: Vec<_> = findings
            .iter()
            .filter(|finding| matches!(finding.subject, CONFIGURATION | MACHINE))
            .filter_map(|finding| finding.fix.as_deref())
            .collect();
        assert!(fixes.len() > 8 && fixes.iter().all(|fix| fix.contains("sudo interrex doctor")), "{fixes:?}");
    }

    #[test]
    fn a_machine_that_hangs_proves_nothing() {
        let found = machine(|it| *it = MachineFacts::unmeasured("it hangs"));
        assert!(
            found.iter().all(|(_, verdict)| *verdict >= Verdict::Unknown) && found.len() > 8,
            "{found:?}"
        );
    }
}
