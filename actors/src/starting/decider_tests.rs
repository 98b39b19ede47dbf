//! Given what this node recorded, when it starts, then these servers run.

use chrono::{DateTime, TimeDelta};
use interrex_events::*;
use interrex_projections::Projection as _;
use uuid::Uuid;

use super::*;
use crate::{test_values::spec, wire::PostgresFacts};

const ME: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);
const WAIT_MS: u64 = 1_000;

struct Node {
    cluster: Cluster,
    directory: Directory,
    may_run: bool,
    starting: Starting,
    now: Moment,
    sequence: u64,
    stated: Vec<Event>,
    told: Vec<String>,
}

impl Node {
    fn of(role: Role) -> Self {
        let main = if role == Role::Secondary { PEER } else { ME };
        let now = Moment {
            monotonic: Duration::from_secs(100),
            wall: DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
        };
        let mut node = Self {
            cluster: Cluster::default(),
            directory: Directory { is_standby: role == Role::Secondary, is_whole: true },
            may_run: false,
            starting: Starting::default(),
            now,
            sequence: 0,
            stated: Vec::new(),
            told: Vec::new(),
        };
        node.store(SupervisorStarted {
            name: "alpha".to_owned(),
            version: String::new(),
            pid: 1,
            role,
            nodes: vec![spec(ME, "alpha"), spec(PEER, "beta")],
            main: Some(main),
            interrupted_run: None,
            settings: serde_json::Map::new(),
        });
        node
    }

    fn store(&mut self, event: impl Into<Event>) {
        self.store_in(None, event);
    }

    fn store_in(&mut self, run_id: Option<RunId>, event: impl Into<Event>) {
        self.sequence += 1;
        let event_id = EventId(Uuid::from_u128(self.sequence.into()));
        self.cluster.apply(&Envelope {
            event_id,
            cluster_id: ClusterId(Uuid::nil()),
            node_id: ME,
            node_seq: NodeSeq(self.sequence),
            epoch: self.cluster.nodes.epoch.max(Epoch(1)),
            learned_in: self.cluster.nodes.epoch.max(Epoch(1)),
            hlc: Hlc::from_wall_ms(self.now.wall.timestamp_millis()),
            recorded_at: self.now.wall,
            run_id,
            correlation_id: event_id,
            causation_id: None,
            actor: Cause::System,
            event: event.into(),
        });
    }

    /// Decides, stores the facts, and goes on as long as that alone is to be done.
    fn when(&mut self, input: Input) -> Effect {
        let mut input = input;
        loop {
            let situation = Situation {
                me: ME,
                cluster: &self.cluster,
                opened: &std::collections::BTreeMap::new(),
                has_peers: true,
                wait_ms: WAIT_MS,
                directory: self.directory,
                may_run: self.may_run,
                now: self.now,
            };
            let decision = self.starting.decide(situation, input);
            self.told.extend(decision.tell);
            for draft in decision.facts {
                self.stated.push(draft.event.clone());
                self.store(draft.event);
            }
            if decision.effect != Effect::Look {
                return decision.effect;
            }
            input = Input::Stored;
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now.monotonic += Duration::from_millis(ms);
        self.now.wall += TimeDelta::milliseconds(i64::try_from(ms).unwrap());
    }

    fn kinds(&self) -> Vec<&str> {
        self.stated.iter().map(Event::kind).collect()
    }
}

fn report(main: NodeId, epoch: u64, postgres: PostgresStatus) -> NodeReport {
    NodeReport {
        cluster_id: ClusterId(Uuid::nil()),
        node: PEER,
        candidate: None,
        name: "beta".to_owned(),
        role: Role::Secondary,
        status: NodeStatus::Online,
        epoch: Epoch(epoch),
        main: Some(main),
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
        dependents: std::collections::BTreeMap::new(),
        lag: None,
        main_silent_ms: None,
        main_unseen: false,
        threshold_ms: 5_000,
        quorum: "none".to_owned(),
        run: None,
        copying: None,
        taking_over: Some(false),
        journal_heads: Vec::new(),
        stream: None,
        settings: None,
        hlc: Hlc::from_wall_ms(0),
        uptime_ms: 0,
        actors: std::collections::BTreeMap::new(),
        version: String::new(),
    }
}

fn heard(supervisor: Result<NodeReport, &str>, writable: Option<bool>) -> Input {
    let postgres = writable.map(|writable| MainPostgres { writable, lsn: None });
    Input::Heard(vec![Heard {
        peer: PEER,
        supervisor: supervisor.map(Arc::new).map_err(str::to_owned),
        postgres: postgres.ok_or_else(|| "connection refused".to_owned()),
    }])
}

fn says(report: NodeReport) -> Input {
    heard(Ok(report), Some(false))
}

/// A standby of this node, as it was before.
fn confirms() -> Input {
    says(report(ME, 1, PostgresStatus::Streaming))
}

fn takes_over() -> Input {
    says(NodeReport { taking_over: Some(true), ..report(ME, 1, PostgresStatus::Detached) })
}

fn silence() -> Input {
    heard(Err("connection refused"), None)
}

/// The start is held up: what runs is stopped, and it is asked again after a pause.
fn stops_and_asks_again(node: &mut Node, effect: &Effect) {
    assert_eq!(*effect, Effect::Stop(Scope::All, StopMode::Immediate));
    assert_eq!(node.when(Input::Stopped(Ok(()))), Effect::Wait(ASK_AGAIN));
    assert_eq!(node.when(Input::Waited), Effect::Ask);
}

fn all_started() -> Input {
    Input::Started(Ok(Started { postgres: true, ..Started::default() }))
}

#[test]
fn a_main_that_a_peer_confirms_starts_and_asks_once_more() {
    let mut node = Node::of(Role::Main);
    assert_eq!(node.when(Input::Began), Effect::Ask);
    assert_eq!(node.when(confirms()), Effect::Start(Scope::All));
    assert_eq!(node.when(all_started()), Effect::Ask);
    assert_eq!(node.when(confirms()), Effect::End(Ok(())));
    assert!(node.stated.is_empty(), "{:?}", node.stated);
}

#[test]
fn a_main_that_nobody_answers_waits_and_says_that_it_starts_alone() {
    let mut node = Node::of(Role::Main);
    assert_eq!(node.when(Input::Began), Effect::Ask);
    assert_eq!(node.when(silence()), Effect::Wait(ASK_AGAIN));
    node.pass(WAIT_MS);
    assert_eq!(node.when(Input::Waited), Effect::Ask);
    assert_eq!(node.when(silence()), Effect::Start(Scope::All));
    assert_eq!(node.kinds(), ["started_unconfirmed"]);
}

#[test]
fn a_main_that_serves_stops_at_once_while_a_peer_takes_over_and_starts_when_that_is_decided() {
    let mut node = Node::of(Role::Main);
    node.may_run = true;
    node.when(Input::Began);
    let effect = node.when(takes_over());
    stops_and_asks_again(&mut node, &effect);
    node.may_run = false;
    for _ in 0..5 {
        assert_eq!(node.when(takes_over()), Effect::Wait(ASK_AGAIN));
        node.pass(WAIT_MS);
        assert_eq!(node.when(Input::Waited), Effect::Ask);
    }
    assert_eq!(node.kinds(), ["start_held_up"], "it is recorded once");
    // somebody starts it meanwhile
    node.may_run = true;
    let effect = node.when(takes_over());
    stops_and_asks_again(&mut node, &effect);
    node.may_run = false;
    assert!(node.starting.problem().is_some_and(|it| it.contains("beta is taking over")));
    assert!(!node.starting.is_settled(), "no run may be made meanwhile");
    assert_eq!(node.when(confirms()), Effect::Start(Scope::All));
}

#[test]
fn a_peer_that_holds_itself_to_be_main_of_this_epoch_contests_a_start() {
    let mut node = Node::of(Role::Main);
    node.when(Input::Began);
    let effect = node.when(heard(Ok(report(PEER, 1, PostgresStatus::Primary)), Some(true)));
    stops_and_asks_again(&mut node, &effect);
}

#[test]
fn a_primary_whose_supervisor_is_silent_contests_a_start_for_as_long_as_it_answers() {
    let mut node = Node::of(Role::Main);
    node.when(Input::Began);
    let alone = || heard(Err("connection refused"), Some(true));
    let effect = node.when(alone());
    stops_and_asks_again(&mut node, &effect);
    node.pass(10 * WAIT_MS);
    assert_eq!(node.when(alone()), Effect::Wait(ASK_AGAIN));
    node.when(Input::Waited);
    assert_eq!(node.when(silence()), Effect::Wait(ASK_AGAIN), "its silence begins to count now");
    node.pass(WAIT_MS);
    node.when(Input::Waited);
    assert_eq!(node.when(silence()), Effect::Start(Scope::All));
}

#[test]
fn a_stray_primary_whose_own_supervisor_says_that_this_node_is_main_does_not_stop_it() {
    let mut node = Node::of(Role::Main);
    node.when(Input::Began);
    let stray = heard(Ok(report(ME, 1, PostgresStatus::Primary)), Some(true));
    assert_eq!(node.when(stray), Effect::Start(Scope::All));
}

#[test]
fn a_standby_whose_supervisor_is_silent_confirms_nothing() {
    let mut node = Node::of(Role::Main);
    node.when(Input::Began);
    assert_eq!(node.when(heard(Err("connection refused"), Some(false))), Effect::Wait(ASK_AGAIN));
}

#[test]
fn a_main_that_meets_a_later_epoch_stores_it_and_leaves_what_runs_to_its_fence() {
    let mut node = Node::of(Role::Main);
    node.when(Input::Began);
    assert_eq!(node.when(says(report(PEER, 2, PostgresStatus::Primary))), Effect::End(Ok(())));
    assert_eq!(node.kinds(), ["main_announced"]);
}

#[test]
fn a_main_that_was_contested_while_it_started_stops_again() {
    let mut node = Node::of(Role::Main);
    node.when(Input::Began);
    node.when(confirms());
    assert_eq!(node.when(all_started()), Effect::Ask);
    let effect = node.when(takes_over());
    stops_and_asks_again(&mut node, &effect);
    assert_eq!(node.when(says(report(PEER, 2, PostgresStatus::Primary))), Effect::End(Ok(())));
}

/// A peer's run wants this node's place.
fn fencing() -> FencingStarted {
    FencingStarted {
        superseded_by: PEER,
        epoch: Epoch(2),
        own_epoch: Epoch(1),
        run: Some(RunId(Uuid::nil())),
    }
}

#[test]
fn a_fenced_node_starts_nothing_and_asks_nobody() {
    let mut node = Node::of(Role::Main);
    node.store(fencing());
    assert_eq!(node.when(Input::Began), Effect::End(Ok(())));
}

#[test]
fn a_node_that_is_fenced_while_it_starts_breaks_its_start_off() {
    let mut node = Node::of(Role::Main);
    node.when(Input::Began);
    assert_eq!(node.when(confirms()), Effect::Start(Scope::All));
    assert!(!node.starting.must_yield(ME, &node.cluster));
    node.store(fencing());
    assert!(node.starting.must_yield(ME, &node.cluster));
    assert_eq!(node.when(Input::BrokenOff), Effect::End(Ok(())));
}

#[test]
fn a_node_that_is_fenced_while_it_asks_starts_nothing() {
    let mut node = Node::of(Role::Main);
    node.when(Input::Began);
    node.store(fencing());
    assert_eq!(node.when(confirms()), Effect::End(Ok(())));
}

#[test]
fn a_server_that_does_not_start_is_recorded_once_and_tried_again_after_longer_and_longer_pauses() {
    let mut node = Node::of(Role::Secondary);
    let mut pauses = Vec::new();
    node.when(Input::Began);
    for attempt in 0..8 {
        assert!(attempt == 0 || node.starting.is_settled(), "it can be asked meanwhile");
        let failed = Input::Started(Err(format!("Redis did not start: damaged, at 03:0{attempt}")));
        let effect = node.when(failed);
        pauses.extend(if let Effect::Wait(pause) = effect { Some(pause.as_secs()) } else { None });
        assert_eq!(node.when(Input::Waited), Effect::Start(Scope::All));
    }
    assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(node.kinds(), ["start_held_up"]);
    assert!(node.starting.problem().is_some_and(|it| it.contains("03:07")), "the newest is shown");
    assert_eq!(node.when(all_started()), Effect::End(Ok(())));
    assert_eq!(node.starting.problem(), None);
}

#[test]
fn a_main_whose_server_does_not_start_asks_again_before_each_attempt() {
    let mut node = Node::of(Role::Main);
    node.when(Input::Began);
    node.when(confirms());
    assert_eq!(node.when(Input::Started(Err("it did not".to_owned()))), Effect::Wait(START_AGAIN));
    assert_eq!(node.when(Input::Waited), Effect::Ask);
    let effect = node.when(takes_over());
    stops_and_asks_again(&mut node, &effect);
}

#[test]
fn a_run_that_begins_meanwhile_sees_to_the_servers_and_the_start_waits_for_its_end() {
    let mut node = Node::of(Role::Secondary);
    node.when(Input::Began);
    let pause = Effect::Wait(START_AGAIN);
    assert_eq!(node.when(Input::Started(Err("it did not".to_owned()))), pause);
    let run = RunId(Uuid::from_u128(7));
    node.store_in(Some(run), RejoinStarted { main: PEER, epoch: Epoch(1), copy: false, request: None });
    assert_eq!(node.when(Input::Waited), pause);
    assert!(node.starting.must_yield(ME, &node.cluster));
    node.store_in(
        Some(run),
        RunRefused {
            step: StepId::CheckLineage,
            reason: "main does not answer".to_owned(),
            next: String::new(),
        },
    );
    assert_eq!(node.when(Input::Waited), Effect::Start(Scope::All));
}

#[test]
fn a_main_that_offers_its_role_stops_its_postgresql_whoever_started_it() {
    let mut node = Node::of(Role::Main);
    let handover = Handover {
        run: RunId(Uuid::nil()),
        system_id: String::new(),
        timeline: TimelineId(1),
        checkpoint: Lsn(0),
        end: Lsn(0),
    };
    node.store(HandoverOffered { to: PEER, epoch: Epoch(2), handover });
    assert_eq!(node.when(Input::Began), Effect::Stop(Scope::Postgres, StopMode::Fast));
    assert_eq!(node.when(Input::Stopped(Ok(()))), Effect::Start(Scope::AllButPostgres));
    assert_eq!(node.when(Input::Started(Ok(Started::default()))), Effect::End(Ok(())));
}

#[test]
fn a_directory_that_is_not_whole_is_left_to_its_rejoin() {
    let mut node = Node::of(Role::Secondary);
    node.directory.is_whole = false;
    assert_eq!(node.when(Input::Began), Effect::End(Ok(())));
}

#[test]
fn a_secondary_starts_without_asking() {
    let mut node = Node::of(Role::Secondary);
    assert_eq!(node.when(Input::Began), Effect::Start(Scope::All));
    assert_eq!(node.when(all_started()), Effect::End(Ok(())));
}

#[test]
fn a_secondary_whose_directory_is_a_primarys_starts_all_but_that_and_says_how_it_comes_back() {
    let mut node = Node::of(Role::Secondary);
    node.directory.is_standby = false;
    for _ in 0..3 {
        let effect = if node.sequence == 1 { node.when(Input::Began) } else { node.when(Input::Waited) };
        assert_eq!(effect, Effect::Start(Scope::AllButPostgres));
        assert_eq!(node.when(Input::Started(Ok(Started::default()))), Effect::Wait(START_AGAIN));
        assert!(node.starting.is_settled(), "it can be asked to rejoin");
    }
    assert_eq!(node.kinds(), ["start_held_up"]);
    assert!(node.starting.problem().is_some_and(|it| it.contains("interrex rejoin alpha")));
    // it came back
    node.directory.is_standby = true;
    assert_eq!(node.when(Input::Waited), Effect::Start(Scope::All));
    assert_eq!(node.when(all_started()), Effect::End(Ok(())));
}

#[test]
fn a_login_that_the_server_refuses_ends_the_supervisor_and_what_it_had_started() {
    let mut node = Node::of(Role::Secondary);
    node.when(Input::Began);
    let refused = || Some("password authentication failed".to_owned());
    let started = Started { postgres: true, refused_login: refused(), redis: None };
    assert_eq!(node.when(Input::Started(Ok(started))), Effect::Stop(Scope::All, StopMode::Fast));
    let ended = Effect::End(Err(NotStarted::Machine(refused().unwrap())));
    assert_eq!(node.when(Input::Stopped(Err("it lives on".to_owned()))), ended);

    let mut node = Node::of(Role::Secondary);
    node.when(Input::Began);
    let ran = Started { postgres: false, refused_login: refused(), redis: None };
    assert_eq!(node.when(Input::Started(Ok(ran))), ended, "what it did not start goes on");
}

#[test]
fn a_mains_redis_that_came_up_as_a_replica_is_made_a_master() {
    let redis = |status| Some(RedisFacts::silent(status, ""));
    let started =
        |status| Input::Started(Ok(Started { postgres: true, refused_login: None, redis: redis(status) }));
    let mut node = Node::of(Role::Main);
    node.when(Input::Began);
    node.when(confirms());
    assert_eq!(node.when(started(RedisStatus::Linked)), Effect::MakeRedisMaster);
    assert_eq!(node.kinds(), ["redis_changed"]);
    assert_eq!(node.when(Input::RedisMade), Effect::Ask);

    let mut secondary = Node::of(Role::Secondary);
    secondary.when(Input::Began);
    assert_eq!(secondary.when(started(RedisStatus::Linked)), Effect::End(Ok(())));
}
