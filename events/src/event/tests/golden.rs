//! Golden files: payloads as they were recorded, one file for each kind and version that was ever shipped.
//!
//! A file holds the shape that the payload had, and samples that show all of it, each as the journal stores it.
//! `SHIPPED` holds the SHA-256 of every file, in the form of `sha256sum`: what is listed there never changes. What a
//! version learned later, without a break, is shown by a file of its own, `<kind>.v<version>.<what>.json`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use sha2::{Digest as _, Sha256};

use super::{
    super::{Event, KINDS, Kind},
    shape::{self, Shape},
    sources,
};

/// A golden file.
struct Golden {
    name: String,
    kind: String,
    version: u32,
    text: String,
    content: Content,
}

#[derive(Deserialize)]
struct Content {
    /// Missing in a file that somebody just began.
    #[serde(default)]
    shape: Shape,
    samples: Vec<Box<RawValue>>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

pub(super) fn is_update() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

/// All of them, by name; those that were not shipped yet are written first, where that was asked for.
fn files() -> &'static [Golden] {
    static FILES: OnceLock<Vec<Golden>> = OnceLock::new();
    FILES.get_or_init(|| {
        let mut names: Vec<String> = std::fs::read_dir(folder())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "SHIPPED")
            .collect();
        names.sort_unstable();
        let mut files: Vec<Golden> = names.into_iter().map(Golden::load).collect();
        if is_update() {
            ship(&mut files);
        }
        files
    })
}

/// Those of a kind's current version.
fn of<'a>(kind: &Kind, files: &'a [Golden]) -> impl Iterator<Item = &'a Golden> {
    files.iter().filter(move |file| (file.kind.as_str(), file.version) == (kind.name, kind.version))
}

/// The first sample of a kind's current version.
pub(super) fn first_sample(kind: &Kind) -> String {
    let file = of(kind, files()).next().unwrap_or_else(|| panic!("{} has no golden file", kind.name));
    file.content.samples[0].get().to_owned()
}

impl Golden {
    fn load(name: String) -> Self {
        let text = std::fs::read_to_string(folder().join(&name)).unwrap();
        let parts: Vec<&str> = name.split('.').collect();
        let version = parts[1].strip_prefix('v').and_then(|version| version.parse().ok());
        let (true, Some(version)) = (matches!(parts.len(), 3 | 4), version) else {
            panic!("{name} is not called <kind>.v<version>.json or <kind>.v<version>.<what>.json")
        };
        let content = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        Self { kind: parts[0].to_owned(), version, name, text, content }
    }

    fn events(&self) -> impl Iterator<Item = Event> {
        self.content.samples.iter().map(|sample| Event::read(&self.kind, self.version, sample.get()))
    }

    /// Its kind, if it is of that kind's current version.
    fn current_kind(&self) -> Option<&'static Kind> {
        KINDS.iter().find(|kind| (kind.name, kind.version) == (self.kind.as_str(), self.version))
    }

    /// With the samples as the journal would store them, and the shape of today.
    fn rewritten(&self) -> String {
        let payloads: Vec<String> = self.events().map(|event| event.payload().unwrap()).collect();
        let shape = self.current_kind().map(shape_of).unwrap_or_default();
        let shape = serde_json::to_string_pretty(&shape).unwrap();
        format!("{{\n\"shape\": {shape},\n\"samples\": [\n{}\n]\n}}\n", payloads.join(",\n"))
    }

    fn hash(&self) -> String {
        hex::encode(Sha256::digest(&self.text))
    }
}

/// Writes what was not shipped yet, and lists it as shipped where nothing is missing in it.
fn ship(files: &mut [Golden]) {
    let mut shipped = shipped();
    let is_new = |file: &&mut Golden| !shipped.contains_key(&file.name) && file.current_kind().is_some();
    for file in files.iter_mut().filter(is_new) {
        std::fs::write(folder().join(&file.name), file.rewritten()).unwrap();
        *file = Golden::load(file.name.clone());
    }
    for kind in KINDS.iter().filter(|kind| not_shown(kind, files).is_empty()) {
        for file in of(kind, files) {
            shipped.entry(file.name.clone()).or_insert_with(|| file.hash());
        }
    }
    let mut lines = String::new();
    for (name, hash) in shipped {
        writeln!(lines, "{hash}  {name}").unwrap();
    }
    std::fs::write(folder().join("SHIPPED"), lines).unwrap();
}

/// What no sample of a kind shows.
fn not_shown(kind: &Kind, files: &[Golden]) -> Vec<String> {
    let samples: Vec<Value> = of(kind, files)
        .flat_map(|file| &file.content.samples)
        .map(|sample| serde_json::from_str(sample.get()).unwrap())
        .collect();
    shape::not_shown(&shape_of(kind), &samples)
}

fn shipped() -> BTreeMap<String, String> {
    let lines = std::fs::read_to_string(folder().join("SHIPPED")).unwrap_or_default();
    let pairs = lines.lines().map(|line| line.split_once("  ").unwrap());
    pairs.map(|(hash, name)| (name.to_owned(), hash.to_owned())).collect()
}

fn shape_of(kind: &Kind) -> Shape {
    let sources = sources::sources();
    let types: Vec<_> = sources.iter().flat_map(|source| &source.types).collect();
    shape::shape_of(&types, kind.payload)
}

/// Fails with all complaints at once.
fn demand_none(complaints: &[String], help: &str) {
    assert!(complaints.is_empty(), "\n  {}\n{help}", complaints.join("\n  "));
}

#[test]
fn a_golden_file_that_was_shipped_is_never_changed_and_never_removed() {
    let mut complaints = Vec::new();
    let files = files();
    let mut shipped = shipped();
    for file in files {
        match shipped.remove(&file.name) {
            None => complaints.push(format!("{} is not in SHIPPED", file.name)),
            Some(hash) if hash != file.hash() => complaints.push(format!("{} was changed", file.name)),
            Some(_) => {}
        }
    }
    complaints.extend(shipped.into_keys().map(|name| format!("{name} is gone")));
    demand_none(
        &complaints,
        "Take a change back. UPDATE_GOLDEN=1 lists what is new; a file that never left this branch may be taken from the \
         list by hand, and written anew.",
    );
}

#[test]
fn every_kind_has_a_golden_file_of_its_version_and_no_golden_file_is_without_a_kind() {
    let mut complaints = Vec::new();
    for kind in KINDS {
        for version in 1..=kind.version {
            let name = format!("{}.v{version}.json", kind.name);
            if !files().iter().any(|file| file.name == name) {
                complaints.push(format!("{name} is missing"));
            }
        }
    }
    for file in files() {
        if !KINDS.iter().any(|kind| kind.name == file.kind && file.version <= kind.version) {
            complaints.push(format!("{} is of a kind or version that nobody knows", file.name));
        }
    }
    demand_none(
        &complaints,
        "A kind that was recorded once stays readable. For a new one, write {\"samples\": [...]} and run UPDATE_GOLDEN=1.",
    );
}

#[test]
fn every_payload_ever_shipped_can_be_read_and_one_of_today_is_written_as_it_was() {
    let mut complaints = Vec::new();
    for file in files() {
        let is_current = file.current_kind().is_some();
        for (event, sample) in file.events().zip(&file.content.samples) {
            let written = event.payload().unwrap();
            match event {
                Event::Unknown(unknown) => complaints.push(format!("{}: {}", file.name, unknown.reason)),
                _ if is_current && written != sample.get() => {
                    complaints.push(format!("{}: {} becomes {written}", file.name, sample.get()));
                }
                _ => {}
            }
        }
    }
    demand_none(
        &complaints,
        "Such a payload is a new version with an upcaster: docs/EVENTS.md, \"How a payload may change\".",
    );
}

#[test]
fn a_payload_keeps_its_shape_for_as_long_as_it_keeps_its_version() {
    let mut complaints = Vec::new();
    for kind in KINDS {
        let today = shape_of(kind);
        for file in of(kind, files()) {
            let breaks = shape::breaks(&file.content.shape, &today);
            complaints.extend(breaks.into_iter().map(|what| format!("{}: {what}", file.name)));
        }
        if !of(kind, files()).any(|file| file.content.shape == today) {
            complaints.push(format!("{}: no golden file has the shape of today", kind.name));
        }
    }
    demand_none(
        &complaints,
        "A break is a new version with an upcaster; what is no break is shown by a file <kind>.v<version>.<what>.json \
         (docs/EVENTS.md, \"How a payload may change\").",
    );
}

#[test]
fn the_samples_of_a_kind_show_all_of_its_shape() {
    let mut complaints = Vec::new();
    for kind in KINDS {
        let missing = not_shown(kind, files());
        complaints.extend(missing.into_iter().map(|what| format!("{}: {what}", kind.name)));
    }
    demand_none(&complaints, "Add samples that show it.");
}
