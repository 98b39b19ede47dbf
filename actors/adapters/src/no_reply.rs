//! What the errors of the PostgreSQL and Redis clients say about the server.

use interrex_actors::ports::NoReply;
use interrex_events::cluster_events::in_words;

/// The answer of PostgreSQL, or of the network on the way to it.
pub(crate) fn of_postgres(error: &tokio_postgres::Error) -> NoReply {
    let words = in_words(error);
    match error.code().map(tokio_postgres::error::SqlState::code) {
        Some(code) => NoReply::of_code(code, words),
        None => NoReply::of_system(error, words),
    }
}

/// The answer of Redis, or of the network on the way to it.
pub(crate) fn of_redis(error: &redis::RedisError) -> NoReply {
    match error.code() {
        Some(code) => NoReply::Refused { code: code.to_owned(), words: error.to_string() },
        None => NoReply::of_system(error, error.to_string()),
    }
}
