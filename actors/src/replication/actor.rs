//! The shell: it measures on every tick, and carries out the orders of the FailoverActor: steps, fences and follows.

use std::{collections::BTreeMap, rc::Rc, sync::Arc, time::Duration};

use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, ResponseFuture, SpawnHandle, WrapFuture, fut,
};
use interrex_events::{
    DependentChanged, Draft, Event, FollowFinished, PostgresChanged, PostgresStatus, RedisChanged,
    RedisStatus, RunKind, StepId,
};

use super::{
    Servers, admission, handover_check, redis_role, rejoin, rejoin_check, relay::relay, serving, steps,
    stream_upkeep, switchover, withdrawing,
};
use crate::{
    barrier,
    env::Moment,
    messages::{Fence, FenceEnded, Follow, LookAhead, Measured, RunStep, ServeAgain, UndoEnded, UndoStep},
    node::Shared,
    ports::{PeersPort, PortError, PostgresMeasure},
    wire::{Check, PostgresFacts, RedisFacts, StreamFacts},
};

/// Readiness checks start programs: dependents that are ready are looked at less often than servers.
const READINESS_EVERY: Duration = Duration::from_secs(10);
/// The time limit of one attempt at fencing.
pub(crate) const FENCE_LIMIT: Duration = Duration::from_secs(60);
/// How long a standby may take to receive a new main's WAL before that is reported as a failure.
pub(crate) const FOLLOW_LIMIT: Duration = Duration::from_secs(60);
/// Pause between two looks at `cluster_events`: what is changed there by SQL takes effect within a second.
const RELAY_EVERY: Duration = Duration::from_millis(400);
/// When one relay is given up: rebuilding a projection of many years takes minutes.
const RELAY_LIMIT: Duration = Duration::from_secs(1_200);

/// Owns PostgreSQL and Redis.
pub struct ReplicationActor {
    shared: Arc<Shared>,
    servers: Rc<Servers>,
    peers: Rc<dyn PeersPort>,
    /// One task a step: a new attempt ends the one before.
    steps: BTreeMap<StepId, SpawnHandle>,
    postgres: Option<PostgresStatus>,
    redis: Option<RedisStatus>,
    ticks: u32,
    followed: Option<FollowFinished>,
    following: Option<SpawnHandle>,
    measuring: bool,
    /// Separate, because a Redis that hangs must not delay the measurement of PostgreSQL.
    measuring_redis: bool,
    /// Readiness checks start programs and may hang: one round at a time.
    checking: bool,
    fencing: bool,
}

impl ReplicationActor {
    /// An instance that begins to measure.
    #[must_use]
    pub fn new(shared: &Arc<Shared>, servers: &Rc<Servers>, peers: &Rc<dyn PeersPort>) -> Self {
        Self {
            shared: shared.clone(),
            servers: servers.clone(),
            peers: peers.clone(),
            steps: BTreeMap::new(),
            postgres: None,
            redis: None,
            ticks: 0,
            followed: None,
            following: None,
            measuring: false,
            measuring_redis: false,
            checking: false,
            fencing: false,
        }
    }

    /// Binds the lines that end at this actor to this instance.
    pub fn bind(shared: &Shared, address: &Addr<Self>) {
        let lines = &shared.lines;
        lines.replication_step.bind(address.clone().recipient());
        lines.undo_step.bind(address.clone().recipient());
        lines.look_ahead.bind(address.clone().recipient());
        lines.fence.bind(address.clone().recipient());
        lines.serve_again.bind(address.clone().recipient());
        lines.follow.bind(address.clone().recipient());
    }

    fn tick(&mut self, context: &mut Context<Self>) {
        barrier::panic_if_asked("replication");
        let interval = self.shared.settings.probe_interval;
        let every = |period: Duration| {
            u32::try_from(period.as_millis() / interval.as_millis().max(1)).unwrap_or(1).max(1)
        };
        if !self.measuring {
            self.measure(context);
        }
        let all_ready = self.shared.look(|view| {
            view.dependents.values().all(|facts| facts.status == interrex_events::DependentStatus::Ready)
        });
        let due = !all_ready || self.ticks.is_multiple_of(every(READINESS_EVERY));
        if due && !self.checking {
            self.measure_dependents(context);
        }
        self.ticks = self.ticks.wrapping_add(1);
        let next = fut::wrap_future::<_, Self>(tokio::time::sleep(interval));
        context.spawn(next.map(|(), actor, context| actor.tick(context)));
    }

    fn measure(&mut self, context: &mut Context<Self>) {
        self.measuring = true;
        let servers = self.servers.clone();
        let asked = self.shared.env.moment();
        let work = async move {
            // a panic here says nothing of the server
            barrier::caught(servers.postgres.measure()).await.unwrap_or_else(|words| PostgresMeasure {
                facts: PostgresFacts::silent(PostgresStatus::Unreachable, words.clone()),
                receiver_heard: None,
                no_reply: Some(crate::ports::NoReply::Unknown(words)),
            })
        };
        context.spawn(work.into_actor(self).map(move |postgres, actor, _| {
            actor.measuring = false;
            actor.take_measure(postgres, asked);
        }));
        if !self.measuring_redis {
            self.measure_redis(context);
        }
    }

    fn measure_redis(&mut self, context: &mut Context<Self>) {
        self.measuring_redis = true;
        let servers = self.servers.clone();
        let shared = self.shared.clone();
        let work = async move {
            let Some(redis) = &servers.redis else { return (RedisFacts::none(), false) };
            let measuring = async {
                let mut facts = redis.measure().await;
                let astray = redis_role::as_of_main(&shared, &servers, &mut facts).await;
                (facts, astray)
            };
            let measured = barrier::caught(measuring).await;
            measured.unwrap_or_else(|words| (RedisFacts::silent(RedisStatus::Unreachable, words), false))
        };
        context.spawn(work.into_actor(self).map(|(redis, astray), actor, _| {
            actor.measuring_redis = false;
            actor.take_redis(redis, astray);
        }));
    }

    fn take_redis(&mut self, redis: RedisFacts, astray: bool) {
        if self.redis.replace(redis.status) != Some(redis.status) && redis.status != RedisStatus::None {
            let (status, offset, detail) = (redis.status, redis.offset, redis.detail.clone());
            self.record(RedisChanged { status, offset, detail, alarm: redis.alarm || astray });
        }
        self.shared.measured(|view| (view.redis, view.redis_astray) = (redis, astray));
    }

    fn take_measure(&mut self, measure: crate::ports::PostgresMeasure, asked: Moment) {
        let crate::ports::PostgresMeasure { facts, receiver_heard, no_reply } = measure;
        // what this node lacks itself says nothing of the server: what was measured last stands, and grows old
        if let Some(unknown) = no_reply.filter(crate::ports::NoReply::is_unknown) {
            tracing::warn!(%unknown, "PostgreSQL could not be measured");
            return;
        }
        // what became of a directory is measured again once it is a standby's
        let is_news = self.shared.look(|view| view.standpoint.postgres.is_none());
        if self.postgres.replace(facts.status) != Some(facts.status) || is_news {
            let (status, timeline, lsn, detail) =
                (facts.status, facts.timeline, facts.lsn, facts.detail.clone());
            self.record(PostgresChanged { status, timeline, lsn, detail });
        }
        self.shared.measured(|view| {
            view.postgres.clone_from(&facts);
            view.postgres_asked_at = Some(asked);
        });
        let redis = self.shared.look(|view| view.redis.clone());
        let at = self.shared.env.moment();
        self.shared.lines.measured.tell(Measured { at, postgres: facts, receiver_heard, redis });
    }

    fn record(&self, event: impl Into<Event>) {
        self.shared.record(Draft::new(self.shared.epoch(), event));
    }

    fn measure_dependents(&mut self, context: &mut Context<Self>) {
        self.checking = true;
        let (shared, servers) = (self.shared.clone(), self.servers.clone());
        let work = async move {
            // the next round looks again
            let _ = barrier::caught(record_dependents(&shared, &servers)).await;
        };
        context.spawn(work.into_actor(self).map(|(), actor, _| actor.checking = false));
    }

    /// A main keeps `cluster_events` up to date with the journals it holds, and handles the requests that are stored there.
    fn keep_relaying(&mut self, context: &mut Context<Self>) {
        let (shared, servers) = (self.shared.clone(), self.servers.clone());
        let work = async move {
            if serves(&shared) {
                let late = || Err(PortError(format!("not done within {RELAY_LIMIT:?}")));
                let relaying = barrier::caught(relay(&shared, &servers));
                let relayed = tokio::time::timeout(RELAY_LIMIT, relaying).await;
                let relayed = relayed.map(|caught| caught.unwrap_or_else(|panic| Err(PortError(panic))));
                let facts = relayed.unwrap_or_else(|_| late()).unwrap_or_else(|error| StreamFacts {
                    problems: vec![error.to_string()],
                    ..StreamFacts::default()
                });
                shared.set_stream(facts);
            }
            tokio::time::sleep(RELAY_EVERY).await;
        };
        context.spawn(work.into_actor(self).map(|(), actor, context| actor.keep_relaying(context)));
    }
}

fn serves(shared: &Shared) -> bool {
    shared.look(|view| {
        let nodes = &view.cluster.nodes;
        let me = shared.settings.me;
        let confirmed = nodes.is_main(me) && !nodes.is_superseded(me) && !view.start.under_way;
        confirmed && view.postgres.status == PostgresStatus::Primary
    })
}

/// Looks at the dependents, shows them, and records those that changed.
pub(crate) async fn record_dependents(shared: &Shared, servers: &Servers) {
    let now = servers.dependents.measure().await;
    let before = shared.look(|view| view.dependents.clone());
    for (name, facts) in &now {
        if before.get(name).map(|facts| facts.status) != Some(facts.status) {
            let (name, status, detail) = (name.clone(), facts.status, facts.detail.clone());
            shared.record(Draft::new(shared.epoch(), DependentChanged { name, status, detail }));
        }
    }
    shared.measured(|view| view.dependents = now);
}

impl Actor for ReplicationActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.tick(context);
        self.keep_relaying(context);
        let sealing = stream_upkeep::keep_sealing(self.shared.clone(), self.servers.clone());
        context.spawn(sealing.into_actor(self));
        let following = stream_upkeep::keep_following(self.shared.clone(), self.servers.clone());
        context.spawn(following.into_actor(self));
        let own = admission::watch_own(self.shared.clone(), self.servers.clone());
        context.spawn(own.into_actor(self));
        let mains = admission::watch_main(self.shared.clone(), self.peers.clone());
        context.spawn(mains.into_actor(self));
        let (shared, servers) = (self.shared.clone(), self.servers.clone());
        let one_master = async move { redis_role::keep_one_master(&shared, &servers).await };
        context.spawn(one_master.into_actor(self));
    }
}

impl Handler<RunStep> for ReplicationActor {
    type Result = ();

    fn handle(&mut self, order: RunStep, context: &mut Self::Context) {
        let (shared, servers, peers) = (self.shared.clone(), self.servers.clone(), self.peers.clone());
        let step = order.step;
        if let Some(before) = self.steps.remove(&step) {
            context.cancel_future(before);
        }
        // what the step clears must stay so
        if let Some(following) = self.following.take_if(|_| step == StepId::Detach) {
            context.cancel_future(following);
        }
        let work = async move {
            let effect = Box::pin(steps::make(&shared, &servers, &*peers, &order.run, order.step));
            barrier::make_step(&shared, &order, effect).await;
        };
        let handle = context.spawn(work.into_actor(self).map(|(), actor, context| {
            // what a step changed is shown at once, not at the next tick
            if !actor.measuring {
                actor.measure(context);
            }
        }));
        self.steps.insert(step, handle);
    }
}

impl Handler<UndoStep> for ReplicationActor {
    type Result = ();

    fn handle(&mut self, order: UndoStep, context: &mut Self::Context) {
        let (shared, servers, peers) = (self.shared.clone(), self.servers.clone(), self.peers.clone());
        // an attempt that was given up must not do what is being taken back
        if let Some(attempt) = self.steps.remove(&order.step) {
            context.cancel_future(attempt);
        }
        let work = async move {
            let undo = async {
                match order.step {
                    StepId::FenceOldMain => serving::undo_fence(&*peers, &order.run).await,
                    StepId::Detach => steps::undo_detach(&shared, &servers, &order.run).await,
                    StepId::Promote => withdrawing::withdraw(&servers, &order.run).await,
                    StepId::CheckLineage => rejoin::undo_check(&shared, &servers).await,
                    StepId::StopMain => switchover::undo_stop_main(&shared, &servers, &*peers).await,
                    other => Err(PortError(format!("{other} has no undo"))),
                }
            };
            let late = || Err(PortError(format!("not done within {:?}", order.limit)));
            let undone = tokio::time::timeout(order.limit, barrier::caught(undo)).await;
            let result =
                undone.map_or_else(|_| late(), |caught| caught.unwrap_or_else(|panic| Err(PortError(panic))));
            let undone = result.is_ok();
            let detail = result.unwrap_or_else(|error| error.to_string());
            shared.lines.undo_ended.tell(UndoEnded { run: order.run.id, step: order.step, undone, detail });
        };
        context.spawn(work.into_actor(self));
    }
}

impl Handler<LookAhead> for ReplicationActor {
    type Result = ResponseFuture<Vec<Check>>;

    fn handle(&mut self, question: LookAhead, _: &mut Self::Context) -> Self::Result {
        let (shared, servers, peers) = (self.shared.clone(), self.servers.clone(), self.peers.clone());
        let look = async move {
            match question.kind {
                RunKind::Switchover => {
                    handover_check::look(&shared, &servers, &*peers, question.new_main).await
                }
                RunKind::Promotion => {
                    let loss = steps::look_at_loss(&shared, &servers, question.insists).await;
                    vec![loss, steps::look_at_settings(&servers).await]
                }
                RunKind::Rejoin => {
                    let checks =
                        rejoin_check::look(&shared, &servers, question.new_main, question.insists).await;
                    servers.leave_main();
                    checks
                }
                // no run asks for these
                RunKind::Failover | RunKind::Takeover => Vec::new(),
            }
        };
        Box::pin(async move {
            barrier::caught(look).await.unwrap_or_else(|panic| vec![Check::unknown("looking ahead", panic)])
        })
    }
}

impl Handler<Fence> for ReplicationActor {
    type Result = ();

    fn handle(&mut self, order: Fence, context: &mut Self::Context) {
        if std::mem::replace(&mut self.fencing, true) {
            return;
        }
        let (shared, servers) = (self.shared.clone(), self.servers.clone());
        let work = async move {
            tokio::time::sleep(order.pause).await;
            let late = || Err(PortError(format!("not done within {FENCE_LIMIT:?}")));
            let stop = async {
                let _none_starts = servers.in_use.starting.lock().await;
                serving::fence(&shared, &servers).await
            };
            let stopped = tokio::time::timeout(FENCE_LIMIT, barrier::caught(stop)).await;
            let stopped = stopped
                .map_or_else(|_| late(), |caught| caught.unwrap_or_else(|panic| Err(PortError(panic))));
            let result = stopped.map_err(|error| error.to_string());
            shared.lines.fence_ended.tell(FenceEnded { epoch: order.epoch, result });
        };
        context.spawn(work.into_actor(self).map(|(), actor, _| actor.fencing = false));
    }
}

impl Handler<ServeAgain> for ReplicationActor {
    type Result = ();

    fn handle(&mut self, _: ServeAgain, context: &mut Self::Context) {
        let (shared, servers, peers) = (self.shared.clone(), self.servers.clone(), self.peers.clone());
        let work = async move {
            // what does not serve by it is seen by the next measurement
            let _ = barrier::caught(serving::serve_again(&shared, &servers, &*peers)).await;
        };
        context.spawn(work.into_actor(self));
    }
}

impl Handler<Follow> for ReplicationActor {
    type Result = ();

    fn handle(&mut self, order: Follow, context: &mut Self::Context) {
        let (shared, servers) = (self.shared.clone(), self.servers.clone());
        let work = async move {
            let (nodes, switchpoint) =
                shared.look(|view| (view.cluster.nodes.clone(), view.standpoint.switchpoint));
            let following = async {
                if order.returns {
                    steps::return_to(&servers, &nodes, order.main, FOLLOW_LIMIT).await
                } else {
                    let (me, main) = (shared.settings.me, order.main);
                    steps::follow(&servers, &nodes, switchpoint, (me, main), FOLLOW_LIMIT).await
                }
            };
            let result = barrier::caught(following).await.unwrap_or_else(|panic| Err(PortError(panic)));
            let (streaming, detail) = result.unwrap_or_else(|error| (false, error.to_string()));
            FollowFinished { main: order.main, streaming, detail }
        };
        if let Some(before) = self.following.take() {
            context.cancel_future(before);
        }
        let following = context.spawn(work.into_actor(self).map(|finished, actor, _| {
            actor.following = None;
            // it is tried again and again; what comes to the same is recorded once
            if actor.followed.as_ref() != Some(&finished) {
                actor.followed = Some(finished.clone());
                actor.record(finished);
            }
        }));
        self.following = Some(following);
    }
}
