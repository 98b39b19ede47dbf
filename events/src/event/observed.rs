//! What each step observes, by its own type. A `step_finished` event stores it as JSON.
//!
//! A stored observation that lacks a field, or has another shape, does not read. Then nothing is known of what the step found,
//! and the step looks again.

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::{Map, Value};

use super::{Anchor, Demotion, Loss, StepId, Stranded};
use crate::{Lsn, TimelineId};

/// The key of what a success cost. Every step may report it next to what it observed.
pub const PRICE: &str = "price";

/// One kind of observation.
pub trait Observation: Sized {
    /// This kind, if it is what was observed.
    fn of(observed: &Observed) -> Option<&Self>;
}

macro_rules! observations {
    ($($(#[$doc:meta])* $name:ident of $($step:ident)|+ {
        $($(#[$field_doc:meta])* $field:ident: $type:ty,)+
    })+) => {
        $($(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)+
        })+

        /// What a step observed.
        #[derive(Debug, Clone, PartialEq, Default, Serialize)]
        #[serde(untagged)]
        pub enum Observed {
            /// Nothing beyond its outcome.
            #[default]
            Nothing,
            $(#[doc = concat!("See [`", stringify!($name), "`].")] $name($name),)+
        }

        impl Observed {
            /// What an event of a step has stored.
            ///
            /// # Errors
            /// A field is missing, or does not read: what the step found is unknown.
            pub fn read(step: StepId, stored: &Map<String, Value>) -> Result<Self, serde_json::Error> {
                if stored.keys().all(|key| key == PRICE) {
                    return Ok(Self::Nothing);
                }
                match step {
                    $($(StepId::$step)|+ => serde_json::from_value(Value::Object(stored.clone())).map(Self::$name),)+
                    _ => Ok(Self::Nothing),
                }
            }
        }

        $(impl From<$name> for Observed {
            fn from(observation: $name) -> Self {
                Self::$name(observation)
            }
        }

        impl Observation for $name {
            fn of(observed: &Observed) -> Option<&Self> {
                match observed {
                    Observed::$name(observation) => Some(observation),
                    _ => None,
                }
            }
        })+
    };
}

observations! {
    /// `check_handover`: what the checks measured.
    HandoverChecked of CheckHandover {
        /// How far the target is behind, in bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        behind_bytes: Option<u64>,
        /// Transactions that clients have open.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        open_transactions: Option<u64>,
    }
    /// `drain`: transactions that did not finish in time.
    Drained of Drain {
        /// How many.
        left: u64,
    }
    /// `prove_handover`: the stopped main's WAL, and that the target has all of it.
    HandoverProved of ProveHandover {
        /// PostgreSQL's system identifier.
        system_id: String,
        /// The timeline that the stopped main wrote.
        timeline: TimelineId,
        /// Begin of the shutdown checkpoint's record.
        checkpoint: Lsn,
        /// End of that record, and of the WAL.
        end: Lsn,
        /// End of what the target has received.
        received: Lsn,
        /// The newest event of this node's journal.
        head: Anchor,
    }
    /// `hand_over`: the target is main.
    RoleTaken of HandOver {
        /// The timeline that it writes.
        timeline: TimelineId,
        /// Where that left the old one.
        switchpoint: Option<Lsn>,
        /// The newest event of its journal.
        head: Anchor,
    }
    /// `win_epoch`: who granted the epoch.
    EpochWon of WinEpoch {
        /// Who did, with a quorum.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        granted_by: Option<String>,
        /// `false` where no third opinion protects it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        protected: Option<bool>,
    }
    /// `measure_loss`: what the promotion loses.
    LossMeasured of MeasureLoss {
        /// The loss.
        loss: Loss,
    }
    /// `fence_old_main`: whether the old main is known to be stopped.
    OldMainFenced of FenceOldMain {
        /// Whether it is.
        fenced: bool,
    }
    /// `detach`: all that was received is replayed.
    Detached of Detach {
        /// Up to where.
        replayed: Lsn,
    }
    /// `promote`: PostgreSQL is a primary, by its timeline and its history file.
    Promoted of Promote {
        /// The timeline that it writes.
        timeline: TimelineId,
        /// Where that left the old one.
        switchpoint: Lsn,
    }
    /// `promote_redis`: what Redis had when it became a master.
    RedisPromoted of PromoteRedis {
        /// Its replication offset, in bytes.
        offset: Option<u64>,
    }
    /// `open_epoch`: `cluster_events` names the new epoch.
    EpochRelayed of OpenEpoch {
        /// At this position.
        position: String,
    }
    /// `check_lineage`: what the data directory is to main's WAL.
    LineageCompared of CheckLineage {
        /// Where the directory's own WAL ends.
        end: Lsn,
        /// Where the two diverged; nothing if the directory's WAL is a part of main's.
        #[serde(flatten, deserialize_with = "all_or_nothing")]
        diverged: Option<Divergence>,
    }
    /// `report_fork`: what only this node has.
    ForkReported of ReportFork {
        /// Transactions that were prepared.
        prepared: u64,
        /// What was committed.
        stranded: Stranded,
    }
    /// `keep_diverged`: what was kept before a rewind.
    DivergedKept of KeepDiverged {
        /// The folder of the kept copy.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kept: Option<String>,
        /// Transactions in it that main lacks, if they were counted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        only_here: Option<u64>,
        /// SHA-256 of its list of checksums.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        checksums_sha256: Option<String>,
    }
    /// `rebuild`: the data directory is on main's WAL.
    Rebuilt of Rebuild {
        /// How it came there.
        by: Demotion,
        /// The folder of the old directory, if a copy took its place.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kept: Option<String>,
    }
    /// `become_standby`, `follow_redis` or `hand_over_redis`: what Redis had before is kept.
    RedisKept of BecomeStandby | FollowRedis | HandOverRedis {
        /// The folder.
        kept_redis: String,
    }
    /// `notify_peers`: who accepted the news.
    PeersTold of NotifyPeers {
        /// Their names.
        told: Vec<String>,
    }
}

/// Where a data directory and main's WAL diverged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Divergence {
    /// The directory's timeline.
    pub timeline: TimelineId,
    /// The last place that both share.
    pub switchpoint: Lsn,
    /// Bytes of WAL that only the directory has.
    pub bytes: u64,
    /// Whether the switchpoint is exact. If not, they diverged there or later.
    pub exact: bool,
    /// Whether a rewind is possible; nothing if that was not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewindable: Option<bool>,
}

/// A divergence of which a field does not read must not be taken for none: the directory would be started as a part of main's WAL.
fn all_or_nothing<'de, D: Deserializer<'de>>(stored: D) -> Result<Option<Divergence>, D::Error> {
    let fields = Map::<String, Value>::deserialize(stored)?;
    let some = ["timeline", "switchpoint", "bytes"].iter().any(|key| fields.contains_key(*key));
    some.then(|| serde_json::from_value(Value::Object(fields)).map_err(D::Error::custom)).transpose()
}

impl Observed {
    /// As an event stores it.
    #[must_use]
    pub fn stored(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(stored)) => stored,
            _ => Map::new(),
        }
    }

    /// Whether a step that observed this can have succeeded. Later steps, and the end of the run, read what these steps found.
    #[must_use]
    pub fn suffices_for(&self, step: StepId) -> bool {
        match step {
            StepId::Promote => matches!(self, Self::Promoted(_)),
            StepId::ProveHandover => matches!(self, Self::HandoverProved(_)),
            StepId::HandOver => matches!(self, Self::RoleTaken(_)),
            StepId::Rebuild => matches!(self, Self::Rebuilt(_)),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divergence() -> Divergence {
        Divergence {
            timeline: TimelineId(1),
            switchpoint: Lsn(0x0300_0000),
            bytes: 256,
            exact: true,
            rewindable: Some(true),
        }
    }

    #[test]
    fn what_is_stored_reads_back_and_a_field_that_is_missing_is_no_zero() {
        let promoted = Promoted { timeline: TimelineId(2), switchpoint: Lsn(0x0300_0000) };
        let mut stored = Observed::from(promoted.clone()).stored();
        assert_eq!(Observed::read(StepId::Promote, &stored).unwrap(), promoted.into());
        stored.insert("timeline".to_owned(), "two".into());
        Observed::read(StepId::Promote, &stored).unwrap_err();
        stored.remove("timeline");
        Observed::read(StepId::Promote, &stored).unwrap_err();
        let price = [(PRICE.to_owned(), "dear".into())].into_iter().collect();
        assert_eq!(Observed::read(StepId::Promote, &price).unwrap(), Observed::Nothing);
    }

    #[test]
    fn a_directory_on_mains_wal_and_one_that_diverged_are_told_apart() {
        for diverged in [None, Some(divergence())] {
            let compared = Observed::from(LineageCompared { end: Lsn(0x0300_0100), diverged });
            let read = Observed::read(StepId::CheckLineage, &compared.stored()).unwrap();
            assert_eq!(read, compared);
        }
        let mut stored =
            Observed::from(LineageCompared { end: Lsn(0x0300_0100), diverged: Some(divergence()) }).stored();
        stored.remove("switchpoint");
        Observed::read(StepId::CheckLineage, &stored).unwrap_err();
    }
}
