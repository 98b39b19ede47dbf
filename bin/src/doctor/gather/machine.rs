//! Files, programs and disks of this machine. All these functions may block: the caller uses a thread of its own.

use std::{
    ffi::OsStr,
    fs,
    io::ErrorKind,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use interrex_adapters::{postgres::not_salvaged, runtime::RunAs};
use interrex_events::{ChainWalk, journal::JournalReader};
use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};

use crate::{
    config::{Config, read_secret, user_name},
    daemon::find_programs,
    doctor::{
        facts::{Configured, MachineFacts, Problem, Programs, SignalFiles},
        finding::Measured,
        judge::machine::LOOK_AGAIN,
    },
};

/// The programs that a run uses.
const PROGRAMS: [&str; 5] = ["postgres", "pg_rewind", "pg_basebackup", "pg_controldata", "pg_waldump"];
/// The file in which `ALTER SYSTEM` keeps its settings.
const AUTO_CONF: &str = "postgresql.auto.conf";
/// How many of the newest events are checked: enough to notice a torn end, and quick.
const NEWEST: u32 = 200;

/// All facts of the machine, except those that a server or the service manager reports.
pub(super) fn look(config: &Config, run_as: Measured<RunAs>) -> MachineFacts {
    let data_dir = &config.postgres.data_dir;
    let settings_file = run_as.clone().map(|run_as| locked_settings(data_dir, run_as));
    MachineFacts {
        secret_problems: Ok(secret_problems(config, run_as.as_ref().ok())),
        journal_room: journal_room(&config.node.journal, data_dir),
        journal_sound: Ok(journal_sound(config)),
        programs: programs(config),
        run_as: run_as.map(|run_as| match run_as {
            RunAs::Myself => "as this user".to_owned(),
            RunAs::User { .. } => format!("as {}", user_name(run_as)),
        }),
        data_version: data_version(data_dir),
        next_start: Err("not asked".to_owned()),
        configured: Configured {
            data_dir: data_dir.clone(),
            host: config.postgres.host.clone(),
            port: config.postgres.port,
            address: config.address(),
        },
        role_in_journal: None,
        settings_file,
        stranger: stranger(config),
        signal_files: fs::metadata(data_dir)
            .and_then(|_| {
                Ok(SignalFiles {
                    standby: data_dir.join("standby.signal").try_exists()?,
                    recovery: data_dir.join("recovery.signal").try_exists()?,
                })
            })
            .map_err(|error| format!("{}: {error}", data_dir.display())),
        wal_room: room(&data_dir.join("pg_wal")),
        copy_room: room(data_dir.parent().unwrap_or(data_dir)),
        keep_room: keep_room(&config.kept_folder(), data_dir),
        keeps_on_volume: same_volume(&config.kept_folder(), data_dir),
        not_salvaged: kept_copies(&config.kept_folder()),
        rivals: Err("not asked".to_owned()),
        commands: Ok(commands(config)),
        ready: Vec::new(),
    }
}

/// The kept copies that are never removed automatically.
fn kept_copies(folder: &Path) -> Measured<Vec<(PathBuf, u64)>> {
    let kept = not_salvaged(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(kept.into_iter().map(|kept| (kept.folder, kept.manifest.bytes)).collect())
}

/// What keeps the servers' user from changing settings as `ALTER SYSTEM` does, which reads the file, writes a new file next to it
/// and renames the new file. This check changes nothing.
fn locked_settings(data_dir: &Path, run_as: RunAs) -> Option<Problem> {
    let (file, unfinished) = (data_dir.join(AUTO_CONF), data_dir.join(format!("{AUTO_CONF}.tmp")));
    let user = user_name(run_as);
    // a server makes a file that is missing
    let may = |result: std::io::Result<()>| match result {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    let tried = |work: &(dyn Fn() -> std::io::Result<()> + Sync)| run_as.act(|| may(work())).err();
    let problem = |path: &Path, what: &str, error: std::io::Error, fix: String| {
        Some(Problem { words: format!("{user} cannot {what} {}: {error}", path.display()), fix })
    };
    if let Some(error) = tried(&|| fs::read(&file).map(drop)) {
        let shown = file.display();
        let fix = if file.is_symlink() {
            // a chown of the link's target could do more harm than the problem
            format!(
                "replace the link {shown} with a file of {user}: rm it, then: install -o {user} -m 600 SETTINGS {shown}"
            )
        } else {
            format!("chown {user} {shown}; chmod 600 {shown}")
        };
        return problem(&file, "read", error, fix);
    }
    if let Some(error) = tried(&|| fs::OpenOptions::new().write(true).open(&unfinished).map(drop)) {
        return problem(&unfinished, "write", error, format!("rm {}", unfinished.display()));
    }
    let writable = || Ok(access(data_dir, Access::WRITE_OK | Access::EXEC_OK)?);
    let error = tried(&writable)?;
    let shown = data_dir.display();
    problem(data_dir, "replace files in", error, format!("chown {user} {shown}; chmod 700 {shown}"))
}

/// What the user who runs doctor may not read: then doctor proves little, and its fixes must not be for that user.
fn stranger(config: &Config) -> Option<String> {
    let postgres = &config.postgres;
    let more =
        [postgres.password_file.as_ref(), config.redis.as_ref().and_then(|it| it.password_file.as_ref())];
    let files =
        [&config.cluster.secret_file, &config.node.journal].into_iter().chain(more.into_iter().flatten());
    let is_denied = |error: std::io::Error| error.kind() == ErrorKind::PermissionDenied;
    let closed = files.filter(|file| fs::File::open(file).is_err_and(is_denied));
    let data_dir = Some(&postgres.data_dir).filter(|folder| fs::read_dir(folder).is_err_and(is_denied));
    let closed: Vec<String> = closed.chain(data_dir).map(|path| path.display().to_string()).collect();
    (!closed.is_empty()).then(|| {
        let me = user_name(RunAs::Myself);
        format!(
            "{me} may not read {}; the user that the supervisor runs as must be able to",
            closed.join(", ")
        )
    })
}

fn secret_problems(config: &Config, run_as: Option<&RunAs>) -> Vec<Problem> {
    let redis = config.redis.as_ref().and_then(|redis| redis.password_file.as_ref());
    let postgres = config.postgres.password_file.as_ref();
    let files = [
        (Some(&config.cluster.secret_file), "cluster.secret_file", 16),
        (postgres, "postgres.password_file", 1),
        (redis, "redis.password_file", 1),
    ];
    let mut problems: Vec<Problem> = files
        .into_iter()
        .filter_map(|(file, key, at_least)| {
            let words = read_secret(file?, key, at_least).err()?;
            Some(Problem { words, fix: mend_secret(file?, key) })
        })
        .collect();
    problems.extend(
        config.postgres.replication_passfile.as_deref().and_then(|file| passfile_problem(file, run_as)),
    );
    problems
}

/// The fix for a secret that is refused, depending on the problem with its file.
fn mend_secret(file: &Path, key: &str) -> String {
    let shown = file.display();
    let others_read_it = |found: fs::Metadata| found.permissions().mode() & 0o077 != 0;
    if fs::metadata(file).is_ok_and(others_read_it) {
        return format!("chmod 600 {shown}");
    }
    if fs::File::open(file).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied) {
        return LOOK_AGAIN.to_owned();
    }
    let content = match key {
        "cluster.secret_file" => "copy it from another node",
        _ => "write the password into it, as one line",
    };
    format!("{content}, and: chmod 600 {shown}")
}

/// libpq ignores a passfile that others can read, and PostgreSQL's user must be able to read it.
fn passfile_problem(file: &Path, run_as: Option<&RunAs>) -> Option<Problem> {
    let problem = |words: String, fix: String| {
        Some(Problem { words: format!("postgres.replication_passfile: {} {words}", file.display()), fix })
    };
    let found = match fs::metadata(file) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return problem(format!("cannot be examined: {error}"), LOOK_AGAIN.to_owned());
        }
        Err(error) => {
            return problem(
                format!("cannot be read: {error}"),
                "write one line: HOST:PORT:*:USER:PASSWORD".to_owned(),
            );
        }
    };
    let mode = found.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return problem(
            format!("can be read by others (mode {mode:o})"),
            format!("chmod 600 {}", file.display()),
        );
    }
    // the right owner is not known: it need not be the user who runs doctor
    let run_as = *run_as?;
    let user = match run_as {
        RunAs::User { uid, .. } => uid,
        RunAs::Myself => rustix::process::geteuid().as_raw(),
    };
    if found.uid() != user && user != 0 {
        let name = user_name(run_as);
        return problem(
            format!("does not belong to {name}, who must read it"),
            format!("chown {name} {}", file.display()),
        );
    }
    None
}

/// Bytes free for the journal, if the journal can be written at all. This check writes nothing.
fn journal_room(journal: &Path, data_dir: &Path) -> Measured<u64> {
    let folder = journal.parent().unwrap_or(journal);
    // the configuration checks only the paths as written; a link may lead elsewhere
    if let (Ok(folder), Ok(data_dir)) = (folder.canonicalize(), data_dir.canonicalize())
        && folder.starts_with(&data_dir)
    {
        return Err(format!("{} is inside {}", folder.display(), data_dir.display()));
    }
    let failed = |path: &Path, error| format!("{}: {error}", path.display());
    let writable = Access::WRITE_OK;
    access(folder, writable | Access::EXEC_OK).map_err(|error| failed(folder, error))?;
    if journal.exists() {
        access(journal, writable).map_err(|error| failed(journal, error))?;
    }
    room(folder)
}

/// Bytes free to the user who asks.
fn room(folder: &Path) -> Measured<u64> {
    let found = statvfs(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    if found.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(format!("{} is on a read-only file system", folder.display()));
    }
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Whether a folder, which need not exist yet, is on the data directory's volume.
fn same_volume(folder: &Path, data_dir: &Path) -> Measured<bool> {
    let volume = |path: &Path| fs::metadata(path).map(|found| found.dev());
    let existing = folder.ancestors().find_map(|path| volume(path).ok());
    let own = volume(data_dir).map_err(|error| format!("{}: {error}", data_dir.display()))?;
    Ok(existing == Some(own))
}

/// Bytes free in a folder, which need not exist yet, if it is on another volume: on the same volume a rename keeps a directory.
fn keep_room(folder: &Path, data_dir: &Path) -> Measured<Option<u64>> {
    if same_volume(folder, data_dir)? {
        return Ok(None);
    }
    let existing = folder.ancestors().find(|path| path.exists()).unwrap_or(folder);
    room(existing).map(Some)
}

/// How many of this node's newest events are sound; nothing before its first start.
fn journal_sound(config: &Config) -> Result<Option<usize>, String> {
    // the first start makes it
    if fs::metadata(&config.node.journal).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return Ok(None);
    }
    let reader = JournalReader::open(&config.node.journal).map_err(|error| error.to_string())?;
    let (identity, own) = (reader.identity(), (config.cluster.id, config.node.id));
    if (identity.cluster_id, identity.node_id) != own {
        return Err(format!(
            "the file is the journal of node {} of cluster {}",
            identity.node_id, identity.cluster_id
        ));
    }
    let newest = reader.newest(config.node.id, NEWEST).map_err(|error| error.to_string())?;
    let Some((first, rest)) = newest.split_first() else { return Ok(Some(0)) };
    if first.computed_hash() != first.hash {
        return Err(format!("event {} was changed after it was recorded", first.node_seq));
    }
    let mut walk = ChainWalk::up_to(first);
    rest.iter().try_for_each(|record| walk.step(record)).map_err(|broken| broken.to_string())?;
    Ok(Some(newest.len()))
}

/// Folder of PostgreSQL's programs.
pub(super) fn programs_folder(config: &Config) -> Measured<PathBuf> {
    match &config.postgres.bin_dir {
        Some(folder) => Ok(folder.clone()),
        None => find_programs(&config.postgres.data_dir),
    }
}

fn programs(config: &Config) -> Measured<Programs> {
    let folder = programs_folder(config)?;
    let missing = PROGRAMS.iter().filter(|name| !is_program(&folder.join(name)));
    let missing: Vec<String> = missing.map(|name| (*name).to_owned()).collect();
    let major = std::process::Command::new(folder.join("postgres")).arg("--version").output().ok();
    let major = major.and_then(|output| major_of(&String::from_utf8_lossy(&output.stdout)));
    Ok(Programs { folder, missing, major })
}

/// The major version in `postgres (PostgreSQL) 15.20 (Debian ...)`.
fn major_of(words: &str) -> Option<u32> {
    let number =
        words.split_whitespace().find(|word| word.starts_with(|letter: char| letter.is_ascii_digit()))?;
    number.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

fn data_version(data_dir: &Path) -> Measured<u32> {
    let file = data_dir.join("PG_VERSION");
    let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    text.trim().parse().map_err(|_| format!("{} contains no version", file.display()))
}

/// Every command of the configuration, by name.
fn commands(config: &Config) -> Vec<(String, Result<(), String>)> {
    let of_dependents = config.dependents.iter().flat_map(|dependent| {
        [&dependent.command, &dependent.ready_command].map(|command| (dependent.name.as_str(), command))
    });
    let of_hooks = config.hooks.iter().map(|hook| (hook.name.as_str(), &hook.command));
    let redis = config.redis.iter().map(|redis| {
        let program = redis.program.clone().unwrap_or_else(|| "redis-server".into());
        ("redis".to_owned(), findable("redis", &program))
    });
    let of_file = of_dependents.chain(of_hooks).map(|(name, command)| {
        let program = command.first().map(PathBuf::from).unwrap_or_default();
        (name.to_owned(), findable(name, &program))
    });
    of_file.chain(redis).collect()
}

fn findable(name: &str, program: &Path) -> Result<(), String> {
    if program.components().count() > 1 {
        return match is_program(program) {
            true => Ok(()),
            false => Err(format!("{name}: {} is not a program that can be run", program.display())),
        };
    }
    let found = on_the_path(program).is_some();
    if found { Ok(()) } else { Err(format!("{name}: {} is not on the PATH", shown(program.as_os_str()))) }
}

fn on_the_path(program: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| is_program(file))
}

/// A program in a folder, or otherwise on the PATH.
pub(super) fn program(folder: &Path, name: &str) -> Option<PathBuf> {
    Some(folder.join(name)).filter(|file| is_program(file)).or_else(|| on_the_path(Path::new(name)))
}

fn shown(name: &OsStr) -> String {
    if name.is_empty() { "an empty command".to_owned() } else { name.to_string_lossy().into_owned() }
}

fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_the_program_says() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_of("nothing"), None);
    }

    #[test]
    fn a_command_is_found_by_its_path_or_on_the_path() {
        assert_eq!(findable("it", Path::new("sh")), Ok(()));
        assert_eq!(findable("it", Path::new("/bin/sh")), Ok(()));
        assert!(findable("it", Path::new("/etc/passwd")).is_err());
        assert!(findable("it", Path::new("no-such-program-anywhere")).is_err());
    }

    #[test]
    fn a_passfile_that_others_can_read_is_of_no_use() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("passfile");
        assert!(passfile_problem(&file, None).unwrap().words.contains("cannot be read"));
        fs::write(&file, "*:*:*:replicator:secret").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(passfile_problem(&file, None).unwrap().fix, format!("chmod 600 {}", file.display()));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(passfile_problem(&file, Some(&RunAs::Myself)), None);
    }

    /// Lets the servers' user enter the tests' folder and write in it; without root's rights that user is us.
    fn servers_user(folder: &Path) -> RunAs {
        if !rustix::process::geteuid().is_root() {
            return RunAs::Myself;
        }
        let run_as = RunAs::User { uid: 65_534, gid: 65_534 };
        std::os::unix::fs::chown(folder, Some(65_534), Some(65_534)).unwrap();
        run_as
    }

    #[test]
    fn settings_that_the_servers_user_cannot_change_are_named_with_what_helps() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path();
        let run_as = servers_user(data_dir);
        let user = user_name(run_as);
        let file = data_dir.join(AUTO_CONF);
        assert_eq!(locked_settings(data_dir, run_as), None, "ALTER SYSTEM makes it");
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(
            locked_settings(data_dir, run_as),
            None,
            "the file is replaced, even if it belongs to another user"
        );
        fs::create_dir(data_dir.join(format!("{AUTO_CONF}.tmp"))).unwrap();
        assert!(locked_settings(data_dir, run_as).unwrap().fix.ends_with(".tmp"));
        fs::remove_dir(data_dir.join(format!("{AUTO_CONF}.tmp"))).unwrap();
        // nothing more holds for root itself
        let shown = file.display();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
        let locked = locked_settings(data_dir, run_as).unwrap();
        assert!(locked.words.starts_with(&format!("{user} cannot read {shown}: ")), "{}", locked.words);
        assert_eq!(locked.fix, format!("chown {user} {shown}; chmod 600 {shown}"));
        let elsewhere = data_dir.join("elsewhere");
        fs::rename(&file, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
        let linked = locked_settings(data_dir, run_as).unwrap().fix;
        assert!(!linked.contains("chown") && linked.contains("the link"), "{linked}");
        fs::remove_file(&file).unwrap();
        fs::set_permissions(data_dir, fs::Permissions::from_mode(0o500)).unwrap();
        let locked = locked_settings(data_dir, run_as).unwrap();
        assert!(locked.words.contains("cannot replace files in"), "{}", locked.words);
        fs::set_permissions(data_dir, fs::Permissions::from_mode(0o700)).unwrap();
    }

    #[test]
    fn no_file_is_given_to_a_user_who_merely_looks() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        fs::write(&file, "sixteen characters").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
        let looking = servers_user(folder.path());
        let fix = looking.act(|| Ok(mend_secret(&file, "cluster.secret_file"))).unwrap();
        assert_eq!(fix, LOOK_AGAIN);
        assert!(looking.act(|| Ok(passfile_problem(&file, None))).unwrap().is_none());
    }

    #[test]
    fn a_secret_is_mended_by_what_is_wrong_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        let chmod = format!("chmod 600 {}", file.display());
        let copy = format!("copy it from another node, and: {chmod}");
        assert_eq!(mend_secret(&file, "cluster.secret_file"), copy);
        assert_eq!(
            mend_secret(&file, "redis.password_file"),
            format!("write the password into it, as one line, and: {chmod}")
        );
        fs::write(&file, "short").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(mend_secret(&file, "cluster.secret_file"), copy);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(mend_secret(&file, "cluster.secret_file"), chmod);
    }

    #[test]
    fn a_journal_in_a_folder_that_is_not_there_has_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("pgdata");
        fs::create_dir(&data_dir).unwrap();
        let room = |name: &str| journal_room(&folder.path().join(name), &data_dir);
        assert!(room("journal.db").is_ok_and(|room| room > 0));
        assert!(room("gone/journal.db").is_err());
        std::os::unix::fs::symlink(&data_dir, folder.path().join("link")).unwrap();
        assert!(room("link/journal.db").unwrap_err().contains("is inside"));
    }
}
