use std::collections::BTreeMap;

use chrono::DateTime;
use interrex_events::*;
use proptest::{prelude::*, strategy::ValueTree as _};
use uuid::Uuid;

use super::*;
use crate::{Cluster, Entry};

/// Small, so that late events fall before what is settled, too.
const KEPT: usize = 6;
const NODES: std::ops::RangeInclusive<u32> = 1..=3;

fn evidence() -> Evidence {
    let silent = || Finding::bad("connection refused");
    Evidence {
        supervisor: silent(),
        postgres: silent(),
        redis: silent(),
        wal_receiver: silent(),
        last_good_at: None,
        missed_probes: 3,
    }
}

fn started(role: Role, main: u32, name: &str) -> SupervisorStarted {
    let spec = |node: u32| NodeSpec {
        node: NodeId(node),
        name: format!("{name}{node}"),
        address: Address::as_recorded(String::new()),
        postgres: Address::as_recorded(format!("10.0.0.{node}:5432")),
        redis: None,
    };
    let settings = serde_json::json!({
        "auto_failover_enabled": true, "auto_failover_threshold_ms": 120_000, "probe_interval_ms": 5_000,
    });
    SupervisorStarted {
        name: name.to_owned(),
        version: String::new(),
        pid: 1,
        role,
        nodes: NODES.map(spec).collect(),
        main: Some(NodeId(main)),
        interrupted_run: None,
        settings: settings.as_object().cloned().unwrap_or_default(),
    }
}

fn run_events(
    run: u128,
    step: usize,
    (main, epoch): (u32, u64),
    end: Option<FailedEnd>,
) -> Vec<(Event, Option<RunId>)> {
    let id = Some(RunId(Uuid::from_u128(run)));
    let step = StepId::ALL[step];
    let started = FailoverStarted {
        trigger: Trigger::Automatic,
        old_main: NodeId(1),
        new_main: NodeId(main),
        epoch: Epoch(epoch),
        evidence: evidence(),
        silent_ms: 1,
        threshold_ms: 1,
        last_report: None,
        quorum: "none".to_owned(),
        request: None,
        handover: None,
    };
    let finished = StepFinished {
        step,
        attempt: 1,
        outcome: StepOutcome::Succeeded,
        detail: String::new(),
        observed: serde_json::Map::new(),
        took_ms: 1,
    };
    let failed =
        end.map(|end| FailoverFailed { end, step, error: String::new(), next: String::new() }.into());
    let mut events = vec![
        (started.into(), id),
        (StepStarted { step, attempt: 1, limit_ms: 1 }.into(), id),
        (finished.into(), id),
    ];
    events.extend(failed.map(|failed| (failed, id)));
    events
}

/// Anything that a node may record, alone or as a few that belong together.
fn anything() -> impl Strategy<Value = Vec<(Event, Option<RunId>)>> {
    let node = || NODES.prop_map(NodeId);
    let epoch = || (1u64..5).prop_map(Epoch);
    let one = |event: Event| vec![(event, None)];
    let role = prop::sample::select(vec![Role::Main, Role::Secondary]);
    let status = prop::sample::select(vec![
        PostgresStatus::Primary,
        PostgresStatus::Streaming,
        PostgresStatus::Stopped,
        PostgresStatus::Unreachable,
    ]);
    let settings = (any::<bool>(), 1_000u64..100_000).prop_map(|(enabled, threshold)| ClusterSettings {
        auto_failover_enabled: enabled,
        auto_failover_threshold_ms: threshold,
    });
    let before = ClusterSettings { auto_failover_enabled: true, auto_failover_threshold_ms: 1 };
    let end = prop::sample::select(vec![FailedEnd::RolledBack, FailedEnd::Failed, FailedEnd::NeedsOperator]);
    prop_oneof![
        (role, NODES, "[a-z]{1,3}")
            .prop_map(move |(role, main, name)| one(started(role, main, &name).into())),
        Just(one(SupervisorStopped { reason: String::new() }.into())),
        status.prop_map(move |status| {
            one(PostgresChanged { status, timeline: None, lsn: Some(Lsn(7)), detail: String::new() }.into())
        }),
        (node(), epoch())
            .prop_map(move |(main, epoch)| one(MainSeen { main, epoch, evidence: evidence() }.into())),
        node()
            .prop_map(move |main| one(MainSuspected { main, evidence: evidence(), threshold_ms: 1 }.into())),
        node().prop_map(move |main| {
            let lost =
                MainLost { main, silent_ms: 1, threshold_ms: 1, evidence: evidence(), last_report: None };
            one(lost.into())
        }),
        node().prop_map(move |peer| one(PeerUnreachable { peer, detail: String::new() }.into())),
        node().prop_map(move |peer| one(PeerReachable { peer, silent_ms: None }.into())),
        (node(), epoch(), prop::option::of(node())).prop_map(move |(main, epoch, old_main)| {
            one(EpochOpened { epoch, main, old_main, timeline: TimelineId(2), switchpoint: None }.into())
        }),
        (node(), epoch(), node()).prop_map(move |(main, epoch, announced_by)| {
            let learned_by = LearnedBy::Heartbeat;
            one(MainAnnounced {
                main,
                epoch,
                timeline: None,
                switchpoint: None,
                announced_by,
                learned_by,
                planned: None,
            }
            .into())
        }),
        (node(), epoch()).prop_map(move |(superseded_by, epoch)| {
            one(FencingStarted { superseded_by, epoch, own_epoch: Epoch(1), run: None }.into())
        }),
        (settings.clone(), any::<u128>()).prop_map(move |(settings, request)| {
            one(SettingsChanged { settings, before, request: Uuid::from_u128(request) }.into())
        }),
        (settings, epoch(), any::<u32>(), node()).prop_map(move |(settings, epoch, hlc, learned_from)| {
            let stamp = SettingsStamp { epoch, hlc: Hlc(hlc.into()) };
            one(SettingsAdopted { settings, stamp, learned_from }.into())
        }),
        node().prop_map(move |target| {
            let (due, request) = (DateTime::UNIX_EPOCH, Request::default());
            one(SwitchoverScheduled { target, due, drain_ms: 0, request }.into())
        }),
        node().prop_map(move |target| {
            let (due, because) = (DateTime::UNIX_EPOCH, Unscheduling::Cancelled);
            one(SwitchoverUnscheduled { target, due, because, detail: String::new() }.into())
        }),
        epoch().prop_map(move |epoch| {
            let [postgres, redis, dependents, next] = ["stopped", "", "", ""].map(str::to_owned);
            one(NodeFenced { epoch, postgres, redis, dependents, next, run: None }.into())
        }),
        (node(), any::<bool>()).prop_map(move |(main, streaming)| {
            one(FollowFinished { main, streaming, detail: String::new() }.into())
        }),
        (0u128..3, 1usize..13, NODES, 2u64..5, prop::option::of(end))
            .prop_map(|(run, step, main, epoch, end)| run_events(run, step, (main, epoch), end)),
    ]
}

/// The journals of three nodes whose clocks grow each by itself.
pub(crate) fn journals() -> impl Strategy<Value = Vec<Envelope>> {
    let journal = |node: u32| {
        prop::collection::vec((anything(), 1i64..40, 1u64..5), 0..16).prop_map(move |steps| {
            let mut envelopes = Vec::new();
            let mut hlc = 0;
            for (events, pause, epoch) in steps {
                for (event, run_id) in events {
                    hlc += pause;
                    let seq = envelopes.len() as u64 + 1;
                    let event_id = EventId(Uuid::from_u128(u128::from(node) << 64 | u128::from(seq)));
                    envelopes.push(Envelope {
                        event_id,
                        cluster_id: ClusterId(Uuid::nil()),
                        node_id: NodeId(node),
                        node_seq: NodeSeq(seq),
                        epoch: Epoch(epoch),
                        learned_in: Epoch(epoch),
                        hlc: Hlc(hlc),
                        recorded_at: DateTime::from_timestamp_millis(1_800_000_000_000 + hlc).unwrap(),
                        run_id,
                        correlation_id: event_id,
                        causation_id: None,
                        actor: Cause::System,
                        event,
                    });
                }
            }
            envelopes
        })
    };
    (journal(1), journal(2), journal(3)).prop_map(|(a, b, c)| [a, b, c].concat())
}

/// The journals, and an order in which their events arrive: any, some of them more than once.
fn arrivals() -> impl Strategy<Value = (Vec<Envelope>, Vec<usize>)> {
    journals().prop_flat_map(|events| {
        let places: Vec<usize> = (0..events.len()).collect();
        let again = if places.is_empty() {
            Just(Vec::new()).boxed()
        } else {
            prop::collection::vec(prop::sample::select(places.clone()), 0..20).boxed()
        };
        let order = again.prop_flat_map(move |again| Just([places.clone(), again].concat()).prop_shuffle());
        (Just(events), order)
    })
}

type Lines = BTreeMap<Place, Entry>;

fn from_zero(events: &[Envelope]) -> (Cluster, Lines) {
    let mut sorted: Vec<&Envelope> = events.iter().collect();
    sorted.sort_by_key(|event| event.place());
    let (mut cluster, mut lines) = (Cluster::default(), Lines::new());
    for event in sorted {
        cluster.apply(event);
        lines.insert(event.place(), Entry::of(event, &cluster.nodes, &cluster.runs));
    }
    (cluster, lines)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    /// The state, the runs and the timeline after every batch are those of a rebuild from nothing.
    #[test]
    fn any_arrival_of_three_nodes_events_folds_to_what_a_rebuild_from_zero_gives(
        (events, order) in arrivals(), batch in 1usize..5
    ) {
        let mut story = InStoryOrder::<Cluster>::keeping(KEPT);
        let (mut stored, mut lines) = (BTreeMap::new(), Lines::new());
        for places in order.chunks(batch) {
            let arrived: Vec<Envelope> = places.iter().map(|place| events[*place].clone()).collect();
            stored.extend(arrived.iter().map(|event| (event.place(), event.clone())));
            let mut note = |cluster: &Cluster, event: &Envelope| {
                lines.insert(event.place(), Entry::of(event, &cluster.nodes, &cluster.runs));
            };
            if story.take(arrived, &mut note) == Taken::TooEarly {
                story = InStoryOrder::keeping(KEPT);
                let taken = story.take(stored.values().cloned(), &mut note);
                prop_assert_eq!(taken, Taken::Folded);
            }
            let seen: Vec<Envelope> = stored.values().cloned().collect();
            let (cluster, expected) = from_zero(&seen);
            prop_assert_eq!(story.folded(), &cluster);
            prop_assert_eq!(&lines, &expected);
        }
    }
}

#[cfg(feature = "postgres")]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// What is taken out again was never there, in whatever order it comes and comes again.
    #[test]
    fn events_that_came_to_nothing_leave_no_trace((events, order) in arrivals(), batch in 1usize..5) {
        let mut story = InStoryOrder::<Cluster>::default();
        let mut stored = BTreeMap::new();
        for places in order.chunks(batch) {
            let arrived = places.iter().map(|place| (events[*place].place(), events[*place].clone()));
            let new: BTreeMap<_, _> = arrived.filter(|(place, _)| !stored.contains_key(place)).collect();
            let (before, _) = from_zero(&stored.values().cloned().collect::<Vec<_>>());
            prop_assert_eq!(story.take(new.values().cloned(), |_, _| {}), Taken::Folded);
            prop_assert!(story.take_back(&new.keys().copied().collect::<Vec<_>>()));
            prop_assert_eq!(story.folded(), &before);
            prop_assert_eq!(story.take(new.values().cloned(), |_, _| {}), Taken::Folded);
            stored.extend(new);
            let (after, _) = from_zero(&stored.values().cloned().collect::<Vec<_>>());
            prop_assert_eq!(story.folded(), &after);
        }
    }
}

#[test]
fn what_is_settled_is_kept_as_state_and_not_as_events() {
    let mut story = InStoryOrder::<Cluster>::keeping(2);
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let events = loop {
        let events = journals().new_tree(&mut runner).unwrap().current();
        if events.iter().filter(|event| event.node_id == NodeId(1)).count() > 5 {
            break events.into_iter().filter(|event| event.node_id == NodeId(1)).collect::<Vec<_>>();
        }
    };
    assert_eq!(story.take(events.clone(), |_, _| {}), Taken::Folded);
    assert_eq!(story.recent.len(), 2);
    assert_eq!(story.take(events[..1].to_vec(), |_, _| panic!("folded twice")), Taken::Folded);
    let unheard_of = Envelope { node_id: NodeId(3), ..events[0].clone() };
    assert_eq!(story.take([unheard_of], |_, _| {}), Taken::TooEarly);
}

#[test]
fn a_node_whose_clock_is_years_ahead_makes_nobody_elses_events_late() {
    let event = |node: u32, seq: u64, hlc: i64| {
        let event_id = EventId(Uuid::from_u128(u128::from(node) << 64 | u128::from(seq)));
        Envelope {
            event_id,
            cluster_id: ClusterId(Uuid::nil()),
            node_id: NodeId(node),
            node_seq: NodeSeq(seq),
            epoch: Epoch(1),
            learned_in: Epoch(1),
            hlc: Hlc(hlc),
            recorded_at: DateTime::from_timestamp_millis(1_800_000_000_000).unwrap(),
            run_id: None,
            correlation_id: event_id,
            causation_id: None,
            actor: Cause::System,
            event: SupervisorStopped { reason: String::new() }.into(),
        }
    };
    let mut story = InStoryOrder::<Cluster>::keeping(KEPT);
    for seq in 1..=5 * KEPT as u64 {
        let (now, ahead) = (seq.cast_signed(), 1_000_000 + seq.cast_signed());
        assert_eq!(story.take([event(1, seq, now)], |_, _| {}), Taken::Folded, "event {seq}");
        assert_eq!(story.take([event(2, seq, ahead)], |_, _| {}), Taken::Folded);
    }
    assert_eq!(story.folded().events, 10 * KEPT as u64);
}
