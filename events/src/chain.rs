//! The hash chain of one node's journal: each event's hash covers its fields and the hash before it.
//!
//! It shows any change, gap or swap inside a journal. It cannot show that the newest events were cut off:
//! for that, heads travel in heartbeats, and peers will keep them.

use std::{collections::BTreeMap, fmt, io};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{Hlc, NodeId, NodeSeq, Record, RecordRef};

/// SHA-256 of an event; written in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ChainHash([u8; 32]);

impl ChainHash {
    /// What the first event of a journal is chained to.
    pub const GENESIS: Self = Self([0; 32]);

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first eight hexadecimal digits, which tell hashes apart for a person.
    #[must_use]
    pub fn short(&self) -> String {
        hex::encode(&self.0[..4])
    }

    /// Of all that can be read from a source.
    ///
    /// # Errors
    /// The source's.
    pub fn of_all(mut source: impl io::Read) -> io::Result<Self> {
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            match source.read(&mut buffer)? {
                0 => return Ok(Self(hasher.finalize().into())),
                read => hasher.update(&buffer[..read]),
            }
        }
    }

    /// From stored bytes; `None` if there are not exactly 32.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ChainHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ChainHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = hex::decode(text).map_err(serde::de::Error::custom)?;
        Self::from_slice(&bytes).ok_or_else(|| serde::de::Error::custom("a hash has 32 bytes"))
    }
}

/// Fields in a row, such that no two different lists of fields give the same bytes: each has its length before it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Preimage(Vec<u8>);

impl Preimage {
    /// Begins again, in the same memory.
    pub(crate) fn clear(&mut self) -> &mut Self {
        self.0.clear();
        self
    }

    pub(crate) fn bytes(&mut self, field: &[u8]) -> &mut Self {
        self.0.extend_from_slice(&(field.len() as u64).to_be_bytes());
        self.0.extend_from_slice(field);
        self
    }

    pub(crate) fn number(&mut self, field: u64) -> &mut Self {
        self.bytes(&field.to_be_bytes())
    }

    pub(crate) fn optional(&mut self, field: Option<&[u8]>) -> &mut Self {
        match field {
            Some(field) => self.number(1).bytes(field),
            None => self.number(0),
        }
    }

    /// One call over all of it: several times as fast as one for each field.
    pub(crate) fn hash(&self) -> ChainHash {
        ChainHash(Sha256::digest(&self.0).into())
    }
}

/// The newest event of one node's journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Whose journal.
    pub node_id: NodeId,
    /// Its newest event; 0 is an empty journal.
    pub node_seq: NodeSeq,
    /// That event's hash.
    pub hash: ChainHash,
}

impl Head {
    /// The head of a journal without events.
    #[must_use]
    pub fn empty(node_id: NodeId) -> Self {
        Self { node_id, node_seq: NodeSeq(0), hash: ChainHash::GENESIS }
    }
}

/// The first thing wrong with a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("event {node_seq} of node {node_id}: {problem}")]
pub struct Broken {
    /// Whose chain.
    pub node_id: NodeId,
    /// Which event.
    pub node_seq: NodeSeq,
    /// What is wrong with it.
    pub problem: String,
}

/// Walks the chain of one node, event by event.
#[derive(Debug, Clone, Copy)]
pub struct ChainWalk {
    head: Head,
    /// The time of the newest event, if it is known.
    moment: Option<Hlc>,
}

impl ChainWalk {
    /// From the first event.
    #[must_use]
    pub fn from_genesis(node_id: NodeId) -> Self {
        Self::after(Head::empty(node_id))
    }

    /// From an event that is known: the next one follows it.
    #[must_use]
    pub fn after(head: Head) -> Self {
        Self { head, moment: None }
    }

    /// From an event that is known with its moment.
    #[must_use]
    pub fn continuing(head: Head, moment: Hlc) -> Self {
        Self { head, moment: Some(moment) }
    }

    /// Up to an event that was chained here.
    #[must_use]
    pub fn up_to(record: &Record) -> Self {
        Self { head: record.as_head(), moment: Some(record.hlc) }
    }

    /// The newest event that was found sound.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head
    }

    /// When that was.
    #[must_use]
    pub fn moment(&self) -> Option<Hlc> {
        self.moment
    }

    /// Checks the next event.
    ///
    /// # Errors
    /// What is wrong with it: a gap, a link to another predecessor, content that its hash does not cover, or a
    /// moment that is not after its predecessor's.
    pub fn step(&mut self, record: &Record) -> Result<(), Broken> {
        self.step_with(&record.borrowed(), &mut Preimage::default())
    }

    fn step_with(&mut self, record: &RecordRef<'_>, scratch: &mut Preimage) -> Result<(), Broken> {
        let broken = |problem: String| Err(record.broken(problem));
        let expected = self.head.node_seq.next();
        if record.node_id != self.head.node_id {
            return broken(format!("it is not an event of node {}", self.head.node_id));
        }
        if record.node_seq != expected {
            return broken(format!("event {expected} is missing before it"));
        }
        if record.prev_hash != self.head.hash {
            return broken("its link names another event than the event stored before it".to_owned());
        }
        if record.computed_hash(scratch) != record.hash {
            return broken("its content is not as it was recorded: the hash does not match".to_owned());
        }
        if Some(record.hlc) <= self.moment {
            return broken("its time is not after the time of the event before it".to_owned());
        }
        *self = Self { head: record.as_head(), moment: Some(record.hlc) };
        Ok(())
    }
}

/// Walks the chains of several nodes, whose events may come in turn.
#[derive(Debug, Clone, Default)]
pub struct ChainWalks {
    walks: BTreeMap<NodeId, ChainWalk>,
    /// What is hashed, in memory that is used again.
    scratch: Preimage,
}

impl ChainWalks {
    /// Goes on with these; of every other node from its first event.
    pub fn continuing(walks: impl IntoIterator<Item = ChainWalk>) -> Self {
        let walks = walks.into_iter().map(|walk| (walk.head.node_id, walk)).collect();
        Self { walks, ..Self::default() }
    }

    /// Checks the next event of its node.
    ///
    /// # Errors
    /// As [`ChainWalk::step`].
    pub fn step(&mut self, record: &RecordRef<'_>) -> Result<(), Broken> {
        let walk =
            self.walks.entry(record.node_id).or_insert_with(|| ChainWalk::from_genesis(record.node_id));
        walk.step_with(record, &mut self.scratch)
    }

    /// The walk of each node.
    pub fn walks(&self) -> impl Iterator<Item = &ChainWalk> {
        self.walks.values()
    }
}
