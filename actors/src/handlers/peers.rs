//! Requests of peers.

use std::time::Duration;

use interrex_events::{Cause, Hlc, LearnedBy, NodeFenced, NodeSeq, Record, journal::JournalError};
use interrex_projections::NodeStatus;

use super::{Handled, Refusal, RefusalKind, Unanswered, operate, still_starting};
use crate::{
    messages::{Accepted, Claim, FenceRequest, LiftRequest, Operation, SettingsHeard},
    node::{Shared, View},
    wire::{
        AcceptHandoverBody, FenceBody, FenceLifted, JournalBody, JournalPage, LiftFenceBody, NodeReport,
        Notice, NoticeTaken, OfferAnswer, TakeOverBody,
    },
};

/// How long a notice may take to be stored.
const NOTICE_LIMIT: Duration = Duration::from_secs(2);
/// How long a node may take to fence itself before the peer that asked gets an error.
const FENCE_LIMIT: Duration = Duration::from_secs(8);
/// How long a node may take to record that its fence is lifted.
const LIFT_LIMIT: Duration = Duration::from_secs(1);
/// How long a node may take to take a role over before the old main asks again.
const TAKE_OVER_LIMIT: Duration = Duration::from_secs(8);
/// Events in one page of a journal, at most.
const JOURNAL_PAGE: u32 = 500;
/// Bytes in one page of a journal, about.
const JOURNAL_BYTES: usize = 1 << 20;
/// Bytes that an event takes in addition to its payload.
const RECORD_OVERHEAD: usize = 700;

fn follow_clock(shared: &Shared, remote: Hlc) {
    if let Err(too_far) = shared.journal.observe_clock(remote) {
        tracing::warn!(%too_far, "a peer's clock is not followed");
    }
}

/// An exchange of reports: the peer learns of this node, and this node of the peer.
#[must_use]
pub fn heartbeat(shared: &Shared, report: &NodeReport) -> NodeReport {
    follow_clock(shared, report.hlc);
    let (main, epoch) = shared.look(|view| (view.cluster.nodes.main, view.cluster.nodes.epoch));
    let is_news = |claim: &Claim| claim.epoch > epoch || (claim.epoch == epoch && Some(claim.main) != main);
    if let Some(claim) = Claim::of(report, LearnedBy::Heartbeat).filter(is_news) {
        shared.lines.claim.tell(claim);
    }
    let known = shared.look(|view| view.cluster.settings.stamp);
    if let Some((settings, stamp)) = report.settings.filter(|(_, stamp)| *stamp > known) {
        shared.lines.settings_heard.tell(SettingsHeard { from: report.node, settings, stamp });
    }
    shared.report()
}

/// A page of a journal that is held here, this node's own or a copy: the peer keeps a copy of all of them.
///
/// # Errors
/// The journal cannot be read.
pub fn journal(shared: &Shared, wanted: &JournalBody) -> Handled<JournalPage> {
    page(shared, wanted)
        .map_err(|error| Refusal::new(RefusalKind::Failed, "journal_unreadable", error.to_string()))
}

/// The events after the wanted place, or after the sealed begin where that goes further.
fn page(shared: &Shared, wanted: &JournalBody) -> Result<JournalPage, JournalError> {
    let reader = shared.journal.reader()?;
    let base = reader.bases()?.remove(&wanted.node).filter(|base| base.head.node_seq > wanted.after);
    let after = base.as_ref().map_or(wanted.after, |base| base.head.node_seq);
    let mut records = reader.page(wanted.node, after, JOURNAL_PAGE)?;
    // an event can be read from the file before the journal reports its head: a peer that reported the event first would seem to
    // hold more of this node's events than the node itself, which is what a lost journal looks like
    let told = shared.journal.heads().into_iter().find(|head| head.node_id == wanted.node);
    let told = told.map_or(NodeSeq(0), |head| head.node_seq);
    records.retain(|record| record.node_seq <= told);
    Ok(JournalPage { base, records: within_limit(records) })
}

/// As many of the events as fit into an answer, but at least one, so that the peer makes progress.
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

/// A new main announces itself. An accepted notice is stored; an older epoch is refused, and the refusal is stored too.
///
/// # Errors
/// This node knows a later epoch or another main of this one, or could not store the news in time.
pub async fn notify(shared: &Shared, notice: Notice) -> Handled<NoticeTaken> {
    follow_clock(shared, notice.hlc);
    if !shared.lines.claim.is_bound() {
        return Err(still_starting(shared));
    }
    let known = shared.epoch();
    shared.lines.claim.tell(Claim {
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
        return Err(Refusal::new(RefusalKind::Conflict, "older_epoch", message));
    }
    let is_taken = |view: &View| {
        let nodes = &view.cluster.nodes;
        nodes.epoch > notice.epoch || (nodes.epoch == notice.epoch && nodes.is_main(notice.main))
    };
    if !shared.wait_until(NOTICE_LIMIT, is_taken).await {
        let (epoch, main) = shared.look(|view| (view.cluster.nodes.epoch, view.cluster.nodes.main));
        return Err(if epoch == notice.epoch {
            let main = main.map_or("no node".to_owned(), |main| format!("node {main}"));
            let message = format!("epoch {epoch} has another main on this node: {main}");
            Refusal::new(RefusalKind::Conflict, "other_main", message)
        } else {
            let message = format!(
                "not stored within {NOTICE_LIMIT:?}: this node knows epoch {epoch}, and believes epoch {} when its disk answers \
                 and it has the epoch_opened event of node {}",
                notice.epoch, notice.main
            );
            Refusal::new(RefusalKind::TimedOut, "not_stored", message)
        });
    }
    Ok(NoticeTaken { accepted: true, epoch: notice.epoch })
}

/// A peer won a later epoch: this node stops its servers, and answers when the stop is proved.
///
/// # Errors
/// The fence does not apply to this node, or its servers are not proved to be stopped in time.
pub async fn fence(shared: &Shared, request: FenceBody) -> Handled<Option<NodeFenced>> {
    if !shared.lines.fence_request.is_bound() {
        return Err(still_starting(shared));
    }
    let me = shared.settings.me;
    let (epoch, is_main, superseded) = shared.look(|view| {
        let nodes = &view.cluster.nodes;
        (nodes.epoch, nodes.is_main(me), nodes.is_superseded(me))
    });
    if request.epoch <= epoch && !superseded {
        let message =
            format!("epoch {} is not later than epoch {epoch}, which this node knows", request.epoch);
        return Err(Refusal::new(RefusalKind::Conflict, "older_epoch", message));
    }
    if request.epoch > epoch.next() && !superseded {
        let message = format!(
            "epoch {} does not follow epoch {epoch}, which this node knows: its servers are not stopped for an epoch that \
             nothing proves",
            request.epoch
        );
        return Err(Refusal::new(RefusalKind::Conflict, "unproved_epoch", message));
    }
    if !is_main && !superseded {
        return Err(Refusal::new(
            RefusalKind::Conflict,
            "not_main",
            "this node is not main: there is nothing to fence",
        ));
    }
    let FenceBody { by, epoch, run, .. } = request;
    shared.lines.fence_request.tell(FenceRequest { by, epoch, run });
    // for this run: another one's fence may be taken back
    let is_fenced = |view: &View| {
        let fenced = view.cluster.nodes.get(me).is_some_and(|row| row.status == NodeStatus::Fenced);
        fenced && (!view.cluster.nodes.is_main(me) || view.standpoint.fenced_for == Some(run))
    };
    if !shared.wait_until(FENCE_LIMIT, is_fenced).await {
        let message = format!(
            "the servers were asked to stop, and are not proved to be stopped within {FENCE_LIMIT:?}"
        );
        return Err(Refusal::new(RefusalKind::TimedOut, "not_fenced", message));
    }
    Ok(shared.look(|view| view.standpoint.fence_proof.clone()))
}

/// The run for which this node was fenced has ended without a promotion: this node serves again. Answers when that is recorded.
///
/// # Errors
/// The fence is for another run, or another node is main.
pub async fn lift_fence(shared: &Shared, request: LiftFenceBody) -> Handled<FenceLifted> {
    if !shared.lines.lift_request.is_bound() {
        return Err(still_starting(shared));
    }
    let me = shared.settings.me;
    let LiftFenceBody { by, run, .. } = request;
    let at_rest =
        |view: &View| view.cluster.nodes.get(me).is_none_or(|row| row.status != NodeStatus::Fencing);
    // a stop that is under way is waited for: it would go on behind the answer
    shared.wait_until(FENCE_LIMIT, at_rest).await;
    let is_lifted = |view: &View| !view.cluster.nodes.is_superseded(me);
    if shared.look(is_lifted) {
        return Ok(FenceLifted { words: "the old main is not fenced".to_owned() });
    }
    shared.lines.lift_request.tell(LiftRequest { by, run });
    if !shared.wait_until(LIFT_LIMIT, is_lifted).await {
        let message = "this node stays fenced: another run asked for it, or another node is main";
        return Err(Refusal::new(RefusalKind::Conflict, "stays_fenced", message));
    }
    Ok(FenceLifted { words: "the old main's fence is lifted: it starts its servers".to_owned() })
}

/// Main is about to stop for a switchover to this node. The answer comes when this node has stored that it would take the role.
///
/// # Errors
/// This node would not take the role, or could not store its acceptance.
pub async fn accept_handover(shared: &Shared, body: AcceptHandoverBody) -> Handled<Accepted> {
    let accepted = operate(shared, Operation::AcceptHandover(body.asked), None, Cause::System).await;
    accepted.map_err(|unanswered| unanswered.refusal(shared))
}

/// Main has stopped and offers its role. The answer comes when this node has the role, or never will by this offer; if that
/// takes longer, the old main asks again.
///
/// # Errors
/// This node is starting.
pub async fn take_over(shared: &Shared, TakeOverBody { offer, .. }: TakeOverBody) -> Handled<OfferAnswer> {
    let epoch = offer.epoch;
    let run = match operate(shared, Operation::TakeOver(offer), None, Cause::System).await {
        Ok(Accepted::Run(run)) => run,
        // only a recorded refusal is final: another run, or a later epoch, decides by itself which node is main
        Err(Unanswered::Declined(_)) => return Ok(OfferAnswer::Pending),
        // it may be heard or not: the old main asks again
        Ok(Accepted::Scheduled(_) | Accepted::Unscheduled(_) | Accepted::FenceLifted(_))
        | Err(Unanswered::NotReady) => {
            return Err(still_starting(shared));
        }
    };
    let me = shared.settings.me;
    let decided = |view: &View| {
        let is_main = view.cluster.nodes.is_main(me) && view.cluster.nodes.epoch >= epoch;
        is_main || view.cluster.runs.get(run).is_some_and(|run| !run.is_running())
    };
    shared.wait_until(TAKE_OVER_LIMIT, decided).await;
    let head = shared.journal.head();
    let said = shared.look(|view| {
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
    Ok(said)
}
