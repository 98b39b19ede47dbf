//! Why a server gave no usable answer, and what that says about whether it is alive.
//!
//! **Invariant:** it is judged by codes, never by text, which is written for people and translated. An error that a server
//! answers with is an answer: the server lives, whether it serves or not. What this node could not do for want of its own
//! resources says nothing about another one.

use std::{error::Error, io};

use rustix::io::Errno;

/// Why a server gave no usable answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoReply {
    /// The server answered with an error: it is alive.
    #[error("{words}")]
    Refused {
        /// The server's own code for it: an SQLSTATE, an HTTP status, Redis' first word.
        code: String,
        /// The server's own text.
        words: String,
    },
    /// The server reports that it starts, shuts down or recovers from a crash. That is no sign of life: it may never serve.
    #[error("{0}")]
    Passing(String),
    /// No connection, or no answer in time.
    #[error("{0}")]
    Silent(String),
    /// This node could not ask: it has no file descriptors, memory or ports left. Nothing is known about the server.
    #[error("this node could not ask: {0}")]
    Unknown(String),
}

/// SQLSTATE of a server that shuts down, has just crashed, or cannot take a session yet.
const PASSING: [&str; 3] = ["57P01", "57P02", "57P03"];

/// What the system says where this process, or this machine, lacks something.
const OWN_TROUBLE: [Errno; 6] =
    [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::ADDRNOTAVAIL, Errno::AGAIN];

impl NoReply {
    /// The meaning of a PostgreSQL error with this SQLSTATE and message.
    #[must_use]
    pub fn of_sqlstate(code: &str, message: &str) -> Self {
        Self::of_code(code, format!("{message} (SQLSTATE {code})"))
    }

    /// An error with which a server answered, by its code.
    #[must_use]
    pub fn of_code(code: &str, words: String) -> Self {
        if PASSING.contains(&code) {
            Self::Passing(words)
        } else {
            Self::Refused { code: code.to_owned(), words }
        }
    }

    /// An error that did not come from the server.
    #[must_use]
    pub fn of_system(error: &(dyn Error + 'static), words: String) -> Self {
        if is_own_trouble(error) { Self::Unknown(words) } else { Self::Silent(words) }
    }

    /// No answer within this limit.
    #[must_use]
    pub fn late(limit: std::time::Duration) -> Self {
        Self::Silent(format!("no answer within {limit:?}"))
    }

    /// The code of the server's error, if it answered with one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            Self::Passing(_) | Self::Silent(_) | Self::Unknown(_) => None,
        }
    }

    /// Whether nothing is known because this node could not ask.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }

    /// The same, with what was being done.
    #[must_use]
    pub fn while_doing(self, doing: &str) -> Self {
        let said = |words: String| format!("{doing}: {words}");
        match self {
            Self::Refused { code, words } => Self::Refused { code, words: said(words) },
            Self::Passing(words) => Self::Passing(said(words)),
            Self::Silent(words) => Self::Silent(said(words)),
            Self::Unknown(words) => Self::Unknown(said(words)),
        }
    }
}

/// Whether an error has its cause in what this process or machine lacks.
fn is_own_trouble(error: &(dyn Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    let mut numbers =
        causes.filter_map(|cause| cause.downcast_ref::<io::Error>()).filter_map(io::Error::raw_os_error);
    numbers.any(|number| OWN_TROUBLE.iter().any(|own| own.raw_os_error() == number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("error sending request")]
    struct Wrapped(#[source] io::Error);

    #[test]
    fn what_this_process_lacks_is_told_from_what_a_peer_does_however_deep_it_lies() {
        let of = |error: Errno| NoReply::of_system(&Wrapped(error.into()), String::new());
        for own in OWN_TROUBLE {
            assert!(of(own).is_unknown(), "{own}");
        }
        for others in [Errno::CONNREFUSED, Errno::CONNRESET, Errno::TIMEDOUT, Errno::HOSTUNREACH] {
            assert!(matches!(of(others), NoReply::Silent(_)), "{others}");
        }
    }
}
