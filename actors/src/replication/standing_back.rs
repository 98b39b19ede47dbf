//! A promotion that is not made, because main serves again.

use interrex_events::{StepId, StepOutcome};
use interrex_projections::Run;

use super::Servers;
use crate::{
    messages::StepReport,
    ports::{Answer, StopMode},
};

/// Whether an attempt before this one may have asked PostgreSQL for its promotion.
fn may_have_been_asked(run: &Run) -> bool {
    run.step(StepId::Promote).attempts > 1
}

/// A supervisor that died while it stood back has left the server stopped.
pub(super) async fn start_again_if_cut_off(servers: &Servers, run: &Run) -> Answer<()> {
    let postgres = &*servers.postgres;
    if may_have_been_asked(run) && postgres.promotion().await.is_err() && postgres.is_standby_directory() {
        postgres.start().await?;
    }
    Ok(())
}

/// Refuses the promotion, and sees to it that none happens later: one that was asked for is withdrawn first (ADR 15).
pub(super) async fn stand_back(servers: &Servers, run: &Run, reason: String) -> Answer<StepReport> {
    let withdrawn = match may_have_been_asked(run) {
        true => format!("; {}", withdraw(servers).await?),
        false => String::new(),
    };
    Ok(StepReport::new(StepOutcome::Refused, reason + &withdrawn))
}

/// A server that was asked may obey at any later moment, and a session may still hold the question. A server that is
/// stopped does neither, and one that starts as a standby has forgotten what the one before it was asked.
async fn withdraw(servers: &Servers) -> Answer<String> {
    let postgres = &*servers.postgres;
    let stopped = postgres.stop(StopMode::Fast).await?;
    if !postgres.is_standby_directory() {
        return Ok(format!(
            "the promotion asked for before had begun here: PostgreSQL {stopped}, and stays so, for it would be a second main: \
             bring it back with interrex rejoin"
        ));
    }
    let started = match postgres.start().await {
        Ok(_) => "started again as a standby".to_owned(),
        Err(error) => format!("is a standby that did not start again: {error}"),
    };
    Ok(format!("the promotion asked for before is withdrawn: PostgreSQL {stopped}; {started}"))
}
