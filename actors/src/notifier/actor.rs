//! The shell: it makes the steps that notify peers, dependents and hooks.

use std::{collections::BTreeMap, rc::Rc, sync::Arc, time::Duration};

use actix::{Actor, Addr, AsyncContext, Context, Handler, SpawnHandle, WrapFuture};
use interrex_events::{
    Head, Lsn, NodeStatus, OldMainFenced, PeersTold, PostgresStatus, RoleTaken, RunKind, StepId, StepOutcome,
    TimelineId,
};
use interrex_projections::Run;

use crate::{
    barrier,
    failover::what_speaks_against,
    messages::{MainSight, RunStep, StepReport},
    node::Shared,
    ports::{HookFacts, HooksPort, NoReply, NotFenced, PeersPort},
    replication::Servers,
    wire::{HandoverOffer, Notice, OfferAnswer},
};

/// How long before its limit an unanswered offer ends itself, with a message that says what a person can do.
const WORDS_BEFORE: Duration = Duration::from_secs(1);
/// Pause before a target that gives no answer is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Notifies peers, dependents and hooks.
pub struct NotifierActor {
    shared: Arc<Shared>,
    servers: Rc<Servers>,
    peers: Rc<dyn PeersPort>,
    hooks: Rc<dyn HooksPort>,
    /// One task a step: a new attempt ends the one before.
    steps: BTreeMap<StepId, SpawnHandle>,
}

impl NotifierActor {
    /// A new instance, without state.
    #[must_use]
    pub fn new(
        shared: &Arc<Shared>,
        servers: &Rc<Servers>,
        peers: &Rc<dyn PeersPort>,
        hooks: &Rc<dyn HooksPort>,
    ) -> Self {
        Self {
            shared: shared.clone(),
            servers: servers.clone(),
            peers: peers.clone(),
            hooks: hooks.clone(),
            steps: BTreeMap::new(),
        }
    }

    /// Binds the lines that end at this actor to this instance.
    pub fn bind(shared: &Shared, address: &Addr<Self>) {
        shared.lines.notifier_step.bind(address.clone().recipient());
    }
}

impl Actor for NotifierActor {
    type Context = Context<Self>;
}

impl Handler<RunStep> for NotifierActor {
    type Result = ();

    fn handle(&mut self, order: RunStep, context: &mut Self::Context) {
        let shared = self.shared.clone();
        let (servers, peers, hooks) = (self.servers.clone(), self.peers.clone(), self.hooks.clone());
        let step = order.step;
        if let Some(before) = self.steps.remove(&step) {
            context.cancel_future(before);
        }
        let work = async move {
            let run = order.run.clone();
            let effect = async {
                match order.step {
                    StepId::FenceOldMain => fence_old_main(&shared, &*peers, &run).await,
                    StepId::HandOver => hand_over(&shared, &*peers, &run, order.limit).await,
                    StepId::RestartDependents => restart_dependents(&shared, &servers).await,
                    StepId::NotifyPeers => notify_peers(&shared, &*peers, &run).await,
                    StepId::RunHooks => run_hooks(&*hooks, &run).await,
                    other => failed(format!("{other} is not a step of the NotifierActor")),
                }
            };
            barrier::make_step(&shared, &order, effect).await;
        };
        let handle = context.spawn(work.into_actor(self));
        self.steps.insert(step, handle);
    }
}

fn failed(detail: impl Into<String>) -> StepReport {
    StepReport::new(StepOutcome::Failed, detail)
}

/// A main that does not answer cannot be fenced from here: the step is skipped then, and says so. A main that answers and is not
/// stopped may be serving: the run must not go on.
async fn fence_old_main(shared: &Shared, peers: &dyn PeersPort, run: &Run) -> StepReport {
    if let Some(reason) = what_speaks_against(shared, peers, run).await {
        return StepReport::new(StepOutcome::Refused, reason);
    }
    if run.handover.is_some() {
        return offered(shared, peers, run).await;
    }
    match asked_to_stop(shared, peers, run).await {
        Ok(proof) => {
            StepReport::new(StepOutcome::Succeeded, format!("the old main stopped its servers: {proof}"))
                .observing(OldMainFenced { fenced: true })
        }
        Err(NotFenced::LaterEpoch(error)) => StepReport::new(StepOutcome::Refused, error),
        Err(NotFenced::NotProved(error)) => {
            failed(format!("the old main answers, but its servers are not proved to be stopped: {error}"))
        }
        Err(NotFenced::NoAnswer(error)) => {
            let detail = format!(
                "the old main's supervisor does not answer, so nothing proves that it is fenced: {error}"
            );
            StepReport::new(StepOutcome::Skipped, detail).observing(OldMainFenced { fenced: false })
        }
    }
}

/// The old main's own statement that it has stopped. A supervisor that did not answer the last probe is given no longer than
/// the time of another probe: a dead host does not answer at all.
async fn asked_to_stop(shared: &Shared, peers: &dyn PeersPort, run: &Run) -> Result<String, NotFenced> {
    let seen = |sight: &MainSight| sight.main == run.old_main && sight.supervisor_is_silent;
    let was_silent = shared.look(|view| view.main_sight.as_ref().is_some_and(seen));
    let fenced = peers.fence(run.old_main, run);
    if !was_silent {
        return fenced.await;
    }
    let (own, limit) = (shared.report(), shared.settings.probe_timeout);
    let silent = async {
        match tokio::time::timeout(limit, peers.exchange(run.old_main, &own)).await {
            Err(_) => NotFenced::NoAnswer(NoReply::late(limit).to_string()),
            // the supervisor answers, and needs its time to stop; or the other request fails as fast by itself
            Ok(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        fenced = fenced => fenced,
        silence = silent => Err(silence),
    }
}

/// A main that offered its role has stopped: it is asked again, because it may have taken its offer back.
async fn offered(shared: &Shared, peers: &dyn PeersPort, run: &Run) -> StepReport {
    let own = shared.report();
    let asked = tokio::time::timeout(shared.settings.probe_timeout, peers.exchange(run.old_main, &own));
    let answer = asked.await.unwrap_or_else(|_| Err(NoReply::late(shared.settings.probe_timeout)));
    match answer {
        Ok(report)
            if report.status == NodeStatus::HandingOver
                && report.postgres.status != PostgresStatus::Primary =>
        {
            StepReport::new(StepOutcome::Succeeded, "the old main has stopped and offers its role")
                .observing(OldMainFenced { fenced: true })
        }
        Ok(report) => StepReport::new(
            StepOutcome::Refused,
            format!(
                "the old main no longer offers its role: it is {}, and its PostgreSQL is {}",
                report.status, report.postgres.status
            ),
        ),
        Err(error) => {
            let words =
                format!("the old main had stopped when it offered its role; now it does not answer: {error}");
            StepReport::new(StepOutcome::Succeeded, words).observing(OldMainFenced { fenced: true })
        }
    }
}

/// Asks until the target has given a final answer: between the question and the answer no node may serve.
async fn hand_over(shared: &Shared, peers: &dyn PeersPort, run: &Run, limit: Duration) -> StepReport {
    let Some(handover) = run.handover.clone() else {
        return StepReport::new(
            StepOutcome::Refused,
            "the role cannot be offered: the step prove_handover has proved nothing",
        );
    };
    let name = shared.look(|view| view.cluster.nodes.name(run.new_main));
    let offer = HandoverOffer { from: run.old_main, epoch: run.epoch, handover };
    let mut heard = "no answer".to_owned();
    let still_asks = || {
        shared.look(|view| {
            view.cluster.runs.get(run.id).is_some_and(|run| run.step(StepId::HandOver).is_running())
        })
    };
    let answered = async {
        loop {
            // a person may have withdrawn the offer
            if !still_asks() {
                return StepReport::new(StepOutcome::Unknown, "the target is no longer asked");
            }
            match peers.take_over(run.new_main, &offer).await {
                Ok(OfferAnswer::Taken { timeline, switchpoint, head }) => {
                    return taken(&name, timeline, switchpoint, head);
                }
                Ok(OfferAnswer::Refused { reason }) => {
                    let words = format!("{name} did not take over: {reason}");
                    return StepReport::new(StepOutcome::Refused, words);
                }
                Ok(OfferAnswer::Pending) => heard = "it answers, but has not decided yet".to_owned(),
                Err(error) => heard = error,
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    };
    let in_time = tokio::time::timeout(limit.saturating_sub(WORDS_BEFORE), answered).await;
    in_time.unwrap_or_else(|_| {
        let words = format!(
            "whether {name} takes over is not known ({heard}): start the supervisor of {name}, which decides it. If {name} is gone \
             for good and never was main, on this node: interrex run cancel --force --reason TEXT"
        );
        StepReport::new(StepOutcome::Unknown, words)
    })
}

fn taken(name: &str, timeline: TimelineId, switchpoint: Option<Lsn>, head: Head) -> StepReport {
    StepReport::new(StepOutcome::Succeeded, format!("{name} is main, on timeline {timeline}"))
        .observing(RoleTaken { timeline, switchpoint, head: head.into() })
}

async fn restart_dependents(shared: &Shared, servers: &Servers) -> StepReport {
    let restarted = servers.dependents.restart().await;
    crate::replication::record_dependents(shared, servers).await;
    match restarted {
        Ok(took) if took.is_empty() => {
            StepReport::new(StepOutcome::Skipped, "no dependents are configured on this node")
        }
        Ok(took) => {
            let words: Vec<String> =
                took.iter().map(|(name, ms)| format!("{name} ready after {ms} ms")).collect();
            StepReport::new(StepOutcome::Succeeded, words.join(", "))
        }
        Err(error) => failed(error.to_string()),
    }
}

async fn notify_peers(shared: &Shared, peers: &dyn PeersPort, run: &Run) -> StepReport {
    let nodes = shared.look(|view| view.cluster.nodes.clone());
    let notice = Notice {
        cluster_id: shared.settings.cluster_id,
        from: run.new_main,
        main: run.new_main,
        epoch: run.epoch,
        timeline: nodes.timeline,
        switchpoint: shared.look(|view| view.standpoint.switchpoint),
        planned: Some(run.kind == RunKind::Takeover),
        hlc: shared.journal.tick_clock(),
    };
    let mut told = Vec::new();
    let mut silent = Vec::new();
    let mut others_silent = false;
    let notice = &notice;
    let answers =
        shared.settings.peers().map(|peer| async move { (peer, peers.notify(peer.node, notice).await) });
    for (peer, answer) in futures_util::future::join_all(answers).await {
        match answer {
            Ok(()) => told.push(peer.name.clone()),
            Err(error) => {
                // the old main is down in most failovers: that it was not reached is no failure of this run
                others_silent |= peer.node != run.old_main;
                silent.push(format!("{}: {error}", peer.name));
            }
        }
    }
    let later = "; each learns it from its next heartbeat, before it serves";
    let detail = match (told.is_empty(), silent.is_empty()) {
        (true, true) => "there are no peers".to_owned(),
        (_, true) => format!("accepted by {}", told.join(", ")),
        (true, _) => format!("not reached: {}{later}", silent.join(", ")),
        (false, false) => {
            format!("accepted by {}; not reached: {}{later}", told.join(", "), silent.join(", "))
        }
    };
    let outcome = match (others_silent, told.is_empty()) {
        (true, _) => StepOutcome::Failed,
        (false, true) => StepOutcome::Skipped,
        (false, false) => StepOutcome::Succeeded,
    };
    StepReport::new(outcome, detail).observing(PeersTold { told })
}

async fn run_hooks(hooks: &dyn HooksPort, run: &Run) -> StepReport {
    if hooks.count() == 0 {
        return StepReport::new(StepOutcome::Skipped, "no hooks are configured on this node");
    }
    let facts = HookFacts { run: run.id, epoch: run.epoch, new_main: run.new_main, old_main: run.old_main };
    match hooks.run(facts).await {
        Ok(words) => StepReport::new(StepOutcome::Succeeded, words.join("; ")),
        Err(error) => failed(error.to_string()),
    }
}
