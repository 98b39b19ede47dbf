//! How both nodes are this moment, by their supervisors, and what the client gets done.

use std::time::Duration;

use interrex_actors::wire::{Lag, NodeReport};
use interrex_events::{DependentStatus, RedisStatus, Role};
use interrex_projections::human_bytes;

use super::screen::{Screen, Tone};
use crate::sandbox::{NodePlan, Sandbox, Writer};

/// One node, this moment.
pub(super) struct Sight {
    name: &'static str,
    report: Option<NodeReport>,
    rows_a_second: usize,
}

/// Looks at all nodes at once.
pub(super) async fn look(sandbox: &Sandbox, writer: Option<&Writer>) -> Vec<Sight> {
    let mut sights = Vec::new();
    for node in sandbox.nodes() {
        sights.push(look_at(sandbox, node, writer).await);
    }
    sights
}

async fn look_at(sandbox: &Sandbox, node: &NodePlan, writer: Option<&Writer>) -> Sight {
    let rows_a_second = writer.map_or(0, |writer| {
        writer.look(|acknowledged| acknowledged.recent(node.postgres_port, Duration::from_secs(1)))
    });
    let report = sandbox.health(node.id).await.ok().map(|health| health.report);
    Sight { name: node.name, report, rows_a_second }
}

const HEADINGS: [&str; 8] = ["NODE", "ROLE", "POSTGRESQL", "REDIS", "RADIUS", "BEHIND", "EPOCH", "ROWS/S"];
const WIDTHS: [usize; 8] = [6, 10, 12, 9, 10, 12, 6, 6];

/// The table, a line each.
pub(super) fn table(sights: &[Sight], screen: &Screen) -> Vec<String> {
    let headings =
        HEADINGS.iter().zip(WIDTHS).map(|(text, width)| format!("{text:width$}")).collect::<String>();
    let mut lines = vec![String::new(), screen.paint(Tone::Faint, &format!("   {headings}"))];
    lines.extend(sights.iter().map(|sight| {
        let cells = sight.cells();
        let cells = cells
            .iter()
            .zip(WIDTHS)
            .map(|((tone, text), width)| screen.paint(*tone, &format!("{text:width$}")));
        format!("   {}", cells.collect::<String>())
    }));
    lines
}

/// The same in one line, for a file or a pipe.
pub(super) fn one_line(sights: &[Sight]) -> String {
    sights.iter().map(Sight::in_words).collect::<Vec<_>>().join(" | ")
}

/// What a secondary knows of a silent main: for how long, and for how long it may be.
pub(super) fn silence(sights: &[Sight]) -> Option<(&'static str, Duration, Duration)> {
    sights.iter().find_map(|sight| {
        let report = sight.report.as_ref()?;
        let silent = Duration::from_millis(report.main_silent_ms.filter(|_| report.role == Role::Secondary)?);
        let allowed = Duration::from_millis(report.threshold_ms);
        (silent > Duration::from_secs(1).min(allowed / 4)).then_some((sight.name, silent, allowed))
    })
}

impl Sight {
    fn in_words(&self) -> String {
        let rows = match self.rows_a_second {
            0 => String::new(),
            rows => format!(", {rows} rows/s"),
        };
        let Some(report) = &self.report else { return format!("{}: no answer{rows}", self.name) };
        let (role, epoch) = (report.role, report.epoch);
        let mut words =
            format!("{}: {role} of epoch {epoch}, PostgreSQL {}", self.name, report.postgres.status);
        words.push_str(&format!(", Redis {}", report.redis.status));
        for (name, facts) in &report.dependents {
            words.push_str(&format!(", {name} {}", facts.status));
        }
        if let Some(lag) = report.lag {
            words.push_str(&format!(", {} behind", behind(&lag)));
        }
        words + &rows
    }

    fn cells(&self) -> [(Tone, String); 8] {
        let name = (Tone::Strong, self.name.to_owned());
        let rows = match self.rows_a_second {
            0 => (Tone::Plain, "-".to_owned()),
            rows => (Tone::Good, rows.to_string()),
        };
        let Some(report) = &self.report else {
            let nothing = || (Tone::Plain, "-".to_owned());
            let dead = (Tone::Bad, "no answer".to_owned());
            return [name, dead, nothing(), nothing(), nothing(), nothing(), nothing(), rows];
        };
        let healthy = |is_so: bool| if is_so { Tone::Good } else { Tone::Bad };
        let radius = report.dependents.values().next().map(|facts| facts.status);
        let behind = report.lag.as_ref().map_or_else(|| "-".to_owned(), behind);
        [
            name,
            (Tone::Plain, report.role.to_string()),
            (Tone::Plain, report.postgres.status.to_string()),
            (
                healthy(!matches!(report.redis.status, RedisStatus::Unlinked | RedisStatus::Stopped)),
                report.redis.status.to_string(),
            ),
            (
                healthy(radius == Some(DependentStatus::Ready)),
                radius.map_or_else(|| "-".to_owned(), |status| status.to_string()),
            ),
            (Tone::Plain, behind),
            (Tone::Plain, report.epoch.to_string()),
            rows,
        ]
    }
}

/// At least so much, where main may have written more since it was last heard.
fn behind(lag: &Lag) -> String {
    format!("{}{}", if lag.lower_bound { "≥ " } else { "" }, human_bytes(lag.bytes))
}
