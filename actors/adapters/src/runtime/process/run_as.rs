//! The user that a program runs as, and its environment: that user's rights and environment, without the variables of the service
//! manager.

use std::{
    ffi::{CString, OsStr},
    fs, io,
    os::unix::fs::MetadataExt,
    path::Path,
    process::{ExitStatus, Output, Stdio},
    thread,
};

use interrex_actors::ports::{Answer, PortError};
use nix::unistd::{User, getgrouplist};
use rustix::{
    process::{Gid, Uid},
    thread::{set_thread_gid, set_thread_groups, set_thread_uid},
};
use tokio::process::Child;

/// The user that a program runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunAs {
    /// As the supervisor itself.
    Myself,
    /// As this user and group, because the supervisor is root.
    User {
        /// User number.
        uid: u32,
        /// Group number.
        gid: u32,
    },
}

impl RunAs {
    /// A named user, or the owner of a folder; never root, because PostgreSQL refuses to run as root.
    ///
    /// # Errors
    /// The user does not exist or is root; or it is another user and the supervisor does not run as root.
    pub fn resolve(name: Option<&str>, owner_of: &Path) -> Answer<Self> {
        let (user, whose) = match name {
            Some(name) => Self::named("node.run_as", name)?,
            None => {
                let owner = Self::of_file(owner_of)
                    .map_err(|error| PortError::new(&owner_of.display().to_string(), error))?;
                (owner, format!("the owner of {}", owner_of.display()))
            }
        };
        if user.uid == 0 {
            return Err(PortError(format!(
                "{whose} is root, and PostgreSQL refuses to run as root: set node.run_as to an unprivileged user that owns \
                 the data directory"
            )));
        }
        user.checked(&whose)
    }

    /// The user that a key of the configuration names; it may be root.
    ///
    /// # Errors
    /// The user does not exist; or it is another user and the supervisor does not run as root.
    pub fn configured(key: &str, name: &str) -> Answer<Self> {
        let (user, whose) = Self::named(key, name)?;
        user.checked(&whose)
    }

    /// The owner of a folder or file; without root's rights always the supervisor's own user.
    ///
    /// # Errors
    /// The path cannot be examined.
    pub fn owner_of(path: &Path) -> io::Result<Self> {
        let (owner, me) = (Self::of_file(path)?, rustix::process::geteuid());
        let is_other = me.is_root() && owner.uid != me.as_raw();
        Ok(if is_other { Self::User { uid: owner.uid, gid: owner.gid } } else { Self::Myself })
    }

    fn named(key: &str, name: &str) -> Answer<(Ids, String)> {
        let user = User::from_name(name)
            .ok()
            .flatten()
            .ok_or_else(|| PortError(format!("{key}: there is no user `{name}` on this machine")))?;
        Ok((Ids { uid: user.uid.as_raw(), gid: user.gid.as_raw() }, format!("{key} = \"{name}\"")))
    }

    /// With the user's own group: the group of the file may be another one, even root's.
    fn of_file(path: &Path) -> io::Result<Ids> {
        let file = fs::metadata(path)?;
        let uid = file.uid();
        Ok(Ids { uid, gid: entry(uid).map_or(file.gid(), |user| user.gid.as_raw()) })
    }

    /// A command with this user's rights and environment. It does not get the `PG...` variables of this process: with a password
    /// there, a server could log in to main as long as it runs, but not after its next start. It does not get the variables of the
    /// service manager either: they are for the supervisor, and a child that used one would act in its name.
    #[must_use]
    pub fn command(self, program: impl AsRef<OsStr>) -> Command {
        let mut inner = tokio::process::Command::new(program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_for_the_supervisor(name)) {
            inner.env_remove(name);
        }
        // a folder that every user may enter; otherwise PostgreSQL's tools complain
        inner.current_dir("/").stdin(Stdio::null()).kill_on_drop(true);
        if let Self::User { uid, gid } = self {
            inner.uid(uid).gid(gid);
            // libpq and others look for files in the home folder, and fail in root's
            if let Some(user) = entry(uid) {
                inner.env("HOME", user.dir).env("SHELL", user.shell).env_remove("MAIL");
                inner.env("USER", &user.name).env("LOGNAME", user.name);
            }
        }
        Command { inner, run_as: self }
    }

    /// Does work with only this user's rights, on its own thread; threads that it starts have the same rights.
    ///
    /// # Errors
    /// An error of the work; or the rights cannot be changed.
    pub fn act<T: Send>(self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let Self::User { uid, gid } = self else { return work() };
        if rustix::process::geteuid().as_raw() == uid {
            return work(); // within such work already
        }
        let groups = groups_of(uid, gid);
        thread::scope(|scope| {
            let acting = scope.spawn(|| {
                // Linux knows these by thread
                set_thread_groups(&groups)?;
                set_thread_gid(Gid::from_raw(gid))?;
                set_thread_uid(Uid::from_raw(uid))?;
                work()
            });
            acting.join().unwrap_or_else(|_| Err(io::Error::other("the thread died")))
        })
    }
}

/// User and group, before it is checked whether they are the supervisor's own.
#[derive(Clone, Copy)]
struct Ids {
    uid: u32,
    gid: u32,
}

impl Ids {
    fn checked(self, whose: &str) -> Answer<RunAs> {
        let Self { uid, gid } = self;
        let me = rustix::process::geteuid();
        if uid == me.as_raw() {
            return Ok(RunAs::Myself);
        }
        if me.is_root() {
            return Ok(RunAs::User { uid, gid });
        }
        Err(PortError(format!(
            "{whose} is another user (number {uid}): run the supervisor as that user or as root"
        )))
    }
}

fn entry(uid: u32) -> Option<User> {
    User::from_uid(uid.into()).ok().flatten()
}

/// All groups of a user in the user database, read each time: a new membership, for example in Debian's `ssl-cert`, counts from the
/// next start of a server on.
fn groups_of(uid: u32, gid: u32) -> Vec<Gid> {
    let listed = || {
        let name = CString::new(entry(uid)?.name).ok()?;
        getgrouplist(&name, gid.into()).ok()
    };
    let groups = listed().unwrap_or_else(|| vec![gid.into()]);
    groups.into_iter().map(|group| Gid::from_raw(group.as_raw())).collect()
}

/// Prefixes of variables that are only for the supervisor.
const OWN_PREFIXES: [&str; 5] = ["PG", "WATCHDOG_", "LISTEN_", "MONITOR_", "MEMORY_PRESSURE_"];
/// Names of other such variables: systemd sets them for the process of a service.
const OWN_NAMES: [&str; 9] = [
    "NOTIFY_SOCKET",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "MAINPID",
    "MANAGERPID",
    "SYSTEMD_EXEC_PID",
    "CREDENTIALS_DIRECTORY",
    "FDSTORE",
    "EXIT_STATUS",
];

fn is_for_the_supervisor(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
        || OWN_NAMES.iter().any(|own| name == own.as_bytes())
}

/// A program to start. It is always started with all rights of its user and no others: the library's own way drops the groups.
#[derive(Debug)]
pub struct Command {
    inner: tokio::process::Command,
    run_as: RunAs,
}

impl Command {
    /// Adds an argument.
    pub fn arg(&mut self, argument: impl AsRef<OsStr>) -> &mut Self {
        self.inner.arg(argument);
        self
    }

    /// Adds arguments.
    pub fn args(&mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> &mut Self {
        self.inner.args(arguments);
        self
    }

    /// Sets a variable of its environment.
    pub fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.inner.env(name, value);
        self
    }

    /// Removes a variable from its environment.
    pub fn env_remove(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        self.inner.env_remove(name);
        self
    }

    /// Sets variables of its environment.
    pub fn envs(
        &mut self,
        variables: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>,
    ) -> &mut Self {
        self.inner.envs(variables);
        self
    }

    /// Sets its input; by default it has no input.
    pub fn stdin(&mut self, from: impl Into<Stdio>) -> &mut Self {
        self.inner.stdin(from);
        self
    }

    /// Sets where its output goes.
    pub fn stdout(&mut self, to: impl Into<Stdio>) -> &mut Self {
        self.inner.stdout(to);
        self
    }

    /// Sets where its error output goes.
    pub fn stderr(&mut self, to: impl Into<Stdio>) -> &mut Self {
        self.inner.stderr(to);
        self
    }

    /// Sets whether it is killed when its [`Child`] is dropped; by default it is.
    pub fn kill_on_drop(&mut self, ends: bool) -> &mut Self {
        self.inner.kill_on_drop(ends);
        self
    }

    /// Sets its process group; 0 is a new group.
    pub fn process_group(&mut self, group: i32) -> &mut Self {
        self.inner.process_group(group);
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// The system's error.
    pub fn spawn(&mut self) -> io::Result<Child> {
        let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        let inner = &mut self.inner;
        // a process begins with the groups of the thread that made it
        self.run_as.act(|| {
            let _entered = runtime.enter();
            inner.spawn()
        })
    }

    /// Runs it to its end, and returns its exit status.
    ///
    /// # Errors
    /// The system's error.
    pub async fn status(&mut self) -> io::Result<ExitStatus> {
        self.spawn()?.wait().await
    }

    /// Runs it to its end, and returns its output.
    ///
    /// # Errors
    /// The system's error.
    pub async fn output(&mut self) -> io::Result<Output> {
        self.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?.wait_with_output().await
    }

    /// The user that it runs as.
    #[must_use]
    pub fn run_as(&self) -> RunAs {
        self.run_as
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_service_manager_and_libpq_tell_the_supervisor_is_for_it_alone() {
        for own in
            ["PGPASSWORD", "NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_PID", "JOURNAL_STREAM"]
        {
            assert!(is_for_the_supervisor(OsStr::new(own)), "{own}");
        }
        for other in ["PATH", "LANG", "TZ", "INTERREX_RUN", "LD_LIBRARY_PATH"] {
            assert!(!is_for_the_supervisor(OsStr::new(other)), "{other}");
        }
    }

    #[tokio::test]
    async fn a_child_has_its_users_groups_and_home_and_no_others() {
        if !rustix::process::geteuid().is_root() {
            return; // nobody else can act as another user
        }
        // whichever user of this machine has more than one group; else any
        let users = fs::read_to_string("/etc/passwd").unwrap();
        let names = users.lines().filter_map(|line| line.split(':').next()).filter(|name| *name != "root");
        let known = names.filter_map(|name| User::from_name(name).ok().flatten());
        let groups = |user: &User| groups_of(user.uid.as_raw(), user.gid.as_raw());
        let user = known.max_by_key(|user| groups(user).len()).unwrap();
        let run_as = RunAs::User { uid: user.uid.as_raw(), gid: user.gid.as_raw() };
        let script = "id -G; id -g; echo $HOME; echo $USER; grep -E '^(Uid|SigBlk):' /proc/self/status";
        let output = run_as.command("/bin/sh").args(["-c", script]).output().await.unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<&str> = said.lines().collect();
        let mut found: Vec<u32> = lines[0].split(' ').map(|group| group.parse().unwrap()).collect();
        let mut wanted: Vec<u32> = groups(&user).iter().map(|group| group.as_raw()).collect();
        for groups in [&mut found, &mut wanted] {
            groups.sort_unstable();
            groups.dedup();
        }
        assert_eq!(found, wanted, "{}", user.name);
        let home = user.dir.display().to_string();
        assert_eq!(lines[1..4], [user.gid.to_string().as_str(), home.as_str(), user.name.as_str()]);
        let number = user.uid.to_string();
        assert_eq!(lines[4], format!("Uid:\t{number}\t{number}\t{number}\t{number}"));
        assert_eq!(lines[5], "SigBlk:\t0000000000000000");
    }
}
