//! What the outside world sees of a node: its PostgreSQL, Redis and RADIUS asked as any client would.

use std::time::Duration;

use interrex_adapters::{redis as adapter, runtime};
use interrex_events::{NodeId, cluster_events, postgres};
use redis::Value;
use tokio_postgres::{Client, Config, NoTls, config::TargetSessionAttrs};

use super::{Done, Sandbox, SandboxError, layout, processes::MARK};

/// When one question is given up.
const LIMIT: Duration = Duration::from_secs(5);

/// Rows of a query, every value as text.
pub type Rows = Vec<Vec<Option<String>>>;

impl Sandbox {
    /// Runs statements on a node's PostgreSQL as its superuser. The rows of all of them.
    ///
    /// # Errors
    /// The server's or the system's message.
    pub async fn psql(&self, id: NodeId, sql: &str) -> Done<Rows> {
        let node = self.node(id)?;
        let doing = || format!("asking PostgreSQL of {}", node.name);
        let failed =
            |error: tokio_postgres::Error| SandboxError::failed(doing(), cluster_events::in_words(&error));
        let asking = async {
            let client = self.session(id, "postgres").await?;
            postgres::rows(&client, sql).await.map_err(failed)
        };
        let rows = tokio::time::timeout(LIMIT, asking)
            .await
            .map_err(|_| SandboxError::failed(doing(), format!("no answer within {LIMIT:?}")))??;
        Ok(rows.into_iter().map(postgres::Row::into_values).collect())
    }

    /// A session of a node's PostgreSQL as a person would open it: as its superuser, with the server's own settings.
    ///
    /// # Errors
    /// The server's or the system's message.
    pub async fn session(&self, id: NodeId, database: &str) -> Done<Client> {
        let node = self.node(id)?;
        let login = ("interrex", self.passwords.superuser.as_str(), database);
        let session = as_anybody(("127.0.0.1", node.postgres_port), login, TargetSessionAttrs::Any).await;
        session.map_err(|error| {
            let doing = format!("asking PostgreSQL of {}", node.name);
            SandboxError::failed(doing, cluster_events::in_words(&error))
        })
    }

    /// The first value of the first row; empty if there is none.
    ///
    /// # Errors
    /// As [`Self::psql`].
    pub async fn psql_value(&self, id: NodeId, sql: &str) -> Done<String> {
        let rows = self.psql(id, sql).await?;
        Ok(rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten().unwrap_or_default())
    }

    /// Whether a node's PostgreSQL answers and takes writes.
    pub async fn takes_writes(&self, id: NodeId) -> bool {
        // a database's owner may overload what a search path finds
        let sql = "SELECT NOT pg_catalog.pg_is_in_recovery() \
                   AND pg_catalog.current_setting('transaction_read_only') OPERATOR(pg_catalog.=) 'off'";
        self.psql_value(id, sql).await.is_ok_and(|answer| answer == "t")
    }

    /// Sends a command to a node's Redis. The answer as text.
    ///
    /// # Errors
    /// The server's or the system's message.
    pub async fn redis(&self, id: NodeId, words: &[&str]) -> Done<String> {
        let node = self.node(id)?;
        let doing = || format!("asking Redis of {}", node.name);
        let connecting = adapter::connect("127.0.0.1", node.redis_port, None).await;
        let mut connection = connecting.map_err(|words| SandboxError::failed(doing(), words))?;
        let mut command = ::redis::cmd(words.first().copied().unwrap_or("PING"));
        for word in words.iter().skip(1) {
            command.arg(*word);
        }
        let answer: ::redis::Value = command
            .query_async(&mut connection)
            .await
            .map_err(|error| SandboxError::failed(doing(), error))?;
        Ok(in_words(&answer))
    }

    /// Whether a node's RADIUS lets the test user in.
    ///
    /// # Errors
    /// The sandbox has no RADIUS.
    pub async fn radius_accepts(&self, id: NodeId) -> Done<bool> {
        let node = self.node(id)?;
        let Some(programs) = &self.programs.radius else {
            return Err(SandboxError::failed("asking RADIUS", "this sandbox has none"));
        };
        let question = layout::question(programs, node);
        let mut command = self.account.run_as.command(question.first().map_or("", String::as_str));
        command.args(question.iter().skip(1)).env(MARK, &node.folder).process_group(0);
        Ok(runtime::run(command, "radclient", LIMIT).await.is_ok())
    }

    /// The command with which a person asks the same.
    #[must_use]
    pub fn radius_question(&self, id: NodeId) -> Option<String> {
        Some(layout::question(self.programs.radius.as_ref()?, self.node(id).ok()?).join(" "))
    }
}

/// A session of the outside world: not one of Interrex, so that the server's own settings hold in it.
#[allow(clippy::disallowed_methods, reason = "it plays a client, on a server that only the sandbox knows")]
pub(super) async fn as_anybody(
    (host, port): (&str, u16),
    (user, password, database): (&str, &str, &str),
    target: TargetSessionAttrs,
) -> Result<Client, tokio_postgres::Error> {
    let mut config = Config::new();
    config.host(host).port(port).user(user).password(password).dbname(database);
    config.application_name("sandbox").connect_timeout(LIMIT).target_session_attrs(target);
    let (client, connection) = config.connect(NoTls).await?;
    // it ends with the client
    tokio::spawn(connection);
    Ok(client)
}

fn in_words(value: &Value) -> String {
    match value {
        Value::Nil => String::new(),
        Value::Int(number) => number.to_string(),
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) => text.clone(),
        Value::Okay => "OK".to_owned(),
        Value::Array(items) => items.iter().map(in_words).collect::<Vec<_>>().join(" "),
        other => format!("{other:?}"),
    }
}
