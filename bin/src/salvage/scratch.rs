//! A scratch copy of a kept directory, and the server on it. Unless the salvage itself is killed, it is removed completely.
//!
//! ```text
//! next to kept copy:    interrex-salvage-A/          ours
//!                                         data/      the servers' user's
//! temporary folders:    interrex-salvage-B/          ours: the log, settings
//!                                         s/         the servers' user's: its socket
//! ```
//!
//! **Invariant:** we may be root, so we make no file in a place where the servers' user could have planted a link.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use interrex_adapters::runtime::{self, Command, RunAs};
use rustix::{
    fs::{Gid, Mode, OFlags, Uid},
    process::Signal,
};
use tempfile::TempDir;
use tokio::process::Child;

use super::{Done, SalvageError};

/// Time limit for copying.
const COPY_LIMIT: Duration = Duration::from_secs(12 * 3_600);
/// How long a process that is asked to end may take before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// Pause between two attempts to connect to a starting server.
pub(super) const LOOK: Duration = Duration::from_millis(50);
/// Name of the copy.
const DATA: &str = "data";
/// Name of the socket's folder.
const SOCKETS: &str = "s";

/// The copy, its server and their folders. [`Scratch::end`] removes all of it.
pub(super) struct Scratch {
    run_as: RunAs,
    /// Next to the kept copy, so that the file system can share blocks.
    copy: TempDir,
    /// In the machine's temporary folder: the path of a socket must be short, and the folder next to the kept copy may belong to
    /// the servers' user, who could replace it.
    temporary: TempDir,
    /// The running child: the copying, later the server.
    child: Option<Child>,
}

impl Scratch {
    /// Empty folders; in each is a folder that only the servers' user and root may enter.
    pub(super) fn beside(kept: &Path, run_as: RunAs) -> Done<Self> {
        let parent = kept.parent().unwrap_or(Path::new("/"));
        let mut named = tempfile::Builder::new();
        named.prefix("interrex-salvage-").permissions(fs::Permissions::from_mode(0o700));
        let doing = format!("making a folder for the scratch copy in {}", parent.display());
        let copy = named.tempdir_in(parent).map_err(failed(&doing))?;
        hand_over(run_as, copy.path(), DATA).map_err(failed(&doing))?;
        let doing = "making a folder for its socket";
        let temporary = named.tempdir().map_err(failed(doing))?;
        hand_over(run_as, temporary.path(), SOCKETS).map_err(failed(doing))?;
        Ok(Self { run_as, copy, temporary, child: None })
    }

    /// The user that its server runs as.
    pub(super) fn run_as(&self) -> RunAs {
        self.run_as
    }

    /// The folder of the server's socket.
    pub(super) fn sockets(&self) -> PathBuf {
        self.temporary.path().join(SOCKETS)
    }

    /// The copy.
    pub(super) fn data_dir(&self) -> PathBuf {
        self.copy.path().join(DATA)
    }

    /// Makes a file of settings that every user may read, with any umask: it must not have secrets.
    pub(super) fn write_settings(&self, name: &str, settings: &str) -> io::Result<PathBuf> {
        let path = self.temporary.path().join(name);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.write_all(settings.as_bytes())?;
        Ok(path)
    }

    /// Copies the whole kept directory; links are followed.
    pub(super) async fn copy(&mut self, kept: &Path) -> Done<()> {
        let mut command = self.copying();
        command.arg("-T").arg("--").arg(kept).arg(self.data_dir());
        self.run_copy(command, &format!("copying {}", kept.display())).await
    }

    /// Copies one file or folder of the kept directory; links are followed.
    pub(super) async fn copy_only(&mut self, kept: &Path, name: &str) -> Done<()> {
        let mut command = self.copying();
        command.arg("-t").arg(self.data_dir()).arg("--").arg(kept.join(name));
        self.run_copy(command, &format!("copying {name} of {}", kept.display())).await
    }

    fn copying(&self) -> Command {
        let mut command = self.run_as.command("cp");
        command.args(["-a", "-L", "--reflink=auto"]);
        command
    }

    async fn run_copy(&mut self, mut command: Command, doing: &str) -> Done<()> {
        command.stdout(Stdio::null()).stderr(self.log_file(doing)?);
        let child = self.spawn(command, doing)?;
        let ended = tokio::time::timeout(COPY_LIMIT, child.wait()).await;
        let ended = ended.map_err(|_| {
            SalvageError::Failed(format!("{doing}: the copy did not end within {COPY_LIMIT:?}"))
        })?;
        self.child = None;
        if ended.map_err(failed(doing))?.success() {
            return Ok(());
        }
        let log = self.log();
        let words = log.lines().next().unwrap_or("cp wrote no message");
        Err(SalvageError::Failed(format!("{doing}: {words}")))
    }

    /// Starts a child in a process group of its own: a terminal's Ctrl-C reaches only us, and we end the child.
    pub(super) fn spawn(&mut self, mut command: Command, doing: &str) -> Done<&mut Child> {
        let child = command.process_group(0).spawn().map_err(failed(doing))?;
        Ok(self.child.insert(child))
    }

    /// Whether the child runs.
    pub(super) fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// An empty file for the messages of the next child. Only we may read it: messages may contain kept data.
    pub(super) fn log_file(&self, doing: &str) -> Done<fs::File> {
        let mut empty = fs::OpenOptions::new();
        empty.write(true).create(true).truncate(true).mode(0o600);
        empty.open(self.log_path()).map_err(failed(doing))
    }

    /// The messages of the child.
    pub(super) fn log(&self) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    fn log_path(&self) -> PathBuf {
        self.temporary.path().join("log")
    }

    /// Ends the child and removes everything.
    pub(super) async fn end(mut self) -> Done<()> {
        let doing = "stopping the server on the scratch copy";
        if let Some(mut child) = self.child.take() {
            if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
                // a fast stop of PostgreSQL; it also stops a Redis that loads
                runtime::signal(pid, Signal::INT);
            }
            if tokio::time::timeout(STOP_LIMIT, child.wait()).await.is_err() {
                tokio::time::timeout(STOP_LIMIT, child.kill())
                    .await
                    .map_err(|_| {
                        SalvageError::Failed(format!("{doing}: the process did not end after SIGKILL"))
                    })?
                    .map_err(failed(doing))?;
            }
        }
        self.temporary.close().map_err(failed("removing the socket's folder"))?;
        self.copy.close().map_err(failed("removing the scratch copy"))
    }
}

/// Makes a folder in one of our folders, for the servers' user. That user may only pass through our folder.
///
/// By descriptors, without following a link: the folder around ours may belong to that user.
fn hand_over(run_as: RunAs, ours: &Path, name: &str) -> io::Result<()> {
    let as_folder = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let ours = rustix::fs::open(ours, as_folder, Mode::empty())?;
    if rustix::fs::fstat(&ours)?.st_uid != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other("another user replaced the folder"));
    }
    rustix::fs::mkdirat(&ours, name, Mode::RWXU)?;
    if let RunAs::User { uid, gid } = run_as {
        let theirs = rustix::fs::openat(&ours, name, as_folder, Mode::empty())?;
        rustix::fs::fchown(&theirs, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        rustix::fs::fchmod(&ours, Mode::RWXU | Mode::XGRP | Mode::XOTH)?;
    }
    Ok(())
}

/// Adds to an error of the system what was being done.
pub(super) fn failed(doing: &str) -> impl Fn(io::Error) -> SalvageError {
    move |error| SalvageError::Failed(format!("{doing}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn mode_and_owner(path: &Path) -> (u32, u32) {
        let about = fs::symlink_metadata(path).unwrap();
        (about.permissions().mode() & 0o777, about.uid())
    }

    fn beside_something(run_as: RunAs) -> (TempDir, Scratch) {
        let place = tempfile::tempdir().unwrap();
        let scratch = Scratch::beside(&place.path().join("kept"), run_as).unwrap();
        (place, scratch)
    }

    #[test]
    fn nobody_else_may_enter_what_is_copied() {
        let (_place, scratch) = beside_something(RunAs::Myself);
        let me = rustix::process::geteuid().as_raw();
        let (copy, temporary) = (scratch.copy.path(), scratch.temporary.path());
        for folder in [copy, temporary, &scratch.data_dir(), &scratch.sockets()] {
            assert_eq!(mode_and_owner(folder), (0o700, me));
        }
    }

    #[test]
    fn the_servers_user_owns_the_copy_and_the_sockets_and_nothing_around_them() {
        let me = rustix::process::geteuid();
        if !me.is_root() {
            return; // nobody else can hand anything over
        }
        let (_place, scratch) = beside_something(RunAs::User { uid: 65_534, gid: 65_534 });
        for theirs in [scratch.data_dir(), scratch.sockets()] {
            assert_eq!(mode_and_owner(&theirs), (0o700, 65_534));
        }
        for ours in [scratch.copy.path(), scratch.temporary.path()] {
            assert_eq!(mode_and_owner(ours), (0o711, 0));
        }
    }

    #[tokio::test]
    async fn a_terminals_interrupt_reaches_no_child_and_the_end_of_the_scratch_copy_does() {
        let (_place, mut scratch) = beside_something(RunAs::Myself);
        let mut command = RunAs::Myself.command("sleep");
        command.arg("600");
        let child = scratch.spawn(command, "testing").unwrap();
        let pid = rustix::process::Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
        assert_eq!(rustix::process::getpgid(Some(pid)).unwrap(), pid);
        scratch.end().await.unwrap();
        assert!(rustix::process::test_kill_process(pid).is_err(), "it ended");
    }

    #[test]
    fn settings_are_for_the_server_to_read_and_are_made_once() {
        let (_place, scratch) = beside_something(RunAs::Myself);
        let me = rustix::process::geteuid().as_raw();
        let settings = scratch.write_settings("some.conf", "port 0\n").unwrap();
        assert_eq!(mode_and_owner(&settings), (0o644, me));
        assert!(scratch.write_settings("some.conf", "").is_err());
        scratch.log_file("testing").unwrap();
        assert_eq!(mode_and_owner(&scratch.log_path()), (0o600, me));
    }

    #[test]
    fn a_link_in_the_place_of_a_folder_is_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let link = place.path().join("link");
        fs::create_dir(place.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("elsewhere", &link).unwrap();
        assert!(hand_over(RunAs::Myself, &link, DATA).is_err());
        assert!(!place.path().join("elsewhere").join(DATA).exists());
    }
}
