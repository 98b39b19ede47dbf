//! What a folder of Redis contains, and the settings with which a server loads it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// What a server loads. Like Redis itself: the append-only file rather than the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// Since Redis 7: a folder, and the name that its files begin with.
    AppendOnlyFolder { folder: String, file: String },
    /// Before: one file.
    AppendOnlyFile(String),
    /// A snapshot.
    Snapshot(String),
}

impl Source {
    /// Examines a folder. The inner error says why nothing can be read there.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn of(folder: &Path) -> io::Result<Result<Self, String>> {
        let (mut folders, mut files, mut snapshots) = (Vec::new(), Vec::new(), Vec::new());
        for (name, path) in entries(folder)? {
            if path.is_dir() {
                folders.extend(manifest(&path)?.map(|file| Self::AppendOnlyFolder { folder: name, file }));
            } else if name.starts_with("appendonly") || name.ends_with(".aof") {
                files.push(Self::AppendOnlyFile(name));
            } else if name.ends_with(".rdb") && !name.starts_with("temp-") {
                snapshots.push(Self::Snapshot(name));
            }
        }
        let Some(mut best) = [folders, files, snapshots].into_iter().find(|some| !some.is_empty()) else {
            return Ok(Err(format!(
                "--kept-redis {}: the folder has no files of Redis (a folder with a manifest, *.aof or *.rdb): name the folder \
                 that `interrex run show` names after a rejoin, or Redis' own `dir`",
                folder.display()
            )));
        };
        if best.len() > 1 {
            let names: Vec<_> = best.iter().map(Self::name).collect();
            return Ok(Err(format!(
                "--kept-redis {}: the folder has {}: copy the one that Redis used into its own folder, and name that folder",
                folder.display(),
                names.join(" and ")
            )));
        }
        Ok(best.pop().ok_or_else(String::new))
    }

    /// The file or folder.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::AppendOnlyFolder { folder: name, .. }
            | Self::AppendOnlyFile(name)
            | Self::Snapshot(name) => name,
        }
    }

    /// The settings with which a server loads it.
    pub(super) fn settings(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::AppendOnlyFolder { folder, file } => {
                vec![("appendonly", "yes"), ("appenddirname", folder), ("appendfilename", file)]
            }
            Self::AppendOnlyFile(file) => vec![("appendonly", "yes"), ("appendfilename", file)],
            Self::Snapshot(file) => vec![("appendonly", "no"), ("dbfilename", file)],
        }
    }
}

fn entries(folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    let named =
        entries.into_iter().filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())));
    Ok(named.collect())
}

/// The prefix of the names in an append-only folder, from the name of its manifest.
fn manifest(folder: &Path) -> io::Result<Option<String>> {
    let names = entries(folder)?.into_iter();
    Ok(names.into_iter().find_map(|(name, _)| Some(name.strip_suffix(".manifest")?.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_append_only_file_is_read_rather_than_the_snapshot() {
        let place = tempfile::tempdir().unwrap();
        let of = || Source::of(place.path()).unwrap();
        let write = |name: &str| fs::write(place.path().join(name), "").unwrap();
        assert!(of().unwrap_err().contains("no files of Redis"));
        write("temp-12.rdb");
        write("redis.log");
        assert!(of().is_err());
        write("cache.rdb");
        assert_eq!(of(), Ok(Source::Snapshot("cache.rdb".to_owned())));
        write("dump.rdb");
        assert!(of().unwrap_err().contains("cache.rdb"));
        write("appendonly.aof");
        assert_eq!(of(), Ok(Source::AppendOnlyFile("appendonly.aof".to_owned())));
        fs::create_dir(place.path().join("appendonlydir")).unwrap();
        assert_eq!(of().unwrap().name(), "appendonly.aof", "it has no manifest");
        write("appendonlydir/journal.aof.manifest");
        let settings =
            [("appendonly", "yes"), ("appenddirname", "appendonlydir"), ("appendfilename", "journal.aof")];
        assert_eq!(of().unwrap().settings(), settings);
    }
}
