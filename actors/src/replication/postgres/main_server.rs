//! Another node's server, as a node that comes back behind it needs it: plain SQL over the network.

use std::path::PathBuf;

use async_trait::async_trait;
use interrex_events::NodeId;

use super::{LocalPostgres, relations, slot_name, standby_limits::StandbyLimits};
use crate::{
    ports::{Answer, HeldOnMain, MainLineage, MainServerPort, PortError, PostgresPort as _},
    replication::fork::FileNode,
};

/// The server of another node.
pub(super) struct MainServer(LocalPostgres);

impl LocalPostgres {
    /// Another node's server, with this node's login: they are copies of each other.
    pub(super) fn server_at(&self, address: &str) -> MainServer {
        let (host, port) = address.rsplit_once(':').unwrap_or((address, "5432"));
        let mut settings = self.settings.clone();
        (settings.host, settings.port) = (host.to_owned(), port.parse().unwrap_or(5432));
        // it has no files here
        settings.data_dir = PathBuf::new();
        MainServer(LocalPostgres::new(settings))
    }
}

#[async_trait(?Send)]
impl MainServerPort for MainServer {
    async fn lineage(&self) -> Answer<MainLineage> {
        if self.0.value("SELECT pg_is_in_recovery()").await?.as_deref() != Some("f") {
            return Err(PortError("it is a standby itself, not main".to_owned()));
        }
        self.0.read_main_lineage().await
    }

    async fn prepare_return(&self, node: NodeId) -> Answer<bool> {
        let made = self.0.ensure_slot(node).await?;
        self.0.checkpoint().await?;
        Ok(made)
    }

    async fn limits(&self) -> Answer<StandbyLimits> {
        self.0.limits_now().await
    }

    async fn hindrances(&self) -> Answer<Vec<String>> {
        self.0.hindrances().await
    }

    async fn held_in(&self, files: &[FileNode]) -> HeldOnMain {
        relations::held_in(&self.0.settings, files).await
    }

    async fn streams_to(&self, node: NodeId) -> Answer<bool> {
        let sql = format!(
            "SELECT count(*) FROM pg_replication_slots JOIN pg_stat_replication ON pid = active_pid
             WHERE slot_name = '{}' AND state = 'streaming'",
            slot_name(node)
        );
        Ok(self.0.value(&sql).await?.as_deref() == Some("1"))
    }
}
