//! The start of a server that was not shut down cleanly.

use std::path::Path;

use super::files::major_version;
use crate::runtime::RunAs;

/// The setting with which a recovery syncs its directory with one call for the volume, if PostgreSQL has it: 14 and later. By
/// default recovery syncs each file, changed or not, and waits for the disk each time: 60 µs for each of the thousand files of an
/// empty cluster, and minutes for a large cluster.
pub(super) fn sync_at_once(data_dir: &Path, user: RunAs) -> Option<&'static str> {
    let major = major_version(data_dir, user).ok()?;
    (major >= 14).then_some("recovery_init_sync_method=syncfs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_does_not_know_the_setting_is_not_given_it() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(sync_at_once(folder.path(), RunAs::Myself), None);
        for (version, known) in [("9.6\n", false), ("13\n", false), ("14\n", true), ("17\n", true)] {
            std::fs::write(folder.path().join("PG_VERSION"), version).unwrap();
            assert_eq!(sync_at_once(folder.path(), RunAs::Myself).is_some(), known, "{version}");
        }
    }
}
