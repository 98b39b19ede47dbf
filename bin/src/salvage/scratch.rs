//! A scratch copy of the kept data directory, and a server on it that nobody else can reach.

use std::{
    fs, io,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use interrex_actors::runtime::{self, RunAs};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::{Done, SalvageError, database::Server};

/// When copying a data directory is given up.
const COPY_LIMIT: Duration = Duration::from_secs(12 * 3_600);
/// When the server's recovery from its crash is given up.
const START_LIMIT: Duration = Duration::from_secs(3_600);
/// How long a process that is asked to end may take before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// How often a starting server is tried.
const LOOK: Duration = Duration::from_millis(50);
/// What would start the copy as something else than a server of its own, or hold its files back.
const NOT_OF_THE_COPY: [&str; 5] =
    ["postgresql.auto.conf", "postmaster.pid", "postmaster.opts", "standby.signal", "recovery.signal"];

/// The copy, its server and their folders. [`Scratch::end`] removes all of it.
pub(super) struct Scratch {
    run_as: RunAs,
    programs: PathBuf,
    /// Beside the kept copy, so that a file system which can share blocks does so.
    folder: TempDir,
    /// Among the machine's temporary folders: the path of a socket must be short.
    sockets: TempDir,
    /// What runs at the moment: the copying, later the server.
    child: Option<Child>,
}

impl Scratch {
    /// Empty folders that only the server's user, and root, may enter.
    pub(super) fn beside(kept: &Path, run_as: RunAs, programs: &Path) -> Done<Self> {
        let parent = kept.parent().unwrap_or(Path::new("/"));
        let mut named = tempfile::Builder::new();
        named.prefix("interrex-salvage-");
        let folder = named.tempdir_in(parent).map_err(failed("making a folder for the scratch copy"))?;
        let sockets = named.tempdir().map_err(failed("making a folder for its socket"))?;
        if let RunAs::User { uid, gid } = run_as {
            for path in [folder.path(), sockets.path()] {
                chown(path, Some(uid), Some(gid)).map_err(failed("handing a folder over"))?;
            }
        }
        Ok(Self { run_as, programs: programs.to_owned(), folder, sockets, child: None })
    }

    fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Copies the kept directory, links followed, without what would make more of it than a server alone.
    pub(super) async fn copy(&mut self, kept: &Path) -> Done<()> {
        let doing = "copying the kept data directory";
        let log = self.log_file(doing)?;
        let mut command = self.run_as.command("cp");
        command.args(["-a", "-L", "--reflink=auto", "-T", "--"]).arg(kept).arg(self.data_dir());
        command.stdout(Stdio::null()).stderr(log);
        let child = self.spawn(command, doing)?;
        let ended = tokio::time::timeout(COPY_LIMIT, child.wait()).await;
        let ended = ended.map_err(|_| SalvageError::Failed(format!("{doing}: not within {COPY_LIMIT:?}")))?;
        self.child = None;
        if !ended.map_err(failed(doing))?.success() {
            return Err(SalvageError::Failed(format!("{doing}: {}", self.last_words())));
        }
        for name in NOT_OF_THE_COPY {
            remove(&self.data_dir().join(name))?;
        }
        // a slot would keep the log of the copy, and a logical one could be read from
        for slot in fs::read_dir(self.data_dir().join("pg_replslot")).into_iter().flatten().flatten() {
            remove(&slot.path())?;
        }
        Ok(())
    }

    /// Starts a server on the copy, and waits until it has recovered and answers.
    pub(super) async fn start(&mut self, user: &str, prepared_transactions: u32) -> Done<Server> {
        let doing = "starting a server on the scratch copy";
        let settings = self.write_settings(prepared_transactions).map_err(failed(doing))?;
        let log = self.log_file(doing)?;
        let mut command = self.run_as.command(self.programs.join("postgres"));
        command.arg("-D").arg(self.data_dir()).arg("-c");
        command.arg(format!("config_file={}", settings.display()));
        // a Ctrl-C is for us: we stop it ourselves
        command.stdout(Stdio::null()).stderr(log).process_group(0);
        self.spawn(command, doing)?;
        let server = Server::on_socket(self.sockets.path(), user);
        let answering = async {
            loop {
                let Err(error) = server.connect("postgres").await else { return Ok(()) };
                if self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None))) {
                    return Err(SalvageError::Failed(format!("{doing}: it ended: {}", self.last_words())));
                }
                // it answers, and does not want us: waiting would not help
                if error.is_final() {
                    return Err(error.into());
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        match tokio::time::timeout(START_LIMIT, answering).await {
            Ok(answered) => answered.map(|()| server),
            Err(_) => Err(SalvageError::Failed(format!("{doing}: no answer within {START_LIMIT:?}"))),
        }
    }

    /// Settings of its own, whatever the kept copy says: no network, no archive, no replication, no workers.
    fn write_settings(&self, prepared_transactions: u32) -> io::Result<PathBuf> {
        let file = |name: &str| self.folder.path().join(name);
        let has_tablespaces = fs::read_dir(self.data_dir().join("pg_tblspc"))?.next().is_some();
        // tablespaces are folders of the copy, no links
        let tablespaces = if has_tablespaces { "allow_in_place_tablespaces = on\n" } else { "" };
        let settings = format!(
            "listen_addresses = ''\n\
             port = {port}\n\
             unix_socket_directories = {sockets}\n\
             unix_socket_permissions = 0700\n\
             hba_file = {hba}\n\
             ident_file = {ident}\n\
             archive_mode = off\n\
             max_wal_senders = 0\n\
             max_logical_replication_workers = 0\n\
             autovacuum = off\n\
             fsync = off\n\
             full_page_writes = off\n\
             restart_after_crash = off\n\
             huge_pages = off\n\
             shared_buffers = '64MB'\n\
             max_connections = 10\n\
             max_prepared_transactions = {prepared_transactions}\n\
             lc_messages = 'C'\n\
             {tablespaces}",
            port = Server::SOCKET_PORT,
            sockets = quoted(self.sockets.path()),
            hba = quoted(&file("hba.conf")),
            ident = quoted(&file("ident.conf")),
        );
        // only who may enter the folder of the socket gets as far as this
        fs::write(file("hba.conf"), "local all all trust\n")?;
        fs::write(file("ident.conf"), "")?;
        fs::write(file("postgresql.conf"), settings)?;
        Ok(file("postgresql.conf"))
    }

    fn spawn(&mut self, mut command: Command, doing: &str) -> Done<&mut Child> {
        let child = command.spawn().map_err(failed(doing))?;
        Ok(self.child.insert(child))
    }

    fn log_file(&self, doing: &str) -> Done<fs::File> {
        fs::File::create(self.folder.path().join("log")).map_err(failed(doing))
    }

    fn last_words(&self) -> String {
        let log = fs::read(self.folder.path().join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        // our own attempts to connect are no reason
        let says_why = |line: &&str| {
            ["ERROR:", "FATAL:", "PANIC:", "cp:"].iter().any(|word| line.contains(word))
                && !line.contains("the database system is")
        };
        let why = log.lines().find(says_why).or_else(|| log.lines().last());
        why.unwrap_or("it said nothing").to_owned()
    }

    /// Ends what runs and removes everything.
    pub(super) async fn end(mut self) -> Done<()> {
        let doing = "stopping what runs on the scratch copy";
        if let Some(mut child) = self.child.take() {
            if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
                // PostgreSQL's fast stop
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

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "''"))
}

fn remove(path: &Path) -> Done<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed(&format!("removing {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}

/// An error of the system with what was being done.
pub(super) fn failed(doing: &str) -> impl Fn(io::Error) -> SalvageError {
    move |error| SalvageError::Failed(format!("{doing}: {error}"))
}
