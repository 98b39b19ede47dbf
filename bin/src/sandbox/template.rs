//! The data directory that every node's is a copy of: made once by initdb, filled without ever being started.
//!
//! A cleanly closed directory that is copied is a main and its standbys at the same position, without a base
//! backup. With a cache, many sandboxes share one.

use std::{
    fs::{self, File, OpenOptions},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use interrex_actors::env::{Env as _, SystemEnv};
use interrex_adapters::runtime;
use interrex_events::journal::Stamp as _;
use serde::{Deserialize, Serialize};

use super::{
    Done, SandboxError,
    processes::MARK,
    programs::{Account, set_mode},
};

const SHARED_SETTINGS: &str = include_str!("templates/postgresql.conf");
const WHO_MAY_CONNECT: &str = include_str!("templates/pg_hba.conf");
const CONTENTS: &str = include_str!("templates/contents.sql");
/// When one of PostgreSQL's programs is given up.
const LIMIT: Duration = Duration::from_secs(60);
/// How long another process may take to make the same template.
const WAIT_FOR_ANOTHER: Duration = Duration::from_secs(90);

/// The passwords in a data directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Passwords {
    /// Of `interrex`, the supervisors' superuser.
    pub(super) superuser: String,
    /// Of `replicator`, as which standbys log in.
    pub(super) replicator: String,
    /// Of `radius`.
    pub(super) radius: String,
    /// Of `app`, as which the writer logs in.
    pub(super) application: String,
}

impl Passwords {
    /// What a sandbox has before it has a data directory.
    pub(super) fn none() -> Self {
        let nothing = String::new;
        Self { superuser: nothing(), replicator: nothing(), radius: nothing(), application: nothing() }
    }

    fn fresh() -> Self {
        Self { superuser: secret(), replicator: secret(), radius: secret(), application: secret() }
    }
}

/// A text that cannot be guessed: the random halves of two fresh ids.
pub(super) fn secret() -> String {
    let [run, event] = [SystemEnv.run_id().0, SystemEnv.event_id().0];
    format!("{}{}", &run.simple().to_string()[16..], &event.simple().to_string()[16..])
}

/// A data directory to copy.
#[derive(Debug)]
pub(super) struct Template {
    /// It.
    pub(super) data_dir: PathBuf,
    /// What is in it.
    pub(super) passwords: Passwords,
}

/// What a template is made with.
pub(super) struct Maker<'a> {
    /// Folder of PostgreSQL's programs.
    pub(super) programs: &'a Path,
    /// Whom it belongs to.
    pub(super) account: Account,
    /// The sandbox's folder, with which every process is marked.
    pub(super) mark: &'a Path,
}

impl Maker<'_> {
    /// A template from the cache; made first if it is not there.
    pub(super) async fn cached(&self, cache: &Path) -> Done<Template> {
        let folder = cache.join(format!("postgres-template-{:016x}", self.fingerprint()));
        if folder.join("passwords.json").exists() {
            return read(&folder);
        }
        let _lock = lock(&folder.with_extension("lock")).await?;
        if folder.join("passwords.json").exists() {
            return read(&folder);
        }
        // a reader finds all of it or nothing
        let unfinished = folder.with_extension("unfinished");
        let _ = fs::remove_dir_all(&unfinished);
        self.make(&unfinished).await?;
        fs::rename(&unfinished, &folder)
            .map_err(|error| SandboxError::failed(format!("creating {}", folder.display()), error))?;
        read(&folder)
    }

    /// A template of one's own.
    pub(super) async fn make(&self, folder: &Path) -> Done<Template> {
        let data_dir = folder.join("pgdata");
        let doing = |path: &Path| format!("writing {}", path.display());
        fs::create_dir_all(folder).map_err(|error| SandboxError::failed(doing(folder), error))?;
        self.account.hand_over(folder, 0o700)?;
        let passwords = Passwords::fresh();
        self.initdb(folder, &data_dir, &passwords).await?;
        for (name, text) in [("postgresql.conf", SHARED_SETTINGS), ("pg_hba.conf", WHO_MAY_CONNECT)] {
            let file = data_dir.join(name);
            fs::write(&file, text).map_err(|error| SandboxError::failed(doing(&file), error))?;
        }
        // the file that the settings include; every node has its own
        self.write_secret(&folder.join("postgresql.node.conf"), "")?;
        self.fill(folder, &data_dir, &passwords).await?;
        let file = folder.join("passwords.json");
        let text =
            serde_json::to_string(&passwords).map_err(|error| SandboxError::failed(doing(&file), error))?;
        self.write_secret(&file, &text)?;
        Ok(Template { data_dir, passwords })
    }

    async fn initdb(&self, folder: &Path, data_dir: &Path, passwords: &Passwords) -> Done<()> {
        let password_file = folder.join("superuser");
        self.write_secret(&password_file, &passwords.superuser)?;
        let mut command = self.command("initdb");
        command.arg("-D").arg(data_dir).arg("--pwfile").arg(&password_file);
        command.args(["-U", "interrex", "--auth=scram-sha-256", "-E", "UTF8", "--locale=C"]);
        // small segments make small directories; what a crash of the machine would lose is of no use anyway
        command.args(["--wal-segsize=1", "--no-sync", "--no-instructions"]);
        runtime::run(command, "initdb", LIMIT)
            .await
            .map_err(|error| SandboxError::Server(error.to_string()))?;
        let _ = fs::remove_file(password_file);
        Ok(())
    }

    /// Roles and tables by PostgreSQL's single-user mode: no port, no client, no start and stop.
    async fn fill(&self, folder: &Path, data_dir: &Path, passwords: &Passwords) -> Done<()> {
        let statements = CONTENTS
            .replace("{REPLICATOR}", &passwords.replicator)
            .replace("{RADIUS}", &passwords.radius)
            .replace("{APPLICATION}", &passwords.application);
        let file = folder.join("contents.sql");
        self.write_secret(&file, &statements)?;
        let input =
            File::open(&file).map_err(|error| SandboxError::failed("reading the statements", error))?;
        let mut command = self.command("postgres");
        // -j: a statement ends with an empty line; -F: without fsync
        command.args(["--single", "-j", "-F", "-c", "exit_on_error=on", "-D"]).arg(data_dir).arg("postgres");
        command.stdin(input);
        let what = "creating roles and tables";
        runtime::run(command, what, LIMIT).await.map_err(|error| SandboxError::Server(error.to_string()))?;
        let _ = fs::remove_file(file);
        Ok(())
    }

    fn command(&self, name: &str) -> runtime::Command {
        let mut command = self.account.run_as.command(self.programs.join(name));
        // in a group of its own: a Ctrl-C on the terminal is for the caller, who ends it in good order
        command.env(MARK, self.mark).process_group(0);
        for name in foreign_settings() {
            command.env_remove(name);
        }
        command
    }

    fn write_secret(&self, path: &Path, text: &str) -> Done<()> {
        let written = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path);
        written
            .and_then(|mut file| writeln!(file, "{text}"))
            .map_err(|error| SandboxError::failed(format!("writing {}", path.display()), error))?;
        self.account.hand_over(path, 0o600)
    }

    /// Templates are distinguished by everything that goes into them.
    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.programs.hash(&mut hasher);
        // an update of the packages makes new ones
        let changed = fs::metadata(self.programs.join("postgres")).and_then(|file| file.modified()).ok();
        changed.hash(&mut hasher);
        [SHARED_SETTINGS, WHO_MAY_CONNECT, CONTENTS].hash(&mut hasher);
        self.account.name.hash(&mut hasher);
        rustix::process::geteuid().as_raw().hash(&mut hasher);
        hasher.finish()
    }
}

fn read(folder: &Path) -> Done<Template> {
    let file = folder.join("passwords.json");
    let doing = || format!("reading {}", file.display());
    let text = fs::read_to_string(&file).map_err(|error| SandboxError::failed(doing(), error))?;
    let passwords = serde_json::from_str(&text).map_err(|error| SandboxError::failed(doing(), error))?;
    Ok(Template { data_dir: folder.join("pgdata"), passwords })
}

/// One process makes a template, the others wait for it. The kernel drops the lock with the process.
async fn lock(path: &Path) -> Done<File> {
    let doing = || format!("locking {}", path.display());
    let file = OpenOptions::new().create(true).append(true).open(path);
    let file = file.map_err(|error| SandboxError::failed(doing(), error))?;
    let locked = async {
        while file.try_lock().is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(WAIT_FOR_ANOTHER, locked).await.map_err(|_| {
        SandboxError::failed(doing(), format!("another process has held it for {WAIT_FOR_ANOTHER:?}"))
    })?;
    Ok(file)
}

/// Copies a data directory with owners and permissions.
pub(super) async fn copy(from: &Path, to: &Path) -> Done<()> {
    let mut command = runtime::RunAs::Myself.command("cp");
    command.args(["-a", "--reflink=auto"]).arg(from).arg(to).process_group(0);
    runtime::run(command, "copying a data directory", LIMIT)
        .await
        .map_err(|error| SandboxError::Server(error.to_string()))?;
    set_mode(to, 0o700)
}

/// What the caller has set for its own PostgreSQL clients and supervisors is not for the sandbox.
pub(super) fn without_foreign_settings(command: &mut std::process::Command) {
    for name in foreign_settings() {
        command.env_remove(name);
    }
}

/// The names of such variables.
pub(super) fn foreign_settings() -> impl Iterator<Item = std::ffi::OsString> {
    std::env::vars_os().map(|(name, _)| name).filter(|name| {
        let text = name.to_string_lossy();
        let is_ours = text == MARK || text == "INTERREX_LOG";
        (text.starts_with("PG") || text.starts_with("INTERREX_")) && !is_ours
    })
}
