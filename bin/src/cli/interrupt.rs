//! Ctrl-C while a file is being written: what was begun is removed before the program ends.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::signal::unix::{SignalKind, signal};

use super::failure::Failure;

/// Listens from its creation to the end of the program; a writer checks it from time to time.
#[derive(Clone)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on Ctrl-C, SIGTERM and SIGHUP only raise a flag.
    pub(super) fn listen() -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::Other {
            what: "cannot listen for Ctrl-C".to_owned(),
            source: Some(error.into()),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
        let entered = runtime.enter();
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut term = signal(SignalKind::terminate()).map_err(failed)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
        drop(entered);
        let raised = Arc::new(AtomicBool::new(false));
        let flag = raised.clone();
        std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = term.recv() => {}
                    _ = hangup.recv() => {}
                }
            });
            flag.store(true, Ordering::Relaxed);
        });
        Ok(Self(raised))
    }

    /// Fails once a signal came.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.0.load(Ordering::Relaxed) { Err(Failure::Interrupted) } else { Ok(()) }
    }
}
