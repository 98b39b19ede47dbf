//! A node's report of itself, and its problems: what keeps it from doing what its role demands.

use std::sync::atomic::Ordering;

use interrex_events::{DependentStatus, NodeId, PostgresStatus, RedisStatus, Role};

use super::{Shared, View};
use crate::{
    env::Moment,
    failover::resting::why_it_rests,
    messages::MainSight,
    wire::{ActorFacts, NodeReport, Rest},
};

impl Shared {
    /// The report of this node now.
    #[must_use]
    pub fn report(&self) -> NodeReport {
        let now = self.env.moment();
        let me = self.settings.me;
        let view = self.view();
        let nodes = &view.cluster.nodes;
        let row = nodes.get(me);
        let role = row.map_or(self.settings.initial_role, |row| row.role);
        let problems = problems(&view, me, role);
        NodeReport {
            cluster_id: self.settings.cluster_id,
            node: me,
            name: self.settings.name.clone(),
            role,
            status: row.map(|row| row.status).unwrap_or_default(),
            epoch: nodes.epoch,
            main: nodes.main,
            switchpoint: view.standpoint.switchpoint,
            planned: view.standpoint.rests.planned,
            rests: rest(&view, me, now),
            healthy: problems.is_empty(),
            problems,
            postgres: view.postgres.clone(),
            postgres_age_ms: view.postgres_asked_at.map(|asked| now.ms_since(asked)),
            no_session: view.no_session.clone(),
            main_no_session: view.main_no_session.clone(),
            redis: view.redis.clone(),
            dependents: view.dependents.clone(),
            lag: view.lag,
            main_silent_ms: view.main_sight.as_ref().map(|sight| now.ms_since(sight.silent_since)),
            main_unseen: view.main_sight.as_ref().is_some_and(MainSight::is_unseen),
            threshold_ms: self.settings.failover.with(&view.cluster.settings).threshold_ms,
            quorum: self.settings.failover.quorum.to_owned(),
            candidate: self.settings.failover.candidate,
            run: view.cluster.runs.active(me).map(|run| {
                let steps = run.steps.iter().filter(|(_, step)| step.is_running()).map(|(id, _)| *id);
                (run.id, steps.collect())
            }),
            taking_over: Some(view.cluster.runs.active(me).is_some_and(|run| run.new_main == me)),
            journal_heads: self.journal.heads(),
            copying: view.copying,
            stream: view.stream.clone().filter(|_| nodes.is_main(me)),
            settings: view.cluster.settings.changed.map(|changed| (changed, view.cluster.settings.stamp)),
            hlc: self.journal.tick_clock(),
            uptime_ms: now.ms_since(self.started),
            actors: self
                .restarts
                .iter()
                .map(|(name, restarts)| {
                    let dropped =
                        self.lines.dropped.get(name).map_or(0, |count| count.load(Ordering::Relaxed));
                    let facts = ActorFacts { restarts: restarts.load(Ordering::Relaxed), dropped };
                    ((*name).to_owned(), facts)
                })
                .collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// How long a secondary may not promote itself, and the reason.
fn rest(view: &View, me: NodeId, now: Moment) -> Option<Rest> {
    if view.cluster.nodes.is_main(me) {
        return None;
    }
    let (left_ms, because) =
        why_it_rests(&view.standpoint.rests, &view.cluster.nodes, view.deadlines.left(now))?;
    Some(Rest { left_ms, because })
}

/// The problems of a node: what keeps it from doing what its role demands.
fn problems(view: &View, me: NodeId, role: Role) -> Vec<String> {
    let mut problems = Vec::new();
    if view.cluster.nodes.is_superseded(me) {
        problems.push(format!(
            "superseded by epoch {}: fenced until this node has rejoined",
            view.cluster.nodes.epoch
        ));
    }
    let (wanted_postgres, wanted_redis) = match role {
        Role::Main | Role::Standalone => (PostgresStatus::Primary, RedisStatus::Master),
        Role::Secondary => (PostgresStatus::Streaming, RedisStatus::Linked),
    };
    problems.extend(view.start.problem.clone());
    if view.postgres.status != wanted_postgres {
        problems.push(with_detail(format!("PostgreSQL is {}", view.postgres.status), &view.postgres.detail));
    }
    if let Some(words) = &view.no_session {
        problems.push(format!("PostgreSQL answers open sessions and admits no new one: {words}"));
    }
    for peer in &view.writers {
        problems.push(format!(
            "TWO MAINS: the PostgreSQL of {name} takes writes, although this node is main, and the supervisor of {name} does not \
             answer. Start that supervisor, which stops it (on {name}: systemctl start interrex)",
            name = view.cluster.nodes.name(*peer)
        ));
    }
    for (peer, reason) in &view.refusals {
        problems.push(format!(
            "the supervisor of {} refuses this node: {reason}; the two nodes exchange no reports",
            view.cluster.nodes.name(*peer)
        ));
    }
    if view.redis.status != wanted_redis && view.redis.status != RedisStatus::None {
        problems.push(with_detail(format!("Redis is {}", view.redis.status), &view.redis.detail));
    }
    if let Some(stream) = view.stream.as_ref().filter(|_| view.cluster.nodes.is_main(me)) {
        problems.extend(stream.problems.iter().map(|problem| format!("cluster_events: {problem}")));
        problems.extend(
            stream.paused.iter().map(|name| format!("{name} is paused: it does not show the present state")),
        );
    }
    for (name, facts) in &view.dependents {
        if facts.status != DependentStatus::Ready {
            problems.push(with_detail(format!("{name} is {}", facts.status), &facts.detail));
        }
    }
    problems
}

fn with_detail(text: String, detail: &str) -> String {
    if detail.is_empty() { text } else { format!("{text}: {detail}") }
}
