//! Measures whether PostgreSQL admits a new session. A server may answer open sessions and admit no new one: its postmaster
//! hangs, or every place is taken. That is no reason for a failover, but the server is not healthy.
//!
//! The first message of a session is sent, and the server's first answer is enough: for it the server forks and takes a place,
//! and no password is needed. There is one attempt in a quarter of the threshold; two attempts in a row decide.

use std::{future::Future, rc::Rc, sync::Arc, time::Duration};

use interrex_events::{AdmissionChanged, Draft, NodeId, PostgresStatus};

use super::Servers;
use crate::{
    env::ms,
    node::{Shared, View},
    ports::{NoReply, PeersPort},
};

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The shortest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// What two attempts in a row came to.
#[derive(Debug, Default)]
struct Attempts {
    failed: Option<String>,
}

impl Attempts {
    /// Handles one attempt, given what is recorded of the server so far. Returns what has changed, if anything.
    fn take(&mut self, admits: bool, attempt: Result<(), NoReply>) -> Option<Result<(), String>> {
        match attempt {
            Err(NoReply::Unknown(_)) => None,
            Ok(()) => {
                self.failed = None;
                (!admits).then_some(Ok(()))
            }
            Err(refusal) => {
                let before = self.failed.replace(refusal.to_string());
                (admits && before.is_some()).then(|| Err(refusal.to_string()))
            }
        }
    }
}

/// Asks this node's PostgreSQL again and again.
pub(super) async fn watch_own(shared: Arc<Shared>, servers: Rc<Servers>) {
    let me = shared.settings.me;
    let answers = move |view: &View| {
        let answers = !matches!(view.postgres.status, PostgresStatus::Stopped | PostgresStatus::Unreachable);
        answers.then_some(me)
    };
    watch(&shared, answers, |view| &mut view.no_session, |_| servers.postgres.admits()).await;
}

/// Asks main's. What its supervisor says of it counts as well: it also sees places that are kept for superusers.
pub(super) async fn watch_main(shared: Arc<Shared>, peers: Rc<dyn PeersPort>) {
    let answers = |view: &View| {
        let sight = view.main_sight.as_ref()?;
        (sight.evidence.postgres.is_good() || sight.evidence.supervisor.is_good()).then_some(sight.main)
    };
    let asked = |main: NodeId| {
        let said = shared.look(|view| view.main_refuses.clone());
        let peers = peers.clone();
        async move {
            match said {
                Some(words) => Err(NoReply::Silent(words)),
                None => peers.admits(main).await,
            }
        }
    };
    watch(&shared, answers, |view| &mut view.main_no_session, asked).await;
}

async fn watch<Asked: Future<Output = Result<(), NoReply>>>(
    shared: &Shared,
    answers: impl Fn(&View) -> Option<NodeId>,
    shown: impl Fn(&mut View) -> &mut Option<String>,
    ask: impl Fn(NodeId) -> Asked,
) {
    let mut attempts = Attempts::default();
    let mut asked_last = None;
    loop {
        let threshold_ms =
            shared.look(|view| shared.settings.failover.with(&view.cluster.settings).threshold_ms);
        let quarter = Duration::from_millis(threshold_ms / 4).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        // a failure is made sure of sooner: all of it fits into the threshold
        tokio::time::sleep(if attempts.failed.is_some() { quarter / 2 } else { quarter }).await;
        let node = shared.look(&answers);
        if node != asked_last || node.is_none() {
            // another server, or a server that does not answer: other events report that
            (asked_last, attempts) = (node, Attempts::default());
            shared.measured(|view| *shown(view) = None);
        }
        let Some(node) = node else { continue };
        let limit = quarter.min(shared.settings.probe_timeout);
        let attempt = tokio::time::timeout(limit, ask(node)).await;
        let attempt =
            attempt.unwrap_or_else(|_| Err(NoReply::Silent(format!("no answer within {} ms", ms(limit)))));
        // it may have ended meanwhile
        if shared.look(&answers) != Some(node) {
            continue;
        }
        let mut admits = true;
        shared.measured(|view| admits = shown(view).is_none());
        let Some(changed) = attempts.take(admits, attempt) else { continue };
        let detail = changed.as_ref().err().cloned();
        shared.measured(|view| shown(view).clone_from(&detail));
        let fact = AdmissionChanged { node, admits: changed.is_ok(), detail: detail.unwrap_or_default() };
        shared.record(Draft::new(shared.epoch(), fact));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Result<(), NoReply> {
        Err(NoReply::of_sqlstate("53300", "tut mir leid, schon zu viele Verbindungen"))
    }

    #[test]
    fn one_failed_attempt_is_nothing_two_in_a_row_are_told_once_and_so_is_the_end_of_it() {
        let mut attempts = Attempts::default();
        let mut admits = true;
        let mut told = Vec::new();
        let full_once = [full(), Ok(())];
        let full_for_long =
            [full(), full(), full(), Err(NoReply::Unknown(String::new())), full(), Ok(()), Ok(())];
        for attempt in full_once.into_iter().chain(full_for_long) {
            if let Some(changed) = attempts.take(admits, attempt) {
                admits = changed.is_ok();
                told.push(admits);
            }
        }
        assert_eq!(told, [false, true]);
    }
}
