//! What the sealed begin of a journal said in the end, to and from the folds that go on after it.
//!
//! **Invariant:** folding a node's events from [`Carried`] on says the same about everything that decides as folding
//! them from the first one. What is carried is who is who; runs and what is scheduled are not, so none is sealed that
//! anything still depends on ([`is_settled`]).

use interrex_events::{
    Base, Bases, Carried, CarriedConfiguration, CarriedDependent, CarriedNode, CarriedSettings, NodeId,
    NodeSpec,
};

use crate::{Cluster, ClusterNodes, Node, Rests, RunEnd, Settings, Standpoint, settings::Configured};

/// What a node's own events said so far.
#[must_use]
pub fn carried(cluster: &Cluster, standpoint: &Standpoint) -> Carried {
    let (nodes, settings) = (&cluster.nodes, &cluster.settings);
    Carried {
        main: nodes.main,
        epoch: nodes.epoch,
        timeline: nodes.timeline,
        switchpoint: standpoint.switchpoint,
        nodes: nodes.nodes.values().map(|row| row.carried(settings.configured.get(&row.node))).collect(),
        seen_main: standpoint.seen_main,
        to_follow: standpoint.to_follow,
        fence_proof: standpoint.fence_proof.clone(),
        settings: settings.changed.map(|changed| CarriedSettings {
            settings: changed,
            stamp: settings.stamp,
            changed_by: settings.changed_by.clone(),
        }),
    }
}

/// Whether a node's own events may be sealed up to here: nothing is begun that a later event, or a person, ends, and
/// nothing was passed over that a newer program could read.
#[must_use]
pub fn is_settled(node: NodeId, cluster: &Cluster, standpoint: &Standpoint) -> bool {
    let promoted_without_an_epoch = cluster
        .runs
        .newest()
        .is_some_and(|run| run.end == RunEnd::NeedsOperator && run.epoch > cluster.nodes.epoch);
    cluster.runs.active(node).is_none()
        && cluster.runs.scheduled(node).is_none()
        && !cluster.nodes.is_handing_over(node)
        && standpoint.verdict.is_none()
        && !standpoint.is_left_alone
        && standpoint.stray.is_none()
        // what is carried of PostgreSQL is what was measured since the supervisor started
        && standpoint.postgres == cluster.nodes.get(node).and_then(|row| row.postgres)
        && !promoted_without_an_epoch
        && cluster.unknown_kinds.is_empty()
}

impl Standpoint {
    /// As one node's own sealed events left it.
    pub(crate) fn sealed(node: NodeId, carried: &Carried) -> Self {
        let own = carried.nodes.iter().find(|row| row.spec.node == node);
        Self {
            verdict: None,
            seen_main: carried.seen_main,
            to_follow: carried.to_follow,
            is_left_alone: false,
            switchpoint: carried.switchpoint,
            fence_proof: carried.fence_proof.clone(),
            fenced_for: carried.fence_proof.as_ref().and_then(|proof| proof.run),
            postgres: own.and_then(|row| row.postgres),
            stray: None,
            main_is_back: None,
            // what is sealed is older than the cool-down
            rests: Rests::default(),
        }
    }
}

impl Cluster {
    /// As the sealed events of one node left it, or of several: then it is a story to show, and decides nothing.
    /// Who is main is by the latest epoch, and of each node it is what it said of itself, unless another one saw
    /// something later.
    #[must_use]
    pub fn sealed(bases: &Bases) -> Self {
        let Some(latest) = bases.values().max_by_key(|base| base.carried.epoch) else {
            return Self::default();
        };
        let mut cluster = Self { nodes: ClusterNodes::sealed(&latest.carried), ..Self::default() };
        for (node, Base { carried, .. }) in bases {
            let own = carried.nodes.iter().find(|row| row.spec.node == *node);
            if let Some((row, own)) = cluster.nodes.nodes.get_mut(node).zip(own) {
                row.take_own_word(Node::sealed(own));
            }
            cluster.settings.take_sealed(carried);
        }
        cluster
    }
}

impl ClusterNodes {
    fn sealed(carried: &Carried) -> Self {
        let nodes = carried.nodes.iter().map(|node| (node.spec.node, Node::sealed(node))).collect();
        Self { nodes, main: carried.main, epoch: carried.epoch, timeline: carried.timeline }
    }
}

impl Settings {
    fn take_sealed(&mut self, carried: &Carried) {
        for node in &carried.nodes {
            if let Some(CarriedConfiguration { settings, probe_interval_ms }) = node.configured {
                self.configured.insert(node.spec.node, Configured { settings, probe_interval_ms });
            }
        }
        if let Some(changed) = &carried.settings {
            self.take(changed.settings, changed.stamp, changed.changed_by.clone());
        }
    }
}

impl Node {
    fn carried(&self, configured: Option<&Configured>) -> CarriedNode {
        let dependents = self.dependents.iter();
        let dependents =
            dependents.map(|(name, status)| CarriedDependent { name: name.clone(), status: *status });
        CarriedNode {
            spec: NodeSpec {
                node: self.node,
                name: self.name.clone(),
                address: self.address.clone(),
                postgres: self.postgres_address.clone(),
                redis: self.redis_address.clone(),
            },
            role: self.role,
            status: self.status,
            status_since: self.status_since,
            postgres: self.postgres,
            timeline: self.timeline,
            lsn: self.lsn,
            redis: self.redis,
            dependents: dependents.collect(),
            actor_restarts: self.actor_restarts,
            opened: self.opened,
            configured: configured.map(|configured| CarriedConfiguration {
                settings: configured.settings,
                probe_interval_ms: configured.probe_interval_ms,
            }),
        }
    }

    fn sealed(carried: &CarriedNode) -> Self {
        let spec = carried.spec.clone();
        Self {
            node: spec.node,
            name: spec.name,
            address: spec.address,
            postgres_address: spec.postgres,
            redis_address: spec.redis,
            role: carried.role,
            status: carried.status,
            status_since: carried.status_since,
            postgres: carried.postgres,
            timeline: carried.timeline,
            lsn: carried.lsn,
            redis: carried.redis,
            dependents: carried.dependents.iter().map(|it| (it.name.clone(), it.status)).collect(),
            actor_restarts: carried.actor_restarts,
            opened: carried.opened,
        }
    }

    /// Its own word about its servers; about itself, the later word.
    fn take_own_word(&mut self, own: Self) {
        let (status, status_since) = if self.status_since > own.status_since {
            (self.status, self.status_since)
        } else {
            (own.status, own.status_since)
        };
        *self = Self { role: self.role, status, status_since, ..own };
    }
}

#[cfg(test)]
#[path = "carried_tests.rs"]
mod tests;
