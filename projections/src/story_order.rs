//! Folding in story order `(hlc, node, seq)`, whatever the order of arrival.
//!
//! ```text
//!            settled              recent: kept as events
//! ──────────────────────────┼─────────●──────────┤
//!  folded once, for good    │         late arrival: fold again from `settled`
//!  late arrival: TooEarly, rebuild from the store
//! ```

use std::collections::BTreeMap;

use interrex_events::{Bases, Envelope, NodeId, NodeSeq, Place};

use crate::Projection;

/// Events kept as such behind the newest one: on quiet days more than a day's, and a fold of them takes about
/// a millisecond.
const RECENT_LIMIT: usize = 1024;

/// A node that was heard of within so many times the limit is waited for: nothing after its newest event is settled.
/// Else a peer whose clock is years ahead would put whatever the others say before what is settled, for ever.
const WAITED_FOR: u64 = 16;

/// What became of events that were handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// They are folded, each at its place in the story.
    Folded,
    /// One belongs before what is settled: nothing was changed, and the fold must be rebuilt from the store.
    TooEarly,
}

/// A projection of all nodes' events, which always equals a fold of them in story order from nothing.
#[derive(Debug, Clone)]
pub struct InStoryOrder<P> {
    settled: P,
    settled_up_to: Option<Place>,
    /// The newest settled event of each node. Nothing is settled behind a gap, so these tell what is known.
    settled_heads: BTreeMap<NodeId, NodeSeq>,
    recent: BTreeMap<Place, Envelope>,
    /// The newest event of each node, and how many had been taken when a new one of it was.
    newest: BTreeMap<NodeId, (Place, u64)>,
    taken: u64,
    folded: P,
    limit: usize,
}

impl<P: Projection + Clone + Default> Default for InStoryOrder<P> {
    fn default() -> Self {
        Self::keeping(RECENT_LIMIT)
    }
}

impl<P: Projection + Clone + Default> InStoryOrder<P> {
    /// An empty fold that keeps so many recent events.
    #[must_use]
    pub fn keeping(limit: usize) -> Self {
        Self {
            settled: P::default(),
            settled_up_to: None,
            settled_heads: BTreeMap::new(),
            recent: BTreeMap::new(),
            newest: BTreeMap::new(),
            taken: 0,
            folded: P::default(),
            limit,
        }
    }

    /// The same for journals whose begin was sealed.
    #[must_use]
    pub fn after(mut self, bases: &Bases) -> Self {
        self.settled_heads.extend(bases.iter().map(|(node, base)| (*node, base.head.node_seq)));
        self.settled.begin_after(bases);
        self.folded.begin_after(bases);
        self
    }

    /// Settles the next event of a store that is read in story order from its beginning. The last one must be
    /// followed by [`Self::settled_all`].
    #[cfg(feature = "journal")]
    pub(crate) fn settle_stored(&mut self, seen: interrex_events::Seen<'_>) {
        let place = match seen {
            interrex_events::Seen::Read(record) => record.place(),
            interrex_events::Seen::PassedOver(place) => place,
        };
        self.settled.see(seen);
        self.settled_heads.insert(place.1, place.2);
        self.settled_up_to = Some(place);
    }

    /// What was settled so is what is folded, before anything is taken.
    #[cfg(feature = "journal")]
    pub(crate) fn settled_all(&mut self) {
        self.folded = self.settled.clone();
    }

    /// How many recent events it keeps.
    #[cfg(feature = "journal")]
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// The fold of everything taken.
    #[must_use]
    pub fn folded(&self) -> &P {
        &self.folded
    }

    /// Takes events in. `seen` is called for each event that is folded now, in story order, with the state
    /// after it: the new ones, and those after the earliest new one, whose meaning may have changed.
    pub fn take(
        &mut self,
        events: impl IntoIterator<Item = Envelope>,
        mut seen: impl FnMut(&P, &Envelope),
    ) -> Taken {
        let mut new = BTreeMap::new();
        for event in events {
            if self.is_known(&event) {
                continue;
            }
            if Some(event.place()) < self.settled_up_to {
                return Taken::TooEarly;
            }
            new.insert(event.place(), event);
        }
        let Some(earliest) = new.keys().next().copied() else { return Taken::Folded };
        self.taken += new.len() as u64;
        for place in new.keys() {
            let newest = self.newest.entry(place.1).or_insert((*place, self.taken));
            *newest = (newest.0.max(*place), self.taken);
        }
        let in_order = self.recent.keys().next_back().is_none_or(|newest| *newest < earliest);
        if in_order {
            for event in new.values() {
                self.folded.apply(event);
                seen(&self.folded, event);
            }
            self.recent.append(&mut new);
        } else {
            self.recent.append(&mut new);
            self.folded = self.settled.clone();
            for (place, event) in &self.recent {
                self.folded.apply(event);
                if *place >= earliest {
                    seen(&self.folded, event);
                }
            }
        }
        self.settle();
        Taken::Folded
    }

    /// Takes events out again that came to nothing. Whether it could: not those that are settled. What follows may then be
    /// [`Taken::TooEarly`] sooner than otherwise.
    #[cfg(feature = "postgres")]
    pub(crate) fn take_back(&mut self, places: &[Place]) -> bool {
        if !places.iter().all(|place| self.recent.contains_key(place)) {
            return false;
        }
        self.recent.retain(|place, _| !places.contains(place));
        self.folded = self.settled.clone();
        for event in self.recent.values() {
            self.folded.apply(event);
        }
        true
    }

    fn is_known(&self, event: &Envelope) -> bool {
        self.settled_heads.get(&event.node_id).is_some_and(|head| event.node_seq <= *head)
            || self.recent.contains_key(&event.place())
    }

    fn settle(&mut self) {
        let patience = WAITED_FOR * self.limit as u64;
        let waited_for = self.newest.values().filter(|(_, heard)| self.taken - heard <= patience);
        let Some(frontier) = waited_for.map(|(place, _)| *place).min() else { return };
        while self.recent.len() > self.limit {
            let Some(oldest) = self.recent.first_entry().filter(|it| *it.key() <= frontier) else { return };
            let event = oldest.get();
            let head = self.settled_heads.get(&event.node_id).copied().unwrap_or_default();
            if event.node_seq != head.next() {
                return;
            }
            let event = oldest.remove();
            self.settled.apply(&event);
            self.settled_heads.insert(event.node_id, event.node_seq);
            self.settled_up_to = Some(event.place());
        }
    }
}

#[cfg(test)]
#[path = "story_order_tests.rs"]
pub(crate) mod tests;
