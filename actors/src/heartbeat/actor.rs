//! The shell: it probes on every tick, hands what it sees to the decider, and stores what follows.

use std::{collections::BTreeMap, rc::Rc, sync::Arc, time::Duration};

use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, WrapFuture, fut};
use interrex_events::{Draft, NodeId, StepOutcome};
use tokio::sync::mpsc;

use super::{
    decider::{Input, Situation, Timing, Watch},
    lease::{Grant, LeasePort},
};
use crate::{
    barrier,
    env::Moment,
    journal::{Belief, Taken},
    messages::{Append, Claim, CloseWindows, Measured, Persisted, ProbeEnded, RunStep, StepReport},
    node::{Fatal, Shared},
    ports::PeersPort,
};

/// A probe that has not ended so long after its limit never will: its task died.
const LOST_PROBE: Duration = Duration::from_secs(5);
/// Facts that may wait for the journal.
const FACTS_LIMIT: usize = 256;
/// Pause before facts are stored again that the journal's actor did not live to confirm.
const STORE_AGAIN: Duration = Duration::from_millis(50);

/// Probes peers and judges main.
pub struct HeartbeatActor {
    shared: Arc<Shared>,
    peers: Rc<dyn PeersPort>,
    lease: Rc<dyn LeasePort>,
    belief: Belief,
    watch: Watch,
    /// To the one task that stores facts, in order.
    facts: mpsc::Sender<Vec<Draft>>,
    /// At most one probe of each peer is under way; since when.
    probing: BTreeMap<NodeId, Moment>,
}

impl HeartbeatActor {
    /// An instance whose fold is rebuilt from the journal. What it saw itself begins anew.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn rebuilt(
        shared: &Arc<Shared>,
        peers: &Rc<dyn PeersPort>,
        lease: &Rc<dyn LeasePort>,
    ) -> Result<Self, Fatal> {
        let belief = Belief::rebuilt(shared)?;
        Ok(Self {
            shared: shared.clone(),
            peers: peers.clone(),
            lease: lease.clone(),
            belief,
            watch: Watch::default(),
            facts: store_in_order(shared),
            probing: BTreeMap::new(),
        })
    }

    /// Connects the lines that lead here.
    pub fn bind(shared: &Shared, address: &Addr<Self>) {
        let lines = &shared.lines;
        lines.heartbeat_persisted.bind(address.clone().recipient());
        lines.measured.bind(address.clone().recipient());
        lines.probe_ended.bind(address.clone().recipient());
        lines.claim.bind(address.clone().recipient());
        lines.close_windows.bind(address.clone().recipient());
        lines.heartbeat_step.bind(address.clone().recipient());
    }

    fn timing(&self) -> Timing {
        let settings = &self.shared.settings;
        Timing {
            probe_interval: settings.probe_interval,
            probe_timeout: settings.probe_timeout,
            threshold_ms: settings.failover.with(&self.belief.cluster.settings).threshold_ms,
        }
    }

    fn take(&mut self, input: Input) {
        let timing = self.timing();
        let situation = Situation {
            me: self.shared.settings.me,
            cluster: &self.belief.cluster,
            standpoint: &self.belief.standpoint,
            timing: &timing,
            now: self.shared.env.moment(),
        };
        let verdict = self.watch.decide(situation, input);
        self.shared.measured(|view| (view.lag, view.main_silent_since) = (verdict.lag, verdict.silent_since));
        if verdict.facts.is_empty() {
            return;
        }
        if self.facts.try_send(verdict.facts).is_err() {
            // the disk has not answered for hundreds of facts: the journal's actor is ending the process
            tracing::error!("facts are dropped: the journal does not answer");
        }
    }

    fn tick(&mut self, context: &mut Context<Self>) {
        barrier::panic_if_asked("heartbeat");
        self.take(Input::Tick);
        let timing = self.timing();
        let peers: Vec<NodeId> = self.shared.settings.peers().map(|spec| spec.node).collect();
        for peer in peers {
            let now = self.shared.env.moment();
            let lost = |since: &Moment| {
                now.monotonic.saturating_sub(since.monotonic) > 2 * timing.probe_timeout + LOST_PROBE
            };
            if self.probing.get(&peer).is_none_or(lost) {
                self.probing.insert(peer, now);
                self.probe(peer);
            }
        }
        // an absolute schedule would answer a stall with a burst of ticks
        let pause = self.watch.until_next_probe(&timing, self.shared.env.moment());
        let next = fut::wrap_future::<_, Self>(tokio::time::sleep(pause));
        context.spawn(next.map(|(), actor, context| actor.tick(context)));
    }

    /// Asks everything that could speak for a peer at the same time; its databases only if it is main.
    fn probe(&self, peer: NodeId) {
        let (shared, peers) = (self.shared.clone(), self.peers.clone());
        let is_main = self.belief.cluster.nodes.is_main(peer);
        let limit = self.shared.settings.probe_timeout;
        tokio::task::spawn_local(async move {
            let began = shared.env.moment();
            let own = shared.report();
            let late = || format!("no answer within {limit:?}");
            let supervisor = async {
                tokio::time::timeout(limit, peers.exchange(peer, &own)).await.unwrap_or_else(|_| Err(late()))
            };
            let postgres = async {
                if !is_main {
                    return None;
                }
                Some(tokio::time::timeout(limit, peers.postgres(peer)).await.unwrap_or_else(|_| Err(late())))
            };
            let redis = async {
                if !is_main {
                    return None;
                }
                tokio::time::timeout(limit, peers.redis(peer)).await.unwrap_or_else(|_| Some(Err(late())))
            };
            let (supervisor, postgres, redis) = tokio::join!(supervisor, postgres, redis);
            if let Ok(report) = &supervisor {
                follow_clock(&shared, report.hlc);
            }
            let ended = shared.env.moment();
            shared.lines.probe_ended.tell(ProbeEnded { peer, began, ended, supervisor, postgres, redis });
        });
    }
}

/// Stores facts one after the other. The watch has moved on, so a fact that the journal's actor did not live to
/// confirm is stored again; twice does no harm. A journal that fails ends the process by itself.
fn store_in_order(shared: &Shared) -> mpsc::Sender<Vec<Draft>> {
    let (sender, mut queue) = mpsc::channel::<Vec<Draft>>(FACTS_LIMIT);
    let append = shared.lines.append.clone();
    tokio::task::spawn_local(async move {
        while let Some(facts) = queue.recv().await {
            while !matches!(append.ask(Append(facts.clone())).await, Ok(Ok(_))) {
                tokio::time::sleep(STORE_AGAIN).await;
            }
        }
    });
    sender
}

/// What is recorded here next comes after what the peer recorded.
fn follow_clock(shared: &Shared, remote: interrex_events::Hlc) {
    if let Err(too_far) = shared.journal.observe_clock(remote) {
        tracing::warn!(%too_far, "a peer's clock is not followed");
    }
}

impl Actor for HeartbeatActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.tick(context);
    }
}

impl Handler<Persisted> for HeartbeatActor {
    type Result = ();

    fn handle(&mut self, persisted: Persisted, context: &mut Self::Context) {
        for envelope in persisted.0.iter() {
            if self.belief.take(envelope) == Taken::AfterGap {
                return actix::ActorContext::terminate(context);
            }
        }
    }
}

impl Handler<ProbeEnded> for HeartbeatActor {
    type Result = ();

    fn handle(&mut self, probe: ProbeEnded, _: &mut Self::Context) {
        self.probing.remove(&probe.peer);
        self.take(Input::ProbeEnded(Box::new(probe)));
    }
}

impl Handler<Measured> for HeartbeatActor {
    type Result = ();

    fn handle(&mut self, measured: Measured, _: &mut Self::Context) {
        self.take(Input::Measured(Box::new(measured)));
    }
}

impl Handler<Claim> for HeartbeatActor {
    type Result = ();

    fn handle(&mut self, claim: Claim, _: &mut Self::Context) {
        self.take(Input::Claim(claim));
    }
}

impl Handler<RunStep> for HeartbeatActor {
    type Result = ();

    /// The step `win_epoch`: the lease is this actor's.
    fn handle(&mut self, order: RunStep, context: &mut Self::Context) {
        let (shared, lease) = (self.shared.clone(), self.lease.clone());
        let me = shared.settings.me;
        let work = async move {
            barrier::make_step(&shared, &order, async {
                match lease.win(me, order.run.epoch).await {
                    Grant::Granted { by } => StepReport::new(
                        StepOutcome::Succeeded,
                        format!("epoch {} granted by {by}", order.run.epoch),
                    )
                    .with("granted_by", by),
                    Grant::NobodyToAsk => StepReport::new(
                        StepOutcome::Succeeded,
                        format!(
                            "epoch {} taken; quorum none: nobody was asked (unprotected)",
                            order.run.epoch
                        ),
                    )
                    .with("protected", false),
                    Grant::Refused { reason } => StepReport::new(StepOutcome::Refused, reason),
                }
            })
            .await;
        };
        context.spawn(work.into_actor(self));
    }
}

impl Handler<CloseWindows> for HeartbeatActor {
    type Result = Vec<Draft>;

    fn handle(&mut self, _: CloseWindows, _: &mut Self::Context) -> Self::Result {
        let epoch = self.belief.cluster.nodes.epoch;
        let windows = self.watch.close_windows(self.shared.env.moment());
        windows.into_iter().map(|event| Draft::new(epoch, event)).collect()
    }
}
