//! The timelines that led to a server's newest timeline, and the WAL files that contain a place.

use interrex_actors::ports::Switch;
use interrex_events::{Lsn, TimelineId};

use super::wal::file_name;

/// A timeline and the timelines before it.
#[derive(Debug, Clone)]
pub(super) struct Line {
    history: Vec<Switch>,
    timeline: TimelineId,
}

impl Line {
    pub(super) fn new(history: &[Switch], timeline: TimelineId) -> Self {
        Self { history: history.to_vec(), timeline }
    }

    /// The names of the files that may contain a part of the WAL, the likeliest first. If two timelines share a file, the file of
    /// the later timeline has the WAL of both; the file of the earlier timeline may be left as `.partial`.
    pub(super) fn files(&self, number: u64, segment_size: u64) -> Vec<String> {
        let ends = self.history.iter().map(|switch| (switch.timeline, switch.switchpoint));
        let ends = ends.chain([(self.timeline, Lsn(u64::MAX))]);
        let begins = [Lsn(0)].into_iter().chain(self.history.iter().map(|switch| switch.switchpoint));
        let reach = |(begin, (_, end)): &(Lsn, (TimelineId, Lsn))| {
            begin.0 / segment_size <= number && end.0 / segment_size >= number
        };
        let mut of: Vec<_> = begins.zip(ends).filter(reach).map(|(_, (timeline, _))| timeline).collect();
        of.reverse();
        of.into_iter().map(|timeline| file_name(timeline, number, segment_size)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_timelines_share_is_looked_for_under_the_later_name_first() {
        const MIB: u64 = 1 << 20;
        let switch =
            |timeline, at| Switch { timeline: TimelineId(timeline), switchpoint: Lsn(at * MIB + 500) };
        let line = Line::new(&[switch(1, 2), switch(2, 3)], TimelineId(3));
        let timelines = |number| -> Vec<String> {
            line.files(number, MIB).iter().map(|name| name[7..8].to_owned()).collect()
        };
        assert_eq!([1, 2, 3, 9].map(timelines), [vec!["1"], vec!["2", "1"], vec!["3", "2"], vec!["3"]]);
    }
}
