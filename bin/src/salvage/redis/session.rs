//! Commands to a Redis: many at once, every answer unchanged.

use std::{path::PathBuf, time::Duration};

use interrex_adapters::secret::Secret;
use interrex_events::Address;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, IntoConnectionInfo, ProtocolVersion,
    RedisConnectionInfo, RedisError, Value, aio::MultiplexedConnection,
};

use super::super::SalvageError;

/// Time limit for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Time limit for answers. A value of many megabytes takes some time.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// Why a server did not answer as it should.
#[derive(Debug, thiserror::Error)]
#[error("Redis at {place}: {words}")]
pub(super) struct SessionError {
    place: String,
    words: String,
}

impl SessionError {
    /// Whether Redis refused a database because it has fewer: the message of `SELECT` since Redis 3.2.
    pub(super) fn is_about_too_few_databases(&self) -> bool {
        self.words.contains("DB index is out of range")
    }
}

impl From<SessionError> for SalvageError {
    fn from(error: SessionError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// The address of a server, and the password for it.
#[derive(Debug, Clone)]
pub(in crate::salvage) struct Server {
    address: ConnectionAddr,
    place: String,
    password: Option<Secret>,
}

impl Server {
    /// The scratch server.
    pub(super) fn on_socket(socket: PathBuf) -> Self {
        let place = format!("unix:{}", socket.display());
        Self { address: ConnectionAddr::Unix(socket), place, password: None }
    }

    /// The new main. Commands to it change nothing.
    pub(super) fn main(address: Address, password: Option<Secret>) -> Self {
        let place = address.to_string();
        Self { address: ConnectionAddr::Tcp(address.host, address.port), place, password }
    }

    /// `host:port`, or the socket.
    pub(super) fn place(&self) -> String {
        self.place.clone()
    }

    /// A session in its first database.
    pub(super) async fn connect(&self) -> Result<Session, SessionError> {
        let place = self.place();
        let failed = |error: &RedisError| SessionError { place: place.clone(), words: in_words(error) };
        let mut settings = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP2);
        if let Some(password) = &self.password {
            settings = settings.set_password(password);
        }
        let info = self.address.clone().into_connection_info().map_err(|error| failed(&error))?;
        let client = Client::open(info.set_redis_settings(settings)).map_err(|error| failed(&error))?;
        let limits = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_LIMIT))
            .set_response_timeout(Some(ANSWER_LIMIT));
        let connecting = client.get_multiplexed_async_connection_with_config(&limits).await;
        let session = Session { connection: connecting.map_err(|error| failed(&error))?, place };
        // reading a key must not keep it from being evicted; servers before 7.2 refuse this command
        session.ask_all(&[words(&["CLIENT", "NO-TOUCH", "ON"])]).await?;
        Ok(session)
    }
}

fn in_words(error: &RedisError) -> String {
    let said = error.to_string();
    let is_about_login = ["NOAUTH", "WRONGPASS", "uthentication"].iter().any(|word| said.contains(word));
    let hint = if is_about_login { "; put its password in the file of redis.password_file" } else { "" };
    format!("{said}{hint}")
}

/// A session.
pub(super) struct Session {
    connection: MultiplexedConnection,
    place: String,
}

impl Session {
    /// The answer to one command.
    pub(super) async fn ask(&self, question: Cmd) -> Result<Value, SessionError> {
        let answer = question.query_async(&mut self.connection.clone()).await;
        answer.map_err(|error| SessionError { place: self.place.clone(), words: in_words(&error) })
    }

    /// The answers to many commands, sent together. A refusal is the answer to its command.
    pub(super) async fn ask_all(&self, questions: &[Cmd]) -> Result<Vec<Value>, SessionError> {
        if questions.is_empty() {
            return Ok(Vec::new());
        }
        let mut all = redis::pipe();
        all.ignore_errors();
        for question in questions {
            all.add_command(question.clone());
        }
        let answers = all.query_async(&mut self.connection.clone()).await;
        answers.map_err(|error| SessionError { place: self.place.clone(), words: in_words(&error) })
    }

    /// As [`Self::ask_all`], with an error if Redis refuses one of them.
    pub(super) async fn demand_all(&self, questions: &[Cmd]) -> Result<Vec<Value>, SessionError> {
        let answers = self.ask_all(questions).await?;
        match answers.iter().find_map(|answer| match answer {
            Value::ServerError(error) => Some(error.to_string()),
            _ => None,
        }) {
            Some(words) => Err(SessionError { place: self.place.clone(), words }),
            None => Ok(answers),
        }
    }

    /// The error for an answer of an unexpected form.
    pub(super) fn strange_answer_to(&self, command: &str) -> SessionError {
        SessionError { place: self.place.clone(), words: format!("unexpected answer to {command}") }
    }

    /// Changes to another database.
    pub(super) async fn select(&self, database: u64) -> Result<(), SessionError> {
        self.ask(words(&["SELECT", &database.to_string()])).await.map(drop)
    }

    /// A section of `INFO`.
    pub(super) async fn info(&self, section: &str) -> Result<Info, SessionError> {
        let answer = self.ask(words(&["INFO", section])).await?;
        Ok(Info(bytes(&answer).map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default()))
    }

    /// How many keys had expired before or while they were read.
    pub(super) async fn expired(&self) -> Result<u64, SessionError> {
        let number = |info: &Info, name: &str| info.field(name).and_then(|text| text.parse::<u64>().ok());
        let on_loading = number(&self.info("persistence").await?, "rdb_last_load_keys_expired");
        let since = number(&self.info("stats").await?, "expired_keys");
        Ok(on_loading.unwrap_or_default().saturating_add(since.unwrap_or_default()))
    }
}

/// A command from its arguments.
pub(super) fn words(words: &[&str]) -> Cmd {
    words.iter().fold(Cmd::new(), |mut command, word| {
        command.arg(*word);
        command
    })
}

/// A command about a key.
pub(super) fn about(name: &str, key: &[u8], more: &[&str]) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(key);
    more.iter().for_each(|word| {
        command.arg(*word);
    });
    command
}

/// A text or value.
pub(super) fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

/// An answer to `INFO`: lines of `name:value`.
pub(super) struct Info(String);

impl Info {
    /// The value of a line.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    /// The databases with keys, and their number of keys, from the section `keyspace`: `db0:keys=3,expires=1,avg_ttl=5`.
    pub(super) fn databases(&self) -> Vec<(u64, u64)> {
        let database = |line: &str| {
            let (number, about) = line.trim().strip_prefix("db")?.split_once(':')?;
            let keys = about.split(',').find_map(|part| part.strip_prefix("keys="))?;
            Some((number.parse().ok()?, keys.parse().ok()?))
        };
        self.0.lines().filter_map(database).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_databases_that_hold_keys_are_read_from_what_it_says() {
        let info = Info(
            "# Keyspace\r\ndb0:keys=3,expires=1,avg_ttl=5\r\ndb12:keys=1,expires=0,avg_ttl=0\r\n".to_owned(),
        );
        assert_eq!(info.databases(), [(0, 3), (12, 1)]);
        assert_eq!(Info("loading:0\r\n".to_owned()).field("loading"), Some("0"));
    }

    #[test]
    fn a_database_is_lacking_only_where_the_server_says_so() {
        let is_lacking = |words: &str| {
            SessionError { place: String::new(), words: words.to_owned() }.is_about_too_few_databases()
        };
        assert!(is_lacking("An error was signalled by the server - ResponseError: DB index is out of range"));
        for words in
            ["broken pipe", "LOADING Redis is loading the dataset in memory", "NOPERM no permissions"]
        {
            assert!(!is_lacking(words), "{words}");
        }
    }
}
