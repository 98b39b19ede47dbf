//! The one way in which a session is opened.

use std::{
    fmt,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio_postgres::{Client, Config, NoTls, error::SqlState};

use super::rows::rows;
use crate::cluster_events::in_words;

/// Where names are looked for.
const SEARCH_PATH: &str = "pg_catalog";

/// What every session of ours has, whatever a configuration file, a database or a role sets: values in the startup message
/// come after all of these.
///
/// Any user may give them. What only a superuser may set is not among them: a login that is none would be refused, and
/// only a superuser can have set it for a database (`session_preload_libraries`, `session_replication_role`,
/// `lc_messages`; and event triggers are a superuser's, too).
const PINNED: [(&str, &str); 30] = [
    // what our SQL means
    ("search_path", SEARCH_PATH),
    ("quote_all_identifiers", "off"),
    ("standard_conforming_strings", "on"),
    ("backslash_quote", "safe_encoding"),
    ("array_nulls", "on"),
    ("transform_null_equals", "off"),
    // who we are: a database's owner may set both for its sessions
    ("role", "none"),
    ("local_preload_libraries", ""),
    // how values are written
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
    ("lc_numeric", "C"),
    ("lc_time", "C"),
    ("xmlbinary", "base64"),
    ("xmloption", "content"),
    // a hot standby refuses serializable, and a transaction must not wait for a safe moment to begin
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_deferrable", "off"),
    // an answer that leaves out rows is worse than an error
    ("row_security", "off"),
    // where our tables go
    ("default_table_access_method", "heap"),
    ("default_tablespace", ""),
    ("temp_tablespaces", ""),
    // no commit of ours waits for a standby
    ("synchronous_commit", "local"),
    // the planner runs no constraint of a table's owner
    ("constraint_exclusion", "off"),
    // an error ends a statement, not the session; a slow network does not end it either
    ("exit_on_error", "off"),
    ("tcp_user_timeout", "10s"),
    ("client_min_messages", "warning"),
    ("jit", "off"),
];

/// The same, from the major version on that knows them: an older one refuses a session that names them.
const PINNED_SINCE: [(u32, &str, &str); 2] =
    [(14, "idle_session_timeout", "0"), (17, "transaction_timeout", "0")];

/// The major version of the server that was asked last; 0 is unknown. Servers of one cluster have the same: a wrong one costs
/// a second attempt.
static VERSION: AtomicU32 = AtomicU32::new(0);

/// How often a session is opened again because the server's version turned out to be another.
const ATTEMPTS: usize = 3;

/// The address of a server, and the login.
#[derive(Clone, Copy)]
pub struct Login<'a> {
    /// Host name, address, or the folder of a socket.
    pub host: &'a str,
    /// Port.
    pub port: u16,
    /// User.
    pub user: &'a str,
    /// Its password.
    pub password: Option<&'a str>,
    /// Database.
    pub database: &'a str,
}

impl fmt::Debug for Login<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}/{}", self.user, self.host, self.port, self.database)
    }
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum NotOpened {
    /// No answer in time.
    #[error("no connection within {0:?}")]
    Late(Duration),
    /// The server's or the system's refusal.
    #[error("{}", in_words(.0))]
    Refused(#[from] tokio_postgres::Error),
    /// Something between us and the server keeps our settings from it.
    #[error(
        "the session did not take the settings that it was opened with, search_path is `{0}`: connect to PostgreSQL itself, \
         not to a connection pooler that drops `options`"
    )]
    NotPinned(String),
}

impl NotOpened {
    /// The server's SQLSTATE, if a server answered.
    #[must_use]
    pub fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Refused(error) => error.code(),
            Self::Late(_) | Self::NotPinned(_) => None,
        }
    }
}

/// What a session is for, and how long anything in it may take.
#[derive(Debug, Clone, Copy)]
pub struct Session {
    name: &'static str,
    writes: bool,
    connect_limit: Duration,
    statement_limit: Duration,
    lock_limit: Duration,
    idle_limit: Duration,
}

impl Session {
    const fn new(name: &'static str, writes: bool) -> Self {
        Self {
            name,
            writes,
            connect_limit: Duration::from_secs(2),
            statement_limit: Duration::from_secs(30),
            lock_limit: Duration::from_secs(10),
            idle_limit: Duration::from_secs(30),
        }
    }

    /// A session that only reads.
    #[must_use]
    pub const fn reading(name: &'static str) -> Self {
        Self::new(name, false)
    }

    /// A session that writes, even if a database or a role is read-only by its own setting.
    #[must_use]
    pub const fn writing(name: &'static str) -> Self {
        Self::new(name, true)
    }

    /// The limit for opening the session; two seconds by default.
    #[must_use]
    pub const fn connect_within(self, connect_limit: Duration) -> Self {
        Self { connect_limit, ..self }
    }

    /// The limit after which the server ends a statement; 30 seconds by default, no limit at zero.
    #[must_use]
    pub const fn statements_within(self, statement_limit: Duration) -> Self {
        Self { statement_limit, ..self }
    }

    /// The limit after which the server stops waiting for a lock; ten seconds by default.
    #[must_use]
    pub const fn locks_within(self, lock_limit: Duration) -> Self {
        Self { lock_limit, ..self }
    }

    /// The limit after which the server ends a session that idles in a transaction; 30 seconds by default, no limit at zero.
    #[must_use]
    pub const fn idles_within(self, idle_limit: Duration) -> Self {
        Self { idle_limit, ..self }
    }

    /// Opens it. It ends with the client, and must be opened on a runtime that drives it.
    ///
    /// # Errors
    /// The server's or the system's refusal, or no answer in time.
    pub async fn open(self, login: Login<'_>) -> Result<Client, NotOpened> {
        let opening = tokio::time::timeout(self.connect_limit, self.attempts(login)).await;
        opening.map_err(|_| NotOpened::Late(self.connect_limit))?
    }

    async fn attempts(self, login: Login<'_>) -> Result<Client, NotOpened> {
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            let pinned_for = VERSION.load(Ordering::Relaxed);
            match self.attempt(login, pinned_for).await {
                Ok((client, version)) => {
                    VERSION.store(version, Ordering::Relaxed);
                    if left == 0 || since(version).eq(since(pinned_for)) {
                        return Ok(client);
                    }
                }
                // an older server than the last one
                Err(NotOpened::Refused(error))
                    if left > 0 && pinned_for > 0 && error.code() == Some(&SqlState::UNDEFINED_OBJECT) =>
                {
                    VERSION.store(0, Ordering::Relaxed);
                }
                Err(error) => return Err(error),
            }
        }
    }

    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    async fn attempt(self, login: Login<'_>, version: u32) -> Result<(Client, u32), NotOpened> {
        let mut config = Config::new();
        config
            .host(login.host)
            .port(login.port)
            .user(login.user)
            .dbname(login.database)
            .application_name(self.name)
            .connect_timeout(self.connect_limit)
            .tcp_user_timeout(Duration::from_secs(10))
            .options(self.options(version));
        if let Some(password) = login.password {
            config.password(password);
        }
        let (client, connection) = config.connect(NoTls).await?;
        let version = connection.parameter("server_version").and_then(major).unwrap_or_default();
        tokio::spawn(async move {
            // the client learns of a broken connection at its next question
            let _ = connection.await;
        });
        // nothing is looked for by its name alone before this is known
        let path = rows(&client, "SELECT pg_catalog.current_setting('search_path')").await?;
        match path.first().and_then(|row| row.get(0)) {
            Some(SEARCH_PATH) => Ok((client, version)),
            other => Err(NotOpened::NotPinned(other.unwrap_or_default().to_owned())),
        }
    }

    fn options(self, version: u32) -> String {
        let on = |yes| if yes { "on" } else { "off" }.to_owned();
        let limit = |limit: Duration| limit.as_millis().to_string();
        let own = [
            ("default_transaction_read_only", on(!self.writes)),
            ("statement_timeout", limit(self.statement_limit)),
            ("lock_timeout", limit(self.lock_limit)),
            ("idle_in_transaction_session_timeout", limit(self.idle_limit)),
        ];
        let pinned = PINNED.into_iter().chain(since(version)).map(|(name, value)| (name, value.to_owned()));
        options(pinned.chain(own))
    }
}

/// The same for a program that connects by libpq, as its variable `PGOPTIONS`. It may write, for as long as it takes.
#[must_use]
pub fn pinned_for_libpq() -> (&'static str, String) {
    let own = [
        ("default_transaction_read_only", "off"),
        ("statement_timeout", "0"),
        ("lock_timeout", "0"),
        ("idle_in_transaction_session_timeout", "0"),
    ];
    ("PGOPTIONS", options(PINNED.into_iter().chain(own).map(|(name, value)| (name, value.to_owned()))))
}

fn since(version: u32) -> impl Iterator<Item = (&'static str, &'static str)> {
    let known = PINNED_SINCE.into_iter().filter(move |(first, ..)| *first <= version);
    known.map(|(_, name, value)| (name, value))
}

/// The options as the startup message has them: words, with a backslash before every blank and backslash.
fn options(settings: impl Iterator<Item = (&'static str, String)>) -> String {
    let words = settings.map(|(name, value)| {
        let value: String = value
            .chars()
            .flat_map(|letter| {
                let escape = (letter == '\\' || letter.is_whitespace()).then_some('\\');
                escape.into_iter().chain(std::iter::once(letter))
            })
            .collect();
        format!("-c {name}={value}")
    });
    words.collect::<Vec<_>>().join(" ")
}

/// `15.18 (Debian ...)`, `17beta1`.
fn major(version: &str) -> Option<u32> {
    version.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_session_says_what_it_may_and_no_older_server_is_told_what_it_does_not_know() {
        let of = |session: Session, version| session.options(version);
        let reading = of(Session::reading("test"), 13);
        assert!(reading.starts_with("-c search_path=pg_catalog -c "), "{reading}");
        assert!(
            reading.contains(" -c default_transaction_read_only=on -c statement_timeout=30000 "),
            "{reading}"
        );
        assert!(reading.contains(r" -c default_transaction_isolation=read\ committed "), "{reading}");
        assert!(reading.contains(r" -c DateStyle=ISO,\ MDY "), "{reading}");
        assert!(
            !reading.contains("idle_session_timeout") && !reading.contains("transaction_timeout"),
            "{reading}"
        );
        let writing = of(Session::writing("test").statements_within(Duration::ZERO), 17);
        assert!(
            writing.contains(" -c default_transaction_read_only=off -c statement_timeout=0 "),
            "{writing}"
        );
        assert!(writing.contains(" -c idle_session_timeout=0 -c transaction_timeout=0 "), "{writing}");
    }

    #[test]
    fn the_version_is_read_however_a_distribution_writes_it() {
        assert_eq!(major("15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major("17beta1"), Some(17));
        assert_eq!(major("9.6.24"), Some(9));
        assert_eq!(major("unknown"), None);
    }
}
