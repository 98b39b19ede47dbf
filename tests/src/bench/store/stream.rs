//! A stream as three nodes would record it over the years: the same one each time, in story order and chained.
//!
//! Six in ten events are windows of probes, the rest are servers that change, alarms that pass, and now and then
//! a failover from its beginning to its end.

use std::collections::VecDeque;

use chrono::{DateTime, TimeDelta, Utc};
use fastrand::Rng;
use interrex_events::{
    Address, Cause, ChainHash, ChainWalk, ClusterId, DependentChanged, DependentStatus, Epoch, EpochOpened,
    Event, EventId, Evidence, FailoverCompleted, FailoverStarted, Finding, HeartbeatsObserved, Hlc,
    LastReport, Lineage, Loss, Lsn, MainLost, MainRecovered, MainSuspected, NodeId, NodeSpec, PeerReachable,
    PeerUnreachable, PostgresChanged, PostgresStatus, Record, RecoveryTime, RedisChanged, RedisStatus, Role,
    RunId, RunKind, StepFinished, StepId, StepOutcome, StepStarted, SupervisorStarted, TimelineId, Trigger,
};
use serde_json::{Map, json};
use uuid::Uuid;

/// The cluster that the stream is of.
pub(super) const CLUSTER: ClusterId = ClusterId(Uuid::from_u128(0x018f_0000_0000_7000_8000_0000_0000_0001));

/// Allowed silence, in milliseconds.
const THRESHOLD_MS: u64 = 4_000;
const NODES: u32 = 3;

/// The stream; it has no end.
pub(super) struct Stream {
    random: Rng,
    now: DateTime<Utc>,
    moment: Hlc,
    chains: Vec<ChainWalk>,
    main: NodeId,
    epoch: Epoch,
    suspected: bool,
    run: Option<Failover>,
}

/// A failover under way: what is still to come of it.
struct Failover {
    id: RunId,
    node: NodeId,
    to_come: VecDeque<Event>,
    cause: Option<Lineage>,
}

impl Stream {
    /// From its first event.
    pub(super) fn begin() -> Self {
        Self {
            random: Rng::with_seed(7),
            now: DateTime::UNIX_EPOCH + TimeDelta::days(20_454),
            moment: Hlc::default(),
            chains: (1..=NODES).map(|node| ChainWalk::from_genesis(NodeId(node))).collect(),
            main: NodeId(1),
            epoch: Epoch(1),
            suspected: false,
            run: None,
        }
    }

    fn uuid(&mut self) -> Uuid {
        let millis = self.now.timestamp_millis().cast_unsigned();
        uuid::Builder::from_unix_timestamp_millis(millis, &std::array::from_fn(|_| self.random.u8(..)))
            .into_uuid()
    }

    fn lsn(&mut self) -> Lsn {
        Lsn(self.random.u64(..1 << 40))
    }

    fn peer_of(node: NodeId) -> NodeId {
        NodeId(1 + node.0 % NODES)
    }

    /// Who judges main.
    fn secondary(&self) -> NodeId {
        if self.main == NodeId(1) { NodeId(2) } else { NodeId(1) }
    }

    /// The next fact and who records it.
    fn fact(&mut self) -> (NodeId, Event) {
        let node = NodeId(self.random.u32(1..=NODES));
        let newcomer = self.chains.iter().find(|chain| chain.head().node_seq.0 == 0);
        if let Some(newcomer) = newcomer.map(|chain| chain.head().node_id) {
            return (newcomer, self.started(newcomer));
        }
        match self.random.u32(..1000) {
            0..600 => (node, self.window(node)),
            600..650 => (node, self.postgres(node)),
            650..700 => (node, self.redis()),
            700..750 => (node, self.dependent()),
            750..850 => (self.secondary(), self.alarm()),
            850..967 => self.failover(),
            967..977 => (node, self.started(node)),
            977..987 => {
                let detail = "GET /api/cluster/heartbeat: operation timed out".to_owned();
                (node, PeerUnreachable { peer: Self::peer_of(node), detail }.into())
            }
            _ => {
                let silent_ms = Some(self.random.u64(..9_999));
                (node, PeerReachable { peer: Self::peer_of(node), silent_ms }.into())
            }
        }
    }

    fn started(&mut self, node: NodeId) -> Event {
        let nodes = (1..=NODES).map(|node| NodeSpec {
            node: NodeId(node),
            name: format!("radius-{node}"),
            address: Address::as_recorded(format!("10.0.0.{node}:7400")),
            postgres: Address::as_recorded(format!("10.0.0.{node}:5432")),
            redis: Some(Address::as_recorded(format!("10.0.0.{node}:6379"))),
        });
        let settings = json!({"probe_interval_ms": 1000, "auto_failover_enabled": true, "auto_failover_threshold_ms": 4000});
        SupervisorStarted {
            name: format!("radius-{node}"),
            version: "0.1.0".to_owned(),
            pid: self.random.u32(..60_000),
            role: if node == self.main { Role::Main } else { Role::Secondary },
            nodes: nodes.collect(),
            main: Some(self.main),
            interrupted_run: None,
            settings: settings.as_object().cloned().unwrap_or_default(),
        }
        .into()
    }

    fn window(&mut self, node: NodeId) -> Event {
        let mut round_trips = [0; 11];
        round_trips[..5].fill_with(|| self.random.u32(..20));
        let misses = if self.random.u8(..4) == 0 { self.random.u32(..25) } else { 0 };
        HeartbeatsObserved {
            peer: Self::peer_of(node),
            since: self.now - TimeDelta::minutes(1),
            window_ms: 60_000,
            answered: round_trips.iter().sum(),
            round_trips,
            missed_at_ms: (0..misses).map(|second| second * 1_000 + self.random.u32(..900)).collect(),
        }
        .into()
    }

    fn postgres(&mut self, node: NodeId) -> Event {
        let status = if node == self.main { PostgresStatus::Primary } else { PostgresStatus::Streaming };
        let starting =
            "FATAL: the database system is starting up; connection to server at \"10.0.0.1\" was tried again";
        let detail = if self.random.bool() { starting.to_owned() } else { String::new() };
        PostgresChanged { status, timeline: Some(self.timeline()), lsn: Some(self.lsn()), detail }.into()
    }

    fn timeline(&self) -> TimelineId {
        TimelineId(u32::try_from(self.epoch.0).unwrap_or(u32::MAX))
    }

    fn redis(&mut self) -> Event {
        let detail =
            "master_link_status:up, master_last_io_seconds_ago:1, LOADING the dataset in memory".to_owned();
        let offset = Some(self.random.u64(..1 << 40));
        RedisChanged { status: RedisStatus::Linked, offset, detail, alarm: false }.into()
    }

    fn dependent(&mut self) -> Event {
        let status = if self.random.bool() { DependentStatus::Ready } else { DependentStatus::NotReady };
        let detail =
            "Status-Server request to 127.0.0.1:1812 was not answered within 2000 ms (3 attempts)".to_owned();
        DependentChanged { name: "freeradius".to_owned(), status, detail }.into()
    }

    /// Main is suspected, and the next time it has recovered.
    fn alarm(&mut self) -> Event {
        let main = self.main;
        self.suspected = !self.suspected;
        let evidence = self.evidence(!self.suspected);
        if self.suspected {
            MainSuspected { main, evidence, threshold_ms: THRESHOLD_MS }.into()
        } else {
            MainRecovered { main, silent_ms: 1_800, threshold_ms: THRESHOLD_MS, evidence }.into()
        }
    }

    fn evidence(&mut self, good: bool) -> Evidence {
        let ms = self.random.u32(..900);
        let (supervisor, postgres, redis, wal_receiver) = if good {
            (
                Finding::good(format!("answers in {ms} ms, PostgreSQL is primary, epoch {}", self.epoch)),
                Finding::good(format!("SELECT pg_is_in_recovery() answered false in {ms} ms")),
                Finding::good("PONG, role master"),
                Finding::good("streaming, last message 120 ms ago"),
            )
        } else {
            (
                Finding::bad("no answer within 1000 ms: connection refused (os error 111)"),
                Finding::bad(format!(
                    "could not connect to 10.0.0.{}:5432: timed out after {ms} ms",
                    self.main
                )),
                Finding::unknown("not asked: its host gives no answer"),
                Finding::unknown(format!("no row in pg_stat_wal_receiver since {ms} ms")),
            )
        };
        let last_good_at = Some(self.now - TimeDelta::milliseconds(1_500 + i64::from(ms)));
        Evidence {
            supervisor,
            postgres,
            redis,
            wal_receiver,
            last_good_at,
            missed_probes: 1 + self.random.u32(..5),
        }
    }

    /// The next event of the failover under way, or the first of a new one.
    fn failover(&mut self) -> (NodeId, Event) {
        let mut run = match self.run.take() {
            Some(run) if !run.to_come.is_empty() => run,
            _ => self.new_failover(),
        };
        let event = run.to_come.pop_front().unwrap_or_else(|| self.dependent());
        if let Event::EpochOpened(opened) = &event {
            (self.epoch, self.main) = (opened.epoch, opened.main);
        }
        let node = run.node;
        self.run = Some(run);
        (node, event)
    }

    fn new_failover(&mut self) -> Failover {
        let (old_main, new_main, epoch) = (self.main, self.secondary(), self.epoch.next());
        let ago = |seconds| self.now - TimeDelta::seconds(seconds);
        let last_report = Some(LastReport {
            lsn: Lsn(self.random.clone().u64(..1 << 40)),
            first_reported_at: ago(9_000),
            reported_at: ago(5),
            caught_up_at: Some(ago(5)),
            first_miss_at: Some(ago(4)),
        });
        let (silent_ms, threshold_ms) = (THRESHOLD_MS + 20, THRESHOLD_MS);
        let evidence = self.evidence(false);
        let lost = MainLost {
            main: old_main,
            silent_ms,
            threshold_ms,
            evidence: evidence.clone(),
            last_report: last_report.clone(),
        };
        let started = FailoverStarted {
            trigger: Trigger::Automatic,
            old_main,
            new_main,
            epoch,
            evidence,
            silent_ms,
            threshold_ms,
            last_report,
            quorum: "none".to_owned(),
            request: None,
            handover: None,
        };
        let mut to_come = VecDeque::from([Event::from(lost), started.into()]);
        for step in &RunKind::Failover.steps()[1..13] {
            to_come.push_back(StepStarted { step: *step, attempt: 1, limit_ms: 10_000 }.into());
            to_come.push_back(self.step_finished(*step));
            if *step == StepId::OpenEpoch {
                let timeline = TimelineId(u32::try_from(epoch.0).unwrap_or(u32::MAX));
                let switchpoint = Some(self.lsn());
                let old_main = Some(old_main);
                to_come
                    .push_back(EpochOpened { epoch, main: new_main, old_main, timeline, switchpoint }.into());
            }
        }
        let recovery_time =
            RecoveryTime { detect_ms: silent_ms, decide_ms: 300, promote_ms: 800, dependents_ms: 900 };
        let (main_lsn, own_lsn) = (Some(Lsn(99_999_999)), Lsn(99_999_999));
        let loss = Some(Loss { bytes: Some(0), seconds: Some(0.2), lower_bound: true, main_lsn, own_lsn });
        let degraded = Vec::new();
        to_come.push_back(FailoverCompleted { main: new_main, epoch, degraded, recovery_time, loss }.into());
        Failover { id: RunId(self.uuid()), node: new_main, to_come, cause: None }
    }

    fn step_finished(&mut self, step: StepId) -> Event {
        let observed = Map::from_iter([
            ("before".to_owned(), json!({ "in_recovery": true, "lsn": self.lsn().to_string() })),
            ("after".to_owned(), json!(format!("pg_is_in_recovery() = false, checked at {}", self.now))),
            ("attempts".to_owned(), json!(self.random.u32(..4))),
        ]);
        let outcome = if self.random.u8(..9) == 0 { StepOutcome::Skipped } else { StepOutcome::Succeeded };
        let took_ms = self.random.u64(..2_000);
        let detail = format!("done and observed after {took_ms} ms: the server answered as it should");
        StepFinished { step, attempt: 1, outcome, detail, observed, took_ms }.into()
    }
}

impl Iterator for Stream {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        self.now += TimeDelta::milliseconds(self.random.i64(0..60) * 40);
        self.moment = Hlc(self.moment.0 + 1).max(Hlc::from_wall_ms(self.now.timestamp_millis()));
        let (node_id, event) = self.fact();
        let event_id = EventId(self.uuid());
        let of_run = self.run.as_mut().filter(|run| run.node == node_id && is_of_a_run(&event));
        let cause = of_run.as_ref().and_then(|run| run.cause);
        let run_id = of_run.as_ref().filter(|_| !matches!(event, Event::MainLost(_))).map(|run| run.id);
        let correlation_id = cause.map_or(event_id, |cause| cause.correlation_id);
        if let Some(run) = of_run {
            run.cause = Some(Lineage { causation_id: event_id, correlation_id });
        }
        let chain = self.chains.iter_mut().find(|chain| chain.head().node_id == node_id)?;
        let mut record = Record {
            event_id,
            cluster_id: CLUSTER,
            node_id,
            node_seq: chain.head().node_seq.next(),
            epoch: self.epoch,
            hlc: self.moment,
            recorded_at: self.now,
            kind: event.kind().to_owned(),
            schema_version: event.schema_version(),
            run_id,
            correlation_id,
            causation_id: cause.map(|cause| cause.causation_id),
            actor: serde_json::to_string(&Cause::System).ok()?,
            payload: event.payload().ok()?,
            prev_hash: chain.head().hash,
            hash: ChainHash::GENESIS,
            learned_in: self.epoch,
        };
        record.hash = record.computed_hash();
        *chain = ChainWalk::up_to(&record);
        Some(record)
    }
}

fn is_of_a_run(event: &Event) -> bool {
    matches!(
        event,
        Event::MainLost(_)
            | Event::FailoverStarted(_)
            | Event::StepStarted(_)
            | Event::StepFinished(_)
            | Event::EpochOpened(_)
            | Event::FailoverCompleted(_)
    )
}
