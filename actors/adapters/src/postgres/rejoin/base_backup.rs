//! A base backup of main next to the directory, which replaces the directory when it is complete.

use std::{path::PathBuf, time::Duration};

use interrex_actors::{
    ports::{Answer, PortError},
    wire::CopyProgress,
};
use interrex_events::postgres::pinned_for_libpq;

use super::{
    KeepRequest, Kept, KeptBy, Source, disk, kept_folder, log_folder, own_files,
    places::Places,
    programs::{self, Ended},
    sentinel::Sentinel,
    swap::{Swap, must_be_no_mount_point, must_be_one_volume},
};
use crate::{
    checksums::Checksums,
    guarded,
    postgres::{LocalPostgres, files::sync_parent},
    runtime::Program,
};

impl LocalPostgres {
    pub(super) async fn replace_by_backup(
        &self,
        source: &Source,
        slot: &str,
        request: &KeepRequest,
        progress: &dyn Fn(CopyProgress),
        limit: Duration,
    ) -> Answer<Kept> {
        source.without_secrets()?;
        let places = Places::of(&self.settings.data_dir);
        self.end_leftovers(&places).await?;
        if let Some(kept) = self.replaced_already(&places, request).await? {
            return Ok(kept);
        }
        self.must_be_in_place(&places)?;
        self.must_be_stopped().await?;
        self.prepare(&places, request).await?;
        let log = log_folder::fresh(&places, request.at);
        self.pg_basebackup(&places, (source, slot, log), progress, limit).await?;
        self.equip(&places, source, slot).await?;
        let swap = self.begin_swap(&places, request).await?;
        self.swap(&places, swap).await
    }

    /// The result of an earlier call with the same request, which is finished if it was interrupted between the renames.
    async fn replaced_already(&self, places: &Places, request: &KeepRequest) -> Answer<Option<Kept>> {
        let doing = "checking an earlier base backup";
        let told = |error| PortError::new(doing, error);
        if let Some(swap) = Swap::begun(places, self.user()).map_err(told)? {
            let is_this = swap.at == request.at;
            if !is_this && swap.can_be_given_up(places) {
                let (places, owner) = (places.clone(), self.user());
                self.aside(doing, move || swap.give_up(&places, owner)).await?;
                return Ok(None);
            }
            self.must_be_stopped().await?;
            let kept = self.swap(places, swap).await?;
            return Ok(is_this.then_some(kept));
        }
        self.put_aside(request)
    }

    /// The old directory, if a call with this request completed.
    pub(super) fn put_aside(&self, request: &KeepRequest) -> Answer<Option<Kept>> {
        let all = kept_folder::all(&request.into);
        let all = all.map_err(|error| PortError::new("looking for the replaced directory", error))?;
        let by_this =
            |kept: &Kept| kept.manifest.kept_by == KeptBy::Rename && kept.manifest.kept_at == request.at;
        Ok(all.into_iter().find(by_this))
    }

    /// Whether a base backup of so many bytes could take the directory's place.
    pub(super) fn room_for_backup(&self, bytes: u64) -> Answer<()> {
        let places = Places::of(&self.settings.data_dir);
        self.must_be_in_place(&places)?;
        self.must_be_replaceable(&places)?;
        let doing = "checking the space for a base backup";
        let free = disk::free(&places.incoming).map_err(|error| PortError::new(doing, error))?;
        disk::must_fit(bytes, free, disk::nearest(&places.incoming))
    }

    /// Whether a base backup could replace the directory. A backup that is already complete needs nothing more.
    pub(super) fn is_replaceable(&self) -> Answer<()> {
        let places = Places::of(&self.settings.data_dir);
        if places.complete.exists() { Ok(()) } else { self.must_be_replaceable(&places) }
    }

    /// Refuses a directory that a rename cannot replace.
    fn must_be_replaceable(&self, places: &Places) -> Answer<()> {
        let has_tablespaces = std::fs::read_dir(places.data_dir.join("pg_tblspc"))
            .is_ok_and(|mut entries| entries.next().is_some());
        if has_tablespaces {
            return Err(tablespaces());
        }
        must_be_no_mount_point(places).map_err(|error| PortError::new("preparing a base backup", error))?;
        log_folder::must_be_replaceable(places, self.user())
    }

    /// Finds every obstacle before anything is begun.
    async fn prepare(&self, places: &Places, request: &KeepRequest) -> Answer<()> {
        self.must_be_replaceable(places)?;
        let (places, into, owner) = (places.clone(), request.into.clone(), self.user());
        let log = log_folder::fresh(&places, request.at);
        self.aside("preparing a base backup", move || {
            kept_folder::make(&into, owner)?;
            kept_folder::remove_given_up(&into)?;
            must_be_one_volume(&places, &into)?;
            log_folder::remove_incoming(&places, owner)?;
            if let Some(log) = log {
                guarded::remove(&log)?;
                log_folder::make(&log, owner)?;
            }
            guarded::create_folder(&places.incoming, owner)
        })
        .await
    }

    async fn pg_basebackup(
        &self,
        places: &Places,
        (source, slot, log): (&Source, &str, Option<PathBuf>),
        progress: &dyn Fn(CopyProgress),
        limit: Duration,
    ) -> Answer<()> {
        let what = "pg_basebackup";
        let free = disk::free(&places.incoming).map_err(|error| PortError::new(what, error))?;
        let mut command = Program::new(self.settings.bin_dir.join(what));
        command.arg("-D").arg(self.inside(&places.incoming)).args([
            "-X",
            "stream",
            "-S",
            slot,
            "--checkpoint=fast",
        ]);
        if let Some(log) = &log {
            command.arg("--waldir").arg(self.inside(log));
        }
        // without its fsync of every file: everything is synced at once afterwards
        command.args(["--no-sync", "--progress", "-d"]).arg(source.without_secrets()?);
        let runtime = &*self.settings.runtime;
        programs::tell_passfile(runtime, source, &mut command);
        let (variable, pinned) = pinned_for_libpq();
        command.env(variable, pinned);
        let ended = programs::run(runtime, command, what, limit, |line| {
            let Some((told, tablespaces_told)) = progress_in(line) else { return Ok(()) };
            if tablespaces_told > 1 {
                return Err(tablespaces());
            }
            disk::must_fit(told.total_bytes, free, &places.incoming)?;
            progress(told);
            Ok(())
        })
        .await;
        let failed = match ended {
            Ok(Ended::Well) => return Ok(()),
            Ok(Ended::Badly(words) | Ended::CutOff(words)) => PortError(words),
            Err(error) => error,
        };
        // its space is needed; what cannot be removed now is removed by the next attempt
        self.end_leftovers(places).await?;
        let (places, owner) = (places.clone(), self.user());
        let removing = self
            .aside("removing an incomplete base backup", move || log_folder::remove_incoming(&places, owner));
        if let Err(error) = removing.await {
            tracing::warn!(%error, "a base backup failed, and its incomplete copy could not be removed");
        }
        Err(failed)
    }

    /// Gives the backup this node's own files, makes it a standby, and syncs it to the disk.
    async fn equip(&self, places: &Places, source: &Source, slot: &str) -> Answer<()> {
        let doing = "finishing the base backup";
        let sentinel = Sentinel::beside(places, self.user());
        let (incoming, data_dir, owner) = (places.incoming.clone(), places.data_dir.clone(), self.user());
        self.aside(doing, move || {
            own_files::put_into(&incoming, &sentinel.saved_files().unwrap_or(data_dir), owner)
        })
        .await?;
        self.mark_as_standby(&places.incoming)
            .and_then(|()| self.write_upstream(&places.incoming, (&source.as_upstream(), slot), None))
            .map_err(|error| PortError::new(doing, error))?;
        let incoming = places.incoming.clone();
        self.aside(doing, move || owner.act(|| disk::sync(&incoming))).await
    }

    async fn begin_swap(&self, places: &Places, request: &KeepRequest) -> Answer<Swap> {
        // PostgreSQL must not have been started in the meantime
        self.must_be_stopped().await?;
        let (manifest, _) = self.manifest(places, request, KeptBy::Rename).await?;
        let swap = Swap { at: request.at, folder: request.into.join(kept_folder::name(&manifest)) };
        let (places, begun, owner) = (places.clone(), swap.clone(), self.user());
        self.aside("preparing the swap", move || {
            let place = kept_folder::begin(&begun.folder, owner)?;
            kept_folder::describe(&place, manifest, &Checksums::default(), owner)?;
            // the old directory will be renamed into this folder
            sync_parent(&place)?;
            begun.begin(&places, owner)
        })
        .await?;
        Ok(swap)
    }

    async fn swap(&self, places: &Places, swap: Swap) -> Answer<Kept> {
        // a server in it would continue to run in the renamed directory
        self.must_be_stopped().await?;
        let sentinel = Sentinel::beside(places, self.user());
        let (places, owner) = (places.clone(), self.user());
        self.aside("replacing the directory by the base backup", move || {
            swap.finish(&places, &sentinel, owner)
        })
        .await
    }
}

/// The error for tablespaces, which a base backup here does not copy.
pub(in crate::postgres) fn tablespaces() -> PortError {
    PortError(
        "the cluster has tablespaces outside the data directory, which a rename cannot replace: make the base backup by hand, \
         with pg_basebackup --tablespace-mapping"
            .to_owned(),
    )
}

/// The progress of the backup, and the number of tablespaces: `1234/56789 kB (2%), 0/1 tablespace`.
fn progress_in(line: &str) -> Option<(CopyProgress, u32)> {
    let (amounts, rest) = line.trim().split_once(" kB (")?;
    let (done, total) = amounts.split_once('/')?;
    let kilobytes = |text: &str| Some(text.trim().parse::<u64>().ok()?.saturating_mul(1024));
    let tablespaces = rest.split_once('/')?.1.split_whitespace().next()?.parse().ok()?;
    Some((CopyProgress { done_bytes: kilobytes(done)?, total_bytes: kilobytes(total)? }, tablespaces))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_from_what_the_program_prints() {
        let of = |done: u64, total: u64| CopyProgress { done_bytes: done * 1024, total_bytes: total * 1024 };
        assert_eq!(progress_in("    24/22989 kB (0%), 0/1 tablespace"), Some((of(24, 22989), 1)));
        assert_eq!(progress_in("22999/22999 kB (100%), 1/2 tablespaces"), Some((of(22999, 22999), 2)));
        assert_eq!(
            progress_in("  24/22989 kB (0%), 0/1 tablespace (/var/lib/postgresql/x/base)"),
            Some((of(24, 22989), 1))
        );
        for line in ["waiting for checkpoint", "pg_basebackup: error: 1/2 kB"] {
            assert_eq!(progress_in(line), None, "{line}");
        }
    }
}
