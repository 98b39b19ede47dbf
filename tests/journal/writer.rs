//! The program `journal-writer` as a child process, and what it says.

use std::{path::Path, process::Stdio, time::Duration};

use interrex::sandbox::{Done, SandboxError};
use interrex_events::{ChainHash, Head, NodeSeq};
use interrex_tests::journal_of_a_test;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::Acknowledged;

/// A writer that takes longer than this over a line or its end hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What a writer said.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// The head of the journal it found; nothing if it did not come that far.
    pub(crate) opened: Option<Head>,
    /// What it was told is stored.
    pub(crate) stored: Acknowledged,
}

/// How a writer ended by itself.
#[derive(Debug)]
pub(crate) struct Ended {
    /// What it said.
    pub(crate) said: Said,
    /// Its exit code.
    pub(crate) code: Option<i32>,
    /// What it wrote to standard error.
    pub(crate) message: String,
}

/// A writer at work. It is killed when this value goes.
pub(crate) struct Writer {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    said: Said,
}

/// The command that writes to a journal.
pub(crate) fn command(journal: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_journal-writer"));
    command.arg(journal);
    command
}

impl Writer {
    /// Starts it.
    pub(crate) fn start(mut command: Command) -> Done<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| failed("starting it", error))?;
        let stdout = child.stdout.take().ok_or_else(|| failed("starting it", "it has no output"))?;
        Ok(Self { child, lines: BufReader::new(stdout).lines(), said: Said::default() })
    }

    /// Hears so many lines, fewer if it ends before.
    pub(crate) async fn hear(&mut self, lines: usize) -> Done<()> {
        for _ in 0..lines {
            let line = timeout(PATIENCE, self.lines.next_line()).await;
            let line = line.map_err(|error| failed("listening", error))?;
            let Some(line) = line.map_err(|error| failed("listening", error))? else { break };
            self.take(&line)?;
        }
        Ok(())
    }

    fn take(&mut self, line: &str) -> Done<()> {
        let wrong = || failed("understanding it", line);
        let [what, seq, hash] = line.split(' ').collect::<Vec<_>>()[..] else { return Err(wrong()) };
        let seq = NodeSeq(seq.parse().map_err(|_| wrong())?);
        let hash: ChainHash = serde_json::from_value(hash.into()).map_err(|_| wrong())?;
        match what {
            "opened" => {
                let node_id = journal_of_a_test().node_id;
                self.said.opened = Some(Head { node_id, node_seq: seq, hash });
            }
            "stored" if self.said.stored.insert(seq, hash).is_none() => {}
            _ => return Err(wrong()),
        }
        Ok(())
    }

    /// Kills it as `kill -9` does. What it said before that.
    pub(crate) async fn kill(mut self) -> Done<Said> {
        self.child.start_kill().map_err(|error| failed("killing it", error))?;
        self.hear(usize::MAX).await?;
        self.child.wait().await.map_err(|error| failed("waiting for its end", error))?;
        Ok(self.said)
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn end(mut self) -> Done<Ended> {
        self.hear(usize::MAX).await?;
        let end = timeout(PATIENCE, self.child.wait())
            .await
            .map_err(|error| failed("waiting for its end", error))?;
        let code = end.map_err(|error| failed("waiting for its end", error))?.code();
        let mut message = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut message).await.map_err(|error| failed("listening", error))?;
        }
        Ok(Ended { said: self.said, code, message })
    }
}

fn failed(doing: &str, message: impl std::fmt::Display) -> SandboxError {
    SandboxError::failed(format!("a writer of a journal: {doing}"), message)
}
