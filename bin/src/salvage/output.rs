//! The output folder: it gets its name once it is complete. Only its owner may read it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::{Done, SalvageError, Summary, scratch::failed};

/// A folder that becomes the output. It is removed if the salvage does not complete.
pub(super) struct Output {
    name: PathBuf,
    folder: TempDir,
}

impl Output {
    /// An empty folder next to the later output, which must not exist yet or be empty.
    pub(super) fn beside(name: &Path) -> Done<Self> {
        let taken = match fs::read_dir(name) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        };
        if taken {
            let words = format!("--output {}: the folder must be empty or not exist", name.display());
            return Err(SalvageError::Usage(words));
        }
        let parent = name.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let doing = format!("making a folder next to {}", name.display());
        let folder = tempfile::Builder::new().prefix(".interrex-salvage-").tempdir_in(parent);
        Ok(Self { name: name.to_owned(), folder: folder.map_err(failed(&doing))? })
    }

    /// The folder in which files are made.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes the summary next to the files, and gives the folder its name.
    pub(super) fn finish(self, summary: &Summary) -> Done<()> {
        let json = serde_json::to_string_pretty(summary)
            .map_err(|error| SalvageError::Failed(format!("writing summary.json: {error}")))?;
        for (name, text) in [("README.txt", summary.readme()), ("summary.json", json + "\n")] {
            let doing = format!("writing {name}");
            let mut file = create(&self.folder().join(name)).map_err(failed(&doing))?;
            file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed(&doing))?;
        }
        let doing = format!("naming the output {}", self.name.display());
        fs::rename(self.folder(), &self.name).map_err(failed(&doing))?;
        // under its new name it must not be removed
        let _ = self.folder.keep();
        Ok(())
    }
}

/// A new file that only its owner may read, because it holds data.
pub(super) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}
