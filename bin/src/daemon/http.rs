//! HTTP between nodes, and `GET /health` for everyone (ADR 1: axum beside actix).

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use chrono::{DateTime, Utc};
use interrex_actors::{
    failover::dry_run,
    messages::{
        Accepted, Claim, Declined, FenceRequest, LiftRequest, MainSight, Operate, Operation, SettingsHeard,
    },
    node::{Shared, View},
    notifier::peers::{
        AcceptHandoverBody, ApiAnswer, ApiError, CancelBody, FenceBody, JournalBody, LiftFenceBody, PlanBody,
        PromoteBody, RejoinBody, SECRET_HEADER, ScheduleBody, SwitchoverBody, TakeOverBody,
    },
    ports::{JournalPage, OfferAnswer},
    report::{NodeReport, Notice},
};
use interrex_events::{
    Cause, ClusterId, Hlc, LearnedBy, NodeId, NodeSeq, Record, Request, RunKind, journal::JournalError,
};
use interrex_projections::NodeStatus;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;

use super::connections;

/// How long a notice may take to be stored.
const NOTICE_LIMIT: Duration = Duration::from_secs(2);
/// How long a node may take to fence itself before the peer that asked is told so.
const FENCE_LIMIT: Duration = Duration::from_secs(8);
/// How long a node may take to record that its fence is lifted.
const LIFT_LIMIT: Duration = Duration::from_secs(1);

/// How long a node may take to take a role over before whoever offers it asks again.
const TAKE_OVER_LIMIT: Duration = Duration::from_secs(8);
/// How long a request may wait for the start of this node.
const START_LIMIT: Duration = Duration::from_secs(8);
/// How long a request may take to become a run on disk.
const OPERATE_LIMIT: Duration = Duration::from_secs(5);
/// How long the look before a run may take; each of its questions has a limit of its own.
const PLAN_LIMIT: Duration = Duration::from_secs(9);
/// How long open transactions may be given to finish, at most: an hour.
const DRAIN_LIMIT_MS: u64 = 3_600_000;

/// Events in one page of a journal, at most.
const JOURNAL_PAGE: u32 = 500;
/// Bytes in one page of a journal, about.
const JOURNAL_BYTES: usize = 1 << 20;
/// Bytes that an event takes beside its payload.
const RECORD_OVERHEAD: usize = 700;

struct Api {
    shared: Arc<Shared>,
    secret: Arc<str>,
}

/// Serves until the process ends.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>, secret: Arc<str>) {
    let routes = Router::new()
        .route("/health", get(health))
        .route("/api/cluster/heartbeat", post(heartbeat))
        .route("/api/cluster/journal", post(journal))
        .route("/api/cluster/notify", post(notify))
        .route("/api/cluster/fence", post(fence))
        .route("/api/cluster/lift-fence", post(lift_fence))
        .route("/api/cluster/accept-handover", post(accept_handover))
        .route("/api/cluster/take-over", post(take_over))
        .route("/api/cluster/failover", post(switchover))
        .route("/api/cluster/schedule", post(schedule))
        .route("/api/cluster/plan", post(planned))
        .route("/api/cluster/promote-to-main", post(promote))
        .route("/api/cluster/check-main-status", get(main_status))
        .route("/api/cluster/rejoin", post(rejoin))
        .route("/api/cluster/run/cancel", post(cancel))
        .fallback(not_found)
        .with_state(Arc::new(Api { shared, secret }));
    connections::serve(listener, routes).await;
}

fn answer(status: StatusCode, data: impl Serialize) -> Response {
    (status, Json(ApiAnswer { success: true, data: Some(data), error: None })).into_response()
}

fn refuse(status: StatusCode, code: &str, message: impl Into<String>) -> Response {
    let error = ApiError { code: code.to_owned(), message: message.into() };
    (status, Json(ApiAnswer::<()> { success: false, data: None, error: Some(error) })).into_response()
}

/// Nobody is there yet who could do it; whoever asks must not take that for done.
fn still_starting(shared: &Shared) -> Response {
    let problem = shared.look(|view| view.start.problem.clone());
    let why = problem.map_or(String::new(), |problem| format!(" ({problem})"));
    refuse(StatusCode::SERVICE_UNAVAILABLE, "starting", format!("this node is starting{why}: ask again"))
}

/// Waits for the start. Whether it holds nothing up any more.
async fn is_settled(shared: &Shared) -> bool {
    shared.wait_until(START_LIMIT, |view| !view.start.under_way).await
}

async fn not_found() -> Response {
    refuse(StatusCode::NOT_FOUND, "not_found", "there is nothing here; see GET /health")
}

/// The whole report; 200 if the node does what its role demands, 503 if not.
async fn health(State(api): State<Arc<Api>>) -> Response {
    let report = api.shared.report();
    let status = if report.healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(status, report)
}

impl Api {
    /// Who may: whoever shows the cluster's secret. What: a body of the right shape, of this cluster.
    fn admit<T: DeserializeOwned>(
        &self,
        headers: &HeaderMap,
        body: &Bytes,
        cluster_of: impl Fn(&T) -> ClusterId,
    ) -> Result<T, Box<Response>> {
        let shown = headers.get(SECRET_HEADER).map_or(&b""[..], |value| value.as_bytes());
        if !bool::from(shown.ct_eq(self.secret.as_bytes())) {
            let message = format!("the header {SECRET_HEADER} does not carry this cluster's secret");
            return Err(Box::new(refuse(StatusCode::UNAUTHORIZED, "wrong_secret", message)));
        }
        let body: T = serde_json::from_slice(body)
            .map_err(|error| Box::new(refuse(StatusCode::BAD_REQUEST, "bad_body", error.to_string())))?;
        let (theirs, ours) = (cluster_of(&body), self.shared.settings.cluster_id);
        if theirs != ours {
            let message = format!("this node is of cluster {ours}, not {theirs}");
            return Err(Box::new(refuse(StatusCode::CONFLICT, "other_cluster", message)));
        }
        Ok(body)
    }

    /// What a peer says is heard of members alone.
    fn admit_peer<T: DeserializeOwned>(
        &self,
        headers: &HeaderMap,
        body: &Bytes,
        sender_of: impl Fn(&T) -> (ClusterId, NodeId),
    ) -> Result<T, Box<Response>> {
        let body = self.admit(headers, body, |body| sender_of(body).0)?;
        let (_, sender) = sender_of(&body);
        if self.shared.is_peer(sender) {
            return Ok(body);
        }
        let message = format!(
            "node {sender} is no peer in this node's configuration: add it to [[peers]] on every node, or correct its node.id"
        );
        Err(Box::new(refuse(StatusCode::FORBIDDEN, "not_a_member", message)))
    }

    fn follow_clock(&self, remote: Hlc) {
        if let Err(too_far) = self.shared.journal.observe_clock(remote) {
            tracing::warn!(%too_far, "a peer's clock is not followed");
        }
    }
}

/// An exchange of reports: the peer learns of this node, and this node of the peer.
async fn heartbeat(State(api): State<Arc<Api>>, headers: HeaderMap, body: Bytes) -> Response {
    let report: NodeReport =
        match api.admit_peer(&headers, &body, |report: &NodeReport| (report.cluster_id, report.node)) {
            Ok(report) => report,
            Err(refusal) => return *refusal,
        };
    api.follow_clock(report.hlc);
    let (main, epoch) = api.shared.look(|view| (view.cluster.nodes.main, view.cluster.nodes.epoch));
    let is_news = |claim: &Claim| claim.epoch > epoch || (claim.epoch == epoch && Some(claim.main) != main);
    if let Some(claim) = Claim::of(&report, LearnedBy::Heartbeat).filter(is_news) {
        api.shared.lines.claim.tell(claim);
    }
    let known = api.shared.look(|view| view.cluster.settings.stamp);
    if let Some((settings, stamp)) = report.settings.filter(|(_, stamp)| *stamp > known) {
        api.shared.lines.settings_heard.tell(SettingsHeard { from: report.node, settings, stamp });
    }
    answer(StatusCode::OK, api.shared.report())
}

/// A page of a journal that is held here, this node's own or a copy: the peer keeps a copy of all of them.
async fn journal(State(api): State<Arc<Api>>, headers: HeaderMap, body: Bytes) -> Response {
    let wanted: JournalBody = match api.admit(&headers, &body, |wanted: &JournalBody| wanted.cluster_id) {
        Ok(wanted) => wanted,
        Err(refusal) => return *refusal,
    };
    match page(&api.shared, &wanted) {
        Ok(page) => answer(StatusCode::OK, page),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "journal_unreadable", error.to_string()),
    }
}

/// The events after the wanted place, or after the sealed begin where that goes further.
fn page(shared: &Shared, wanted: &JournalBody) -> Result<JournalPage, JournalError> {
    let reader = shared.journal.reader()?;
    let base = reader.bases()?.remove(&wanted.node).filter(|base| base.head.node_seq > wanted.after);
    let after = base.as_ref().map_or(wanted.after, |base| base.head.node_seq);
    let mut records = reader.page(wanted.node, after, JOURNAL_PAGE)?;
    // an event can be read from the file before the journal tells its head: a peer that told it first would seem to
    // hold more of this node's events than the node itself, which is what a lost journal looks like
    let told = shared.journal.heads().into_iter().find(|head| head.node_id == wanted.node);
    let told = told.map_or(NodeSeq(0), |head| head.node_seq);
    records.retain(|record| record.node_seq <= told);
    Ok(JournalPage { base, records: within_limit(records) })
}

/// As many of the events as fit into an answer; one at least, so that whoever asks gets on.
fn within_limit(mut records: Vec<Record>) -> Vec<Record> {
    let mut bytes = 0;
    let fits = records.iter().take_while(|record| {
        bytes += record.payload.len() + record.actor.len() + RECORD_OVERHEAD;
        bytes <= JOURNAL_BYTES
    });
    let fits = fits.count().max(1);
    records.truncate(fits);
    records
}

/// A new main announces itself. Accepted means stored; an older epoch is refused, and that is stored too.
async fn notify(State(api): State<Arc<Api>>, headers: HeaderMap, body: Bytes) -> Response {
    let notice: Notice =
        match api.admit_peer(&headers, &body, |notice: &Notice| (notice.cluster_id, notice.from)) {
            Ok(notice) => notice,
            Err(refusal) => return *refusal,
        };
    api.follow_clock(notice.hlc);
    if !api.shared.lines.claim.is_bound() {
        return still_starting(&api.shared);
    }
    let known = api.shared.epoch();
    api.shared.lines.claim.tell(Claim {
        main: notice.main,
        epoch: notice.epoch,
        timeline: notice.timeline,
        switchpoint: notice.switchpoint,
        from: notice.from,
        learned_by: LearnedBy::Notice,
        planned: notice.planned,
    });
    if notice.epoch < known {
        let message = format!("epoch {} is older than epoch {known}, which this node knows", notice.epoch);
        return refuse(StatusCode::CONFLICT, "older_epoch", message);
    }
    let is_taken = |view: &View| {
        let nodes = &view.cluster.nodes;
        nodes.epoch > notice.epoch || (nodes.epoch == notice.epoch && nodes.is_main(notice.main))
    };
    if !api.shared.wait_until(NOTICE_LIMIT, is_taken).await {
        let (epoch, main) = api.shared.look(|view| (view.cluster.nodes.epoch, view.cluster.nodes.main));
        return if epoch == notice.epoch {
            let main = main.map_or("no node".to_owned(), |main| format!("node {main}"));
            let message = format!("epoch {epoch} has another main here: {main}");
            refuse(StatusCode::CONFLICT, "other_main", message)
        } else {
            let message = format!(
                "not stored within {NOTICE_LIMIT:?}: this node knows epoch {epoch}, and believes epoch {} once its disk \
                 answers and it holds the epoch_opened event of node {}",
                notice.epoch, notice.main
            );
            refuse(StatusCode::GATEWAY_TIMEOUT, "not_stored", message)
        };
    }
    answer(StatusCode::OK, json!({ "accepted": true, "epoch": notice.epoch }))
}

/// A peer won a later epoch: this node stops serving, and answers when that is proved.
async fn fence(State(api): State<Arc<Api>>, headers: HeaderMap, body: Bytes) -> Response {
    let request: FenceBody =
        match api.admit_peer(&headers, &body, |request: &FenceBody| (request.cluster_id, request.by)) {
            Ok(request) => request,
            Err(refusal) => return *refusal,
        };
    if !api.shared.lines.fence_request.is_bound() {
        return still_starting(&api.shared);
    }
    let me = api.shared.settings.me;
    let (epoch, is_main, superseded) = api.shared.look(|view| {
        let nodes = &view.cluster.nodes;
        (nodes.epoch, nodes.is_main(me), nodes.is_superseded(me))
    });
    if request.epoch <= epoch && !superseded {
        let message =
            format!("epoch {} is not later than epoch {epoch}, which this node knows", request.epoch);
        return refuse(StatusCode::CONFLICT, "older_epoch", message);
    }
    if request.epoch > epoch.next() && !superseded {
        let message = format!(
            "epoch {} does not follow epoch {epoch}, which this node knows: its servers are not stopped for an epoch that \
             nothing proves",
            request.epoch
        );
        return refuse(StatusCode::CONFLICT, "unproved_epoch", message);
    }
    if !is_main && !superseded {
        return refuse(StatusCode::CONFLICT, "not_main", "this node is not main: there is nothing to fence");
    }
    let FenceBody { by, epoch, run, .. } = request;
    api.shared.lines.fence_request.tell(FenceRequest { by, epoch, run });
    // for this run: another one's fence may be taken back
    let is_fenced = |view: &View| {
        let fenced = view.cluster.nodes.get(me).is_some_and(|row| row.status == NodeStatus::Fenced);
        fenced && (!view.cluster.nodes.is_main(me) || view.standpoint.fenced_for == Some(run))
    };
    if !api.shared.wait_until(FENCE_LIMIT, is_fenced).await {
        let message = format!("asked to stop, and not proved to be stopped within {FENCE_LIMIT:?}");
        return refuse(StatusCode::GATEWAY_TIMEOUT, "not_fenced", message);
    }
    answer(StatusCode::OK, api.shared.look(|view| view.standpoint.fence_proof.clone()))
}

/// The run for which this node was fenced has ended and promoted nobody: it serves again. Answers when that is recorded.
async fn lift_fence(State(api): State<Arc<Api>>, headers: HeaderMap, body: Bytes) -> Response {
    let request: LiftFenceBody =
        match api.admit_peer(&headers, &body, |request: &LiftFenceBody| (request.cluster_id, request.by)) {
            Ok(request) => request,
            Err(refusal) => return *refusal,
        };
    if !api.shared.lines.lift_request.is_bound() {
        return still_starting(&api.shared);
    }
    let me = api.shared.settings.me;
    let LiftFenceBody { by, run, .. } = request;
    let at_rest =
        |view: &View| view.cluster.nodes.get(me).is_none_or(|row| row.status != NodeStatus::Fencing);
    // a stop that is under way is waited for: it would go on behind the answer
    api.shared.wait_until(FENCE_LIMIT, at_rest).await;
    let is_lifted = |view: &View| !view.cluster.nodes.is_superseded(me);
    if api.shared.look(is_lifted) {
        return answer(StatusCode::OK, json!({ "words": "the old main is not fenced" }));
    }
    api.shared.lines.lift_request.tell(LiftRequest { by, run });
    if !api.shared.wait_until(LIFT_LIMIT, is_lifted).await {
        let message = "this node stays fenced: another run asked for it, or another node is main";
        return refuse(StatusCode::CONFLICT, "stays_fenced", message);
    }
    answer(StatusCode::OK, json!({ "words": "the old main's fence is lifted: it starts its servers" }))
}

/// Main is about to stop for a switchover to this node. The answer comes when this node has stored that it would take the role.
async fn accept_handover(State(api): State<Arc<Api>>, headers: HeaderMap, body: Bytes) -> Response {
    let asked = match api.admit(&headers, &body, |body: &AcceptHandoverBody| body.cluster_id) {
        Ok(AcceptHandoverBody { asked, .. }) => asked,
        Err(refusal) => return *refusal,
    };
    begun(&api, operate(&api, Operation::AcceptHandover(asked), None, Cause::System).await)
}

/// Main has stopped and offers its role. The answer comes when this node has it, or never will by this offer; if that
/// takes longer, whoever asks comes again.
async fn take_over(State(api): State<Arc<Api>>, headers: HeaderMap, body: Bytes) -> Response {
    let sender_of = |body: &TakeOverBody| (body.cluster_id, body.offer.from);
    let TakeOverBody { offer, .. } = match api.admit_peer(&headers, &body, sender_of) {
        Ok(body) => body,
        Err(refusal) => return *refusal,
    };
    let epoch = offer.epoch;
    let run = match operate(&api, Operation::TakeOver(offer), None, Cause::System).await {
        Ok(Accepted::Run(run)) => run,
        // only what is recorded is an answer for good: another run, or a later epoch, decides by itself who is main
        Err(Unanswered::Declined(_)) => return answer(StatusCode::OK, OfferAnswer::Pending),
        // it may be heard or not: whoever asks comes again
        Ok(Accepted::Scheduled(_) | Accepted::Unscheduled(_) | Accepted::FenceLifted(_))
        | Err(Unanswered::Nobody) => {
            return still_starting(&api.shared);
        }
    };
    let me = api.shared.settings.me;
    let decided = |view: &View| {
        let is_main = view.cluster.nodes.is_main(me) && view.cluster.nodes.epoch >= epoch;
        is_main || view.cluster.runs.get(run).is_some_and(|run| !run.is_running())
    };
    api.shared.wait_until(TAKE_OVER_LIMIT, decided).await;
    let head = api.shared.journal.head();
    let said = api.shared.look(|view| {
        let nodes = &view.cluster.nodes;
        if nodes.is_main(me) && nodes.epoch >= epoch {
            let (timeline, switchpoint) = (nodes.timeline.unwrap_or_default(), view.standpoint.switchpoint);
            return OfferAnswer::Taken { timeline, switchpoint, head };
        }
        let takes_over_otherwise = view.cluster.runs.active(me).is_some() || nodes.epoch >= epoch;
        match view.cluster.runs.get(run).filter(|run| !run.is_running() && !takes_over_otherwise) {
            Some(run) if run.is_past_no_return() => OfferAnswer::Pending,
            Some(run) => {
                OfferAnswer::Refused { reason: run.problem.clone().unwrap_or_else(|| run.end.to_string()) }
            }
            None => OfferAnswer::Pending,
        }
    });
    answer(StatusCode::OK, said)
}

/// Why nobody did what was asked.
enum Unanswered {
    /// It is not done, for a reason.
    Declined(Declined),
    /// Nobody is there yet, or nobody answered in time.
    Nobody,
}

async fn operate(
    api: &Api,
    operation: Operation,
    due: Option<DateTime<Utc>>,
    asker: Cause,
) -> Result<Accepted, Unanswered> {
    if !is_settled(&api.shared).await {
        return Err(Unanswered::Nobody);
    }
    let asked = api.shared.lines.operate.ask(Operate { operation, due, asker });
    match tokio::time::timeout(OPERATE_LIMIT, asked).await {
        Ok(Ok(Ok(accepted))) => Ok(accepted),
        Ok(Ok(Err(declined))) => Err(Unanswered::Declined(declined)),
        Ok(Err(_)) | Err(_) => Err(Unanswered::Nobody),
    }
}

fn begun(api: &Api, accepted: Result<Accepted, Unanswered>) -> Response {
    match accepted {
        Ok(Accepted::Run(run)) => answer(StatusCode::ACCEPTED, json!({ "run_id": run })),
        Ok(Accepted::Scheduled(due)) => answer(StatusCode::ACCEPTED, json!({ "scheduled_for": due })),
        Ok(Accepted::Unscheduled(due)) => answer(StatusCode::ACCEPTED, json!({ "unscheduled": due })),
        Ok(Accepted::FenceLifted(run)) => answer(StatusCode::ACCEPTED, json!({ "fence_lifted": run })),
        Err(Unanswered::Declined(Declined { code, message })) => refuse(StatusCode::CONFLICT, code, message),
        Err(Unanswered::Nobody) => still_starting(&api.shared),
    }
}

/// The runbook's planned failover: main hands its role to the target.
async fn switchover(State(api): State<Arc<Api>>, headers: HeaderMap, body: Bytes) -> Response {
    let wanted: SwitchoverBody =
        match api.admit(&headers, &body, |_: &SwitchoverBody| api.shared.settings.cluster_id) {
            Ok(wanted) => wanted,
            Err(refusal) => return *refusal,
        };
    match asked_for(wanted) {
        Ok((operation, asker)) => begun(&api, operate(&api, operation, None, asker).await),
        Err(refusal) => *refusal,
    }
}

/// What a body asks for, and who does.
fn asked_for(wanted: SwitchoverBody) -> Result<(Operation, Cause), Box<Response>> {
    if wanted.drain_ms > DRAIN_LIMIT_MS {
        let message = format!("drain_ms is {}: {DRAIN_LIMIT_MS} at most, an hour", wanted.drain_ms);
        return Err(Box::new(refuse(StatusCode::BAD_REQUEST, "bad_body", message)));
    }
    let operation = Operation::Switchover {
        to: wanted.target_node_id,
        drain_ms: wanted.drain_ms,
        request: Request { forced: false, reason: wanted.reason },
    };
    Ok((operation, wanted.asker))
}

/// The same, at a time.
async fn schedule(State(api): State<Arc<Api>>, headers: HeaderMap, body: Bytes) -> Response {
    let ScheduleBody { due, switchover } =
        match api.admit(&headers, &body, |_: &ScheduleBody| api.shared.settings.cluster_id) {
            Ok(wanted) => wanted,
            Err(refusal) => return *refusal,
        };
    match asked_for(switchover) {
        Ok((operation, asker)) => begun(&api, operate(&api, operation, Some(due), asker).await),
        Err(refusal) => *refusal,
    }
}

/// What a run would do, and what would stop it; nothing is begun.
async fn planned(State(api): State<Arc<Api>>, headers: HeaderMap, body: Bytes) -> Response {
    let wanted: PlanBody = match api.admit(&headers, &body, |_: &PlanBody| api.shared.settings.cluster_id) {
        Ok(wanted) => wanted,
        Err(refusal) => return *refusal,
    };
    if !is_settled(&api.shared).await {
        return still_starting(&api.shared);
    }
    let me = api.shared.settings.me;
    let main = api.shared.look(|view| view.cluster.nodes.main).unwrap_or(me);
    let (kind, operation, new_main) = match wanted {
        PlanBody::Switchover { target_node_id: to, drain_ms } => {
            let body = SwitchoverBody { target_node_id: to, drain_ms, reason: None, asker: Cause::System };
            match asked_for(body) {
                Ok((operation, _)) => (RunKind::Switchover, operation, to),
                Err(refusal) => return *refusal,
            }
        }
        PlanBody::Promotion { force, reason } => {
            let sight = api.shared.look(|view| view.main_sight.clone());
            let request = Request { forced: force, reason };
            (RunKind::Promotion, Operation::Promote { request, sight }, me)
        }
        PlanBody::Rejoin { copy } => {
            (RunKind::Rejoin, Operation::Rejoin { copy, request: Request::default() }, main)
        }
    };
    let plan = dry_run(&api.shared, kind, &operation, new_main);
    match tokio::time::timeout(PLAN_LIMIT, plan).await {
        Ok(Ok(plan)) => answer(StatusCode::OK, plan),
        Ok(Err(_)) | Err(_) => still_starting(&api.shared),
    }
}

/// A body that may be left out.
fn or_empty(body: Bytes) -> Bytes {
    if body.is_empty() { Bytes::from_static(b"{}") } else { body }
}

/// This node comes back as a secondary.
async fn rejoin(State(api): State<Arc<Api>>, headers: HeaderMap, body: Bytes) -> Response {
    let wanted: RejoinBody =
        match api.admit(&headers, &or_empty(body), |_: &RejoinBody| api.shared.settings.cluster_id) {
            Ok(wanted) => wanted,
            Err(refusal) => return *refusal,
        };
    let request = Request { forced: false, reason: wanted.reason };
    begun(&api, operate(&api, Operation::Rejoin { copy: wanted.copy, request }, None, wanted.asker).await)
}

/// The runbook's emergency path: this secondary becomes main. Without a body it is done only while main is silent.
async fn promote(State(api): State<Arc<Api>>, headers: HeaderMap, body: Bytes) -> Response {
    let wanted: PromoteBody =
        match api.admit(&headers, &or_empty(body), |_: &PromoteBody| api.shared.settings.cluster_id) {
            Ok(wanted) => wanted,
            Err(refusal) => return *refusal,
        };
    let request = Request { forced: wanted.force, reason: wanted.reason };
    let sight = api.shared.look(|view| view.main_sight.clone());
    begun(&api, operate(&api, Operation::Promote { request, sight }, None, wanted.asker).await)
}

/// What this node sees of main: what a promotion from here would go by.
async fn main_status(State(api): State<Arc<Api>>) -> Response {
    let now = api.shared.env.moment();
    let (me, threshold_ms) = (api.shared.settings.me, api.shared.report().threshold_ms);
    let (nodes, sight) = api.shared.look(|view| (view.cluster.nodes.clone(), view.main_sight.clone()));
    let sight = sight.filter(|sight| nodes.is_main(sight.main));
    let seen = sight.as_ref();
    answer(
        StatusCode::OK,
        json!({
            "main": nodes.main,
            "name": nodes.main.map(|main| nodes.name(main)),
            "epoch": nodes.epoch,
            "is_this_node": nodes.is_main(me),
            "answers": seen.map(MainSight::answers),
            "silent_ms": seen.map(|sight| now.ms_since(sight.silent_since)),
            "threshold_ms": threshold_ms,
            "evidence": seen.map(|sight| &sight.evidence),
        }),
    )
}

/// Gives up what this node is doing.
async fn cancel(State(api): State<Arc<Api>>, headers: HeaderMap, body: Bytes) -> Response {
    let wanted: CancelBody = match api.admit(&headers, &body, |_: &CancelBody| api.shared.settings.cluster_id)
    {
        Ok(wanted) => wanted,
        Err(refusal) => return *refusal,
    };
    let operation = Operation::Cancel { reason: wanted.reason, force: wanted.force };
    begun(&api, operate(&api, operation, None, wanted.asker).await)
}
