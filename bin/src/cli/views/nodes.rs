//! `interrex nodes`: the table `cluster_nodes`, with live reports of the supervisors that answer.

use chrono::{DateTime, Utc};
use interrex_actors::wire::NodeReport;
use interrex_events::{Epoch, NodeId, Role, TimelineId};
use interrex_projections::{Node, NodeStatus, human_bytes};
use serde::Serialize;

use super::super::{
    arguments::Looking,
    exit::Exit,
    failure::Failure,
    output::{Output, Style, Tone},
    outside::Outside,
    sight::{Rebuilt, Sight, Supervisor},
    table::{Cell, Table},
    when,
};

/// One node: its row in the projection, and its live report.
#[derive(Serialize)]
struct NodeNow<'a> {
    node: NodeId,
    name: String,
    /// By the journal.
    row: Option<&'a Node>,
    /// By its supervisor, this moment.
    live: Option<&'a NodeReport>,
    /// Why there is no live report, if it was asked for.
    silence: Option<&'a str>,
}

#[derive(Serialize)]
struct Nodes<'a> {
    at: DateTime<Utc>,
    main: Option<NodeId>,
    epoch: Epoch,
    timeline: Option<TimelineId>,
    rebuilt: Option<&'a Rebuilt>,
    supervisor: Supervisor,
    nodes: Vec<NodeNow<'a>>,
}

/// Shows them.
pub(in crate::cli) fn show(
    looking: &Looking,
    outside: &dyn Outside,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let sight = Sight::take(looking, outside)?;
    let (main, epoch) = sight.reign();
    let rows = &sight.story.cluster.nodes;
    let now = |node| NodeNow {
        node,
        name: sight.name(node),
        row: rows.get(node),
        live: sight.report(node),
        silence: sight.silence(node),
    };
    let nodes = Nodes {
        at: sight.now,
        main,
        epoch,
        timeline: rows.timeline,
        rebuilt: sight.rebuilt.as_ref(),
        supervisor: sight.supervisor(),
        nodes: sight.nodes().into_iter().map(now).collect(),
    };
    if looking.reading.json {
        output.json(&nodes)?;
    } else {
        let warning = nodes.supervisor.warning(&sight.name(sight.identity.node_id));
        let text = in_text(&nodes, &sight.as_of(), warning.as_deref(), output.style);
        output.text(&text)?;
    }
    Ok(Exit::Fine)
}

fn in_text(nodes: &Nodes<'_>, as_of: &str, warning: Option<&str>, style: Style) -> String {
    let headings = [
        "NODE",
        "NAME",
        "ROLE",
        "STATUS",
        "SINCE (UTC)",
        "POSTGRESQL",
        "TL",
        "LSN",
        "BEHIND",
        "REDIS",
        "DEPENDENTS",
        "SEEN",
    ];
    let mut table = Table::headed(headings).right([0, 6]);
    for node in &nodes.nodes {
        table.row(cells(node, nodes.main));
    }
    let note = nodes.rebuilt.and_then(|rebuilt| rebuilt.note.as_deref());
    let mut text = format!("Epoch {}, as of {as_of}\n", nodes.epoch);
    for words in warning.into_iter().chain(note) {
        text.push_str(&style.paint(Tone::Warning, words));
        text.push('\n');
    }
    if nodes.rebuilt.is_none_or(|rebuilt| rebuilt.events > 0) {
        text.push_str(&table.render(style));
    }
    text
}

fn cells(node: &NodeNow<'_>, main: Option<NodeId>) -> Vec<Cell> {
    let (row, live) = (node.row, node.live);
    let role = match (live, row) {
        _ if main == Some(node.node) => Some(Role::Main),
        (Some(live), _) => Some(live.role),
        (None, row) => row.map(|row| row.role),
    };
    let status = live.map(|live| live.status).or(row.map(|row| row.status)).unwrap_or_default();
    // the journal's date belongs to the journal's status, and to no other
    let since = row.filter(|row| row.status == status).and_then(|row| row.status_since);
    let postgres = live.map(|live| live.postgres.status).or(row.and_then(|row| row.postgres));
    let timeline = live.map_or(row.and_then(|row| row.timeline), |live| live.postgres.timeline);
    let lsn = live.map_or(row.and_then(|row| row.lsn), |live| live.postgres.lsn);
    let redis = live.map(|live| live.redis.status).or(row.and_then(|row| row.redis));
    vec![
        node.node.to_string().into(),
        Cell::toned(Tone::Strong, &node.name),
        text(role).into(),
        Cell::toned(status_tone(status), status.to_string()),
        since.map_or_else(|| "-".to_owned(), when::date_and_second).into(),
        text(postgres).into(),
        text(timeline).into(),
        text(lsn).into(),
        behind(live).into(),
        text(redis).into(),
        dependents(node).into(),
        if live.is_some() { Cell::toned(Tone::Good, "live") } else { Cell::toned(Tone::Faint, "journal") },
    ]
}

/// How loud a status is.
pub(super) fn status_tone(status: NodeStatus) -> Tone {
    match status {
        NodeStatus::Online => Tone::Good,
        NodeStatus::Unknown | NodeStatus::Suspected | NodeStatus::Stopped | NodeStatus::HandingOver => {
            Tone::Warning
        }
        NodeStatus::Offline | NodeStatus::Fencing | NodeStatus::Fenced => Tone::Bad,
    }
}

fn text(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn behind(live: Option<&NodeReport>) -> String {
    let Some(lag) = live.and_then(|live| live.lag) else { return "-".to_owned() };
    let at_least = if lag.lower_bound { ">= " } else { "" };
    format!("{at_least}{}, {:.1} s", human_bytes(lag.bytes), lag.seconds)
}

fn dependents(node: &NodeNow<'_>) -> String {
    let each: Vec<String> = match (node.live, node.row) {
        (Some(live), _) => {
            live.dependents.iter().map(|(name, facts)| format!("{name} {}", facts.status)).collect()
        }
        (None, Some(row)) => row.dependents.iter().map(|(name, status)| format!("{name} {status}")).collect(),
        (None, None) => Vec::new(),
    };
    if each.is_empty() { "-".to_owned() } else { each.join(", ") }
}
