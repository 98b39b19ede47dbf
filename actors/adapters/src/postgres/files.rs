//! Files that survive a crash of the machine, and belong to the servers' user.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{guarded, runtime::RunAs};

/// Writes a file completely or not at all, durably, readable only for its owner.
pub(super) fn write(path: &Path, text: &[u8], owner: RunAs) -> io::Result<()> {
    guarded::write(path, text, owner)
}

/// Whether a file can be written into a folder.
pub(super) fn try_to_write(folder: &Path, owner: RunAs) -> io::Result<()> {
    let probe = folder.join("interrex-probe");
    guarded::remove_file(&probe)?;
    guarded::create(&probe, owner).map(drop)?;
    guarded::remove_file(&probe)
}

/// An error that names its file.
pub(super) fn named(path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The major version of PostgreSQL that made a data directory.
pub(super) fn major_version(data_dir: &Path, user: RunAs) -> io::Result<u32> {
    let file = data_dir.join("PG_VERSION");
    let text = read(&file, user).map_err(named(&file))?;
    let text = String::from_utf8_lossy(&text);
    let major = text.trim().split('.').next().and_then(|major| major.parse().ok());
    major.ok_or_else(|| io::Error::other(format!("{}: `{}` is not a version", file.display(), text.trim())))
}

/// Reads a file with the rights of its user: a link of that user to another user's file is not read.
pub(super) fn read(path: &Path, user: RunAs) -> io::Result<Vec<u8>> {
    user.act(|| std::fs::read(path))
}

/// Removes a file, durably; it need not exist.
pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    guarded::remove_file(path)
}

/// Makes a rename or a removal in a folder durable.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    guarded::sync_parent(path)
}

/// A path next to another: `pgdata.new` for `pgdata`.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}
