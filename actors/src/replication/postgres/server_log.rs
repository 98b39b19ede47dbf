//! The log that PostgreSQL writes for people, as far as it answers why something did not happen.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::Path,
};

/// So much of a log's end is read.
const TAIL: u64 = 64 << 10;
/// What begins a complaint, whichever language it goes on in.
const COMPLAINTS: [&str; 3] = ["FATAL", "PANIC", "ERROR"];

/// The last complaint in the logs, or else the last line: why a server did not start.
pub(super) fn last_words(logs: &[&Path]) -> String {
    let ends: Vec<String> = logs.iter().map(|log| end_of(log).unwrap_or_default()).collect();
    let complaint = ends.iter().find_map(|end| complaint_in(end));
    let any = || ends.iter().find_map(|end| end.lines().next_back());
    complaint.or_else(any).unwrap_or("its logs are empty").to_owned()
}

/// The last complaint at the end of a log, if there is one.
pub(super) fn last_complaint(log: &Path) -> Option<String> {
    complaint_in(&end_of(log).ok()?).map(str::to_owned)
}

fn complaint_in(text: &str) -> Option<&str> {
    text.lines().rfind(|line| COMPLAINTS.iter().any(|word| line.contains(word)))
}

fn end_of(log: &Path) -> io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut end = Vec::new();
    file.take(TAIL).read_to_end(&mut end)?;
    Ok(String::from_utf8_lossy(&end).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_complaint_is_told_however_long_the_log_is() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("postgres.log");
        assert_eq!(last_complaint(&log), None);
        assert_eq!(last_words(&[&log]), "its logs are empty");
        let lines = "FATAL:  old\n".to_owned() + &"LOG:  nothing\n".repeat(10_000);
        std::fs::write(&log, &lines).unwrap();
        assert_eq!((last_complaint(&log), last_words(&[&log]).as_str()), (None, "LOG:  nothing"));
        std::fs::write(&log, lines + "FATAL:  new\nDETAIL:  of it\n").unwrap();
        assert_eq!(last_complaint(&log).as_deref(), Some("FATAL:  new"));
    }
}
