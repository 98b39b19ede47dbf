//! Queries to a server: every value as the text that PostgreSQL itself would write and read.

use std::{path::Path, time::Duration};

use interrex_adapters::secret::Secret;
use interrex_events::{
    Address, cluster_events,
    postgres::{self, Login, Session, bytes_of, literal, rows},
};
use tokio_postgres::Client;

use super::SalvageError;

/// Time limit for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long to wait for an answer after the server's own limit should have ended the statement.
const GRACE: Duration = Duration::from_secs(10);
/// A row, every value as text.
pub(super) type Row = Vec<Option<String>>;

/// Why a server did not answer as it should.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {words}")]
pub(super) struct DatabaseError {
    place: String,
    words: String,
    /// Whether the server refused, and would refuse again.
    refused: bool,
    /// Whether a value could not be decoded.
    undecodable: bool,
}

impl DatabaseError {
    /// Whether a retry is useless.
    pub(super) fn is_final(&self) -> bool {
        self.refused
    }

    /// Whether a value could not be read as text: its bytes can be read.
    pub(super) fn is_about_encoding(&self) -> bool {
        self.undecodable
    }
}

impl From<DatabaseError> for SalvageError {
    fn from(error: DatabaseError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// The address of a server, and the login for it.
#[derive(Debug, Clone)]
pub(in crate::salvage) struct Server {
    pub(super) address: Address,
    user: String,
    password: Option<Secret>,
    /// Time limit for one query.
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

    /// The new main: every session is read-only, and no query may run for long.
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
        let name = "interrex salvage";
        let session = if self.read_only { Session::reading(name) } else { Session::writing(name) };
        // between two batches of rows the session idles for as long as the other server needs
        let session =
            session.connect_within(CONNECT_LIMIT).statements_within(self.limit).idles_within(self.limit);
        let Address { host, port } = &self.address;
        let (user, password) = (self.user.as_str(), self.password.as_deref());
        let opened = session.open(Login { host, port: *port, user, password, database }).await;
        let client = opened.map_err(|error| DatabaseError {
            place: place.clone(),
            words: error.to_string(),
            // 57P03: the server starts
            refused: error.code().is_some_and(|code| code.code() != "57P03"),
            undecodable: false,
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
        let failed = |words, undecodable| DatabaseError {
            place: self.place.clone(),
            words,
            refused: true,
            undecodable,
        };
        let answer = tokio::time::timeout(self.limit, rows(&self.client, sql)).await;
        let rows = answer
            .map_err(|_| failed(format!("no answer within {:?}", self.limit), false))?
            .map_err(|error| failed(cluster_events::in_words(&error), is_about_encoding(&error)))?;
        Ok(rows.into_iter().map(postgres::Row::into_values).collect())
    }

    /// An error for an answer that cannot be used.
    pub(super) fn error(&self, words: String) -> DatabaseError {
        DatabaseError { place: self.place.clone(), words, refused: true, undecodable: false }
    }

    /// Whether the session has ended.
    pub(super) fn is_over(&self) -> bool {
        self.client.is_closed()
    }

    /// The names in the rows of a query that selects each by [`name_in_hex`].
    pub(super) async fn names(&self, sql: &str) -> Result<Vec<Vec<Name>>, DatabaseError> {
        let rows = self.ask(sql).await?;
        Ok(rows
            .into_iter()
            .map(|row| row.into_iter().flatten().map(|hex| Name::of(&hex)).collect())
            .collect())
    }

    /// The first value of the first row; empty if there is none.
    pub(super) async fn value(&self, sql: &str) -> Result<String, DatabaseError> {
        let rows = self.ask(sql).await?;
        Ok(rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten().unwrap_or_default())
    }
}

/// Whether a value could not be decoded, by the server or here.
fn is_about_encoding(error: &tokio_postgres::Error) -> bool {
    // character_not_in_repertoire, untranslatable_character
    let told = error.code().is_some_and(|code| ["22021", "22P05"].contains(&code.code()));
    let cause = std::error::Error::source(error);
    told || cause.and_then(|cause| cause.downcast_ref::<std::str::Utf8Error>()).is_some()
}

/// The SQL expression for the bytes of a name, in hexadecimal digits.
pub(super) fn name_in_hex(name: &str) -> String {
    format!("encode({}, 'hex')", bytes_of(name))
}

/// A name as a server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    Text(String),
    /// A name that is not UTF-8, its other bytes escaped.
    Escaped(String),
}

impl Name {
    pub(super) fn of(hex: &str) -> Self {
        match String::from_utf8(hex::decode(hex).unwrap_or_default()) {
            Ok(text) => Self::Text(text),
            Err(error) => Self::Escaped(error.as_bytes().escape_ascii().to_string()),
        }
    }

    /// For people.
    pub(super) fn shown(&self) -> &str {
        let (Self::Text(name) | Self::Escaped(name)) = self;
        name
    }
}

/// How the values of a table are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// As text.
    Text,
    /// As the bytes of that text, in hexadecimal digits, because some are not valid in the database's encoding, which is given.
    Bytes(String),
}

impl Told {
    /// The SQL expression that selects a column.
    pub(super) fn selected(&self, column: &str) -> String {
        match self {
            Self::Text => column.to_owned(),
            // as its type writes it; NULL stays NULL, which is not the same as a row of NULLs
            Self::Bytes(encoding) => {
                let text = format!("format('%s', {column})");
                let bytes = match encoding.as_str() {
                    "UTF8" => format!("textsend({text})"),
                    other => format!("convert_to({text}, {})", literal(other)),
                };
                format!("CASE WHEN {column} IS DISTINCT FROM NULL THEN encode({bytes}, 'hex') END")
            }
        }
    }

    /// A value for people: as text if it is text, otherwise in the form of `bytea`.
    pub(super) fn shown(&self, value: &str) -> String {
        self.as_text(value).unwrap_or_else(|| format!("\\x{value}"))
    }

    /// A value as an expression of a type.
    pub(super) fn in_sql(&self, value: Option<&str>, of_type: &str) -> String {
        let Some(value) = value else { return "NULL".to_owned() };
        match (self.as_text(value), self) {
            (None, Self::Bytes(encoding)) => {
                format!("convert_from('\\x{value}'::bytea, {})::{of_type}", literal(encoding))
            }
            (text, _) => literal(text.as_deref().unwrap_or(value)),
        }
    }

    fn as_text(&self, value: &str) -> Option<String> {
        match self {
            Self::Text => Some(value.to_owned()),
            Self::Bytes(encoding) => {
                let text = String::from_utf8(hex::decode(value).ok()?).ok()?;
                // of other encodings only what all of them have in common
                (["UTF8", "SQL_ASCII"].contains(&encoding.as_str()) || text.is_ascii()).then_some(text)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_no_text_is_told_by_its_bytes_and_every_other_as_text() {
        let bytes = Told::Bytes("SQL_ASCII".to_owned());
        let (text, latin) = (hex::encode("Märkte 'x'"), hex::encode(b"M\xe4rkte"));
        assert_eq!(bytes.in_sql(Some(&text), "text"), "'Märkte ''x'''");
        assert_eq!(bytes.shown(&text), "Märkte 'x'");
        let expected = r"convert_from('\x4de4726b7465'::bytea, 'SQL_ASCII')::text[]";
        assert_eq!(bytes.in_sql(Some(&latin), "text[]"), expected);
        assert_eq!(bytes.shown(&latin), r"\x4de4726b7465");
        let other = Told::Bytes("WIN1252".to_owned());
        assert_eq!(other.shown(&text), format!(r"\x{text}"), "its bytes mean something else there");
        assert_eq!(bytes.in_sql(None, "text"), "NULL");
        assert_eq!(Told::Text.in_sql(Some("it's"), "text"), "'it''s'");
    }

    #[test]
    fn a_name_that_is_no_text_is_shown_escaped() {
        assert_eq!(Name::of(&hex::encode("Müller")), Name::Text("Müller".to_owned()));
        assert_eq!(Name::of(&hex::encode(b"M\xfcller")), Name::Escaped(r"M\xfcller".to_owned()));
    }
}
