//! Stops the server; and shuts a main down so that it can be proved that a standby has all of its WAL.

use std::time::Duration;

use interrex_actors::ports::{Answer, LogRecord, PortError, PostgresEnd, ShutdownProof, StopMode};
use interrex_events::{Lsn, TimelineId};

use super::{KILL_PATIENCE, LocalPostgres, wal::Wal};
use crate::runtime::{Signal, Stopped};

impl LocalPostgres {
    /// Stops the server, with harder and harder signals, and reports how.
    pub(super) async fn stop_postmaster(&self, mode: StopMode) -> Answer<PostgresEnd> {
        self.client.take();
        self.spare.take();
        let runtime = &self.settings.runtime;
        let Some(instance) = runtime.find().await else {
            runtime.end_rest(KILL_PATIENCE).await?;
            let words = format!("was not running (control file: {})", self.cluster_state().await);
            return Ok(PostgresEnd { words, forced: false });
        };
        let patience = match mode {
            StopMode::Fast => Some(self.settings.stop_patience),
            StopMode::Within(patience) => Some(patience),
            StopMode::Immediate => None,
        };
        let mut steps: Vec<_> = patience.map(|patience| (Signal::INT, patience)).into_iter().collect();
        steps.extend([(Signal::QUIT, KILL_PATIENCE), (Signal::KILL, KILL_PATIENCE)]);
        let stopped = runtime.stop(&instance, &steps).await;
        let Stopped { by, left } = stopped.map_err(|error| PortError(format!("PostgreSQL: {error}")))?;
        let state = self.cluster_state().await;
        let forced = patience.filter(|_| by != Signal::INT);
        let how = forced.map_or_else(String::new, |patience| {
            let by = if by == Signal::KILL { "killed" } else { "stopped at once" };
            format!(", {by}, because a clean stop did not end within {patience:?}: it still had {left}")
        });
        let words = format!("stopped, {instance} and all of its own are gone (control file: {state}){how}");
        Ok(PostgresEnd { words, forced: forced.is_some() })
    }

    /// A fast stop and its proof.
    pub(super) async fn stop_and_prove(&self, limit: Duration) -> Answer<ShutdownProof> {
        self.client.take();
        self.spare.take();
        let runtime = &self.settings.runtime;
        if let Some(instance) = runtime.find().await {
            runtime.signal(&instance, Signal::INT).await;
            // a process that SIGSTOP has stopped takes no other signal
            runtime.signal(&instance, Signal::CONT).await;
            if tokio::time::timeout(limit, runtime.gone(&instance)).await.is_err() {
                return Err(PortError(format!(
                    "PostgreSQL, {instance}, did not stop within {limit:?}; it still has {}",
                    runtime.what_is_left(&instance).await
                )));
            }
        }
        self.prove_shutdown().await
    }

    /// The proof that a stopped server was shut down cleanly, and where its WAL ends.
    pub(super) async fn prove_shutdown(&self) -> Answer<ShutdownProof> {
        self.must_be_stopped().await?;
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
    pub(super) async fn must_be_stopped(&self) -> Answer<()> {
        match self.settings.runtime.processes().await.first() {
            None => Ok(()),
            Some((process, _)) => Err(PortError(format!("PostgreSQL still runs ({process})"))),
        }
    }
}
