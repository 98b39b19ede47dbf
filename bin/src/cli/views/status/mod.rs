//! `interrex status`: one screen that answers at 3 in the morning.

mod candidates;
mod health;
mod text;

use chrono::{DateTime, Utc};
use interrex_actors::{
    env::ms,
    wire::{Lag, NodeReport, Rest},
};
use interrex_events::{
    Address, Cause, ClusterId, Epoch, NodeId, PostgresStatus, RecoveryTime, RedisStatus, Role, RunId,
    RunKind, StepId, TimelineId,
};
use interrex_projections::{Node, NodeStatus, RunEnd};
use serde::Serialize;
use serde_json::Value;

use self::{
    candidates::Candidate,
    health::{Health, Judgement},
};
use super::{
    super::{
        arguments::Looking,
        exit::Exit,
        failure::Failure,
        output::Output,
        outside::Outside,
        sight::{Rebuilt, Sight, Supervisor},
        story::{Fence, Withheld},
    },
    runs,
};

/// Everything on the screen.
#[derive(Serialize)]
struct Status<'a> {
    at: DateTime<Utc>,
    cluster_id: ClusterId,
    node: NodeId,
    name: String,
    rebuilt: Option<&'a Rebuilt>,
    supervisor: Supervisor,
    health: Health,
    problems: Vec<String>,
    main: Option<Member<'a>>,
    epoch: Epoch,
    timeline: Option<TimelineId>,
    others: Vec<Member<'a>>,
    protection: Protection,
    failover: Readiness,
    run: Option<RunNow>,
    scheduled: Vec<ScheduledNow>,
    withheld: Option<&'a Withheld>,
    fenced: Vec<Fenced<'a>>,
    unknown_events: u64,
    newest_event_at: Option<DateTime<Utc>>,
}

/// A node and how it is.
#[derive(Serialize)]
struct Member<'a> {
    node: NodeId,
    name: String,
    /// By its supervisor if it answers, otherwise by the journal.
    status: NodeStatus,
    /// When that began, if the journal has it.
    since: Option<DateTime<Utc>>,
    postgres: Option<PostgresStatus>,
    postgres_address: Option<Address>,
    redis: Option<RedisStatus>,
    dependents: Vec<String>,
    lag: Option<Lag>,
    live: bool,
    silence: Option<&'a str>,
}

/// The third opinion before a node becomes main.
#[derive(Serialize)]
struct Protection {
    quorum: Option<String>,
    protected: bool,
}

/// Whether and when a failover would come by itself.
#[derive(Serialize)]
struct Readiness {
    automatic: Option<bool>,
    /// Whose settings these are: those of the node that would promote itself, if they are known here, or of the user who
    /// changed them for all nodes.
    decided_by: String,
    threshold_ms: Option<u64>,
    main_silent_ms: Option<u64>,
    seen_by: Option<String>,
    /// Nodes that answer and have a standby to promote.
    candidates: Vec<Candidate>,
    /// Nodes that do not promote themselves for a while.
    rests: Vec<Resting>,
}

/// A node that does not promote itself for a while.
#[derive(Serialize)]
struct Resting {
    name: String,
    #[serde(flatten)]
    rest: Rest,
}

/// The run that goes on, or the last one.
#[derive(Serialize)]
struct RunNow {
    id: RunId,
    short_id: String,
    kind: RunKind,
    from: String,
    to: String,
    end: RunEnd,
    started_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    steps_running: Vec<StepId>,
    without_writes_ms: Option<u64>,
    loss: String,
    problem: Option<String>,
    next: Option<String>,
    /// Whether the supervisor that makes it answers, or a past moment is shown.
    attended: bool,
}

/// A switchover that a node begins by itself.
#[derive(Serialize)]
struct ScheduledNow {
    by: String,
    to: String,
    due: DateTime<Utc>,
    asked_by: Option<String>,
    reason: Option<String>,
}

/// A node that was superseded.
#[derive(Serialize)]
struct Fenced<'a> {
    node: NodeId,
    name: String,
    #[serde(flatten)]
    fence: &'a Fence,
}

/// Shows it; the exit code says whether all is well.
pub(in crate::cli) fn show(
    looking: &Looking,
    outside: &dyn Outside,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let sight = Sight::take(looking, outside)?;
    let status = Status::of(&sight);
    if looking.reading.json {
        output.json(&status)?;
    } else {
        let text = text::render(&status, &sight.as_of(), output.style);
        output.text(&text)?;
    }
    Ok(if status.health == Health::Healthy { Exit::Fine } else { Exit::NotHealthy })
}

impl<'a> Status<'a> {
    fn of(sight: &'a Sight) -> Self {
        let (main, epoch) = sight.reign();
        let me = sight.identity.node_id;
        let Judgement { health, problems } = health::judge(sight);
        let others = sight.nodes().into_iter().filter(|node| Some(*node) != main);
        let told = &sight.story.cluster.nodes;
        let live_timeline =
            main.and_then(|main| sight.report(main)).and_then(|report| report.postgres.timeline);
        Self {
            at: sight.now,
            cluster_id: sight.identity.cluster_id,
            node: me,
            name: sight.name(me),
            rebuilt: sight.rebuilt.as_ref(),
            supervisor: sight.supervisor(),
            health,
            problems,
            main: main.map(|main| Member::of(main, sight)),
            epoch,
            timeline: live_timeline.or(told.timeline.filter(|_| told.epoch == epoch)),
            others: others.map(|node| Member::of(node, sight)).collect(),
            protection: Protection::of(sight),
            failover: Readiness::of(sight, main),
            run: RunNow::of(sight),
            scheduled: scheduled(sight),
            withheld: sight.story.withheld.as_ref(),
            fenced: fenced(sight),
            unknown_events: sight.story.cluster.unknown_kinds.values().sum(),
            newest_event_at: sight.story.newest,
        }
    }
}

impl<'a> Member<'a> {
    fn of(node: NodeId, sight: &'a Sight) -> Self {
        let row = sight.story.cluster.nodes.get(node);
        let live = sight.report(node);
        let status = live.map(|live| live.status).or(row.map(|row| row.status)).unwrap_or_default();
        let told =
            |row: &Node| row.dependents.iter().map(|(name, status)| format!("{name} {status}")).collect();
        Self {
            node,
            name: sight.name(node),
            status,
            since: row.filter(|row| row.status == status).and_then(|row| row.status_since),
            postgres: live.map(|live| live.postgres.status).or(row.and_then(|row| row.postgres)),
            postgres_address: row.map(|row| row.postgres_address.clone()),
            redis: live.map(|live| live.redis.status).or(row.and_then(|row| row.redis)),
            dependents: live.map(dependents).or(row.map(told)).unwrap_or_default(),
            lag: live.and_then(|live| live.lag),
            live: live.is_some(),
            silence: sight.silence(node),
        }
    }
}

fn dependents(report: &NodeReport) -> Vec<String> {
    report.dependents.iter().map(|(name, facts)| format!("{name} {}", facts.status)).collect()
}

impl Protection {
    fn of(sight: &Sight) -> Self {
        let live = sight.reports().next().map(|report| report.quorum.clone());
        let quorum =
            live.or_else(|| setting(sight, sight.identity.node_id, "quorum")?.as_str().map(str::to_owned));
        // nothing but `none` exists so far, so what is not known is not protected either
        let protected = quorum.as_deref().is_some_and(|quorum| quorum != "none");
        Self { quorum, protected }
    }
}

/// A setting that was in force at a node's last start, by its journal.
fn setting<'a>(sight: &'a Sight, node: NodeId, key: &str) -> Option<&'a Value> {
    sight.story.settings.get(&node)?.get(key)
}

impl Readiness {
    /// The settings that count are the secondary's, for it promotes itself. What this node's journal does not
    /// know of them is told from this node's own.
    fn of(sight: &Sight, main: Option<NodeId>) -> Self {
        let me = sight.identity.node_id;
        let is_candidate = |node: &NodeId| {
            let role = sight.story.cluster.nodes.get(*node).map(|row| row.role);
            Some(*node) != main && role == Some(Role::Secondary) && sight.story.settings.contains_key(node)
        };
        let node = sight.nodes().into_iter().find(is_candidate).unwrap_or(me);
        let config = sight.config.as_ref().filter(|_| node == me).map(|config| &config.failover);
        let changes = &sight.story.cluster.settings;
        let in_force = changes.in_force_on(node);
        let automatic = in_force.map(|settings| settings.auto_failover_enabled);
        let threshold = in_force.map(|settings| settings.auto_failover_threshold_ms);
        let configured = config.map(|config| ms(config.auto_failover_threshold_seconds));
        let watcher = sight.reports().find(|report| report.main_silent_ms.is_some());
        Self {
            automatic: automatic.or(config.map(|config| config.auto_failover_enabled)),
            decided_by: match (changes.changed, &changes.changed_by) {
                (Some(_), Some(person)) => format!("cluster_config, changed by {person}"),
                (Some(_), None) => "cluster_config".to_owned(),
                (None, _) => format!("settings of {}", sight.name(node)),
            },
            threshold_ms: sight.report(node).map(|report| report.threshold_ms).or(threshold).or(configured),
            main_silent_ms: watcher.and_then(|report| report.main_silent_ms),
            seen_by: watcher.map(|report| report.name.clone()),
            candidates: candidates::candidates(sight),
            // a fenced node, or main itself, promotes itself in no case
            rests: sight
                .reports()
                .filter(|report| report.role == Role::Secondary && report.status == NodeStatus::Online)
                .filter_map(|report| Some(Resting { name: report.name.clone(), rest: report.rests.clone()? }))
                .collect(),
        }
    }
}

impl RunNow {
    fn of(sight: &Sight) -> Option<Self> {
        let all = &sight.story.cluster.runs;
        let run = all.newest_first().into_iter().find(|run| run.is_running()).or(all.newest_whole())?;
        let running = run.steps.iter().filter(|(_, step)| step.is_running()).map(|(id, _)| *id);
        let next = sight.story.next_steps.get(&run.id).cloned();
        Some(Self {
            id: run.id,
            short_id: run.id.short(),
            kind: run.kind,
            from: sight.name(run.old_main),
            to: sight.name(run.new_main),
            end: run.end,
            started_at: run.started_at,
            ended_at: run.ended_at,
            steps_running: running.collect(),
            without_writes_ms: run
                .recovery_time
                .map(RecoveryTime::without_writes_ms)
                .or(run.without_writes_ms),
            loss: runs::loss(run),
            problem: runs::problem(run, next.as_deref())
                .filter(|_| run.end != RunEnd::Completed)
                .map(str::to_owned),
            next,
            attended: sight.report(run.node).is_some() || sight.rebuilt.is_some(),
        })
    }
}

/// What main begins by itself. What a node scheduled that is not main any more never begins.
fn scheduled(sight: &Sight) -> Vec<ScheduledNow> {
    let main = sight.reign().0;
    let all = sight.story.cluster.runs.scheduled.iter().filter(|(node, _)| Some(**node) == main);
    let told = all.map(|(node, it)| ScheduledNow {
        by: sight.name(*node),
        to: sight.name(it.switchover.target),
        due: it.switchover.due,
        asked_by: match &it.asker {
            Cause::Person { name, .. } => Some(name.clone()),
            Cause::System => None,
        },
        reason: it.switchover.request.reason.clone(),
    });
    told.collect()
}

fn fenced(sight: &Sight) -> Vec<Fenced<'_>> {
    let superseded = |node: &NodeId| sight.story.cluster.nodes.is_superseded(*node);
    let fences = sight.story.fences.iter().filter(|(node, _)| superseded(node));
    fences.map(|(node, fence)| Fenced { node: *node, name: sight.name(*node), fence }).collect()
}
