//! A node's own files in a data directory: its configuration, certificates and similar files. A copy of main's directory brings
//! main's files along.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink},
    path::Path,
};

use crate::{guarded, runtime::RunAs};

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

/// Copies them into a new folder, without a sync: the caller writes more files, and one sync of the whole volume takes less time
/// than one for each file.
pub(super) fn save(data_dir: &Path, into: &Path, owner: RunAs) -> io::Result<()> {
    guarded::create_folder(into, owner)?;
    owner.act(|| copy_own(data_dir, into))
}

/// Removes them from a data directory. `pg_rewind` fails half-way at a file that it cannot write, and at once if a file is a link
/// here and a file on main.
pub(super) fn take_out(data_dir: &Path) -> io::Result<()> {
    for name in own_names(data_dir)? {
        guarded::remove(&data_dir.join(name))?;
    }
    Ok(())
}

/// Replaces the own files of a data directory by the files of a folder.
pub(super) fn put_into(data_dir: &Path, from: &Path, owner: RunAs) -> io::Result<()> {
    take_out(data_dir)?;
    owner.act(|| copy_own(from, data_dir))
}

fn copy_own(from: &Path, to: &Path) -> io::Result<()> {
    for name in own_names(from)? {
        copy(&from.join(&name), &to.join(&name))?;
    }
    Ok(())
}

/// Copies a file, link or folder, with its permissions and its owner as far as the servers' user may.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    copy_with_owner(from, to)
        .map_err(|error| io::Error::new(error.kind(), format!("copying {}: {error}", from.display())))
}

fn copy_with_owner(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    if metadata.is_symlink() {
        return symlink(fs::read_link(from)?, to);
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
    let mode = match lchown(to, Some(metadata.uid()), Some(metadata.gid())) {
        Ok(()) => 0o7777,
        // a file of another user, such as a key of root that a group may read: PostgreSQL demands that only it can read its own key
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => 0o700,
        Err(error) => return Err(error),
    };
    fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode() & mode))
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
        save(&data, &saved, RunAs::Myself).unwrap();

        for name in ["PG_VERSION", "conf.d/main.conf", "postgresql.auto.conf", "base/1"] {
            fs::write(data.join(name), "main's").unwrap();
        }
        fs::remove_file(data.join("postgresql.conf")).unwrap();
        put_into(&data, &saved, RunAs::Myself).unwrap();
        let text = |name: &str| fs::read_to_string(data.join(name)).unwrap_or_default();
        assert_eq!([text("postgresql.conf"), text("conf.d/port.conf")], ["own", "own"]);
        assert_eq!([text("PG_VERSION"), text("base/1")], ["main's", "main's"]);
        assert_eq!([text("postgresql.auto.conf"), text("conf.d/main.conf")], ["", ""]);
        assert_eq!(fs::read_link(data.join("pg_hba.conf")).unwrap(), Path::new("/etc/somewhere/pg_hba.conf"));
        assert_eq!(fs::metadata(data.join("postgresql.conf")).unwrap().mode() & 0o777, 0o400);
        assert!(data.join("pg_wal").is_symlink() && data.join("log/1").exists());
    }
}
