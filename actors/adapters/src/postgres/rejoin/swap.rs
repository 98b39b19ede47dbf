//! A base backup that is whole takes the directory's place: two renames, and a file that says so until both are done.

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

/// What is to be done, as the file beside the directory says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Swap {
    /// The request's time, which names it.
    pub(super) at: DateTime<Utc>,
    /// Where the old directory is kept; made and described already, under its unfinished name.
    pub(super) folder: PathBuf,
}

impl Swap {
    /// The one that was begun and not finished.
    pub(super) fn begun(places: &Places, owner: RunAs) -> io::Result<Option<Self>> {
        match files::read(&places.complete, owner) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Says that the base backup is whole.
    pub(super) fn begin(&self, places: &Places, owner: RunAs) -> io::Result<()> {
        files::write(&places.complete, &serde_json::to_vec(self)?, owner)
    }

    /// Whether the old directory is still in its place, so that another request's backup may be given up.
    pub(super) fn can_be_given_up(&self, places: &Places) -> bool {
        places.data_dir.exists() && places.incoming.exists()
    }

    /// Removes a backup that nobody wants any more.
    pub(super) fn give_up(&self, places: &Places, owner: RunAs) -> io::Result<()> {
        files::remove_file(&places.complete)?;
        remove(&kept_folder::unfinished(&self.folder))?;
        log_folder::remove_incoming(places, owner)
    }

    /// Makes both renames, or those that are left to make.
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

/// Makes the second rename where a supervisor was killed, or the machine went down, after the first: without a data directory
/// no supervisor would start that could. Whether it had to be made. The run that began it does the rest.
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

/// A link to a log folder that lies elsewhere gets its whole path: a relative one leads to nothing from another place.
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

/// Refuses a directory that is a volume of its own.
pub(super) fn must_be_no_mount_point(places: &Places) -> io::Result<()> {
    if places.is_mount_point() {
        return Err(io::Error::other(format!(
            "a volume is mounted right at {}, which therefore cannot be renamed: move the data into a folder below it",
            places.data_dir.display()
        )));
    }
    Ok(())
}

/// Tries a rename into a folder before much is done that ends in one.
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
            "{} is not on the volume of {}: the old directory is kept by a rename, so it must be",
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
