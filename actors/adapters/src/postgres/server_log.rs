//! The output of PostgreSQL, to find out why something did not happen.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use crate::runtime::RunAs;

/// How many bytes at the end of a log file are read.
const TAIL: u64 = 64 << 10;
/// The words with which a complaint begins, in any language.
const COMPLAINTS: [&str; 3] = ["FATAL", "PANIC", "ERROR"];

/// The last complaint in some output, or else the last line: why a server did not start.
pub(super) fn last_message(output: &str) -> &str {
    complaint_in(output).or_else(|| output.lines().next_back()).unwrap_or("it wrote no message")
}

/// The files of PostgreSQL's own collector (`logging_collector`), and their length: from the beginning of its start the server
/// writes there, and nothing into the file with which it was started.
pub(super) struct Collected(Vec<(PathBuf, u64)>);

impl Collected {
    /// The files and their length now.
    pub(super) fn now(data_dir: &Path) -> Self {
        // a file for programs has no lines for people
        let names = std::fs::read_to_string(data_dir.join("current_logfiles")).unwrap_or_default();
        let files =
            names.lines().filter_map(|line| line.split_once(' ')).map(|(_, name)| data_dir.join(name));
        Self(files.map(|file| (file.clone(), file.metadata().map_or(0, |found| found.len()))).collect())
    }

    /// The last complaint since then, and the file in which it is.
    pub(super) fn last_complaint_since(&self, data_dir: &Path, owner: RunAs) -> Option<(String, PathBuf)> {
        Self::now(data_dir).0.into_iter().find_map(|(file, _)| {
            let begin = self.0.iter().find(|(known, _)| *known == file).map_or(0, |(_, length)| *length);
            // the servers' user chooses the files, and may choose any file
            let end = owner.act(|| tail(File::open(&file)?, begin)).ok()?;
            let words = complaint_in(&end)?.to_owned();
            Some((words, file))
        })
    }
}

/// The last complaint in some output.
pub(super) fn complaint_in(text: &str) -> Option<&str> {
    text.lines().rfind(|line| COMPLAINTS.iter().any(|word| line.contains(word)))
}

fn tail(mut file: File, begin: u64) -> io::Result<String> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL).max(begin)))?;
    let mut end = Vec::new();
    file.take(TAIL).read_to_end(&mut end)?;
    Ok(String::from_utf8_lossy(&end).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_complaint_is_reported_or_else_the_last_line() {
        assert_eq!((complaint_in(""), last_message("")), (None, "it wrote no message"));
        assert_eq!(last_message("LOG:  one\nLOG:  two\n"), "LOG:  two");
        let output = "FATAL:  old\nLOG:  nothing\nFATAL:  new\nDETAIL:  of it\n";
        assert_eq!((complaint_in(output), last_message(output)), (Some("FATAL:  new"), "FATAL:  new"));
    }

    #[test]
    fn what_the_collector_wrote_since_is_told_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path();
        assert_eq!(Collected::now(data_dir).last_complaint_since(data_dir, RunAs::Myself), None);
        std::fs::create_dir(data_dir.join("log")).unwrap();
        std::fs::write(data_dir.join("log/monday"), "FATAL:  old\n").unwrap();
        std::fs::write(data_dir.join("current_logfiles"), "stderr log/monday\n").unwrap();
        let before = Collected::now(data_dir);
        assert_eq!(before.last_complaint_since(data_dir, RunAs::Myself), None);
        std::fs::write(data_dir.join("log/monday"), "FATAL:  old\nFATAL:  new\n").unwrap();
        let (words, file) = before.last_complaint_since(data_dir, RunAs::Myself).unwrap();
        assert_eq!((words.as_str(), file), ("FATAL:  new", data_dir.join("log/monday")));
        std::fs::write(data_dir.join("current_logfiles"), "stderr log/tuesday\n").unwrap();
        std::fs::write(data_dir.join("log/tuesday"), "LOG:  x\nPANIC:  worse\n").unwrap();
        assert_eq!(before.last_complaint_since(data_dir, RunAs::Myself).unwrap().0, "PANIC:  worse");
    }
}
