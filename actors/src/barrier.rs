//! How every step is made: pause, barrier, effect within its limit, barrier, outcome. An effect that panics has an outcome too:
//! the actor, and the supervisor of a server that was just promoted, live on.
//!
//! In builds with debug assertions, the environment variable `INTERREX_BARRIER` names a place where the
//! process kills itself as `kill -9` would (`before:promote`, `after:promote`) or an actor panics
//! (`panic:heartbeat`, or in a step, `panic:detach`; once). The end-to-end tests crash a supervisor at every step that way.

use std::{future::Future, panic::AssertUnwindSafe};

use futures_util::FutureExt as _;
use interrex_events::StepOutcome;

use crate::{
    env::ms,
    messages::{RunStep, StepEnded, StepReport},
    node::Shared,
    supervision::panic_message,
};

/// Makes one attempt at a step and reports its outcome.
pub(crate) async fn make_step(shared: &Shared, order: &RunStep, effect: impl Future<Output = StepReport>) {
    if !order.pause.is_zero() {
        tokio::time::sleep(order.pause).await;
    }
    kill_if_asked("before", order);
    let began = shared.env.moment();
    let effect = async {
        panic_if_asked(order.step.name());
        effect.await
    };
    let report = match tokio::time::timeout(order.limit, caught(effect)).await {
        Ok(Ok(report)) => report,
        Ok(Err(panic)) => unknown(format!("{panic}: it may or may not have happened")),
        Err(_) => unknown(format!("no outcome within {:?}: it may or may not have happened", order.limit)),
    };
    let took_ms = ms(shared.env.moment().monotonic.saturating_sub(began.monotonic));
    kill_if_asked("after", order);
    shared.lines.step_ended.tell(StepEnded {
        run: order.run.id,
        step: order.step,
        attempt: order.attempt,
        report,
        took_ms,
    });
}

fn unknown(detail: String) -> StepReport {
    StepReport::new(StepOutcome::Unknown, detail)
}

/// The result of work that an actor does in addition to its decisions; a panic in it becomes an error message. The next look at
/// the servers shows what the work left half done, because no other state is kept of it.
pub(crate) async fn caught<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let caught = AssertUnwindSafe(work).catch_unwind().await;
    caught.map_err(|panic| {
        let words = panic_message(&*panic);
        tracing::error!(reason = words, "a panic was caught");
        words
    })
}

#[cfg(debug_assertions)]
fn asked() -> Option<String> {
    std::env::var("INTERREX_BARRIER").ok()
}

#[cfg(debug_assertions)]
fn kill_if_asked(place: &str, order: &RunStep) {
    if asked().is_some_and(|asked| asked == format!("{place}:{}", order.step)) {
        let me = rustix::process::getpid();
        let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
    }
}

#[cfg(not(debug_assertions))]
fn kill_if_asked(_: &str, _: &RunStep) {}

/// Panics once, if the tests ask for it.
#[cfg(debug_assertions)]
#[allow(clippy::panic, reason = "the end-to-end test of our supervision of actors asks for it")]
pub(crate) fn panic_if_asked(actor: &str) {
    use std::sync::atomic::{AtomicBool, Ordering};
    static DONE: AtomicBool = AtomicBool::new(false);
    if asked().is_some_and(|asked| asked == format!("panic:{actor}")) && !DONE.swap(true, Ordering::Relaxed) {
        panic!("the test asked for it");
    }
}

/// Panics once, if the tests ask for it; never in a release build.
#[cfg(not(debug_assertions))]
pub(crate) fn panic_if_asked(_: &str) {}
