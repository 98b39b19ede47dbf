//! A promotion that was asked for and not seen is withdrawn: the undo of the step `promote` (ADR 15).

use std::time::Duration;

use interrex_events::{StepId, StepOutcome};
use interrex_projections::{Run, StepState};

use super::Servers;
use crate::ports::{Answer, PortError, PostgresPort, StopMode};

/// How long a server that may hang is asked whether its promotion has happened.
const LOOK_PATIENCE: Duration = Duration::from_secs(5);
/// How long the server may take to stop in good order.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// How long the server may take to start as a standby: with the look and the stop, less than the limit of the step. It
/// goes on to start after that.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// Whether any attempt may have asked PostgreSQL for its promotion: a refused attempt has looked first, and not asked.
fn may_have_been_asked(run: &Run) -> bool {
    let step = run.step(StepId::Promote);
    step.attempts > 1 || step.state != StepState::Ended(StepOutcome::Refused)
}

/// A withdrawal that was cut off, and is not made again, has left the server stopped.
pub(super) async fn start_again_if_cut_off(servers: &Servers, run: &Run) -> Answer<()> {
    let postgres = &*servers.postgres;
    let asked_before = run.step(StepId::Promote).attempts > 1;
    if asked_before && postgres.promotion().await.is_err() && postgres.is_standby_directory() {
        postgres.start().await?;
    }
    Ok(())
}

/// Makes sure that no promotion that this run asked for happens later. Returns what was done, in a sentence.
///
/// # Errors
/// The promotion has happened, and stands; or the server cannot be stopped, and the promotion may still happen.
pub(super) async fn withdraw(servers: &Servers, run: &Run) -> Answer<String> {
    let postgres = &*servers.postgres;
    if !may_have_been_asked(run) {
        return Ok("no promotion was asked for".to_owned());
    }
    let seen = tokio::time::timeout(LOOK_PATIENCE, postgres.promotion()).await;
    if let Ok(Ok(Some(promotion))) = seen {
        let words = format!(
            "PostgreSQL has become a primary, on timeline {}: the promotion stands",
            promotion.timeline
        );
        return Err(PortError(words));
    }
    let stopped = postgres
        .stop(StopMode::Within(STOP_PATIENCE))
        .await
        .map_err(|error| PortError(format!("the promotion asked for cannot be withdrawn: {error}")))?;
    Ok(start_as_standby(postgres, &stopped.words).await)
}

/// A server that was asked may promote itself at any later moment, and a session may still hold the request. A stopped server does
/// neither, and a server that starts as a standby no longer has the request.
async fn start_as_standby(postgres: &dyn PostgresPort, stopped: &str) -> String {
    if !postgres.is_standby_directory() {
        return format!(
            "the promotion asked for before had begun on this node: PostgreSQL {stopped}, and stays stopped, because it would be a \
             second main. Bring this node back: interrex rejoin. If no main is left, create standby.signal in its data directory, \
             restart this supervisor, then: interrex promote"
        );
    }
    let started = match tokio::time::timeout(START_PATIENCE, postgres.start()).await {
        Ok(Ok(_)) => "started again as a standby".to_owned(),
        Ok(Err(error)) => format!("is a standby that did not start again: {error}"),
        Err(_) => format!("is a standby that is still starting after {START_PATIENCE:?}"),
    };
    format!("the promotion asked for before is withdrawn: PostgreSQL {stopped}; {started}")
}
