//! PostgreSQL's main process: named by the pid file in its data directory, in which it works.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use interrex_actors::ports::Answer;

use super::{
    Identity, Process,
    kernel::{is_alive, processes_in, wait_reaped},
};

const PROGRAM: &str = "postgres";
/// How long a start waits for a dead server to be reaped.
const REAP_LIMIT: Duration = Duration::from_secs(20);

/// The PostgreSQL of a data directory.
#[derive(Debug)]
pub struct Postmaster {
    data_dir: PathBuf,
}

impl Postmaster {
    /// The server of this data directory.
    #[must_use]
    pub fn of(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned() }
    }

    fn named(&self) -> Option<i32> {
        let text = fs::read(self.data_dir.join("postmaster.pid")).ok()?;
        // a path in it may have any encoding
        String::from_utf8_lossy(&text).lines().next()?.trim().parse().ok()
    }
}

#[async_trait(?Send)]
impl Identity for Postmaster {
    fn find(&self) -> Option<Process> {
        let process = Process::of(self.named()?)?;
        // a stale file may name another server's process; a postmaster works in its data directory
        let elsewhere = process
            .folder()
            .is_some_and(|folder| self.data_dir.canonicalize().is_ok_and(|own| own != folder));
        (is_alive(process.pid(), PROGRAM) && !elsewhere).then_some(process)
    }

    /// Sessions outlive a killed postmaster, and still commit the statements that they received (MEASURED M10).
    fn processes(&self) -> Vec<Process> {
        processes_in(&self.data_dir, PROGRAM).into_iter().filter_map(Process::of).collect()
    }

    /// PostgreSQL's start takes a dead process that is not reaped for a living one.
    async fn before_start(&self) -> Answer<()> {
        if let Some(dead) = self.named() {
            wait_reaped(dead, REAP_LIMIT).await;
        }
        Ok(())
    }
}
