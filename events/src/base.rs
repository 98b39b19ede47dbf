//! Where a journal begins whose first events were sealed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Carried, ChainWalk, Head, Hlc, NodeId};

/// The sealed begin of one node's journal, as far as the rest needs to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The last sealed event: the next one is chained to it.
    pub head: Head,
    /// Its moment.
    pub moment: Hlc,
    /// What the sealed events said in the end.
    pub carried: Carried,
}

impl Base {
    /// The chain from there on.
    #[must_use]
    pub fn walk(&self) -> ChainWalk {
        ChainWalk::continuing(self.head, self.moment)
    }
}

/// The base of each node whose events were sealed.
pub type Bases = BTreeMap<NodeId, Base>;
