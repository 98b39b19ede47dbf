//! PostgreSQL as a [`RejoinPort`]: how an old main's stopped directory comes back as a standby of a new main.
//!
//! ```text
//! stopped directory ─keep─> copy aside ─> rewind (or base backup next to it ─> two renames) ─> a standby's directory
//! ```
//!
//! **Invariants:** no directory is changed unless a complete copy exists; an incomplete directory cannot be started; every step
//! finds its progress on the disk.

mod base_backup;
mod disk;
mod keep;
mod kept_folder;
mod log_folder;
mod login;
mod own_files;
mod places;
mod programs;
mod rewind;
mod sentinel;
mod sources;
mod swap;

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use interrex_events::Address;

pub(super) use self::base_backup::tablespaces;
pub use self::{
    kept_folder::{not_salvaged, note_salvaged},
    login::log_in_for_replication,
    swap::put_base_backup_in_place,
};
use interrex_actors::{
    ports::{Answer, KeepRequest, Kept, KeptBy, KeptManifest, PortError, RejoinPort, Rewind, Source},
    wire::CopyProgress,
};

use self::{places::Places, rewind::KEEP_ALL_LOG, sentinel::Sentinel};
use super::{LocalPostgres, files};

/// How long a program of a killed supervisor may outlive SIGKILL.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

#[async_trait(?Send)]
impl RejoinPort for LocalPostgres {
    fn is_startable(&self) -> bool {
        self.must_be_startable().is_ok()
    }

    fn must_make_room_beside(&self, keep_in: &Path) -> Option<PathBuf> {
        let volume = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev());
        let there = keep_in.ancestors().find_map(|folder| volume(folder).ok());
        let here = self.settings.data_dir.parent().and_then(|folder| volume(folder).ok());
        (there.is_some() && there != here).then(|| files::beside(&self.settings.data_dir, "replaced"))
    }

    fn rewind_source(&self, address: &Address) -> Answer<Source> {
        self.source_of_rewind(address)
    }

    fn forget(&self, source: &Source) {
        if let Some(file) = &source.passfile
            && let Err(error) = std::fs::remove_file(file)
        {
            tracing::warn!(%error, file = %file.display(), "a file with a password was not removed");
        }
    }

    fn copy_source(&self, address: &Address) -> Source {
        self.source_of_copy(address)
    }

    async fn log_in(&self, source: &Source) -> Answer<Option<String>> {
        self.try_login(source).await
    }

    async fn turned_away(&self, address: &Address) -> bool {
        self.is_turned_away(address).await
    }

    async fn room_to_keep(&self, request: &KeepRequest) -> Answer<u64> {
        self.room_for_copy(request).await
    }

    fn room_to_replace(&self, bytes: u64) -> Answer<()> {
        self.room_for_backup(bytes)
    }

    fn is_replaceable(&self) -> Answer<()> {
        Self::is_replaceable(self)
    }

    async fn keep_copy(&self, request: &KeepRequest, progress: &dyn Fn(CopyProgress)) -> Answer<Kept> {
        self.copy_aside(request, progress).await
    }

    async fn prune_kept(&self, into: &Path, newest: usize, own: Option<&Path>) -> Answer<Vec<PathBuf>> {
        let (into, own) = (into.to_owned(), own.map(Path::to_owned));
        let (in_use, owner) = (self.settings.data_dir.clone(), self.user());
        self.aside("removing old kept copies", move || {
            kept_folder::prune(&into, newest, own.as_deref(), (&in_use, owner))
        })
        .await
    }

    async fn prune_archived(&self, beside: &Path, archive: &Path) -> Answer<Vec<PathBuf>> {
        let (beside, archive) = (beside.to_owned(), archive.to_owned());
        let (in_use, owner) = (self.settings.data_dir.clone(), self.user());
        self.aside("removing directories that were copied to the kept copies", move || {
            let copies = kept_folder::all(&archive)?;
            let is_copied =
                |kept: &Kept| copies.iter().any(|copy| keep::is_of_the_same(&copy.manifest, &kept.manifest));
            kept_folder::prune_copied(&beside, is_copied, (&in_use, owner))
        })
        .await
    }

    async fn rewind(&self, source: &Source, limit: Duration) -> Answer<Rewind> {
        self.rewind_to(source, limit).await
    }

    async fn is_replaced(&self, keep: &KeepRequest) -> Answer<bool> {
        self.put_aside(keep).map(|kept| kept.is_some())
    }

    async fn base_backup(
        &self,
        source: &Source,
        slot: &str,
        keep: &KeepRequest,
        progress: &dyn Fn(CopyProgress),
        limit: Duration,
    ) -> Answer<Kept> {
        self.replace_by_backup(source, slot, keep, progress, limit).await
    }
}

impl LocalPostgres {
    /// Refuses to start a directory that is not complete, with a message that says what to do.
    pub(super) fn must_be_startable(&self) -> Answer<()> {
        let places = Places::of(&self.settings.data_dir);
        if Sentinel::beside(&places, self.user()).stands() {
            return Err(PortError(format!(
                "{} is not started: a rewind of it was begun and has not ended ({}); repeat the rejoin, or replace the \
                 directory by a base backup",
                places.data_dir.display(),
                places.rewinding.display()
            )));
        }
        if places.data_dir.exists() {
            return Ok(());
        }
        self.must_be_in_place(&places)
    }

    /// Refuses if there is no data directory, with a message that says why.
    fn must_be_in_place(&self, places: &Places) -> Answer<()> {
        if places.data_dir.join("PG_VERSION").is_file() {
            return Ok(());
        }
        let data_dir = places.data_dir.display();
        Err(PortError(if places.complete.exists() {
            format!(
                "{data_dir} is missing, and the base backup that replaces it is complete in {}: repeat the rejoin, which \
                 puts it in place",
                places.incoming.display()
            )
        } else {
            format!("{data_dir} is not a PostgreSQL data directory")
        }))
    }

    /// Ends programs that a killed supervisor left at work on the directory. Programs of a person are not touched.
    async fn end_leftovers(&self, places: &Places) -> Answer<()> {
        self.wait_for_files().await;
        let is_ours = Sentinel::beside(places, self.user()).stands();
        // a program got the path as configured, or the real path
        let folders = [&self.settings.data_dir, &places.data_dir].map(|folder| self.inside(folder));
        let incoming = self.inside(&places.incoming);
        let runtime = &self.settings.runtime;
        for leftover in runtime.leftovers(&["pg_rewind", "postgres", "pg_basebackup"]).await {
            let rewinds = |folder: &PathBuf| leftover.is("pg_rewind", &[folder.as_os_str()]);
            let recovers = |folder: &PathBuf| {
                leftover.is("postgres", &["--single".as_ref(), KEEP_ALL_LOG.as_ref(), folder.as_os_str()])
            };
            let is_rewind = folders.iter().any(rewinds);
            if is_rewind && !is_ours {
                return Err(PortError(format!(
                    "another pg_rewind works on the directory ({}): wait until it ends, or stop it",
                    leftover.instance
                )));
            }
            if is_rewind
                || folders.iter().any(recovers)
                || leftover.is("pg_basebackup", &[incoming.as_os_str()])
            {
                let ended = runtime.kill(&leftover.instance, KILL_PATIENCE).await;
                ended.map_err(|error| PortError::new(&leftover.program, error))?;
            }
        }
        Ok(())
    }
}
