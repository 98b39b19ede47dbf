//! The state that PostgreSQL writes into its pid file, for programs that wait for it. The number in this file says nothing here: a
//! server in a container has the number 1. Its runtime knows which process it is.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf};

use super::LocalPostgres;

/// The line with the state.
const STATE_LINE: usize = 7;

/// What a server says of itself once it has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It admits sessions, or replays and will never admit them (`hot_standby = off`).
    Started,
    /// It ends.
    Stopping,
}

/// The file, and which file it was when this value was made: a crashed server leaves its file behind.
pub(super) struct StatusFile {
    path: PathBuf,
    before: Option<(u64, i64, i64)>,
}

impl LocalPostgres {
    pub(super) fn status_file(&self) -> StatusFile {
        let path = self.settings.data_dir.join("postmaster.pid");
        StatusFile { before: identity(&path), path }
    }
}

impl StatusFile {
    /// The state in the file.
    pub(super) fn state(&self) -> Option<State> {
        let text = fs::read(&self.path).ok()?;
        // a path in it may have any encoding; PostgreSQL pads the state with blanks
        match String::from_utf8_lossy(&text).lines().nth(STATE_LINE)?.trim() {
            "ready" | "standby" => Some(State::Started),
            "stopping" => Some(State::Stopping),
            _ => None,
        }
    }

    /// The state that a server has written since this value was made.
    pub(super) fn state_since(&self) -> Option<State> {
        if identity(&self.path) == self.before { None } else { self.state() }
    }
}

/// Which file it is, and when it was made or written.
fn identity(path: &std::path::Path) -> Option<(u64, i64, i64)> {
    let file = fs::metadata(path).ok()?;
    Some((file.ino(), file.mtime(), file.mtime_nsec()))
}
