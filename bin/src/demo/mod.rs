//! `interrex demo`: a real failover on this machine, explained while it happens.
//!
//! ```text
//! acts (what happens, in order) ─> sandbox (servers, supervisors, a client)
//!   ├─ live      health of the nodes, as a table that is redrawn
//!   ├─ story     the run, from the secondary's journal as it grows
//!   └─ summary   the figures, by what clients see, not by what Interrex says of itself
//! ```
//!
//! However it ends, by itself, by Ctrl-C or by a panic, dropping the sandbox ends every process it started.

mod acts;
mod interrupt;
mod keep;
mod live;
mod screen;
mod story;
mod summary;

use std::{io, path::PathBuf, time::Duration};

use interrex_actors::env::{Env as _, SystemEnv};

use self::{interrupt::Interrupt, screen::Screen};
use crate::sandbox::{Builder, Sandbox, SandboxError};

/// How the demo is shown.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// Leave the nodes running at the end, and say what to try next.
    pub keep: bool,
    /// How long main may be silent before the secondary takes over.
    pub threshold: Duration,
    /// Where the nodes live: empty, or made now. By default a new folder among the machine's temporary ones.
    pub folder: Option<PathBuf>,
}

/// How a demo ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The secondary took over, and clients found everything there.
    AsPromised,
    /// It was shown to its end, but something was not as promised; the figures say what.
    Otherwise,
    /// It was interrupted. Nothing of it is left.
    Interrupted,
}

impl Ended {
    /// The exit code: 0, 1, or 130 as for every program that Ctrl-C ends.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::AsPromised => 0,
            Self::Otherwise => 1,
            Self::Interrupted => 130,
        }
    }
}

/// Why a demo could not be shown to its end. No process of it is left.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The nodes could not be made.
    #[error(transparent)]
    NotMade(#[from] SandboxError),
    /// Something went wrong on the way; the files tell what.
    #[error("{error}; the journals and logs are in {}", folder.display())]
    OnTheWay {
        /// What went wrong.
        error: Box<DemoError>,
        /// Where the files are.
        folder: PathBuf,
    },
    /// The failover did not end with a new main.
    #[error("the failover ended as {end}: {problem}")]
    NoNewMain {
        /// In which state it ended.
        end: String,
        /// What the journal says.
        problem: String,
    },
    /// What is shown cannot be written.
    #[error("cannot write to the terminal: {0}")]
    Output(io::Error),
    /// The system refused something.
    #[error("{0}")]
    System(io::Error),
}

/// Shows a failover to a person.
///
/// # Errors
/// It cannot be shown to its end.
pub fn run(options: DemoOptions) -> Result<Ended, DemoError> {
    perform(options, Screen::for_people()?)
}

/// Shows it on standard error, and prints the figures as one JSON document on standard output.
///
/// # Errors
/// It cannot be shown to its end.
pub fn run_as_json(options: DemoOptions) -> Result<Ended, DemoError> {
    perform(options, Screen::for_programs()?)
}

fn perform(options: DemoOptions, mut screen: Screen) -> Result<Ended, DemoError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(DemoError::System)?;
    runtime.block_on(async {
        let mut interrupt = Interrupt::listen().map_err(DemoError::System)?;
        let mut performance = Box::pin(show(options, &mut screen));
        let name = tokio::select! {
            biased;
            name = interrupt.recv() => name,
            ended = &mut performance => return ended,
        };
        // dropping what was going on ends every process and removes the files
        drop(performance);
        let _ =
            screen.line(&format!("\n{name}: the demo was stopped; no process and no file of it is left."));
        Ok(Ended::Interrupted)
    })
}

async fn show(options: DemoOptions, screen: &mut Screen) -> Result<Ended, DemoError> {
    let program = std::env::current_exe().map_err(DemoError::System)?;
    let builder = builder(program, &options);
    builder.check_folder()?;
    acts::introduce(&options, screen)?;
    acts::announce_servers(screen)?;
    let begin = SystemEnv.moment();
    let mut sandbox = builder.build().await?;
    let shown = acts::play(&sandbox, &options, screen, begin).await;
    match shown {
        Ok(ended) if options.keep => {
            keep::leave_running(sandbox, screen)?;
            Ok(ended)
        }
        Ok(ended) => {
            keep::leave_files(sandbox, screen)?;
            Ok(ended)
        }
        Err(DemoError::Output(error)) if is_nobody_there(&error) => Ok(Ended::Interrupted),
        Err(error) => {
            sandbox.keep_files();
            sandbox.end_processes()?;
            sandbox.remove_data()?;
            Err(DemoError::OnTheWay { error: Box::new(error), folder: sandbox.folder().to_owned() })
        }
    }
}

/// As in `interrex demo | head`, or after the terminal was closed: the reader is gone.
fn is_nobody_there(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
        || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// Probes often enough that the threshold is what one waits for.
fn builder(program: PathBuf, options: &DemoOptions) -> Builder {
    let interval = (options.threshold / 10).clamp(Duration::from_millis(20), Duration::from_millis(500));
    let builder = Sandbox::builder(program)
        .threshold(options.threshold)
        .probe_interval(interval)
        .probe_timeout(Duration::from_secs(1));
    match &options.folder {
        Some(folder) => builder.folder(folder),
        None => builder,
    }
}
