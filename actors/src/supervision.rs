//! Our own supervision of actors (ADR 3): actix restarts no actor that panicked.
//!
//! Each actor runs in a task of its own, made by a factory that rebuilds its state from the journal. A panic or an unexpected end
//! is seen through the task's handle, recorded as `actor_restarted`, and followed by a new instance after a short, growing pause.
//! After more than [`RESTART_LIMIT`] restarts within [`RESTART_WINDOW`] the whole process ends with an error, and its service
//! manager starts it again.

use std::{collections::VecDeque, future::Future, sync::Arc, time::Duration};

use actix::{Actor, Addr, AsyncContext, Context};
use interrex_events::{ActorRestarted, Draft};
use tokio::task::JoinHandle;

use crate::{
    env::Moment,
    node::{Fatal, Shared},
};

/// Restarts of one actor within the window that do not end the process.
pub const RESTART_LIMIT: u32 = 5;
/// The window.
pub const RESTART_WINDOW: Duration = Duration::from_secs(60);
/// Messages that may wait for an actor. A node sends each actor a handful per second.
pub const MAILBOX_CAPACITY: usize = 256;
/// First pause before a restart; it doubles with every restart in the window.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// Counts restarts within the window.
#[derive(Debug, Default)]
struct Intensity(VecDeque<Duration>);

impl Intensity {
    /// Notes a restart and returns the number of restarts in the window, this one included.
    fn note(&mut self, now: Moment) -> u32 {
        self.0.push_back(now.monotonic);
        while self.0.front().is_some_and(|first| now.monotonic.saturating_sub(*first) > RESTART_WINDOW) {
            self.0.pop_front();
        }
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }
}

/// Keeps one actor alive until the task is aborted or the process gives up.
///
/// `factory` makes an instance with its state rebuilt; `bind` connects the lines to it.
pub fn keep<A, Make, Made>(
    name: &'static str,
    shared: Arc<Shared>,
    factory: Make,
    bind: impl Fn(&Addr<A>) + 'static,
) -> JoinHandle<()>
where
    A: Actor<Context = Context<A>>,
    Make: Fn() -> Made + 'static,
    Made: Future<Output = Result<A, Fatal>>,
{
    tokio::task::spawn_local(async move {
        let mut intensity = Intensity::default();
        loop {
            let actor = match factory().await {
                Ok(actor) => actor,
                Err(fatal) => return shared.give_up(fatal),
            };
            let mut context = Context::new();
            context.set_mailbox_capacity(MAILBOX_CAPACITY);
            bind(&context.address());
            let reason = match tokio::task::spawn_local(context.into_future(actor)).await {
                Ok(()) => "the actor ended without being asked to".to_owned(),
                Err(error) if error.is_panic() => panic_message(error.into_panic().as_ref()),
                // the runtime is going down, and the actor with it
                Err(_) => return,
            };
            let restarts = intensity.note(shared.env.moment());
            tracing::error!(actor = name, restarts, reason, "actor failed");
            shared.count_restart(name);
            let window_seconds = RESTART_WINDOW.as_secs();
            if restarts > RESTART_LIMIT {
                return shared.give_up(Fatal::ActorKeepsFailing {
                    actor: name,
                    restarts,
                    window_seconds,
                    reason,
                });
            }
            let event = ActorRestarted {
                actor: name.to_owned(),
                reason,
                restarts,
                limit: RESTART_LIMIT,
                window_seconds,
            };
            shared.record(Draft::new(shared.epoch(), event));
            tokio::time::sleep(FIRST_PAUSE * 2u32.saturating_pow(restarts - 1)).await;
        }
    })
}

/// A panic's message.
pub(crate) fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned());
    format!("it panicked: {}", text.unwrap_or_else(|| "without a message".to_owned()))
}

#[cfg(test)]
#[path = "supervision_tests.rs"]
mod tests;
