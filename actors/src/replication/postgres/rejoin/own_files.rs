//! A node's own files in a data directory: its configuration, certificates and the like. What copies a main's
//! directory brings main's along.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink},
    path::Path,
};

use crate::replication::postgres::files::sync_parent;

/// Files at the top of a data directory that belong to its data or to one running server.
const NOT_OWN: [&str; 16] = [
    "PG_VERSION",
    "backup_label",
    "backup_label.old",
    "backup_manifest",
    "current_logfiles",
    // a link to a volume that is gone
    "pg_wal",
    "postmaster.opts",
    "postmaster.pid",
    "postgresql.auto.conf.tmp",
    "promote",
    "recovery.conf",
    "recovery.done",
    "recovery.signal",
    "standby.signal",
    "tablespace_map",
    "tablespace_map.old",
];
/// The one folder in it that is configuration: the usual name for an `include_dir`.
const OWN_FOLDER: &str = "conf.d";

/// Names of the node's own files in a data directory.
fn own_names(data_dir: &Path) -> io::Result<BTreeSet<OsString>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(data_dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        // a link to a folder is a volume of the data's, such as pg_wal
        let is_file = kind.is_file() || (kind.is_symlink() && !entry.path().is_dir());
        let name = entry.file_name();
        if (is_file && !NOT_OWN.iter().any(|other| name == *other)) || (kind.is_dir() && name == OWN_FOLDER) {
            names.insert(name);
        }
    }
    Ok(names)
}

/// Copies them into a folder that is made anew. None of the functions here but [`remove`] waits for the disk: who calls them
/// has more to bring there, and one call for the whole volume takes less time than one for each file.
pub(super) fn save(data_dir: &Path, into: &Path) -> io::Result<()> {
    fs::create_dir(into)?;
    copy_own(data_dir, into)
}

/// Removes them from a data directory. `pg_rewind` fails half-way at one that it cannot write, and at once where a link
/// has main's file of that name for its counterpart.
pub(super) fn take_out(data_dir: &Path) -> io::Result<()> {
    for name in own_names(data_dir)? {
        unlink(&data_dir.join(name))?;
    }
    Ok(())
}

/// Puts those of one folder in the place of those that a data directory has.
pub(super) fn put_into(data_dir: &Path, from: &Path) -> io::Result<()> {
    take_out(data_dir)?;
    copy_own(from, data_dir)
}

fn copy_own(from: &Path, to: &Path) -> io::Result<()> {
    for name in own_names(from)? {
        copy(&from.join(&name), &to.join(&name))?;
    }
    Ok(())
}

/// Removes a file, or a folder with all that is in it, durably; there may be none.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match unlink(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| sync_parent(path)),
    }
}

fn unlink(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

/// Copies a file, link or folder with its owner and permissions.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    copy_with_owner(from, to)
        .map_err(|error| io::Error::new(error.kind(), format!("copying {}: {error}", from.display())))
}

fn copy_with_owner(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    let (owner, group) = (Some(metadata.uid()), Some(metadata.gid()));
    if metadata.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
        return lchown(to, owner, group);
    }
    if metadata.is_dir() {
        fs::create_dir(to)?;
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            copy(&from.join(&name), &to.join(&name))?;
        }
    } else {
        fs::copy(from, to)?;
    }
    chown(to, owner, group)?;
    fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode() & 0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mains_configuration_gives_way_to_ones_own_and_data_stays() {
        let folder = tempfile::tempdir().unwrap();
        let [data, saved] = ["data", "saved"].map(|name| folder.path().join(name));
        for inner in ["base", "conf.d", "log"] {
            fs::create_dir_all(data.join(inner)).unwrap();
        }
        for name in ["PG_VERSION", "postgresql.conf", "conf.d/port.conf", "postmaster.pid", "base/1", "log/1"]
        {
            fs::write(data.join(name), "own").unwrap();
        }
        symlink("/etc/somewhere/pg_hba.conf", data.join("pg_hba.conf")).unwrap();
        symlink(folder.path(), data.join("pg_wal")).unwrap();
        fs::set_permissions(data.join("postgresql.conf"), fs::Permissions::from_mode(0o400)).unwrap();
        save(&data, &saved).unwrap();

        for name in ["PG_VERSION", "conf.d/main.conf", "postgresql.auto.conf", "base/1"] {
            fs::write(data.join(name), "main's").unwrap();
        }
        fs::remove_file(data.join("postgresql.conf")).unwrap();
        put_into(&data, &saved).unwrap();
        let text = |name: &str| fs::read_to_string(data.join(name)).unwrap_or_default();
        assert_eq!([text("postgresql.conf"), text("conf.d/port.conf")], ["own", "own"]);
        assert_eq!([text("PG_VERSION"), text("base/1")], ["main's", "main's"]);
        assert_eq!([text("postgresql.auto.conf"), text("conf.d/main.conf")], ["", ""]);
        assert_eq!(fs::read_link(data.join("pg_hba.conf")).unwrap(), Path::new("/etc/somewhere/pg_hba.conf"));
        assert_eq!(fs::metadata(data.join("postgresql.conf")).unwrap().mode() & 0o777, 0o400);
        assert!(data.join("pg_wal").is_symlink() && data.join("log/1").exists());
    }
}
