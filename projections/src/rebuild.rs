//! Folding a whole journal.
//!
//! One thread reads, checks and folds: no event is copied, and of kinds that no projection folds only the place is read.
//! That is 1.2 million events a second, 0.7 million with every chain checked, on two busy virtual processors
//! (`bin/bench store`). A second thread made it a third faster, and is not worth its messages.

use std::cell::Cell;

use interrex_events::{
    Bases, Head, NodeId, Seen,
    journal::{JournalError, JournalReader, Verify},
};

use crate::{InStoryOrder, Projection};

/// The fold of a journal in story order: of one node's events, or of all.
///
/// # Errors
/// The journal cannot be read, or is damaged, where that is checked.
pub fn rebuild<P: Projection + Default>(
    reader: &JournalReader,
    node: Option<NodeId>,
    verify: Verify,
) -> Result<P, JournalError> {
    let begin = |mut bases: Bases| {
        bases.retain(|of, _| node.is_none_or(|only| only == *of));
        let mut projection = P::default();
        projection.begin_after(&bases);
        projection
    };
    reader.tell(node, verify, begin, P::folds, P::see)
}

/// The same of all events, ready for those that come late. `heads` are the journal's, and say how many events it
/// holds: all but the newest of them are settled as they are read.
///
/// # Errors
/// As [`rebuild`].
pub fn rebuild_in_story_order<P: Projection + Clone + Default>(
    reader: &JournalReader,
    heads: &[Head],
) -> Result<InStoryOrder<P>, JournalError> {
    let to_settle = Cell::new(0);
    let begin = |bases: Bases| {
        let story = InStoryOrder::default().after(&bases);
        let sealed: u64 = bases.values().map(|base| base.head.node_seq.0).sum();
        let events: u64 = heads.iter().map(|head| head.node_seq.0).sum();
        to_settle.set(events.saturating_sub(sealed).saturating_sub(story.limit() as u64));
        story
    };
    let reads = |kind: &str| to_settle.get() == 0 || P::folds(kind);
    let mut story =
        reader.tell(None, Verify::Nothing, begin, reads, |story: &mut InStoryOrder<P>, seen| {
            match (to_settle.get(), seen) {
                (0, Seen::Read(record)) => {
                    story.take([record.open()], |_, _| {});
                }
                (left, seen) => {
                    story.settle_stored(seen);
                    to_settle.set(left.saturating_sub(1));
                    if left == 1 {
                        story.settled_all();
                    }
                }
            }
        })?;
    if to_settle.get() > 0 {
        story.settled_all();
    }
    Ok(story)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use chrono::{DateTime, Utc};
    use interrex_events::{
        ActorRestarted, ClusterId, Draft, Envelope, Epoch, Event, EventId, UnknownEvent,
        journal::{Identity, Journal, Selection, Stamp},
    };
    use uuid::Uuid;

    use super::*;
    use crate::Cluster;

    struct Counting(AtomicU64);

    impl Stamp for Counting {
        fn now(&self) -> DateTime<Utc> {
            DateTime::UNIX_EPOCH
        }

        fn event_id(&self) -> EventId {
            EventId(Uuid::from_u128(self.0.fetch_add(1, Ordering::Relaxed).into()))
        }
    }

    /// Of three events, one is of a kind that no projection folds, and one of an unknown kind.
    fn event(index: usize) -> Event {
        let unknown = |kind: &str| {
            let (kind, payload) = (kind.to_owned(), "{}".to_owned());
            Event::Unknown(UnknownEvent { kind, schema_version: 1, payload, reason: String::new() })
        };
        match index % 3 {
            0 => unknown("heartbeats_observed"),
            1 => unknown("moon_phase_observed"),
            _ => {
                let (actor, reason) = ("heartbeat".to_owned(), String::new());
                ActorRestarted { actor, restarts: 1, limit: 3, window_seconds: 60, reason }.into()
            }
        }
    }

    #[test]
    fn a_rebuild_gives_what_a_fold_of_every_event_gives() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity { cluster_id: ClusterId(Uuid::nil()), node_id: NodeId(1) };
        let stamp = Arc::new(Counting(AtomicU64::new(0)));
        let journal = Journal::open(&folder.path().join("journal.db"), identity, stamp).unwrap();
        for events in [0_usize, 500, 1_000, 2_000] {
            let drafts = (0..events).map(|index| Draft::new(Epoch(1), event(index))).collect::<Vec<_>>();
            journal.append(&drafts).unwrap().blocking_recv().unwrap().unwrap();
            let reader = journal.reader().unwrap();
            let records = reader.read(&Selection::default()).unwrap();
            let envelopes: Vec<Envelope> = records.iter().map(interrex_events::Record::open).collect();
            let folded = Cluster::of(&envelopes);
            for verify in [Verify::Chains, Verify::Nothing] {
                assert_eq!(rebuild::<Cluster>(&reader, None, verify).unwrap(), folded);
            }
            let mut story = rebuild_in_story_order::<Cluster>(&reader, &journal.heads()).unwrap();
            assert_eq!(*story.folded(), folded);
            // all of it is known there, and what is new goes on from it
            story.take(envelopes.iter().rev().take(99).cloned(), |_, _| panic!("an event was new"));
            if let Some(newest) = envelopes.last() {
                let mut next = newest.clone();
                next.node_seq = newest.node_seq.next();
                next.hlc.0 += 1;
                story.take([next.clone()], |_, _| {});
                assert_eq!(*story.folded(), Cluster::of(envelopes.iter().chain([&next])));
            }
        }
    }
}
