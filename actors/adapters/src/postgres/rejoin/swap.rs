//! A complete base backup replaces the directory: two renames, and a file that exists until both are done.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Kept, kept_folder, log_folder, places::Places, sentinel::Sentinel};
use crate::{
    guarded::{self, remove},
    postgres::files,
    runtime::RunAs,
};

/// What is to be done: the content of the file next to the directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Swap {
    /// The time of the request, which identifies it.
    pub(super) at: DateTime<Utc>,
    /// The folder for the old directory; it exists already with its manifest, under its unfinished name.
    pub(super) folder: PathBuf,
}

impl Swap {
    /// The swap that was begun and not finished.
    pub(super) fn begun(places: &Places, owner: RunAs) -> io::Result<Option<Self>> {
        match files::read(&places.complete, owner) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Records that the base backup is complete.
    pub(super) fn begin(&self, places: &Places, owner: RunAs) -> io::Result<()> {
        files::write(&places.complete, &serde_json::to_vec(self)?, owner)
    }

    /// Whether the old directory is still in its place, so that another request's backup may be given up.
    pub(super) fn can_be_given_up(&self, places: &Places) -> bool {
        places.data_dir.exists() && places.incoming.exists()
    }

    /// Removes a backup that is no longer needed.
    pub(super) fn give_up(&self, places: &Places, owner: RunAs) -> io::Result<()> {
        files::remove_file(&places.complete)?;
        remove(&kept_folder::unfinished(&self.folder))?;
        log_folder::remove_incoming(places, owner)
    }

    /// Makes both renames, or the remaining ones.
    pub(super) fn finish(&self, places: &Places, sentinel: &Sentinel, owner: RunAs) -> io::Result<Kept> {
        if places.incoming.exists() {
            if places.data_dir.exists() {
                owner.act(|| find_log_from_anywhere(&places.data_dir))?;
                rename(&places.data_dir, &kept_folder::unfinished(&self.folder).join("pgdata"))?;
            }
            rename(&places.incoming, &places.data_dir)?;
        }
        let kept = kept_folder::finish(&self.folder)?;
        sentinel.remove()?;
        files::remove_file(&places.complete)?;
        Ok(kept)
    }
}

/// Makes the second rename if a supervisor was killed, or the machine went down, after the first: without a data directory the
/// supervisor would not start. Returns whether the rename was needed. The run that began the swap does the rest.
///
/// # Errors
/// The rename failed.
pub fn put_base_backup_in_place(data_dir: &Path) -> io::Result<bool> {
    let places = Places::of(data_dir);
    let cut_off = !places.data_dir.exists() && places.complete.exists() && places.incoming.exists();
    if cut_off {
        rename(&places.incoming, &places.data_dir)?;
    }
    Ok(cut_off)
}

/// Makes a relative link to a WAL folder absolute: after a move of the directory a relative link would lead nowhere.
fn find_log_from_anywhere(data_dir: &Path) -> io::Result<()> {
    let link = data_dir.join("pg_wal");
    let Ok(target) = fs::read_link(&link) else { return Ok(()) };
    let Ok(log) = link.canonicalize() else { return Ok(()) };
    if target.is_relative() {
        let fresh = data_dir.join("pg_wal.interrex-new");
        files::remove_file(&fresh)?;
        symlink(log, &fresh)?;
        rename(&fresh, &link)?;
    }
    Ok(())
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    guarded::rename(from, to).map_err(|error| {
        io::Error::new(error.kind(), format!("renaming {} to {}: {error}", from.display(), to.display()))
    })
}

/// Refuses a directory that is a mount point.
pub(super) fn must_be_no_mount_point(places: &Places) -> io::Result<()> {
    if places.is_mount_point() {
        return Err(io::Error::other(format!(
            "a volume is mounted right at {}, so the directory cannot be renamed: move the data into a folder below it",
            places.data_dir.display()
        )));
    }
    Ok(())
}

/// Tries a rename into a folder before long work that ends with such a rename.
pub(super) fn must_be_one_volume(places: &Places, into: &Path) -> io::Result<()> {
    let [from, to] = [files::beside(&places.data_dir, "probe"), into.join(".interrex-probe")];
    for path in [&from, &to] {
        remove(path)?;
    }
    guarded::create_folder(&from, RunAs::Myself)?;
    let renamed = rename(&from, &to);
    for path in [&from, &to] {
        remove(path)?;
    }
    renamed.map_err(|error| match error.kind() {
        io::ErrorKind::CrossesDevices => io::Error::other(format!(
            "{} must be on the volume of {}, because the old directory is kept by a rename: set rejoin.keep_in to a folder there",
            into.display(),
            places.data_dir.display()
        )),
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_lies_elsewhere_is_found_from_where_the_directory_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("data");
        fs::create_dir(&data_dir).unwrap();
        fs::create_dir(folder.path().join("log")).unwrap();
        fs::write(folder.path().join("log/segment"), "").unwrap();
        symlink("../log", data_dir.join("pg_wal")).unwrap();
        for _ in 0..2 {
            find_log_from_anywhere(&data_dir).unwrap();
        }
        let kept = folder.path().join("far/away/pgdata");
        fs::create_dir_all(kept.parent().unwrap()).unwrap();
        fs::rename(&data_dir, &kept).unwrap();
        assert!(kept.join("pg_wal/segment").is_file());
    }
}
