//! Says on a terminal that something goes on, once it has gone on for two seconds.

use std::{
    io::IsTerminal as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::output;

/// Something that goes on. Dropped, it leaves the terminal as it was.
pub(super) struct Progress {
    done: Arc<AtomicU64>,
    ticker: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    /// Begins; `total` is the number of events, if that is known.
    pub(super) fn of(what: String, total: Option<u64>) -> Self {
        let done = Arc::new(AtomicU64::new(0));
        let ticker = std::io::stderr().is_terminal().then(|| {
            let (stop, stopped) = channel::<()>();
            let done = done.clone();
            let thread = std::thread::spawn(move || {
                let mut seconds = 0;
                while stopped.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
                    seconds += 1;
                    if seconds >= 2 {
                        let done = done.load(Ordering::Relaxed);
                        output::say_in_place(&in_words(&what, done, total, seconds));
                    }
                }
                if seconds >= 2 {
                    output::say_in_place("");
                }
            });
            (stop, thread)
        });
        Self { done, ticker }
    }

    /// One event more is done.
    pub(super) fn step(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.ticker.take() {
            drop(stop);
            // it has nothing to say any more, or panicked and said so on standard error
            let _ = thread.join();
        }
    }
}

fn in_words(what: &str, done: u64, total: Option<u64>, seconds: u64) -> String {
    match (done, total) {
        (0, _) => format!("{what}, {seconds} s so far ..."),
        (_, Some(total)) => format!("{what}: {done} of {total} events, {seconds} s so far ..."),
        (_, None) => format!("{what}: {done} events, {seconds} s so far ..."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_how_far_it_is_where_that_is_known() {
        assert_eq!(in_words("checking a.db", 0, None, 2), "checking a.db, 2 s so far ...");
        assert_eq!(in_words("reading a.db", 7, None, 3), "reading a.db: 7 events, 3 s so far ...");
        assert_eq!(in_words("writing b", 7, Some(9), 3), "writing b: 7 of 9 events, 3 s so far ...");
    }
}
