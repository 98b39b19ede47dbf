//! What this node does with the requests of peers and people. Every transport, HTTP or a simulated network, calls these handlers.

pub mod peers;
pub mod people;

use std::time::Duration;

use chrono::{DateTime, Utc};
use interrex_events::Cause;

use crate::{
    messages::{Accepted, Declined, Operate, Operation},
    node::Shared,
    wire::Asked,
};

/// How long a request may wait for the start of this node.
const START_LIMIT: Duration = Duration::from_secs(8);
/// How long a request may take to become a run on disk.
const OPERATE_LIMIT: Duration = Duration::from_secs(5);

/// The kind of a refusal: it shows what the sender can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// The request itself is wrong.
    BadRequest,
    /// The sender is not a member of this cluster.
    Forbidden,
    /// The request contradicts what this node knows.
    Conflict,
    /// This node failed.
    Failed,
    /// The node cannot answer now: ask again.
    Unavailable,
    /// The work began, and its end was not proved in time.
    TimedOut,
}

/// A refused or failed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of refusal.
    pub kind: RefusalKind,
    /// A code, for programs.
    pub code: &'static str,
    /// A message, for people.
    pub message: String,
}

impl Refusal {
    fn new(kind: RefusalKind, code: &'static str, message: impl Into<String>) -> Self {
        Self { kind, code, message: message.into() }
    }
}

impl From<Declined> for Refusal {
    fn from(Declined { code, message }: Declined) -> Self {
        Self { kind: RefusalKind::Conflict, code, message }
    }
}

/// The result of a request.
pub type Handled<T> = Result<T, Refusal>;

/// Accepts a request that is meant for this cluster and, if it names its sender, comes from a member.
///
/// # Errors
/// The request names another cluster, or its sender is not a member.
pub fn admit(shared: &Shared, asked: &impl Asked) -> Handled<()> {
    let ours = shared.settings.cluster_id;
    if let Some(theirs) = asked.cluster().filter(|theirs| *theirs != ours) {
        let message = format!("this node belongs to cluster {ours}, not {theirs}");
        return Err(Refusal::new(RefusalKind::Conflict, "other_cluster", message));
    }
    if let Some(sender) = asked.sender().filter(|sender| !shared.is_peer(*sender)) {
        let message = format!(
            "node {sender} is not a peer in this node's configuration: add it to [[peers]] on every node, or correct its node.id"
        );
        return Err(Refusal::new(RefusalKind::Forbidden, "not_a_member", message));
    }
    Ok(())
}

/// The actor that could do it does not run yet; the sender must not take the answer for success.
fn still_starting(shared: &Shared) -> Refusal {
    let problem = shared.look(|view| view.start.problem.clone());
    let why = problem.map_or(String::new(), |problem| format!(" ({problem})"));
    Refusal::new(RefusalKind::Unavailable, "starting", format!("this node is starting{why}: ask again"))
}

/// Waits for the start. Returns whether the start no longer holds anything up.
async fn is_settled(shared: &Shared) -> bool {
    shared.wait_until(START_LIMIT, |view| !view.start.under_way).await
}

/// Why a request was not carried out.
enum Unanswered {
    /// The request is refused, with a reason.
    Declined(Declined),
    /// The actor does not run yet, or did not answer in time.
    NotReady,
}

impl Unanswered {
    fn refusal(self, shared: &Shared) -> Refusal {
        match self {
            Self::Declined(declined) => declined.into(),
            Self::NotReady => still_starting(shared),
        }
    }
}

async fn operate(
    shared: &Shared,
    operation: Operation,
    due: Option<DateTime<Utc>>,
    asker: Cause,
) -> Result<Accepted, Unanswered> {
    if !is_settled(shared).await {
        return Err(Unanswered::NotReady);
    }
    let asked = shared.lines.operate.ask(Operate { operation, due, asker });
    match tokio::time::timeout(OPERATE_LIMIT, asked).await {
        Ok(Ok(Ok(accepted))) => Ok(accepted),
        Ok(Ok(Err(declined))) => Err(Unanswered::Declined(declined)),
        Ok(Err(_)) | Err(_) => Err(Unanswered::NotReady),
    }
}
