//! Why a command could not do what was asked, which exit code that is, and what to do about it.

use std::{error::Error, io, path::PathBuf};

use interrex_actors::node::{Fatal, NodeError};
use interrex_events::{export::ExportError, journal::JournalError};

use super::exit::Exit;
use crate::{config::ConfigError, daemon::DaemonError, demo::DemoError, salvage::SalvageError};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No configuration was named, and none of the default files exists.
    #[error("there is no configuration: neither {} exists", looked_at.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" nor "))]
    NoConfig {
        /// The files that were tried.
        looked_at: Vec<PathBuf>,
    },
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// An export cannot be read.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A file holds no events, or not those that it should.
    #[error("{0}")]
    Unusable(String),
    /// A text names no event.
    #[error("{0}")]
    NoSuchEvent(String),
    /// The program was interrupted; a file that it had begun to write is removed.
    #[error("interrupted: no half-written file was left behind")]
    Interrupted,
    /// A text names no run, or more than one.
    #[error("{0}")]
    NoSuchRun(String),
    /// The arguments contradict each other or the stream.
    #[error("{0}")]
    Usage(String),
    /// What was found cannot be written out.
    #[error("cannot write the answer")]
    Output(#[from] io::Error),
    /// A supervisor did not start, or had to end.
    #[error("{0}")]
    Daemon(DaemonError),
    /// The demo could not be shown to its end.
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// Another part of the program failed.
    #[error("{what}")]
    Other {
        /// What was being done.
        what: String,
        /// Why it failed.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
}

impl From<SalvageError> for Failure {
    fn from(error: SalvageError) -> Self {
        match error {
            SalvageError::Usage(words) => Self::Usage(words),
            SalvageError::Failed(what) => Self::Other { what, source: None },
            SalvageError::Interrupted => Self::Interrupted,
        }
    }
}

impl From<DaemonError> for Failure {
    fn from(error: DaemonError) -> Self {
        match error {
            DaemonError::Journal(error) => Self::Journal(error),
            other => Self::Daemon(other),
        }
    }
}

impl Failure {
    /// Whether the reader of the answer is gone, as in `interrex events | head -1`: not a failure to report.
    pub(super) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::NoConfig { .. } | Self::Daemon(DaemonError::Machine(_)) => {
                Exit::ConfigurationWrong
            }
            Self::Journal(JournalError::InUse(_)) => Exit::InUse,
            Self::Journal(_)
            | Self::Export(_)
            | Self::Unusable(_)
            | Self::Daemon(DaemonError::Node(NodeError::NotStored | NodeError::Fatal(Fatal::Forked(_)))) => {
                Exit::JournalUnusable
            }
            Self::NoSuchRun(_) | Self::NoSuchEvent(_) => Exit::NotFound,
            Self::Interrupted => Exit::Interrupted,
            Self::Usage(_) => Exit::WrongUsage,
            Self::Daemon(DaemonError::Listen { error, .. }) if error.kind() == io::ErrorKind::AddrInUse => {
                Exit::InUse
            }
            Self::Daemon(_) | Self::Demo(_) | Self::Output(_) | Self::Other { .. } => Exit::Failed,
        }
    }

    /// The next command, if the message does not name it.
    fn next(&self) -> Option<&'static str> {
        match self {
            Self::Config(_) | Self::Daemon(DaemonError::Machine(_)) => {
                Some("correct it, then check it with: interrex config check --config FILE")
            }
            Self::NoConfig { .. } => Some(
                "name one with --config FILE or INTERREX_CONFIG, or read a journal alone with --journal FILE",
            ),
            Self::Journal(JournalError::Missing(_)) => {
                Some("a supervisor makes its journal when it first starts: interrex supervise --config FILE")
            }
            _ => None,
        }
    }

    /// The message, every cause under it, and the next command.
    #[must_use]
    pub fn in_words(&self) -> String {
        let mut words = format!("error: {self}");
        let mut cause = self.source();
        while let Some(error) = cause {
            words.push_str(&format!("\n  because: {error}"));
            cause = error.source();
        }
        if let Some(next) = self.next() {
            words.push_str(&format!("\n   next: {next}"));
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::SandboxError;

    #[test]
    fn an_error_that_is_handed_on_is_told_once() {
        let refused = SandboxError::failed("using the folder /srv", "it is not empty");
        let words = Failure::from(DemoError::from(refused)).in_words();
        assert_eq!(words, "error: using the folder /srv: it is not empty");
    }
}
