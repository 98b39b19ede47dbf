//! Values that tests of several deciders begin with.

use interrex_events::{Address, Evidence, Finding, NodeId, NodeSpec};

use crate::failover::policy::FailoverPolicy;

/// Two nodes, of which the secondary takes over by itself after five seconds.
pub(crate) fn policy() -> FailoverPolicy {
    FailoverPolicy {
        auto_enabled: true,
        threshold_ms: 5_000,
        cool_down_ms: 600_000,
        maximum_lag_bytes: None,
        rejoin_automatically: false,
        candidate: None,
        nodes: 2,
        quorum: "none",
    }
}

/// A node without addresses.
pub(crate) fn spec(node: NodeId, name: &str) -> NodeSpec {
    let nowhere = || Address::as_recorded(String::new());
    NodeSpec { node, name: name.to_owned(), address: nowhere(), postgres: nowhere(), redis: None }
}

/// Nothing of main answers.
pub(crate) fn no_answer() -> Evidence {
    let finding = || Finding::bad("no answer");
    Evidence {
        supervisor: finding(),
        postgres: finding(),
        redis: finding(),
        wal_receiver: finding(),
        last_good_at: None,
        missed_probes: 5,
    }
}
