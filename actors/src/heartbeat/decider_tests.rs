//! Given what was seen, when time passes or a probe ends, then these facts follow.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta};
use interrex_events::*;
use interrex_projections::{Projection, Standing};
use uuid::Uuid;

use super::*;
use crate::{
    ports::NoReply,
    test_values,
    wire::{MainPostgres, NodeReport, PostgresFacts, RedisFacts},
};

const ME: NodeId = NodeId(2);
const MAIN: NodeId = NodeId(1);

struct Node {
    cluster: Cluster,
    standpoint: Standpoint,
    opened: BTreeMap<NodeId, Epoch>,
    timing: Timing,
    now: Moment,
    watch: Watch,
    stated: Vec<Event>,
}

fn spec(node: u32) -> NodeSpec {
    test_values::spec(NodeId(node), &format!("node{node}"))
}

impl Node {
    /// A secondary with probes each second and a threshold of five.
    fn secondary() -> Self {
        let mut cluster = Cluster::default();
        let event_id = EventId(Uuid::nil());
        let wall = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        cluster.apply(&Envelope {
            event_id,
            cluster_id: ClusterId(Uuid::nil()),
            node_id: ME,
            node_seq: NodeSeq(1),
            epoch: Epoch(1),
            learned_in: Epoch(1),
            hlc: Hlc::from_wall_ms(wall.timestamp_millis()),
            recorded_at: wall,
            run_id: None,
            correlation_id: event_id,
            causation_id: None,
            actor: Cause::System,
            event: SupervisorStarted {
                name: "beta".to_owned(),
                version: String::new(),
                pid: 1,
                role: Role::Secondary,
                nodes: (1..=3).map(spec).collect(),
                main: Some(MAIN),
                interrupted_run: None,
                settings: serde_json::Map::new(),
            }
            .into(),
        });
        let timing = Timing {
            probe_interval: Duration::from_secs(1),
            probe_timeout: Duration::from_secs(1),
            threshold_ms: 5_000,
        };
        let now = Moment { monotonic: Duration::from_secs(1_000), wall };
        let (standpoint, opened) = (Standpoint::default(), BTreeMap::new());
        Self { cluster, standpoint, opened, timing, now, watch: Watch::default(), stated: Vec::new() }
    }

    fn take(&mut self, input: Input) -> Judgement {
        let situation = Situation {
            me: ME,
            cluster: &self.cluster,
            standpoint: &self.standpoint,
            opened: &self.opened,
            timing: &self.timing,
            now: self.now,
        };
        let verdict = self.watch.decide(situation, input);
        self.stated.extend(verdict.facts.iter().map(|draft| draft.event.clone()));
        verdict
    }

    fn pass(&mut self, ms: u64) {
        self.now.monotonic += Duration::from_millis(ms);
        self.now.wall += TimeDelta::milliseconds(i64::try_from(ms).unwrap());
    }

    /// For so many seconds: a tick, then a probe of main with this answer.
    fn seconds(&mut self, seconds: u32, main: Main) {
        for _ in 0..seconds {
            self.pass(1_000);
            self.take(Input::Tick);
            self.probe(main);
        }
    }

    fn probe(&mut self, main: Main) {
        let refused = || NoReply::Silent("connection refused".to_owned());
        let postgres = match main {
            Main::Serves | Main::WithoutSupervisor => {
                Ok(MainPostgres { writable: true, lsn: Some(Lsn(5_000)) })
            }
            Main::Dead | Main::BehindABrokenWay => Err(refused()),
        };
        let supervisor = match main {
            Main::Serves | Main::BehindABrokenWay => {
                Ok(Arc::new(report(MAIN, Epoch(1), PostgresStatus::Primary)))
            }
            Main::Dead | Main::WithoutSupervisor => Err(refused()),
        };
        let (began, ended) = (self.now, self.now);
        let probe =
            ProbeEnded { peer: MAIN, began, ended, supervisor, postgres: Some(postgres), redis: None };
        self.take(Input::ProbeEnded(Box::new(probe)));
    }

    fn measure(&mut self, lsn: u64, heard: Option<Duration>) -> Judgement {
        let postgres = PostgresFacts {
            status: PostgresStatus::Streaming,
            timeline: Some(TimelineId(1)),
            lsn: Some(Lsn(lsn)),
            replayed: Some(Lsn(lsn)),
            detail: String::new(),
        };
        let redis = RedisFacts::none();
        let measured = Measured { at: self.now, postgres, receiver_heard: heard, redis };
        self.take(Input::Measured(Box::new(measured)))
    }

    fn kinds(&self) -> Vec<&str> {
        self.stated.iter().map(Event::kind).collect()
    }

    fn withheld(&self) -> Vec<WithheldRule> {
        let rule = |event: &Event| match event {
            Event::FailoverWithheld(withheld) => Some(withheld.rule),
            _ => None,
        };
        self.stated.iter().filter_map(rule).collect()
    }
}

#[derive(Debug, Clone, Copy)]
enum Main {
    Serves,
    Dead,
    WithoutSupervisor,
    BehindABrokenWay,
}

fn report(node: NodeId, epoch: Epoch, postgres: PostgresStatus) -> NodeReport {
    NodeReport {
        cluster_id: ClusterId(Uuid::nil()),
        node,
        name: String::new(),
        role: Role::Main,
        status: interrex_projections::NodeStatus::Online,
        epoch,
        main: Some(node),
        switchpoint: None,
        planned: None,
        rests: None,
        no_session: None,
        main_no_session: None,
        healthy: true,
        problems: Vec::new(),
        postgres: PostgresFacts::silent(postgres, ""),
        postgres_age_ms: None,
        redis: RedisFacts::none(),
        dependents: BTreeMap::new(),
        lag: None,
        main_silent_ms: None,
        main_unseen: false,
        threshold_ms: 0,
        quorum: String::new(),
        candidate: None,
        copying: None,
        run: None,
        taking_over: Some(false),
        journal_heads: Vec::new(),
        stream: None,
        settings: None,
        hlc: Hlc::default(),
        uptime_ms: 0,
        actors: BTreeMap::new(),
        version: String::new(),
    }
}

#[test]
fn a_main_that_is_silent_for_the_threshold_is_lost_once() {
    let mut node = Node::secondary();
    node.seconds(10, Main::Serves);
    node.seconds(20, Main::Dead);
    assert_eq!(node.kinds(), ["main_seen", "main_suspected", "main_lost"]);
    let Some(Event::MainLost(lost)) = node.stated.last() else { panic!() };
    assert_eq!(lost.silent_ms, 5_000);
    assert_eq!(lost.last_report.as_ref().unwrap().lsn, Lsn(5_000));
}

#[test]
fn a_main_that_answers_before_the_threshold_is_not_lost_and_that_is_said() {
    let mut node = Node::secondary();
    node.seconds(10, Main::Serves);
    node.seconds(4, Main::Dead);
    node.seconds(10, Main::Serves);
    assert_eq!(node.kinds(), ["main_seen", "main_suspected", "main_recovered"]);
    let Some(Event::MainRecovered(recovered)) = node.stated.last() else { panic!() };
    assert_eq!((recovered.silent_ms, recovered.threshold_ms), (5_000, 5_000));
}

#[test]
fn a_quiet_day_is_quiet() {
    let mut node = Node::secondary();
    node.seconds(610, Main::Serves);
    assert_eq!(node.kinds(), ["main_seen", "heartbeats_observed", "heartbeats_observed"]);
    let Event::HeartbeatsObserved(window) = &node.stated[1] else { panic!() };
    assert_eq!(window.answered + u32::try_from(window.missed_at_ms.len()).unwrap(), 300);
}

#[test]
fn a_secondary_that_starts_while_main_is_down_judges_nobody() {
    let mut node = Node::secondary();
    node.seconds(600, Main::Dead);
    assert_eq!(node.withheld(), [WithheldRule::MainNeverSeenSinceBoot]);
    assert!(!node.kinds().contains(&"main_lost"));
}

#[test]
fn an_actor_that_is_restarted_while_main_dies_still_judges_it() {
    let mut node = Node::secondary();
    node.seconds(10, Main::Serves);
    node.standpoint.seen_main = Some(MAIN);
    node.watch = Watch::default();
    node.seconds(6, Main::Dead);
    assert_eq!(node.kinds(), ["main_seen", "main_suspected", "main_lost"]);
}

#[test]
fn one_witness_is_enough_for_main() {
    for (main, rule) in [
        (Main::WithoutSupervisor, WithheldRule::PostgresStillAnswers),
        (Main::BehindABrokenWay, WithheldRule::SupervisorVouches),
    ] {
        let mut node = Node::secondary();
        node.seconds(10, Main::Serves);
        node.seconds(100, main);
        assert_eq!(node.withheld(), [rule], "recorded once, however long it goes on");
        assert!(!node.kinds().contains(&"main_lost"));
    }
}

#[test]
fn log_that_still_arrives_speaks_for_a_main_that_does_not_answer() {
    let mut node = Node::secondary();
    node.seconds(10, Main::Serves);
    for _ in 0..60 {
        node.measure(5_000, Some(Duration::from_millis(100)));
        node.seconds(1, Main::Dead);
    }
    assert_eq!(node.withheld(), [WithheldRule::WalStillStreaming]);
    assert!(!node.kinds().contains(&"main_lost"));
    // the log stops too: then silence counts from the last of it
    node.measure(5_000, None);
    node.seconds(6, Main::Dead);
    assert!(node.kinds().contains(&"main_lost"));
}

#[test]
fn an_open_connection_that_says_nothing_is_no_witness() {
    let mut node = Node::secondary();
    node.seconds(10, Main::Serves);
    for second in 0..6 {
        node.measure(5_000, Some(Duration::from_secs(10 + second)));
        node.seconds(1, Main::Dead);
    }
    assert!(node.kinds().contains(&"main_lost"));
}

#[test]
fn a_supervisor_that_was_frozen_does_not_blame_main_for_it() {
    for dead_after in [false, true] {
        let mut node = Node::secondary();
        node.seconds(10, Main::Serves);
        node.pass(10_000);
        // whichever comes first after the freeze, a probe that ran into its limit or the tick
        node.probe(Main::Dead);
        node.take(Input::Tick);
        assert!(node.kinds().contains(&"supervisor_stalled"));
        assert_eq!(node.withheld(), [WithheldRule::OwnStall]);
        assert!(!node.kinds().contains(&"main_lost"));
        node.seconds(4, if dead_after { Main::Dead } else { Main::Serves });
        assert!(!node.kinds().contains(&"main_lost"), "the silence is measured again");
        node.seconds(2, if dead_after { Main::Dead } else { Main::Serves });
        assert_eq!(node.kinds().contains(&"main_lost"), dead_after);
    }
}

#[test]
fn a_wall_clock_that_jumps_loses_nobody() {
    for hours in [1, -1] {
        let mut node = Node::secondary();
        node.seconds(10, Main::Serves);
        node.now.wall += TimeDelta::hours(hours);
        node.seconds(10, Main::Serves);
        assert_eq!(node.kinds(), ["main_seen", "clock_jumped", "failover_withheld"]);
        assert_eq!(node.withheld(), [WithheldRule::ClockJump]);
    }
}

#[test]
fn the_last_probe_before_a_verdict_comes_just_when_the_time_is_up() {
    let mut node = Node::secondary();
    node.seconds(10, Main::Serves);
    assert_eq!(node.watch.until_next_probe(&node.timing, node.now), Duration::from_secs(1));
    node.seconds(4, Main::Dead);
    node.pass(700);
    assert_eq!(node.watch.until_next_probe(&node.timing, node.now), Duration::from_millis(300));
}

#[test]
fn lag_is_a_lower_bound_from_the_first_miss_on() {
    let mut node = Node::secondary();
    node.seconds(2, Main::Serves);
    let caught_up = node.measure(5_000, None).lag.unwrap();
    assert_eq!((caught_up.bytes, caught_up.seconds, caught_up.lower_bound), (0, 0.0, false));
    node.pass(500);
    let behind = node.measure(2_000, None).lag.unwrap();
    assert_eq!((behind.bytes, behind.seconds, behind.lower_bound), (3_000, 0.5, false));
    node.seconds(2, Main::Dead);
    assert!(node.measure(2_000, None).lag.unwrap().lower_bound);
}

#[test]
fn what_a_supervisor_repeats_of_a_server_that_hangs_is_as_old_as_it_was() {
    let mut node = Node::secondary();
    node.seconds(1, Main::Serves);
    let served_at = node.now.wall;
    let repeated = |node: &mut Node, lsn: u64, age_ms: u64| {
        let mut told = report(MAIN, Epoch(1), PostgresStatus::Primary);
        (told.postgres.lsn, told.postgres_age_ms) = (Some(Lsn(lsn)), Some(age_ms));
        let (supervisor, postgres) = (Ok(Arc::new(told)), Some(Err(NoReply::Silent("no answer".to_owned()))));
        let (began, ended) = (node.now, node.now);
        let probe = ProbeEnded { peer: MAIN, began, ended, supervisor, postgres, redis: None };
        node.take(Input::ProbeEnded(Box::new(probe))).sight.unwrap().last_report.unwrap()
    };
    node.pass(1_000);
    let older = repeated(&mut node, 4_000, 1_200);
    assert_eq!((older.lsn, older.reported_at), (Lsn(5_000), served_at), "it is known better");
    let newer = repeated(&mut node, 6_000, 300);
    let asked_at = node.now.wall - TimeDelta::milliseconds(300);
    assert_eq!((newer.lsn, newer.reported_at), (Lsn(6_000), asked_at));
    // what main wrote since it said so is not known to be here
    node.pass(500);
    let held = node.measure(6_000, None).sight.unwrap().last_report.unwrap();
    assert_eq!(held.caught_up_at, Some(asked_at));
}

#[test]
fn a_later_epoch_is_believed_once_and_an_older_notice_refused() {
    let claim = |main: u32, epoch: u64, learned_by: LearnedBy| {
        let (main, epoch) = (NodeId(main), Epoch(epoch));
        Input::Claim(Claim {
            main,
            epoch,
            timeline: None,
            switchpoint: None,
            from: main,
            learned_by,
            planned: None,
        })
    };
    let mut node = Node::secondary();
    node.take(claim(3, 2, LearnedBy::Notice));
    node.take(claim(3, 2, LearnedBy::Heartbeat));
    assert_eq!(node.kinds(), ["main_announced"], "it may not be folded yet, and is not repeated");
    (node.cluster.nodes.main, node.cluster.nodes.epoch) = (Some(NodeId(3)), Epoch(2));
    node.take(claim(1, 1, LearnedBy::Notice));
    assert_eq!(
        node.kinds(),
        ["main_announced", "notice_refused"],
        "once folded, an older one is refused aloud"
    );

    let mut node = Node::secondary();
    node.take(claim(3, 0, LearnedBy::Notice));
    node.take(claim(3, 1, LearnedBy::Notice));
    node.take(claim(3, 0, LearnedBy::Heartbeat));
    assert_eq!(
        node.kinds(),
        ["notice_refused", "notice_refused"],
        "an older one, and another main of this one"
    );
}

#[test]
fn a_peer_beside_main_is_unreachable_after_three_misses() {
    let mut node = Node::secondary();
    let peer = NodeId(3);
    let probe = |node: &mut Node, answers: bool| {
        node.pass(1_000);
        let supervisor = if answers {
            Ok(Arc::new(NodeReport { main: Some(MAIN), ..report(peer, Epoch(1), PostgresStatus::Streaming) }))
        } else {
            Err(NoReply::Silent("connection refused".to_owned()))
        };
        let (began, ended) = (node.now, node.now);
        let probe = ProbeEnded { peer, began, ended, supervisor, postgres: None, redis: None };
        node.take(Input::ProbeEnded(Box::new(probe)));
    };
    for answers in [true, false, false, false, false, true] {
        probe(&mut node, answers);
    }
    assert_eq!(node.kinds(), ["peer_reachable", "peer_unreachable", "peer_reachable"]);
}

/// A probe of main with these answers of its supervisor and of its PostgreSQL.
fn answers(node: &mut Node, supervisor: NoReply, postgres: NoReply) -> Judgement {
    let (began, ended) = (node.now, node.now);
    let (supervisor, postgres) = (Err(supervisor), Some(Err(postgres)));
    node.take(Input::ProbeEnded(Box::new(ProbeEnded {
        peer: MAIN,
        began,
        ended,
        supervisor,
        postgres,
        redis: None,
    })))
}

fn silent() -> NoReply {
    NoReply::Silent("connection refused".to_owned())
}

#[test]
fn an_error_that_main_answers_with_is_a_sign_of_life_but_not_one_that_it_is_starting_or_ending() {
    for code in ["28P01", "53300", "3D000", "28000", "42501", "0A000", "57P05", "58030", "53100"] {
        let mut node = Node::secondary();
        node.seconds(10, Main::Serves);
        for _ in 0..100 {
            node.pass(1_000);
            let words = "Passwort-Authentifizierung fehlgeschlagen".to_owned();
            answers(&mut node, silent(), NoReply::Refused { code: code.to_owned(), words });
        }
        assert_eq!(node.kinds(), ["main_seen", "failover_withheld"], "{code}");
        assert_eq!(node.withheld(), [WithheldRule::PostgresStillAnswers]);
    }
    let mut node = Node::secondary();
    node.seconds(10, Main::Serves);
    for _ in 0..6 {
        node.pass(1_000);
        answers(&mut node, silent(), NoReply::Passing("das Datenbanksystem startet".to_owned()));
    }
    assert!(node.kinds().contains(&"main_lost"));
}

#[test]
fn what_this_node_could_not_ask_is_held_against_nobody_and_said_once() {
    let mut node = Node::secondary();
    node.seconds(10, Main::Serves);
    let no_descriptors = || NoReply::Unknown("Too many open files".to_owned());
    for second in 0..100 {
        node.pass(1_000);
        let (supervisor, postgres) =
            if second % 2 == 0 { (no_descriptors(), silent()) } else { (silent(), no_descriptors()) };
        answers(&mut node, supervisor, postgres);
    }
    assert_eq!(node.kinds(), ["main_seen", "failover_withheld"]);
    assert_eq!(node.withheld(), [WithheldRule::OwnTrouble]);
    // once it can ask again, the silence is measured from then on
    node.seconds(4, Main::Dead);
    assert!(!node.kinds().contains(&"main_lost"));
    node.seconds(2, Main::Dead);
    assert!(node.kinds().contains(&"main_lost"));
}

#[test]
fn silence_counts_from_when_the_log_was_sent_not_from_when_it_was_looked_at() {
    let mut node = Node::secondary();
    node.seconds(10, Main::Serves);
    node.pass(1_800);
    node.measure(5_000, Some(Duration::from_millis(1_700)));
    node.pass(3_300);
    answers(&mut node, silent(), silent());
    answers(&mut node, silent(), silent());
    let Some(Event::MainLost(lost)) = node.stated.last() else { panic!("{:?}", node.kinds()) };
    assert_eq!(lost.silent_ms, 5_000, "since it was sent");
}

#[test]
fn what_a_supervisor_vouches_for_is_as_old_as_its_measurement() {
    let mut node = Node::secondary();
    node.seconds(10, Main::Serves);
    node.pass(2_000);
    let mut told = report(MAIN, Epoch(1), PostgresStatus::Primary);
    told.postgres_age_ms = Some(1_500);
    let (began, ended) = (node.now, node.now);
    let (supervisor, postgres) = (Ok(Arc::new(told)), Some(Err(silent())));
    let probe = ProbeEnded { peer: MAIN, began, ended, supervisor, postgres, redis: None };
    let sight = node.take(Input::ProbeEnded(Box::new(probe))).sight.unwrap();
    assert_eq!(node.now.ms_since(sight.silent_since), 1_500);
}

#[test]
fn a_verdict_of_an_earlier_instance_ends_when_main_gives_a_good_sign() {
    for by_its_log in [false, true] {
        let mut node = Node::secondary();
        node.seconds(10, Main::Serves);
        node.seconds(6, Main::Dead);
        let Some(Event::MainLost(lost)) = node.stated.last().cloned() else { panic!() };
        let event_id = EventId(Uuid::from_u128(7));
        let lineage = Lineage { causation_id: event_id, correlation_id: event_id };
        node.standpoint.verdict = Some(Standing { lost, lineage, withheld: None });
        node.standpoint.seen_main = Some(MAIN);
        node.watch = Watch::default();
        if by_its_log {
            node.measure(5_000, None);
            node.pass(100);
            node.measure(5_000, Some(Duration::from_millis(10)));
        } else {
            node.seconds(1, Main::Serves);
        }
        assert_eq!(node.kinds().last(), Some(&"main_recovered"), "{by_its_log}");
        // it is told once, although it may not be folded yet
        node.seconds(3, Main::Serves);
        let told = node.kinds().into_iter().filter(|kind| *kind == "main_recovered").count();
        assert_eq!(told, 1);
    }
}
