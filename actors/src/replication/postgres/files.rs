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
    write_unfinished(&unfinished, text, owner)
        .and_then(|()| fs::rename(&unfinished, path))
        .and_then(|()| sync_parent(path))
        .map_err(named(path))
}

fn write_unfinished(unfinished: &Path, text: &[u8], owner: RunAs) -> io::Result<()> {
    remove_file(unfinished)?;
    // made anew, never through a link that is there
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(unfinished)?;
    file.write_all(text)?;
    hand_over(unfinished, owner)?;
    file.sync_all()
}

/// Whether a file can be written into a folder.
pub(super) fn try_to_write(folder: &Path, owner: RunAs) -> io::Result<()> {
    let probe = folder.join("interrex-probe");
    write_unfinished(&probe, b"", owner).and_then(|()| fs::remove_file(&probe)).map_err(named(&probe))
}

/// An error that names its file.
pub(super) fn named(path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The major version of PostgreSQL that a data directory was made by.
pub(super) fn major_version(data_dir: &Path) -> io::Result<u32> {
    let file = data_dir.join("PG_VERSION");
    let text = fs::read(&file).map_err(named(&file))?;
    let text = String::from_utf8_lossy(&text);
    let major = text.trim().split('.').next().and_then(|major| major.parse().ok());
    major.ok_or_else(|| io::Error::other(format!("{}: `{}` is no version", file.display(), text.trim())))
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
