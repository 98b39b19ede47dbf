//! A program of a server: how it is started, and how it is followed to its end.

use std::{
    ffi::{OsStr, OsString},
    fmt, io,
    path::{Path, PathBuf},
    process::{ExitStatus, Output},
};

use futures_util::future::LocalBoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// A program with arguments and variables. Every path is a path that the program itself sees.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Variables in addition to its user's.
    pub variables: Vec<(OsString, OsString)>,
}

impl Program {
    /// A program without arguments.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), arguments: Vec::new(), variables: Vec::new() }
    }

    /// A program and its arguments, as a configuration lists them.
    #[must_use]
    pub fn of(command: &[String]) -> Self {
        let mut program = Self::new(command.first().map_or("", String::as_str));
        program.args(command.iter().skip(1));
        program
    }

    /// Adds an argument.
    pub fn arg(&mut self, argument: impl AsRef<OsStr>) -> &mut Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args(&mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> &mut Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets a variable.
    pub fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.variables.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets variables.
    pub fn envs(
        &mut self,
        variables: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>,
    ) -> &mut Self {
        for (name, value) in variables {
            self.env(name, value);
        }
        self
    }
}

/// Where the messages of a program go: its standard error.
#[derive(Debug, Clone, Copy)]
pub enum Messages<'a> {
    /// To this supervisor.
    Piped,
    /// Into a new file. The program continues without its supervisor; with a broken pipe it would die half-way.
    File(&'a Path),
}

/// A running program. It is killed with its children when this value is dropped before its end.
pub struct Running {
    /// Its output.
    pub stdout: Box<dyn AsyncRead + Unpin>,
    /// Its messages; empty if they go to a file.
    pub stderr: Box<dyn AsyncRead + Unpin>,
    /// Its end.
    pub end: LocalBoxFuture<'static, io::Result<ExitStatus>>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").finish_non_exhaustive()
    }
}

impl Running {
    /// Follows it to its end.
    ///
    /// # Errors
    /// Its output could not be read.
    pub async fn output(mut self) -> io::Result<Output> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let reading = async {
            tokio::try_join!(self.stdout.read_to_end(&mut stdout), self.stderr.read_to_end(&mut stderr))
        };
        let (read, status) = tokio::join!(reading, self.end);
        read?;
        Ok(Output { status: status?, stdout, stderr })
    }
}
