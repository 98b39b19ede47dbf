//! The port by which an old main's stopped data directory comes back behind a new main.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use interrex_events::{Address, Lsn, TimelineId};
use serde::{Deserialize, Serialize};

use super::{Answer, PortError};
use crate::wire::CopyProgress;

/// A request to keep a copy, with its folder.
#[derive(Debug, Clone)]
pub struct KeepRequest {
    /// Folder of all kept copies; made if it is missing.
    pub into: PathBuf,
    /// The reason, as a message for the person who finds the copy.
    pub reason: String,
    /// The last LSN shared with the new main, if that is known.
    pub switchpoint: Option<Lsn>,
    /// How many transactions were committed or prepared in it that main does not have, if they were counted.
    pub stranded: Option<u64>,
    /// Whether it is rewound next: then it is recovered from its crash while the copy is written to disk.
    pub before_rewind: bool,
    /// The time of the request, and its name: a repeated request with the same time gets the answer of the first.
    pub at: DateTime<Utc>,
}

/// How a kept copy was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeptBy {
    /// The directory was copied, and is itself still in use.
    Copy,
    /// It is the directory itself, which a base backup replaced.
    Rename,
}

/// The facts about a kept copy; its `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptManifest {
    /// The time of the request.
    pub kept_at: DateTime<Utc>,
    /// How it was made.
    pub kept_by: KeptBy,
    /// The reason.
    pub reason: String,
    /// Whether a rewind was cut off in it: then only a person can salvage parts of it.
    pub half_rewound: bool,
    /// System identifier.
    pub system_id: u64,
    /// Its timeline.
    pub timeline: TimelineId,
    /// Where its WAL ends; nothing if that could not be read.
    pub end: Option<Lsn>,
    /// The last LSN shared with the new main, if that was known.
    pub switchpoint: Option<Lsn>,
    /// How many transactions were committed or prepared in it that main did not have; nothing if they were not counted.
    #[serde(default)]
    pub stranded: Option<u64>,
    /// State of the PostgreSQL cluster, as the control file names it.
    pub state: String,
    /// Number of files.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// SHA-256 of the control file.
    pub control_sha256: String,
    /// SHA-256 of the names and sizes of the WAL files.
    pub log_sha256: String,
    /// SHA-256 of the `SHA256SUMS` next to the manifest, which has that of every file. Nothing for a directory that is kept itself,
    /// or whose blocks the copy shares.
    #[serde(default)]
    pub checksums_sha256: Option<String>,
}

/// A kept copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its folder: `manifest.json`, and the data in `pgdata`.
    pub folder: PathBuf,
    /// Its manifest.
    pub manifest: KeptManifest,
}

/// A server from which data is copied.
#[derive(Clone, PartialEq, Eq)]
pub struct Source {
    /// libpq's connection string. A string with a password in it is refused, because every user may read a command line. A rewind
    /// needs a `dbname` in it, and a superuser or a role that may call `pg_ls_dir`, `pg_stat_file` and `pg_read_binary_file`; a
    /// base backup needs a role that may replicate.
    pub conninfo: String,
    /// libpq password file, readable for the servers' user.
    pub passfile: Option<PathBuf>,
}

impl Source {
    /// The connection string for a command line; the password is in a file.
    ///
    /// # Errors
    /// The string has a password in it.
    pub fn without_secrets(&self) -> Answer<&str> {
        let has_password =
            self.conninfo.split("password").skip(1).any(|rest| rest.trim_start().starts_with('='));
        if has_password || self.conninfo.contains("://") {
            return Err(PortError(
                "a connection string is part of a command line, which every user may read: write it as key=value, and the password \
                 into a passfile"
                    .to_owned(),
            ));
        }
        Ok(&self.conninfo)
    }

    /// The connection string for a standby's `primary_conninfo`.
    #[must_use]
    pub fn as_upstream(&self) -> String {
        match &self.passfile {
            Some(file) if !self.conninfo.contains("passfile") => {
                let file = file.display().to_string().replace('\\', r"\\").replace('\'', r"\'");
                format!("{} passfile='{file}'", self.conninfo)
            }
            _ => self.conninfo.clone(),
        }
    }
}

/// Without the connection string: a refused one may have a password in it.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("passfile", &self.passfile).finish_non_exhaustive()
    }
}

/// How a rewind ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewind {
    /// The directory has the source's lineage.
    Rewound,
    /// `pg_rewind` found nothing to rewind. It says so too of a source that was promoted and has made no CHECKPOINT
    /// since (MEASURED M5): only the lineage proves it.
    NotNeeded,
    /// It cannot be done, with the reason. Repeating it would not help: a base backup is needed.
    Impossible(String),
}

/// Brings a stopped directory back behind main. No method starts a server. Every call can be repeated after it was cut off at any
/// moment, and waits for what an earlier call left running or ends it.
#[async_trait(?Send)]
pub trait RejoinPort {
    /// Whether the directory may be started: no rewind or swap was cut off in it.
    fn is_startable(&self) -> bool;
    /// The folder next to the directory into which it can be renamed, if the kept copies are on another volume; nothing if they are
    /// on its own.
    fn must_make_room_beside(&self, keep_in: &Path) -> Option<PathBuf>;
    /// Main's server as the source of a rewind, with this node's own login, whose password is in a file.
    fn rewind_source(&self, address: &Address) -> Answer<Source>;
    /// Removes the password file that [`rewind_source`](Self::rewind_source) wrote.
    fn forget(&self, source: &Source);
    /// Main's server as the source of a base backup.
    fn copy_source(&self, address: &Address) -> Source;
    /// Logs in for replication, as a standby and a base backup do. Returns the server's system identifier, or nothing if there is
    /// no `psql` to try it with.
    ///
    /// # Errors
    /// The server's refusal, or why there was no answer.
    async fn log_in(&self, source: &Source) -> Answer<Option<String>>;
    /// Whether main's PostgreSQL, which has just refused a login for replication, would refuse the next attempt too: the password
    /// was wrong, or it refuses with a code of its own. A server that is starting, shutting down or full accepts a login later.
    async fn turned_away(&self, address: &Address) -> bool;
    /// The bytes that [`keep_copy`](Self::keep_copy) would copy with this request; none if a copy of the same data is there.
    /// Nothing is changed.
    ///
    /// # Errors
    /// There is too little room, the server runs, or the directory cannot be looked through.
    async fn room_to_keep(&self, request: &KeepRequest) -> Answer<u64>;
    /// Whether a base backup of so many bytes could take the directory's place. Nothing is changed.
    ///
    /// # Errors
    /// There is too little room next to the directory, or it cannot be renamed.
    fn room_to_replace(&self, bytes: u64) -> Answer<()>;
    /// Whether a base backup could take the directory's place, apart from the room for it. Nothing is changed.
    ///
    /// # Errors
    /// What forbids it: tablespaces, a volume that is mounted there, or a WAL folder elsewhere that leaves no room for a new one.
    fn is_replaceable(&self) -> Answer<()>;
    /// Copies the stopped directory aside, completely or not at all, without what a start would remove and without preallocated WAL
    /// files. If a copy of the same data exists already, the answer is that copy.
    ///
    /// # Errors
    /// There is too little room, the server runs, the directory is half-rewound, or copying failed.
    async fn keep_copy(&self, request: &KeepRequest, progress: &dyn Fn(CopyProgress)) -> Answer<Kept>;
    /// Removes kept copies except the newest and the request's own; a half-rewound copy is removed whatever its age. A copy that
    /// has, or may have, data that main did not have stays until it is salvaged, however many there are. Returns the removed
    /// folders.
    async fn prune_kept(&self, into: &Path, newest: usize, own: Option<&Path>) -> Answer<Vec<PathBuf>>;
    /// Removes folders next to the directory that are also in the kept copies on another volume. Returns the removed folders.
    async fn prune_archived(&self, beside: &Path, archive: &Path) -> Answer<Vec<PathBuf>>;
    /// Rewinds the stopped directory to the WAL of a running main that has made a CHECKPOINT since its promotion. After that it can
    /// only start as a standby, with its own configuration; its upstream is not set. Only for a directory that has diverged: in one
    /// that crashed and has not diverged, the recovery that comes first would make it diverge, and the rewind would be for nothing.
    /// The limit applies to each of the programs that it runs.
    ///
    /// # Errors
    /// The failure may be temporary, such as a lost connection. Either nothing has changed, or the directory is half-rewound and
    /// cannot be started until this is repeated or [`base_backup`](Self::base_backup) replaces it.
    async fn rewind(&self, source: &Source, limit: Duration) -> Answer<Rewind>;
    /// Whether a [`base_backup`](Self::base_backup) with this request has put the old directory aside already.
    ///
    /// # Errors
    /// The folder of kept copies cannot be read.
    async fn is_replaced(&self, keep: &KeepRequest) -> Answer<bool>;
    /// Replaces the stopped directory by a base backup of main that follows it through a slot main has, and keeps
    /// the old one by a rename into the request's folder, which must be on the same volume. Continues where an earlier
    /// call with the same request was cut off.
    ///
    /// # Errors
    /// The old directory is in its place, or none is and `start` says so; repeating the call repairs that.
    async fn base_backup(
        &self,
        source: &Source,
        slot: &str,
        keep: &KeepRequest,
        progress: &dyn Fn(CopyProgress),
        limit: Duration,
    ) -> Answer<Kept>;
}
