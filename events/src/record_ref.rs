//! A stored event whose texts are borrowed: millions of them are read without a copy of any.

use chrono::{DateTime, Utc};

use crate::{
    Broken, Cause, ClusterId, Envelope, Epoch, Event, EventId, Hlc, NodeId, NodeSeq, Place, Record, RunId,
    chain::{ChainHash, Head, Preimage},
};

/// How the journal writes [`Cause::System`]: nearly every event's actor.
const SYSTEM: &str = r#"{"kind":"system"}"#;

/// A [`Record`] that borrows its texts from where it is stored. The fields are the same.
#[expect(missing_docs, reason = "they are the fields of `Record`")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRef<'a> {
    pub event_id: EventId,
    pub cluster_id: ClusterId,
    pub node_id: NodeId,
    pub node_seq: NodeSeq,
    pub epoch: Epoch,
    pub hlc: Hlc,
    pub recorded_at: DateTime<Utc>,
    pub kind: &'a str,
    pub schema_version: u32,
    pub run_id: Option<RunId>,
    pub correlation_id: EventId,
    pub causation_id: Option<EventId>,
    pub actor: &'a str,
    pub payload: &'a str,
    pub prev_hash: ChainHash,
    pub hash: ChainHash,
    pub learned_in: Epoch,
}

impl RecordRef<'_> {
    /// The hash that the fields call for. `scratch` is memory for it, to be used again.
    pub(crate) fn computed_hash(&self, scratch: &mut Preimage) -> ChainHash {
        scratch
            .clear()
            .bytes(self.prev_hash.as_bytes())
            .bytes(self.event_id.0.as_bytes())
            .bytes(self.cluster_id.0.as_bytes())
            .number(u64::from(self.node_id.0))
            .number(self.node_seq.0)
            .number(self.epoch.0)
            .number(self.hlc.0.cast_unsigned())
            .number(self.recorded_at.timestamp_millis().cast_unsigned())
            .bytes(self.kind.as_bytes())
            .number(u64::from(self.schema_version))
            .optional(self.run_id.as_ref().map(|id| id.0.as_bytes().as_slice()))
            .bytes(self.correlation_id.0.as_bytes())
            .optional(self.causation_id.as_ref().map(|id| id.0.as_bytes().as_slice()))
            .bytes(self.actor.as_bytes())
            .bytes(self.payload.as_bytes())
            .hash()
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

    /// This event, named as the wrong event.
    pub(crate) fn broken(&self, problem: String) -> Broken {
        Broken { node_id: self.node_id, node_seq: self.node_seq, problem }
    }

    /// The event as the program reads it.
    #[must_use]
    pub fn open(&self) -> Envelope {
        let actor = if self.actor == SYSTEM {
            Cause::System
        } else {
            serde_json::from_str(self.actor).unwrap_or_default()
        };
        Envelope {
            event_id: self.event_id,
            cluster_id: self.cluster_id,
            node_id: self.node_id,
            node_seq: self.node_seq,
            epoch: self.epoch,
            learned_in: self.learned_in,
            hlc: self.hlc,
            recorded_at: self.recorded_at,
            run_id: self.run_id,
            correlation_id: self.correlation_id,
            causation_id: self.causation_id,
            actor,
            event: Event::read(self.kind, self.schema_version, self.payload),
        }
    }

    /// A copy that keeps its texts.
    #[must_use]
    pub fn to_record(&self) -> Record {
        Record {
            event_id: self.event_id,
            cluster_id: self.cluster_id,
            node_id: self.node_id,
            node_seq: self.node_seq,
            epoch: self.epoch,
            hlc: self.hlc,
            recorded_at: self.recorded_at,
            kind: self.kind.to_owned(),
            schema_version: self.schema_version,
            run_id: self.run_id,
            correlation_id: self.correlation_id,
            causation_id: self.causation_id,
            actor: self.actor.to_owned(),
            payload: self.payload.to_owned(),
            prev_hash: self.prev_hash,
            hash: self.hash,
            learned_in: self.learned_in,
        }
    }
}

/// An event that a walk over a store comes by.
#[derive(Debug, Clone, Copy)]
pub enum Seen<'a> {
    /// One to look at.
    Read(&'a RecordRef<'a>),
    /// The place of an event of a kind that no fold uses.
    PassedOver(Place),
}
