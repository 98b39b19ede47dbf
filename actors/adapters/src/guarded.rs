//! Files in folders that a less privileged user may write: a supervisor that runs as root makes, renames or removes there only the
//! intended file, even if that user places links in its way.
//!
//! A path is walked from the top, and the folder at its end is held by its descriptor. **Invariant:** a link that a user made may
//! lead only into that user's own folders; the last name is never followed as a link; and a file is given away only right after it
//! was made.
//!
//! Files in such folders are *read* and copied with that user's rights instead ([`RunAs::act`]). A supervisor that is not root
//! needs no such care: the kernel checks its rights.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{
            ffi::OsStringExt as _,
            fs::{MetadataExt as _, OpenOptionsExt as _},
        },
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{CWD, FileType, Gid, Mode, OFlags, Stat, Uid, fchown, fstat, mkdirat, openat, readlinkat},
    io::Errno,
    process::geteuid,
};

use crate::runtime::RunAs;

/// The most links that are followed on the way.
const MOST_LINKS: usize = 40;
/// Ending of a file that is not complete yet.
const UNFINISHED: &str = "interrex-new";

/// A folder, and a name in it.
struct Place {
    folder: OwnedFd,
    name: OsString,
}

impl Place {
    /// The folder that a path leads to, and its last name.
    fn of(path: &Path) -> io::Result<Self> {
        let mut walk = Walk::begin(path)?;
        let Some(name) = path.file_name() else { return Err(refused(path, "the path names no file")) };
        walk.ahead.remove(0);
        walk.go().and_then(|()| walk.end(name)).map_err(|error| named(path, &error))
    }

    /// The same, but the last name may be a link too.
    fn of_target(path: &Path) -> io::Result<Self> {
        let mut walk = Walk::begin(path)?;
        let name = walk.go_to_last().map_err(|error| named(path, &error))?;
        walk.end(&name).map_err(|error| named(path, &error))
    }

    /// A path by which the kernel finds the name in this very folder.
    fn path(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.folder.as_raw_fd().to_string()).join(&self.name)
    }

    fn sync(&self) -> io::Result<()> {
        let folder =
            openat(&self.folder, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        File::from(folder).sync_all()
    }
}

/// How far a path was walked.
struct Walk {
    here: OwnedFd,
    /// Names that are still to come, the next one last.
    ahead: Vec<OsString>,
    /// The user whose links were followed, except root.
    through: Option<u32>,
    links: usize,
    checks: bool,
}

fn folder_at(at: impl std::os::fd::AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    Ok(openat(at, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

impl Walk {
    fn begin(path: &Path) -> io::Result<Self> {
        let here = folder_at(CWD, OsStr::new(if path.is_absolute() { "/" } else { "." }))?;
        let mut walk = Self { here, ahead: Vec::new(), through: None, links: 0, checks: geteuid().is_root() };
        walk.add(path);
        Ok(walk)
    }

    fn add(&mut self, path: &Path) {
        let names =
            path.components().rev().filter(|part| !matches!(part, Component::RootDir | Component::CurDir));
        self.ahead.extend(names.map(|part| part.as_os_str().to_owned()));
    }

    /// To the folder at the end of all names.
    fn go(&mut self) -> io::Result<()> {
        while let Some(name) = self.ahead.pop() {
            self.enter(&name)?;
        }
        Ok(())
    }

    /// To the folder of the last name, which is returned; if that is a link, to its target.
    fn go_to_last(&mut self) -> io::Result<OsString> {
        while let Some(name) = self.ahead.pop() {
            if self.ahead.is_empty() && !self.is_link(&name)? {
                return Ok(name);
            }
            self.enter(&name)?;
        }
        Err(io::Error::from(Errno::ISDIR))
    }

    fn is_link(&self, name: &OsStr) -> io::Result<bool> {
        match self.look_at(name) {
            Ok((_, stat)) => Ok(is(&stat, FileType::Symlink)),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn look_at(&self, name: &OsStr) -> Result<(OwnedFd, Stat), Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = openat(&self.here, name, flags, Mode::empty())?;
        let stat = fstat(&found)?;
        Ok((found, stat))
    }

    fn enter(&mut self, name: &OsStr) -> io::Result<()> {
        let (found, stat) = self.look_at(name)?;
        if is(&stat, FileType::Symlink) {
            self.links += 1;
            if self.links > MOST_LINKS {
                return Err(Errno::LOOP.into());
            }
            if self.checks && stat.st_uid != 0 && *self.through.get_or_insert(stat.st_uid) != stat.st_uid {
                return Err(leads_astray());
            }
            let target = PathBuf::from(OsString::from_vec(readlinkat(&found, "", Vec::new())?.into_bytes()));
            if target.is_absolute() {
                self.here = folder_at(CWD, OsStr::new("/"))?;
            }
            self.add(&target);
            return Ok(());
        }
        if !is(&stat, FileType::Directory) {
            return Err(Errno::NOTDIR.into());
        }
        self.here = found;
        Ok(())
    }

    fn end(self, name: &OsStr) -> io::Result<Place> {
        if let Some(user) = self.through
            && fstat(&self.here)?.st_uid != user
        {
            return Err(leads_astray());
        }
        Ok(Place { folder: self.here, name: name.to_owned() })
    }
}

fn is(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}

fn leads_astray() -> io::Error {
    io::Error::new(
        io::ErrorKind::PermissionDenied,
        "a link on the way, made by an unprivileged user, leads out of that user's folders, and a supervisor that runs as root \
         does not follow it: set the real path in the configuration, or give the link to root (chown -h root)",
    )
}

fn refused(path: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("{}: {why}", path.display()))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Gives a file or folder that was just made to its owner.
fn hand_over(made: impl std::os::fd::AsFd, owner: RunAs) -> io::Result<()> {
    if let RunAs::User { uid, gid } = owner
        && geteuid().is_root()
    {
        fchown(made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    Ok(())
}

/// Makes a folder that only one user may enter.
///
/// # Errors
/// The system's error; the path exists already.
pub fn create_folder(path: &Path, owner: RunAs) -> io::Result<()> {
    create_folder_with(path, owner, Mode::RWXU)
}

/// Makes a folder that other users may enter too, such as the folder of a socket.
///
/// # Errors
/// The system's error; the path exists already.
pub fn create_open_folder(path: &Path, owner: RunAs) -> io::Result<()> {
    create_folder_with(path, owner, Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH)
}

fn create_folder_with(path: &Path, owner: RunAs, mode: Mode) -> io::Result<()> {
    let place = Place::of(path)?;
    mkdirat(&place.folder, &place.name, Mode::RWXU).map_err(|error| named(path, &error.into()))?;
    let as_folder = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = openat(&place.folder, &place.name, as_folder, Mode::empty())?;
    // a user who may write the folder around it may have replaced it
    if fstat(&made)?.st_uid != geteuid().as_raw() {
        return Err(refused(path, "another user replaced the folder"));
    }
    // with any umask
    rustix::fs::fchmod(&made, mode)?;
    hand_over(&made, owner)
}

/// Makes an empty file that only one user may read and write; never through a link, and never an existing file.
///
/// # Errors
/// The system's error; the path exists already.
pub fn create(path: &Path, owner: RunAs) -> io::Result<File> {
    create_at(&Place::of(path)?, owner).map_err(|error| named(path, &error))
}

fn create_at(place: &Place, owner: RunAs) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = openat(&place.folder, &place.name, flags, Mode::RUSR | Mode::WUSR)?;
    hand_over(&made, owner)?;
    Ok(made.into())
}

/// Writes a file completely or not at all, durably, readable only for its owner.
///
/// # Errors
/// The system's error.
pub fn write(path: &Path, text: &[u8], owner: RunAs) -> io::Result<()> {
    let make = |_: &Place, unfinished: &Place| create_at(unfinished, owner);
    replace(&Place::of(path)?, text, make).map_err(|error| named(path, &error))
}

/// The same for an existing file, also through links: it keeps its owner and its permissions.
///
/// # Errors
/// The system's error; there is no such file.
pub fn rewrite(path: &Path, text: &[u8]) -> io::Result<()> {
    let make = |place: &Place, unfinished: &Place| {
        let before = fs::symlink_metadata(place.path())?;
        let made = create_at(unfinished, RunAs::Myself)?;
        std::os::unix::fs::fchown(&made, Some(before.uid()), Some(before.gid()))?;
        made.set_permissions(before.permissions())?;
        Ok(made)
    };
    replace(&Place::of_target(path)?, text, make).map_err(|error| named(path, &error))
}

fn replace(
    place: &Place,
    text: &[u8],
    make: impl FnOnce(&Place, &Place) -> io::Result<File>,
) -> io::Result<()> {
    let mut name = place.name.clone();
    name.push(".");
    name.push(UNFINISHED);
    let unfinished = Place { folder: place.folder.try_clone()?, name };
    remove_at(&unfinished)?;
    let mut file = make(place, &unfinished)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(unfinished.path(), place.path())?;
    place.sync()
}

/// Opens a log file to append to it, and makes it if it does not exist. Links may lead to it, and it may be a device of root, such
/// as `/dev/null`.
///
/// # Errors
/// The system's error; or the file belongs to another user.
pub fn append(path: &Path, owner: RunAs) -> io::Result<File> {
    open_log(path, owner, true)
}

/// Opens a log file for reading.
///
/// # Errors
/// The system's error; or the file belongs to another user.
pub fn open(path: &Path, owner: RunAs) -> io::Result<File> {
    open_log(path, owner, false)
}

fn open_log(path: &Path, owner: RunAs, appends: bool) -> io::Result<File> {
    let plain = OpenOptions::new().create(appends).append(appends).read(!appends).clone();
    if !geteuid().is_root() {
        return plain.open(path);
    }
    let place = Place::of_target(path)?;
    if appends {
        match create_at(&place, owner) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // only to make it: it is opened below like an existing file
            made => drop(made.map_err(|error| named(path, &error))?),
        }
    }
    let held =
        openat(&place.folder, &place.name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
    let held = held.map_err(|error| named(path, &error.into()))?;
    let (found, around) = (fstat(&held)?, fstat(&place.folder)?);
    if !may_be_used(&found, &around, owner) {
        return Err(refused(
            path,
            "the path is another user's file, or not a file: remove it, and the supervisor makes a new file",
        ));
    }
    // the same file that was checked
    let opened = OpenOptions::new()
        .append(appends)
        .read(!appends)
        .custom_flags((OFlags::NOCTTY | OFlags::CLOEXEC).bits().cast_signed())
        .open(format!("/proc/self/fd/{}", held.as_raw_fd()));
    opened.map_err(|error| named(path, &error))
}

/// Whether a file has the right owner, and is not another name of another file. In a folder that only root may write, the file is
/// what root put there.
fn may_be_used(found: &Stat, around: &Stat, owner: RunAs) -> bool {
    let roots_alone = around.st_uid == 0 && around.st_mode & 0o022 == 0;
    let mut users = vec![0, around.st_uid];
    if let RunAs::User { uid, .. } = owner {
        users.push(uid);
    }
    let is_single_file = is(found, FileType::RegularFile) && found.st_nlink == 1;
    (is_single_file && users.contains(&found.st_uid))
        || (roots_alone && !is(found, FileType::Directory) && !is(found, FileType::Symlink))
}

/// Renames a file or folder, durably.
///
/// # Errors
/// The system's error.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (Place::of(from)?, Place::of(to)?);
    fs::rename(from.path(), to.path())?;
    from.sync()?;
    to.sync()
}

/// Removes a file, durably; it need not exist.
///
/// # Errors
/// The system's error.
pub fn remove_file(path: &Path) -> io::Result<()> {
    match Place::of(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        place => remove_at(&place?).map_err(|error| named(path, &error)),
    }
}

fn remove_at(place: &Place) -> io::Result<()> {
    match fs::remove_file(place.path()) {
        Ok(()) => place.sync(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes a file, or a folder with its content, durably; it need not exist.
///
/// # Errors
/// The system's error.
pub fn remove(path: &Path) -> io::Result<()> {
    let place = match Place::of(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        place => place?,
    };
    // the library follows no link on the way into it
    let removed = match fs::symlink_metadata(place.path()) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(place.path()),
        Ok(_) => fs::remove_file(place.path()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => Err(error),
    };
    removed.map_err(|error| named(path, &error))?;
    place.sync()
}

/// Makes a rename or a removal in a folder durable.
///
/// # Errors
/// The system's error.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    Place::of(path)?.sync()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    /// The less privileged user, who can write the folders of these tests.
    const SERVERS: RunAs = RunAs::User { uid: 65_534, gid: 65_534 };

    /// A folder that everybody may enter, with one in it that is the less privileged user's; root is needed to make it.
    fn theirs() -> Option<(tempfile::TempDir, PathBuf)> {
        if !geteuid().is_root() {
            return None;
        }
        let place = tempfile::tempdir().unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let folder = place.path().join("theirs");
        create_folder(&folder, SERVERS).unwrap();
        let about = fs::metadata(&folder).unwrap();
        assert_eq!((about.uid(), about.mode() & 0o777), (65_534, 0o700));
        Some((place, folder))
    }

    fn roots_secret(place: &Path) -> PathBuf {
        let file = place.join("shadow");
        fs::write(&file, "root's").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        file
    }

    #[test]
    fn a_log_that_is_a_link_to_a_file_of_roots_gives_nothing_away() {
        let Some((place, folder)) = theirs() else { return };
        let secret = roots_secret(place.path());
        for target in [secret.clone(), place.path().join("not-there")] {
            let log = folder.join("postgres.log");
            SERVERS.act(|| symlink(&target, &log)).unwrap();
            for opened in [append(&log, SERVERS), open(&log, SERVERS)] {
                assert_eq!(
                    opened.unwrap_err().kind(),
                    io::ErrorKind::PermissionDenied,
                    "{}",
                    target.display()
                );
            }
            fs::remove_file(&log).unwrap();
        }
        let about = fs::metadata(&secret).unwrap();
        assert_eq!((about.uid(), about.len()), (0, 6));
        assert!(!place.path().join("not-there").exists());
    }

    #[test]
    fn a_folder_that_became_a_link_on_the_way_leads_nowhere() {
        let Some((place, folder)) = theirs() else { return };
        let roots = place.path().join("cron.d");
        create_folder(&roots, RunAs::Myself).unwrap();
        fs::write(roots.join("job"), "root's").unwrap();
        let way = folder.join("pgdata");
        SERVERS.act(|| symlink(&roots, &way)).unwrap();
        for refused in [
            write(&way.join("standby.signal"), b"", SERVERS),
            append(&way.join("log"), SERVERS).map(drop),
            create_folder(&way.join("new"), SERVERS),
            remove(&way.join("job")),
            rename(&way.join("job"), &folder.join("job")),
            rename(&folder, &way.join("job")),
            rewrite(&way.join("job"), b""),
        ] {
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        }
        assert_eq!(fs::read_dir(&roots).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(roots.join("job")).unwrap(), "root's");
    }

    #[test]
    fn what_lies_in_the_way_is_replaced_and_never_followed() {
        let Some((place, folder)) = theirs() else { return };
        let secret = roots_secret(place.path());
        let note = folder.join(".owed");
        for name in [".owed", ".owed.interrex-new"] {
            SERVERS.act(|| symlink(&secret, folder.join(name))).unwrap();
        }
        write(&note, b"20260101T000000Z", SERVERS).unwrap();
        assert_eq!(fs::read_to_string(&secret).unwrap(), "root's");
        let about = fs::symlink_metadata(&note).unwrap();
        assert_eq!((about.is_file(), about.uid(), about.mode() & 0o777), (true, 65_534, 0o600));
        // the folder is removed, and not what a link in it leads to
        SERVERS.act(|| symlink(place.path(), folder.join("link"))).unwrap();
        remove(&folder).unwrap();
        assert!(secret.exists() && !folder.exists());
    }

    #[test]
    fn another_name_of_a_file_of_roots_is_no_log() {
        let Some((place, folder)) = theirs() else { return };
        let secret = roots_secret(place.path());
        let log = folder.join("log");
        // where the kernel does not forbid it, the user could do the same
        fs::hard_link(&secret, &log).unwrap();
        assert_eq!(append(&log, SERVERS).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        fs::remove_file(&log).unwrap();
        rustix::fs::mknodat(CWD, &log, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert_eq!(append(&log, SERVERS).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn ones_own_links_and_roots_are_followed_and_devices_of_roots_are_logs_too() {
        let Some((place, folder)) = theirs() else { return };
        let elsewhere = place.path().join("volume");
        create_folder(&elsewhere, SERVERS).unwrap();
        SERVERS.act(|| symlink("../volume", folder.join("own"))).unwrap();
        symlink(&elsewhere, place.path().join("roots")).unwrap();
        for (way, name) in [(folder.join("own"), "1"), (place.path().join("roots"), "2")] {
            append(&way.join(name), SERVERS).unwrap().write_all(b"said").unwrap();
            let about = fs::metadata(elsewhere.join(name)).unwrap();
            assert_eq!((about.uid(), about.len()), (65_534, 4));
        }
        // a log that is a link of root's into the user's folder
        symlink(elsewhere.join("1"), place.path().join("1")).unwrap();
        append(&place.path().join("1"), SERVERS).unwrap().write_all(b"more").unwrap();
        assert_eq!(fs::read_to_string(elsewhere.join("1")).unwrap(), "saidmore");
        append(Path::new("/dev/null"), SERVERS).unwrap();
        // and somebody else's file is not taken for one's own
        fs::write(elsewhere.join("3"), "").unwrap();
        chown(elsewhere.join("3"), Some(1), Some(1)).unwrap();
        assert!(append(&elsewhere.join("3"), SERVERS).is_err());
    }

    #[test]
    fn a_file_that_is_written_anew_keeps_its_owner_and_is_found_through_its_link() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("redis.conf");
        fs::write(&file, "before").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("redis.conf", folder.path().join("link")).unwrap();
        rewrite(&folder.path().join("link"), b"after").unwrap();
        assert!(folder.path().join("link").is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "after");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o640);
        remove_file(&folder.path().join("none")).unwrap();
        remove(&folder.path().join("none/none")).unwrap();
    }
}
