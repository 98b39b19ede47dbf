//! Hybrid logical clock: wall time that never runs backwards and never contradicts cause and effect.
//!
//! One signed 64-bit number, 48 bits of milliseconds since 1970 and 16 bits of counter, so that it sorts the
//! same in SQLite, PostgreSQL and Rust. It orders the story of several nodes; it decides nothing.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

const COUNTER_BITS: u32 = 16;

/// A moment on the hybrid logical clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hlc(pub i64);

impl Hlc {
    /// The first moment of a millisecond.
    #[must_use]
    pub fn from_wall_ms(wall_ms: i64) -> Self {
        Self(wall_ms << COUNTER_BITS)
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn wall_ms(self) -> i64 {
        self.0 >> COUNTER_BITS
    }

    /// The counter that distinguishes moments of one millisecond.
    #[must_use]
    pub fn counter(self) -> u16 {
        (self.0 & 0xFFFF) as u16
    }
}

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::<Utc>::from_timestamp_millis(self.wall_ms()) {
            Some(time) => {
                write!(f, "{}+{}", time.to_rfc3339_opts(SecondsFormat::Millis, true), self.counter())
            }
            None => write!(f, "{}", self.0),
        }
    }
}

/// A peer's clock that is further ahead than this node will follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer's clock is {ahead_ms} ms ahead, more than the {limit_ms} ms this node follows")]
pub struct TooFarAhead {
    /// How far ahead of this node's wall clock.
    pub ahead_ms: i64,
    /// The most that is followed.
    pub limit_ms: i64,
}

/// The clock of one node. It reads no time itself: the caller says what the wall clock shows.
#[derive(Debug, Clone)]
pub struct HlcClock {
    last: Hlc,
    limit_ms: i64,
}

impl HlcClock {
    /// How far this node lets a peer drag its clock forward, in milliseconds.
    pub const DEFAULT_LIMIT_MS: i64 = 60_000;

    /// A clock that continues after `last`, the newest moment in the journal, whatever the wall clock shows.
    #[must_use]
    pub fn continuing(last: Hlc) -> Self {
        Self { last, limit_ms: Self::DEFAULT_LIMIT_MS }
    }

    /// Continues after a moment of this node's own that came back to it, however far ahead that is.
    pub fn continue_after(&mut self, own: Hlc) {
        self.last = self.last.max(own);
    }

    /// The next moment: later than every one given or observed so far.
    pub fn tick(&mut self, wall_ms: i64) -> Hlc {
        self.last = Hlc(self.last.0 + 1).max(Hlc::from_wall_ms(wall_ms));
        self.last
    }

    /// Takes note of a moment that a peer sent, so that what this node records next comes after it.
    ///
    /// # Errors
    /// Refuses a clock too far ahead of this node's wall clock; the own clock is then unchanged.
    pub fn observe(&mut self, remote: Hlc, wall_ms: i64) -> Result<(), TooFarAhead> {
        let ahead_ms = remote.wall_ms() - wall_ms;
        if ahead_ms > self.limit_ms {
            return Err(TooFarAhead { ahead_ms, limit_ms: self.limit_ms });
        }
        self.last = self.last.max(remote);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_clock_grows_whatever_the_wall_clock_and_the_peers_do(
            steps in prop::collection::vec((0i64..4_000_000_000_000, prop::option::of(0i64..4_000_000_000_000)), 1..200)
        ) {
            let mut clock = HlcClock::continuing(Hlc::default());
            let mut last = Hlc::default();
            for (wall_ms, peer_ms) in steps {
                let remote = peer_ms.map(Hlc::from_wall_ms);
                let accepted = remote.is_some_and(|remote| clock.observe(remote, wall_ms).is_ok());
                let now = clock.tick(wall_ms);
                prop_assert!(now > last);
                if accepted {
                    prop_assert!(Some(now) > remote, "an effect is stamped before its cause");
                }
                last = now;
            }
        }
    }

    #[test]
    fn a_peer_ten_years_ahead_is_not_followed() {
        let mut clock = HlcClock::continuing(Hlc::default());
        let wall_ms = 1_800_000_000_000;
        let refused = clock.observe(Hlc::from_wall_ms(wall_ms + 315_576_000_000), wall_ms).unwrap_err();
        assert_eq!(refused.ahead_ms, 315_576_000_000);
        assert_eq!(clock.tick(wall_ms), Hlc::from_wall_ms(wall_ms));
    }

    #[test]
    fn a_moment_prints_as_a_time_a_person_can_read() {
        assert_eq!(Hlc(1_800_000_000_000 << 16 | 3).to_string(), "2027-01-15T08:00:00.000Z+3");
    }
}
