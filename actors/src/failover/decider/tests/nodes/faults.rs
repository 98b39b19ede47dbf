//! What goes wrong in a run, and at which step.

use std::fmt;

use interrex_events::{NodeId, RunKind, StepId};
use interrex_projections::Run;

use super::{MAIN, ME, THIRD};

/// What goes wrong, once unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Nothing,
    /// It fails, and nothing has happened.
    FailsOnce,
    /// The same at every attempt, until everything is mended.
    FailsAlways,
    /// It has happened, and is said to have failed.
    FailsAfter,
    /// Nobody knows, and nothing has happened.
    UnknownBefore,
    /// Nobody knows, and it has happened.
    UnknownAfter,
    /// It happens twice.
    Twice,
    /// The supervisor that makes it dies, and is started again at once.
    CrashesBefore,
    CrashesMidway,
    CrashesAfter,
    /// It is not started again until everything is mended.
    MakerGoneAfter,
    /// The supervisor of the other node that the run is about dies.
    OtherCrashes,
    OtherGone,
    BothCrashAfter,
    BothGone,
    /// No node reaches the other one until everything is mended.
    LinkCut,
    /// The same for a while: long enough for a failover, and the run may still go on.
    LinkFlaps,
    PostgresKilled,
    OtherPostgresKilled,
    /// PostgreSQL obeys long after the attempt was given up.
    Late,
    /// The same, and main is back and serves before that.
    LateAndMainIsBack,
    /// It obeys when its run has given up already.
    TooLate,
}

impl Fault {
    pub(super) const ALL: [Self; 21] = [
        Self::FailsOnce,
        Self::FailsAlways,
        Self::FailsAfter,
        Self::UnknownBefore,
        Self::UnknownAfter,
        Self::Twice,
        Self::CrashesBefore,
        Self::CrashesMidway,
        Self::CrashesAfter,
        Self::MakerGoneAfter,
        Self::OtherCrashes,
        Self::OtherGone,
        Self::BothCrashAfter,
        Self::BothGone,
        Self::LinkCut,
        Self::LinkFlaps,
        Self::PostgresKilled,
        Self::OtherPostgresKilled,
        Self::Late,
        Self::LateAndMainIsBack,
        Self::TooLate,
    ];

    /// Those that are tried with a third node too: deaths, silence, and what nobody knows.
    const OF_THREE: [Self; 9] = [
        Self::FailsAlways,
        Self::UnknownAfter,
        Self::CrashesMidway,
        Self::CrashesAfter,
        Self::OtherCrashes,
        Self::BothCrashAfter,
        Self::LinkCut,
        Self::PostgresKilled,
        Self::TooLate,
    ];

    /// Whether it strikes before the effect of the step.
    pub(super) fn strikes_before(self) -> bool {
        !matches!(
            self,
            Self::Nothing
                | Self::FailsAfter
                | Self::UnknownAfter
                | Self::Twice
                | Self::CrashesAfter
                | Self::MakerGoneAfter
                | Self::BothCrashAfter
                | Self::Late
                | Self::LateAndMainIsBack
                | Self::TooLate
        )
    }

    /// Whether it can strike a step: only a promotion happens after nobody waits for it any more.
    fn can_strike(self, step: StepId) -> bool {
        !self.is_late() || step == StepId::Promote
    }

    pub(super) fn is_late(self) -> bool {
        matches!(self, Self::Late | Self::LateAndMainIsBack | Self::TooLate)
    }

    /// Whether it kills a PostgreSQL.
    pub(super) fn kills_postgres(self) -> bool {
        matches!(self, Self::PostgresKilled | Self::OtherPostgresKilled)
    }
}

/// How a run comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scene {
    /// Main's host dies, and the secondary notices.
    HostDies,
    /// Main's PostgreSQL dies; its supervisor answers.
    PostgresDies,
    /// The same, and its supervisor dies too, is started again, and tries in vain to start it.
    StartsInVain,
    /// The two lose each other: quorum `none` allows a second main, until the link is mended.
    LinkDies,
    /// A person promotes, after main's host died.
    Promotion,
    /// A person promotes against the evidence.
    Forced,
    /// Main hands over.
    Switchover,
    /// An old main that went on alone comes back.
    Rejoin,
}

impl Scene {
    pub(super) const ALL: [Self; 8] = [
        Self::HostDies,
        Self::PostgresDies,
        Self::StartsInVain,
        Self::LinkDies,
        Self::Promotion,
        Self::Forced,
        Self::Switchover,
        Self::Rejoin,
    ];

    /// The runs that it is made of.
    pub(super) fn kinds(self) -> &'static [RunKind] {
        match self {
            Self::HostDies | Self::PostgresDies | Self::StartsInVain | Self::LinkDies => &[RunKind::Failover],
            Self::Promotion | Self::Forced => &[RunKind::Promotion],
            Self::Switchover => &[RunKind::Switchover, RunKind::Takeover],
            Self::Rejoin => &[RunKind::Rejoin],
        }
    }
}

/// How many nodes there are, and whose turn it is first in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nodes {
    Two,
    /// The third one follows.
    Three,
}

/// One case: what goes wrong, where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    pub nodes: Nodes,
    pub scene: Scene,
    pub kind: RunKind,
    pub step: StepId,
    pub fault: Fault,
}

impl Case {
    /// Every fault at every step of every run of two nodes, and many of them of three.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let of_two = Self::of(Nodes::Two, &Fault::ALL);
        of_two.chain(Self::of(Nodes::Three, &Fault::OF_THREE))
    }

    fn of(nodes: Nodes, faults: &'static [Fault]) -> impl Iterator<Item = Self> {
        let events = |step: &StepId| !matches!(step, StepId::RecordStart | StepId::RecordCompletion);
        Scene::ALL.into_iter().flat_map(move |scene| {
            scene.kinds().iter().flat_map(move |kind| {
                kind.steps().iter().copied().filter(events).flat_map(move |step| {
                    let faults = faults.iter().copied().filter(move |fault| fault.can_strike(step));
                    faults.map(move |fault| Self { nodes, scene, kind: *kind, step, fault })
                })
            })
        })
    }

    pub(super) fn nodes(&self) -> Vec<NodeId> {
        match self.nodes {
            Nodes::Two => vec![MAIN, ME],
            Nodes::Three => vec![MAIN, ME, THIRD],
        }
    }

    /// Where quorum `none` may leave two mains in service for a while: where the two cannot reach each other, and where a
    /// person takes the role of a main that serves, while its supervisor is down.
    pub(super) fn may_split(&self) -> bool {
        let cut = self.scene == Scene::LinkDies || matches!(self.fault, Fault::LinkCut | Fault::LinkFlaps);
        let unheard = matches!(self.fault, Fault::OtherCrashes | Fault::OtherGone);
        cut || (self.scene == Scene::Forced && unheard)
    }

    pub(super) fn strikes(&self, run: &Run, step: StepId) -> bool {
        self.fault != Fault::Nothing && run.kind == self.kind && step == self.step
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{:?}/{}/{}/{:?}", self.nodes, self.scene, self.kind, self.step, self.fault)
    }
}
