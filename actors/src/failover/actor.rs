//! The shell around the decider: input, decide, persist, fold, act.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, ResponseFuture, WrapFuture, fut};
use interrex_events::{Draft, Event, NodeSeq, StepOutcome};
use tokio::sync::oneshot;

use super::{
    decider::{self, Effect, Input, Situation},
    orders::{Order, Orders},
    steps::{self, Maker, RETRY_PAUSE},
};
use crate::{
    journal::{Belief, Taken},
    messages::{
        Accepted, Append, Declined, Fence, FenceEnded, FenceRequest, Follow, LiftRequest, Operate, Persisted,
        RunStep, ServeAgain, Settled, StepEnded, StepReport, UndoEnded, UndoStep,
    },
    node::{Fatal, Shared},
    replication::{FENCE_LIMIT, FOLLOW_LIMIT},
};

/// Pause between two looks at a standing verdict: a rule such as the cool-down ends by itself.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Pause before fencing is tried again.
const FENCE_AGAIN: Duration = Duration::from_secs(10);
/// Pause before following a main is tried again.
const FOLLOW_AGAIN: Duration = Duration::from_secs(10);

/// Requests that may wait for their turn. A further request is refused, and its sender has to ask again.
const ASKED_LIMIT: usize = 16;

/// A sender that waits for the answer, which it gets once the decision is on disk.
type Answer = (oneshot::Sender<Result<Accepted, Declined>>, Accepted);

/// Starts, resumes and finishes runs.
pub struct FailoverActor {
    shared: Arc<Shared>,
    belief: Belief,
    waiting: VecDeque<Input>,
    /// Requests of people and peers, with the senders that wait for the answer.
    asked: VecDeque<(Operate, oneshot::Sender<Result<Accepted, Declined>>)>,
    orders: Orders,
    /// While facts are being stored nothing is decided: the next decision must see them.
    writing: bool,
    /// The newest fact of the last decision; it must be folded before the next one.
    must_fold: NodeSeq,
}

impl FailoverActor {
    /// An instance whose state is rebuilt from the journal.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn rebuilt(shared: &Arc<Shared>) -> Result<Self, Fatal> {
        let belief = Belief::rebuilt(shared)?;
        let waiting = VecDeque::from([Input::Booted]);
        let orders = Orders::default();
        Ok(Self {
            shared: shared.clone(),
            belief,
            waiting,
            asked: VecDeque::new(),
            orders,
            writing: false,
            must_fold: NodeSeq(0),
        })
    }

    /// Binds the lines that end at this actor to this instance.
    pub fn bind(shared: &Shared, address: &Addr<Self>) {
        let lines = &shared.lines;
        lines.failover_persisted.bind(address.clone().recipient());
        lines.step_ended.bind(address.clone().recipient());
        lines.undo_ended.bind(address.clone().recipient());
        lines.fence_request.bind(address.clone().recipient());
        lines.lift_request.bind(address.clone().recipient());
        lines.fence_ended.bind(address.clone().recipient());
        lines.operate.bind(address.clone().recipient());
        lines.settled.bind(address.clone().recipient());
    }

    /// While this node starts, it can be fenced, and nothing else is decided or done: what is outstanding is derived again
    /// once the start is settled.
    fn is_held(&self) -> bool {
        self.shared.look(|view| view.start.under_way)
    }

    fn next_input(&mut self) -> Option<Input> {
        if !self.is_held() {
            return self.waiting.pop_front();
        }
        let place = self.waiting.iter().position(Input::concerns_a_fence)?;
        self.waiting.remove(place)
    }

    fn take(&mut self, input: Input, context: &mut Context<Self>) {
        self.waiting.push_back(input);
        self.work(context);
    }

    /// Decides input after input, until facts have to be stored first.
    fn work(&mut self, context: &mut Context<Self>) {
        while !self.writing && self.belief.folded >= self.must_fold {
            if let Some(input) = self.next_input() {
                let facts = self.situated(|situation| decider::decide(situation, &input));
                self.store(facts, None, context);
            } else if self.is_held() {
                return;
            } else if let Some((request, answer)) = self.asked.pop_front() {
                match self.situated(|situation| decider::answer(situation, &request)) {
                    Ok((accepted, facts)) => self.store(facts, Some((answer, accepted)), context),
                    Err(declined) => {
                        // the sender may have given up waiting
                        let _ = answer.send(Err(declined));
                    }
                }
            } else {
                return;
            }
        }
    }

    fn situated<T>(&self, decide: impl FnOnce(Situation<'_>) -> T) -> T {
        let policy = self.shared.settings.failover.with(&self.belief.cluster.settings);
        let now = self.shared.env.moment();
        let (candidates, sight, resting) = self
            .shared
            .look(|view| (view.candidates.clone(), view.main_sight.clone(), view.deadlines.left(now)));
        decide(Situation {
            me: self.shared.settings.me,
            cluster: &self.belief.cluster,
            standpoint: &self.belief.standpoint,
            policy: &policy,
            candidates: &candidates,
            sight: sight.as_ref(),
            resting,
            now,
            fresh_run: self.shared.env.run_id(),
        })
    }

    /// Stores what was decided, and answers the sender of the request once it is on disk.
    fn store(&mut self, facts: Vec<Draft>, answer: Option<Answer>, context: &mut Context<Self>) {
        let told = |answer: Option<Answer>| {
            if let Some((answer, accepted)) = answer {
                let _ = answer.send(Ok(accepted));
            }
        };
        if facts.is_empty() {
            return told(answer);
        }
        self.writing = true;
        let append = self.shared.lines.append.clone();
        let stored = async move { append.ask(Append(facts)).await };
        context.spawn(stored.into_actor(self).map(move |stored, actor, context| {
            // an answer that never comes leaves the facts unknown: a new instance reads the journal
            let place = stored.ok().and_then(Result::ok);
            let Some(place) = place else { return actix::ActorContext::terminate(context) };
            (actor.writing, actor.must_fold) = (false, place);
            told(answer);
            actor.work(context);
        }));
    }

    fn act(&mut self, effect: &Effect) {
        if !effect.is_fence() && self.is_held() {
            return;
        }
        let lines = &self.shared.lines;
        let now = self.shared.env.moment();
        match *effect {
            Effect::RunStep(run, step, attempt) => {
                let Some(run) = self.belief.cluster.runs.get(run) else { return };
                let rule = steps::rule(run.kind, step);
                let pause = if attempt > 1 { RETRY_PAUSE } else { Duration::ZERO };
                let order = RunStep { run: Arc::new(run.clone()), step, attempt, limit: rule.limit(), pause };
                self.orders.give(Order::Step(run.id, step, attempt), rule.maker, now, rule.limit() + pause);
                match rule.maker {
                    Maker::Journal => {}
                    Maker::Heartbeat => lines.heartbeat_step.tell(order),
                    Maker::Replication => lines.replication_step.tell(order),
                    Maker::Notifier => lines.notifier_step.tell(order),
                }
            }
            Effect::UndoStep(run, step) => {
                let Some(run) = self.belief.cluster.runs.get(run) else { return };
                let limit = steps::rule(run.kind, step).limit();
                self.orders.give(Order::Undo(run.id, step), Maker::Replication, now, limit);
                lines.undo_step.tell(UndoStep { run: Arc::new(run.clone()), step, limit });
            }
            Effect::Fence { epoch, again } => {
                let pause = if again { FENCE_AGAIN } else { Duration::ZERO };
                self.orders.give(Order::Fence, Maker::Replication, now, FENCE_LIMIT + pause);
                lines.fence.tell(Fence { epoch, pause });
            }
            Effect::ServeAgain => lines.serve_again.tell(ServeAgain),
            Effect::Follow(main) => {
                self.orders.give(Order::Follow(main), Maker::Replication, now, FOLLOW_LIMIT);
                lines.follow.tell(Follow { main, returns: false });
            }
            Effect::ReturnTo(main) => {
                self.orders.give(Order::Follow(main), Maker::Replication, now, FOLLOW_LIMIT);
                lines.follow.tell(Follow { main, returns: true });
            }
            Effect::FollowLater(main) => {
                self.orders.give(Order::Follow(main), Maker::Replication, now, FOLLOW_AGAIN);
            }
            Effect::Look => self.waiting.push_back(Input::Looked),
        }
    }

    /// Orders that were lost on the way get the outcome `unknown`, or are given again.
    fn give_up_orders(&mut self) {
        for order in self.orders.overdue(self.shared.env.moment()) {
            let detail = "no outcome was reported: the actor that made the step failed".to_owned();
            match order {
                Order::Step(run, step, attempt) => {
                    let report = StepReport::new(StepOutcome::Unknown, detail);
                    self.waiting.push_back(Input::StepEnded(StepEnded {
                        run,
                        step,
                        attempt,
                        report,
                        took_ms: 0,
                    }));
                }
                Order::Undo(run, step) => {
                    self.waiting.push_back(Input::UndoEnded(UndoEnded { run, step, undone: false, detail }));
                }
                Order::Fence | Order::Follow(_) => {
                    for effect in decider::outstanding(self.shared.settings.me, &self.belief) {
                        self.act(&effect);
                    }
                }
            }
        }
    }

    /// A verdict that a rule held back, a switchover whose time has come, or a way back that begins by itself.
    fn waits_for_a_look(&self) -> bool {
        let now = self.shared.env.moment().wall;
        let scheduled = self.belief.cluster.runs.scheduled(self.shared.settings.me);
        let Shared { settings, .. } = &*self.shared;
        let returns =
            settings.failover.rejoin_automatically && self.belief.cluster.nodes.is_superseded(settings.me);
        self.belief.standpoint.verdict.is_some()
            || decider::main_beside(settings.me, &self.belief).is_some()
            || returns
            || scheduled.is_some_and(|it| it.switchover.due <= now)
    }

    /// Once in a while: lost orders, and what time alone decides.
    fn look_again(&mut self, context: &mut Context<Self>) {
        self.give_up_orders();
        if self.waiting.is_empty() && self.waits_for_a_look() {
            self.waiting.push_back(Input::Looked);
        }
        self.work(context);
        let again = fut::wrap_future::<_, Self>(tokio::time::sleep(LOOK_AGAIN));
        context.spawn(again.map(|(), actor, context| actor.look_again(context)));
    }
}

impl Actor for FailoverActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        for effect in decider::outstanding(self.shared.settings.me, &self.belief) {
            self.act(&effect);
        }
        self.look_again(context);
    }
}

impl Handler<Persisted> for FailoverActor {
    type Result = ();

    fn handle(&mut self, persisted: Persisted, context: &mut Self::Context) {
        let me = self.shared.settings.me;
        for envelope in persisted.0.iter() {
            match self.belief.take(envelope) {
                Taken::Known => continue,
                Taken::Folded => {}
                Taken::AfterGap => return actix::ActorContext::terminate(context),
            }
            match &envelope.event {
                Event::ActorRestarted(it) => self.orders.restarted(&it.actor, self.shared.env.moment()),
                Event::FollowFinished(it) => self.orders.answered(Order::Follow(it.main)),
                _ => {}
            }
            for effect in decider::effects(me, &self.belief, envelope.run_id, &envelope.event) {
                self.act(&effect);
            }
        }
        self.work(context);
    }
}

impl Handler<Settled> for FailoverActor {
    type Result = ();

    fn handle(&mut self, _: Settled, context: &mut Self::Context) {
        for effect in decider::outstanding(self.shared.settings.me, &self.belief) {
            self.act(&effect);
        }
        self.work(context);
    }
}

impl Handler<StepEnded> for FailoverActor {
    type Result = ();

    fn handle(&mut self, ended: StepEnded, context: &mut Self::Context) {
        self.orders.answered(Order::Step(ended.run, ended.step, ended.attempt));
        self.take(Input::StepEnded(ended), context);
    }
}

impl Handler<UndoEnded> for FailoverActor {
    type Result = ();

    fn handle(&mut self, ended: UndoEnded, context: &mut Self::Context) {
        self.orders.answered(Order::Undo(ended.run, ended.step));
        self.take(Input::UndoEnded(ended), context);
    }
}

impl Handler<FenceRequest> for FailoverActor {
    type Result = ();

    fn handle(&mut self, request: FenceRequest, context: &mut Self::Context) {
        // from outside: a request that waits already says the same
        let waits = self.waiting.iter().any(|input| matches!(input, Input::FenceRequested(_)));
        if !waits {
            self.take(Input::FenceRequested(request), context);
        }
    }
}

impl Handler<LiftRequest> for FailoverActor {
    type Result = ();

    fn handle(&mut self, request: LiftRequest, context: &mut Self::Context) {
        let waits = self.waiting.iter().any(|input| matches!(input, Input::LiftRequested(_)));
        if !waits {
            self.take(Input::LiftRequested(request), context);
        }
    }
}

impl Handler<FenceEnded> for FailoverActor {
    type Result = ();

    fn handle(&mut self, ended: FenceEnded, context: &mut Self::Context) {
        self.orders.answered(Order::Fence);
        self.take(Input::FenceEnded(ended), context);
    }
}

impl Handler<Operate> for FailoverActor {
    type Result = ResponseFuture<Result<Accepted, Declined>>;

    fn handle(&mut self, request: Operate, context: &mut Self::Context) -> Self::Result {
        let busy =
            || Declined::new("busy", "too many requests are waiting on this node: ask again".to_owned());
        if self.asked.len() >= ASKED_LIMIT {
            return Box::pin(async move { Err(busy()) });
        }
        let (answer, answered) = oneshot::channel();
        self.asked.push_back((request, answer));
        self.work(context);
        Box::pin(async move { answered.await.unwrap_or_else(|_| Err(busy())) })
    }
}
