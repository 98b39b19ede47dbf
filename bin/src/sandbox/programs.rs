//! What a sandbox needs of the machine: the servers' programs, and a user to run them as.

use std::{
    env,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use interrex_adapters::runtime::RunAs;

use super::{Done, SandboxError};

/// Places of programs that are not on every user's path.
const BESIDE_PATH: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin"];
/// Users that servers may run as when the caller is root, best first.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];

/// Where the programs are.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    /// Folder of `initdb`, `pg_ctl` and `postgres`.
    pub(super) postgres: PathBuf,
    /// `redis-server`, where Redis is wanted.
    pub(super) redis: Option<PathBuf>,
    /// FreeRADIUS, where it is wanted.
    pub(super) radius: Option<RadiusPrograms>,
}

/// FreeRADIUS and what it brings.
#[derive(Debug, Clone)]
pub(super) struct RadiusPrograms {
    /// `freeradius`.
    pub(super) server: PathBuf,
    /// `radclient`.
    pub(super) client: PathBuf,
    /// Folder of its modules.
    pub(super) modules: PathBuf,
    /// Folder of its dictionaries.
    pub(super) dictionaries: PathBuf,
}

impl Programs {
    /// Looks for everything, and names all that is missing at once.
    pub(super) fn find(with_redis: bool, with_radius: bool) -> Done<Self> {
        let mut missing = Vec::new();
        let mut need = |found: Option<PathBuf>, what: &str| {
            if found.is_none() {
                missing.push(what.to_owned());
            }
            found.unwrap_or_default()
        };
        let postgres = need(newest_postgres(), "PostgreSQL (initdb, pg_ctl)");
        let redis = with_redis.then(|| need(program("redis-server"), "redis-server"));
        let radius = with_radius.then(|| RadiusPrograms {
            server: need(program("freeradius"), "freeradius"),
            client: need(program("radclient"), "radclient"),
            modules: need(radius_modules(), "FreeRADIUS' module rlm_sql_postgresql"),
            dictionaries: need(
                Some(PathBuf::from("/usr/share/freeradius"))
                    .filter(|folder| folder.join("dictionary").is_file()),
                "FreeRADIUS' dictionaries",
            ),
        });
        if missing.is_empty() {
            Ok(Self { postgres, redis, radius })
        } else {
            Err(SandboxError::Missing(missing))
        }
    }
}

fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(BESIDE_PATH.iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// The newest version that has the server's programs; some machines have an older or newer client alone.
fn newest_postgres() -> Option<PathBuf> {
    let complete =
        |folder: &PathBuf| ["initdb", "pg_ctl", "postgres"].iter().all(|name| folder.join(name).is_file());
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .map(|entry| entry.path().join("bin"))
        .filter(complete)
        .max_by_key(|folder| version_of(folder));
    newest.or_else(|| program("initdb")?.parent().map(Path::to_owned).filter(complete))
}

fn version_of(bin: &Path) -> Option<u32> {
    bin.parent()?.file_name()?.to_str()?.parse().ok()
}

fn radius_modules() -> Option<PathBuf> {
    let nested = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    std::iter::once(PathBuf::from("/usr/lib/freeradius"))
        .chain(nested.map(|entry| entry.path().join("freeradius")))
        .find(|folder| folder.join("rlm_sql_postgresql.so").is_file())
}

/// Whom the servers of a sandbox run as.
#[derive(Debug, Clone, Copy)]
pub(super) struct Account {
    /// As the runtime understands it.
    pub(super) run_as: RunAs,
    /// The name to configure, where it is not the caller.
    pub(super) name: Option<&'static str>,
}

impl Account {
    /// The caller, or an unprivileged user if the caller is root: PostgreSQL refuses to run as root.
    pub(super) fn choose() -> Done<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self { run_as: RunAs::Myself, name: None });
        }
        UNPRIVILEGED
            .into_iter()
            .find_map(|name| {
                let run_as = RunAs::resolve(Some(name), Path::new("/")).ok()?;
                Some(Self { run_as, name: Some(name) })
            })
            .ok_or_else(|| {
                SandboxError::failed(
                    "choosing a user for the servers",
                    format!(
                        "PostgreSQL refuses to run as root, and there is no user {} on this machine; \
                         run this as an ordinary user",
                        UNPRIVILEGED.join(" or ")
                    ),
                )
            })
    }

    /// As text, for messages.
    pub(super) fn in_words(&self) -> String {
        self.name.map_or_else(|| "as you".to_owned(), |name| format!("as user {name}"))
    }

    /// Makes a file or folder theirs, with these permissions.
    pub(super) fn hand_over(&self, path: &Path, mode: u32) -> Done<()> {
        let doing = || format!("setting owner and permissions of {}", path.display());
        set_mode(path, mode)?;
        if let RunAs::User { uid, gid } = self.run_as {
            chown(path, Some(uid), Some(gid)).map_err(|error| SandboxError::failed(doing(), error))?;
        }
        Ok(())
    }
}

/// Sets permissions whatever the caller's umask.
pub(super) fn set_mode(path: &Path, mode: u32) -> Done<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(|error| SandboxError::failed(format!("setting permissions of {}", path.display()), error))
}
