//! Copying a diverged directory aside before anything is done to it.

use std::{io, path::Path, time::Duration};

use sha2::{Digest as _, Sha256};

use super::{
    COPY_MARK, KeepRequest, Kept, KeptBy, KeptManifest, disk, kept_folder,
    places::Places,
    programs::{self, Ended},
    sentinel::{self, Sentinel},
};
use crate::{
    ports::{Answer, PortError},
    replication::postgres::{LocalPostgres, lineage::own_history},
};

/// When copying a data directory is given up.
const COPY_LIMIT: Duration = Duration::from_secs(12 * 3_600);

impl LocalPostgres {
    pub(super) async fn copy_aside(&self, request: &KeepRequest) -> Answer<Kept> {
        let places = Places::of(&self.settings.data_dir);
        self.end_leftovers(&places).await?;
        self.must_be_in_place(&places)?;
        self.must_be_stopped()?;
        let (into, owner) = (request.into.clone(), self.settings.run_as);
        let there = self
            .aside("looking at the kept copies", move || {
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
                "a rewind of {} has begun: it is too late to copy it",
                places.data_dir.display()
            )));
        }
        let manifest = self.manifest(&places, request, KeptBy::Copy).await?;
        if let Some(kept) = by_copy().find(|kept| is_same_data(&kept.manifest, &manifest)) {
            return Ok(kept.clone());
        }
        self.must_have_room(&places.data_dir, &request.into, manifest.bytes).await?;
        self.copy(&places, request, manifest).await
    }

    async fn copy(&self, places: &Places, request: &KeepRequest, manifest: KeptManifest) -> Answer<Kept> {
        let doing = "copying the data directory aside";
        let folder = request.into.join(kept_folder::name(&manifest));
        let owner = self.settings.run_as;
        let place = kept_folder::begin(&folder, owner).map_err(|error| PortError::new(doing, error))?;
        let mut command = owner.command("cp");
        // links are followed: the log or a tablespace that lies elsewhere is a part of it
        command.args(["-a", "-L", "--reflink=auto", COPY_MARK, "-T", "--"]).arg(&places.data_dir);
        command.arg(place.join("pgdata"));
        if let Ended::Badly(words) | Ended::CutOff(words) =
            programs::run(command, doing, COPY_LIMIT, |_| Ok(())).await?
        {
            return Err(PortError(words));
        }
        // a server that was started meanwhile would have torn the copy
        self.must_be_stopped()?;
        let now = sentinel::control_sha256(&places.data_dir).map_err(|error| PortError::new(doing, error))?;
        if now != manifest.control_sha256 {
            return Err(PortError(format!(
                "{} was changed while it was copied: somebody started PostgreSQL",
                places.data_dir.display()
            )));
        }
        self.aside(doing, move || {
            disk::sync(&place.join("pgdata"))?;
            kept_folder::describe(&place, &manifest, owner)?;
            kept_folder::finish(&folder)
        })
        .await
    }

    async fn must_have_room(&self, data_dir: &Path, into: &Path, needed: u64) -> Answer<()> {
        let (data_dir, folder) = (data_dir.to_owned(), into.to_owned());
        let (shared, free) = self
            .aside("looking for room for a copy", move || {
                Ok((disk::shares_blocks(&data_dir, &folder).unwrap_or(false), disk::free(&folder)?))
            })
            .await?;
        disk::must_fit(if shared { 0 } else { needed }, free, into)
    }

    /// What the stopped directory is.
    pub(super) async fn manifest(
        &self,
        places: &Places,
        request: &KeepRequest,
        kept_by: KeptBy,
    ) -> Answer<KeptManifest> {
        let control = self.control_file().await?;
        let timeline = control.own_timeline();
        // a damaged log is kept too
        let end = match own_history(&self.settings.data_dir, timeline) {
            Ok(history) => self.end_of_log(&control, &history).await.ok(),
            Err(_) => None,
        };
        let sentinel = Sentinel::beside(places, self.settings.run_as);
        let data_dir = places.data_dir.clone();
        let (size, control_sha256, log_sha256, half_rewound) = self
            .aside("looking through the directory", move || {
                Ok((
                    disk::size_of(&data_dir)?,
                    sentinel::control_sha256(&data_dir)?,
                    log_sha256(&data_dir)?,
                    sentinel.is_half_rewound()?,
                ))
            })
            .await?;
        Ok(KeptManifest {
            kept_at: request.at,
            kept_by,
            reason: request.reason.clone(),
            half_rewound,
            system_id: control.system_id,
            timeline,
            end,
            switchpoint: request.switchpoint,
            state: control.state,
            files: size.files,
            bytes: size.bytes,
            control_sha256,
            log_sha256,
        })
    }
}

fn is_same_data(one: &KeptManifest, other: &KeptManifest) -> bool {
    let identity = |manifest: &KeptManifest| {
        (manifest.system_id, manifest.timeline, manifest.end, manifest.control_sha256.clone())
    };
    identity(one) == identity(other)
}

/// SHA-256 of the names and sizes of the log's files.
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
