//! How long no run begins by itself: the cool-down after an unplanned change of main, and the pause after a run in vain.
//!
//! Within one life of the supervisor it is measured on the clock that cannot be set. A new one goes on by what the journal
//! says of the wall clock, and never waits longer than the whole time: a clock that was ahead holds nothing up.

use std::time::Duration;

use chrono::{DateTime, Utc};
use interrex_projections::{ClusterNodes, Rests, What};

use super::policy::FailoverPolicy;
use crate::env::{Moment, ms};

/// The pause after the first run in vain; it doubles with each.
const FIRST_PAUSE_MS: u64 = 5_000;

/// What is left, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resting {
    /// The rest of the cool-down.
    pub cool_down_ms: u64,
    /// The rest of the pause after runs that changed nothing.
    pub pause_ms: u64,
}

/// The ends of both pauses, on the monotonic clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deadlines {
    cool_down: Duration,
    pause: Duration,
}

impl Deadlines {
    /// The deadlines of a new supervisor, from its journal.
    #[must_use]
    pub fn begin(rests: &Rests, policy: &FailoverPolicy, now: Moment) -> Self {
        let mut deadlines = Self::default();
        deadlines.follow(&Rests::default(), rests, policy, now);
        deadlines
    }

    /// Takes in what an event changed.
    pub fn follow(&mut self, before: &Rests, after: &Rests, policy: &FailoverPolicy, now: Moment) {
        if after.upset != before.upset {
            self.cool_down =
                after.upset.map(|upset| end(upset.at, policy.cool_down_ms, now)).unwrap_or_default();
        }
        if after.in_vain != before.in_vain {
            let end = after.in_vain.map(|in_vain| end(in_vain.at, pause_ms(in_vain.times, policy), now));
            self.pause = end.unwrap_or_default();
        }
    }

    /// What is left of them.
    #[must_use]
    pub fn left(&self, now: Moment) -> Resting {
        let left = |end: Duration| ms(end.saturating_sub(now.monotonic));
        Resting { cool_down_ms: left(self.cool_down), pause_ms: left(self.pause) }
    }
}

/// The longer of the two pauses that are left, in milliseconds, with its reason.
#[must_use]
pub fn why_it_rests(rests: &Rests, nodes: &ClusterNodes, left: Resting) -> Option<(u64, String)> {
    let cooling = rests.upset.filter(|_| left.cool_down_ms > 0).map(|upset| {
        let words = match upset.what {
            What::Moved { main, epoch } => {
                format!("{} became main in epoch {epoch}, which was not planned", nodes.name(main))
            }
            What::TakenBack(run) => {
                format!("run {} began to take the role of main, and was taken back", run.short())
            }
        };
        (left.cool_down_ms, words)
    });
    let pausing = rests.in_vain.filter(|_| left.pause_ms > 0).map(|in_vain| {
        let words = format!(
            "run {} ended before it changed anything; runs in a row that did so: {}",
            in_vain.run.short(),
            in_vain.times
        );
        (left.pause_ms, words)
    });
    cooling.into_iter().chain(pausing).max_by_key(|(left_ms, _)| *left_ms)
}

/// When so many milliseconds after a time of the wall clock are over. A time that is still to come is now.
fn end(at: DateTime<Utc>, length_ms: u64, now: Moment) -> Duration {
    let past_ms = (now.wall - at).num_milliseconds().max(0).cast_unsigned();
    now.monotonic + Duration::from_millis(length_ms.saturating_sub(past_ms))
}

/// It grows up to the cool-down: each run is a dozen events.
fn pause_ms(times: u32, policy: &FailoverPolicy) -> u64 {
    let doubled = FIRST_PAUSE_MS.saturating_mul(2_u64.saturating_pow(times.saturating_sub(1)));
    doubled.min(policy.cool_down_ms.max(FIRST_PAUSE_MS))
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use interrex_events::{Epoch, NodeId, RunId};
    use interrex_projections::{InVain, Upset};

    use super::*;
    use crate::test_values::policy;

    fn now() -> Moment {
        let wall = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        Moment { monotonic: Duration::from_secs(100), wall }
    }

    fn rests(change: impl FnOnce(&mut Rests)) -> Rests {
        let mut rests = Rests::default();
        change(&mut rests);
        rests
    }

    fn moved(at: DateTime<Utc>) -> Rests {
        let what = What::Moved { main: NodeId(1), epoch: Epoch(2) };
        rests(|rests| rests.upset = Some(Upset { at, what }))
    }

    #[test]
    fn within_one_life_the_wall_clock_changes_nothing() {
        let began = now();
        let deadlines = Deadlines::begin(&moved(began.wall), &policy(), began);
        for hours in [-1, 0, 1] {
            let later = Moment {
                monotonic: began.monotonic + Duration::from_secs(60),
                wall: began.wall + TimeDelta::hours(hours),
            };
            assert_eq!(deadlines.left(later).cool_down_ms, 540_000, "{hours} h");
        }
    }

    #[test]
    fn a_new_supervisor_waits_for_the_rest_and_never_longer_than_the_whole() {
        let left = |past: TimeDelta| {
            Deadlines::begin(&moved(now().wall - past), &policy(), now()).left(now()).cool_down_ms
        };
        assert_eq!(left(TimeDelta::minutes(4)), 360_000);
        assert_eq!(left(TimeDelta::minutes(11)), 0);
        assert_eq!(left(TimeDelta::minutes(-30)), 600_000, "a clock that was half an hour ahead");
    }

    #[test]
    fn the_pause_doubles_up_to_the_cool_down_and_is_never_nothing() {
        let pause = |times: u32, cool_down_ms: u64| {
            let in_vain = InVain { at: now().wall, run: RunId(uuid::Uuid::nil()), times };
            let rests = rests(|rests| rests.in_vain = Some(in_vain));
            let policy = FailoverPolicy { cool_down_ms, ..policy() };
            Deadlines::begin(&rests, &policy, now()).left(now()).pause_ms
        };
        let with_ten_minutes: Vec<u64> = [1, 2, 3, 8, u32::MAX].map(|times| pause(times, 600_000)).into();
        assert_eq!(with_ten_minutes, [5_000, 10_000, 20_000, 600_000, 600_000]);
        assert_eq!(pause(9, 0), 5_000);
    }
}
