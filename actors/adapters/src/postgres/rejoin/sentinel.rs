//! Forbids the start of a directory during a rewind: a folder next to it. The folder also has the node's own files, which a rewind
//! overwrites, and the progress of the rewind.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{disk, own_files, places::Places};
use crate::{guarded, postgres::files, runtime::RunAs};

/// The progress of a rewind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub(super) enum Phase {
    /// `pg_rewind` has begun: the directory may be a mixture.
    Rewinding(Attempt),
    /// `pg_rewind` has ended without a change. The node's own files must still be put back.
    Unchanged,
}

/// What a retry must have in common with the first attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attempt {
    /// The boot of the machine: writes before a crash of the machine may not be on the disk.
    pub(super) boot: String,
    /// The main: blocks of two mains cannot be mixed.
    pub(super) conninfo: String,
    /// SHA-256 of the control file before the rewind. `pg_rewind` changes that file last.
    pub(super) control_sha256: String,
}

/// The folder next to the directory.
#[derive(Debug, Clone)]
pub(super) struct Sentinel {
    folder: PathBuf,
    owner: RunAs,
}

impl Sentinel {
    pub(super) fn beside(places: &Places, owner: RunAs) -> Self {
        Self { folder: places.rewinding.clone(), owner }
    }

    /// Whether the directory must not be started.
    pub(super) fn stands(&self) -> bool {
        fs::symlink_metadata(&self.folder).is_ok()
    }

    /// The progress of the rewind; nothing if there is no rewind.
    pub(super) fn phase(&self) -> io::Result<Option<Phase>> {
        match files::read(&phase_file(&self.folder), self.owner) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.stands() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the directory is a mixture.
    pub(super) fn is_half_rewound(&self) -> io::Result<bool> {
        Ok(matches!(self.phase()?, Some(Phase::Rewinding(_))))
    }

    /// Saves the node's own files and forbids the directory's start, both at once and durably.
    pub(super) fn raise(&self, data_dir: &Path, attempt: Attempt) -> io::Result<()> {
        let begun = files::beside(&self.folder, "begun");
        guarded::remove(&begun)?;
        guarded::create_folder(&begun, self.owner)?;
        own_files::save(data_dir, &own_files_in(&begun), self.owner)?;
        self.write(&begun, &Phase::Rewinding(attempt))?;
        self.owner.act(|| disk::sync_volume(&begun))?;
        guarded::rename(&begun, &self.folder)
    }

    /// Notes durably that the rewind has changed nothing.
    pub(super) fn note_unchanged(&self) -> io::Result<()> {
        self.write(&self.folder, &Phase::Unchanged)
    }

    fn write(&self, folder: &Path, phase: &Phase) -> io::Result<()> {
        files::write(&phase_file(folder), &serde_json::to_vec(phase)?, self.owner)
    }

    /// The folder of the saved own files, if they were saved.
    pub(super) fn saved_files(&self) -> Option<PathBuf> {
        self.stands().then(|| self.own_files())
    }

    /// The folder in which they are saved.
    pub(super) fn own_files(&self) -> PathBuf {
        own_files_in(&self.folder)
    }

    /// The file for the messages of `pg_rewind`.
    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("pg_rewind.log")
    }

    /// Lets the directory be started again.
    pub(super) fn remove(&self) -> io::Result<()> {
        // by one rename: an incomplete folder would show no rewind
        let done = files::beside(&self.folder, "done");
        guarded::remove(&done)?;
        if self.stands() {
            guarded::rename(&self.folder, &done)?;
        }
        guarded::remove(&done)
    }
}

fn phase_file(folder: &Path) -> PathBuf {
    folder.join("phase.json")
}

fn own_files_in(folder: &Path) -> PathBuf {
    folder.join("own")
}

/// The id of this boot of the machine.
pub(super) fn boot() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned())
}

/// SHA-256 of a directory's control file.
pub(super) fn control_sha256(data_dir: &Path) -> io::Result<String> {
    use sha2::{Digest as _, Sha256};
    Ok(hex::encode(Sha256::digest(fs::read(data_dir.join("global/pg_control"))?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stands_with_the_saved_files_and_says_how_far_the_rewind_is() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::of(&folder.path().join("pgdata"));
        fs::create_dir(&places.data_dir).unwrap();
        fs::write(places.data_dir.join("postgresql.conf"), "own").unwrap();
        let sentinel = Sentinel::beside(&places, RunAs::Myself);
        assert!(!sentinel.stands() && sentinel.phase().unwrap().is_none());
        assert_eq!(sentinel.saved_files(), None);
        fs::create_dir(files::beside(&places.rewinding, "begun")).unwrap();
        let attempt =
            Attempt { boot: boot().unwrap(), conninfo: String::new(), control_sha256: String::new() };

        sentinel.raise(&places.data_dir, attempt.clone()).unwrap();
        assert_eq!(sentinel.phase().unwrap(), Some(Phase::Rewinding(attempt)));
        let saved = sentinel.saved_files().unwrap();
        assert_eq!(fs::read_to_string(saved.join("postgresql.conf")).unwrap(), "own");
        sentinel.note_unchanged().unwrap();
        assert_eq!(sentinel.phase().unwrap(), Some(Phase::Unchanged));
        sentinel.remove().unwrap();
        assert!(!sentinel.stands());
        sentinel.remove().unwrap();
    }
}
