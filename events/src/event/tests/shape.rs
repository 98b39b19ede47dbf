//! The shape of a payload: what may stand at every path of its JSON, and which changes of that are none for old payloads.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::sources::{Body, Declared, Form, Source};

/// What every path in a payload may hold, the alternatives in single words: `missed_at_ms[]: u32`,
/// `evidence.last_good_at: time | null`.
pub(super) type Shape = BTreeMap<String, String>;

/// The shape of a payload type.
pub(super) fn shape_of(types: &[&Declared], payload: &str) -> Shape {
    let mut shape = Shape::new();
    describe_fields(types, payload, "", &mut shape);
    shape
}

fn declared<'a>(types: &[&'a Declared], name: &str) -> &'a Declared {
    types.iter().find(|it| it.name == name).unwrap_or_else(|| panic!("no source declares {name}"))
}

fn describe_fields(types: &[&Declared], name: &str, path: &str, shape: &mut Shape) {
    let Body::Fields(fields) = &declared(types, name).body else { return };
    for field in fields {
        let path = if path.is_empty() { field.name.clone() } else { format!("{path}.{}", field.name) };
        let mut alternatives = alternatives(types, &field.form);
        if field.may_be_absent {
            alternatives.retain(|it| it != "null");
            alternatives.push("absent".to_owned());
        }
        shape.insert(path.clone(), alternatives.join(" | "));
        describe_inside(types, &field.form, &path, shape);
    }
}

fn describe_inside(types: &[&Declared], form: &Form, path: &str, shape: &mut Shape) {
    let mut describe = |form: &Form, path: String| {
        shape.insert(path.clone(), alternatives(types, form).join(" | "));
        describe_inside(types, form, &path, shape);
    };
    match form {
        Form::Plain(_) => {}
        Form::List(element, _) => describe(element, format!("{path}[]")),
        Form::Pair(pair) => {
            for (at, form) in pair.iter().enumerate() {
                describe(form, format!("{path}[{at}]"));
            }
        }
        Form::Optional(inner) => describe_inside(types, inner, path, shape),
        Form::Declared(name) => describe_fields(types, name, path, shape),
    }
}

fn alternatives(types: &[&Declared], form: &Form) -> Vec<String> {
    match form {
        Form::Plain(plain) => vec![plain.json.to_owned()],
        Form::List(_, None) => vec!["list".to_owned()],
        Form::List(_, Some(length)) => vec![format!("list of {length}")],
        Form::Pair(_) => vec!["list of 2".to_owned()],
        Form::Optional(inner) => [alternatives(types, inner), vec!["null".to_owned()]].concat(),
        Form::Declared(name) => match &declared(types, name).body {
            Body::Fields(_) => vec!["object".to_owned()],
            Body::Values(values) => values.iter().map(|(value, _)| format!("'{value}'")).collect(),
        },
    }
}

/// What in the shape of today cannot read payloads of an earlier one, or would not say all that they said.
///
/// A path may learn new values and never forgets one; a new path is one that may be absent.
pub(super) fn breaks(earlier: &Shape, today: &Shape) -> Vec<String> {
    let mut found = Vec::new();
    for (path, before) in earlier {
        match today.get(path) {
            None => found.push(format!("`{path}` is gone")),
            Some(now) if !set(before).is_subset(&set(now)) => {
                found.push(format!("`{path}` was {before}, and is {now}"));
            }
            Some(_) => {}
        }
    }
    let mut additions = BTreeSet::new();
    for (path, now) in today.iter().filter(|(path, _)| !earlier.contains_key(*path)) {
        let parent = path.rfind(['.', '[']).map_or("", |end| &path[..end]);
        if set(now).contains("absent") || additions.contains(parent) {
            additions.insert(path.as_str());
        } else {
            found.push(format!("`{path}` is new, and old payloads have none"));
        }
    }
    found
}

fn set(alternatives: &str) -> BTreeSet<&str> {
    alternatives.split(" | ").collect()
}

/// What a shape allows and no sample shows.
pub(super) fn not_shown(shape: &Shape, samples: &[Value]) -> Vec<String> {
    let mut shown = BTreeMap::new();
    samples.iter().for_each(|sample| note("", sample, &mut shown));
    let mut missing = Vec::new();
    for (path, alternatives) in shape {
        let values = shown.get(path).map_or(&[][..], Vec::as_slice);
        for alternative in set(alternatives) {
            let is_shown = match alternative.strip_prefix('\'').and_then(|it| it.strip_suffix('\'')) {
                Some(name) => values.iter().any(|value| *value == name),
                None if alternative == "null" => values.iter().any(|value| value.is_null()),
                None if alternative == "absent" => is_absent_somewhere(path, &shown, samples),
                None => values.iter().any(|value| !value.is_null()),
            };
            if !is_shown {
                missing.push(format!("`{path}` as {alternative}"));
            }
        }
    }
    missing
}

/// Every value in a payload by its path; an element of a list also by its place, for pairs.
fn note<'a>(path: &str, value: &'a Value, shown: &mut BTreeMap<String, Vec<&'a Value>>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                shown.entry(path.clone()).or_default().push(value);
                note(&path, value, shown);
            }
        }
        Value::Array(elements) => {
            for (at, value) in elements.iter().enumerate() {
                for path in [format!("{path}[]"), format!("{path}[{at}]")] {
                    shown.entry(path.clone()).or_default().push(value);
                    note(&path, value, shown);
                }
            }
        }
        _ => {}
    }
}

fn is_absent_somewhere(path: &str, shown: &BTreeMap<String, Vec<&Value>>, samples: &[Value]) -> bool {
    match path.rsplit_once('.') {
        Some((parent, name)) => shown.get(parent).is_some_and(|them| {
            them.iter().any(|value| value.as_object().is_some_and(|fields| !fields.contains_key(name)))
        }),
        None => samples.iter().any(|sample| sample.get(path).is_none()),
    }
}

/// A payload, and what becomes of it.
const PAYLOAD: &str = "
    struct Payload { main: NodeId, ms: u64, at: Option<Time>, verdict: Verdict, nodes: Vec<Node>, pair: (Node, Time) }
    struct Node { name: String }
    struct Time { ms: i64 }
    enum Verdict { Good, VeryBad }
";

fn breaks_if(change: &str, by: &str) -> Vec<String> {
    assert!(PAYLOAD.contains(change), "{change}");
    let shape = |text: &str| {
        let source = Source::parse(text);
        shape_of(&source.types.iter().collect::<Vec<_>>(), "Payload")
    };
    breaks(&shape(PAYLOAD), &shape(&PAYLOAD.replacen(change, by, 1)))
}

#[test]
fn every_change_that_old_payloads_cannot_bear_is_seen() {
    for (change, by, words) in [
        ("ms: u64,", "", "`ms` is gone"),
        ("ms: u64", "millis: u64", "`ms` is gone"),
        ("ms: u64", "ms: u32", "`ms` was u64, and is u32"),
        ("ms: u64", "ms: String", "`ms` was u64, and is text"),
        ("name: String", "name: String, port: u32", "`nodes[].port` is new, and old payloads have none"),
        (
            "name: String",
            "name: String, port: Option<u32>",
            "`nodes[].port` is new, and old payloads have none",
        ),
        ("at: Option<Time>", "at: Time", "`at` was object | null, and is object"),
        ("nodes: Vec<Node>", "nodes: [Node; 2]", "`nodes` was list, and is list of 2"),
        ("(Node, Time)", "(Time, Node)", "`pair[0].name` is gone"),
        (", VeryBad", "", "`verdict` was 'good' | 'very_bad', and is 'good'"),
        ("VeryBad", "Bad", "`verdict` was 'good' | 'very_bad', and is 'good' | 'bad'"),
    ] {
        let found = breaks_if(change, by);
        assert!(found.iter().any(|it| it == words), "{change} to {by}: {found:?}");
    }
}

#[test]
fn what_old_payloads_can_bear_is_no_break() {
    let left_out = "#[serde(default, skip_serializing_if = \"Option::is_none\")]";
    for (change, by) in [
        ("VeryBad", "Unknown, VeryBad"),
        ("ms: u64", "ms: Option<u64>"),
        ("name: String", &format!("name: String, {left_out} since: Option<Time>")),
    ] {
        assert_eq!(breaks_if(change, by), [""; 0], "{change} to {by}");
    }
}

#[test]
fn a_sample_that_is_missing_is_named() {
    let source = Source::parse(PAYLOAD);
    let shape = shape_of(&source.types.iter().collect::<Vec<_>>(), "Payload");
    let sample = serde_json::json!({
        "main": 1, "ms": 2, "at": null, "verdict": "good", "nodes": [], "pair": [{ "name": "alpha" }, { "ms": 3 }],
    });
    let missing = ["`at` as object", "`at.ms` as i64", "`nodes[]` as object", "`nodes[].name` as text"];
    assert_eq!(not_shown(&shape, &[sample])[..4], missing);
}
