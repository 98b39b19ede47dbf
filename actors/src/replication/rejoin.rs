//! The steps by which a node comes back as a secondary. What only this node has is kept.

use std::time::Duration;

use interrex_events::{
    Demotion, DivergedKept, Divergence, LineageCompared, Lsn, NodeId, Observation as _, Rebuilt, RedisKept,
    RedisStatus, StepId, StepOutcome, TimelineId,
};
use interrex_projections::{Run, StepState, human_bytes};

use super::{
    Servers,
    become_standby::STOP_PATIENCE,
    fork_report::{nothing_was_committed_since, read_once, transactions_only_here},
};
use crate::{
    messages::StepReport,
    node::Shared,
    ports::{
        Answer, KeepRequest, Lineage, MainLineage, MainServerPort, Parted, PortError, Rewind, StopMode,
        Verdict, slot_name,
    },
    wire::CopyProgress,
};

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long Redis may receive nothing from main's before it is given up.
const REDIS_PATIENCE: Duration = Duration::from_secs(30);
/// How long main may not answer while it is asked whether it streams.
const MAIN_PATIENCE: Duration = Duration::from_secs(30);
/// How long a rewind or a copy may take: less than its step, so that its own message is recorded.
const REBUILD_LIMIT: Duration = Duration::from_secs(86_000);

fn report(outcome: StepOutcome, detail: impl Into<String>) -> StepReport {
    StepReport::new(outcome, detail)
}

/// Where this directory and main's WAL diverged, as `check_lineage` found, and where the directory's own WAL ends.
pub(super) struct Parting {
    pub(super) timeline: TimelineId,
    pub(super) switchpoint: Lsn,
    pub(super) end: Lsn,
    /// Whether it is exactly there, or may be later.
    pub(super) exact: bool,
    rewindable: bool,
}

impl Parting {
    pub(super) fn of(run: &Run) -> Option<Self> {
        Self::found(&run.observed(StepId::CheckLineage)?)
    }

    pub(super) fn in_report(report: &StepReport) -> Option<Self> {
        Self::found(LineageCompared::of(&report.observed)?)
    }

    fn found(compared: &LineageCompared) -> Option<Self> {
        let Divergence { timeline, switchpoint, exact, rewindable, .. } = compared.diverged?;
        Some(Self { timeline, switchpoint, end: compared.end, exact, rewindable: rewindable == Some(true) })
    }

    pub(super) fn is_rewindable(&self) -> bool {
        self.rewindable
    }
}

pub(super) fn wants_copy(run: &Run) -> bool {
    run.rejoin.as_ref().is_some_and(|rejoin| rejoin.copy)
}

/// What this node's data are to main. Nothing runs on them from here on.
pub(super) async fn check_lineage(shared: &Shared, servers: &Servers, run: &Run) -> Answer<StepReport> {
    // nothing is stopped for a main that cannot be asked
    lineage_of(shared, servers, run.new_main).await?;
    servers.postgres.stop(StopMode::Within(STOP_PATIENCE)).await?;
    // a standby that ran has received more since, and would be ahead of what main said
    let lineage = lineage_of(shared, servers, run.new_main).await?;
    Ok(compare(shared, servers, (run.new_main, lineage), wants_copy(run)).await)
}

/// A standby that was stopped to be looked at runs again.
pub(super) async fn undo_check(shared: &Shared, servers: &Servers) -> Answer<String> {
    let me = shared.settings.me;
    if shared.look(|view| view.cluster.nodes.is_superseded(me)) {
        return Ok("PostgreSQL stays stopped: this node is fenced".to_owned());
    }
    if !servers.postgres.is_standby_directory() || !servers.rejoin.is_startable() {
        return Ok("PostgreSQL stays stopped: its directory is not a standby's, or is incomplete".to_owned());
    }
    servers.postgres.start().await?;
    Ok("PostgreSQL runs again, as a standby".to_owned())
}

pub(super) async fn lineage_of(shared: &Shared, servers: &Servers, main: NodeId) -> Answer<MainLineage> {
    let name = shared.look(|view| view.cluster.nodes.name(main));
    let lineage = servers.main_server(main)?.lineage().await;
    lineage.map_err(|error| PortError::new(&format!("asking the PostgreSQL of {name}"), error))
}

/// How the stopped directory relates to main's lineage, and what that means for the rejoin.
pub(super) async fn compare(
    shared: &Shared,
    servers: &Servers,
    (main, lineage): (NodeId, MainLineage),
    copy: bool,
) -> StepReport {
    let name = shared.look(|view| view.cluster.nodes.name(main));
    let only_by_copy = |words: String| {
        if copy {
            report(StepOutcome::Succeeded, format!("{words}; the directory is replaced by a copy, and kept"))
        } else {
            let words = format!(
                "{words}. If {name} is right, replace this directory by a copy of {name}'s, which keeps this one: interrex rejoin \
                 --copy"
            );
            report(StepOutcome::Refused, words)
        }
    };
    let server = match servers.main_server(main) {
        Ok(server) => server,
        Err(error) => return report(StepOutcome::Failed, error.to_string()),
    };
    let compared = servers.handover.lineage_against(&lineage, &*server).await;
    let Lineage { verdict, timeline, end, system_id, .. } = match compared {
        Ok(lineage) => lineage,
        Err(error) => return only_by_copy(format!("the data directory cannot be read: {error}")),
    };
    match verdict {
        Verdict::SameLine => {
            let words =
                format!("this node's WAL up to {end} is a part of {name}'s: there is nothing to rewind");
            report(StepOutcome::Succeeded, words).observing(LineageCompared { end, diverged: None })
        }
        Verdict::Diverged { parted, by_rewind } => {
            let rewindable = match by_rewind {
                Err(why) => Err(why),
                Ok(()) => match can_be_rewound(servers, main).await {
                    Ok(rewindable) => rewindable,
                    Err(error) => return report(StepOutcome::Failed, error.to_string()),
                },
            };
            let how = match &rewindable {
                Ok(()) => "the directory can be rewound".to_owned(),
                Err(why) => format!("the directory must be copied again: {why}"),
            };
            let Parted { switchpoint, bytes, exact } = parted;
            let place = if exact { "at" } else { "at or after" };
            let words = format!(
                "this directory and {name} diverged {place} {switchpoint}, and this directory has {} more, up to {end}, on \
                 timeline {timeline}; {how}",
                human_bytes(bytes)
            );
            let report = report(StepOutcome::Succeeded, words);
            parted_at(report, (timeline, end), parted, Some(rewindable.is_ok()))
        }
        Verdict::OtherSystem => only_by_copy(format!(
            "the data directory belongs to another cluster (system identifier {system_id}; {name} has {})",
            lineage.system_id
        )),
        Verdict::Ahead { parted, words } => parted_at(only_by_copy(words), (timeline, end), parted, None),
        Verdict::Unknown(words) => only_by_copy(words),
    }
}

/// The report with the LSN after which the directory's WAL is its own, as [`Parting`] reads it.
fn parted_at(
    report: StepReport,
    (timeline, end): (TimelineId, Lsn),
    Parted { switchpoint, bytes, exact }: Parted,
    rewindable: Option<bool>,
) -> StepReport {
    let diverged = Some(Divergence { timeline, switchpoint, bytes, exact, rewindable });
    report.observing(LineageCompared { end, diverged })
}

/// Whether the directory can be rewound to main's WAL; the inner error says why not. A directory that cannot be rewound is copied:
/// a missing answer must not decide that.
async fn can_be_rewound(servers: &Servers, main: NodeId) -> Answer<Result<(), String>> {
    if let Err(why) = servers.handover.can_rewind().await {
        return Ok(Err(why.to_string()));
    }
    let readable = servers.main_server(main)?.lets_itself_be_read().await?;
    Ok(if readable { Ok(()) } else { Err("this node's login on main may not read its files".to_owned()) })
}

/// Main keeps what this node will need, which is proved before anything here is rewritten.
pub(super) async fn reserve_slot(shared: &Shared, servers: &Servers, run: &Run) -> Answer<StepReport> {
    let me = shared.settings.me;
    let main = servers.main_server(run.new_main)?;
    let words = if main.prepare_return(me).await? { "was made" } else { "exists" };
    let words = format!("slot {} {words}, and main's control file names main's timeline", slot_name(me));
    Ok(report(StepOutcome::Succeeded, words))
}

/// Logs in to main as a standby does. Returns the result, as a message.
pub(super) async fn log_in(servers: &Servers, main: NodeId) -> Answer<&'static str> {
    Ok(match servers.rejoin.log_in(&servers.copy_source(main)?).await? {
        Some(_) => "the replication user can log in to main from this node",
        None => "the login for replication was not tried: there is no psql on this node",
    })
}

/// A directory that is rewound loses what only it has, so that is copied aside first. A directory that is replaced is kept itself.
pub(super) async fn keep_diverged(shared: &Shared, servers: &Servers, run: &Run) -> Answer<StepReport> {
    let skipped = |words: &str| Ok(report(StepOutcome::Skipped, words));
    let Some(parting) = Parting::of(run) else { return skipped("nothing has to be kept on this node") };
    if wants_copy(run) || !parting.rewindable {
        return skipped("the directory is kept unchanged when a copy takes its place");
    }
    if !servers.rejoin.is_startable() {
        return Ok(kept_before(shared));
    }
    // as the report, which runs at the same time, counts it; what cannot be counted is kept
    let only_here = read_once(servers, run, &parting).await.ok().map(|fork| fork.only_here());
    if only_here == Some(0) {
        let nothing =
            skipped("main has every transaction that was committed on this node: nothing has to be kept")?;
        return Ok(nothing.observing(DivergedKept {
            kept: None,
            only_here: Some(0),
            checksums_sha256: None,
        }));
    }
    let request = KeepRequest { before_rewind: true, stranded: only_here, ..keep_request(shared, run) };
    let shown = ShownCopy(shared);
    let kept = servers.rejoin.keep_copy(&request, &|progress| shown.show(progress)).await?;
    let (folder, bytes) = (kept.folder.display().to_string(), kept.manifest.bytes);
    let words = format!("{} copied to {folder}; see interrex salvage --help", human_bytes(bytes));
    Ok(report(StepOutcome::Succeeded, words).observing(DivergedKept {
        kept: Some(folder),
        // of a copy that was there already, its own number
        only_here: kept.manifest.stranded,
        checksums_sha256: kept.manifest.checksums_sha256,
    }))
}

/// Shows the progress of a copy until it ends or is given up.
struct ShownCopy<'a>(&'a Shared);

impl ShownCopy<'_> {
    fn show(&self, progress: CopyProgress) {
        self.0.measured(|view| view.copying = Some(progress));
    }
}

impl Drop for ShownCopy<'_> {
    fn drop(&mut self) {
        self.0.measured(|view| view.copying = None);
    }
}

/// A rewind was cut off: whatever had to be kept was kept before it began.
fn kept_before(shared: &Shared) -> StepReport {
    let me = shared.settings.me;
    let kept = shared.look(|view| {
        let of_node = view.cluster.runs.newest_first().into_iter().filter(|run| run.node == me);
        of_node.into_iter().find_map(kept)
    });
    let words = "a rewind on this node was cut off before: what had to be kept was kept then";
    match kept {
        Some(folder) => {
            let kept = DivergedKept { kept: Some(folder), only_here: None, checksums_sha256: None };
            report(StepOutcome::AlreadyDone, words).observing(kept)
        }
        None => report(StepOutcome::Skipped, words),
    }
}

/// The folder of the kept copy, from whichever step made it.
#[must_use]
pub fn kept(run: &Run) -> Option<String> {
    let copied = run.observed(StepId::KeepDiverged).and_then(|DivergedKept { kept, .. }| kept);
    copied.or_else(|| run.observed(StepId::Rebuild).and_then(|Rebuilt { kept, .. }| kept))
}

fn keep_request(shared: &Shared, run: &Run) -> KeepRequest {
    KeepRequest {
        into: shared.settings.rejoin.keep_in.clone(),
        reason: format!("rejoin {} behind node {} of epoch {}", run.id, run.new_main, run.epoch),
        switchpoint: Parting::of(run).map(|parting| parting.switchpoint),
        stranded: stranded_here(run),
        before_rewind: false,
        at: run.started_at,
    }
}

/// How many transactions main lacks of what the directory holds now, if that is known.
fn stranded_here(run: &Run) -> Option<u64> {
    let compared: Option<LineageCompared> = run.observed(StepId::CheckLineage);
    match run.step(StepId::KeepDiverged).state {
        // what was kept before: this run has counted in a directory that is half-rewound
        StepState::Ended(StepOutcome::AlreadyDone) => None,
        // all of it is in the copy that this run made
        StepState::Ended(StepOutcome::Succeeded) => Some(0),
        // main has all of a directory with main's lineage; for a directory that cannot be compared, nothing is known
        _ if Parting::of(run).is_none() => compared.map(|_| 0),
        _ => run.observed(StepId::ReportFork).as_ref().map(transactions_only_here),
    }
}

/// Brings the directory to main's WAL, by a rewind or a copy.
pub(super) async fn rebuild(shared: &Shared, servers: &Servers, run: &Run) -> Answer<StepReport> {
    let main = servers.main_server(run.new_main)?;
    // it may have been started since: what is rewritten must be at rest
    let (stopped, lineage) =
        tokio::join!(servers.postgres.stop(StopMode::Within(STOP_PATIENCE)), main.lineage());
    stopped?;
    if is_replaced(shared, servers, run).await? {
        return copy_anew(shared, servers, run, "by an attempt before this one").await;
    }
    let lineage = lineage?;
    let parting = Parting::of(run);
    // found by an attempt before this one
    let compared = servers.handover.lineage_against(&lineage, &*main).await;
    let same_line = matches!(&compared, Ok(Lineage { verdict: Verdict::SameLine, .. }));
    if same_line && !wants_copy(run) && servers.rejoin.is_startable() {
        let by = if parting.is_some() { Demotion::Rewound } else { Demotion::Unchanged };
        return Ok(rebuilt("the directory has main's lineage".to_owned(), by));
    }
    if let (Some(parting), Ok(found)) = (&parting, &compared)
        && servers.rejoin.is_startable()
        && found.end != parting.end
    {
        nothing_was_committed_since(servers, run, parting).await?;
    }
    let mut why = "it was asked for".to_owned();
    if !wants_copy(run) {
        match parting {
            Some(Parting { rewindable: true, .. }) => {
                let source = servers.rewind_source(run.new_main)?;
                let rewound = servers.rejoin.rewind(&source, REBUILD_LIMIT).await;
                // the password of a superuser is in it
                servers.rejoin.forget(&source);
                match rewound? {
                    Rewind::Rewound | Rewind::NotNeeded => {
                        // pg_rewind's word alone proves nothing (MEASURED M5)
                        let lineage = main.lineage().await?;
                        let found = servers.handover.lineage_against(&lineage, &*main).await?;
                        if found.verdict == Verdict::SameLine {
                            return Ok(rebuilt("rewound to main's WAL".to_owned(), Demotion::Rewound));
                        }
                        why = match found.verdict {
                            Verdict::Unknown(words) => format!("a rewind does not help: {words}"),
                            other => format!(
                                "after a rewind the directory still does not have main's lineage: {other:?}"
                            ),
                        };
                    }
                    Rewind::Impossible(words) => why = words,
                }
            }
            Some(_) => why = "the directory cannot be rewound".to_owned(),
            None => why = "the directory cannot be used".to_owned(),
        }
    }
    copy_anew(shared, servers, run, &why).await
}

fn rebuilt(words: String, by: Demotion) -> StepReport {
    report(StepOutcome::Succeeded, words).observing(Rebuilt { by, kept: None })
}

/// Where the old directory goes that a copy of main's replaces, and the folder of kept copies if it is on another volume:
/// a rename needs one.
fn replacement(shared: &Shared, servers: &Servers, run: &Run) -> (KeepRequest, Option<KeepRequest>) {
    let request = keep_request(shared, run);
    match servers.rejoin.must_make_room_beside(&request.into) {
        Some(beside) => (KeepRequest { into: beside, ..request.clone() }, Some(request)),
        None => (request, None),
    }
}

/// Whether this run has replaced the directory already, and its supervisor died before it could say so.
async fn is_replaced(shared: &Shared, servers: &Servers, run: &Run) -> Answer<bool> {
    let (request, _) = replacement(shared, servers, run);
    servers.rejoin.is_replaced(&request).await
}

/// Replaces the directory by a copy of main's, and keeps it.
async fn copy_anew(shared: &Shared, servers: &Servers, run: &Run, why: &str) -> Answer<StepReport> {
    let shown = ShownCopy(shared);
    let progress = |progress| shown.show(progress);
    let (source, slot) = (servers.copy_source(run.new_main)?, slot_name(shared.settings.me));
    let (request, archive) = replacement(shared, servers, run);
    let mut archived = None;
    if let Some(archive) = archive.filter(|_| servers.rejoin.is_startable()) {
        archived = Some(servers.rejoin.keep_copy(&archive, &progress).await?.folder);
    }
    let copied = servers.rejoin.base_backup(&source, &slot, &request, &progress, REBUILD_LIMIT).await;
    let mut folder = copied?.folder;
    if let Some(archived) = archived {
        servers.rejoin.prune_archived(&request.into, &shared.settings.rejoin.keep_in).await?;
        folder = archived;
    }
    let folder = folder.display().to_string();
    let words = format!("copied from main ({why}); the old directory is kept in {folder}");
    let copied = Rebuilt { by: Demotion::Copied, kept: Some(folder) };
    Ok(report(StepOutcome::Succeeded, words).observing(copied))
}

/// How the directory was brought to main's WAL, as `rebuild` observed.
#[must_use]
pub fn demotion(run: &Run) -> Demotion {
    run.observed(StepId::Rebuild).map_or(Demotion::Unchanged, |Rebuilt { by, .. }| by)
}

/// Old kept copies go once the new data are in use.
pub(super) async fn prune(shared: &Shared, servers: &Servers, run: &Run) -> String {
    let settings = &shared.settings.rejoin;
    let own = kept(run).map(std::path::PathBuf::from);
    match servers.rejoin.prune_kept(&settings.keep_in, settings.keep_newest, own.as_deref()).await {
        Ok(gone) if gone.is_empty() => String::new(),
        Ok(gone) => format!("; {} older kept copies were removed (rejoin.keep_newest)", gone.len()),
        Err(error) => format!("; older kept copies could not be removed: {error}"),
    }
}

/// Before anything may start here again: what Redis has is kept, and it starts as a replica. What that cost, if it did not stop
/// in good order.
pub(super) async fn redis_comes_back(
    shared: &Shared,
    servers: &Servers,
    run: &Run,
) -> Answer<Option<String>> {
    let (Some(redis), Some(master)) = (&servers.redis, servers.redis_of(run.new_main)) else {
        return Ok(None);
    };
    let keep_newest = shared.settings.rejoin.keep_newest;
    let end = redis.prepare_to_follow(&master, run.started_at, keep_newest).await?;
    Ok(end.is_loss().then(|| format!("Redis: {end}")))
}

/// The same report with the folder of what Redis had before this run, whichever step or attempt kept it.
pub(super) async fn naming_kept_redis(servers: &Servers, run: &Run, mut report: StepReport) -> StepReport {
    let Some(redis) = &servers.redis else { return report };
    let Some(folder) = redis.kept_at(run.started_at).await else { return report };
    let folder = folder.display().to_string();
    report.detail.push_str(&format!("; what Redis had before is kept in {folder}"));
    report.observing(RedisKept { kept_redis: folder })
}

/// The folder of the data that Redis had before this run made it a replica, from whichever step named it.
#[must_use]
pub fn kept_redis(run: &Run) -> Option<String> {
    let of = |step| run.observed(step).map(|RedisKept { kept_redis }| kept_redis);
    of(StepId::FollowRedis).or_else(|| of(StepId::BecomeStandby)).or_else(|| of(StepId::HandOverRedis))
}

/// Redis here copies main's; what only it had is kept, and discarded.
pub(super) async fn follow_redis(shared: &Shared, servers: &Servers, run: &Run) -> Answer<StepReport> {
    let (Some(redis), Some(master)) = (&servers.redis, servers.redis_of(run.new_main)) else {
        return Ok(report(StepOutcome::Skipped, "no Redis is configured on both nodes"));
    };
    let mut price = None;
    if redis.measure().await.status != RedisStatus::Linked {
        price = redis_comes_back(shared, servers, run).await?;
    }
    redis.start().await?;
    let words = redis.follow(&master).await?;
    // a copy takes as long as it takes; but while nothing is copied, no other run may begin
    let mut idle_since = shared.env.moment();
    while redis.measure().await.status != RedisStatus::Linked {
        let now = shared.env.moment();
        if redis.is_copying().await {
            idle_since = now;
        }
        if now.monotonic.saturating_sub(idle_since.monotonic) > REDIS_PATIENCE {
            return Err(PortError(format!(
                "Redis is a {words}, and nothing has arrived from there for {REDIS_PATIENCE:?}: does main's Redis answer, and is \
                 masterauth right?"
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
    let words = format!("Redis is a {words}, and has all of its data");
    let report = naming_kept_redis(servers, run, report(StepOutcome::Succeeded, words)).await;
    Ok(price.map_or(report.clone(), |price| report.at_a_price(&price)))
}

/// Until main itself says that it streams to this node.
pub(super) async fn main_streams(main: &dyn MainServerPort, shared: &Shared) -> Answer<()> {
    let mut heard = shared.env.moment();
    loop {
        let now = shared.env.moment();
        match main.streams_to(shared.settings.me).await {
            Ok(true) => return Ok(()),
            Ok(false) => heard = now,
            Err(error) if now.monotonic.saturating_sub(heard.monotonic) > MAIN_PATIENCE => return Err(error),
            Err(_) => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}
