//! The right to be main: who grants it. A witness and etcd come behind the same port.

use async_trait::async_trait;
use interrex_events::{Epoch, NodeId};

/// Answer to the question for the right to be main.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// A majority, or a store, granted it.
    Granted {
        /// By whom.
        by: String,
    },
    /// There is nobody to ask: two nodes without a third opinion.
    NobodyToAsk,
    /// It was refused.
    Refused {
        /// Why.
        reason: String,
    },
}

/// Grants the right to be main of an epoch.
#[async_trait(?Send)]
pub trait LeasePort {
    /// Asks for it. The caller sets the time limit.
    async fn win(&self, node: NodeId, epoch: Epoch) -> Grant;
}

/// The runbook's mode: nobody is asked, and every status says so.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoQuorum;

#[async_trait(?Send)]
impl LeasePort for NoQuorum {
    async fn win(&self, _: NodeId, _: Epoch) -> Grant {
        Grant::NobodyToAsk
    }
}
