//! Texts for people are in plain English: a test that searches them for the habits that docs/GLOSSARY.md names.
//!
//! Searched are documents, doc comments, and string literals of the product's sources; not private comments, not tests.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What a text for people does not say, and what it says in place of that.
const HABITS: [(&str, &str); 11] = [
    ("whoever", "the caller, the node, the user"),
    ("nobody", "no node, no process, no person"),
    ("somebody", "a person, another process"),
    ("in words", "as a text, in a message"),
    ("its words", "its message"),
    ("own words", "own message"),
    ("last words", "last message"),
    ("mend", "fix"),
    ("mends", "fixes"),
    ("log receiver", "WAL receiver"),
    ("anew", "again"),
];

/// Where such a text stays: a part of a file's path, and of the line.
const ALLOWED: [(&str, &str); 4] = [
    // the rule itself
    ("docs/GLOSSARY.md", "*"),
    ("docs/GLOSSARY.md", "of \"nobody\""),
    // a sample of an event: what is recorded stays as it is
    ("docs/EVENTS.md", "\"next\":"),
    // the user of that name
    ("bin/src/sandbox/programs.rs", "UNPRIVILEGED"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every file below a folder, build products left out.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type().unwrap().is_dir() {
            if name != "target" && name != "tests" && !name.starts_with('.') {
                files(&entry.path(), found);
            }
        } else if (name.ends_with(".md") || name.ends_with(".rs"))
            && !name.ends_with("tests.rs")
            && name != "CHANGELOG.md"
        {
            found.push(entry.path());
        }
    }
}

/// The parts of a line that people read.
fn for_people(file: &Path, line: &str) -> String {
    if file.extension().is_some_and(|extension| extension == "md") {
        return line.to_owned();
    }
    let line = line.trim();
    if line.starts_with("///") || line.starts_with("//!") {
        return line.to_owned();
    }
    if line.starts_with("//") {
        return String::new();
    }
    // what stands between quotes; a literal of several lines goes on without an opening one
    let quoted: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
    if quoted.is_empty() && line.ends_with('\\') { line.to_owned() } else { quoted.join(" ") }
}

fn has(text: &str, habit: &str) -> bool {
    let text = text.to_lowercase();
    let is_letter = |character: Option<char>| character.is_some_and(|it| it.is_alphanumeric() || it == '_');
    text.match_indices(habit).any(|(at, _)| {
        !is_letter(text[..at].chars().next_back()) && !is_letter(text[at + habit.len()..].chars().next())
    })
}

#[test]
fn texts_for_people_are_in_plain_english() {
    let mut all = Vec::new();
    files(&root(), &mut all);
    let mut found = Vec::new();
    for file in all {
        let text = fs::read_to_string(&file).unwrap();
        // a module's own tests come last in its file
        let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let shown = file.strip_prefix(root()).unwrap().display().to_string();
        for (number, line) in text.lines().enumerate() {
            let for_people = for_people(&file, line);
            for (habit, better) in HABITS.iter().filter(|(habit, _)| has(&for_people, habit)) {
                let allowed = |(path, part): &(&str, &str)| shown.contains(path) && line.contains(part);
                if !ALLOWED.iter().any(allowed) {
                    found.push(format!("{shown}:{}: \"{habit}\"; better: {better}", number + 1));
                }
            }
        }
    }
    assert!(found.is_empty(), "{} places:\n{}", found.len(), found.join("\n"));
}
