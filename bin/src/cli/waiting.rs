//! Waiting: for time to pass, for a key, and for the reader to be gone.

use std::{
    io::{self, IsTerminal as _},
    os::fd::AsFd as _,
    time::Duration,
};

use interrex_projections::human_ms;
use tokio::{io::Interest, net::unix::pipe::Sender};

use super::{failure::Failure, output};

/// After this time a waiting person is told what the program waits for.
const SILENCE: Duration = Duration::from_secs(2);

/// Lets time pass; false as soon as the reader of the answer is gone.
pub(super) fn wait(duration: Duration) -> Result<bool, Failure> {
    let failed = |error: io::Error| Failure::Other {
        what: "cannot wait for the next change".to_owned(),
        source: Some(error.into()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let told = duration > SILENCE && io::stderr().is_terminal();
    if told {
        let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        output::say_in_place(&format!("the next change comes in {}; Ctrl-C ends it", human_ms(ms)));
    }
    let goes_on = runtime.block_on(async {
        tokio::select! {
            () = tokio::time::sleep(duration) => true,
            () = nobody_reads() => false,
        }
    });
    if told {
        output::say_in_place("");
    }
    Ok(goes_on)
}

/// Waits until a person presses Enter; false if they press `q` before it, or are gone.
pub(super) fn wait_for_enter() -> Result<bool, Failure> {
    output::say_in_place("[Enter: the next change; q and Enter: the end] ");
    let mut line = String::new();
    let read = io::stdin().read_line(&mut line)?;
    Ok(read > 0 && !line.trim().eq_ignore_ascii_case("q"))
}

/// A line that a person types.
pub(super) fn typed(question: &str) -> Result<Option<String>, Failure> {
    output::say_in_place(question);
    let mut line = String::new();
    let read = io::stdin().read_line(&mut line)?;
    Ok((read > 0).then(|| line.trim().to_owned()))
}

/// Ends when the reader of standard output is gone. On a quiet cluster no write would find that out for hours.
pub(super) async fn nobody_reads() {
    // only watched, never written through; a file has no reader that could go away, and is refused here
    let watched = io::stdout().as_fd().try_clone_to_owned().and_then(Sender::from_owned_fd_unchecked);
    if let Ok(stdout) = watched
        && stdout.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}
