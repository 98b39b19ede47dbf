//! Files that survive a crash of the machine, and belong to the servers' user.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, chown},
    path::{Path, PathBuf},
};

use crate::runtime::RunAs;

/// Writes a file whole or not at all, durably, readable for its owner alone.
pub(super) fn write(path: &Path, text: &[u8], owner: RunAs) -> io::Result<()> {
    let unfinished = beside(path, "interrex-new");
    remove_file(&unfinished)?;
    // made anew, never through a link that is there
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&unfinished)?;
    file.write_all(text)?;
    hand_over(&unfinished, owner)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    sync_parent(path)
}

/// Makes a file or folder the servers'.
pub(super) fn hand_over(path: &Path, owner: RunAs) -> io::Result<()> {
    match owner {
        RunAs::User { uid, gid } => chown(path, Some(uid), Some(gid)),
        RunAs::Myself => Ok(()),
    }
}

/// Removes a file, durably; there may be none.
pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes a rename or a removal in a folder durable.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// A path beside another: `pgdata.new` for `pgdata`.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}
