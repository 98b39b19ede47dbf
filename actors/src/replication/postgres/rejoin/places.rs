//! Where things lie beside a data directory while it comes back.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::replication::postgres::files::beside;

/// How many links to a data directory are followed.
const MOST_LINKS: usize = 8;

/// The data directory, and what may lie beside it. Beside, because `pg_rewind` removes from a directory whatever the
/// source does not have.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// The data directory itself, which may be missing between two renames.
    pub(super) data_dir: PathBuf,
    /// A folder that is there from before a rewind changes anything until the directory can be started again.
    pub(super) rewinding: PathBuf,
    /// A base backup.
    pub(super) incoming: PathBuf,
    /// A file that is there once the base backup is whole, until it has taken the directory's place.
    pub(super) complete: PathBuf,
}

impl Places {
    pub(super) fn of(configured: &Path) -> Self {
        // renames must meet the directory, not a link to it; components() drops a slash at the end
        let mut data_dir: PathBuf = configured.components().collect();
        for _ in 0..MOST_LINKS {
            let Ok(target) = fs::read_link(&data_dir) else { break };
            data_dir = data_dir.parent().unwrap_or(Path::new("/")).join(target).components().collect();
        }
        Self {
            rewinding: beside(&data_dir, "rewinding"),
            incoming: beside(&data_dir, "incoming"),
            complete: beside(&data_dir, "incoming-complete"),
            data_dir,
        }
    }

    /// Whether a volume is mounted right at the data directory: such a one cannot be renamed.
    pub(super) fn is_mount_point(&self) -> bool {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let data_dir = self.data_dir.canonicalize().unwrap_or_else(|_| self.data_dir.clone());
        // proc(5): the fifth field is the place, a space in it written as \040
        let place = data_dir.display().to_string().replace(' ', r"\040");
        mounts.lines().any(|line| line.split(' ').nth(4) == Some(&place))
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
