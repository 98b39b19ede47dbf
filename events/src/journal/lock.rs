//! One supervisor per journal: an advisory lock on a file next to it, which the kernel drops with the process.

use std::{
    fs::{File, OpenOptions, Permissions, TryLockError},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::JournalError;

/// Every process that can open the file can hold the lock, for ever.
const FOR_ITS_OWNER: u32 = 0o600;

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
            .mode(FOR_ITS_OWNER)
            .open(&path)
            .and_then(|file| {
                // one of an older version could be opened by everybody
                file.set_permissions(Permissions::from_mode(FOR_ITS_OWNER))?;
                Ok(file)
            })
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn no_other_user_can_hold_it_also_where_an_older_version_made_it() {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("journal.db");
        let file = folder.path().join("journal.db.lock");
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
        for _ in 0..2 {
            drop(Lock::take(&journal).unwrap());
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, FOR_ITS_OWNER);
            fs::remove_file(&file).unwrap();
        }
    }
}
