//! The real PostgreSQL as a [`HandoverPort`].

use std::time::Duration;

use async_trait::async_trait;
use interrex_actors::ports::{
    Answer, ForkReport, HandoverPort, Lineage, LogRecord, MainLineage, MainServerPort, PortError, Received,
    ShutdownProof, StandbyLimits,
};
use interrex_events::{Address, Lsn, NodeId, TimelineId};

use super::{LocalPostgres, PostgresSettings, is_standby_of, server_log};
use crate::postgres::fork;

#[async_trait(?Send)]
impl HandoverPort for LocalPostgres {
    async fn hand_down(&self, limit: Duration) -> Answer<ShutdownProof> {
        self.stop_and_prove(limit).await
    }

    async fn standby_behind(&self, node: NodeId) -> Answer<Option<u64>> {
        let sql = format!(
            "SELECT greatest(pg_current_wal_flush_lsn() - flush_lsn, 0)::text
             FROM pg_stat_replication LEFT JOIN pg_replication_slots ON active_pid = pid
             WHERE {} AND state = 'streaming' ORDER BY slot_name LIMIT 1",
            is_standby_of(node)
        );
        Ok(self.value(&sql).await?.and_then(|bytes| bytes.parse().ok()))
    }

    async fn drop_unused_slots(&self) -> Answer<()> {
        let sql = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                   WHERE slot_type = 'physical' AND NOT active AND slot_name ~ '^replica_[0-9]+$'";
        self.rows(sql).await.map(drop)
    }

    async fn open_transactions(&self) -> Answer<Vec<(i32, String)>> {
        let sql = "SELECT pid::text AS pid, xact_start::text AS began FROM pg_stat_activity
                   WHERE backend_type = 'client backend' AND xact_start IS NOT NULL AND application_name <> 'interrex'";
        let rows = self.rows(sql).await?;
        Ok(rows.iter().filter_map(|row| Some((row.parsed("pid")?, row.get("began")?.to_owned()))).collect())
    }

    async fn limits_at_next_start(&self) -> Answer<StandbyLimits> {
        self.limits_at_its_next_start().await
    }

    async fn shutdown_proof(&self) -> Answer<ShutdownProof> {
        self.prove_shutdown().await
    }

    async fn received(&self) -> Answer<Received> {
        let sql =
            "SELECT pg_last_wal_receive_lsn()::text AS received, pg_last_wal_replay_lsn()::text AS replayed
                   WHERE pg_is_in_recovery()";
        let rows = self.rows(sql).await?;
        let row = rows.first().ok_or_else(|| PortError("PostgreSQL is not a standby".to_owned()))?;
        let replayed = row.parsed::<Lsn>("replayed").unwrap_or_default();
        Ok(Received { received: row.parsed::<Lsn>("received").unwrap_or_default().max(replayed), replayed })
    }

    async fn end_of_whole_log(&self, timeline: TimelineId) -> Answer<Lsn> {
        let replayed = self.received().await?.replayed;
        Ok(self.end_of_log_after(replayed, timeline).await?.unwrap_or(replayed))
    }

    async fn log_record(&self, timeline: TimelineId, at: Lsn) -> Answer<LogRecord> {
        self.read_record(timeline, at).await
    }

    async fn become_standby(&self, conninfo: &str, slot: &str, along: Option<&MainLineage>) -> Answer<()> {
        self.turn_into_standby(conninfo, slot, along).await
    }

    async fn restores_from_archive(&self) -> Answer<bool> {
        Ok(!self.settings.at_next_start("restore_command").await?.is_empty())
    }

    async fn followed_timeline(&self) -> Answer<Option<TimelineId>> {
        Ok(self.settings.at_next_start("recovery_target_timeline").await?.parse().ok().map(TimelineId))
    }

    async fn could_become_standby(&self) -> Answer<()> {
        self.is_fit_for_a_standby()?;
        self.restores_from_archive().await.map(drop)
    }

    fn last_complaint(&self) -> Option<String> {
        server_log::complaint_in(&self.settings.runtime.output_since(0)).map(str::to_owned)
    }

    async fn main_lineage(&self) -> Answer<MainLineage> {
        self.read_main_lineage().await
    }

    async fn lineage_against(&self, main: &MainLineage, server: &dyn MainServerPort) -> Answer<Lineage> {
        self.compare_lineage(main, server).await
    }

    async fn parting_from(
        &self,
        received: (TimelineId, Lsn),
        main: &MainLineage,
        server: &dyn MainServerPort,
    ) -> Answer<Option<Lsn>> {
        self.parting_of_standby(received, main, server).await
    }

    async fn can_rewind(&self) -> Answer<()> {
        let control = self.control_file().await?;
        if !control.wal_log_hints && control.checksum_version == 0 {
            return Err(PortError("pg_rewind needs wal_log_hints = on, or data checksums".to_owned()));
        }
        if !control.full_page_writes {
            return Err(PortError("pg_rewind needs full_page_writes = on".to_owned()));
        }
        let program = self.settings.bin_dir.join("pg_rewind");
        if !self.settings.runtime.has_program(&program).await {
            return Err(PortError(format!("the program {} is missing", program.display())));
        }
        Ok(())
    }

    async fn fork(&self, timeline: TimelineId, switchpoint: Lsn, limit: Duration) -> Answer<ForkReport> {
        let PostgresSettings { runtime, bin_dir, data_dir, .. } = &self.settings;
        Ok(fork::read((&**runtime, bin_dir), data_dir, (timeline, switchpoint), limit).await?.report)
    }

    fn main_server(&self, address: &Address) -> Box<dyn MainServerPort> {
        Box::new(self.server_at(address))
    }
}
