use chrono::DateTime;
use interrex_events::*;
use uuid::Uuid;

use super::*;

/// Envelopes of one node, one second apart.
struct Stream {
    node: NodeId,
    envelopes: Vec<Envelope>,
}

impl Stream {
    fn of(node: u32) -> Self {
        Self { node: NodeId(node), envelopes: Vec::new() }
    }

    fn then(mut self, event: impl Into<Event>) -> Self {
        self.push(event.into(), None);
        self
    }

    fn in_run(mut self, run: RunId, event: impl Into<Event>) -> Self {
        self.push(event.into(), Some(run));
        self
    }

    fn push(&mut self, event: Event, run_id: Option<RunId>) {
        let seq = self.envelopes.len() as u64 + 1;
        let wall_ms = 1_800_000_000_000 + seq.cast_signed() * 1000;
        self.envelopes.push(Envelope {
            event_id: EventId(Uuid::from_u128(seq.into())),
            cluster_id: ClusterId(Uuid::nil()),
            node_id: self.node,
            node_seq: NodeSeq(seq),
            epoch: Epoch(1),
            learned_in: Epoch(1),
            hlc: Hlc::from_wall_ms(wall_ms),
            recorded_at: DateTime::from_timestamp_millis(wall_ms).unwrap(),
            run_id,
            correlation_id: EventId(Uuid::from_u128(seq.into())),
            causation_id: None,
            actor: Cause::System,
            event,
        });
    }

    fn fold(&self) -> Cluster {
        Cluster::of(&self.envelopes)
    }
}

fn evidence() -> Evidence {
    Evidence {
        supervisor: Finding::bad("connection refused"),
        postgres: Finding::bad("connection refused"),
        redis: Finding::bad("connection refused"),
        wal_receiver: Finding::bad("no log is received"),
        last_good_at: None,
        missed_probes: 5,
    }
}

fn started(role: Role) -> SupervisorStarted {
    let spec = |node: u32, name: &str| NodeSpec {
        node: NodeId(node),
        name: name.to_owned(),
        address: Address::as_recorded(format!("127.0.0.1:74{node:02}")),
        postgres: Address::as_recorded(format!("127.0.0.1:54{node:02}")),
        redis: None,
    };
    SupervisorStarted {
        name: "beta".to_owned(),
        version: "0.1.0".to_owned(),
        pid: 1,
        role,
        nodes: vec![spec(1, "alpha"), spec(2, "beta")],
        main: Some(NodeId(1)),
        interrupted_run: None,
        settings: serde_json::Map::new(),
    }
}

fn failover_started() -> FailoverStarted {
    FailoverStarted {
        trigger: Trigger::Automatic,
        old_main: NodeId(1),
        new_main: NodeId(2),
        epoch: Epoch(2),
        evidence: evidence(),
        silent_ms: 5_100,
        threshold_ms: 5_000,
        last_report: None,
        quorum: "none".to_owned(),
        request: None,
        handover: None,
    }
}

fn opened() -> EpochOpened {
    EpochOpened {
        epoch: Epoch(2),
        main: NodeId(2),
        old_main: Some(NodeId(1)),
        timeline: TimelineId(2),
        switchpoint: Some(Lsn(0x0300_0000)),
    }
}

fn finished(step: StepId, outcome: StepOutcome) -> StepFinished {
    StepFinished {
        step,
        attempt: 1,
        outcome,
        detail: "because".to_owned(),
        observed: serde_json::Map::new(),
        took_ms: 7,
    }
}

fn announced(epoch: u64, main: u32) -> MainAnnounced {
    MainAnnounced {
        main: NodeId(main),
        epoch: Epoch(epoch),
        timeline: None,
        switchpoint: None,
        announced_by: NodeId(main),
        learned_by: LearnedBy::Heartbeat,
        planned: None,
    }
}

#[test]
fn a_promotion_moves_the_role_and_the_epoch() {
    let cluster = Stream::of(2).then(started(Role::Secondary)).then(opened()).fold();
    assert_eq!((cluster.nodes.main, cluster.nodes.epoch), (Some(NodeId(2)), Epoch(2)));
    let row = |node| cluster.nodes.get(NodeId(node)).unwrap();
    assert_eq!((row(1).role, row(1).status), (Role::Secondary, NodeStatus::Offline));
    assert_eq!((row(2).role, row(2).status), (Role::Main, NodeStatus::Online));
}

#[test]
fn an_older_epoch_never_moves_the_role_back() {
    let cluster = Stream::of(2).then(started(Role::Secondary)).then(opened()).then(announced(1, 1)).fold();
    assert_eq!((cluster.nodes.main, cluster.nodes.epoch), (Some(NodeId(2)), Epoch(2)));
}

#[test]
fn being_fenced_outlives_the_supervisor() {
    let fencing =
        FencingStarted { superseded_by: NodeId(2), epoch: Epoch(2), own_epoch: Epoch(1), run: None };
    let stream = Stream::of(1)
        .then(started(Role::Main))
        .then(announced(2, 2))
        .then(fencing)
        .then(SupervisorStopped { reason: "asked to".to_owned() })
        .then(started(Role::Secondary));
    let cluster = stream.fold();
    assert!(cluster.nodes.is_superseded(NodeId(1)));
    assert_eq!(cluster.nodes.get(NodeId(1)).unwrap().status, NodeStatus::Fencing);
}

#[test]
fn a_run_is_rebuilt_with_every_step() {
    let id = RunId(Uuid::from_u128(1));
    let step = StepId::Promote;
    let stream = Stream::of(2)
        .then(started(Role::Secondary))
        .in_run(id, failover_started())
        .in_run(id, StepStarted { step, attempt: 1, limit_ms: 60_000 });
    let running = stream.fold();
    let run = running.runs.active(NodeId(2)).unwrap();
    assert!(run.is_past_no_return() && run.step(step).is_running());
    assert!(run.step(StepId::RecordStart).succeeded());
    assert_eq!(run.step(StepId::RunHooks).state, StepState::Pending);

    let completed = FailoverCompleted {
        main: NodeId(2),
        epoch: Epoch(2),
        degraded: vec![StepId::RunHooks],
        recovery_time: RecoveryTime { detect_ms: 5000, decide_ms: 20, promote_ms: 30, dependents_ms: 400 },
        loss: None,
    };
    let ended = stream.in_run(id, finished(step, StepOutcome::Succeeded)).in_run(id, completed).fold();
    let run = ended.runs.get(id).unwrap();
    assert_eq!(run.end, RunEnd::CompletedDegraded);
    assert_eq!(run.step(step).took_ms, Some(7));
    assert_eq!(run.recovery_time.unwrap().without_writes_ms(), 5050);
    assert!(ended.runs.active(NodeId(2)).is_none());
}

#[test]
fn an_unknown_kind_or_version_is_counted_and_shown_and_changes_nothing_else() {
    let stream = Stream::of(2).then(started(Role::Secondary));
    let known = stream.fold();
    let newer = serde_json::to_string(&opened()).unwrap();
    let stream = stream.then(Event::read("moon_phase_observed", 1, r#"{"phase":"full"}"#)).then(Event::read(
        "epoch_opened",
        u32::MAX,
        &newer,
    ));
    let mut with_unknown = stream.fold();
    assert_eq!(
        with_unknown.unknown_kinds,
        [("epoch_opened".to_owned(), 1), ("moon_phase_observed".to_owned(), 1)].into()
    );
    let mut timeline = Timeline::default();
    stream.envelopes.iter().for_each(|envelope| timeline.apply(envelope));
    assert!(timeline.entries[1].text.contains(r#"{"phase":"full"}"#), "{}", timeline.entries[1].text);
    assert!(timeline.entries[2].text.contains(&newer), "{}", timeline.entries[2].text);
    with_unknown.unknown_kinds.clear();
    with_unknown.events -= 2;
    assert_eq!(with_unknown, known);
}

#[test]
fn the_timeline_calls_nodes_by_their_names() {
    let mut timeline = Timeline::default();
    let lost = MainLost {
        main: NodeId(1),
        silent_ms: 5_100,
        threshold_ms: 5_000,
        evidence: evidence(),
        last_report: None,
    };
    Stream::of(2).then(started(Role::Secondary)).then(lost).envelopes.iter().for_each(|e| timeline.apply(e));
    assert_eq!(timeline.entries[1].node_name, "beta");
    assert_eq!(
        timeline.entries[1].text,
        "main alpha is lost: silent for 5.1 s (allowed 5.0 s); PostgreSQL connection refused; supervisor \
         connection refused; WAL receiver no log is received"
    );
}

#[test]
fn a_line_of_a_run_names_its_kind() {
    let mut timeline = Timeline::default();
    let completed = FailoverCompleted {
        main: NodeId(2),
        epoch: Epoch(2),
        degraded: Vec::new(),
        recovery_time: RecoveryTime { detect_ms: 0, decide_ms: 20, promote_ms: 30, dependents_ms: 400 },
        loss: None,
    };
    let triggers = [Trigger::Automatic, Trigger::Operator, Trigger::Switchover];
    let stream = (1..).zip(triggers).fold(Stream::of(2), |stream, (run, trigger)| {
        let run = RunId(Uuid::from_u128(run));
        let started = FailoverStarted { trigger, ..failover_started() };
        stream.in_run(run, started).in_run(run, completed.clone())
    });
    stream.envelopes.iter().for_each(|envelope| timeline.apply(envelope));
    let ends = timeline.entries.iter().filter(|entry| entry.kind == "failover_completed");
    let messages: Vec<_> =
        ends.filter_map(|entry| entry.text.split_once(": ")).map(|(first, _)| first).collect();
    assert_eq!(messages, ["failover completed", "promotion completed", "takeover completed"]);
}

#[test]
fn the_halves_of_a_switchover_name_each_other_and_the_one_that_was_asked_for_is_the_newest() {
    let [asked_for, half, other] = [1, 2, 3].map(|run| RunId(Uuid::from_u128(run)));
    let switchover = SwitchoverStarted {
        old_main: NodeId(1),
        new_main: NodeId(2),
        epoch: Epoch(2),
        drain_ms: 0,
        request: Request::default(),
    };
    let handover = Handover {
        run: asked_for,
        system_id: "7".to_owned(),
        timeline: TimelineId(1),
        checkpoint: Lsn(1),
        end: Lsn(2),
    };
    let taken =
        FailoverStarted { trigger: Trigger::Switchover, handover: Some(handover), ..failover_started() };
    let here = Stream::of(2).in_run(half, taken).fold().runs;
    let alone = here.get(half).unwrap();
    assert_eq!((here.other_half(alone), here.newest_whole()), (Some(asked_for), Some(alone)));
    let offering = Stream::of(1).in_run(asked_for, switchover);
    let both = Cluster { runs: here, ..Cluster::default() };
    let both = offering.envelopes.iter().fold(both, |mut both, event| {
        both.apply(event);
        both
    });
    let runs = both.runs;
    assert_eq!(runs.other_half(runs.get(asked_for).unwrap()), Some(half));
    assert_eq!(runs.newest_whole().map(|run| run.id), Some(asked_for));
    let after = Stream::of(2).in_run(other, failover_started()).fold().runs;
    assert_eq!(after.newest_whole().map(|run| run.id), Some(other));
    assert_eq!(after.other_half(after.get(other).unwrap()), None);
}
