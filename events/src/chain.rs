//! The hash chain of one node's journal: each event's hash covers its fields and the hash before it.
//!
//! It shows any change, gap or swap inside a journal. It cannot show that the newest events were cut off:
//! for that, heads travel in heartbeats, and peers will keep them.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{NodeId, NodeSeq, Record};

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

    /// From stored bytes; nothing if there are not exactly 32.
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

/// Hashes fields so that no two different lists of fields give the same bytes: each has its length before it.
#[derive(Default)]
pub(crate) struct Digest(Sha256);

impl Digest {
    pub(crate) fn bytes(&mut self, field: &[u8]) -> &mut Self {
        self.0.update((field.len() as u64).to_be_bytes());
        self.0.update(field);
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

    pub(crate) fn finish(self) -> ChainHash {
        ChainHash(self.0.finalize().into())
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
#[derive(Debug, Clone)]
pub struct ChainWalk {
    head: Head,
}

impl ChainWalk {
    /// From the first event.
    #[must_use]
    pub fn from_genesis(node_id: NodeId) -> Self {
        Self { head: Head::empty(node_id) }
    }

    /// From an event that is known: the next one follows it.
    #[must_use]
    pub fn after(head: Head) -> Self {
        Self { head }
    }

    /// The newest event that was found sound.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head
    }

    /// Checks the next event.
    ///
    /// # Errors
    /// What is wrong with it: a gap, a link to another predecessor, or content that its hash does not cover.
    pub fn step(&mut self, record: &Record) -> Result<(), Broken> {
        let broken =
            |problem: String| Err(Broken { node_id: record.node_id, node_seq: record.node_seq, problem });
        let expected = self.head.node_seq.next();
        if record.node_id != self.head.node_id {
            return broken(format!("it is no event of node {}", self.head.node_id));
        }
        if record.node_seq != expected {
            return broken(format!("event {expected} is missing before it"));
        }
        if record.prev_hash != self.head.hash {
            return broken("it is chained to another predecessor than the one stored".to_owned());
        }
        if record.computed_hash() != record.hash {
            return broken("its content is not what was recorded: the hash does not match".to_owned());
        }
        self.head = record.as_head();
        Ok(())
    }
}
