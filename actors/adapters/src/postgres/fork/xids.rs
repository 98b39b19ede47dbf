//! A set of transaction ids in bounded memory.

use std::collections::BTreeMap;

/// Transaction ids as closed intervals: ids that commit one after the other share an interval.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Xids {
    intervals: BTreeMap<u32, u32>,
    most: usize,
    widened: bool,
}

impl Xids {
    /// An empty set with at most so many intervals; further ids widen an interval to its neighbour.
    #[must_use]
    pub fn at_most(intervals: usize) -> Self {
        Self { most: intervals.max(1), ..Self::default() }
    }

    /// Adds an id.
    pub fn insert(&mut self, xid: u32) {
        if self.contains(xid) {
            return;
        }
        let mut last = xid;
        if let Some(end) = xid.checked_add(1).and_then(|next| self.intervals.remove(&next)) {
            last = end;
        }
        match self.intervals.range_mut(..xid).next_back() {
            Some((_, end)) if end.checked_add(1) == Some(xid) => *end = last,
            _ => {
                self.intervals.insert(xid, last);
            }
        }
        if self.intervals.len() > self.most {
            self.widen(xid);
        }
    }

    /// Whether an id is in the set.
    #[must_use]
    pub fn contains(&self, xid: u32) -> bool {
        self.intervals.range(..=xid).next_back().is_some_and(|(_, end)| *end >= xid)
    }

    /// First and last of each interval, in order.
    pub fn intervals(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.intervals.iter().map(|(first, last)| (*first, *last))
    }

    /// Whether the set has ids that were never inserted, because there was no room for more intervals.
    #[must_use]
    pub fn is_widened(&self) -> bool {
        self.widened
    }

    /// Joins the interval at `xid` with a neighbour, including the ids between them.
    fn widen(&mut self, xid: u32) {
        let Some((&first, &last)) = self.intervals.range(..=xid).next_back() else { return };
        self.widened = true;
        if let Some((_, end)) = self.intervals.range_mut(..first).next_back() {
            *end = last;
            self.intervals.remove(&first);
            return;
        }
        let next = self.intervals.range(first.saturating_add(1)..).next().map(|(begin, end)| (*begin, *end));
        if let Some((begin, end)) = next {
            self.intervals.remove(&begin);
            self.intervals.insert(first, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_share_an_interval_in_whatever_order_they_come() {
        let mut xids = Xids::at_most(10);
        for xid in [5, 7, 6, 6, 9, u32::MAX, 3, 0] {
            xids.insert(xid);
        }
        let intervals: Vec<_> = xids.intervals().collect();
        assert_eq!(intervals, [(0, 0), (3, 3), (5, 7), (9, 9), (u32::MAX, u32::MAX)]);
        assert!(xids.contains(6) && !xids.contains(8) && !xids.is_widened());
    }

    #[test]
    fn without_room_it_holds_more_than_was_inserted_and_says_so() {
        let mut xids = Xids::at_most(2);
        for xid in [10, 20, 30, 1] {
            xids.insert(xid);
        }
        assert!([1, 10, 20, 30].into_iter().all(|xid| xids.contains(xid)));
        assert!(xids.is_widened() && xids.intervals().count() == 2);
    }
}
