//! Why a server gave no answer to a question, and what that says about its life.
//!
//! **Invariant:** it is judged by codes, never by text, which is written for people and translated. An error that a server
//! answers with is an answer: the server lives, whether it serves or not. What this node could not do for want of its own
//! resources says nothing about another one.

use std::{error::Error, io};

use rustix::io::Errno;

/// Why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoReply {
    /// The server answered with an error: it lives.
    #[error("{words}")]
    Refused {
        /// The server's own code for it: an SQLSTATE, an HTTP status, Redis' first word.
        code: String,
        /// The server's own text.
        words: String,
    },
    /// The server says that it starts, ends or recovers from a crash: no sign of life, for it may never come to that.
    #[error("{0}")]
    Passing(String),
    /// Nothing came back: no connection, or no answer in time.
    #[error("{0}")]
    Silent(String),
    /// This node itself could not ask: it lacks file descriptors, memory or ports. Nothing is known.
    #[error("this node could not ask: {0}")]
    Unknown(String),
}

/// SQLSTATE of a server that shuts down, has just crashed, or cannot take a session yet.
const PASSING: [&str; 3] = ["57P01", "57P02", "57P03"];

/// What the system says where this process, or this machine, lacks something.
const OWN_TROUBLE: [Errno; 6] =
    [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::ADDRNOTAVAIL, Errno::AGAIN];

impl NoReply {
    /// What an error of PostgreSQL with this SQLSTATE and message says.
    #[must_use]
    pub fn of_sqlstate(code: &str, message: &str) -> Self {
        Self::of_code(code, format!("{message} (SQLSTATE {code})"))
    }

    /// An error that a server answered with, by its code.
    #[must_use]
    pub fn of_code(code: &str, words: String) -> Self {
        if PASSING.contains(&code) {
            Self::Passing(words)
        } else {
            Self::Refused { code: code.to_owned(), words }
        }
    }

    /// An error that no server answered with.
    #[must_use]
    pub fn of_system(error: &(dyn Error + 'static), words: String) -> Self {
        if is_own_trouble(error) { Self::Unknown(words) } else { Self::Silent(words) }
    }

    /// No answer within a limit.
    #[must_use]
    pub fn late(limit: std::time::Duration) -> Self {
        Self::Silent(format!("no answer within {limit:?}"))
    }

    /// The code of the error that the server answered with.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            Self::Passing(_) | Self::Silent(_) | Self::Unknown(_) => None,
        }
    }

    /// Whether nothing is known, for this node could not ask.
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
