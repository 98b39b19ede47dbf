//! Stopping the server; and closing a main so that a standby can be proved to have all of its log.

use std::time::Duration;

use interrex_actors::ports::{Answer, LogRecord, PortError, PostgresEnd, ShutdownProof, StopMode};
use interrex_events::{Lsn, TimelineId};
use rustix::process::Signal;

use super::{KILL_PATIENCE, LocalPostgres, start::end_what_starts, wal::Wal};
use crate::runtime::{self, wait_gone};

impl LocalPostgres {
    /// Stops the server, harder and harder, and says how.
    pub(super) async fn stop_postmaster(&self, mode: StopMode) -> Answer<PostgresEnd> {
        self.client.take();
        self.spare.take();
        let starting = self.starting.take();
        let Some(pid) = self.postmaster() else {
            if let Some(pid) = starting {
                end_what_starts(pid).await?;
            }
            self.end_orphans().await?;
            let words = format!("was not running (control file: {})", self.cluster_state().await);
            return Ok(PostgresEnd { words, forced: false });
        };
        let patience = match mode {
            StopMode::Fast => Some(self.settings.stop_patience),
            StopMode::Within(patience) => Some(patience),
            StopMode::Immediate => None,
        };
        let in_good_order = patience.map(|patience| (Signal::INT, patience));
        let mut left = String::new();
        for (number, limit) in
            in_good_order.into_iter().chain([(Signal::QUIT, KILL_PATIENCE), (Signal::KILL, KILL_PATIENCE)])
        {
            runtime::signal(pid, number);
            runtime::signal(pid, Signal::CONT);
            if wait_gone(pid, "postgres", limit).await {
                self.end_orphans().await?;
                let state = self.cluster_state().await;
                let forced = patience.filter(|_| number != Signal::INT);
                let how = forced.map_or_else(String::new, |patience| {
                    let by = if number == Signal::KILL { "killed" } else { "ended at once" };
                    format!(", {by}, for it had not stopped in good order within {patience:?}: it still had {left}")
                });
                let words = format!(
                    "stopped, process {pid} and all of its own are gone (control file: {state}){how}"
                );
                return Ok(PostgresEnd { words, forced: forced.is_some() });
            }
            if number == Signal::INT {
                left = self.what_is_left(pid);
                tracing::warn!(left, "PostgreSQL did not stop in good order, and is ended at once");
            }
        }
        Err(PortError(format!("PostgreSQL, process {pid}, lives on after SIGKILL")))
    }

    /// A fast stop and its proof.
    pub(super) async fn stop_and_prove(&self, limit: Duration) -> Answer<ShutdownProof> {
        self.client.take();
        self.spare.take();
        if let Some(pid) = self.postmaster() {
            runtime::signal(pid, Signal::INT);
            // one that hangs in a stop signal hears nothing else
            runtime::signal(pid, Signal::CONT);
            if !wait_gone(pid, "postgres", limit).await {
                return Err(PortError(format!(
                    "PostgreSQL, process {pid}, did not stop within {limit:?}; it still has {}",
                    self.what_is_left(pid)
                )));
            }
        }
        self.prove_shutdown().await
    }

    /// The proof that a stopped server was closed, and where its log ends.
    pub(super) async fn prove_shutdown(&self) -> Answer<ShutdownProof> {
        self.must_be_stopped()?;
        let control = self.control_file().await?;
        if control.state != "shut down" {
            return Err(PortError(format!(
                "there is no proof that it was closed: its control file says `{}`",
                control.state
            )));
        }
        let doing = format!("reading the log at {}", control.checkpoint);
        let mut wal = Wal::new(&self.settings.data_dir, control.timeline, control.segment_size);
        let record = wal
            .record(control.checkpoint)
            .map_err(|error| PortError::new(&doing, error))?
            .filter(super::wal::Record::is_shutdown_checkpoint)
            .ok_or_else(|| PortError::new(&doing, "no whole shutdown checkpoint begins there"))?;
        let after = wal.record(record.end).map_err(|error| PortError::new(&doing, error))?;
        if after.is_some() {
            return Err(PortError::new(&doing, "the log goes on after the shutdown checkpoint"));
        }
        Ok(ShutdownProof {
            system_id: control.system_id,
            timeline: control.timeline,
            checkpoint: control.checkpoint,
            end: record.end,
            sha256: record.sha256(),
        })
    }

    /// A record of the log on the disk.
    pub(super) async fn read_record(&self, timeline: TimelineId, at: Lsn) -> Answer<LogRecord> {
        let segment_size = self.control_file().await?.segment_size;
        let doing = format!("reading the log at {at}");
        let record = Wal::new(&self.settings.data_dir, timeline, segment_size).record(at);
        let record = record.map_err(|error| PortError::new(&doing, error))?;
        let record = record.ok_or_else(|| PortError::new(&doing, "no whole record begins there"))?;
        Ok(LogRecord { end: record.end, sha256: record.sha256() })
    }

    /// A stopped server has no process left, sessions of a killed postmaster included.
    pub(super) fn must_be_stopped(&self) -> Answer<()> {
        match runtime::processes_in(&self.settings.data_dir, "postgres").as_slice() {
            [] => Ok(()),
            [pid, ..] => Err(PortError(format!("PostgreSQL still runs (process {pid})"))),
        }
    }

    /// What a server that does not stop waits for, by the titles that its processes gave themselves.
    fn what_is_left(&self, postmaster: i32) -> String {
        let titles: Vec<String> = runtime::processes_in(&self.settings.data_dir, "postgres")
            .into_iter()
            .filter(|pid| *pid != postmaster)
            .filter_map(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).ok())
            .map(|title| String::from_utf8_lossy(&title).replace('\0', " ").trim().to_owned())
            .collect();
        if titles.is_empty() { "no other process".to_owned() } else { titles.join("; ") }
    }
}
