//! The settings that were changed while the cluster ran. All others are as configured.

use std::collections::{BTreeMap, VecDeque};

use interrex_events::{Cause, ClusterSettings, Envelope, Event, NodeId, SettingsStamp};
use serde::Serialize;
use uuid::Uuid;

use crate::Projection;

/// Answered requests that are remembered: an answered request is deleted from PostgreSQL moments later.
const REQUESTS_KEPT: usize = 64;

/// What a node's configuration says, as of its supervisor's last start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Configured {
    /// Its settings.
    pub settings: ClusterSettings,
    /// Its probe interval in milliseconds, if it is known.
    pub probe_interval_ms: Option<u64>,
}

impl Configured {
    fn read(settings: &serde_json::Map<String, serde_json::Value>) -> Option<Self> {
        Some(Self {
            settings: ClusterSettings {
                auto_failover_enabled: settings.get("auto_failover_enabled")?.as_bool()?,
                auto_failover_threshold_ms: settings.get("auto_failover_threshold_ms")?.as_u64()?,
            },
            probe_interval_ms: settings.get("probe_interval_ms").and_then(serde_json::Value::as_u64),
        })
    }
}

/// The fold.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Settings {
    /// What holds, if it was ever changed.
    pub changed: Option<ClusterSettings>,
    /// By which change.
    pub stamp: SettingsStamp,
    /// The person who changed them, if this stream has the event.
    pub changed_by: Option<String>,
    /// What each node's configuration says.
    pub configured: BTreeMap<NodeId, Configured>,
    /// The requests that were answered last.
    #[serde(skip)]
    requests: VecDeque<Uuid>,
}

impl Settings {
    /// Whether a request was answered already.
    #[must_use]
    pub fn answered(&self, request: Uuid) -> bool {
        self.requests.contains(&request)
    }

    /// The requests that were answered last.
    pub fn answered_requests(&self) -> impl Iterator<Item = Uuid> {
        self.requests.iter().copied()
    }

    /// The settings in force on a node: those that were changed, or else its configured ones, if the stream has them.
    #[must_use]
    pub fn in_force_on(&self, node: NodeId) -> Option<ClusterSettings> {
        self.changed.or_else(|| self.configured.get(&node).map(|configured| configured.settings))
    }

    /// The least threshold that makes sense on every node: two probe intervals, in milliseconds.
    #[must_use]
    pub fn least_threshold_ms(&self) -> u64 {
        let slowest = self.configured.values().filter_map(|configured| configured.probe_interval_ms).max();
        2 * slowest.unwrap_or(500)
    }

    /// The newest change wins, in whatever order changes are heard of.
    pub(crate) fn take(
        &mut self,
        settings: ClusterSettings,
        stamp: SettingsStamp,
        changed_by: Option<String>,
    ) {
        if stamp > self.stamp {
            (self.changed, self.stamp, self.changed_by) = (Some(settings), stamp, changed_by);
        } else if stamp == self.stamp {
            self.changed_by = changed_by.or(self.changed_by.take());
        }
    }
}

impl Projection for Settings {
    fn apply(&mut self, envelope: &Envelope) {
        match &envelope.event {
            Event::SettingsChanged(changed) => {
                let stamp = SettingsStamp { epoch: envelope.epoch, hlc: envelope.hlc };
                let by = match &envelope.actor {
                    Cause::Person { name, source } => Some(format!("{name} from {source}")),
                    Cause::System => None,
                };
                self.take(changed.settings, stamp, by);
                self.requests.push_back(changed.request);
                if self.requests.len() > REQUESTS_KEPT {
                    self.requests.pop_front();
                }
            }
            Event::SupervisorStarted(started) => {
                if let Some(configured) = Configured::read(&started.settings) {
                    self.configured.insert(envelope.node_id, configured);
                }
            }
            Event::SettingsAdopted(adopted) => self.take(adopted.settings, adopted.stamp, None),
            _ => {}
        }
    }
}
