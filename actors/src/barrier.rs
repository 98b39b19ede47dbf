//! The one way in which a step is made: pause, barrier, effect within its limit, barrier, outcome.
//!
//! In builds with debug assertions, the environment variable `INTERREX_BARRIER` names a place where the
//! process kills itself as `kill -9` would (`before:promote`, `after:promote`) or an actor panics
//! (`panic:heartbeat`, or in a step, `panic:detach`; once). The end-to-end tests crash a supervisor at every step that way.

use std::future::Future;

use interrex_events::StepOutcome;

use crate::{
    env::ms,
    messages::{RunStep, StepEnded, StepReport},
    node::Shared,
};

/// Makes one attempt at a step and reports what it came to.
pub(crate) async fn make_step(shared: &Shared, order: &RunStep, effect: impl Future<Output = StepReport>) {
    if !order.pause.is_zero() {
        tokio::time::sleep(order.pause).await;
    }
    kill_if_asked("before", order);
    panic_if_asked(order.step.name());
    let began = shared.env.moment();
    let report = tokio::time::timeout(order.limit, effect).await.unwrap_or_else(|_| {
        let detail = format!("no outcome within {:?}: it may or may not have happened", order.limit);
        StepReport::new(StepOutcome::Unknown, detail)
    });
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
