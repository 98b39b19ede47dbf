//! `docs/EVENTS.md`: its second half is made from the kinds, the payload types with their comments, and the golden files.

use std::{fmt::Write as _, path::Path};

use super::{
    super::{KINDS, Kind},
    golden,
    sources::{self, Body, Declared, Field, Form, PLAIN, Source},
};

/// What stands above it is written by hand.
const MARK: &str = "<!-- made from the code from here on; see events/src/event/tests/mod.rs -->\n";

/// Headings of the groups, as [`sources::sources`] has them.
const TITLES: [&str; 8] = [
    "The supervisor",
    "Health",
    "Who is main",
    "Failover runs",
    "Steps",
    "Switchovers",
    "Rejoins",
    "The store",
];

#[test]
fn the_page_says_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/EVENTS.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (by_hand, made) = page.split_once(MARK).unwrap();
    let wanted = made_from_the_code();
    if golden::is_update() {
        std::fs::write(&path, format!("{by_hand}{MARK}{wanted}")).unwrap();
    } else {
        assert!(
            made == wanted,
            "docs/EVENTS.md is out of date: run UPDATE_GOLDEN=1 cargo test -p interrex-events event"
        );
    }
    for (number, title) in TITLES.iter().enumerate() {
        let link = format!("{}. [{title}](#{})", number + 1, anchor(title));
        assert!(by_hand.contains(&link), "the table of contents lacks {link}");
    }
}

fn made_from_the_code() -> String {
    let mut page = String::from("\n## The envelope\n\n");
    envelope(&mut page);
    page.push_str("\n## Words for types\n\n| in the tables | in JSON | meaning |\n| --- | --- | --- |\n");
    let mut words: Vec<_> = PLAIN.iter().map(|it| (it.word, it.in_json(), it.meaning)).collect();
    words.dedup();
    for (word, json, meaning) in words {
        writeln!(page, "| {word} | {json} | {meaning} |").unwrap();
    }
    let sources = sources::sources();
    assert_eq!(sources.len(), TITLES.len(), "a file of payload types has no heading");
    for (source, title) in sources.iter().zip(TITLES) {
        group(&mut page, source, title);
    }
    page
}

fn envelope(page: &mut String) {
    let source = Source::parse(include_str!("../../envelope.rs"));
    let record = source.types.iter().find(|it| it.name == "Record").unwrap();
    let Body::Fields(fields) = &record.body else { panic!("a record has fields") };
    page.push_str("| field | type | meaning |\n| --- | --- | --- |\n");
    for field in fields {
        // kept as text, so that not a byte of what was hashed changes; JSON when it is shown
        let is_json = ["actor", "payload"].contains(&field.name.as_str());
        let form = if is_json { "object".to_owned() } else { described(&field.form) };
        writeln!(page, "| `{}` | {form} | {} |", field.name, field.meaning).unwrap();
    }
}

fn group(page: &mut String, source: &Source, title: &str) {
    let kinds: Vec<(&Kind, &Declared)> = KINDS
        .iter()
        .filter_map(|kind| Some((kind, source.types.iter().find(|it| it.name == kind.payload)?)))
        .collect();
    writeln!(page, "\n## {title}\n\n{}\n", source.introduction).unwrap();
    if !kinds.is_empty() {
        page.push_str("| kind | meaning |\n| --- | --- |\n");
    }
    for (kind, _) in &kinds {
        writeln!(page, "| [{}](#{}) | {} |", kind.name, anchor(kind.name), kind.meaning).unwrap();
    }
    for (kind, payload) in &kinds {
        self::kind(page, kind, payload);
    }
    for part in &source.types {
        if !kinds.iter().any(|(_, payload)| payload.name == part.name) {
            writeln!(page, "\n### {}\n\n{}\n", part.name, part.meaning).unwrap();
            body(page, &part.body);
        }
    }
}

fn kind(page: &mut String, kind: &Kind, payload: &Declared) {
    writeln!(page, "\n### {}\n\n{}{}\n", kind.name, kind.meaning, more(kind, payload)).unwrap();
    writeln!(page, "Version {}, recorded by {}.\n", kind.version, recorders(kind)).unwrap();
    body(page, &payload.body);
    let example = indented(&golden::first_sample(kind));
    writeln!(page, "\n<details><summary>Example</summary>\n\n```json\n{example}\n```\n\n</details>").unwrap();
}

/// What a payload's comment says beyond whose payload it is.
fn more(kind: &Kind, payload: &Declared) -> String {
    let whose = format!("Payload of `{}`", kind.name);
    let rest =
        payload.meaning.strip_prefix(&whose).unwrap_or_else(|| panic!("{}: not \"{whose}\"", payload.name));
    let mut rest = rest.trim_start_matches(['.', ':', ' ']).chars();
    rest.next().map_or(String::new(), |first| format!(" {}{}", first.to_uppercase(), rest.as_str()))
}

fn recorders(kind: &Kind) -> String {
    kind.recorded_by.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn body(page: &mut String, body: &Body) {
    match body {
        Body::Fields(fields) => {
            page.push_str("| field | type | meaning |\n| --- | --- | --- |\n");
            for Field { name, meaning, form, may_be_absent } in fields {
                let form = match form {
                    Form::Optional(inner) if *may_be_absent => format!("{}, or absent", described(inner)),
                    _ => described(form),
                };
                writeln!(page, "| `{name}` | {form} | {meaning} |").unwrap();
            }
        }
        Body::Values(values) => {
            page.push_str("| value | meaning |\n| --- | --- |\n");
            for (value, meaning) in values {
                writeln!(page, "| `{value}` | {meaning} |").unwrap();
            }
        }
    }
}

fn described(form: &Form) -> String {
    match form {
        Form::Plain(plain) => plain.word.to_owned(),
        Form::Declared(name) => format!("[{name}](#{})", anchor(name)),
        Form::Optional(inner) => format!("{} or `null`", described(inner)),
        Form::List(element, None) => format!("list: {}", described(element)),
        Form::List(element, Some(length)) => format!("list of {length}: {}", described(element)),
        Form::Pair(pair) => format!("pair: {}, {}", described(&pair[0]), described(&pair[1])),
    }
}

/// Where a heading's link leads to.
fn anchor(heading: &str) -> String {
    heading.to_lowercase().replace(' ', "-")
}

/// JSON over several lines, its fields in their order; lists of plain values stay in one line.
fn indented(json: &str) -> String {
    let (mut out, mut depth, mut in_text, mut is_escaped) = (String::new(), 0, false, false);
    let mut letters = json.chars().peekable();
    // whether each list that is open has its elements on lines of their own
    let mut broken = Vec::new();
    while let Some(letter) = letters.next() {
        if in_text {
            out.push(letter);
            in_text = is_escaped || letter != '"';
            is_escaped = letter == '\\' && !is_escaped;
            continue;
        }
        match letter {
            '{' | '[' => {
                out.push(letter);
                let is_broken = match letters.peek() {
                    Some('}' | ']') => false,
                    next => letter == '{' || matches!(next, Some('{' | '[')),
                };
                broken.push(is_broken);
                if is_broken {
                    depth += 1;
                    new_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                if broken.pop() == Some(true) {
                    depth -= 1;
                    new_line(&mut out, depth);
                }
                out.push(letter);
            }
            ',' if broken.last() == Some(&true) => {
                out.push(letter);
                new_line(&mut out, depth);
            }
            ',' | ':' => out.extend([letter, ' ']),
            _ => {
                in_text = letter == '"';
                out.push(letter);
            }
        }
    }
    out
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.push_str(&"  ".repeat(depth));
}
