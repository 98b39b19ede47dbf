//! Stops the server; and shuts a main down so that it can be proved that a standby has all of its WAL.

use std::time::Duration;

use interrex_actors::ports::{Answer, LogRecord, PortError, PostgresEnd, ShutdownProof, StopMode};
use interrex_events::{Lsn, TimelineId};
use rustix::process::Signal;

use super::{KILL_PATIENCE, LocalPostgres, start::end_what_starts, wal::Wal};
use crate::runtime::{self, wait_gone};

impl LocalPostgres {
    /// Stops the server, with harder and harder signals, and reports how.
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
                    let by = if number == Signal::KILL { "killed" } else { "stopped at once" };
                    format!(
                        ", {by}, because a clean stop did not end within {patience:?}: it still had {left}"
                    )
                });
                let words = format!(
                    "stopped, process {pid} and all of its own are gone (control file: {state}){how}"
                );
                return Ok(PostgresEnd { words, forced: forced.is_some() });
            }
            if number == Signal::INT {
                left = self.what_is_left(pid);
                tracing::warn!(left, "PostgreSQL did not stop cleanly in time, and is stopped at once");
            }
        }
        Err(PortError(format!("PostgreSQL, process {pid}, did not end after SIGKILL")))
    }

    /// A fast stop and its proof.
    pub(super) async fn stop_and_prove(&self, limit: Duration) -> Answer<ShutdownProof> {
        self.client.take();
        self.spare.take();
        if let Some(pid) = self.postmaster() {
            runtime::signal(pid, Signal::INT);
            // a process that SIGSTOP has stopped takes no other signal
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

    /// The proof that a stopped server was shut down cleanly, and where its WAL ends.
    pub(super) async fn prove_shutdown(&self) -> Answer<ShutdownProof> {
        self.must_be_stopped()?;
        let control = self.control_file().await?;
        if control.state != "shut down" {
            return Err(PortError(format!(
                "it is not proved that PostgreSQL was shut down cleanly: its control file says `{}`",
                control.state
            )));
        }
        let doing = format!("reading the WAL at {}", control.checkpoint);
        let mut wal = Wal::new(&self.settings.data_dir, control.timeline, control.segment_size);
        let record = wal
            .record(control.checkpoint)
            .map_err(|error| PortError::new(&doing, error))?
            .filter(super::wal::Record::is_shutdown_checkpoint)
            .ok_or_else(|| PortError::new(&doing, "no complete shutdown checkpoint begins there"))?;
        let after = wal.record(record.end).map_err(|error| PortError::new(&doing, error))?;
        if after.is_some() {
            return Err(PortError::new(&doing, "the WAL continues after the shutdown checkpoint"));
        }
        Ok(ShutdownProof {
            system_id: control.system_id,
            timeline: control.timeline,
            checkpoint: control.checkpoint,
            end: record.end,
            sha256: record.sha256(),
        })
    }

    /// A WAL record on the disk.
    pub(super) async fn read_record(&self, timeline: TimelineId, at: Lsn) -> Answer<LogRecord> {
        let segment_size = self.control_file().await?.segment_size;
        let doing = format!("reading the WAL at {at}");
        let record = Wal::new(&self.settings.data_dir, timeline, segment_size).record(at);
        let record = record.map_err(|error| PortError::new(&doing, error))?;
        let record = record.ok_or_else(|| PortError::new(&doing, "no complete record begins there"))?;
        Ok(LogRecord { end: record.end, sha256: record.sha256() })
    }

    /// Refuses a server with processes, including sessions of a killed postmaster.
    pub(super) fn must_be_stopped(&self) -> Answer<()> {
        match runtime::processes_in(&self.settings.data_dir, "postgres").as_slice() {
            [] => Ok(()),
            [pid, ..] => Err(PortError(format!("PostgreSQL still runs (process {pid})"))),
        }
    }

    /// What a server that does not stop waits for: the titles of its processes.
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
