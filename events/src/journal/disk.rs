//! What a refusing disk means, for the person who has to fix it.

use std::path::Path;

use rusqlite::{Error, ErrorCode, ffi};

use super::JournalError;

const FREE_SPACE: &str = "free space on that file system (`df -h` shows it)";
const MEND: &str = "find the cause in the kernel's messages (`dmesg`), such as a failing disk or a file system that was made \
                    read-only, and fix it";

/// An error of SQLite, distinguished if it is the disk's.
pub(super) fn error(path: &Path, error: &Error) -> JournalError {
    let (problem, next) = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => ("no space is left on the disk", FREE_SPACE),
        Some(ErrorCode::ReadOnly) => ("its file system is read-only", MEND),
        Some(ErrorCode::SystemIoFailure) if is_sync(error) => {
            ("the system could not write it to the disk", MEND)
        }
        Some(ErrorCode::SystemIoFailure) => ("the disk or its file system refused", MEND),
        _ => return JournalError::failed(path, error),
    };
    JournalError::DiskRefused { path: path.to_owned(), problem, detail: error.to_string(), next }
}

fn is_sync(error: &Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(code, Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC))
}
