//! The payload types as their sources declare them, with their doc comments.

use chrono::{DateTime, Utc};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use syn::{Attribute, Expr, Fields, GenericArgument, Item, Lit, Meta, PathArguments, Type};
use uuid::Uuid;

use crate::{Address, ChainHash, ClusterId, Epoch, EventId, Hlc, Lsn, NodeId, NodeSeq, RunId, TimelineId};

/// A file of payload types.
pub(super) struct Source {
    /// What its module comment says.
    pub(super) introduction: String,
    /// Its types, in order.
    pub(super) types: Vec<Declared>,
}

/// A type in a payload.
pub(super) struct Declared {
    pub(super) name: String,
    pub(super) meaning: String,
    pub(super) body: Body,
}

pub(super) enum Body {
    /// A struct.
    Fields(Vec<Field>),
    /// An enum: its values as JSON texts, with their meanings.
    Values(Vec<(String, String)>),
}

pub(super) struct Field {
    pub(super) name: String,
    pub(super) meaning: String,
    pub(super) form: Form,
    /// Whether it is left out where there is nothing to say.
    pub(super) may_be_absent: bool,
}

/// What stands in a field.
pub(super) enum Form {
    Plain(&'static Plain),
    Declared(String),
    Optional(Box<Form>),
    List(Box<Form>, Option<usize>),
    Pair(Box<[Form; 2]>),
}

/// A type that is one JSON value of its own.
pub(super) struct Plain {
    rust: &'static str,
    /// What readers call it.
    pub(super) word: &'static str,
    /// What it is as JSON, exactly enough to notice when it holds less than before.
    pub(super) json: &'static str,
    pub(super) meaning: &'static str,
    extremes: &'static [&'static str],
    read_and_written: fn(&str) -> serde_json::Result<String>,
}

const fn plain<T: Serialize + DeserializeOwned>(
    rust: &'static str,
    word: &'static str,
    json: &'static str,
    meaning: &'static str,
    extremes: &'static [&'static str],
) -> Plain {
    let read_and_written = |text: &str| serde_json::to_string(&serde_json::from_str::<T>(text)?);
    Plain { rust, word, json, meaning, extremes, read_and_written }
}

const U32: &[&str] = &["0", "4294967295"];
const U64: &[&str] = &["0", "18446744073709551615"];
const I64: &[&str] = &["-9223372036854775808", "9223372036854775807"];
const UUID: &[&str] = &["\"019bbf3e-7c00-7000-8000-0000000000de\""];
const HASH: &[&str] = &["\"00000000000000000000000000000000000000000000000000000000000000ff\""];

/// Every plain type, in the order of the page.
pub(super) const PLAIN: &[Plain] = &[
    plain::<NodeId>("NodeId", "node", "u32", "the number of a node", U32),
    plain::<Epoch>("Epoch", "epoch", "u64", "the number of a reign, one more at every promotion", U64),
    plain::<NodeSeq>("NodeSeq", "place", "u64", "place of an event in its node's journal, from 1", U64),
    plain::<TimelineId>("TimelineId", "timeline", "u32", "the number of a PostgreSQL timeline", U32),
    plain::<EventId>("EventId", "event", "uuid", "the id of an event, a UUID of version 7", UUID),
    plain::<ClusterId>("ClusterId", "cluster", "uuid", "the id of a cluster", UUID),
    plain::<RunId>("RunId", "run", "uuid", "the id of a run", UUID),
    plain::<Lsn>(
        "Lsn",
        "log position",
        "lsn",
        "a place in PostgreSQL's write-ahead log, as `16/B374D848`",
        &["\"0/0\"", "\"FFFFFFFF/FFFFFFFF\""],
    ),
    plain::<Hlc>(
        "Hlc",
        "moment",
        "i64",
        "hybrid logical clock: milliseconds since 1970 × 65536, plus a counter; too long for a double",
        I64,
    ),
    plain::<DateTime<Utc>>(
        "DateTime",
        "time",
        "time",
        "wall-clock time in UTC, RFC 3339",
        &["\"2027-01-15T08:00:00Z\"", "\"2027-01-15T08:00:00.123456789Z\""],
    ),
    plain::<ChainHash>("ChainHash", "hash", "hash", "SHA-256 in hexadecimal", HASH),
    plain::<Uuid>("Uuid", "id", "uuid", "a UUID", UUID),
    plain::<u32>("u32", "number", "u32", "a whole number, not negative", U32),
    plain::<u64>("u64", "number", "u64", "a whole number, not negative", U64),
    plain::<i64>("i64", "signed number", "i64", "a whole number", I64),
    plain::<f64>("f64", "decimal", "f64", "a number with a fraction", &["-1.5", "1e+300"]),
    plain::<bool>("bool", "yes or no", "bool", "`true` or `false`", &["true", "false"]),
    plain::<String>("String", "text", "text", "words for people", &["\"\"", "\"\\u0000\\\"\""]),
    plain::<Address>(
        "Address",
        "address",
        "text",
        "host and port, as `10.0.0.1:5432`, `[fd00::1]:5432` or `db1.example:5432`; old records may hold any text",
        &["\"\"", "\"\\u0000\\\"\"", "\"[fd00::1]:5432\""],
    ),
    plain::<Map<String, Value>>(
        "Map",
        "object",
        "any object",
        "names with values of any kind",
        &["{\"a\":[1,null]}"],
    ),
];

impl Plain {
    /// What it is for whoever reads JSON.
    pub(super) fn in_json(&self) -> &'static str {
        match self.json {
            "bool" => "boolean",
            "any object" => "object",
            "u32" | "u64" | "i64" | "f64" => "number",
            _ => "string",
        }
    }
}

/// The files of payload types, in the order of the page.
pub(super) fn sources() -> Vec<Source> {
    [
        include_str!("../supervisor.rs"),
        include_str!("../health.rs"),
        include_str!("../role.rs"),
        include_str!("../run.rs"),
        include_str!("../step.rs"),
        include_str!("../handover.rs"),
        include_str!("../rejoin.rs"),
        include_str!("../store.rs"),
    ]
    .map(Source::parse)
    .into()
}

impl Source {
    /// Structs with named fields and enums of plain names are what payloads are made of; the rest is passed over.
    pub(super) fn parse(text: &str) -> Self {
        let file = syn::parse_file(text).unwrap();
        let types = file.items.iter().filter_map(|item| match item {
            Item::Struct(item) => match &item.fields {
                Fields::Named(fields) => Some(Declared {
                    name: item.ident.to_string(),
                    meaning: documentation(&item.attrs),
                    body: Body::Fields(fields.named.iter().map(Field::of).collect()),
                }),
                _ => None,
            },
            Item::Enum(item) if item.variants.iter().all(|it| matches!(it.fields, Fields::Unit)) => {
                Some(Declared {
                    name: item.ident.to_string(),
                    meaning: documentation(&item.attrs),
                    body: Body::Values(item.variants.iter().map(value).collect()),
                })
            }
            _ => None,
        });
        Self { introduction: documentation(&file.attrs), types: types.collect() }
    }
}

fn value(variant: &syn::Variant) -> (String, String) {
    (in_snake_case(&variant.ident.to_string()), documentation(&variant.attrs))
}

/// As serde's `rename_all = "snake_case"`, which every payload enum has.
fn in_snake_case(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

impl Field {
    fn of(field: &syn::Field) -> Self {
        Self {
            name: field.ident.as_ref().unwrap().to_string(),
            meaning: documentation(&field.attrs),
            form: Form::of(&field.ty),
            may_be_absent: is_left_out_when_empty(&field.attrs),
        }
    }
}

/// The one serde attribute that a payload's field may have; any other would give it a shape this file does not see.
fn is_left_out_when_empty(attributes: &[Attribute]) -> bool {
    let mut left_out = false;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
        attribute
            .parse_nested_meta(|meta| {
                left_out |= meta.path.is_ident("skip_serializing_if");
                assert!(
                    left_out || meta.path.is_ident("default"),
                    "an attribute that this file does not know"
                );
                meta.input
                    .parse::<Option<syn::Token![=]>>()?
                    .map(|_| meta.input.parse::<Lit>())
                    .transpose()
                    .map(drop)
            })
            .unwrap();
    }
    left_out
}

fn documentation(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => Some(text.value().trim().to_owned()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    });
    lines.collect::<Vec<_>>().join(" ")
}

impl Form {
    fn of(rust: &Type) -> Self {
        match rust {
            Type::Path(path) => {
                let last = path.path.segments.last().unwrap();
                let name = last.ident.to_string();
                match (name.as_str(), &last.arguments) {
                    ("Option", PathArguments::AngleBracketed(of)) => Self::Optional(Self::inside(of)),
                    ("Vec", PathArguments::AngleBracketed(of)) => Self::List(Self::inside(of), None),
                    _ => match PLAIN.iter().find(|plain| plain.rust == name) {
                        Some(plain) => Self::Plain(plain),
                        None => Self::Declared(name),
                    },
                }
            }
            Type::Array(array) => Self::List(Box::new(Self::of(&array.elem)), Some(length(&array.len))),
            Type::Tuple(tuple) if tuple.elems.len() == 2 => {
                Self::Pair(Box::new([Self::of(&tuple.elems[0]), Self::of(&tuple.elems[1])]))
            }
            _ => panic!("a type that this file does not know"),
        }
    }

    fn inside(of: &syn::AngleBracketedGenericArguments) -> Box<Self> {
        match of.args.first() {
            Some(GenericArgument::Type(inner)) => Box::new(Self::of(inner)),
            _ => panic!("an Option or a Vec of nothing"),
        }
    }
}

fn length(expression: &Expr) -> usize {
    match expression {
        Expr::Lit(syn::ExprLit { lit: Lit::Int(number), .. }) => number.base10_parse().unwrap(),
        _ => panic!("write an array's length as a number"),
    }
}

#[test]
fn a_plain_type_holds_as_much_as_it_says() {
    for plain in PLAIN {
        for extreme in plain.extremes {
            let written = (plain.read_and_written)(extreme).unwrap_or_else(|error| error.to_string());
            assert_eq!(&written, extreme, "{}", plain.rust);
        }
    }
}
