//! The log that PostgreSQL writes for people, as far as it answers why something did not happen.

use std::{
    io::{self, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use crate::{guarded, runtime::RunAs};

/// So much of a log's end is read.
const TAIL: u64 = 64 << 10;
/// What begins a complaint, whichever language it goes on in.
const COMPLAINTS: [&str; 3] = ["FATAL", "PANIC", "ERROR"];

/// The last complaint in a log behind that place, or else the last line: why a server did not start.
pub(super) fn last_words(log: &Path, owner: RunAs, begin: u64) -> String {
    let end = end_of(log, owner, begin).unwrap_or_default();
    let words = complaint_in(&end).or_else(|| end.lines().next_back());
    words.unwrap_or("it said nothing").to_owned()
}

/// The last complaint at the end of a log, if there is one.
pub(super) fn last_complaint(log: &Path, owner: RunAs) -> Option<String> {
    complaint_in(&end_of(log, owner, 0).ok()?).map(str::to_owned)
}

fn complaint_in(text: &str) -> Option<&str> {
    text.lines().rfind(|line| COMPLAINTS.iter().any(|word| line.contains(word)))
}

fn end_of(log: &Path, owner: RunAs, begin: u64) -> io::Result<String> {
    let mut file = guarded::open(log, owner)?;
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
    fn the_newest_complaint_is_told_however_long_the_log_is() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("postgres.log");
        assert_eq!(last_complaint(&log, RunAs::Myself), None);
        assert_eq!(last_words(&log, RunAs::Myself, 0), "it said nothing");
        let lines = "FATAL:  old\n".to_owned() + &"LOG:  nothing\n".repeat(10_000);
        std::fs::write(&log, &lines).unwrap();
        assert_eq!(
            (last_complaint(&log, RunAs::Myself), last_words(&log, RunAs::Myself, 0).as_str()),
            (None, "LOG:  nothing")
        );
        let begin = lines.len() as u64;
        std::fs::write(&log, lines + "FATAL:  new\nDETAIL:  of it\n").unwrap();
        assert_eq!(last_complaint(&log, RunAs::Myself).as_deref(), Some("FATAL:  new"));
        assert_eq!(last_words(&log, RunAs::Myself, begin), "FATAL:  new");
        std::fs::write(&log, "FATAL:  old\n").unwrap();
        assert_eq!(
            last_words(&log, RunAs::Myself, 12),
            "it said nothing",
            "what was there before the start is not about it"
        );
    }
}
