//! The paths next to a data directory that a rejoin uses.

use std::{
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use crate::postgres::files::beside;

/// How many links are followed.
const MOST_LINKS: usize = 8;

/// The data directory, and paths next to it. They are not inside, because `pg_rewind` removes everything from a directory that the
/// source does not have.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// The data directory itself, which may be missing between two renames.
    pub(super) data_dir: PathBuf,
    /// A folder that exists from before the first change of a rewind until the directory can be started again.
    pub(super) rewinding: PathBuf,
    /// A base backup.
    pub(super) incoming: PathBuf,
    /// A file that exists once the base backup is complete, until it has replaced the directory.
    pub(super) complete: PathBuf,
}

impl Places {
    pub(super) fn of(configured: &Path) -> Self {
        // renames must apply to the directory, not to a link; components() drops a slash at the end
        let data_dir = target_of(configured);
        Self {
            rewinding: beside(&data_dir, "rewinding"),
            incoming: beside(&data_dir, "incoming"),
            complete: beside(&data_dir, "incoming-complete"),
            data_dir,
        }
    }

    /// Whether a volume is mounted right at the data directory, which then cannot be renamed.
    pub(super) fn is_mount_point(&self) -> bool {
        is_mount_point(&self.data_dir)
    }
}

/// The target of a path through links; it need not exist.
pub(super) fn target_of(path: &Path) -> PathBuf {
    let mut path: PathBuf = path.components().collect();
    for _ in 0..MOST_LINKS {
        let Ok(target) = fs::read_link(&path) else { break };
        let target: PathBuf = path.parent().unwrap_or(Path::new("/")).join(target).components().collect();
        path = match target.parent().map(Path::canonicalize) {
            Some(Ok(folder)) => folder.join(target.file_name().unwrap_or_default()),
            _ => target,
        };
    }
    path
}

/// Whether a volume is mounted right at a folder.
pub(super) fn is_mount_point(folder: &Path) -> bool {
    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    // proc(5): the fifth field is the place, a space in it written as \040
    let place: Vec<u8> = folder.as_os_str().as_bytes().iter().flat_map(escaped).copied().collect();
    let mut lines = mounts.split(|byte| *byte == b'\n');
    lines.any(|line| line.split(|byte| *byte == b' ').nth(4) == Some(&place))
}

fn escaped(byte: &u8) -> &[u8] {
    match byte {
        b' ' => br"\040",
        b'\t' => br"\011",
        b'\n' => br"\012",
        b'\\' => br"\134",
        other => std::slice::from_ref(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_followed_even_where_its_target_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("main");
        std::os::unix::fs::symlink("volume/pgdata/", &link).unwrap();
        let places = Places::of(&link);
        assert_eq!(places.data_dir, folder.path().join("volume/pgdata"));
        assert_eq!(places.incoming, folder.path().join("volume/pgdata.incoming"));
        assert!(!places.is_mount_point());
        assert!(Places::of(Path::new("/proc/")).is_mount_point());
    }
}
