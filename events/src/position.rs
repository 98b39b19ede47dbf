//! Places in the merged stream.

use serde::{Deserialize, Serialize};

use crate::Epoch;

/// A place in the merged stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Position {
    /// Epoch of the main that appended the event.
    pub epoch: Epoch,
    /// Its place, from 1, without gaps across epochs.
    pub pos: u64,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.epoch, self.pos)
    }
}
