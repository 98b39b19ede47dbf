//! What surrounds a fact: who recorded it, when, in which epoch, why, and what it is chained to.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    ClusterId, Epoch, Event, EventId, Hlc, NodeId, NodeSeq, RecordRef, RunId,
    chain::{ChainHash, Head, Preimage},
};

/// A place in the story of all nodes: the time by the hybrid clock, the node, and its number of the event. Sorting by
/// it gives story order.
pub type Place = (Hlc, NodeId, NodeSeq);

/// Who caused an event.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Cause {
    /// Interrex itself.
    #[default]
    System,
    /// A person or program with a name.
    Person {
        /// The name that it proved.
        name: String,
        /// The address or program that the request came from.
        source: String,
    },
}

/// A fact as a decider states it, before the journal stamps it.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// The fact.
    pub event: Event,
    /// The epoch in which it is stated.
    pub epoch: Epoch,
    /// The run it belongs to.
    pub run_id: Option<RunId>,
    /// The event that caused it, and the first event of that event's chain of causes.
    pub caused_by: Option<Lineage>,
    /// The cause: the system, or a person.
    pub actor: Cause,
}

/// The place of an event among causes and effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lineage {
    /// The event itself.
    pub causation_id: EventId,
    /// The first event of its chain of causes.
    pub correlation_id: EventId,
}

impl Draft {
    /// A fact stated by the system, of no run.
    #[must_use]
    pub fn new(epoch: Epoch, event: impl Into<Event>) -> Self {
        Self { event: event.into(), epoch, run_id: None, caused_by: None, actor: Cause::System }
    }

    /// The same, as part of a run.
    #[must_use]
    pub fn in_run(mut self, run: RunId) -> Self {
        self.run_id = Some(run);
        self
    }

    /// The same, caused by another event.
    #[must_use]
    pub fn because_of(mut self, cause: Lineage) -> Self {
        self.caused_by = Some(cause);
        self
    }
}

/// A stored event, exactly as recorded. This form is exchanged, exported and hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its id, unique among all events.
    pub event_id: EventId,
    /// The cluster it belongs to.
    pub cluster_id: ClusterId,
    /// The node that recorded it.
    pub node_id: NodeId,
    /// Its number in that node's journal. `(node_id, node_seq)` is its identity.
    pub node_seq: NodeSeq,
    /// The epoch in which it was stated.
    pub epoch: Epoch,
    /// Its place in the story of all nodes.
    pub hlc: Hlc,
    /// The node's wall clock, to the millisecond.
    pub recorded_at: DateTime<Utc>,
    /// Its kind, in snake_case.
    pub kind: String,
    /// The version of its payload's shape.
    pub schema_version: u32,
    /// The run it belongs to.
    pub run_id: Option<RunId>,
    /// The first event of its chain of causes.
    pub correlation_id: EventId,
    /// The event that caused it.
    pub causation_id: Option<EventId>,
    /// The cause (the system, or a person), as JSON.
    pub actor: String,
    /// Its payload, as JSON.
    pub payload: String,
    /// Hash of the event before it in the same journal.
    pub prev_hash: ChainHash,
    /// Hash of all fields above.
    pub hash: ChainHash,
    /// The epoch in which this store learned of it: the epoch of the event, or a later one. It differs from store to
    /// store, and is not part of the event.
    pub learned_in: Epoch,
}

impl Record {
    /// The same, borrowed.
    #[must_use]
    pub fn borrowed(&self) -> RecordRef<'_> {
        RecordRef {
            event_id: self.event_id,
            cluster_id: self.cluster_id,
            node_id: self.node_id,
            node_seq: self.node_seq,
            epoch: self.epoch,
            hlc: self.hlc,
            recorded_at: self.recorded_at,
            kind: &self.kind,
            schema_version: self.schema_version,
            run_id: self.run_id,
            correlation_id: self.correlation_id,
            causation_id: self.causation_id,
            actor: &self.actor,
            payload: &self.payload,
            prev_hash: self.prev_hash,
            hash: self.hash,
            learned_in: self.learned_in,
        }
    }

    /// The hash computed from the fields.
    #[must_use]
    pub fn computed_hash(&self) -> ChainHash {
        self.borrowed().computed_hash(&mut Preimage::default())
    }

    /// Its place in the story.
    #[must_use]
    pub fn place(&self) -> Place {
        (self.hlc, self.node_id, self.node_seq)
    }

    /// The head of its journal when it was the newest event.
    #[must_use]
    pub fn as_head(&self) -> Head {
        Head { node_id: self.node_id, node_seq: self.node_seq, hash: self.hash }
    }

    /// The event as the program reads it.
    #[must_use]
    pub fn open(&self) -> Envelope {
        self.borrowed().open()
    }
}

impl Serialize for Record {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::{Error, SerializeStruct};
        let raw = |text: &str| RawValue::from_string(text.to_owned()).map_err(S::Error::custom);
        let mut out = serializer.serialize_struct("Record", 17)?;
        out.serialize_field("event_id", &self.event_id)?;
        out.serialize_field("cluster_id", &self.cluster_id)?;
        out.serialize_field("node_id", &self.node_id)?;
        out.serialize_field("node_seq", &self.node_seq)?;
        out.serialize_field("epoch", &self.epoch)?;
        out.serialize_field("hlc", &self.hlc)?;
        out.serialize_field("recorded_at", &self.recorded_at)?;
        out.serialize_field("kind", &self.kind)?;
        out.serialize_field("schema_version", &self.schema_version)?;
        out.serialize_field("run_id", &self.run_id)?;
        out.serialize_field("correlation_id", &self.correlation_id)?;
        out.serialize_field("causation_id", &self.causation_id)?;
        out.serialize_field("actor", &raw(&self.actor)?)?;
        out.serialize_field("payload", &raw(&self.payload)?)?;
        out.serialize_field("prev_hash", &self.prev_hash)?;
        out.serialize_field("hash", &self.hash)?;
        out.serialize_field("learned_in", &self.learned_in)?;
        out.end()
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            event_id: EventId,
            cluster_id: ClusterId,
            node_id: NodeId,
            node_seq: NodeSeq,
            epoch: Epoch,
            hlc: Hlc,
            recorded_at: DateTime<Utc>,
            kind: String,
            schema_version: u32,
            run_id: Option<RunId>,
            correlation_id: EventId,
            causation_id: Option<EventId>,
            actor: Box<RawValue>,
            payload: Box<RawValue>,
            prev_hash: ChainHash,
            hash: ChainHash,
            learned_in: Option<Epoch>,
        }
        let wire = Wire::deserialize(deserializer)?;
        Ok(Self {
            event_id: wire.event_id,
            cluster_id: wire.cluster_id,
            node_id: wire.node_id,
            node_seq: wire.node_seq,
            epoch: wire.epoch,
            hlc: wire.hlc,
            recorded_at: wire.recorded_at,
            kind: wire.kind,
            schema_version: wire.schema_version,
            run_id: wire.run_id,
            correlation_id: wire.correlation_id,
            causation_id: wire.causation_id,
            actor: wire.actor.get().to_owned(),
            payload: wire.payload.get().to_owned(),
            prev_hash: wire.prev_hash,
            hash: wire.hash,
            learned_in: wire.learned_in.unwrap_or(wire.epoch),
        })
    }
}

/// An event as the program reads it: what folds and deciders see.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// Its id, unique among all events.
    pub event_id: EventId,
    /// The cluster it belongs to.
    pub cluster_id: ClusterId,
    /// The node that recorded it.
    pub node_id: NodeId,
    /// Its place in that node's journal.
    pub node_seq: NodeSeq,
    /// The epoch in which it was stated.
    pub epoch: Epoch,
    /// The epoch in which the writer of this stream learned of the event: the event's epoch, or a later one.
    pub learned_in: Epoch,
    /// Its place in the story of all nodes.
    pub hlc: Hlc,
    /// The node's wall clock, to the millisecond.
    pub recorded_at: DateTime<Utc>,
    /// The run it belongs to.
    pub run_id: Option<RunId>,
    /// The first event of its chain of causes.
    pub correlation_id: EventId,
    /// The event that caused it.
    pub causation_id: Option<EventId>,
    /// The cause: the system, or a person.
    pub actor: Cause,
    /// The fact.
    pub event: Event,
}

impl Envelope {
    /// Its place in the story.
    #[must_use]
    pub fn place(&self) -> Place {
        (self.hlc, self.node_id, self.node_seq)
    }

    /// Whether it became known here only when a later epoch was open already: an old main's last events.
    #[must_use]
    pub fn learned_later(&self) -> bool {
        self.learned_in > self.epoch
    }

    /// As a cause of what comes next.
    #[must_use]
    pub fn lineage(&self) -> Lineage {
        Lineage { causation_id: self.event_id, correlation_id: self.correlation_id }
    }
}
