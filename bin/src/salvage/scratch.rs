//! A scratch copy of something kept, and what runs on it. However a salvage ends, nothing of it is left.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use interrex_actors::runtime::{self, RunAs};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::{Done, SalvageError};

/// When copying is given up.
const COPY_LIMIT: Duration = Duration::from_secs(12 * 3_600);
/// How long a process that is asked to end may take before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// How often a starting server is tried.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// The copy, its server and their folders. [`Scratch::end`] removes all of it.
pub(super) struct Scratch {
    run_as: RunAs,
    /// Beside the kept copy, so that a file system which can share blocks does so.
    folder: TempDir,
    /// Among the machine's temporary folders: the path of a socket must be short.
    sockets: TempDir,
    /// What runs at the moment: the copying, later the server.
    child: Option<Child>,
}

impl Scratch {
    /// Empty folders that only the server's user, and root, may enter.
    pub(super) fn beside(kept: &Path, run_as: RunAs) -> Done<Self> {
        let parent = kept.parent().unwrap_or(Path::new("/"));
        let mut named = tempfile::Builder::new();
        named.prefix("interrex-salvage-").permissions(fs::Permissions::from_mode(0o700));
        let doing = format!("making a folder for the scratch copy in {}", parent.display());
        let folder = named.tempdir_in(parent).map_err(failed(&doing))?;
        let sockets = named.tempdir().map_err(failed("making a folder for its socket"))?;
        let scratch = Self { run_as, folder, sockets, child: None };
        for path in [scratch.folder(), scratch.sockets()] {
            scratch.hand_over(path)?;
        }
        Ok(scratch)
    }

    /// Whom its server runs as.
    pub(super) fn run_as(&self) -> RunAs {
        self.run_as
    }

    /// Where settings and a log may lie.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the server's socket lies.
    pub(super) fn sockets(&self) -> &Path {
        self.sockets.path()
    }

    /// The copy.
    pub(super) fn data_dir(&self) -> PathBuf {
        self.folder().join("data")
    }

    fn hand_over(&self, path: &Path) -> Done<()> {
        match self.run_as {
            RunAs::User { uid, gid } => {
                chown(path, Some(uid), Some(gid)).map_err(failed("handing a folder over"))
            }
            RunAs::Myself => Ok(()),
        }
    }

    /// Copies the whole of what is kept, links followed.
    pub(super) async fn copy(&mut self, kept: &Path) -> Done<()> {
        let mut command = self.copying();
        command.arg("-T").arg("--").arg(kept).arg(self.data_dir());
        self.run_copy(command, &format!("copying {}", kept.display())).await
    }

    /// Copies one file or folder of what is kept, links followed.
    pub(super) async fn copy_only(&mut self, kept: &Path, name: &str) -> Done<()> {
        let data_dir = self.data_dir();
        fs::create_dir(&data_dir).map_err(failed("making the scratch copy's folder"))?;
        self.hand_over(&data_dir)?;
        let mut command = self.copying();
        command.arg("-t").arg(data_dir).arg("--").arg(kept.join(name));
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
        let ended = ended.map_err(|_| SalvageError::Failed(format!("{doing}: not within {COPY_LIMIT:?}")))?;
        self.child = None;
        if ended.map_err(failed(doing))?.success() {
            return Ok(());
        }
        let log = self.log();
        let words = log.lines().next().unwrap_or("cp said nothing");
        Err(SalvageError::Failed(format!("{doing}: {words}")))
    }

    /// Starts what runs from here on.
    pub(super) fn spawn(&mut self, mut command: Command, doing: &str) -> Done<&mut Child> {
        let child = command.spawn().map_err(failed(doing))?;
        Ok(self.child.insert(child))
    }

    /// Whether that runs.
    pub(super) fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// An empty file for the words of what is started next.
    pub(super) fn log_file(&self, doing: &str) -> Done<fs::File> {
        fs::File::create(self.folder().join("log")).map_err(failed(doing))
    }

    /// What was said into it.
    pub(super) fn log(&self) -> String {
        let log = fs::read(self.folder().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Ends what runs and removes everything.
    pub(super) async fn end(mut self) -> Done<()> {
        let doing = "stopping what runs on the scratch copy";
        if let Some(mut child) = self.child.take() {
            if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
                // PostgreSQL's fast stop; and Redis' in the midst of loading too
                runtime::signal(pid, Signal::INT);
            }
            if tokio::time::timeout(STOP_LIMIT, child.wait()).await.is_err() {
                tokio::time::timeout(STOP_LIMIT, child.kill())
                    .await
                    .map_err(|_| SalvageError::Failed(format!("{doing}: it lives on after SIGKILL")))?
                    .map_err(failed(doing))?;
            }
        }
        self.sockets.close().map_err(failed("removing the socket's folder"))?;
        self.folder.close().map_err(failed("removing the scratch copy"))
    }
}

/// An error of the system with what was being done.
pub(super) fn failed(doing: &str) -> impl Fn(io::Error) -> SalvageError {
    move |error| SalvageError::Failed(format!("{doing}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_may_enter_what_is_copied() {
        let place = tempfile::tempdir().unwrap();
        let scratch = Scratch::beside(&place.path().join("kept"), RunAs::Myself).unwrap();
        for folder in [scratch.folder(), scratch.sockets()] {
            assert_eq!(fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700);
        }
    }
}
