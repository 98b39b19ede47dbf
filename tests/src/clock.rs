//! Another wall clock for one process.

use std::path::PathBuf;

use interrex::sandbox::{Done, SandboxError};

/// The library that gives a process another wall clock, when it is preloaded.
///
/// # Errors
/// It is not on this machine.
pub fn faketime() -> Done<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let found = folders
        .map(|folder| folder.path().join("faketime/libfaketime.so.1"))
        .find(|library| library.is_file());
    found.ok_or_else(|| SandboxError::failed("looking for libfaketime.so.1", "run bin/install-packages test"))
}
