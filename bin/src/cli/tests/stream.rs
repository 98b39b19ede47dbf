//! A fixed cluster and what happens to it: alpha (node 1) is main until it dies, beta (node 2) tells the story.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
};

use chrono::{DateTime, TimeDelta, Utc};
use interrex_actors::wire::{DependentFacts, Lag, NodeReport, PostgresFacts, RedisFacts};
use interrex_events::{
    Address,
    journal::{Identity, Journal, Segment, Stamp, segment_file},
    *,
};
use interrex_projections::{Cluster, NodeStatus, Projection as _, Standpoint};
use serde_json::{Map, json};
use uuid::Uuid;

pub(super) const CLUSTER: ClusterId = ClusterId(Uuid::from_u128(0x018f_0000_0000_7000_8000_0000_0000_0001));
pub(in crate::cli) const ALPHA: NodeId = NodeId(1);
pub(super) const BETA: NodeId = NodeId(2);
/// The run that ends well.
pub(super) const RUN: RunId = RunId(Uuid::from_u128(0x019b_bf3a_1000_7000_8000_0000_5f3a_12bc));
/// A later one that does not.
pub(super) const OTHER_RUN: RunId = RunId(Uuid::from_u128(0x019b_bf3f_2000_7000_8000_0000_77aa_90de));

/// A switchover that alpha makes.
pub(super) const SWITCHOVER: RunId = RunId(Uuid::from_u128(0x019b_bf38_2000_7000_8000_0000_a0a0_1111));
/// Beta's half of it.
pub(super) const TAKEOVER: RunId = RunId(Uuid::from_u128(0x019b_bf38_3000_7000_8000_0000_b0b0_2222));

/// Milliseconds after 08:00.
pub(super) fn at(ms: i64) -> DateTime<Utc> {
    "2027-01-15T08:00:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::milliseconds(ms)
}

/// A wall clock that the story sets, and ids that count.
struct Script(Mutex<(DateTime<Utc>, u128)>);

impl Stamp for Script {
    fn now(&self) -> DateTime<Utc> {
        self.0.lock().unwrap().0
    }

    fn event_id(&self) -> EventId {
        let mut state = self.0.lock().unwrap();
        state.1 += 1;
        EventId(Uuid::from_u128(state.1))
    }
}

/// Writes a story into a journal.
pub(super) struct Author {
    journal: Journal,
    script: Arc<Script>,
    epoch: Epoch,
}

impl Author {
    pub(super) fn of(path: &Path, node_id: NodeId) -> Self {
        let script = Arc::new(Script(Mutex::new((at(0), 0))));
        let identity = Identity { cluster_id: CLUSTER, node_id };
        let journal = Journal::open(path, identity, script.clone()).unwrap();
        Self { journal, script, epoch: Epoch(1) }
    }

    fn tell(&mut self, ms: i64, run_id: Option<RunId>, event: impl Into<Event>) {
        self.script.0.lock().unwrap().0 = at(ms);
        let draft = Draft { run_id, ..Draft::new(self.epoch, event) };
        self.journal.append(&[draft]).unwrap().blocking_recv().unwrap().unwrap();
    }

    /// The journal's first events are sealed, up to one of them.
    pub(super) fn seals(self, folder: &Path, last: u64) -> Self {
        let node = BETA;
        self.script.0.lock().unwrap().0 = at(700_000);
        let reader = self.journal.reader().unwrap();
        let records = reader.page(node, NodeSeq(0), u32::try_from(last).unwrap()).unwrap();
        let (mut cluster, mut standpoint) = (Cluster::default(), Standpoint::default());
        for record in &records {
            cluster.apply(&record.open());
            standpoint.apply(&record.open());
        }
        assert!(interrex_projections::is_settled(node, &cluster, &standpoint));
        let newest = records.last().unwrap();
        let carried = interrex_projections::carried(&cluster, &standpoint);
        let end = Base { head: newest.as_head(), moment: newest.hlc, carried };
        let file = segment_file::write(&reader, node, &(NodeSeq(1)..=NodeSeq(last)), folder).unwrap();
        let segment = Segment { first: NodeSeq(1), end, file: Some(file) };
        self.journal.seal(segment, self.epoch).unwrap().blocking_recv().unwrap().unwrap();
        self
    }

    /// Copies of another node's events arrive.
    pub(super) fn learns(&self, records: Vec<Record>, learned_in: Epoch) {
        self.journal.store_copies(records, learned_in).unwrap().blocking_recv().unwrap().unwrap();
    }

    fn step(&mut self, ms: i64, step: StepId, took_ms: u64, outcome: StepOutcome, detail: &str) {
        self.tell(ms, Some(RUN), StepStarted { step, attempt: 1, limit_ms: 60_000 });
        self.finish(ms + took_ms.cast_signed(), RUN, step, took_ms, outcome, detail);
    }

    fn finish(
        &mut self,
        ms: i64,
        run: RunId,
        step: StepId,
        took_ms: u64,
        outcome: StepOutcome,
        detail: &str,
    ) {
        let detail = detail.to_owned();
        let finished = StepFinished { step, attempt: 1, outcome, detail, observed: Map::new(), took_ms };
        self.tell(ms, Some(run), finished);
    }

    /// Ada has a switchover begin in the evening.
    pub(super) fn plans_a_switchover(self, ms: i64) -> Self {
        self.script.0.lock().unwrap().0 = at(ms);
        let request = Request { forced: false, reason: Some("new disk in beta".to_owned()) };
        let scheduled = SwitchoverScheduled { target: ALPHA, due: at(50_400_000), drain_ms: 5_000, request };
        let actor = Cause::Person { name: "ada".to_owned(), source: "the command line on beta".to_owned() };
        let draft = Draft { actor, ..Draft::new(self.epoch, scheduled) };
        self.journal.append(&[draft]).unwrap().blocking_recv().unwrap().unwrap();
        self
    }

    /// Beta starts, follows alpha, and once decides not to act.
    pub(super) fn quiet_morning(mut self) -> Self {
        self.tell(0, None, supervisor_started("beta", Role::Secondary));
        let (timeline, lsn) = (Some(TimelineId(1)), Some(Lsn(0x0300_0060)));
        self.tell(
            310,
            None,
            PostgresChanged { status: PostgresStatus::Streaming, timeline, lsn, detail: String::new() },
        );
        self.tell(
            320,
            None,
            RedisChanged {
                status: RedisStatus::Linked,
                offset: Some(420),
                detail: String::new(),
                alarm: false,
            },
        );
        let name = "radius".to_owned();
        self.tell(
            330,
            None,
            DependentChanged { name, status: DependentStatus::Ready, detail: String::new() },
        );
        self.tell(1_000, None, MainSeen { main: ALPHA, epoch: Epoch(1), evidence: evidence(true) });
        self.tell(
            61_000,
            None,
            MainSuspected { main: ALPHA, evidence: evidence(false), threshold_ms: 5_000 },
        );
        let withheld = FailoverWithheld {
            main: ALPHA,
            rule: WithheldRule::PostgresStillAnswers,
            detail: "main's PostgreSQL answers, only its supervisor does not".to_owned(),
            silent_ms: Some(5_100),
            threshold_ms: 5_000,
            evidence: None,
        };
        self.tell(66_100, None, withheld);
        let recovered =
            MainRecovered { main: ALPHA, silent_ms: 7_200, threshold_ms: 5_000, evidence: evidence(true) };
        self.tell(68_200, None, recovered);
        self.tell(70_000, None, Event::read("moon_phase_observed", 1, r#"{"phase":"full"}"#));
        self
    }

    /// Alpha dies, and beta gets as far as asking for its promotion.
    pub(super) fn death_of_main(mut self) -> Self {
        self.tell(
            600_000,
            None,
            MainSuspected { main: ALPHA, evidence: evidence(false), threshold_ms: 5_000 },
        );
        let started = failover_started();
        let lost = MainLost {
            main: ALPHA,
            silent_ms: 5_050,
            threshold_ms: 5_000,
            evidence: evidence(false),
            last_report: started.last_report.clone(),
        };
        self.tell(605_050, None, lost);
        self.tell(605_051, Some(RUN), started);
        self.epoch = Epoch(2);
        let step = [
            (605_060, StepId::WinEpoch, 4, StepOutcome::Succeeded, "epoch 2, quorum none: nobody was asked"),
            (
                605_070,
                StepId::MeasureLoss,
                3,
                StepOutcome::Succeeded,
                "17 kB of main's log is known to be missing",
            ),
            (
                605_080,
                StepId::FenceOldMain,
                9,
                StepOutcome::Skipped,
                "main does not answer: there is nobody to fence",
            ),
            (
                605_090,
                StepId::Detach,
                12,
                StepOutcome::Succeeded,
                "all received log is replayed, up to 0/3000060",
            ),
            (605_110, StepId::SanitiseSettings, 8, StepOutcome::AlreadyDone, ""),
        ];
        for (ms, step, took, outcome, detail) in step {
            self.step(ms, step, took, outcome, detail);
        }
        self.tell(605_120, Some(RUN), StepStarted { step: StepId::Promote, attempt: 1, limit_ms: 60_000 });
        self
    }

    /// The promotion succeeds, and one hook does not.
    pub(super) fn new_main(mut self) -> Self {
        let detail = "timeline 2 from 0/3000060, proved by a write";
        self.finish(605_151, RUN, StepId::Promote, 31, StepOutcome::Succeeded, detail);
        let opened = EpochOpened {
            epoch: Epoch(2),
            main: BETA,
            old_main: Some(ALPHA),
            timeline: TimelineId(2),
            switchpoint: Some(Lsn(0x0300_0060)),
        };
        self.tell(605_152, Some(RUN), opened);
        let (timeline, lsn) = (Some(TimelineId(2)), Some(Lsn(0x0300_0148)));
        self.tell(
            605_153,
            None,
            PostgresChanged { status: PostgresStatus::Primary, timeline, lsn, detail: String::new() },
        );
        self.step(
            605_160,
            StepId::PromoteRedis,
            7,
            StepOutcome::Succeeded,
            "master, and so after a restart too",
        );
        self.step(605_170, StepId::OpenEpoch, 22, StepOutcome::Succeeded, "cluster_events holds 31 events");
        self.step(605_200, StepId::RestartDependents, 410, StepOutcome::Succeeded, "radius is ready");
        self.step(
            605_620,
            StepId::NotifyPeers,
            2,
            StepOutcome::Succeeded,
            "alpha does not answer: it learns at its start",
        );
        self.step(605_630, StepId::PrepareRejoin, 40, StepOutcome::Succeeded, "slot interrex_1");
        let hook = "hook `dns` ended with exit code 1: could not reach the server\x1b[2J\nof names, and this was its last word";
        self.step(605_680, StepId::RunHooks, 95, StepOutcome::Failed, hook);
        let completed = FailoverCompleted {
            main: BETA,
            epoch: Epoch(2),
            degraded: vec![StepId::RunHooks],
            recovery_time: RecoveryTime {
                detect_ms: 5_050,
                decide_ms: 69,
                promote_ms: 31,
                dependents_ms: 459,
            },
            loss: Some(Loss {
                bytes: Some(17_500),
                seconds: Some(0.42),
                lower_bound: true,
                main_lsn: Some(Lsn(0x0300_44bc)),
                own_lsn: Lsn(0x0300_0060),
            }),
        };
        self.tell(605_780, Some(RUN), completed);
        self
    }

    /// Another run, the next day, that a person must look at.
    pub(super) fn bad_day(mut self) -> Self {
        let day = 86_400_000;
        let started = FailoverStarted { trigger: Trigger::Operator, ..failover_started() };
        self.tell(day, Some(OTHER_RUN), started);
        self.tell(
            day + 10,
            Some(OTHER_RUN),
            StepStarted { step: StepId::Promote, attempt: 2, limit_ms: 60_000 },
        );
        let detail = "no answer within 60 s";
        self.finish(day + 60_010, OTHER_RUN, StepId::Promote, 60_000, StepOutcome::Unknown, detail);
        let failed = FailoverFailed {
            end: FailedEnd::NeedsOperator,
            step: StepId::Promote,
            error: detail.to_owned(),
            next: "see whether PostgreSQL runs: pg_controldata /srv/pg | grep state".to_owned(),
        };
        self.tell(day + 60_020, Some(OTHER_RUN), failed);
        self
    }

    /// A run that is given up before its promotion, and what its end tells to do next.
    pub(super) fn rolled_back(mut self, next: &str) -> Self {
        self.tell(700_000, Some(OTHER_RUN), failover_started());
        let failed = FailoverFailed {
            end: FailedEnd::RolledBack,
            step: StepId::Detach,
            error: "no answer".to_owned(),
            next: next.to_owned(),
        };
        self.tell(700_100, Some(OTHER_RUN), failed);
        self
    }

    /// Alpha's own journal: it hands its role to beta.
    pub(super) fn switchover(mut self) {
        self.tell(0, None, supervisor_started("alpha", Role::Main));
        let request = Request { forced: false, reason: Some("new disk in alpha".to_owned()) };
        let started =
            SwitchoverStarted { old_main: ALPHA, new_main: BETA, epoch: Epoch(2), drain_ms: 5_000, request };
        self.tell(300_000, Some(SWITCHOVER), started);
        let anchor = |node, seq| Anchor { node, node_seq: NodeSeq(seq), hash: ChainHash::GENESIS };
        let Handover { system_id, timeline, checkpoint, end, .. } = handover();
        let certificate = Certificate {
            system_id,
            old_timeline: timeline,
            new_timeline: TimelineId(2),
            checkpoint,
            end,
            received: end,
            switchpoint: end,
            old_main_head: anchor(ALPHA, 12),
            new_main_head: anchor(BETA, 15),
        };
        let completed = SwitchoverCompleted {
            main: BETA,
            epoch: Epoch(2),
            degraded: Vec::new(),
            without_writes_ms: 84,
            certificate: Some(certificate),
            kept_redis: None,
        };
        self.tell(300_500, Some(SWITCHOVER), completed);
    }

    /// Beta's half of it.
    pub(super) fn takeover(mut self) -> Self {
        self.tell(0, None, supervisor_started("beta", Role::Secondary));
        let started = FailoverStarted {
            trigger: Trigger::Switchover,
            silent_ms: 0,
            last_report: None,
            handover: Some(handover()),
            ..failover_started()
        };
        self.tell(300_100, Some(TAKEOVER), started);
        let completed = FailoverCompleted {
            main: BETA,
            epoch: Epoch(2),
            degraded: Vec::new(),
            recovery_time: RecoveryTime { detect_ms: 0, decide_ms: 12, promote_ms: 31, dependents_ms: 9 },
            loss: None,
        };
        self.tell(300_400, Some(TAKEOVER), completed);
        self
    }

    /// Alpha's own journal: it comes back, and learns that it is main no more.
    pub(super) fn return_of_the_old_main(mut self) {
        self.tell(0, None, supervisor_started("alpha", Role::Main));
        let announced = MainAnnounced {
            main: BETA,
            epoch: Epoch(2),
            timeline: Some(TimelineId(2)),
            switchpoint: Some(Lsn(0x0300_0060)),
            announced_by: BETA,
            learned_by: LearnedBy::StartupCheck,
            planned: None,
        };
        self.tell(900_000, None, announced);
        let fencing = FencingStarted { superseded_by: BETA, epoch: Epoch(2), own_epoch: Epoch(1), run: None };
        self.tell(900_001, None, fencing);
        let fenced = NodeFenced {
            epoch: Epoch(2),
            postgres: "was stopped already".to_owned(),
            redis: "stopped now".to_owned(),
            dependents: "stopped now".to_owned(),
            next: "bring it back as a secondary: interrex rejoin".to_owned(),
            run: None,
        };
        self.tell(900_200, None, fenced);
    }
}

fn supervisor_started(name: &str, role: Role) -> SupervisorStarted {
    let spec = |node: NodeId, name: &str| NodeSpec {
        node,
        name: name.to_owned(),
        address: Address::as_recorded(format!("127.0.0.1:740{node}")),
        postgres: Address::as_recorded(format!("127.0.0.1:540{node}")),
        redis: Some(Address::as_recorded(format!("127.0.0.1:630{node}"))),
    };
    let settings = json!({
        "auto_failover_enabled": true, "auto_failover_threshold_ms": 5_000, "quorum": "none",
    });
    SupervisorStarted {
        name: name.to_owned(),
        version: "0.1.0".to_owned(),
        pid: 4711,
        role,
        nodes: vec![spec(ALPHA, "alpha"), spec(BETA, "beta")],
        main: Some(ALPHA),
        interrupted_run: None,
        settings: settings.as_object().cloned().unwrap_or_default(),
    }
}

fn failover_started() -> FailoverStarted {
    FailoverStarted {
        trigger: Trigger::Automatic,
        old_main: ALPHA,
        new_main: BETA,
        epoch: Epoch(2),
        evidence: evidence(false),
        silent_ms: 5_050,
        threshold_ms: 5_000,
        last_report: Some(LastReport {
            first_reported_at: at(0),
            lsn: Lsn(0x0300_44bc),
            reported_at: at(599_800),
            caught_up_at: Some(at(599_380)),
            first_miss_at: Some(at(600_000)),
        }),
        quorum: "none".to_owned(),
        request: None,
        handover: None,
    }
}

fn handover() -> Handover {
    Handover {
        run: SWITCHOVER,
        system_id: "7321000000000000001".to_owned(),
        timeline: TimelineId(1),
        checkpoint: Lsn(0x0300_0060),
        end: Lsn(0x0300_00d8),
    }
}

fn evidence(good: bool) -> Evidence {
    let finding = |words: &str| if good { Finding::good(words) } else { Finding::bad("connection refused") };
    Evidence {
        supervisor: finding("answers, vouches for its PostgreSQL"),
        postgres: finding("answers as a primary"),
        redis: finding("answers"),
        wal_receiver: if good {
            Finding::good("streaming")
        } else {
            Finding::unknown("its last word is old")
        },
        last_good_at: Some(at(600_000)),
        missed_probes: if good { 0 } else { 5 },
    }
}

/// What a supervisor says of itself while all is well and alpha is main.
pub(crate) fn report(node: NodeId) -> NodeReport {
    let is_main = node == ALPHA;
    let radius = DependentFacts { status: DependentStatus::Ready, detail: String::new() };
    let lag = Lag { bytes: 160, seconds: 0.45, lower_bound: true, main_lsn: Lsn(0x0300_0100) };
    NodeReport {
        cluster_id: CLUSTER,
        node,
        name: if is_main { "alpha" } else { "beta" }.to_owned(),
        role: if is_main { Role::Main } else { Role::Secondary },
        status: NodeStatus::Online,
        epoch: Epoch(1),
        main: Some(ALPHA),
        switchpoint: None,
        planned: None,
        rests: None,
        no_session: None,
        main_no_session: None,
        healthy: true,
        problems: Vec::new(),
        postgres_age_ms: Some(0),
        postgres: PostgresFacts {
            status: if is_main { PostgresStatus::Primary } else { PostgresStatus::Streaming },
            timeline: Some(TimelineId(1)),
            lsn: Some(Lsn(if is_main { 0x0300_0100 } else { 0x0300_0060 })),
            replayed: (!is_main).then_some(Lsn(0x0300_0060)),
            detail: String::new(),
        },
        redis: RedisFacts {
            offset: Some(420),
            ..RedisFacts::silent(if is_main { RedisStatus::Master } else { RedisStatus::Linked }, "")
        },
        dependents: BTreeMap::from([("radius".to_owned(), radius)]),
        lag: (!is_main).then_some(lag),
        main_silent_ms: (!is_main).then_some(400),
        main_unseen: false,
        threshold_ms: 5_000,
        quorum: "none".to_owned(),
        candidate: None,
        copying: None,
        run: None,
        taking_over: Some(false),
        journal_heads: Vec::new(),
        stream: None,
        settings: None,
        hlc: Hlc::from_wall_ms(at(0).timestamp_millis()),
        uptime_ms: 60_000,
        actors: BTreeMap::new(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}
