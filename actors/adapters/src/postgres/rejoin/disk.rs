//! Space on a volume, and syncing to the disk.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use interrex_actors::ports::{Answer, PortError};

use crate::postgres::LocalPostgres;

/// Bytes that always stay free on a volume: a full volume stops a server.
const RESERVE: u64 = 64 << 20;

/// A folder, or the nearest existing folder above it: new files in it are on the same volume.
pub(super) fn nearest(folder: &Path) -> &Path {
    folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"))
}

/// Free bytes of a folder's volume, for users other than root. The folder need not exist yet.
pub(super) fn free(folder: &Path) -> io::Result<u64> {
    let volume = rustix::fs::statvfs(nearest(folder))?;
    Ok(volume.f_bavail.saturating_mul(volume.f_frsize))
}

/// Refuses a copy that would fill a volume.
pub(super) fn must_fit(needed: u64, free: u64, folder: &Path) -> Answer<()> {
    let with_reserve = needed.saturating_add(RESERVE);
    if with_reserve <= free {
        return Ok(());
    }
    Err(PortError(format!(
        "{} has too little space: {} needed ({} of data, and a reserve), {} free",
        folder.display(),
        in_words(with_reserve),
        in_words(needed),
        in_words(free)
    )))
}

/// Whether files of one folder can be copied into another without space, because their blocks are shared.
pub(super) fn shares_blocks(from: &Path, into: &Path) -> io::Result<bool> {
    let original = File::open(from.join("global/pg_control"))?;
    let copy = tempfile_in(nearest(into))?;
    Ok(rustix::fs::ioctl_ficlone(&copy, &original).is_ok())
}

/// A file without a name.
fn tempfile_in(folder: &Path) -> io::Result<File> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    let file = openat(CWD, folder, OFlags::TMPFILE | OFlags::RDWR, Mode::RUSR | Mode::WUSR)?;
    Ok(file.into())
}

/// Waits until all writes to the volumes of a data directory are on the disk. One call for each volume: an fsync of each of a
/// cluster's thousands of files takes longer.
pub(super) fn sync(data_dir: &Path) -> io::Result<()> {
    let tablespaces = fs::read_dir(data_dir.join("pg_tblspc")).into_iter().flatten().flatten();
    let folders = [data_dir.to_owned(), data_dir.join("pg_wal")].into_iter();
    let mut done = Vec::new();
    for folder in folders.chain(tablespaces.map(|entry| entry.path())) {
        let Ok(metadata) = fs::metadata(&folder) else { continue };
        if !done.contains(&metadata.dev()) {
            sync_volume(&folder)?;
            done.push(metadata.dev());
        }
    }
    Ok(())
}

/// Waits until all writes to a folder's volume are on the disk.
pub(super) fn sync_volume(folder: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(folder)?)?)
}

fn in_words(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{bytes} bytes"),
        _ => format!("{} MiB", bytes.div_ceil(1 << 20)),
    }
}

impl LocalPostgres {
    /// Does work that waits for the disk on another thread than the main thread.
    pub(super) async fn aside<T: Send + 'static>(
        &self,
        doing: &str,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Answer<T> {
        let held = self.files.clone().lock_owned().await;
        let held_work = move || {
            let done = work();
            drop(held);
            done
        };
        let ended = tokio::task::spawn_blocking(held_work).await;
        ended.map_err(|error| PortError::new(doing, error))?.map_err(|error| PortError::new(doing, error))
    }

    /// Waits for the work of a call that was given up, which cannot be undone.
    pub(super) async fn wait_for_files(&self) {
        drop(self.files.lock().await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_fill_a_volume_is_refused_with_the_numbers() {
        assert_eq!(must_fit(1 << 30, (1 << 30) + RESERVE, Path::new("/kept")), Ok(()));
        let error = must_fit(1 << 30, 1 << 30, Path::new("/kept")).unwrap_err().to_string();
        assert_eq!(
            error,
            "/kept has too little space: 1088 MiB needed (1024 MiB of data, and a reserve), 1024 MiB free"
        );
        must_fit(u64::MAX, u64::MAX - 1, Path::new("/kept")).unwrap_err();
    }

    #[test]
    fn a_volume_tells_its_room_and_what_was_written_gets_there() {
        let folder = tempfile::tempdir().unwrap();
        assert!(free(folder.path()).unwrap() > 0);
        sync(folder.path()).unwrap();
    }
}
