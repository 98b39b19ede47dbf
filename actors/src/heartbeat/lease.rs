//! The port that grants the right to be main of an epoch. A witness or etcd would be adapters of this port.

use async_trait::async_trait;
use interrex_events::{Epoch, NodeId};

/// The answer to a request for the right to be main.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// A majority of witnesses, or a store, granted the epoch.
    Granted {
        /// The name of what granted it.
        by: String,
    },
    /// There is no third opinion: the cluster runs with quorum `none`.
    NobodyToAsk,
    /// The epoch was refused.
    Refused {
        /// The reason.
        reason: String,
    },
}

/// Grants the right to be main of an epoch.
#[async_trait(?Send)]
pub trait LeasePort {
    /// Asks for the right to be main of this epoch. The caller sets the time limit.
    async fn win(&self, node: NodeId, epoch: Epoch) -> Grant;
}

/// Quorum `none`, the runbook's mode: no third opinion is asked, and every status shows `unprotected`.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoQuorum;

#[async_trait(?Send)]
impl LeasePort for NoQuorum {
    async fn win(&self, _: NodeId, _: Epoch) -> Grant {
        Grant::NobodyToAsk
    }
}
