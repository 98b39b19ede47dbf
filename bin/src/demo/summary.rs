//! The figures: what clients found, and what the journal says.

use std::{io::Write as _, path::PathBuf, time::Duration};

use interrex_actors::env::{Moment, ms};
use interrex_events::{Epoch, Loss, NodeId, RecoveryTime, RunId};
use interrex_projections::{Run, RunEnd, human_bytes, human_ms};
use serde::Serialize;

use super::{
    DemoError, DemoOptions, Ended,
    acts::{REDIS_KEY, REDIS_VALUE, since},
    screen::{Screen, Tone},
};
use crate::sandbox::{Acknowledged, BETA, Sandbox};

/// What the figures are made from.
pub(super) struct Facts<'a> {
    pub(super) run: &'a Run,
    /// When alpha died.
    pub(super) blow: Moment,
    pub(super) acknowledged: &'a Acknowledged,
    /// When the demo began.
    pub(super) begin: Moment,
}

/// One journal, verified.
#[derive(Debug, Serialize)]
struct Journal {
    node: NodeId,
    name: &'static str,
    events: u64,
    /// Every hash and every link was right.
    is_sound: bool,
}

/// The figures, for programs in this shape.
#[derive(Debug, Serialize)]
struct Summary {
    folder: PathBuf,
    is_kept: bool,
    threshold_ms: u64,
    run_id: RunId,
    run_end: RunEnd,
    epoch: Epoch,
    new_main: &'static str,
    /// By the journal.
    recovery_time: RecoveryTime,
    /// By the client: from its last acknowledged row to its next one.
    client_outage_ms: Option<u64>,
    /// By the client: from the kill to the next acknowledged row.
    kill_to_next_row_ms: Option<u64>,
    rows_acknowledged: usize,
    rows_lost: usize,
    /// By the journal.
    loss: Option<Loss>,
    postgres_takes_writes: bool,
    redis_role: String,
    redis_kept_its_value: bool,
    radius_accepts: bool,
    journals: Vec<Journal>,
    took_ms: u64,
}

/// Shows the figures. Whether everything was as promised.
pub(super) async fn show(
    sandbox: &Sandbox,
    options: &DemoOptions,
    screen: &mut Screen,
    facts: Facts<'_>,
) -> Result<Ended, DemoError> {
    let summary = Summary::of(sandbox, options, facts).await?;
    screen.heading(
        6,
        "The figures",
        "Measured from outside: by the client, by SQL on beta, by Redis and by an Access-Request to beta's RADIUS.",
    )?;
    for (name, value, tone, note) in summary.lines() {
        let value = screen.paint(tone, &format!("{value:<12}"));
        screen.hanging(Tone::Faint, &format!("   {name:<28} {value} "), &note)?;
    }
    if screen.is_for_programs() {
        let document =
            serde_json::to_string_pretty(&summary).map_err(|error| DemoError::Output(error.into()))?;
        writeln!(std::io::stdout(), "{document}").map_err(DemoError::Output)?;
    }
    Ok(if summary.is_as_promised() { Ended::AsPromised } else { Ended::Otherwise })
}

impl Summary {
    async fn of(sandbox: &Sandbox, options: &DemoOptions, facts: Facts<'_>) -> Result<Self, DemoError> {
        let Facts { run, blow, acknowledged, begin } = facts;
        let since_blow = |at: Moment| ms(at.monotonic.saturating_sub(blow.monotonic));
        let redis_role = sandbox.redis(BETA, &["ROLE"]).await?;
        let beta = sandbox.node(BETA)?.postgres_port;
        Ok(Self {
            folder: sandbox.folder().to_owned(),
            is_kept: options.keep,
            threshold_ms: ms(options.threshold),
            run_id: run.id,
            run_end: run.end,
            epoch: run.epoch,
            new_main: sandbox.node(run.new_main)?.name,
            recovery_time: run.recovery_time.unwrap_or_default(),
            client_outage_ms: acknowledged.longest_gap_after(blow).map(|gap| ms(gap.duration())),
            kill_to_next_row_ms: acknowledged.first_by(beta, blow).map(|ack| since_blow(ack.at)),
            rows_acknowledged: acknowledged.0.len(),
            rows_lost: sandbox.rows_lost(acknowledged, BETA).await?.len(),
            loss: run.loss.clone(),
            postgres_takes_writes: sandbox.takes_writes(BETA).await,
            redis_role: redis_role.split(' ').next().unwrap_or_default().to_owned(),
            redis_kept_its_value: sandbox.redis(BETA, &["GET", REDIS_KEY]).await? == REDIS_VALUE,
            radius_accepts: sandbox.radius_accepts(BETA).await?,
            journals: sandbox
                .nodes()
                .iter()
                .map(|node| journal(sandbox, node.id))
                .collect::<Result<_, _>>()?,
            took_ms: ms(since(begin)),
        })
    }

    fn is_as_promised(&self) -> bool {
        self.run_end == RunEnd::Completed
            && self.client_outage_ms.is_some()
            && self.postgres_takes_writes
            && self.redis_role == "master"
            && self.redis_kept_its_value
            && self.radius_accepts
            && self.journals.iter().all(|journal| journal.is_sound)
    }

    /// Name, value, how it is meant, and what a newcomer should know of it.
    fn lines(&self) -> Vec<(&'static str, String, Tone, String)> {
        let time = |value: Option<u64>| value.map_or_else(|| "for ever".to_owned(), human_ms);
        let good = |is_so: bool| if is_so { Tone::Good } else { Tone::Bad };
        let yes = |is_so: bool| if is_so { "yes".to_owned() } else { "NO".to_owned() };
        let split = self.recovery_time;
        let threshold = Duration::from_millis(self.threshold_ms);
        let mut lines = vec![
            (
                "client without writes",
                time(self.client_outage_ms),
                good(self.client_outage_ms.is_some()),
                format!("from its last row on alpha to its first on {}", self.new_main),
            ),
            (
                "  detect",
                human_ms(split.detect_ms),
                Tone::Plain,
                format!("silence until the verdict; the threshold is {threshold:?}"),
            ),
            (
                "  decide",
                human_ms(split.decide_ms),
                Tone::Plain,
                "epoch, measure of loss, fence, detach, settings".to_owned(),
            ),
            (
                "  promote",
                human_ms(split.promote_ms),
                Tone::Plain,
                "until a write was committed and a history file read".to_owned(),
            ),
            (
                "RADIUS ready after that",
                human_ms(split.dependents_ms),
                Tone::Plain,
                "restarted, and asked until it accepted the test user".to_owned(),
            ),
            (
                "rows acknowledged",
                self.rows_acknowledged.to_string(),
                Tone::Plain,
                "the client got an acknowledged commit for each".to_owned(),
            ),
            ("rows lost", self.rows_lost.to_string(), good(self.rows_lost == 0), self.loss_in_words()),
            (
                "run",
                self.run_end.to_string(),
                good(self.run_end == RunEnd::Completed),
                format!("{}; {} is main of epoch {}", self.run_id.short(), self.new_main, self.epoch),
            ),
            (
                "PostgreSQL takes writes",
                yes(self.postgres_takes_writes),
                good(self.postgres_takes_writes),
                String::new(),
            ),
            ("Redis is a", self.redis_role.clone(), good(self.redis_role == "master"), {
                let kept = if self.redis_kept_its_value { "still has" } else { "has LOST" };
                format!("and {kept} what alpha's was given before it died")
            }),
            (
                "RADIUS accepts the user",
                yes(self.radius_accepts),
                good(self.radius_accepts),
                "Access-Request of user `probe`, read from the new main's PostgreSQL".to_owned(),
            ),
        ];
        lines.extend(self.journals.iter().map(|journal| {
            let state = if journal.is_sound { "sound" } else { "DAMAGED" };
            let note = format!("{}: {} events, every hash and link checked", journal.name, journal.events);
            ("journal", state.to_owned(), good(journal.is_sound), note)
        }));
        lines
    }

    fn loss_in_words(&self) -> String {
        let Some(loss) = &self.loss else { return "acknowledged and not in beta's table".to_owned() };
        let reported = match loss.bytes {
            Some(0) => "beta has all that alpha had reported".to_owned(),
            Some(bytes) => {
                format!("beta lacks at least {} of WAL that alpha had reported", human_bytes(bytes))
            }
            None => "alpha never reported its position".to_owned(),
        };
        let blind = loss.seconds.map_or_else(String::new, |seconds| {
            format!("; alpha's last {seconds:.1} s are unknown to it, because replication is asynchronous")
        });
        format!("by the journal {reported}{blind}")
    }
}

fn journal(sandbox: &Sandbox, id: NodeId) -> Result<Journal, DemoError> {
    let verified = sandbox.journal(id)?.verify();
    let verified =
        verified.map_err(|error| crate::sandbox::SandboxError::failed("verifying a journal", error))?;
    let name = sandbox.node(id)?.name;
    Ok(Journal { node: id, name, events: verified.events, is_sound: verified.broken.is_none() })
}
