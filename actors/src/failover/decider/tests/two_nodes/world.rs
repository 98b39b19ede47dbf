//! The machines of two nodes, as far as the runs touch them: data directories, servers, and the link between them.

use interrex_events::{Lsn, NodeId, PostgresStatus, TimelineId};

use super::{MAIN, ME};

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

    pub(super) fn start(&mut self) {
        self.misused |= self.half_rewound && !self.running;
        (self.running, self.shut_down) = (true, false);
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

/// Both nodes, and what clients were told.
#[derive(Debug)]
pub(super) struct World {
    machines: [Machine; 2],
    pub link: bool,
    serial: u64,
    /// Writes that a client was told are there.
    pub acknowledged: Vec<Record>,
}

pub(super) fn index(node: NodeId) -> usize {
    usize::from(node == ME)
}

pub(super) fn other(node: NodeId) -> NodeId {
    if node == ME { MAIN } else { ME }
}

impl World {
    /// Main serves, and the secondary streams from it.
    pub(super) fn new() -> Self {
        let machines = [Machine::new(Kind::Primary), Machine::new(Kind::StandbyOf(MAIN))];
        Self { machines, link: true, serial: 0, acknowledged: Vec::new() }
    }

    pub(super) fn of(&self, node: NodeId) -> &Machine {
        &self.machines[index(node)]
    }

    pub(super) fn of_mut(&mut self, node: NodeId) -> &mut Machine {
        &mut self.machines[index(node)]
    }

    /// Whether the PostgreSQL of a node takes writes, as its peer sees it.
    pub(super) fn answers_as_primary(&self, node: NodeId) -> bool {
        self.link && self.of(node).is_writable()
    }

    pub(super) fn streams(&self, node: NodeId) -> bool {
        let (standby, upstream) = (self.of(node), self.of(other(node)));
        let follows = standby.running && standby.kind == Kind::StandbyOf(other(node));
        follows && self.link && upstream.is_writable() && upstream.log.starts_with(&standby.log)
    }

    pub(super) fn status(&self, node: NodeId) -> PostgresStatus {
        match self.of(node) {
            machine if !machine.running => PostgresStatus::Stopped,
            machine if machine.is_writable() => PostgresStatus::Primary,
            _ if self.streams(node) => PostgresStatus::Streaming,
            _ => PostgresStatus::Detached,
        }
    }

    fn write(&mut self, node: NodeId) -> Record {
        self.serial += 1;
        let serial = self.serial;
        let machine = self.of_mut(node);
        let record = Record { timeline: machine.timeline, serial };
        machine.log.push(record);
        record
    }

    /// Every writable primary acknowledges a write to a client.
    pub(super) fn clients_write(&mut self) {
        for node in [MAIN, ME] {
            if self.of(node).is_writable() {
                let record = self.write(node);
                self.acknowledged.push(record);
            }
        }
    }

    pub(super) fn replicate(&mut self) {
        for node in [MAIN, ME] {
            if self.streams(node) {
                let (log, timeline) = (self.of(other(node)).log.clone(), self.of(other(node)).timeline);
                let standby = self.of_mut(node);
                (standby.log, standby.timeline) = (log, timeline);
            }
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

    /// Promotions that were asked for a while ago happen.
    pub(super) fn promote_late(&mut self) {
        for node in [MAIN, ME] {
            let machine = self.of_mut(node);
            machine.promoted_in = machine.promoted_in.and_then(|rounds| rounds.checked_sub(1));
            if machine.promoted_in == Some(0) {
                self.promote(node);
            }
        }
    }

    /// How far two logs are the same.
    pub(super) fn shared(&self) -> usize {
        let [main, secondary] = &self.machines;
        main.log.iter().zip(&secondary.log).take_while(|(left, right)| left == right).count()
    }
}
