//! The other nodes: their supervisors over HTTP, and their databases directly.

use std::{cell::RefCell, collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use interrex_actors::{
    ports::{NoReply, NotAccepted, NotFenced, PeersPort},
    wire::{
        AcceptHandoverBody, ApiAnswer, FenceBody, FenceLifted, HandoverOffer, JournalBody, JournalPage,
        LiftFenceBody, MainPostgres, NodeReport, Notice, OfferAnswer, SECRET_HEADER, TakeOverBody,
    },
};
use interrex_events::{
    Address, HandoverAccepted, Lsn, NodeFenced, NodeId, NodeSeq, NodeSpec,
    postgres::{Row, rows},
};
use interrex_projections::Run;
use redis::aio::MultiplexedConnection;
use serde::{Serialize, de::DeserializeOwned};
use tokio_postgres::Client;

use crate::{
    no_reply,
    postgres::{
        admission::ask_for_a_session,
        sessions::{READS, connect as connect_to_postgres},
    },
    redis as local_redis,
};

/// Time limit for a request that a run waits for.
const NOTIFY_LIMIT: Duration = Duration::from_secs(3);
/// Time limit for the fence of an old main.
const FENCE_LIMIT: Duration = Duration::from_secs(9);
/// Time limit for one request to accept a switchover: a node whose disk hangs must not take part in a run.
const ACCEPT_LIMIT: Duration = Duration::from_secs(2);
/// Time limit for one request to take over the role; the request is repeated.
const TAKE_OVER_LIMIT: Duration = Duration::from_secs(12);
/// Time limit for a page of a journal.
const JOURNAL_LIMIT: Duration = Duration::from_secs(10);
/// Time limit for a connection to a supervisor: a dead host sends no answer.
const CONNECT_LIMIT: Duration = Duration::from_millis(1_500);
/// How long a connection to a supervisor is kept for the next request.
const IDLE_LIMIT: Duration = Duration::from_secs(10);

/// Why a request failed.
struct Refusal {
    /// The error code of the peer's supervisor; nothing if no supervisor answered.
    code: Option<String>,
    reply: NoReply,
}

impl Refusal {
    fn no_answer(reply: NoReply) -> Self {
        Self { code: None, reply }
    }

    fn words(&self) -> String {
        self.reply.to_string()
    }
}

/// The login for other nodes' databases: the login for this node's databases, because they are copies of each other.
#[derive(Debug, Clone)]
pub struct DatabaseLogin {
    /// PostgreSQL user.
    pub user: String,
    /// Its password.
    pub password: Option<crate::secret::Secret>,
    /// Database.
    pub database: String,
    /// Redis password.
    pub redis_password: Option<crate::secret::Secret>,
}

/// The adapter.
pub struct RemotePeers {
    nodes: Vec<NodeSpec>,
    cluster_id: interrex_events::ClusterId,
    secret: crate::secret::Secret,
    login: DatabaseLogin,
    http: reqwest::Client,
    postgres: RefCell<BTreeMap<NodeId, Client>>,
    redis: RefCell<BTreeMap<NodeId, MultiplexedConnection>>,
}

impl RemotePeers {
    /// Makes an adapter that connects at the first request.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn new(
        nodes: Vec<NodeSpec>,
        cluster_id: interrex_events::ClusterId,
        secret: crate::secret::Secret,
        login: DatabaseLogin,
    ) -> Result<Self, String> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            // before the other side closes it: a request must not meet the close
            .pool_idle_timeout(IDLE_LIMIT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| error.to_string())?;
        let (postgres, redis) = (RefCell::default(), RefCell::default());
        Ok(Self { nodes, cluster_id, secret, login, http, postgres, redis })
    }

    fn spec(&self, peer: NodeId) -> Result<&NodeSpec, String> {
        self.nodes
            .iter()
            .find(|spec| spec.node == peer)
            .ok_or_else(|| format!("node {peer} is not configured"))
    }

    async fn post<T: DeserializeOwned>(
        &self,
        peer: NodeId,
        path: &str,
        body: &impl Serialize,
        limit: Duration,
    ) -> Result<T, Refusal> {
        let address = &self.spec(peer).map_err(|words| Refusal::no_answer(NoReply::Silent(words)))?.address;
        let answer = self
            .http
            .post(format!("http://{address}{path}"))
            .header(SECRET_HEADER, &*self.secret)
            .timeout(limit)
            .json(body)
            .send()
            .await
            .map_err(|error| Refusal::no_answer(NoReply::of_system(&error, innermost(&error))))?;
        let status = answer.status();
        // with any status: a server answered
        let refused = |code: Option<String>, words: String| Refusal {
            reply: NoReply::Refused {
                code: code.clone().unwrap_or_else(|| status.as_u16().to_string()),
                words,
            },
            code,
        };
        let answer: ApiAnswer<T> = answer
            .json()
            .await
            .map_err(|error| refused(None, format!("HTTP {status}: {}", innermost(&error))))?;
        match (answer.data, answer.error) {
            (Some(data), _) if answer.success => Ok(data),
            (_, Some(error)) => Err(refused(Some(error.code), format!("{} (HTTP {status})", error.message))),
            _ => Err(refused(None, format!("HTTP {status} without a usable answer"))),
        }
    }

    /// Asks a peer's PostgreSQL, on the open session if there is one. The session is taken out meanwhile: a query that is given up
    /// drops its connection. An ended session says nothing about the server, so a new session is tried.
    async fn ask_postgres(&self, peer: NodeId, sql: &str) -> Result<Option<Row>, NoReply> {
        let open = self.postgres.borrow_mut().remove(&peer).filter(|client| !client.is_closed());
        let asked = match &open {
            Some(client) => rows(client, sql).await.map_err(|error| no_reply::of_postgres(&error)),
            None => Err(NoReply::Passing(String::new())),
        };
        let (client, asked) = match (open, asked) {
            (Some(client), Ok(answer)) => (client, answer),
            (_, Err(refused @ (NoReply::Refused { .. } | NoReply::Unknown(_)))) => return Err(refused),
            _ => {
                let client = self.log_in(peer).await?;
                let asked = rows(&client, sql).await;
                let asked = asked.map_err(|error| no_reply::of_postgres(&error))?;
                (client, asked)
            }
        };
        self.postgres.borrow_mut().insert(peer, client);
        Ok(asked.into_iter().next())
    }

    async fn log_in(&self, peer: NodeId) -> Result<Client, NoReply> {
        let Address { host, port } = &self.spec(peer).map_err(NoReply::Unknown)?.postgres;
        let login = &self.login;
        let login_as = (login.user.as_str(), login.password.as_deref());
        connect_to_postgres(READS, (host, *port), login_as, &login.database).await
    }
}

/// The innermost error: "connection refused" says more than "error sending request".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[async_trait(?Send)]
impl PeersPort for RemotePeers {
    async fn exchange(&self, peer: NodeId, own: &NodeReport) -> Result<Arc<NodeReport>, NoReply> {
        let limit = Duration::from_secs(30);
        let answer = self.post::<NodeReport>(peer, "/api/cluster/heartbeat", own, limit).await;
        answer.map(Arc::new).map_err(|refusal| refusal.reply)
    }

    async fn postgres(&self, peer: NodeId) -> Result<MainPostgres, NoReply> {
        let sql = "SELECT pg_is_in_recovery()::text, \
                   CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_flush_lsn() END::text";
        let row = self.ask_postgres(peer, sql).await?;
        let row = row.ok_or_else(|| NoReply::Silent("PostgreSQL answered without a row".to_owned()))?;
        let lsn = row.parsed(1);
        Ok(MainPostgres { writable: row.get(0) == Some("false"), lsn })
    }

    async fn admits(&self, peer: NodeId) -> Result<(), NoReply> {
        let Address { host, port } = &self.spec(peer).map_err(NoReply::Unknown)?.postgres;
        let login = &self.login;
        ask_for_a_session((host, *port), &login.user, ("database", &login.database)).await
    }

    async fn redis(&self, peer: NodeId) -> Option<Result<String, NoReply>> {
        let address = self.spec(peer).ok()?.redis.clone()?;
        Some(
            async {
                let existing = self.redis.borrow().get(&peer).cloned();
                let mut connection = match existing {
                    Some(connection) => connection,
                    None => {
                        let Address { host, port } = &address;
                        let fresh =
                            local_redis::connect(host, *port, self.login.redis_password.as_deref()).await?;
                        self.redis.borrow_mut().insert(peer, fresh.clone());
                        fresh
                    }
                };
                let info: Result<String, redis::RedisError> =
                    redis::cmd("INFO").arg("replication").query_async(&mut connection).await;
                let info = info.map_err(|error| {
                    self.redis.borrow_mut().remove(&peer);
                    no_reply::of_redis(&error)
                })?;
                let role = info.lines().find_map(|line| line.strip_prefix("role:")).unwrap_or("unknown role");
                Ok(role.to_owned())
            }
            .await,
        )
    }

    async fn journal(&self, peer: NodeId, node: NodeId, after: NodeSeq) -> Result<JournalPage, String> {
        let body = JournalBody { cluster_id: self.cluster_id, node, after };
        let answer = self.post::<JournalPage>(peer, "/api/cluster/journal", &body, JOURNAL_LIMIT).await;
        answer.map_err(|refusal| refusal.words())
    }

    async fn notify(&self, peer: NodeId, notice: &Notice) -> Result<(), String> {
        let answer = self.post::<serde_json::Value>(peer, "/api/cluster/notify", notice, NOTIFY_LIMIT).await;
        answer.map(drop).map_err(|refusal| refusal.words())
    }

    async fn received(&self, peer: NodeId) -> Result<Lsn, String> {
        let sql = "SELECT greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())::text WHERE pg_is_in_recovery()";
        let row = self.ask_postgres(peer, sql).await.map_err(|refusal| refusal.to_string())?;
        let row = row.ok_or("PostgreSQL there is not a standby")?;
        row.parsed(0).ok_or_else(|| "PostgreSQL there reports no position".to_owned())
    }

    async fn accept_handover(&self, peer: NodeId, asked: &HandoverAccepted) -> Result<(), NotAccepted> {
        let body = AcceptHandoverBody { cluster_id: self.cluster_id, asked: asked.clone() };
        let path = "/api/cluster/accept-handover";
        let Err(refusal) = self.post::<serde_json::Value>(peer, path, &body, ACCEPT_LIMIT).await else {
            return Ok(());
        };
        Err(match refusal.code.as_deref() {
            Some("not_found") => NotAccepted::Declined(
                "its supervisor has an older version, which cannot accept a switchover: install the same version on all nodes \
                 (interrex doctor: same_program)"
                    .to_owned(),
            ),
            // its actor is not started yet, or did not answer in time
            None | Some("starting") => NotAccepted::NoAnswer(refusal.words()),
            Some(_) => NotAccepted::Declined(refusal.words()),
        })
    }

    async fn take_over(&self, peer: NodeId, offer: &HandoverOffer) -> Result<OfferAnswer, String> {
        let body = TakeOverBody { cluster_id: self.cluster_id, offer: offer.clone() };
        let answer = self.post::<OfferAnswer>(peer, "/api/cluster/take-over", &body, TAKE_OVER_LIMIT).await;
        answer.map_err(|refusal| refusal.words())
    }

    async fn lift_fence(&self, peer: NodeId, run: &Run) -> Result<String, String> {
        let body = LiftFenceBody { cluster_id: self.cluster_id, by: run.node, run: run.id };
        let answer = self.post::<FenceLifted>(peer, "/api/cluster/lift-fence", &body, FENCE_LIMIT).await;
        answer.map(|lifted| lifted.words).map_err(|refusal| refusal.words())
    }

    async fn fence(&self, peer: NodeId, run: &Run) -> Result<String, NotFenced> {
        let body = FenceBody { cluster_id: self.cluster_id, by: run.node, epoch: run.epoch, run: run.id };
        let answer = self.post::<NodeFenced>(peer, "/api/cluster/fence", &body, FENCE_LIMIT).await;
        let answer = answer.map_err(|refusal| match refusal.code.as_deref() {
            None => NotFenced::NoAnswer(refusal.words()),
            Some("older_epoch") => NotFenced::LaterEpoch(refusal.words()),
            Some(_) => NotFenced::NotProved(refusal.words()),
        })?;
        Ok(answer.postgres)
    }
}
