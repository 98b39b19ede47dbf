//! The machines of the nodes, as far as the runs touch them: data directories, servers, and the links between them.

use std::collections::{BTreeMap, BTreeSet};

use interrex_events::{Epoch, Lsn, NodeId, PostgresStatus, TimelineId};

use super::MAIN;

/// What a log holds: who wrote it is told by the timeline, so two logs that parted never agree again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub timeline: u32,
    pub serial: u64,
}

/// What a data directory starts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Primary,
    /// One that follows itself receives from nobody.
    StandbyOf(NodeId),
}

/// One node's PostgreSQL and Redis.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    pub kind: Kind,
    pub timeline: u32,
    pub log: Vec<Record>,
    pub running: bool,
    /// A rewind was cut off in it: it must never be started.
    pub half_rewound: bool,
    /// It stopped in good order, and nothing was written since.
    pub shut_down: bool,
    /// It was started while it was not whole.
    pub misused: bool,
    pub redis: bool,
    /// Where its promotion left the old timeline.
    pub switchpoint: Lsn,
    /// What a rejoin copied aside.
    pub kept: Vec<Record>,
    /// Somebody killed its PostgreSQL.
    pub killed: bool,
    /// Its PostgreSQL does not start.
    pub broken: bool,
    /// Rounds that its PostgreSQL needs until it runs, or has failed to.
    pub starts_in: u32,
    /// It was asked to be promoted, and obeys after so many rounds, unless it is stopped before.
    pub promoted_in: Option<u32>,
}

impl Machine {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            timeline: 1,
            log: Vec::new(),
            running: true,
            half_rewound: false,
            shut_down: false,
            misused: false,
            redis: true,
            switchpoint: Lsn(0),
            kept: Vec::new(),
            killed: false,
            broken: false,
            starts_in: 0,
            promoted_in: None,
        }
    }

    pub(super) fn is_writable(&self) -> bool {
        self.running && self.kind == Kind::Primary
    }

    pub(super) fn end(&self) -> Lsn {
        lsn(self.log.len())
    }

    pub(super) fn timeline(&self) -> TimelineId {
        TimelineId(self.timeline)
    }

    /// Whether it runs then.
    pub(super) fn start(&mut self) -> bool {
        if self.broken {
            return self.running;
        }
        self.misused |= self.half_rewound && !self.running;
        (self.running, self.shut_down) = (true, false);
        true
    }

    pub(super) fn kill(&mut self) {
        (self.running, self.promoted_in) = (false, None);
    }
}

pub(super) fn lsn(records: usize) -> Lsn {
    Lsn(0x0300_0000 + 0x28 * records as u64)
}

pub(super) fn records(lsn: Lsn) -> usize {
    usize::try_from((lsn.0 - 0x0300_0000) / 0x28).unwrap()
}

/// A write that a client was told is there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Acknowledged {
    pub serial: u64,
    pub by: NodeId,
    /// The epoch in which it holds itself to be main.
    pub reign: Option<Epoch>,
}

/// All machines, the links between them, and what clients were told.
#[derive(Debug)]
pub(super) struct World {
    machines: BTreeMap<NodeId, Machine>,
    /// Pairs that do not reach each other, the lower number first.
    cut: BTreeSet<(NodeId, NodeId)>,
    serial: u64,
    pub acknowledged: Vec<Acknowledged>,
}

fn pair(one: NodeId, other: NodeId) -> (NodeId, NodeId) {
    (one.min(other), one.max(other))
}

impl World {
    /// Main serves, and all others stream from it.
    pub(super) fn new(nodes: &[NodeId]) -> Self {
        let kind = |node: NodeId| if node == MAIN { Kind::Primary } else { Kind::StandbyOf(MAIN) };
        let machines = nodes.iter().map(|node| (*node, Machine::new(kind(*node)))).collect();
        Self { machines, cut: BTreeSet::new(), serial: 0, acknowledged: Vec::new() }
    }

    pub(super) fn nodes(&self) -> Vec<NodeId> {
        self.machines.keys().copied().collect()
    }

    pub(super) fn of(&self, node: NodeId) -> &Machine {
        &self.machines[&node]
    }

    pub(super) fn of_mut(&mut self, node: NodeId) -> &mut Machine {
        self.machines.get_mut(&node).unwrap()
    }

    // ---- links ----------------------------------------------------------------------------------------------

    pub(super) fn linked(&self, one: NodeId, other: NodeId) -> bool {
        !self.cut.contains(&pair(one, other))
    }

    pub(super) fn cut(&mut self, one: NodeId, other: NodeId) {
        self.cut.insert(pair(one, other));
    }

    /// No node reaches another one.
    pub(super) fn cut_all(&mut self) {
        let nodes = self.nodes();
        for one in &nodes {
            for other in nodes.iter().filter(|other| *other > one) {
                self.cut(*one, *other);
            }
        }
    }

    pub(super) fn mend_links(&mut self) {
        self.cut.clear();
    }

    // ---- what is seen ---------------------------------------------------------------------------------------

    /// Whether the PostgreSQL of a node takes writes, as another one sees it.
    pub(super) fn answers_as_primary(&self, from: NodeId, node: NodeId) -> bool {
        self.linked(from, node) && self.of(node).is_writable()
    }

    pub(super) fn writable(&self) -> Vec<NodeId> {
        self.nodes().into_iter().filter(|node| self.of(*node).is_writable()).collect()
    }

    /// From whom a node receives log, if it does.
    pub(super) fn upstream(&self, node: NodeId) -> Option<NodeId> {
        let standby = self.of(node);
        let Kind::StandbyOf(main) = standby.kind else { return None };
        let receives = standby.running && main != node && self.answers_as_primary(node, main);
        (receives && self.of(main).log.starts_with(&standby.log)).then_some(main)
    }

    pub(super) fn streams_from(&self, node: NodeId, main: NodeId) -> bool {
        self.upstream(node) == Some(main)
    }

    pub(super) fn status(&self, node: NodeId) -> PostgresStatus {
        match self.of(node) {
            machine if !machine.running => PostgresStatus::Stopped,
            machine if machine.is_writable() => PostgresStatus::Primary,
            _ if self.upstream(node).is_some() => PostgresStatus::Streaming,
            _ => PostgresStatus::Detached,
        }
    }

    // ---- what happens ---------------------------------------------------------------------------------------

    fn write(&mut self, node: NodeId) -> Record {
        self.serial += 1;
        let serial = self.serial;
        let machine = self.of_mut(node);
        let record = Record { timeline: machine.timeline, serial };
        machine.log.push(record);
        record
    }

    /// A client writes, and is told so.
    pub(super) fn acknowledge(&mut self, by: NodeId, reign: Option<Epoch>) {
        let serial = self.write(by).serial;
        self.acknowledged.push(Acknowledged { serial, by, reign });
    }

    pub(super) fn replicate(&mut self) {
        for node in self.nodes() {
            let Some(main) = self.upstream(node) else { continue };
            let (has, timeline) = (self.of(node).log.len(), self.of(main).timeline);
            let news = self.of(main).log[has..].to_vec();
            let standby = self.of_mut(node);
            standby.log.extend(news);
            standby.timeline = timeline;
        }
    }

    /// A stop in good order: a primary writes its last record, and a standby that streams gets it.
    pub(super) fn stop(&mut self, node: NodeId) {
        if !self.of(node).running {
            return;
        }
        if self.of(node).is_writable() {
            self.write(node);
            self.replicate();
        }
        let machine = self.of_mut(node);
        (machine.running, machine.shut_down, machine.promoted_in) = (false, true, None);
    }

    /// A standby becomes a primary, on a timeline of its own. Where it left the old one.
    pub(super) fn promote(&mut self, node: NodeId) -> Lsn {
        let switchpoint = self.of(node).end();
        let machine = self.of_mut(node);
        (machine.kind, machine.timeline) = (Kind::Primary, machine.timeline + 1);
        machine.switchpoint = switchpoint;
        self.write(node);
        switchpoint
    }

    /// Somebody takes its standby.signal away and starts it again: it writes main's own timeline.
    pub(super) fn start_as_primary(&mut self, node: NodeId) {
        let machine = self.of_mut(node);
        (machine.kind, machine.running, machine.shut_down) = (Kind::Primary, true, false);
        machine.switchpoint = Lsn(0);
    }

    /// Whether a primary writes a timeline of its own.
    pub(super) fn is_promoted(&self, node: NodeId) -> bool {
        let own = self.of(node);
        own.kind == Kind::Primary && own.switchpoint > Lsn(0)
    }

    /// Promotions that were asked for a while ago happen.
    pub(super) fn promote_late(&mut self) {
        for node in self.nodes() {
            let machine = self.of_mut(node);
            machine.promoted_in = machine.promoted_in.and_then(|rounds| rounds.checked_sub(1));
            if machine.promoted_in == Some(0) {
                self.promote(node);
            }
        }
    }

    /// How far two logs are the same.
    pub(super) fn shared(&self, one: NodeId, other: NodeId) -> usize {
        let (one, other) = (&self.of(one).log, &self.of(other).log);
        one.iter().zip(other).take_while(|(left, right)| left == right).count()
    }
}
