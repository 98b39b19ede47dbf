//! A process that is never mistaken for another process.

use std::{fs, path::PathBuf};

use rustix::process::Signal;

use super::{ended, signal, started_at};

/// A living process, known by its number and its start time: numbers are reused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pid: i32,
    began: String,
}

impl Process {
    /// The living process with this number.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, began: started_at(pid)? })
    }

    /// The process number.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether it lives.
    #[must_use]
    pub fn lives(&self) -> bool {
        started_at(self.pid).is_some_and(|began| began == self.began)
    }

    /// Sends it a signal, if it lives.
    pub fn signal(&self, number: Signal) {
        if self.lives() {
            signal(self.pid, number);
        }
    }

    /// Waits until it no longer lives.
    pub async fn gone(&self) {
        ended(self.pid, || self.lives()).await;
    }

    /// Its working directory, if this supervisor may read it.
    #[must_use]
    pub fn folder(&self) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/cwd", self.pid)).ok()
    }

    /// The number of the process that started it.
    #[must_use]
    pub fn parent(&self) -> Option<i32> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        fields.split_whitespace().nth(1)?.parse().ok()
    }

    /// Its program and arguments, or the title that it shows instead.
    #[must_use]
    pub fn shown_as(&self) -> Vec<String> {
        let shown = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let words = shown.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
        words.filter(|word| !word.is_empty()).collect()
    }

    /// Its name, as the kernel knows it: up to 15 characters of its program's.
    #[must_use]
    pub fn name(&self) -> String {
        let name = fs::read_to_string(format!("/proc/{}/comm", self.pid)).unwrap_or_default();
        name.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_was_given_to_another_process_is_not_the_same_process() {
        let me = Process::of(std::process::id().cast_signed()).unwrap();
        assert!(me.lives());
        let before = Process { began: "1".to_owned(), ..me };
        assert!(!before.lives());
        assert_eq!(Process::of(-1), None);
    }
}
