//! Values independent of their storage: equal values are equal, however a server stores them.

use redis::{Cmd, Value};

use super::session::{about, bytes};

/// Items of a value that are shown, and letters of each.
const MOST_SHOWN: usize = 6;
const LONGEST_SHOWN: usize = 60;

/// The types whose values can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    List,
    Set,
    SortedSet,
    Hash,
    Stream,
}

impl Kind {
    /// From the name that `TYPE` returns; nothing for a type of a module.
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "string" => Self::Text,
            "list" => Self::List,
            "set" => Self::Set,
            "zset" => Self::SortedSet,
            "hash" => Self::Hash,
            "stream" => Self::Stream,
            _ => return None,
        })
    }

    /// The commands that return the whole value.
    pub(super) fn whole(self, key: &[u8]) -> Vec<Cmd> {
        match self {
            Self::Text => vec![about("GET", key, &[])],
            Self::List => vec![about("LRANGE", key, &["0", "-1"])],
            Self::Set => vec![about("SMEMBERS", key, &[])],
            Self::SortedSet => vec![about("ZRANGE", key, &["0", "-1", "WITHSCORES"])],
            Self::Hash => vec![about("HGETALL", key, &[])],
            Self::Stream => {
                let mut about_stream = redis::cmd("XINFO");
                about_stream.arg("STREAM").arg(key);
                let mut about_groups = redis::cmd("XINFO");
                about_groups.arg("GROUPS").arg(key);
                vec![about("XRANGE", key, &["-", "+"]), about_stream, about_groups]
            }
        }
    }

    /// The answers to [`Self::whole`], in a form in which equal values are equal.
    pub(super) fn settled(self, answers: &[Value]) -> Vec<Value> {
        let items = || answers.first().map(items).unwrap_or_default();
        match self {
            Self::Text | Self::List => answers.to_vec(),
            Self::Set => sorted(items().to_vec()),
            Self::Hash => sorted(pairs(items(), Value::clone)),
            Self::SortedSet => sorted(pairs(items(), score)),
            Self::Stream => {
                let last = answers.get(1).and_then(|about| named(about, "last-generated-id"));
                let group = |group: &Value| {
                    let known = ["name", "last-delivered-id", "pending"];
                    Value::Array(known.iter().filter_map(|name| named(group, name)).collect())
                };
                let groups = answers.get(2).map(self::items).unwrap_or_default().iter().map(group);
                answers.first().cloned().into_iter().chain(last).chain(sorted(groups.collect())).collect()
            }
        }
    }

    /// The commands that return its length and a few items.
    pub(super) fn sample(self, key: &[u8]) -> [Cmd; 2] {
        let most = MOST_SHOWN.to_string();
        let ask = |length: &str, some: &str, more: &[&str]| [about(length, key, &[]), about(some, key, more)];
        match self {
            Self::Text => ask("STRLEN", "GETRANGE", &["0", "255"]),
            Self::List => ask("LLEN", "LRANGE", &["0", &most]),
            Self::Set => ask("SCARD", "SSCAN", &["0", "COUNT", &most]),
            Self::SortedSet => ask("ZCARD", "ZRANGE", &["0", &most, "WITHSCORES"]),
            Self::Hash => ask("HLEN", "HSCAN", &["0", "COUNT", &most]),
            Self::Stream => ask("XLEN", "XREVRANGE", &["+", "-", "COUNT", "1"]),
        }
    }

    /// A short form of the answers to [`Self::sample`].
    pub(super) fn short(self, length: &Value, some: &Value) -> String {
        let unit = match self {
            Self::Text => "bytes",
            Self::List => "items",
            Self::Set | Self::SortedSet => "members",
            Self::Hash => "fields",
            Self::Stream => "entries, the newest",
        };
        let Value::Int(length) = length else { return "unknown".to_owned() };
        // the answer of a SCAN begins with the next cursor
        let some = match (self, items(some)) {
            (Self::Set | Self::Hash, [_, found]) => found,
            _ => some,
        };
        let mut shown = Vec::new();
        flatten(some, &mut shown);
        let cut = if shown.len() > MOST_SHOWN { " ..." } else { "" };
        let shown: Vec<String> =
            shown.iter().take(MOST_SHOWN).map(|item| readable(item, LONGEST_SHOWN)).collect();
        format!("{length} {unit}: {}{cut}", shown.join(" "))
    }
}

fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) => items,
        _ => &[],
    }
}

fn pairs(items: &[Value], second: impl Fn(&Value) -> Value) -> Vec<Value> {
    let pair = |pair: &[Value]| match pair {
        [one, other] => Value::Array(vec![one.clone(), second(other)]),
        rest => Value::Array(rest.to_vec()),
    };
    items.chunks(2).map(pair).collect()
}

/// Versions of Redis write the same number with more or fewer digits.
fn score(text: &Value) -> Value {
    let number =
        bytes(text).and_then(|text| std::str::from_utf8(text).ok()).and_then(|text| text.parse().ok());
    number.map_or_else(|| text.clone(), Value::Double)
}

fn sorted(mut values: Vec<Value>) -> Vec<Value> {
    let key = |value: &Value| {
        let mut parts = Vec::new();
        flatten(value, &mut parts);
        parts
    };
    values.sort_by_cached_key(key);
    values
}

/// A field of an answer in which names and values alternate.
fn named(about: &Value, name: &str) -> Option<Value> {
    let pair = items(about).chunks(2).find(|pair| pair.first().and_then(bytes) == Some(name.as_bytes()))?;
    pair.get(1).cloned()
}

fn flatten(value: &Value, into: &mut Vec<Vec<u8>>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| flatten(item, into)),
        Value::Int(number) => into.push(number.to_string().into_bytes()),
        other => into.extend(bytes(other).map(<[u8]>::to_vec)),
    }
}

/// Bytes in readable form, harmless to a terminal.
pub(super) fn readable(value: &[u8], longest: usize) -> String {
    let text = match std::str::from_utf8(value) {
        Ok(text) => format!("{text:?}"),
        Err(_) => format!("\"{}\"", value.escape_ascii()),
    };
    if text.chars().count() <= longest {
        return text;
    }
    format!("{}...", text.chars().take(longest).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn array(items: &[&str]) -> Value {
        Value::Array(items.iter().map(|item| text(item)).collect())
    }

    fn equal(kind: Kind, one: &[&str], other: &[&str]) -> bool {
        kind.settled(&[array(one)]) == kind.settled(&[array(other)])
    }

    #[test]
    fn equal_values_are_equal_in_whatever_order_and_digits_they_come() {
        assert!(equal(Kind::Set, &["a", "b"], &["b", "a"]));
        assert!(!equal(Kind::Set, &["a", "b"], &["a", "c"]));
        assert!(!equal(Kind::List, &["a", "b"], &["b", "a"]));
        assert!(equal(Kind::Hash, &["a", "1", "b", "2"], &["b", "2", "a", "1"]));
        assert!(!equal(Kind::Hash, &["a", "1", "b", "2"], &["a", "2", "b", "1"]));
        assert!(equal(Kind::SortedSet, &["m", "0.1"], &["m", "0.10000000000000001"]));
        assert!(equal(Kind::SortedSet, &["m", "inf"], &["m", "inf"]));
        assert!(!equal(Kind::SortedSet, &["m", "0.1"], &["m", "0.2"]));
    }

    #[test]
    fn a_stream_is_its_entries_its_last_id_and_where_its_groups_are() {
        let stream = |length: &str, last: &str, delivered: &str| {
            let group = array(&["name", "g", "consumers", "1", "last-delivered-id", delivered]);
            let about = array(&["length", length, "last-generated-id", last, "radix-tree-nodes", length]);
            Kind::Stream.settled(&[array(&["1-0"]), about, Value::Array(vec![group])])
        };
        assert!(stream("1", "2-0", "1-0") == stream("9", "2-0", "1-0"));
        assert!(stream("1", "2-0", "1-0") != stream("1", "3-0", "1-0"));
        assert!(stream("1", "2-0", "1-0") != stream("1", "2-0", "2-0"));
    }

    #[test]
    fn what_is_shown_is_short_and_harmless() {
        assert_eq!(readable("say \"é\"\u{1b}[0m\n".as_bytes(), 60), r#""say \"é\"\u{1b}[0m\n""#);
        assert_eq!(readable(&[0, 0xff, b'a'], 60), r#""\x00\xffa""#);
        assert_eq!(readable(b"abcdef", 4), "\"abc...");
        let scanned = Value::Array(vec![text("0"), array(&["f", "v"])]);
        assert_eq!(Kind::Hash.short(&Value::Int(1), &scanned), "1 fields: \"f\" \"v\"");
    }
}
