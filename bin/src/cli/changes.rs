//! What is different between two states, field by field: old -> new.

use interrex_events::{NodeId, RecoveryTime, RunId};
use interrex_projections::{Cluster, ClusterNodes, Node, Run, Settings};
use serde::Serialize;
use serde_json::{Value, json};

use super::views::run::step_in_words;

/// What a change is about.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "of")]
pub(super) enum Subject {
    /// The cluster as a whole.
    Cluster,
    /// A node.
    Node {
        /// Its number.
        node: NodeId,
        /// Its name.
        name: String,
    },
    /// A run.
    Run {
        /// Its id.
        run: RunId,
        /// The same for people.
        short_id: String,
    },
}

/// A field that changed; null is a field that was not there.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Field {
    field: String,
    old: Value,
    new: Value,
}

/// Everything that changed about one subject.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Change {
    #[serde(flatten)]
    pub(super) subject: Subject,
    /// What it is, if it was not known before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) appears_as: Option<String>,
    fields: Vec<Field>,
}

/// The state, as far as a single event can change it: cheap to keep while the event is folded.
pub(super) struct Before {
    nodes: ClusterNodes,
    settings: Settings,
    run: Option<Run>,
}

impl Before {
    /// An event of this run, or of none, is about to be folded.
    pub(super) fn event(cluster: &Cluster, run: Option<RunId>) -> Self {
        Self {
            nodes: cluster.nodes.clone(),
            settings: cluster.settings.clone(),
            run: run.and_then(|run| cluster.runs.get(run)).cloned(),
        }
    }

    /// What the event changed.
    pub(super) fn changes_to(&self, after: &Cluster, run: Option<RunId>) -> Vec<Change> {
        let mut changes = Vec::new();
        if (&self.nodes, &self.settings) != (&after.nodes, &after.settings) {
            changes = of_nodes((&self.nodes, &self.settings), (&after.nodes, &after.settings));
        }
        let after_run = run.and_then(|run| after.runs.get(run));
        if let Some(after_run) = after_run.filter(|run| self.run.as_ref() != Some(run)) {
            changes.extend(of_run(self.run.as_ref(), after_run, &after.nodes));
        }
        changes
    }
}

/// Everything that is different between two states of the same stream, the later one last.
pub(super) fn between(before: &Cluster, after: &Cluster) -> Vec<Change> {
    let mut changes = of_nodes((&before.nodes, &before.settings), (&after.nodes, &after.settings));
    for (id, run) in &after.runs.runs {
        changes.extend(of_run(before.runs.get(*id), run, &after.nodes));
    }
    changes
}

impl Change {
    /// The fields, each as `field` and `old -> new`; a subject that is new has only what it appears as.
    pub(super) fn in_words(&self, nodes: &ClusterNodes) -> Vec<(String, String)> {
        if let Some(appears_as) = &self.appears_as {
            return vec![("new".to_owned(), appears_as.clone())];
        }
        let words = |field: &Field| {
            let (old, new) = (field.shown(&field.old, nodes), field.shown(&field.new, nodes));
            (field.field.clone(), format!("{old} -> {new}"))
        };
        self.fields.iter().map(words).collect()
    }
}

impl Subject {
    /// Its name; the cluster as a whole has none.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Cluster => "cluster".to_owned(),
            Self::Node { name, .. } => name.clone(),
            Self::Run { short_id, .. } => format!("run {short_id}"),
        }
    }
}

impl Field {
    fn shown(&self, value: &Value, nodes: &ClusterNodes) -> String {
        match value {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            Value::Number(number) if self.field == "main" => {
                let node = number.as_u64().and_then(|number| u32::try_from(number).ok());
                node.map_or_else(|| number.to_string(), |node| nodes.name(NodeId(node)))
            }
            other => other.to_string(),
        }
    }
}

type Facts = Vec<(String, Value)>;

fn of_nodes(
    (old_nodes, old_settings): (&ClusterNodes, &Settings),
    (nodes, settings): (&ClusterNodes, &Settings),
) -> Vec<Change> {
    let mut changes = Vec::new();
    let fields = different(&cluster_facts(old_nodes, old_settings), &cluster_facts(nodes, settings));
    if !fields.is_empty() {
        changes.push(Change { subject: Subject::Cluster, appears_as: None, fields });
    }
    for (id, row) in &nodes.nodes {
        let old = old_nodes.get(*id);
        let mut fields = different(&old.map(node_facts).unwrap_or_default(), &node_facts(row));
        // when a status began says nothing more where the status is another one
        if fields.iter().any(|field| field.field == "status") {
            fields.retain(|field| field.field != "status_since");
        }
        if !fields.is_empty() {
            let subject = Subject::Node { node: *id, name: nodes.name(*id) };
            let appears_as = old
                .is_none()
                .then(|| format!("{}, status {}, supervisor at {}", row.role, row.status, row.address));
            changes.push(Change { subject, appears_as, fields });
        }
    }
    changes
}

fn of_run(old: Option<&Run>, run: &Run, nodes: &ClusterNodes) -> Option<Change> {
    let fields = different(&old.map(run_facts).unwrap_or_default(), &run_facts(run));
    let appears_as = old.is_none().then(|| {
        let (from, to) = (nodes.name(run.old_main), nodes.name(run.new_main));
        format!("{} for epoch {}, {}", run.kind.of_nodes(&from, &to), run.epoch, run.end)
    });
    let subject = Subject::Run { run: run.id, short_id: run.id.short() };
    (!fields.is_empty()).then_some(Change { subject, appears_as, fields })
}

fn different(old: &Facts, new: &Facts) -> Vec<Field> {
    let value = |facts: &Facts, wanted: &str| {
        facts.iter().find(|(field, _)| field == wanted).map_or(Value::Null, |(_, value)| value.clone())
    };
    let gone = old.iter().filter(|(field, _)| new.iter().all(|(other, _)| other != field));
    new.iter()
        .chain(gone)
        .map(|(field, _)| Field { field: field.clone(), old: value(old, field), new: value(new, field) })
        .filter(|field| field.old != field.new)
        .collect()
}

fn cluster_facts(nodes: &ClusterNodes, settings: &Settings) -> Facts {
    let mut facts = vec![
        ("main".to_owned(), json!(nodes.main)),
        ("epoch".to_owned(), json!(nodes.epoch)),
        ("timeline".to_owned(), json!(nodes.timeline)),
    ];
    flatten("", &json!(settings.changed), &mut facts);
    facts.push(("settings_changed_by".to_owned(), json!(settings.changed_by)));
    facts
}

/// Every column of the row, whatever columns there are; the two that people ask for first come first.
fn node_facts(row: &Node) -> Facts {
    let mut facts = Facts::new();
    flatten("", &json!(row), &mut facts);
    facts.retain(|(field, _)| field != "node");
    facts.sort_by_key(|(field, _)| match field.as_str() {
        "role" => 0,
        "status" => 1,
        _ => 2,
    });
    facts
}

fn run_facts(run: &Run) -> Facts {
    let mut facts = vec![
        ("end".to_owned(), json!(run.end)),
        ("resumed".to_owned(), json!(run.resumed)),
        ("without_writes_ms".to_owned(), json!(run.recovery_time.map(RecoveryTime::without_writes_ms))),
        ("lost_bytes".to_owned(), json!(run.loss.as_ref().and_then(|loss| loss.bytes))),
        ("problem".to_owned(), json!(run.problem)),
    ];
    let steps = run.steps.iter().map(|(id, step)| (format!("step {id}"), json!(step_in_words(step))));
    facts.extend(steps);
    facts
}

/// Nested objects as fields with a dot in their name.
fn flatten(prefix: &str, value: &Value, facts: &mut Facts) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let field = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&field, value, facts);
            }
        }
        _ if prefix.is_empty() => {}
        value => facts.push((prefix.to_owned(), value.clone())),
    }
}
