//! Questions to a server: every value as the text that PostgreSQL itself would write and read.

use std::{path::Path, time::Duration};

use interrex_events::{
    Address, cluster_events,
    postgres::{self, Login, Session, literal, rows},
};
use tokio_postgres::Client;

use super::SalvageError;

/// When a connection is given up.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// When an answer is given up, after the server's own limit should have ended it.
const GRACE: Duration = Duration::from_secs(10);

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
    password: Option<String>,
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
    pub(super) fn main(address: Address, user: &str, password: Option<String>) -> Self {
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
        let name = "interrex salvage";
        let session = if self.read_only { Session::reading(name) } else { Session::writing(name) };
        // between two batches of rows it idles for as long as the other server needs
        let session =
            session.connect_within(CONNECT_LIMIT).statements_within(self.limit).idles_within(self.limit);
        let Address { host, port } = &self.address;
        let (user, password) = (self.user.as_str(), self.password.as_deref());
        let opened = session.open(Login { host, port: *port, user, password, database }).await;
        let client = opened.map_err(|error| DatabaseError {
            place: place.clone(),
            words: error.to_string(),
            // 57P03: it starts
            refused: error.code().is_some_and(|code| code.code() != "57P03"),
        })?;
        Ok(Database { client, place, limit: self.limit.saturating_add(GRACE) })
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
        let failed = |words| self.error(words);
        let answer = tokio::time::timeout(self.limit, rows(&self.client, sql)).await;
        let rows = answer
            .map_err(|_| failed(format!("no answer within {:?}", self.limit)))?
            .map_err(|error| failed(cluster_events::in_words(&error)))?;
        Ok(rows.into_iter().map(postgres::Row::into_values).collect())
    }

    /// Something that it answered and that will not do.
    pub(super) fn error(&self, words: String) -> DatabaseError {
        DatabaseError { place: self.place.clone(), words, refused: true }
    }

    /// The first value of the first row; empty if there is none.
    pub(super) async fn value(&self, sql: &str) -> Result<String, DatabaseError> {
        let rows = self.ask(sql).await?;
        Ok(rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten().unwrap_or_default())
    }
}

/// A value as a literal.
pub(super) fn literal_or_null(value: Option<&str>) -> String {
    value.map_or_else(|| "NULL".to_owned(), literal)
}
