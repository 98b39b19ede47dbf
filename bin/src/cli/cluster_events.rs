//! `cluster_events` in this node's PostgreSQL, read as a journal is; a standby's reads as well as main's.

use std::{ops::ControlFlow, time::Duration};

use interrex_events::{
    Address, Epoch, NodeId, NodeSeq, Position, Record,
    cluster_events::{self, Found, StoreError, StreamVerification},
    journal::Identity,
    postgres::{Login, Session},
};
use tokio::runtime::Runtime;
use tokio_postgres::Client;

use super::failure::Failure;
use crate::config::{Config, read_secret};

/// The stream may be long, and its reader may be slow.
const SESSION: Session = Session::reading("interrex")
    .connect_within(Duration::from_secs(3))
    .statements_within(Duration::ZERO)
    .idles_within(Duration::ZERO);

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
        let file = postgres.password_file.as_ref();
        let password = file.map(|file| read_secret(file, "postgres.password_file", 1)).transpose();
        let password = password.map_err(Failure::Unusable)?;
        let login = Login {
            host: &postgres.host,
            port: postgres.port,
            user: &postgres.user,
            password: password.as_deref(),
            database: &postgres.database,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = runtime.block_on(SESSION.open(login)).map_err(|error| {
            Failure::Unusable(format!("PostgreSQL at {address} does not answer for cluster_events: {error}"))
        })?;
        let identity = Identity { cluster_id: config.cluster.id, node_id: config.node.id };
        let stream = Self { runtime, client, identity, address };
        stream.demand_this_cluster()?;
        Ok(stream)
    }

    fn demand_this_cluster(&self) -> Result<(), Failure> {
        let there = self.runtime.block_on(cluster_events::is_there(&self.client));
        if !there.map_err(|error| self.failed(&error))? {
            let at = &self.address;
            return Err(Failure::Unusable(format!(
                "PostgreSQL at {at} has no cluster_events: no main was supervised there"
            )));
        }
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
