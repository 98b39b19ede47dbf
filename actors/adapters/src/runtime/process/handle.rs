//! A process that is never mistaken for another process.

use std::{fs, path::PathBuf};

use rustix::process::Signal;

use super::kernel::{Stat, ended, signal};

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
        Some(Self { pid, began: Stat::of_living(pid)?.began })
    }

    /// The process that was just started with this number, even if it has ended since.
    pub(super) fn begun(pid: i32) -> Self {
        Self { pid, began: Stat::of_living(pid).map(|stat| stat.began).unwrap_or_default() }
    }

    /// The process that had this number and this start time.
    pub(super) fn known(pid: i32, began: &str) -> Self {
        Self { pid, began: began.to_owned() }
    }

    /// Its start time, in the kernel's ticks since the machine started; empty if it had ended by then.
    pub(super) fn into_began(self) -> String {
        self.began
    }

    /// The process number.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    fn stat(&self) -> Option<Stat> {
        Stat::of_living(self.pid).filter(|stat| stat.began == self.began)
    }

    /// Whether it lives.
    #[must_use]
    pub fn lives(&self) -> bool {
        self.stat().is_some()
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
        self.stat().map(|stat| stat.parent)
    }

    /// Whether it is the first process of its group.
    pub(super) fn leads_its_group(&self) -> bool {
        self.stat().is_some_and(|stat| stat.group == self.pid)
    }

    /// Its real user, if it lives.
    pub(super) fn user(&self) -> Option<u32> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok())
    }

    /// Its program and arguments, or the title that it shows instead.
    #[must_use]
    pub fn shown_as(&self) -> Vec<String> {
        let shown = self.arguments().into_iter().map(|word| String::from_utf8_lossy(&word).into_owned());
        shown.filter(|word| !word.is_empty()).collect()
    }

    /// The same with every byte: a path may have any encoding.
    pub(super) fn arguments(&self) -> Vec<Vec<u8>> {
        let shown = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        shown.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
    }

    /// The service of systemd in whose group of processes it is.
    #[must_use]
    pub fn service(&self) -> Option<String> {
        service_of(&fs::read_to_string(format!("/proc/{}/cgroup", self.pid)).ok()?)
    }

    /// Its name, as the kernel knows it: up to 15 characters of its program's.
    #[must_use]
    pub fn name(&self) -> String {
        self.stat().map(|stat| stat.name).unwrap_or_default()
    }
}

fn service_of(groups: &str) -> Option<String> {
    let units = groups.lines().filter_map(|line| line.rsplit('/').next());
    units.filter(|unit| unit.ends_with(".service")).map(str::to_owned).next()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_service_of_a_process_is_its_group_and_a_session_has_none() {
        let of = |group: &str| service_of(&format!("0::/{group}\n"));
        assert_eq!(of("system.slice/interrex.service").as_deref(), Some("interrex.service"));
        assert_eq!(of("user.slice/session-1.scope"), None);
    }

    #[tokio::test]
    async fn the_end_of_a_process_is_noticed_and_a_dead_process_that_is_not_reaped_is_gone() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::of(child.id().cast_signed()).unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(20), process.gone()).await.is_err(), "it lives");
        process.signal(Signal::KILL);
        tokio::time::timeout(Duration::from_secs(5), process.gone()).await.unwrap();
        assert!(fs::exists(format!("/proc/{}", process.pid())).unwrap(), "it is not reaped yet");
        child.wait().unwrap();
        tokio::time::timeout(Duration::from_secs(5), process.gone()).await.unwrap();
    }

    #[test]
    fn a_number_that_was_given_to_another_process_is_not_the_same_process() {
        let me = Process::of(std::process::id().cast_signed()).unwrap();
        assert!(me.lives());
        let before = Process { began: "1".to_owned(), ..me };
        assert!(!before.lives());
        assert_eq!(Process::of(-1), None);
    }
}
