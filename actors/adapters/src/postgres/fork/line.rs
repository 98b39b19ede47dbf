//! The WAL of a stopped server along all of its timelines, as files of the newest timeline, because `pg_waldump` reads one
//! timeline.
//!
//! A record may begin in a file of one timeline and end in a file of the next. So the files are put in a row, by links in a folder
//! of their own, and are not read one timeline after the other.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use interrex_actors::ports::Switch;
use interrex_events::TimelineId;
use tempfile::TempDir;

use crate::{postgres::wal, runtime::Runtime};

/// The smallest WAL file (`WalSegMinSize`).
const SMALLEST: u64 = 1 << 20;

/// Whether a folder has a file that the server made ahead and never wrote. `pg_waldump` takes the size of all files from the first
/// file that it finds, and fails if that file is empty.
pub(super) fn has_unwritten(log: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(log)? {
        let entry = entry?;
        let size = entry.metadata()?.len();
        let name = entry.file_name();
        let is_of_log =
            size >= SMALLEST && name.to_str().and_then(|name| wal::file_number(name, size)).is_some();
        if is_of_log && wal::own_place(&entry.path())? == 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A folder with a link to each written WAL file that led to the end of a timeline. It is removed when this value is dropped.
pub(super) fn in_a_row(
    runtime: &dyn Runtime,
    log: &Path,
    timeline: TimelineId,
    history: &[Switch],
) -> io::Result<TempDir> {
    let row = tempfile::Builder::new().prefix("interrex-log-").tempdir_in(runtime.scratch())?;
    // the servers' user must pass through; the names and paths of WAL files are not secret
    fs::set_permissions(row.path(), fs::Permissions::from_mode(0o755))?;
    let log = log.canonicalize()?;
    for entry in fs::read_dir(&log)? {
        let entry = entry?;
        let (name, size) = (entry.file_name(), entry.metadata()?.len());
        let Some(name) = name.to_str() else { continue };
        if size < SMALLEST {
            continue;
        }
        let Some(number) = wal::file_number(name, size) else { continue };
        if wal::own_place(&entry.path())? == 0 {
            continue;
        }
        // if two timelines share a file, the file of the later timeline has the WAL of both
        let left = history.iter().find(|switch| switch.switchpoint.0 / size > number);
        let of = left.map_or(timeline, |switch| switch.timeline);
        if name.starts_with(&format!("{:08X}", of.0)) {
            symlink(runtime.inside(&entry.path()), row.path().join(wal::file_name(timeline, number, size)))?;
        }
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use interrex_events::Lsn;

    use super::*;
    use crate::runtime::{Postmaster, Processes, RunAs};

    #[test]
    fn each_file_is_that_of_the_newest_timeline_that_has_a_part_of_it_and_was_written() {
        let log = tempfile::tempdir().unwrap();
        let names = [
            "000000010000000000000001",
            "000000010000000000000002",
            "000000020000000000000002",
            "000000010000000000000003", // after timeline 1 was left
            "000000020000000000000003",
            "000000030000000000000003",
            "000000030000000000000004",
        ];
        for name in names {
            fs::write(log.path().join(name), [1; 16]).unwrap();
        }
        assert!(!has_unwritten(log.path()).unwrap());
        let made_ahead = "000000030000000000000005";
        for name in names.into_iter().chain([made_ahead]) {
            let file =
                fs::OpenOptions::new().create(true).write(true).truncate(false).open(log.path().join(name));
            file.unwrap().set_len(SMALLEST).unwrap();
        }
        assert!(has_unwritten(log.path()).unwrap());
        for other in ["00000003.history", "000000030000000000000005.partial", "000000030000000000000006"] {
            fs::write(log.path().join(other), "short").unwrap();
        }
        let switch =
            |timeline, at| Switch { timeline: TimelineId(timeline), switchpoint: Lsn(at * SMALLEST + 500) };
        let identity = Postmaster::of(log.path());
        let runtime = Processes::new(RunAs::Myself, "/dev/null", identity);
        let row = in_a_row(&runtime, log.path(), TimelineId(3), &[switch(1, 2), switch(2, 3)]).unwrap();
        let mut links: Vec<String> = fs::read_dir(row.path())
            .unwrap()
            .map(|entry| {
                let link = entry.unwrap();
                let of = fs::read_link(link.path()).unwrap();
                format!("{:?} {:?}", link.file_name(), of.file_name().unwrap())
            })
            .collect();
        links.sort();
        let expected = [(1, 1), (2, 2), (3, 3), (3, 4)].map(|(timeline, number)| {
            let name = |timeline: u32| format!("\"{timeline:08X}{:08X}{number:08X}\"", 0);
            format!("{} {}", name(3), name(timeline))
        });
        assert_eq!(links, expected);
    }
}
