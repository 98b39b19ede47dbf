//! The terms of the system as types, so that an epoch is never mistaken for a sequence number.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

macro_rules! unique {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

number! {
    /// One server with one supervisor. A small number, as in the runbook's `{"target_node_id":2}`.
    NodeId(u32)
}
number! {
    /// The cluster-wide epoch, one more at every promotion. A node refuses a message of an older epoch.
    Epoch(u64)
}
number! {
    /// Place of an event in its own node's journal, from 1, without gaps.
    NodeSeq(u64)
}
number! {
    /// PostgreSQL's timeline: it grows by one at each promotion of a standby.
    TimelineId(u32)
}

unique! {
    /// One event (UUID version 7). `(NodeId, NodeSeq)` is its identity; this is its name in the outside world.
    EventId
}
unique! {
    /// The cluster that a journal, a message or a configuration belongs to.
    ClusterId
}
unique! {
    /// One execution of a workflow, such as one failover.
    RunId
}

impl Epoch {
    /// No cluster gets so far; PostgreSQL's `bigint` ends here. A higher number is no epoch, but a false claim.
    pub const HIGHEST: Self = Self(i64::MAX as u64);

    /// The epoch that a promotion opens after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl NodeSeq {
    /// The place after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl RunId {
    /// The eight characters that distinguish runs for a person: the random end of the id, for a version 7 id
    /// begins with its time and two runs of one day would look alike.
    #[must_use]
    pub fn short(self) -> String {
        let text = self.0.simple().to_string();
        text[text.len() - 8..].to_owned()
    }
}

/// A place in PostgreSQL's WAL, in bytes; written as PostgreSQL writes it, `16/B374D848`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Bytes by which `self` is ahead of `other`; zero when it is behind.
    #[must_use]
    pub fn bytes_ahead_of(self, other: Self) -> u64 {
        self.0.saturating_sub(other.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// A text that is not an LSN of the form `16/B374D848`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a write-ahead log position of the form 16/B374D848")]
pub struct NotAnLsn(String);

impl FromStr for Lsn {
    type Err = NotAnLsn;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || NotAnLsn(text.to_owned());
        let (high, low) = text.split_once('/').ok_or_else(bad)?;
        let high = u32::from_str_radix(high, 16).map_err(|_| bad())?;
        let low = u32::from_str_radix(low, 16).map_err(|_| bad())?;
        Ok(Self(u64::from(high) << 32 | u64::from(low)))
    }
}

impl Serialize for Lsn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_lsn_reads_and_writes_as_postgresql_does() {
        let lsn: Lsn = "16/B374D848".parse().unwrap();
        assert_eq!(lsn, Lsn(0x16_B374_D848));
        assert_eq!(lsn.to_string(), "16/B374D848");
        assert_eq!(Lsn(0x0300_0060).to_string(), "0/3000060");
        for bad in ["", "16", "16/", "x/1", "1/100000000", "-1/0"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad} was taken for an LSN");
        }
    }

    #[test]
    fn lag_is_never_negative() {
        assert_eq!(Lsn(10).bytes_ahead_of(Lsn(4)), 6);
        assert_eq!(Lsn(4).bytes_ahead_of(Lsn(10)), 0);
    }
}
