//! The files of a stopped Redis: keeps a copy of its data, and makes it start as a replica.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use interrex_events::Address;

use super::{ConfigFile, is_upstream};
use crate::{
    checksums::CHECKSUMS,
    copying::{Plan, Progress},
    guarded,
    runtime::RunAs,
};

/// The files of one Redis: its folder, and the names that its configuration gives them.
#[derive(Debug, Clone)]
pub(super) struct DataFiles {
    folder: PathBuf,
    snapshot: String,
    log: String,
    log_folder: String,
}

impl DataFiles {
    pub(super) fn of(config: &ConfigFile, folder: PathBuf) -> Self {
        let name = |key: &str, usual: &str| config.value(key).unwrap_or(usual).to_owned();
        Self {
            folder,
            snapshot: name("dbfilename", "dump.rdb"),
            log: name("appendfilename", "appendonly.aof"),
            log_folder: name("appenddirname", "appendonlydir"),
        }
    }

    /// The folder of kept copies.
    pub(super) fn kept_copies(&self) -> PathBuf {
        let mut into = self.folder.as_os_str().to_owned();
        into.push(".kept");
        PathBuf::from(into)
    }

    /// Whether a path is a snapshot, an append-only file, or in the folder of append-only files.
    fn has(&self, path: &Path) -> bool {
        let top = path.components().next().map(|name| name.as_os_str().to_string_lossy());
        top.is_some_and(|name| {
            name == self.snapshot.as_str()
                || name == self.log_folder.as_str()
                || name.starts_with(&self.log)
                || name.ends_with(".rdb")
                || name.starts_with("appendonly")
        })
    }
}

/// Names the copy that must be made before Redis may start as a replica.
const OWED: &str = ".owed";

/// Notes durably that a copy of this time is to be made, until [`keep`] has made it.
pub(super) fn note_pending(data: &DataFiles, time: &str) -> io::Result<()> {
    let into = data.kept_copies();
    if into.join(time).exists() {
        return Ok(());
    }
    let owner = RunAs::owner_of(&data.folder)?;
    private(&into, owner)?;
    guarded::write(&into.join(OWED), time.as_bytes(), owner)
}

/// Makes the copy that is owed, if any. No earlier copy is removed.
pub(super) fn keep_pending(data: &DataFiles, progress: &Progress) -> io::Result<()> {
    let note = data.kept_copies().join(OWED);
    let time = match RunAs::owner_of(&data.folder)?.act(|| fs::read_to_string(&note)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        time => time?,
    };
    // an incomplete note is from a crash while it was written: neither a copy nor a step that needs one followed
    if !is_time(&time) {
        return guarded::remove_file(&note);
    }
    keep(data, &time, usize::MAX, progress).map(drop)
}

/// Whether a copy is owed.
pub(super) fn is_pending(data: &DataFiles) -> bool {
    data.kept_copies().join(OWED).exists()
}

/// Removes the note: no copy is owed any more.
fn is_kept(into: &Path) -> io::Result<()> {
    guarded::remove_file(&into.join(OWED))
}

/// Copies snapshots and append-only files into a folder of this time next to Redis' folder, completely or not at all, and removes
/// all but the newest copies. Returns the copy, or nothing if there is nothing to copy; an existing copy of this time is returned
/// too.
pub(super) fn keep(
    data: &DataFiles,
    time: &str,
    newest: usize,
    progress: &Progress,
) -> io::Result<Option<PathBuf>> {
    let into = data.kept_copies();
    let place = into.join(time);
    if place.exists() {
        is_kept(&into)?;
        return Ok(Some(place));
    }
    let owner = RunAs::owner_of(&data.folder)?;
    let plan = owner.act(|| Plan::of(&data.folder, |path| data.has(path)))?;
    if plan.size().files == 0 {
        is_kept(&into)?;
        return Ok(None);
    }
    // only for Redis' user: the copy has all of its data
    private(&into, owner)?;
    let unfinished = into.join(format!(".{time}"));
    guarded::remove(&unfinished)?;
    owner.act(|| {
        let sums = plan.copy(&unfinished, progress)?;
        sums.lines(Path::new("")).map_or(Ok(()), |lines| fs::write(unfinished.join(CHECKSUMS), lines))?;
        Ok(rustix::fs::syncfs(File::open(&unfinished)?)?)
    })?;
    progress.go_on()?;
    guarded::rename(&unfinished, &place)?;
    is_kept(&into)?;
    prune(&into, &place, newest)?;
    Ok(Some(place))
}

/// Makes a folder that only one user may enter, if it does not exist.
fn private(folder: &Path, owner: RunAs) -> io::Result<()> {
    match guarded::create_folder(folder, owner) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Whether [`keep`] named a folder; other folders next to the copies are not touched.
fn is_time(name: &str) -> bool {
    name.len() == 16 && name.starts_with(|digit: char| digit.is_ascii_digit()) && name.ends_with('Z')
}

/// Removes old copies, and copies that were given up. The new copy stays, even if the clock is wrong.
fn prune(into: &Path, own: &Path, newest: usize) -> io::Result<()> {
    let (mut others, mut gone) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(into)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.strip_prefix('.').is_some_and(is_time) {
            gone.push(path);
        } else if path != own && is_time(&name) {
            others.push(path);
        }
    }
    others.sort_unstable();
    let old = others.len().saturating_sub(newest.saturating_sub(1));
    gone.extend(others.into_iter().take(old));
    gone.iter().try_for_each(|folder| guarded::remove(folder))
}

/// Reads a configuration file, which the server's user may write.
pub(super) fn read(config_file: &Path, user: RunAs) -> io::Result<String> {
    let mut config = String::new();
    guarded::open(config_file, user)?.read_to_string(&mut config)?;
    Ok(config)
}

/// Writes into a configuration file which master Redis follows from its next start on, durably; the file keeps its owner.
pub(super) fn follow_from_the_start(config_file: &Path, user: RunAs, master: &Address) -> io::Result<()> {
    let config = read(config_file, user)?;
    guarded::rewrite(config_file, following(&config, master).as_bytes())
}

fn following(config: &str, Address { host, port }: &Address) -> String {
    let own = config.lines().filter(|line| !line.split_whitespace().next().is_some_and(is_upstream));
    let mut text: String = own.flat_map(|line| [line, "\n"]).collect();
    text.push_str(&format!("replicaof {host} {port}\n"));
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_configuration_names_one_master_and_keeps_everything_else() {
        let config = "port 1\nreplicaof 10.0.0.1 6379\nappendonly yes\n  SlaveOf\ta 1\n";
        assert_eq!(
            following(config, &Address::new("10.0.0.2", 6380)),
            "port 1\nappendonly yes\nreplicaof 10.0.0.2 6380\n"
        );
    }

    #[test]
    fn data_are_kept_once_for_a_time_and_only_the_newest_copies_stay() {
        let folder = std::env::temp_dir().join(format!("interrex-redis-{}", std::process::id()));
        let data = folder.join("data");
        fs::create_dir_all(data.join("appendonlydir")).unwrap();
        fs::write(data.join("other.name"), "one").unwrap();
        fs::write(data.join("appendonlydir/appendonly.aof.1.incr.aof"), "two").unwrap();
        fs::write(data.join("redis.log"), "no data").unwrap();
        let config = ConfigFile::of("dbfilename other.name\n");
        let files = DataFiles::of(&config, data);
        // the last one by a clock that was set back
        for day in [2, 3, 3, 4, 1] {
            let time = &format!("2026010{day}T000000Z");
            let place = keep(&files, time, 2, &Progress::default()).unwrap().unwrap();
            assert_eq!(
                fs::read_to_string(place.join("appendonlydir/appendonly.aof.1.incr.aof")).unwrap(),
                "two"
            );
            assert!(place.join("other.name").exists() && !place.join("redis.log").exists());
        }
        let kept = folder.join("data.kept");
        for other in ["mended", ".20251231T000000Z"] {
            fs::create_dir(kept.join(other)).unwrap();
        }
        prune(&kept, &kept.join("20260101T000000Z"), 2).unwrap();
        let mut names: Vec<_> =
            fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(
            (names, fs::metadata(&kept).unwrap().mode() & 0o777),
            (vec!["20260101T000000Z".into(), "20260104T000000Z".into(), "mended".into()], 0o700)
        );
        fs::remove_dir_all(&folder).unwrap();
    }
}
