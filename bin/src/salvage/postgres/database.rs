//! Questions to a server: every value as the text that PostgreSQL itself would write and read.

use std::{path::Path, time::Duration};

use interrex_actors::secret::Secret;
use interrex_events::{Address, cluster_events};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::SalvageError;

/// When a connection is given up.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// When an answer is given up, after the server's own limit should have ended it.
const GRACE: Duration = Duration::from_secs(10);
/// The same texts on both servers for the same values, and no name found in a schema that was not meant.
const SAME_WORDS: &str = "SET client_encoding = 'UTF8'; SET standard_conforming_strings = on; \
    SET search_path = pg_catalog; SET datestyle = 'ISO, MDY'; SET intervalstyle = 'postgres'; \
    SET timezone = 'UTC'; SET extra_float_digits = 1; SET bytea_output = 'hex'; SET lc_monetary = 'C'; \
    SET xmloption = 'content'; SET synchronous_commit = off; SET row_security = off";

/// A row, every value as text.
pub(super) type Row = Vec<Option<String>>;

/// Why a server did not answer as it should.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {words}")]
pub(super) struct DatabaseError {
    place: String,
    words: String,
    /// Whether it was the server who refused, and would again.
    refused: bool,
}

impl DatabaseError {
    /// Whether to try again is of no use.
    pub(super) fn is_final(&self) -> bool {
        self.refused
    }
}

impl From<DatabaseError> for SalvageError {
    fn from(error: DatabaseError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Where a server is, and as whom it is asked.
#[derive(Debug, Clone)]
pub(in crate::salvage) struct Server {
    pub(super) address: Address,
    user: String,
    password: Option<Secret>,
    /// How long it may think about one question.
    limit: Duration,
    read_only: bool,
}

impl Server {
    /// The number in the name of the scratch server's socket.
    pub(super) const SOCKET_PORT: u16 = 5432;

    /// The scratch server. It may read a whole table for one answer.
    pub(super) fn on_socket(folder: &Path, user: &str) -> Self {
        Self {
            address: Address::new(folder.display().to_string(), Self::SOCKET_PORT),
            user: user.to_owned(),
            password: None,
            limit: Duration::from_secs(6 * 3_600),
            read_only: false,
        }
    }

    /// The new main: every session is read-only, and no question may burden it for long.
    pub(super) fn main(address: Address, user: &str, password: Option<Secret>) -> Self {
        let user = user.to_owned();
        Self { address, user, password, limit: Duration::from_secs(60), read_only: true }
    }

    /// `host:port`.
    pub(super) fn place(&self) -> String {
        self.address.to_string()
    }

    /// A session in one of its databases.
    pub(super) async fn connect(&self, database: &str) -> Result<Database, DatabaseError> {
        let place = format!("{}, database {database}", self.place());
        let read_only = if self.read_only { "on" } else { "off" };
        let milliseconds = self.limit.as_millis();
        let mut config = Config::new();
        config
            .host(&self.address.host)
            .port(self.address.port)
            .user(&self.user)
            .dbname(database)
            .application_name("interrex salvage")
            .connect_timeout(CONNECT_LIMIT)
            .options(format!(
                "-c default_transaction_read_only={read_only} -c statement_timeout={milliseconds} -c lock_timeout=10s"
            ));
        if let Some(password) = &self.password {
            config.password(password);
        }
        let failed = |error: &tokio_postgres::Error| DatabaseError {
            place: place.clone(),
            words: cluster_events::in_words(error),
            // 57P03: it starts
            refused: error.code().is_some_and(|code| code.code() != "57P03"),
        };
        let connecting = tokio::time::timeout(CONNECT_LIMIT, config.connect(NoTls)).await;
        let late = |_| DatabaseError {
            place: place.clone(),
            words: format!("no connection within {CONNECT_LIMIT:?}"),
            refused: false,
        };
        let (client, connection) = connecting.map_err(late)?.map_err(|error| failed(&error))?;
        // it ends with the client
        tokio::spawn(connection);
        let database = Database { client, place, limit: self.limit.saturating_add(GRACE) };
        database.ask(SAME_WORDS).await?;
        Ok(database)
    }
}

/// A session.
pub(super) struct Database {
    client: Client,
    place: String,
    limit: Duration,
}

impl Database {
    /// The rows of all statements.
    pub(super) async fn ask(&self, sql: &str) -> Result<Vec<Row>, DatabaseError> {
        let failed = |words| DatabaseError { place: self.place.clone(), words, refused: true };
        let messages = tokio::time::timeout(self.limit, self.client.simple_query(sql))
            .await
            .map_err(|_| failed(format!("no answer within {:?}", self.limit)))?
            .map_err(|error| failed(cluster_events::in_words(&error)))?;
        let mut rows = Vec::new();
        for message in messages {
            let SimpleQueryMessage::Row(row) = message else { continue };
            let values =
                (0..row.len()).map(|column| row.try_get(column).map(|value| value.map(str::to_owned)));
            let values = values.collect::<Result<Row, _>>();
            rows.push(values.map_err(|error| failed(format!("a value that is no UTF-8: {error}")))?);
        }
        Ok(rows)
    }

    /// The first value of the first row; empty if there is none.
    pub(super) async fn value(&self, sql: &str) -> Result<String, DatabaseError> {
        let rows = self.ask(sql).await?;
        Ok(rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten().unwrap_or_default())
    }
}

/// A text as a literal, for sessions with `standard_conforming_strings`.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A value as a literal.
pub(super) fn literal_or_null(value: Option<&str>) -> String {
    value.map_or_else(|| "NULL".to_owned(), literal)
}

/// A name as an identifier.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
