//! Copying a diverged directory aside before anything is done to it.

use std::{
    io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use interrex_actors::{
    ports::{Answer, PortError},
    wire::CopyProgress,
};
use interrex_events::Lsn;
use sha2::{Digest as _, Sha256};

use super::{
    KeepRequest, Kept, KeptBy, KeptManifest, disk, kept_folder,
    places::Places,
    sentinel::{self, Sentinel},
};
use crate::{
    checksums::Checksums,
    copying::{self, Plan},
    postgres::{LocalPostgres, lineage::own_history, wal},
};

/// Up to so many bytes are read again, from memory, for their checksums while a recovery runs. More bytes do not stay in memory:
/// then the checksums are taken while the files are copied.
const READ_AGAIN: u64 = 1 << 30;
/// Time limit for a crash recovery; after that it is left to the rewind, which has more time.
const CLOSE_LIMIT: Duration = Duration::from_secs(600);

impl LocalPostgres {
    pub(super) async fn copy_aside(
        &self,
        request: &KeepRequest,
        progress: &dyn Fn(CopyProgress),
    ) -> Answer<Kept> {
        let places = Places::of(&self.settings.data_dir);
        self.end_leftovers(&places).await?;
        self.must_be_in_place(&places)?;
        self.must_be_stopped().await?;
        let (into, owner) = (request.into.clone(), self.user());
        let there = self
            .aside("checking the kept copies", move || {
                kept_folder::make(&into, owner)?;
                kept_folder::remove_given_up(&into)?;
                kept_folder::all(&into)
            })
            .await?;
        let by_copy = || there.iter().filter(|kept| kept.manifest.kept_by == KeptBy::Copy);
        if let Some(kept) = by_copy().find(|kept| kept.manifest.kept_at == request.at) {
            return Ok(kept.clone());
        }
        if Sentinel::beside(&places, owner).stands() {
            return Err(PortError(format!(
                "a rewind of {} has begun: it is too late to copy the directory",
                places.data_dir.display()
            )));
        }
        let (manifest, plan) = self.manifest(&places, request, KeptBy::Copy).await?;
        if let Some(kept) = by_copy().find(|kept| will_do(&kept.manifest, &manifest)) {
            return Ok(kept.clone());
        }
        self.must_have_room(&places.data_dir, &request.into, manifest.bytes).await?;
        let folder = request.into.join(kept_folder::name(&manifest));
        self.copy(&places, folder, (manifest, plan), request.before_rewind, progress).await
    }

    async fn copy(
        &self,
        places: &Places,
        folder: PathBuf,
        (manifest, plan): (KeptManifest, Plan),
        before_rewind: bool,
        progress: &dyn Fn(CopyProgress),
    ) -> Answer<Kept> {
        let doing = "copying the data directory to the kept copies";
        let owner = self.user();
        let place = kept_folder::begin(&folder, owner).map_err(|error| PortError::new(doing, error))?;
        let into = place.join("pgdata");
        let sums_later = before_rewind && manifest.bytes <= READ_AGAIN;
        let copied = copying::watch(manifest.bytes, progress, async |progress| {
            let copy = move || match sums_later {
                true => plan.copy_only(&into, &progress).map(Copied::WithoutSums),
                false => plan.copy(&into, &progress).map(Copied::WithSums),
            };
            self.aside(doing, move || owner.act(copy)).await
        })
        .await?;
        // a server that was started meanwhile would have damaged the copy
        self.must_be_stopped().await?;
        let now = sentinel::control_sha256(&places.data_dir).map_err(|error| PortError::new(doing, error))?;
        if now != manifest.control_sha256 {
            return Err(PortError(format!(
                "{} was changed while it was copied: PostgreSQL was started meanwhile",
                places.data_dir.display()
            )));
        }
        let settle = self.aside(doing, move || {
            let sums = owner.act(|| copied.sync(&place.join("pgdata")))?;
            kept_folder::describe(&place, manifest, &sums, owner)?;
            kept_folder::finish(&folder)
        });
        if !before_rewind {
            return settle.await;
        }
        // the rewind checks the result itself: the recovery loses nothing, even if the copy does not reach the disk
        let (kept, _) = tokio::join!(settle, self.close_after_crash(places, CLOSE_LIMIT));
        kept
    }

    /// Bytes that this request would copy, if there is space for them.
    pub(super) async fn room_for_copy(&self, request: &KeepRequest) -> Answer<u64> {
        let places = Places::of(&self.settings.data_dir);
        self.must_be_in_place(&places)?;
        self.must_be_stopped().await?;
        let (manifest, _) = self.manifest(&places, request, KeptBy::Copy).await?;
        let into = request.into.clone();
        let there = self.aside("checking the kept copies", move || kept_folder::all(&into)).await?;
        let is_copy_of_it =
            |kept: &Kept| kept.manifest.kept_by == KeptBy::Copy && will_do(&kept.manifest, &manifest);
        if there.iter().any(is_copy_of_it) {
            return Ok(0);
        }
        self.must_have_room(&places.data_dir, &request.into, manifest.bytes).await?;
        Ok(manifest.bytes)
    }

    async fn must_have_room(&self, data_dir: &Path, into: &Path, needed: u64) -> Answer<()> {
        let (data_dir, folder) = (data_dir.to_owned(), into.to_owned());
        let (shared, free) = self
            .aside("checking the space for a copy", move || {
                Ok((disk::shares_blocks(&data_dir, &folder).unwrap_or(false), disk::free(&folder)?))
            })
            .await?;
        disk::must_fit(if shared { 0 } else { needed }, free, into)
    }

    /// Describes the stopped directory, and plans what is kept.
    pub(super) async fn manifest(
        &self,
        places: &Places,
        request: &KeepRequest,
        kept_by: KeptBy,
    ) -> Answer<(KeptManifest, Plan)> {
        let control = self.control_file().await?;
        let timeline = control.own_timeline();
        // a directory with damaged WAL is kept too
        let reading = async {
            let history = own_history(&self.settings.data_dir, timeline).ok()?;
            self.end_of_log(&control, &history).await.ok()
        };
        let owner = self.user();
        let sentinel = Sentinel::beside(places, owner);
        let data_dir = places.data_dir.clone();
        let segment_size = control.segment_size;
        let doing = "examining the directory";
        let looking = move || {
            let is_kept = |path: &Path| kept_by == KeptBy::Rename || !is_of_no_use(path);
            Ok((
                Plan::of(&data_dir, is_kept)?,
                sentinel::control_sha256(&data_dir)?,
                log_sha256(&data_dir)?,
                sentinel.is_half_rewound()?,
            ))
        };
        let looking = self.aside(doing, move || owner.act(looking));
        let (end, looked) = tokio::join!(reading, looking);
        let (mut plan, control_sha256, log_sha256, half_rewound) = looked?;
        if let Some(end) = end.filter(|_| kept_by == KeptBy::Copy) {
            let data_dir = places.data_dir.clone();
            let without_room = move || {
                plan.leave_out(|path| is_room_for_log(&data_dir, path, end, segment_size));
                Ok(plan)
            };
            plan = self.aside(doing, move || owner.act(without_room)).await?;
        }
        let size = plan.size();
        let manifest = KeptManifest {
            kept_at: request.at,
            kept_by,
            reason: request.reason.clone(),
            half_rewound,
            system_id: control.system_id,
            timeline,
            end,
            switchpoint: request.switchpoint,
            stranded: request.stranded,
            state: control.state,
            files: size.files,
            bytes: size.bytes,
            control_sha256,
            log_sha256,
            checksums_sha256: None,
        };
        Ok((manifest, plan))
    }
}

/// Copied files, which may not be on the disk yet.
enum Copied {
    WithSums(Checksums),
    WithoutSums(Vec<PathBuf>),
}

impl Copied {
    /// Waits until they are on the disk.
    fn sync(self, folder: &Path) -> io::Result<Checksums> {
        let files = match self {
            Self::WithSums(sums) => return disk::sync(folder).map(|()| sums),
            Self::WithoutSums(files) => files,
        };
        // checksums need a processor, the sync needs the disk
        thread::scope(|scope| {
            let sums = scope.spawn(|| Checksums::of(folder, files));
            disk::sync(folder)?;
            sums.join().unwrap_or_else(|_| Err(io::Error::other("a reading thread died")))
        })
    }
}

/// Files that PostgreSQL removes unread at its start.
fn is_of_no_use(path: &Path) -> bool {
    let emptied = ["pg_dynshmem", "pg_stat_tmp"].map(Path::new);
    path.parent().is_some_and(|folder| emptied.contains(&folder))
        || path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pgsql_tmp"))
}

/// Whether it is a preallocated WAL file after the end of the WAL: PostgreSQL keeps up to `max_wal_size` of them for future WAL,
/// new or with an older file's content. A file whose first page has its own address contains WAL, even if the WAL ends before it.
fn is_room_for_log(data_dir: &Path, path: &Path, end: Lsn, segment_size: u64) -> bool {
    let Ok(name) = path.strip_prefix("pg_wal") else { return false };
    let Some(number) = wal::file_number(&name.to_string_lossy(), segment_size) else { return false };
    number > end.0 / segment_size
        && wal::own_place(&data_dir.join(path)).is_ok_and(|place| place != number * segment_size)
}

/// Whether a kept copy is enough for another request: a copy without stranded rows must not replace a copy that has some.
fn will_do(kept: &KeptManifest, wanted: &KeptManifest) -> bool {
    is_of_the_same(kept, wanted) && (kept.stranded != Some(0) || wanted.stranded == Some(0))
}

/// Whether both are of the same data.
pub(super) fn is_of_the_same(one: &KeptManifest, other: &KeptManifest) -> bool {
    let identity = |manifest: &KeptManifest| {
        (manifest.system_id, manifest.timeline, manifest.end, manifest.control_sha256.clone())
    };
    identity(one) == identity(other)
}

/// SHA-256 of the names and sizes of the WAL files.
fn log_sha256(data_dir: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(data_dir.join("pg_wal"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.push(format!("{name} {}\n", std::fs::metadata(&path)?.len()));
    }
    files.sort();
    Ok(hex::encode(Sha256::digest(files.concat())))
}
