//! `cluster_events` in this node's PostgreSQL, read as a journal is; a standby's reads as well as main's.

use std::{ops::ControlFlow, time::Duration};

use interrex_events::{
    Address, Epoch, NodeId, NodeSeq, Record,
    cluster_events::{self, Found, Position, StoreError, StreamVerification, in_words},
    journal::Identity,
};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, Config as Connection, NoTls};

use super::failure::Failure;
use crate::config::{Config, read_secret};

/// When connecting is given up.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// A connection, and the thread's own runtime that drives it.
pub(super) struct ClusterEvents {
    runtime: Runtime,
    client: Client,
    identity: Identity,
    address: Address,
}

impl ClusterEvents {
    /// Connects to the PostgreSQL that the configuration names.
    pub(super) fn connect(config: &Config) -> Result<Self, Failure> {
        let postgres = &config.postgres;
        let address = Address::new(&postgres.host, postgres.port);
        let mut connection = Connection::new();
        connection
            .host(&postgres.host)
            .port(postgres.port)
            .user(&postgres.user)
            .dbname(&postgres.database)
            .application_name("interrex")
            .connect_timeout(CONNECT_LIMIT);
        if let Some(file) = &postgres.password_file {
            let password = read_secret(file, "postgres.password_file", 1).map_err(Failure::Unusable)?;
            connection.password(password);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = runtime.block_on(async {
            let connected = tokio::time::timeout(CONNECT_LIMIT, connection.connect(NoTls)).await;
            let (client, driver) = connected
                .map_err(|_| format!("no connection within {CONNECT_LIMIT:?}"))?
                .map_err(|error| in_words(&error))?;
            tokio::spawn(driver);
            Ok(client)
        });
        let client = client.map_err(|words: String| {
            Failure::Unusable(format!("PostgreSQL at {address} does not answer for cluster_events: {words}"))
        })?;
        let identity = Identity { cluster_id: config.cluster.id, node_id: config.node.id };
        let stream = Self { runtime, client, identity, address };
        stream.demand_this_cluster()?;
        Ok(stream)
    }

    fn demand_this_cluster(&self) -> Result<(), Failure> {
        let first = self.runtime.block_on(cluster_events::page(&self.client, 0, 1));
        let first = first.map_err(|error| self.failed(&error))?;
        match first.first().map(|found| found.record.cluster_id) {
            Some(other) if other != self.identity.cluster_id => Err(Failure::Unusable(format!(
                "cluster_events at {} belongs to cluster {other}, and this node to {}",
                self.address, self.identity.cluster_id
            ))),
            _ => Ok(()),
        }
    }

    fn failed(&self, error: &StoreError) -> Failure {
        Failure::Unusable(format!(
            "PostgreSQL at {} does not answer for cluster_events: {error}",
            self.address
        ))
    }

    /// Whose configuration named it.
    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// Where it is, for people.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Hands every event up to a `pos` to `visit`, in story order, until that breaks off.
    pub(super) fn try_for_each<B>(
        &self,
        up_to: Option<u64>,
        mut visit: impl FnMut(Record) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, Failure> {
        let mut ended = ControlFlow::Continue(());
        let reading =
            cluster_events::for_each_in_story_order(&self.client, up_to, |found| match visit(found.record) {
                ControlFlow::Continue(()) => ControlFlow::Continue(()),
                ControlFlow::Break(value) => {
                    ended = ControlFlow::Break(value);
                    ControlFlow::Break(())
                }
            });
        self.runtime.block_on(reading).map_err(|error| self.failed(&error))?;
        Ok(ended)
    }

    /// The event at a position.
    pub(super) fn at(&self, epoch: Epoch, pos: u64) -> Result<Option<Found>, Failure> {
        let found = self.runtime.block_on(cluster_events::at(&self.client, Position { epoch, pos }));
        found.map_err(|error| self.failed(&error))
    }

    /// One event by its identity.
    pub(super) fn find(&self, node: NodeId, seq: NodeSeq) -> Result<Option<Record>, Failure> {
        let found = self.runtime.block_on(cluster_events::find(&self.client, node, seq));
        Ok(found.map_err(|error| self.failed(&error))?.map(|found| found.record))
    }

    /// Walks every chain, and the positions.
    pub(super) fn verify(&self) -> Result<StreamVerification, Failure> {
        self.runtime.block_on(cluster_events::verify(&self.client)).map_err(|error| self.failed(&error))
    }
}
