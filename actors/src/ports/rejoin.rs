//! How an old main's stopped PostgreSQL directory comes back behind a new main.

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

/// What is to be kept, and where.
#[derive(Debug, Clone)]
pub struct KeepRequest {
    /// Folder of all kept copies; made if it is missing.
    pub into: PathBuf,
    /// Why, in words for whoever finds it.
    pub reason: String,
    /// The last place shared with the new main, where that is known.
    pub switchpoint: Option<Lsn>,
    /// How many transactions were committed or prepared in it that main lacks, where they were counted.
    pub stranded: Option<u64>,
    /// It is rewound next: it is recovered from its crash while the copy gets to the disk.
    pub before_rewind: bool,
    /// When. It names the request: one that is repeated with the same time gets the answer of the first.
    pub at: DateTime<Utc>,
}

/// How a kept copy came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeptBy {
    /// The directory was copied, and is itself still in use.
    Copy,
    /// It is the directory itself, whose place a base backup took.
    Rename,
}

/// What is known of a kept copy; its `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptManifest {
    /// When it was kept, by the request.
    pub kept_at: DateTime<Utc>,
    /// How.
    pub kept_by: KeptBy,
    /// Why.
    pub reason: String,
    /// A rewind was cut off in it: it is of no use but for a person with great patience.
    pub half_rewound: bool,
    /// System identifier.
    pub system_id: u64,
    /// Its timeline.
    pub timeline: TimelineId,
    /// Where its log ends; nothing if that could not be read.
    pub end: Option<Lsn>,
    /// The last place shared with the new main, where that was known.
    pub switchpoint: Option<Lsn>,
    /// How many transactions were committed or prepared in it that main lacked; nothing where nobody counted.
    #[serde(default)]
    pub stranded: Option<u64>,
    /// State of the cluster, in the control file's words.
    pub state: String,
    /// Number of files.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// SHA-256 of the control file.
    pub control_sha256: String,
    /// SHA-256 of the names and sizes of the log's files.
    pub log_sha256: String,
    /// SHA-256 of the `SHA256SUMS` beside the manifest, which has that of every file. Nothing of a directory that is kept
    /// itself, or whose blocks the copy shares.
    #[serde(default)]
    pub checksums_sha256: Option<String>,
}

/// A kept copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its folder: `manifest.json`, and the data in `pgdata`.
    pub folder: PathBuf,
    /// What is known of it.
    pub manifest: KeptManifest,
}

/// Where data comes from.
#[derive(Clone, PartialEq, Eq)]
pub struct Source {
    /// libpq's words for the connection. One with a password in it is refused, for every user may read a command
    /// line. A rewind needs a `dbname` in it, and a superuser or a role that may call `pg_ls_dir`, `pg_stat_file`
    /// and `pg_read_binary_file`; a base backup needs a role that may replicate.
    pub conninfo: String,
    /// libpq password file, readable for the servers' user.
    pub passfile: Option<PathBuf>,
}

impl Source {
    /// The words for a command line; the password is in a file.
    ///
    /// # Errors
    /// There is a password in them.
    pub fn without_secrets(&self) -> Answer<&str> {
        let has_password =
            self.conninfo.split("password").skip(1).any(|rest| rest.trim_start().starts_with('='));
        if has_password || self.conninfo.contains("://") {
            return Err(PortError(
                "a connection's words stand on a command line, which every user may read: write them as key=value, \
                 and the password into a passfile"
                    .to_owned(),
            ));
        }
        Ok(&self.conninfo)
    }

    /// The words for a standby's `primary_conninfo`.
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

/// Not the words of the connection: a password may be among those that are refused.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("passfile", &self.passfile).finish_non_exhaustive()
    }
}

/// How a rewind ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewind {
    /// The directory is on the source's line.
    Rewound,
    /// `pg_rewind` found nothing to rewind. It says so too of a source that was promoted and has made no CHECKPOINT
    /// since (MEASURED M5): only the lineage proves it.
    NotNeeded,
    /// It cannot be done, why, and repeating it would not help: a base backup is needed.
    Impossible(String),
}

/// The way back of a stopped directory. Nothing here starts a server; every call can be repeated after it was cut off
/// at any moment, and waits for what an earlier one left running or ends it.
#[async_trait(?Send)]
pub trait RejoinPort {
    /// Whether the directory may be started: no rewind or swap was cut off in it.
    fn is_startable(&self) -> bool;
    /// The folder beside the directory into which it can be renamed, where the kept copies are on another volume;
    /// nothing where they are on its own.
    fn must_make_room_beside(&self, keep_in: &Path) -> Option<PathBuf>;
    /// Main's server as the source of a rewind, with this node's own login, whose password is in a file.
    fn rewind_source(&self, address: &Address) -> Answer<Source>;
    /// Main's server as the source of a base backup.
    fn copy_source(&self, address: &Address) -> Source;
    /// Logs in for replication, as a standby and a base backup do: the system identifier that the server told, or nothing
    /// where no `psql` is there to try it with.
    ///
    /// # Errors
    /// The server's refusal, or why there was no answer.
    async fn log_in(&self, source: &Source) -> Answer<Option<String>>;
    /// Whether main's PostgreSQL, which has just let nobody log in for replication, would refuse the next attempt too: it asks for
    /// a password that was wrong, or refuses by a code of its own. A server that is starting, ending or full lets in later.
    async fn turned_away(&self, address: &Address) -> bool;
    /// The bytes that [`keep_copy`](Self::keep_copy) would copy with this request; none where a copy of the same data is there.
    /// Nothing is changed.
    ///
    /// # Errors
    /// There is too little room, the server runs, or the directory cannot be looked through.
    async fn room_to_keep(&self, request: &KeepRequest) -> Answer<u64>;
    /// Whether a base backup of so many bytes could take the directory's place. Nothing is changed.
    ///
    /// # Errors
    /// There is too little room beside the directory, or it cannot be renamed.
    fn room_to_replace(&self, bytes: u64) -> Answer<()>;
    /// Whether a base backup could take the directory's place, room left aside. Nothing is changed.
    ///
    /// # Errors
    /// What forbids it: tablespaces, a volume that is mounted there, or a log elsewhere that no fresh one can lie beside.
    fn is_replaceable(&self) -> Answer<()>;
    /// Copies the stopped directory aside, whole or not at all, without what a start would remove and the room for log
    /// to come. A copy of the same data that is there already is
    /// the answer.
    ///
    /// # Errors
    /// There is too little room, the server runs, the directory is half-rewound, or copying failed.
    async fn keep_copy(&self, request: &KeepRequest, progress: &dyn Fn(CopyProgress)) -> Answer<Kept>;
    /// Removes kept copies until the newest are left, and one's own; those that are half-rewound whatever their age. One that has,
    /// or may have, what main lacked stays until that is salvaged, however many there are. The folders removed.
    async fn prune_kept(&self, into: &Path, newest: usize, own: Option<&Path>) -> Answer<Vec<PathBuf>>;
    /// Removes what lies beside the directory and is in the kept copies too, which are on another volume. The folders removed.
    async fn prune_archived(&self, beside: &Path, archive: &Path) -> Answer<Vec<PathBuf>>;
    /// Brings the stopped directory to the line of a running main that has made a CHECKPOINT since its promotion.
    /// After that it can only start as a standby, with its own configuration; its upstream is not set. For a directory
    /// that has diverged: one that was not closed and has not is parted from main by the recovery that comes first, and then
    /// rewound for nothing. Each of the programs that it runs has the limit for itself.
    ///
    /// # Errors
    /// What failed may pass, as a lost connection does. Either nothing has changed, or the directory is half-rewound and
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
    /// The old directory is in its place, or nothing is and `start` says so; repeating the call heals that.
    async fn base_backup(
        &self,
        source: &Source,
        slot: &str,
        keep: &KeepRequest,
        progress: &dyn Fn(CopyProgress),
        limit: Duration,
    ) -> Answer<Kept>;
}
