//! The shell: it probes on every tick, hands what it sees to the decider, and stores what follows.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, WrapFuture, fut};
use interrex_events::{
    ClockSkewObserved, Draft, EpochWon, Event, HlcClock, JournalForked, NodeId, RunKind, StepOutcome,
};
use tokio::sync::mpsc;

use super::{
    asking::ask_the_others,
    decider::{Input, Situation, Timing, Watch},
    lease::{Grant, LeasePort},
};
use crate::{
    barrier,
    env::Moment,
    journal::{Belief, Taken, copies},
    messages::{
        Append, Claim, CloseWindows, Measured, Persisted, ProbeEnded, RunStep, SettingsHeard, StepReport,
    },
    node::{Fatal, Shared},
    ports::{NoReply, PeersPort},
    wire::NodeReport,
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
    /// Peers to be probed again as soon as the probe that is under way has ended: it says what was, not what is.
    probe_again: BTreeSet<NodeId>,
    /// Peers whose journals are being taken over.
    taking_over: BTreeSet<NodeId>,
    /// Peers whose clocks are too far from this node's, as recorded.
    skewed: BTreeSet<NodeId>,
    /// Forked journals that are recorded already, and where each was found.
    forked: BTreeSet<(NodeId, String)>,
}

impl HeartbeatActor {
    /// An instance whose fold is rebuilt from the journal. Its own observations begin again.
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
            probe_again: BTreeSet::new(),
            taking_over: BTreeSet::new(),
            skewed: BTreeSet::new(),
            forked: BTreeSet::new(),
        })
    }

    /// Binds the lines that end at this actor to this instance.
    pub fn bind(shared: &Shared, address: &Addr<Self>) {
        let lines = &shared.lines;
        lines.heartbeat_persisted.bind(address.clone().recipient());
        lines.measured.bind(address.clone().recipient());
        lines.probe_ended.bind(address.clone().recipient());
        lines.claim.bind(address.clone().recipient());
        lines.settings_heard.bind(address.clone().recipient());
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
        let opened = self.shared.opened();
        let situation = Situation {
            me: self.shared.settings.me,
            cluster: &self.belief.cluster,
            standpoint: &self.belief.standpoint,
            opened: &opened,
            timing: &timing,
            now: self.shared.env.moment(),
        };
        let verdict = self.watch.decide(situation, input);
        self.shared.measured(|view| {
            (view.lag, view.main_sight) = (verdict.lag, verdict.sight);
            view.main_refuses = verdict.no_session;
        });
        self.state(verdict.facts);
    }

    fn state(&self, facts: Vec<Draft>) {
        if !facts.is_empty() && self.facts.try_send(facts).is_err() {
            // the disk has not answered for hundreds of facts: the journal's actor is ending the process
            tracing::error!("facts are dropped: the journal does not answer");
        }
    }

    fn fact(&self, event: impl Into<Event>) -> Vec<Draft> {
        vec![Draft::new(self.belief.cluster.nodes.epoch, event)]
    }

    fn tick(&mut self, context: &mut Context<Self>) {
        barrier::panic_if_asked("heartbeat");
        self.take(Input::Tick);
        self.probe_all();
        // an absolute schedule would answer a stall with a burst of ticks
        let pause = self.watch.until_next_probe(&self.timing(), self.shared.env.moment());
        let next = fut::wrap_future::<_, Self>(tokio::time::sleep(pause));
        context.spawn(next.map(|(), actor, context| actor.tick(context)));
    }

    fn probe_all(&mut self) {
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
    }

    /// What is recorded here next comes after what the peer recorded, unless its clock is out of the question.
    fn follow_clock(&mut self, report: &NodeReport) {
        let limit_ms = HlcClock::DEFAULT_LIMIT_MS;
        let ahead_ms = match self.shared.journal.observe_clock(report.hlc) {
            Ok(()) => report.hlc.wall_ms() - self.shared.env.moment().wall.timestamp_millis(),
            Err(too_far) => too_far.ahead_ms,
        };
        if ahead_ms.abs() <= limit_ms {
            self.skewed.remove(&report.node);
        } else if self.skewed.insert(report.node) {
            self.state(self.fact(ClockSkewObserved { peer: report.node, ahead_ms, limit_ms }));
        }
    }

    /// Fetches what a peer's journals hold and this node's lack, one round at a time for each peer.
    fn take_over(&mut self, report: Arc<NodeReport>, context: &mut Context<Self>) {
        if !self.taking_over.insert(report.node) {
            return;
        }
        let (shared, peers) = (self.shared.clone(), self.peers.clone());
        let peer = report.node;
        let work = async move { copies::take_over(&shared, &*peers, &report).await };
        context.spawn(work.into_actor(self).map(move |outcome, actor, _| {
            actor.taking_over.remove(&peer);
            for problem in outcome.problems {
                tracing::warn!(problem, %peer, "a peer's journals were not taken over");
            }
            for forked in outcome.forked {
                actor.report_fork(forked);
            }
        }));
    }

    /// Of a peer's forked journal nothing more is taken; a fork of one's own ends the process.
    fn report_fork(&mut self, forked: JournalForked) {
        if self.forked.insert((forked.node, forked.found_at.clone())) {
            tracing::error!("{}", forked.in_words());
            self.state(self.fact(forked.clone()));
        }
        if forked.node == self.shared.settings.me {
            self.shared.give_up(Fatal::Forked(forked));
        }
    }

    /// Asks a peer's supervisor and, if it is main, its databases, all at the same time.
    fn probe(&self, peer: NodeId) {
        let (shared, peers) = (self.shared.clone(), self.peers.clone());
        let is_main = self.belief.cluster.nodes.is_main(peer);
        let limit = self.shared.settings.probe_timeout;
        tokio::task::spawn_local(async move {
            let began = shared.env.moment();
            let own = shared.report();
            let late = || NoReply::late(limit);
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
            let ended = shared.env.moment();
            let is_silent = matches!(supervisor, Err(NoReply::Silent(_)));
            shared.lines.probe_ended.tell(ProbeEnded { peer, began, ended, supervisor, postgres, redis });
            look_for_a_writer(&shared, &*peers, peer, is_silent).await;
        });
    }
}

/// A peer's PostgreSQL whose supervisor is silent may take writes although this node is main. Nothing stops it, so this node
/// reports it.
async fn look_for_a_writer(shared: &Shared, peers: &dyn PeersPort, peer: NodeId, is_silent: bool) {
    let is_beside_main = is_silent && shared.look(|view| view.cluster.nodes.is_main(shared.settings.me));
    let writes = is_beside_main && {
        let asked = tokio::time::timeout(shared.settings.probe_timeout, peers.postgres(peer)).await;
        matches!(asked, Ok(Ok(postgres)) if postgres.writable)
    };
    if shared.look(|view| view.writers.contains(&peer)) != writes {
        shared.measured(|view| {
            if writes {
                view.writers.insert(peer)
            } else {
                view.writers.remove(&peer)
            };
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
            if matches!(envelope.event, Event::SettingsChanged(_)) {
                // at once, not at the next tick: every node acts by them within a second
                self.probe_again.extend(self.probing.keys());
                self.probe_all();
            }
        }
    }
}

impl Handler<ProbeEnded> for HeartbeatActor {
    type Result = ();

    fn handle(&mut self, probe: ProbeEnded, context: &mut Self::Context) {
        self.probing.remove(&probe.peer);
        let refusal = match &probe.supervisor {
            Err(NoReply::Refused { words, .. }) => Some(words.clone()),
            _ => None,
        };
        if self.shared.look(|view| view.refusals.get(&probe.peer) != refusal.as_ref()) {
            self.shared.measured(|view| match refusal {
                Some(words) => drop(view.refusals.insert(probe.peer, words)),
                None => drop(view.refusals.remove(&probe.peer)),
            });
        }
        if let Ok(report) = &probe.supervisor {
            self.shared.measured(|view| {
                view.candidates.insert(report.node, report.candidate);
            });
            self.follow_clock(report);
            self.take_over(report.clone(), context);
            if let Some((settings, stamp)) = report.settings {
                self.take(Input::SettingsHeard(SettingsHeard { from: report.node, settings, stamp }));
            }
        }
        let peer = probe.peer;
        self.take(Input::ProbeEnded(Box::new(probe)));
        if self.probe_again.remove(&peer) {
            self.probing.insert(peer, self.shared.env.moment());
            self.probe(peer);
        }
    }
}

impl Handler<SettingsHeard> for HeartbeatActor {
    type Result = ();

    fn handle(&mut self, heard: SettingsHeard, _: &mut Self::Context) {
        self.take(Input::SettingsHeard(heard));
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
        let (shared, lease, peers) = (self.shared.clone(), self.lease.clone(), self.peers.clone());
        let me = shared.settings.me;
        let work = async move {
            barrier::make_step(&shared, &order, async {
                // a main that hands over says itself who takes its place
                let others = match order.run.kind {
                    RunKind::Takeover => Ok(Vec::new()),
                    _ => ask_the_others(&shared, &*peers, &order.run).await,
                };
                let others = match others {
                    Ok(others) if others.is_empty() => String::new(),
                    Ok(others) => format!("; agreed: {}", others.join(", ")),
                    Err(reason) => return StepReport::new(StepOutcome::Refused, reason),
                };
                match lease.win(me, order.run.epoch).await {
                    Grant::Granted { by } => StepReport::new(
                        StepOutcome::Succeeded,
                        format!("epoch {} granted by {by}{others}", order.run.epoch),
                    )
                    .observing(EpochWon { granted_by: Some(by), protected: None }),
                    Grant::NobodyToAsk => StepReport::new(
                        StepOutcome::Succeeded,
                        format!("epoch {} taken; quorum none (unprotected){others}", order.run.epoch),
                    )
                    .observing(EpochWon { granted_by: None, protected: Some(false) }),
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
