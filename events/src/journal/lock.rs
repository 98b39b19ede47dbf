//! One supervisor per journal: an advisory lock on a file beside it, which the kernel drops with the process.

use std::{
    fs::{File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
};

use super::JournalError;

/// Held for as long as the journal is open.
pub(super) struct Lock(File);

impl Lock {
    /// Takes it.
    pub(super) fn take(journal: &Path) -> Result<Self, JournalError> {
        let mut path = journal.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| JournalError::failed(journal, format!("{}: {error}", path.display())))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(JournalError::InUse(journal.to_owned())),
            Err(TryLockError::Error(error)) => Err(JournalError::failed(journal, error)),
        }
    }
}

/// Aloud: closing alone leaves it with a child that was forked and has not become its own program yet.
impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}
