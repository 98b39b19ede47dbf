//! The real `cluster_events`: one owned connection to the local PostgreSQL, and the projections kept beside it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use interrex_events::{
    Epoch, Head, JournalForked, NodeId, NodeSeq, Record,
    cluster_events::{self, Relay, StoreError},
};
use interrex_projections::postgres::{self, Projector};
use tokio::sync::Mutex;
use tokio_postgres::Client;

use super::{postgres_connection::connect, safe};
use crate::{
    env::{Env, Moment},
    ports::{Answer, NotRelayed, PortError, Relayed, SettingsRequest, StreamPort, StreamState},
};

/// When one statement is given up: rebuilding a projection of many years takes minutes.
const STATEMENT_LIMIT: Duration = Duration::from_secs(600);

/// How to reach the local server.
#[derive(Debug, Clone)]
pub struct StreamSettings {
    /// Host.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Superuser.
    pub user: String,
    /// Its password.
    pub password: Option<String>,
    /// Database.
    pub database: String,
}

/// Events of one page that is read back.
const HELD_PAGE: u32 = 500;
/// Pause before a rebuild that PostgreSQL refused is tried again: it reads the whole stream.
const MEND_AGAIN_MS: u64 = 30_000;
/// Pause between two rebuilds: each is told by events, which must not bring about the next one without end.
const MENDED_AGAIN_MS: u64 = 10_000;
/// Requests that are taken up at one look, oldest first. Fewer than the answers that a fold remembers, for an answered
/// one that is still there must be known as such.
const REQUESTS_LIMIT: i64 = 32;

/// A connection, and what was folded of the stream behind it.
struct Open {
    client: Client,
    projector: Projector,
    /// Projections that could not be rebuilt, and when that was found.
    refused: Option<(Moment, Vec<String>)>,
    /// When projections were rebuilt last.
    mended: Option<Moment>,
}

/// The adapter.
pub struct LocalStream {
    settings: StreamSettings,
    env: Arc<dyn Env>,
    /// Nothing after an error: the next call connects anew and asks what is there.
    open: Mutex<Option<Open>>,
}

impl LocalStream {
    /// An adapter that connects when it is first asked.
    #[must_use]
    pub fn new(settings: StreamSettings, env: Arc<dyn Env>) -> Self {
        Self { settings, env, open: Mutex::new(None) }
    }

    /// A connection that changes nothing: a standby takes it, too.
    async fn look_in(&self) -> Answer<Client> {
        let settings = &self.settings;
        let address = (settings.host.as_str(), settings.port);
        let login = (settings.user.as_str(), settings.password.as_deref());
        connect(address, login, &settings.database).await.map_err(|words| {
            PortError(format!("connecting to PostgreSQL at {}:{}: {words}", settings.host, settings.port))
        })
    }

    async fn connect(&self) -> Answer<Open> {
        let mut client = self.look_in().await?;
        let limit = format!("SET statement_timeout = {}", STATEMENT_LIMIT.as_millis());
        client.batch_execute(&limit).await.map_err(|error| failed("preparing a connection", error.into()))?;
        cluster_events::migrate(&mut client)
            .await
            .map_err(|error| failed("bringing the schema interrex up to date", error))?;
        Ok(Open { client, projector: Projector::default(), refused: None, mended: None })
    }
}

fn failed(doing: &str, error: StoreError) -> PortError {
    PortError::new(doing, error)
}

#[async_trait(?Send)]
impl StreamPort for LocalStream {
    async fn look(&self) -> Answer<StreamState> {
        let mut slot = self.open.lock().await;
        let mut open = match slot.take().filter(|open| !open.client.is_closed()) {
            Some(open) => open,
            None => self.connect().await?,
        };
        let state =
            look(&mut open, &*self.env).await.map_err(|error| failed("reading cluster_events", error))?;
        *slot = Some(open);
        Ok(state)
    }

    async fn held(&self, node: NodeId, after: NodeSeq) -> Answer<Vec<Record>> {
        // on a connection of its own: a standby's tables cannot be brought up to date
        let client = self.look_in().await?;
        let found = cluster_events::journal_page(&client, node, after, HELD_PAGE).await;
        found.map_err(|error| failed("reading cluster_events", error))
    }

    async fn relay(&self, epoch: Epoch, records: &[Record]) -> Result<Relayed, NotRelayed> {
        let mut slot = self.open.lock().await;
        let mut open = match slot.take().filter(|open| !open.client.is_closed()) {
            Some(open) => open,
            None => self.connect().await?,
        };
        let relayed = relay(&mut open, epoch, records).await.map_err(|error| match error {
            StoreError::JournalForked { node_id, node_seq, here, there } => {
                let found_at = "cluster_events".to_owned();
                NotRelayed::Forked(JournalForked { node: node_id, node_seq, here, there, found_at })
            }
            error => NotRelayed::Failed(failed("appending to cluster_events", error)),
        })?;
        *slot = Some(open);
        Ok(relayed)
    }

    async fn holds_safely(&self, event: Head) -> Answer<()> {
        safe::holds(&self.look_in().await?, event).await
    }
}

async fn look(open: &mut Open, env: &dyn Env) -> Result<StreamState, StoreError> {
    let began = env.moment();
    let refused_long_ago =
        open.refused.as_ref().is_none_or(|(refused_at, _)| began.ms_since(*refused_at) >= MEND_AGAIN_MS);
    let is_due =
        refused_long_ago && open.mended.is_none_or(|mended| began.ms_since(mended) >= MENDED_AGAIN_MS);
    let mut rebuilt = Vec::new();
    if is_due {
        let mended = open.projector.mend(&mut open.client).await?;
        rebuilt = mended.rebuilt;
        if !rebuilt.is_empty() {
            open.mended = Some(env.moment());
        }
        open.refused = (!mended.refused.is_empty()).then(|| (env.moment(), mended.refused));
    }
    let took_ms = env.moment().ms_since(began);
    let client = &open.client;
    let (head, heads, requests, paused) = tokio::try_join!(
        cluster_events::stream_head(client),
        cluster_events::heads(client),
        requests(client),
        postgres::paused(client),
    )?;
    Ok(StreamState {
        position: head.position,
        heads,
        requests,
        rebuilt: rebuilt.into_iter().map(|rebuilt| (rebuilt, took_ms)).collect(),
        paused,
        refused: open.refused.iter().flat_map(|(_, refused)| refused.clone()).collect(),
    })
}

async fn requests(client: &Client) -> Result<Vec<SettingsRequest>, StoreError> {
    let sql = "SELECT id, requested_by, source, auto_failover_enabled, auto_failover_threshold_ms \
               FROM interrex.settings_requests ORDER BY requested_at, id LIMIT $1";
    let rows = client.query(sql, &[&REQUESTS_LIMIT]).await?;
    let request = |row: &tokio_postgres::Row| SettingsRequest {
        id: row.get(0),
        requested_by: row.get(1),
        source: row.get(2),
        auto_failover_enabled: row.get(3),
        auto_failover_threshold_ms: row.get::<_, Option<i64>>(4).map(i64::cast_unsigned),
    };
    Ok(rows.iter().map(request).collect())
}

async fn relay(open: &mut Open, epoch: Epoch, records: &[Record]) -> Result<Relayed, StoreError> {
    let mut relay = Relay::begin(&mut open.client, epoch).await?;
    let appended = relay.append(records).await?;
    let paused = open.projector.project(&mut relay, &appended).await?;
    let head = relay.commit().await?;
    open.projector.committed(head);
    Ok(Relayed { position: head.position, paused })
}
