//! The start of the server: `postgres` itself, which outlives the supervisor.
//!
//! Without `pg_ctl`, which first asks each program for its version, and checks only ten times a second whether the server is ready.

use std::{fs::File, io};

use interrex_actors::ports::{Answer, PortError, PostgresPort as _};
use rustix::process::Signal;

use super::{
    KILL_PATIENCE, LOOK, LocalPostgres, REAP_LIMIT, START_LIMIT,
    server_log::{self, Collected},
};
use crate::{
    guarded,
    runtime::{self, wait_gone},
};

/// The line of `postmaster.pid` with the state of the server.
pub(super) const STATUS_LINE: usize = 7;
/// The server admits sessions, or replays and will never admit them (`hot_standby = off`). PostgreSQL pads these words with blanks.
const STARTED: [&str; 2] = ["ready", "standby"];

/// Kills a server whose start was given up and which may not have written its pid file yet.
pub(super) async fn end_what_starts(pid: i32) -> Answer<()> {
    runtime::signal_child(pid, Signal::KILL);
    if wait_gone(pid, "postgres", KILL_PATIENCE).await {
        return Ok(());
    }
    Err(PortError(format!("PostgreSQL, process {pid}, was starting and did not end after SIGKILL")))
}

impl LocalPostgres {
    /// Starts the server, and waits until it is ready. Returns whether this call started it.
    pub(super) async fn start_postmaster(&self) -> Answer<bool> {
        if self.postmaster().is_some() {
            return Ok(false);
        }
        self.must_be_startable()?;
        if self.is_standby_directory() {
            self.keep_a_standby()?;
        }
        if let Some(dead) = self.named_postmaster() {
            runtime::wait_reaped(dead, REAP_LIMIT).await;
        }
        let log = &self.settings.log_file;
        let doing = format!("starting PostgreSQL with the log file {}", log.display());
        self.settings
            .make_folders_in_run()
            .map_err(|error| PortError::new("making the socket's folder", error))?;
        let collected = Collected::now(&self.settings.data_dir);
        let (output, begin) = self.open_log().map_err(|error| PortError::new(&doing, error))?;
        let mut postmaster = self.spawn(output).map_err(|error| PortError::new(&doing, error))?;
        let pid = postmaster.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        self.starting.set(Some(pid));
        tokio::select! {
            () = self.is_started(pid) => {
                self.starting.set(None);
                return Ok(true);
            }
            _ = postmaster.wait() => self.starting.set(None),
            () = tokio::time::sleep(START_LIMIT) => {
                return Err(PortError(format!("PostgreSQL, process {pid}, was not ready within {START_LIMIT:?}; it may still be \
                                              starting: see its log file")));
            }
        }
        // a supervisor that died may have begun a start, which continued and was first
        if self.postmaster().is_some() {
            return Ok(false);
        }
        let user = self.settings.run_as;
        let (words, log) = match collected.last_complaint_since(&self.settings.data_dir, user) {
            Some(of_collector) if !server_log::complains(log, user, begin) => of_collector,
            _ => (server_log::last_words(log, user, begin), log.clone()),
        };
        Err(PortError(format!("PostgreSQL did not start ({}): {words}", log.display())))
    }

    /// In its own process group, so that a Ctrl-C for the supervisor does not reach it.
    fn spawn(&self, output: File) -> io::Result<tokio::process::Child> {
        let mut command = self.settings.server();
        // as from pg_ctl: the server's own commands may use it
        command.env("PGDATA", &self.settings.data_dir);
        command.stdout(output.try_clone()?).stderr(output).process_group(0).kill_on_drop(false).spawn()
    }

    /// The server's log file, and its length now.
    fn open_log(&self) -> io::Result<(File, u64)> {
        let log = guarded::append(&self.settings.log_file, self.settings.run_as)?;
        let end = log.metadata()?.len();
        Ok((log, end))
    }

    async fn is_started(&self, postmaster: i32) {
        let own = postmaster.to_string();
        let pid_file = self.settings.data_dir.join("postmaster.pid");
        loop {
            let told = std::fs::read(&pid_file).unwrap_or_default();
            // a path in it may have any encoding
            let told = String::from_utf8_lossy(&told);
            let lines: Vec<&str> = told.lines().map(str::trim).collect();
            // until it has written its own, the file may be a dead server's
            let is_own = lines.first() == Some(&own.as_str());
            if is_own && lines.get(STATUS_LINE).is_some_and(|status| STARTED.contains(status)) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
