//! What forbids the start of a directory that is being rewound: a folder beside it. It also keeps the node's own
//! files, which a rewind overwrites, and says how far the rewind is.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{own_files, places::Places};
use crate::{
    replication::postgres::files::{self, sync_parent},
    runtime::RunAs,
};

/// How far a rewind is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub(super) enum Phase {
    /// The node's own files are being saved. The directory is unchanged.
    Saving,
    /// They are saved. The directory is unchanged.
    Saved,
    /// `pg_rewind` is at it: the directory is a mixture.
    Rewinding(Attempt),
    /// It is whole, and that is on the disk. The node's own files are still to be put back.
    Finishing {
        /// Whether it is on the other main's line.
        rewound: bool,
    },
}

/// What a further attempt must have in common with the first, to be sound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attempt {
    /// What was written before the machine went down may not be on the disk.
    pub(super) boot: String,
    /// Blocks of one main are not those of another.
    pub(super) conninfo: String,
    /// SHA-256 of the control file before, which `pg_rewind` changes when all else is copied.
    pub(super) control_sha256: String,
}

/// The folder beside the directory.
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

    /// How far the rewind is; nothing if there is none.
    pub(super) fn phase(&self) -> io::Result<Option<Phase>> {
        match fs::read(self.folder.join("phase.json")) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            // the folder is made before the file in it
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(self.stands().then_some(Phase::Saving))
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the directory is a mixture.
    pub(super) fn is_half_rewound(&self) -> io::Result<bool> {
        Ok(matches!(self.phase()?, Some(Phase::Rewinding(_))))
    }

    /// Notes how far the rewind is, durably; the first time, the folder is made.
    pub(super) fn note(&self, phase: &Phase) -> io::Result<()> {
        match fs::create_dir(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => sync_parent(&self.folder)?,
        }
        files::write(&self.folder.join("phase.json"), &serde_json::to_vec(phase)?, self.owner)
    }

    /// The node's own files, where they were saved.
    pub(super) fn saved_files(&self) -> io::Result<Option<PathBuf>> {
        let are_saved =
            matches!(self.phase()?, Some(Phase::Saved | Phase::Rewinding(_) | Phase::Finishing { .. }));
        Ok(are_saved.then(|| self.own_files()))
    }

    /// Where they are saved.
    pub(super) fn own_files(&self) -> PathBuf {
        self.folder.join("own")
    }

    /// What `pg_rewind` says.
    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("pg_rewind.log")
    }

    /// Lets the directory be started again.
    pub(super) fn remove(&self) -> io::Result<()> {
        // at once: a part of it would be taken for a rewind that saved no files
        let done = files::beside(&self.folder, "done");
        own_files::remove(&done)?;
        if self.stands() {
            fs::rename(&self.folder, &done)?;
            sync_parent(&done)?;
        }
        own_files::remove(&done)
    }
}

/// Names this run of the machine's kernel.
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
    fn it_stands_from_the_first_write_to_the_last_and_says_how_far_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::of(&folder.path().join("pgdata"));
        let sentinel = Sentinel::beside(&places, RunAs::Myself);
        assert!(!sentinel.stands() && sentinel.phase().unwrap().is_none());
        fs::create_dir(&places.rewinding).unwrap();
        assert_eq!(sentinel.phase().unwrap(), Some(Phase::Saving), "cut off after its first write");
        let attempt =
            Attempt { boot: boot().unwrap(), conninfo: String::new(), control_sha256: String::new() };
        for phase in [Phase::Saved, Phase::Rewinding(attempt), Phase::Finishing { rewound: true }] {
            sentinel.note(&phase).unwrap();
            assert_eq!(sentinel.phase().unwrap(), Some(phase));
            assert!(sentinel.saved_files().unwrap().is_some());
        }
        sentinel.remove().unwrap();
        assert!(!sentinel.stands());
        sentinel.remove().unwrap();
    }
}
