//! Files that survive a crash of the machine, and belong to the servers' user.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{guarded, runtime::RunAs};

/// Writes a file whole or not at all, durably, readable for its owner alone.
pub(super) fn write(path: &Path, text: &[u8], owner: RunAs) -> io::Result<()> {
    guarded::write(path, text, owner)
}

/// Reads a file with the rights of its user: what that user links to another user's file is not read.
pub(super) fn read(path: &Path, user: RunAs) -> io::Result<Vec<u8>> {
    user.act(|| std::fs::read(path))
}

/// Removes a file, durably; there may be none.
pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    guarded::remove_file(path)
}

/// Makes a rename or a removal in a folder durable.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    guarded::sync_parent(path)
}

/// A path beside another: `pgdata.new` for `pgdata`.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}
