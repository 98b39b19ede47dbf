//! WAL in a folder of its own, to which `pg_wal` is a link. The WAL of a base backup gets a new folder next to it, and the old
//! folder stays with the kept directory: neither is renamed, so that one rename decides which data directory is in use.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use chrono::{DateTime, NaiveDateTime, Utc};
use interrex_actors::ports::{Answer, PortError};

use super::places::{Places, is_mount_point, target_of};
use crate::{
    guarded::{self, remove},
    postgres::files::{beside, named},
    runtime::RunAs,
};

const TIME: &str = "%Y%m%dT%H%M%S%3fZ";

/// The WAL folder of a base backup that is made at this time; nothing if its WAL is in the data directory.
pub(super) fn fresh(places: &Places, at: DateTime<Utc>) -> Option<PathBuf> {
    let log = elsewhere(&places.data_dir)?;
    Some(beside(&without_time(&log), &at.format(TIME).to_string()))
}

/// Refuses a WAL folder next to which a new folder cannot be made.
pub(super) fn must_be_replaceable(places: &Places, owner: RunAs) -> Answer<()> {
    let Some(log) = elsewhere(&places.data_dir) else { return Ok(()) };
    let link = places.data_dir.join("pg_wal");
    if is_mount_point(&log) {
        return Err(PortError(format!(
            "{} is a link to {}, where a volume is mounted, so there is no place next to it for the WAL of a copy. Stop \
             PostgreSQL, move the WAL into a folder below the mount point, and let the link lead there",
            link.display(),
            log.display()
        )));
    }
    let probe = beside(&log, "interrex-probe");
    remove(&probe).and_then(|()| make(&probe, owner)).and_then(|()| remove(&probe)).map_err(|error| {
        PortError(format!(
            "{} is a link to {}, and a folder for the WAL of a copy cannot be made next to it: {error}",
            link.display(),
            log.display()
        ))
    })
}

/// Makes an empty folder for the servers' user. Root makes it only if that user could not replace it.
pub(super) fn make(folder: &Path, owner: RunAs) -> io::Result<()> {
    match owner.act(|| fs::DirBuilder::new().mode(0o700).create(folder)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            guarded::create_folder(folder, owner)
        }
        made => made,
    }
    .map_err(named(folder))
}

/// Removes a base backup that is no longer needed, and its WAL.
pub(super) fn remove_incoming(places: &Places, owner: RunAs) -> io::Result<()> {
    if let (Some(log), Some(incoming)) = (elsewhere(&places.data_dir), elsewhere(&places.incoming))
        && incoming != log
        && without_time(&incoming) == without_time(&log)
    {
        remove_log(&incoming, owner)?;
    }
    remove(&places.incoming)
}

/// Removes the WAL of a kept directory if `pg_wal` is a link, unless the directory in use has the same WAL.
pub(super) fn remove_kept(kept: &Path, in_use: &Path, owner: RunAs) -> io::Result<()> {
    let log = elsewhere(kept).filter(|log| elsewhere(in_use).as_ref() != Some(log));
    log.map_or(Ok(()), |log| remove_log(&log, owner))
}

/// With the rights of the servers' user only: that user made the link, and it may lead anywhere.
fn remove_log(log: &Path, owner: RunAs) -> io::Result<()> {
    let emptied = owner.act(|| {
        for entry in fs::read_dir(log)? {
            remove(&entry?.path())?;
        }
        Ok(())
    });
    match emptied {
        Ok(()) => {
            // if it cannot be removed, it stays, empty
            let _ = fs::remove_dir(log);
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(named(log)(error)),
    }
}

/// The target of the link, which need not exist; nothing if the WAL is in the data directory.
fn elsewhere(data_dir: &Path) -> Option<PathBuf> {
    let link = data_dir.join("pg_wal");
    link.is_symlink().then(|| target_of(&link))
}

/// The name of a WAL folder without the time of a base backup.
fn without_time(log: &Path) -> PathBuf {
    let is_time = |ending: &std::ffi::OsStr| {
        ending.to_str().is_some_and(|ending| NaiveDateTime::parse_from_str(ending, TIME).is_ok())
    };
    if log.extension().is_some_and(is_time) { log.with_extension("") } else { log.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn moment(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    #[test]
    fn a_fresh_log_lies_beside_the_old_one_whatever_became_of_that() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::of(&folder.path().join("data"));
        fs::create_dir(&places.data_dir).unwrap();
        fs::create_dir(places.data_dir.join("pg_wal")).unwrap();
        assert_eq!(fresh(&places, moment(0)), None);
        fs::remove_dir(places.data_dir.join("pg_wal")).unwrap();
        symlink("../log.d", places.data_dir.join("pg_wal")).unwrap();
        let first = fresh(&places, moment(0)).unwrap();
        assert_eq!(first, folder.path().join("log.d.20270115T080000000Z"));
        fs::remove_file(places.data_dir.join("pg_wal")).unwrap();
        symlink(&first, places.data_dir.join("pg_wal")).unwrap();
        assert_eq!(fresh(&places, moment(1)), Some(folder.path().join("log.d.20270115T080001000Z")));
    }

    #[test]
    fn what_is_given_up_or_pruned_takes_its_log_along_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::of(&folder.path().join("data"));
        let kept = folder.path().join("kept");
        for (data_dir, log) in [(&places.data_dir, "log"), (&places.incoming, "log.20270115T080000000Z")] {
            fs::create_dir(data_dir).unwrap();
            make(&folder.path().join(log), RunAs::Myself).unwrap();
            fs::write(folder.path().join(log).join("segment"), "").unwrap();
            symlink(folder.path().join(log), data_dir.join("pg_wal")).unwrap();
        }
        assert_eq!(must_be_replaceable(&places, RunAs::Myself), Ok(()));
        remove_incoming(&places, RunAs::Myself).unwrap();
        let logs = || ["log", "log.20270115T080000000Z"].map(|log| folder.path().join(log).exists());
        assert_eq!((places.incoming.exists(), logs()), (false, [true, false]));
        // of one that has the same log as the directory in use, only the directory goes
        fs::create_dir(&kept).unwrap();
        symlink("../log", kept.join("pg_wal")).unwrap();
        remove_kept(&kept, &places.data_dir, RunAs::Myself).unwrap();
        assert_eq!(logs(), [true, false]);
        remove_kept(&kept, &places.incoming, RunAs::Myself).unwrap();
        assert_eq!(logs(), [false, false]);
    }

    #[test]
    fn a_log_that_is_a_volume_itself_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::of(&folder.path().join("data"));
        fs::create_dir(&places.data_dir).unwrap();
        for (log, words) in [("/proc", "a volume is mounted"), ("/nowhere/log", "/nowhere/log")] {
            let _ = fs::remove_file(places.data_dir.join("pg_wal"));
            symlink(log, places.data_dir.join("pg_wal")).unwrap();
            let refused = must_be_replaceable(&places, RunAs::Myself).unwrap_err().to_string();
            assert!(refused.contains(words), "{refused}");
        }
    }
}
