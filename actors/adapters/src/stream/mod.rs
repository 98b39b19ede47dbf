//! The adapter for `cluster_events`: one owned connection to the local PostgreSQL, and the projections of the stream there, which
//! outlive the connection.

mod safe;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use interrex_actors::{
    env::{Env, Moment},
    ports::{Answer, NotRelayed, PortError, Relayed, SettingsRequest, StreamPort, StreamState},
};
use interrex_events::{
    Address, Epoch, Head, JournalForked, NodeId, NodeSeq, ProjectionRebuilt, Record,
    cluster_events::{self, Relay, StoreError},
    postgres::Session,
};
use interrex_projections::postgres::{self, Projector, Rebuilt};
use tokio::sync::{Mutex, MutexGuard, Notify};
use tokio_postgres::Client;

use super::postgres::sessions::{READS, WRITES, connect};

/// Time limit for one statement: to rebuild a projection of many years takes minutes.
const STATEMENT_LIMIT: Duration = Duration::from_secs(600);
/// Time limit for one page of a standby: it is read by its index.
const PAGE_LIMIT: Duration = Duration::from_secs(10);

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
    pub password: Option<crate::secret::Secret>,
    /// Database.
    pub database: String,
}

/// Events of one page that is read back.
const HELD_PAGE: u32 = 500;
/// Pause, in milliseconds, before a retry of a rebuild that PostgreSQL refused: a rebuild reads the whole stream.
const MEND_AGAIN_MS: u64 = 30_000;
/// Pause, in milliseconds, between two rebuilds: each rebuild is recorded by events, which must not cause the next one endlessly.
const MENDED_AGAIN_MS: u64 = 10_000;
/// The most requests that are read at once, oldest first. Fewer than the answers that a fold remembers, because an answered request
/// that is still there must be recognised.
const REQUESTS_LIMIT: i64 = 32;

/// The state that is kept from call to call.
#[derive(Default)]
struct Kept {
    /// Checked against the stream before it is used, so it stays valid when a connection is lost.
    projector: Projector,
    /// Nothing after an error: the next call connects again and reads the state.
    open: Option<Open>,
}

/// A connection to a main.
struct Open {
    client: Client,
    /// Projections that could not be rebuilt, and when that was found.
    refused: Option<(Moment, Vec<String>)>,
    /// When projections were rebuilt last.
    mended: Option<Moment>,
}

/// The adapter.
pub struct LocalStream {
    settings: StreamSettings,
    env: Arc<dyn Env>,
    kept: Mutex<Kept>,
    /// A main wants to relay: a call that only follows ends.
    relays: Notify,
}

impl LocalStream {
    /// Makes an adapter that connects at the first request.
    #[must_use]
    pub fn new(settings: StreamSettings, env: Arc<dyn Env>) -> Self {
        Self { settings, env, kept: Mutex::default(), relays: Notify::new() }
    }

    /// A read-only connection: a standby accepts it, too.
    async fn look_in(&self) -> Answer<Client> {
        self.open(READS.statements_within(PAGE_LIMIT)).await
    }

    async fn open(&self, session: Session) -> Answer<Client> {
        let settings = &self.settings;
        let address = (settings.host.as_str(), settings.port);
        let login = (settings.user.as_str(), settings.password.as_deref());
        let opened = connect(session, address, login, &settings.database).await;
        let doing = format!("connecting to PostgreSQL at {}", Address::new(address.0, address.1));
        let client = opened.map_err(|refusal| PortError(refusal.while_doing(&doing).to_string()))?;
        // a missing table is not an obstacle: a main makes it, and from a standby nothing is read
        cluster_events::is_there(&client).await.map_err(|error| failed("checking cluster_events", error))?;
        Ok(client)
    }

    async fn connect(&self) -> Answer<Open> {
        let mut client = self.open(WRITES.statements_within(STATEMENT_LIMIT)).await?;
        cluster_events::migrate(&mut client)
            .await
            .map_err(|error| failed("bringing the schema interrex up to date", error))?;
        Ok(Open { client, refused: None, mended: None })
    }

    /// The kept state, with a connection to a main. The caller puts the connection back only after success.
    async fn as_main(&self) -> Answer<(MutexGuard<'_, Kept>, Open)> {
        self.relays.notify_waiters();
        let mut kept = self.kept.lock().await;
        let open = match kept.open.take().filter(|open| !open.client.is_closed()) {
            Some(open) => open,
            None => self.connect().await?,
        };
        Ok((kept, open))
    }

    /// Follows page by page, so that it can be given up after any page; what was folded until then is kept.
    async fn follow_standby(&self) -> Answer<u64> {
        let client = self.look_in().await?;
        let mut kept = self.kept.lock().await;
        let before = kept.projector.events_read();
        let followed = kept.projector.follow(&client).await;
        followed.map_err(|error| failed("reading cluster_events", error))?;
        Ok(kept.projector.events_read() - before)
    }
}

fn failed(doing: &str, error: StoreError) -> PortError {
    PortError::new(doing, error)
}

#[async_trait(?Send)]
impl StreamPort for LocalStream {
    async fn look(&self) -> Answer<StreamState> {
        let (mut kept, mut open) = self.as_main().await?;
        let state = look(&mut open, &mut kept.projector, &*self.env).await;
        let state = state.map_err(|error| failed("reading cluster_events", error))?;
        kept.open = Some(open);
        Ok(state)
    }

    async fn held(&self, node: NodeId, after: NodeSeq) -> Answer<Vec<Record>> {
        // on its own connection: a standby's tables cannot be migrated
        let client = self.look_in().await?;
        let found = cluster_events::journal_page(&client, node, after, HELD_PAGE).await;
        found.map_err(|error| failed("reading cluster_events", error))
    }

    async fn relay(&self, epoch: Epoch, records: &[Record]) -> Result<Relayed, NotRelayed> {
        let (mut kept, mut open) = self.as_main().await?;
        let relayed = relay(&mut open.client, &mut kept.projector, epoch, records).await;
        let relayed = relayed.map_err(|error| match error {
            StoreError::JournalForked { node_id, node_seq, here, there } => {
                let found_at = "cluster_events".to_owned();
                NotRelayed::Forked(JournalForked { node: node_id, node_seq, here, there, found_at })
            }
            error => NotRelayed::Failed(failed("appending to cluster_events", error)),
        })?;
        kept.open = Some(open);
        Ok(relayed)
    }

    async fn follow(&self) -> Answer<u64> {
        let relays = self.relays.notified();
        tokio::select! {
            () = relays => Ok(0),
            followed = self.follow_standby() => followed,
        }
    }

    async fn holds_safely(&self, event: Head) -> Answer<()> {
        safe::holds(&self.look_in().await?, event).await
    }
}

async fn look(open: &mut Open, projector: &mut Projector, env: &dyn Env) -> Result<StreamState, StoreError> {
    let began = env.moment();
    let refused_long_ago =
        open.refused.as_ref().is_none_or(|(refused_at, _)| began.ms_since(*refused_at) >= MEND_AGAIN_MS);
    let is_due =
        refused_long_ago && open.mended.is_none_or(|mended| began.ms_since(mended) >= MENDED_AGAIN_MS);
    let mut rebuilt = Vec::new();
    if is_due {
        let mended = projector.mend(&mut open.client).await?;
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
        rebuilt: rebuilt.into_iter().map(|rebuilt| as_event(rebuilt, took_ms)).collect(),
        paused,
        refused: open.refused.iter().flat_map(|(_, refused)| refused.clone()).collect(),
    })
}

fn as_event(Rebuilt { table, reason, events }: Rebuilt, took_ms: u64) -> ProjectionRebuilt {
    ProjectionRebuilt { projection: table.to_string(), version: table.version(), reason, events, took_ms }
}

async fn requests(client: &Client) -> Result<Vec<SettingsRequest>, StoreError> {
    let sql = "SELECT id, requested_by, source, auto_failover_enabled, auto_failover_threshold_ms \
               FROM interrex.settings_requests ORDER BY requested_at, id LIMIT $1";
    let rows = client.query(sql, &[&REQUESTS_LIMIT]).await?;
    let request = |row: &tokio_postgres::Row| -> Result<SettingsRequest, StoreError> {
        Ok(SettingsRequest {
            id: row.try_get(0)?,
            requested_by: row.try_get(1)?,
            source: row.try_get(2)?,
            auto_failover_enabled: row.try_get(3)?,
            auto_failover_threshold_ms: row.try_get::<_, Option<i64>>(4)?.map(i64::cast_unsigned),
        })
    };
    rows.iter().map(request).collect()
}

async fn relay(
    client: &mut Client,
    projector: &mut Projector,
    epoch: Epoch,
    records: &[Record],
) -> Result<Relayed, StoreError> {
    let mut relay = Relay::begin(client, epoch).await?;
    let appended = relay.append(records).await?;
    let paused = projector.project(&mut relay, &appended).await?;
    let head = relay.commit().await?;
    projector.committed(head);
    Ok(Relayed { position: head.position, paused })
}
