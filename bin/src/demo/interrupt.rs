//! Ctrl-C, and what else asks a program to end.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// While this value lives, these signals do not end the process by themselves.
pub(super) struct Interrupt {
    interrupt: Signal,
    term: Signal,
    hangup: Signal,
}

impl Interrupt {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            term: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The first signal that comes, as text.
    pub(super) async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "Ctrl-C",
            _ = self.term.recv() => "SIGTERM",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}
