//! What supervisors see: their own servers, each other, and main's PostgreSQL. The real watch judges it.

use std::time::Duration;

use interrex_events::*;

use super::{
    cluster::{Cluster, TIMING, no_redis},
    supervisor::Supervisor,
};
use crate::{
    failover::decider::{Input, main_beside},
    heartbeat::decider as heartbeat,
    messages::{Claim, Measured, ProbeEnded},
    ports::NoReply,
    wire::PostgresFacts,
};

impl Cluster {
    /// The HeartbeatActor's part: what it sees and hears.
    pub(super) fn watch(&mut self, node: NodeId, input: heartbeat::Input) {
        let opened = self.opened(node);
        let Supervisor { node: own, watch, .. } = self.of_mut(node);
        let situation = heartbeat::Situation {
            me: node,
            opened: &opened,
            cluster: &own.belief.cluster,
            standpoint: &own.belief.standpoint,
            timing: &TIMING,
            now: own.now,
        };
        let judgement = watch.decide(situation, input);
        own.sight = judgement.sight;
        for draft in judgement.facts {
            self.store(node, draft.event, None);
        }
    }

    /// Somebody tells a node who is main.
    pub(super) fn announce(&mut self, node: NodeId, claim: Claim) {
        self.watch(node, heartbeat::Input::Claim(claim));
    }

    pub(super) fn measure(&mut self, node: NodeId) {
        let postgres = self.postgres_facts(node);
        let redis = if self.world.of(node).redis { RedisStatus::Master } else { RedisStatus::Stopped };
        let PostgresFacts { status, timeline, lsn, .. } = postgres;
        if self.of_mut(node).measured.0.replace(status) != Some(status) {
            self.store(node, PostgresChanged { status, timeline, lsn, detail: String::new() }, None);
        }
        if self.of_mut(node).measured.1.replace(redis) != Some(redis) {
            let detail = String::new();
            self.store(node, RedisChanged { status: redis, offset: None, detail, alarm: false }, None);
        }
        let receiver_heard = self.world.upstream(node).map(|_| Duration::ZERO);
        let at = self.of(node).node.now;
        let measured = Measured { at, postgres, receiver_heard, redis: no_redis() };
        self.watch(node, heartbeat::Input::Measured(Box::new(measured)));
    }

    /// Every peer is asked, and so is main's PostgreSQL.
    pub(super) fn probe(&mut self, node: NodeId) {
        let due = if self.probes { self.peers(node) } else { Vec::new() };
        for peer in due {
            let is_main = self.of(node).main() == Some(peer);
            let now = self.of(node).node.now;
            let supervisor = self.asked(node, self.report(node, peer));
            if let Ok(report) = &supervisor {
                self.of_mut(node).node.candidates.insert(peer, report.candidate);
            }
            let probe = ProbeEnded {
                peer,
                began: now,
                ended: now,
                supervisor,
                postgres: is_main.then(|| self.asked(node, self.asked_postgres(node, peer))),
                redis: None,
            };
            self.watch(node, heartbeat::Input::ProbeEnded(Box::new(probe)));
        }
    }

    fn asked<T>(&self, node: NodeId, answer: Result<T, String>) -> Result<T, NoReply> {
        if self.cannot_ask == Some(node) {
            return Err(NoReply::Unknown("it has no file descriptors left".to_owned()));
        }
        answer.map_err(NoReply::Silent)
    }

    /// A standing verdict is looked at again and again, and so is a PostgreSQL that must not take writes.
    pub(super) fn look(&mut self, node: NodeId) {
        let supervisor = self.of(node);
        let belief = &supervisor.node.belief;
        let waits = belief.standpoint.verdict.is_some() || main_beside(node, belief).is_some();
        if waits && !supervisor.is_held() {
            self.decide(node, &Input::Looked);
        }
    }
}
