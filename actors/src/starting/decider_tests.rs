//! Given what this node recorded, when it starts, then these servers run.

use chrono::{DateTime, TimeDelta};
use interrex_events::*;
use interrex_projections::Projection as _;
use uuid::Uuid;

use super::*;
use crate::report::PostgresFacts;

const ME: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);
const WAIT_MS: u64 = 1_000;

struct Node {
    cluster: Cluster,
    directory: Directory,
    starting: Starting,
    now: Moment,
    sequence: u64,
    stated: Vec<Event>,
    told: Vec<&'static str>,
}

impl Node {
    fn of(role: Role) -> Self {
        let main = if role == Role::Secondary { PEER } else { ME };
        let spec = |node: NodeId, name: &str| NodeSpec {
            node,
            name: name.to_owned(),
            address: String::new(),
            postgres: String::new(),
            redis: None,
        };
        let now = Moment {
            monotonic: Duration::from_secs(100),
            wall: DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
        };
        let mut node = Self {
            cluster: Cluster::default(),
            directory: Directory { is_standby: role == Role::Secondary, is_whole: true },
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
                has_peers: true,
                wait_ms: WAIT_MS,
                directory: self.directory,
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
        name: "beta".to_owned(),
        role: Role::Secondary,
        status: NodeStatus::Online,
        epoch: Epoch(epoch),
        main: Some(main),
        switchpoint: None,
        healthy: true,
        problems: Vec::new(),
        postgres: PostgresFacts::silent(postgres, ""),
        postgres_age_ms: None,
        redis: RedisFacts { status: RedisStatus::None, offset: None, detail: String::new() },
        dependents: std::collections::BTreeMap::new(),
        lag: None,
        main_silent_ms: None,
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

fn says(report: NodeReport) -> Input {
    Input::Heard(vec![Heard { name: "beta".to_owned(), supervisor: Ok(Arc::new(report)) }])
}

/// A standby of this node, as it was before.
fn confirms() -> Input {
    says(report(ME, 1, PostgresStatus::Streaming))
}

fn takes_over() -> Input {
    says(NodeReport { taking_over: Some(true), ..report(ME, 1, PostgresStatus::Detached) })
}

fn silence() -> Input {
    Input::Heard(vec![Heard { name: "beta".to_owned(), supervisor: Err("connection refused".to_owned()) }])
}

fn all_started() -> Input {
    Input::Started(Ok(Started { postgres: true, ..Started::default() }))
}

fn server(effect: &Effect) -> Option<Scope> {
    if let Effect::Start(scope) = effect { Some(*scope) } else { None }
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
fn a_main_waits_for_as_long_as_a_peer_takes_over() {
    let mut node = Node::of(Role::Main);
    node.when(Input::Began);
    for _ in 0..5 {
        assert_eq!(node.when(takes_over()), Effect::Wait(ASK_AGAIN));
        node.pass(WAIT_MS);
        assert_eq!(node.when(Input::Waited), Effect::Ask);
    }
    assert_eq!(node.told.len(), 1, "it is told once");
    assert_eq!(node.when(confirms()), Effect::Start(Scope::All));
}

#[test]
fn a_main_that_meets_a_later_epoch_stores_it_and_stops_what_runs() {
    let mut node = Node::of(Role::Main);
    node.when(Input::Began);
    let stop = Effect::Stop(Scope::All, StopMode::Immediate);
    assert_eq!(node.when(says(report(PEER, 2, PostgresStatus::Primary))), stop);
    assert_eq!(node.kinds(), ["main_announced"]);
    assert_eq!(node.when(Input::Stopped(Ok(()))), Effect::End(Ok(())));
}

#[test]
fn a_main_that_was_superseded_while_it_started_stops_again() {
    let mut node = Node::of(Role::Main);
    node.when(Input::Began);
    node.when(confirms());
    assert_eq!(node.when(all_started()), Effect::Ask);
    let stop = Effect::Stop(Scope::All, StopMode::Immediate);
    assert_eq!(node.when(says(report(PEER, 2, PostgresStatus::Primary))), stop);
    assert_eq!(node.when(Input::Stopped(Ok(()))), Effect::End(Ok(())));
}

#[test]
fn a_fenced_node_stays_stopped_and_asks_nobody() {
    let mut node = Node::of(Role::Main);
    let fencing =
        FencingStarted { superseded_by: PEER, epoch: Epoch(2), own_epoch: Epoch(1), run: Some(RunId(Uuid::nil())) };
    node.store(fencing);
    assert_eq!(node.when(Input::Began), Effect::Stop(Scope::All, StopMode::Immediate));
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
fn a_secondary_never_starts_a_directory_that_is_a_primarys() {
    let mut node = Node::of(Role::Secondary);
    node.directory.is_standby = false;
    let effect = node.when(Input::Began);
    assert!(matches!(&effect, Effect::End(Err(NotStarted::Machine(words))) if words.contains("standby.signal")));
    assert_eq!(server(&effect), None);
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
    let redis = |status| Some(RedisFacts { status, offset: None, detail: String::new() });
    let started = |status| {
        Input::Started(Ok(Started { postgres: true, refused_login: None, redis: redis(status) }))
    };
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
