//! Waiting on conditions with a deadline, never for a fixed time; and what is looked at for it.

use std::{fmt::Display, future::Future, time::Duration};

use interrex_actors::wire::NodeReport;
use interrex_events::{
    Envelope, Event, NodeId,
    journal::{JournalReader, Selection, Verify},
};
use interrex_projections::{Cluster, Run, rebuild};
use serde::Deserialize;

use super::{Done, Sandbox, SandboxError};

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// Lines of a supervisor's log that a message holds.
const LAST_LINES: usize = 3;
/// The same where a wait was in vain: what the supervisor did meanwhile.
const STORY_LINES: usize = 40;

/// The newest events of a journal, but those that only tell of peers.
fn newest_decisions(events: &[Envelope]) -> String {
    let decisions = events.iter().rev().map(|envelope| &envelope.event);
    let decisions = decisions.filter(|event| !matches!(event, Event::HeartbeatsObserved(_)));
    let newest: Vec<String> = decisions.take(3).map(|event| format!("{event:?}")).collect();
    if newest.is_empty() { "none".to_owned() } else { newest.join("; before that ") }
}

/// What a supervisor answers to `GET /health`.
#[derive(Debug, Clone)]
pub struct Health {
    /// 200, or 503 if it does not do what its role demands.
    pub status: u16,
    /// What it says of itself.
    pub report: NodeReport,
}

#[derive(Deserialize)]
struct HealthBody {
    data: NodeReport,
}

/// Looks every 20 ms until there is an answer. `look` says what it sees instead.
///
/// # Errors
/// The time is over.
pub async fn until<T, Looking, Seen>(what: impl Display, limit: Duration, mut look: Looking) -> Done<T>
where
    Looking: FnMut() -> Seen,
    Seen: Future<Output = Result<T, String>>,
{
    let mut last = "nothing yet".to_owned();
    let looking = async {
        loop {
            match look().await {
                Ok(value) => return value,
                Err(words) => last = words,
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let seen = tokio::time::timeout(limit, looking).await;
    seen.map_err(|_| SandboxError::Late { what: what.to_string(), limit, last })
}

impl Sandbox {
    /// What a node's supervisor says of itself now.
    ///
    /// # Errors
    /// It does not answer, or not as a supervisor does.
    pub async fn health(&self, id: NodeId) -> Done<Health> {
        let node = self.node(id)?;
        let url = format!("http://127.0.0.1:{}/health", node.supervisor_port);
        let doing = || format!("asking {} for its health", node.name);
        let failed = |error: reqwest::Error| SandboxError::failed(doing(), innermost(&error));
        let response = self.http.get(url).send().await.map_err(failed)?;
        let status = response.status().as_u16();
        let body: HealthBody = response.json().await.map_err(failed)?;
        Ok(Health { status, report: body.data })
    }

    /// Waits until a node does what its role demands.
    ///
    /// # Errors
    /// It does not in time, or its supervisor has ended.
    pub async fn wait_healthy(&self, id: NodeId) -> Done<NodeReport> {
        self.wait_health(id, "healthy", |report| report.healthy).await
    }

    /// Waits until a node's report satisfies a condition.
    ///
    /// # Errors
    /// It does not in time, or its supervisor has ended.
    pub async fn wait_health(
        &self,
        id: NodeId,
        what: &str,
        is_so: impl Fn(&NodeReport) -> bool,
    ) -> Done<NodeReport> {
        let node = self.node(id)?;
        let ended = || {
            let end = self.supervisor_end(id)?;
            let words = self.last_words(node, LAST_LINES);
            Some(SandboxError::failed(
                format!("waiting until {} is {what}", node.name),
                format!("its supervisor ended ({end}): {words}"),
            ))
        };
        let seen = until(format!("{} is {what}", node.name), self.settings.patience, || async {
            if let Some(error) = ended() {
                return Ok(Err(error));
            }
            match self.health(id).await {
                Ok(health) if is_so(&health.report) => Ok(Ok(health.report)),
                Ok(health) => Err(format!("problems: {}", health.report.problems.join("; "))),
                Err(error) => {
                    Err(format!("{error}; supervisor.log ends: {}", self.last_words(node, LAST_LINES)))
                }
            }
        });
        seen.await.map_err(|late| {
            SandboxError::failed(
                late.to_string(),
                format!("supervisor.log ends: {}", self.last_words(node, STORY_LINES)),
            )
        })?
    }

    /// Waits until a node's supervisor has heard nothing of main for its threshold: only then would a promotion there be no
    /// surprise to anybody.
    ///
    /// # Errors
    /// It hears of main, or does not answer in time.
    pub async fn wait_main_silent(&self, id: NodeId) -> Done<NodeReport> {
        let silent = |report: &NodeReport| report.main_silent_ms >= Some(report.threshold_ms);
        self.wait_health(id, "without a sign of main", silent).await
    }

    /// Waits until a standby streams, by what main says.
    ///
    /// # Errors
    /// It does not in time.
    pub async fn wait_streaming(&self, main: NodeId, standby: NodeId) -> Done<()> {
        let name = self.node(standby)?.name;
        let sql =
            format!("SELECT state FROM pg_stat_replication WHERE application_name = 'interrex_{standby}'");
        until(format!("{name} streams"), self.settings.patience, || async {
            match self.psql_value(main, &sql).await {
                Ok(state) if state == "streaming" => Ok(()),
                Ok(state) => Err(format!("pg_stat_replication says `{state}`")),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
    }

    /// Waits until a node's RADIUS lets the test user in.
    ///
    /// # Errors
    /// It does not in time.
    pub async fn wait_radius(&self, id: NodeId) -> Done<()> {
        let name = self.node(id)?.name;
        until(format!("RADIUS of {name} accepts the test user"), self.settings.patience, || async {
            match self.radius_accepts(id).await {
                Ok(true) => Ok(()),
                Ok(false) => Err("it does not".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
    }

    /// The events that a node recorded itself, as its journal's file has them, in order.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn events(&self, id: NodeId) -> Done<Vec<Envelope>> {
        let own = Selection { node: Some(id), ..Selection::default() };
        let records = self.journal(id)?.read(&own);
        let records = records.map_err(|error| SandboxError::failed("reading a journal", error))?;
        Ok(records.iter().map(interrex_events::Record::open).collect())
    }

    /// A reader of a node's journal.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn journal(&self, id: NodeId) -> Done<JournalReader> {
        let file = self.node(id)?.journal();
        JournalReader::open(&file).map_err(|error| SandboxError::failed("reading a journal", error))
    }

    /// The fold of a node's journal.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn cluster(&self, id: NodeId) -> Done<Cluster> {
        let folded = rebuild(&self.journal(id)?, Some(id), Verify::Nothing);
        folded.map_err(|error| SandboxError::failed("reading a journal", error))
    }

    /// Waits until a node's journal holds an event.
    ///
    /// # Errors
    /// It does not in time.
    pub async fn wait_event(
        &self,
        id: NodeId,
        what: &str,
        is_it: impl Fn(&Envelope) -> bool,
    ) -> Done<Envelope> {
        let node = self.node(id)?;
        until(format!("{}'s journal holds {what}", node.name), self.settings.patience, || async {
            let events = self.events(id).map_err(|error| error.to_string())?;
            let newest = newest_decisions(&events);
            events.into_iter().find(&is_it).ok_or_else(|| format!("its newest events are {newest}"))
        })
        .await
    }

    /// Waits until the newest run in a node's journal has ended, however it did. The main whose death starts
    /// it may be silent for the threshold before it begins.
    ///
    /// # Errors
    /// There is none that ended in time.
    pub async fn wait_run_ended(&self, id: NodeId) -> Done<Run> {
        let node = self.node(id)?;
        let limit = self.settings.patience + self.settings.threshold;
        until(format!("{} ends a run", node.name), limit, || async {
            let cluster = self.cluster(id).map_err(|error| error.to_string())?;
            let newest = cluster.runs.runs.into_values().max_by_key(|run| run.started_at);
            match newest {
                Some(run) if !run.is_running() => Ok(run),
                Some(run) => {
                    let steps = run.steps.iter().filter(|(_, step)| step.is_running());
                    Err(format!(
                        "run {} is at {:?}",
                        run.id.short(),
                        steps.map(|(step, _)| step).collect::<Vec<_>>()
                    ))
                }
                None => Err("there is no run".to_owned()),
            }
        })
        .await
    }

    /// Waits until a node's supervisor has ended.
    ///
    /// # Errors
    /// It goes on.
    pub async fn wait_supervisor_ended(&self, id: NodeId) -> Done<std::process::ExitStatus> {
        let name = self.node(id)?.name;
        until(format!("the supervisor of {name} ends"), self.settings.patience, || async {
            self.supervisor_end(id).ok_or_else(|| "it runs".to_owned())
        })
        .await
    }
}

/// The last cause is the system's message.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}
