//! The keys of one database, batch by batch: the kept copy's value and the new main's value of the same key.

use std::{
    collections::{BTreeMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use redis::{Cmd, Value};

use super::{
    super::{DatabaseSummary, Done, LeftOutKeys},
    files::{DatabaseFiles, Shown},
    session::{Session, SessionError, about, bytes, words},
    value::{Kind, readable},
};

/// Keys that one SCAN looks at.
const SCANNED: &str = "500";
/// The most bytes of values, on the side with more, that are compared with one query; a larger value is compared alone.
const MOST_BYTES: u64 = 16 * 1024 * 1024;
/// The most bytes of memory that a value may take on either side; a larger value is not fetched.
const MOST_FETCHED: u64 = 512 * 1024 * 1024;
const TOO_LARGE: &str = "its value takes more than 512 MiB on one of the two servers, and was not read";
/// The largest value that RESTORE accepts (proto-max-bulk-len).
const MOST_RESTORED: usize = 512 * 1024 * 1024;
/// Times to live that differ by fewer milliseconds count as the same: Redis reports them relative to a clock.
const SAME_TIME: u64 = 1_000;
/// The end of what DUMP gives: the version of the form, and a checksum, which differ between versions of Redis.
const FOOTER: usize = 10;
/// How many keys are compared between two progress messages.
const KEYS_UNTIL_TOLD: u64 = 100_000;
const LONGEST_KEY: usize = 100;

/// A key's value as one server stores it.
struct Stored {
    kind: String,
    /// In milliseconds since 1970.
    expires: Option<i64>,
    payload: Vec<u8>,
}

/// How the new main's key differs.
enum Difference {
    Value,
    Expiry,
}

/// One database on both servers.
pub(super) struct Comparison<'a> {
    kept: &'a Session,
    main: &'a Session,
    files: DatabaseFiles<'a>,
    found: DatabaseSummary,
    /// Reasons, with how many keys and one of them.
    left_out: BTreeMap<String, (u64, String)>,
    /// Keys that are listed already: while Redis shrinks its table, SCAN returns some keys twice.
    listed: HashSet<[u64; 2]>,
}

impl<'a> Comparison<'a> {
    /// Both sessions are in this database.
    pub(super) fn new(kept: &'a Session, main: &'a Session, files: DatabaseFiles<'a>, database: u64) -> Self {
        let found = DatabaseSummary { database, ..DatabaseSummary::default() };
        Self { kept, main, files, found, left_out: BTreeMap::new(), listed: HashSet::new() }
    }

    /// Writes the missing keys and the keys that differ.
    pub(super) async fn run(mut self, tell: &dyn Fn(&str)) -> Done<(DatabaseSummary, Vec<LeftOutKeys>)> {
        let (database, mut cursor, mut told) = (self.found.database, "0".to_owned(), 0);
        loop {
            let answer = self.kept.ask(words(&["SCAN", &cursor, "COUNT", SCANNED])).await?;
            let (next, keys) = scanned(&answer).ok_or_else(|| self.kept.strange_answer_to("SCAN"))?;
            let sized = self.without_the_largest(&keys).await?;
            for some in portions(&sized) {
                self.compare(&some).await?;
            }
            if next == "0" {
                break;
            }
            cursor = next;
            if self.found.keys / KEYS_UNTIL_TOLD > told {
                told = self.found.keys / KEYS_UNTIL_TOLD;
                tell(&format!("comparing database {database} of Redis: {} keys", self.found.keys));
            }
        }
        self.found.files = self.files.finish()?;
        let left_out = self.left_out.into_iter();
        let left_out = left_out.map(|(reason, (keys, example))| LeftOutKeys {
            database,
            reason,
            keys,
            example: Some(example),
        });
        Ok((self.found, left_out.collect()))
    }

    /// The keys whose values can be fetched, with the size on the side with more. The other keys are left out.
    async fn without_the_largest<'k>(
        &mut self,
        keys: &[&'k [u8]],
    ) -> Result<Vec<(&'k [u8], u64)>, SessionError> {
        let (kept, main) = (sizes(self.kept, keys).await?, sizes(self.main, keys).await?);
        let sizes = kept.into_iter().zip(main).map(|(kept, main)| kept.max(main));
        let (largest, others): (Vec<_>, _) =
            keys.iter().copied().zip(sizes).partition(|(_, size)| *size > MOST_FETCHED);
        for (key, _) in largest {
            self.found.keys += 1;
            self.leave_out(key, TOO_LARGE.to_owned());
        }
        Ok(others)
    }

    async fn compare(&mut self, keys: &[&[u8]]) -> Done<()> {
        let kept = stored(self.kept, keys).await?;
        let main = stored(self.main, keys).await?;
        let mut unsure = Vec::new();
        for ((key, kept), main) in keys.iter().zip(&kept).zip(&main) {
            // the key expired between two queries; the server counts it
            let Some(kept) = kept else { continue };
            self.found.keys += 1;
            match main {
                None => self.missing(key, kept).await?,
                Some(main) if main.kind != kept.kind => {
                    self.differs(key, (kept, main), Difference::Value).await?;
                }
                Some(main) if without_footer(&main.payload) == without_footer(&kept.payload) => {
                    self.same_value(key, (kept, main)).await?;
                }
                Some(main) => match Kind::of(&kept.kind) {
                    Some(kind) => unsure.push((*key, kind, (kept, main))),
                    None => {
                        let kind = &kept.kind;
                        self.leave_out(
                            key,
                            format!(
                                "values of type {kind} can only be compared byte by byte, and they differ"
                            ),
                        );
                    }
                },
            }
        }
        let wanted: Vec<(&[u8], Kind)> = unsure.iter().map(|(key, kind, _)| (*key, *kind)).collect();
        let (ours, theirs) = (settled(self.kept, &wanted).await?, settled(self.main, &wanted).await?);
        for (((key, _, versions), ours), theirs) in unsure.into_iter().zip(ours).zip(theirs) {
            if ours == theirs {
                self.same_value(key, versions).await?;
            } else {
                self.differs(key, versions, Difference::Value).await?;
            }
        }
        Ok(())
    }

    async fn missing(&mut self, key: &[u8], kept: &Stored) -> Done<()> {
        if kept.payload.len() > MOST_RESTORED {
            self.leave_out(key, "the new main lacks it, and its value is too large for RESTORE".to_owned());
            return Ok(());
        }
        if self.is_listed(key) {
            return Ok(());
        }
        let shown = shown(self.kept, key, kept).await?;
        self.found.missing += 1;
        self.files.missing(key, &shown, &kept.payload)
    }

    async fn same_value(&mut self, key: &[u8], (kept, main): (&Stored, &Stored)) -> Done<()> {
        let same = match (kept.expires, main.expires) {
            (Some(kept), Some(main)) => kept.abs_diff(main) < SAME_TIME,
            (kept, main) => kept == main,
        };
        if same { Ok(()) } else { self.differs(key, (kept, main), Difference::Expiry).await }
    }

    async fn differs(&mut self, key: &[u8], (kept, main): (&Stored, &Stored), by: Difference) -> Done<()> {
        if self.is_listed(key) {
            return Ok(());
        }
        let shown = (shown(self.kept, key, kept).await?, shown(self.main, key, main).await?);
        match by {
            Difference::Value => self.found.conflicts += 1,
            Difference::Expiry => self.found.other_expiry += 1,
        }
        self.files.conflict(key, &shown.0, &shown.1)
    }

    fn leave_out(&mut self, key: &[u8], reason: String) {
        if !self.is_listed(key) {
            let entry = self.left_out.entry(reason).or_insert_with(|| (0, readable(key, LONGEST_KEY)));
            entry.0 += 1;
        }
    }

    fn is_listed(&mut self, key: &[u8]) -> bool {
        let fingerprint = [0_u8, 1].map(|salt| {
            let mut hasher = DefaultHasher::new();
            (salt, key).hash(&mut hasher);
            hasher.finish()
        });
        !self.listed.insert(fingerprint)
    }
}

/// The answer to `SCAN`: the next cursor, and keys.
fn scanned(answer: &Value) -> Option<(String, Vec<&[u8]>)> {
    let Value::Array(parts) = answer else { return None };
    let [next, Value::Array(keys)] = parts.as_slice() else { return None };
    let next = String::from_utf8(bytes(next)?.to_vec()).ok().filter(|next| !next.is_empty())?;
    Some((next, keys.iter().map(bytes).collect::<Option<_>>()?))
}

/// Bytes of memory that values take on a server, estimated for values with many items; 0 if there is no such key.
async fn sizes(server: &Session, keys: &[&[u8]]) -> Result<Vec<u64>, SessionError> {
    let question = |key: &&[u8]| {
        let mut size = redis::cmd("MEMORY");
        size.arg("USAGE").arg(*key);
        size
    };
    let answers = server.demand_all(&keys.iter().map(question).collect::<Vec<_>>()).await?;
    let size = |answer: &Value| match answer {
        Value::Int(size) => u64::try_from(*size).ok(),
        Value::Nil => Some(0),
        _ => None,
    };
    let sizes: Option<Vec<u64>> = answers.iter().map(size).collect();
    sizes.ok_or_else(|| server.strange_answer_to("MEMORY USAGE"))
}

/// Groups the keys so that the values of a group are at most `MOST_BYTES`.
fn portions<'k>(sized: &[(&'k [u8], u64)]) -> Vec<Vec<&'k [u8]>> {
    let (mut portions, mut portion, mut bytes) = (Vec::new(), Vec::new(), 0_u64);
    for (key, size) in sized {
        bytes = bytes.saturating_add(*size);
        if bytes > MOST_BYTES && !portion.is_empty() {
            portions.push(std::mem::take(&mut portion));
            bytes = *size;
        }
        portion.push(*key);
    }
    portions.extend(Some(portion).filter(|rest| !rest.is_empty()));
    portions
}

/// A server's values of these keys.
async fn stored(server: &Session, keys: &[&[u8]]) -> Result<Vec<Option<Stored>>, SessionError> {
    let mut questions = vec![words(&["TIME"])];
    for name in ["PTTL", "TYPE", "DUMP"] {
        questions.extend(keys.iter().map(|key| about(name, key, &[])));
    }
    let answers = server.demand_all(&questions).await?;
    let (time, answers) = answers.split_first().unwrap_or((&Value::Nil, &[]));
    let now = milliseconds(time).unwrap_or_default();
    let (times, answers) = answers.split_at(keys.len().min(answers.len()));
    let (kinds, payloads) = answers.split_at(keys.len().min(answers.len()));
    let stored = |((time, kind), payload): ((&Value, &Value), &Value)| {
        let expires = match time {
            Value::Int(left) if *left >= 0 => Some(now.saturating_add(*left)),
            _ => None,
        };
        let kind = String::from_utf8_lossy(bytes(kind)?).into_owned();
        Some(Stored { kind, expires, payload: bytes(payload)?.to_vec() })
    };
    Ok(times.iter().zip(kinds).zip(payloads).map(stored).collect())
}

/// The answer to `TIME`: seconds and microseconds.
fn milliseconds(time: &Value) -> Option<i64> {
    let Value::Array(parts) = time else { return None };
    let number = |part: &Value| std::str::from_utf8(bytes(part)?).ok()?.parse::<i64>().ok();
    let (seconds, microseconds) = (number(parts.first()?)?, number(parts.get(1)?)?);
    seconds.checked_mul(1_000)?.checked_add(microseconds / 1_000)
}

/// The values of keys in a form in which equal values are equal.
async fn settled(server: &Session, keys: &[(&[u8], Kind)]) -> Result<Vec<Vec<Value>>, SessionError> {
    let questions: Vec<Vec<Cmd>> = keys.iter().map(|(key, kind)| kind.whole(key)).collect();
    let mut answers = server.ask_all(&questions.concat()).await?.into_iter();
    let settled = questions.iter().zip(keys).map(|(questions, (_, kind))| {
        let answers: Vec<Value> = answers.by_ref().take(questions.len()).collect();
        kind.settled(&answers)
    });
    Ok(settled.collect())
}

async fn shown<'s>(server: &Session, key: &[u8], stored: &'s Stored) -> Result<Shown<'s>, SessionError> {
    let value = match Kind::of(&stored.kind) {
        Some(kind) => match server.ask_all(&kind.sample(key)).await?.as_slice() {
            [length, some] => kind.short(length, some),
            _ => String::new(),
        },
        None => format!("{} bytes", stored.payload.len()),
    };
    Ok(Shown { kind: &stored.kind, expires: stored.expires, value })
}

fn without_footer(payload: &[u8]) -> &[u8] {
    payload.get(..payload.len().saturating_sub(FOOTER)).unwrap_or(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn large_values_are_compared_alone_and_small_ones_together() {
        let sized: [(&[u8], u64); 5] =
            [(b"a", 1), (b"b", MOST_BYTES - 1), (b"c", 1), (b"large", 2 * MOST_BYTES), (b"d", 1)];
        let expected: [&[&[u8]]; 4] = [&[b"a", b"b"], &[b"c"], &[b"large"], &[b"d"]];
        assert_eq!(portions(&sized), expected);
        assert!(portions(&[]).is_empty());
    }

    #[test]
    fn a_scan_goes_on_or_ends_only_where_its_answer_says_so() {
        let answer = Value::Array(vec![text("17"), Value::Array(vec![text("key")])]);
        assert_eq!(scanned(&answer), Some(("17".to_owned(), vec![&b"key"[..]])));
        let strange = [
            Value::Nil,
            Value::Array(vec![text("0")]),
            Value::Array(vec![text(""), Value::Array(vec![])]),
            Value::Array(vec![text("0"), Value::Array(vec![Value::Nil])]),
        ];
        for answer in strange {
            assert_eq!(scanned(&answer), None, "{answer:?}");
        }
    }
}
