//! The checksums of a copy, in the form of `sha256sum`. They are taken while the copy is made, or right after a small copy, and
//! show years later whether the copy is unchanged.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

/// The name of the file of checksums. To check them: `sha256sum -c SHA256SUMS` in its folder.
pub const CHECKSUMS: &str = "SHA256SUMS";
/// Bytes read at once.
const CHUNK: usize = 128 << 10;

/// SHA-256 of files, by path. Files whose blocks the copy shares have no checksum: they are the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Checksums(BTreeMap<PathBuf, String>);

impl FromIterator<(PathBuf, String)> for Checksums {
    fn from_iter<I: IntoIterator<Item = (PathBuf, String)>>(files: I) -> Self {
        Self(files.into_iter().collect())
    }
}

impl Checksums {
    /// The checksums of files in a folder.
    pub(super) fn of(folder: &Path, files: Vec<PathBuf>) -> io::Result<Self> {
        files.into_iter().map(|path| of_file(&folder.join(&path)).map(|sum| (path, sum))).collect()
    }

    /// A line for each file, with its path below a folder; nothing if there are no checksums.
    pub(super) fn lines(&self, folder: &Path) -> Option<String> {
        let line = |(path, sum): (&PathBuf, &String)| line(&folder.join(path), sum);
        (!self.0.is_empty()).then(|| self.0.iter().map(line).collect())
    }
}

/// In the form of `sha256sum`: if a name has a backslash or an end of line, its line begins with a backslash.
fn line(path: &Path, sum: &str) -> String {
    let name = path.display().to_string();
    let escaped = name.replace('\\', r"\\").replace('\n', r"\n");
    let mark = if escaped == name { "" } else { r"\" };
    format!("{mark}{sum}  {escaped}\n")
}

fn named(line: &str) -> Option<(String, &str)> {
    let (sum, name) = line.trim_start_matches('\\').split_once("  ")?;
    let name = if line.starts_with('\\') {
        name.replace(r"\\", "\0").replace(r"\n", "\n").replace('\0', r"\")
    } else {
        name.to_owned()
    };
    Some((name, sum))
}

/// The result of a check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Files that are as they were copied.
    pub sound: u64,
    /// Files that were changed or removed.
    pub damaged: Vec<String>,
}

/// Checks all files of a folder that have a checksum there. Nothing if there are no checksums.
///
/// # Errors
/// The checksums cannot be read.
pub fn check(folder: &Path) -> io::Result<Option<Checked>> {
    let lines = match fs::read_to_string(folder.join(CHECKSUMS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        lines => lines?,
    };
    let mut checked = Checked::default();
    for (name, sum) in lines.lines().filter_map(named) {
        match of_file(&folder.join(&name)) {
            Ok(found) if found == sum => checked.sound += 1,
            _ => checked.damaged.push(name),
        }
    }
    Ok(Some(checked))
}

fn of_file(path: &Path) -> io::Result<String> {
    let (mut file, mut hash, mut buffer) = (File::open(path)?, Sha256::new(), vec![0; CHUNK]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            read => hash.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn sha256sum_reads_them_and_a_changed_or_lost_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        let names = ["1", "2", "a\nb\\n"];
        for name in names {
            fs::write(data.join(name), name).unwrap();
        }
        let sums = names.map(|name| (PathBuf::from(name), hex::encode(Sha256::digest(name))));
        assert_eq!(check(folder.path()).unwrap(), None);
        assert_eq!(Checksums::default().lines(Path::new("data")), None);
        let lines = Checksums::from_iter(sums).lines(Path::new("data")).unwrap();
        fs::write(folder.path().join(CHECKSUMS), lines).unwrap();

        let sha256sum =
            Command::new("sha256sum").args(["-c", CHECKSUMS]).current_dir(folder.path()).output().unwrap();
        assert!(sha256sum.status.success(), "{}", String::from_utf8_lossy(&sha256sum.stderr));
        let sound = Checked { sound: 3, damaged: Vec::new() };
        assert_eq!(check(folder.path()).unwrap(), Some(sound));

        fs::write(data.join("2"), "3").unwrap();
        fs::remove_file(data.join(names[2])).unwrap();
        let damaged = vec!["data/2".to_owned(), format!("data/{}", names[2])];
        assert_eq!(check(folder.path()).unwrap(), Some(Checked { sound: 1, damaged }));
    }
}
