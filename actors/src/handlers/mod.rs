//! What this node does with the requests of peers and people. Whatever carries them, HTTP or a simulated network, calls these.

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

/// What kind of refusal it is: what whoever asked may do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// The request itself is wrong.
    BadRequest,
    /// The sender is no member of this cluster.
    Forbidden,
    /// It contradicts what this node knows.
    Conflict,
    /// This node failed.
    Failed,
    /// Not now: ask again.
    Unavailable,
    /// It was begun, and not proved in time.
    TimedOut,
}

/// Why a request came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Of which kind.
    pub kind: RefusalKind,
    /// For programs.
    pub code: &'static str,
    /// For people.
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

/// What a request comes to.
pub type Handled<T> = Result<T, Refusal>;

/// A request is heard if it is meant for this cluster, and, where it names its sender, if that is a member.
///
/// # Errors
/// It is not.
pub fn admit(shared: &Shared, asked: &impl Asked) -> Handled<()> {
    let ours = shared.settings.cluster_id;
    if let Some(theirs) = asked.cluster().filter(|theirs| *theirs != ours) {
        let message = format!("this node is of cluster {ours}, not {theirs}");
        return Err(Refusal::new(RefusalKind::Conflict, "other_cluster", message));
    }
    if let Some(sender) = asked.sender().filter(|sender| !shared.is_peer(*sender)) {
        let message = format!(
            "node {sender} is no peer in this node's configuration: add it to [[peers]] on every node, or correct its node.id"
        );
        return Err(Refusal::new(RefusalKind::Forbidden, "not_a_member", message));
    }
    Ok(())
}

/// Nobody is there yet who could do it; whoever asks must not take that for done.
fn still_starting(shared: &Shared) -> Refusal {
    let problem = shared.look(|view| view.start.problem.clone());
    let why = problem.map_or(String::new(), |problem| format!(" ({problem})"));
    Refusal::new(RefusalKind::Unavailable, "starting", format!("this node is starting{why}: ask again"))
}

/// Waits for the start. Whether it holds nothing up any more.
async fn is_settled(shared: &Shared) -> bool {
    shared.wait_until(START_LIMIT, |view| !view.start.under_way).await
}

/// Why nobody did what was asked.
enum Unanswered {
    /// It is not done, for a reason.
    Declined(Declined),
    /// Nobody is there yet, or nobody answered in time.
    Nobody,
}

impl Unanswered {
    fn refusal(self, shared: &Shared) -> Refusal {
        match self {
            Self::Declined(declined) => declined.into(),
            Self::Nobody => still_starting(shared),
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
        return Err(Unanswered::Nobody);
    }
    let asked = shared.lines.operate.ask(Operate { operation, due, asker });
    match tokio::time::timeout(OPERATE_LIMIT, asked).await {
        Ok(Ok(Ok(accepted))) => Ok(accepted),
        Ok(Ok(Err(declined))) => Err(Unanswered::Declined(declined)),
        Ok(Err(_)) | Err(_) => Err(Unanswered::Nobody),
    }
}
