//! Orders given to other actors and not answered yet.
//!
//! An order can be lost: the actor that takes it panics, or its mailbox is full. Each therefore has a moment
//! after which its answer is not expected any longer, so that no run waits for ever. Late answers do no harm:
//! they name their attempt, and an attempt that was given up changes nothing.

use std::time::Duration;

use interrex_events::{NodeId, RunId, StepId};

use super::steps::Maker;
use crate::{env::Moment, node::actor_names};

/// An order that is not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// An attempt at a step.
    Step(RunId, StepId, u32),
    /// The undo of a step.
    Undo(RunId, StepId),
    /// The proof of a fence.
    Fence,
    /// The WAL of another main.
    Follow(NodeId),
}

/// Orders, with the actor that makes them and the moment after which they are given up.
#[derive(Debug, Default)]
pub(super) struct Orders(Vec<(Order, Maker, Duration)>);

/// How long an answer may be under way beyond the limit of the order itself.
const GRACE: Duration = Duration::from_secs(2);
/// When an order to an actor that failed is given up: its new instance knows nothing of it.
const AFTER_RESTART: Duration = Duration::from_secs(1);

impl Orders {
    /// An order was given, which ends within `limit` by itself.
    pub(super) fn give(&mut self, order: Order, maker: Maker, now: Moment, limit: Duration) {
        self.answered(order);
        self.0.push((order, maker, now.monotonic + limit + GRACE));
    }

    /// Its answer came.
    pub(super) fn answered(&mut self, order: Order) {
        self.0.retain(|(awaited, ..)| *awaited != order);
    }

    /// An actor was restarted: what it was making is lost.
    pub(super) fn restarted(&mut self, actor: &str, now: Moment) {
        for (_, maker, until) in &mut self.0 {
            if name(*maker) == Some(actor) {
                *until = (*until).min(now.monotonic + AFTER_RESTART);
            }
        }
    }

    /// Orders whose answer is not expected any longer; they are forgotten.
    pub(super) fn overdue(&mut self, now: Moment) -> Vec<Order> {
        self.0.extract_if(.., |(_, _, until)| *until <= now.monotonic).map(|(order, ..)| order).collect()
    }
}

fn name(maker: Maker) -> Option<&'static str> {
    match maker {
        Maker::Journal => None,
        Maker::Heartbeat => Some(actor_names::HEARTBEAT),
        Maker::Replication => Some(actor_names::REPLICATION),
        Maker::Notifier => Some(actor_names::NOTIFIER),
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use uuid::Uuid;

    use super::*;

    fn at(second: u64) -> Moment {
        Moment { monotonic: Duration::from_secs(second), wall: DateTime::UNIX_EPOCH }
    }

    fn step(attempt: u32) -> Order {
        Order::Step(RunId(Uuid::nil()), StepId::Detach, attempt)
    }

    #[test]
    fn an_order_that_nobody_answers_is_given_up_once_and_an_answered_one_never() {
        let mut orders = Orders::default();
        orders.give(step(1), Maker::Replication, at(0), Duration::from_secs(60));
        orders.give(step(2), Maker::Replication, at(0), Duration::from_secs(60));
        orders.answered(step(2));
        assert!(orders.overdue(at(61)).is_empty());
        assert_eq!(orders.overdue(at(62)), [step(1)]);
        assert!(orders.overdue(at(1_000)).is_empty());
    }

    #[test]
    fn an_order_to_an_actor_that_failed_is_given_up_soon() {
        let mut orders = Orders::default();
        orders.give(step(1), Maker::Replication, at(0), Duration::from_secs(60));
        orders.give(Order::Follow(NodeId(1)), Maker::Notifier, at(0), Duration::from_secs(60));
        orders.restarted("replication", at(10));
        assert_eq!(orders.overdue(at(11)), [step(1)]);
    }
}
