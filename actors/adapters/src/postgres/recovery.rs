//! How a server that was not closed begins.

use std::path::Path;

use super::files::major_version;
use crate::runtime::RunAs;

/// The setting by which a recovery brings its directory to the disk with one call for the volume, where PostgreSQL has it: 14 and
/// later. By default there is one for each file, changed or not, and each waits for the disk: 60 µs times a thousand files of an
/// empty cluster, and minutes for a large one.
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
