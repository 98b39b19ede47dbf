//! The settings that were changed while the cluster ran. What nobody changed is as configured.

use std::collections::VecDeque;

use interrex_events::{Cause, ClusterSettings, Envelope, Event, SettingsStamp};
use serde::Serialize;
use uuid::Uuid;

use crate::Projection;

/// Answered requests that are remembered: one that was answered is deleted from PostgreSQL moments later.
const REQUESTS_KEPT: usize = 64;

/// The fold.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Settings {
    /// What holds, if it was ever changed.
    pub changed: Option<ClusterSettings>,
    /// By which change.
    pub stamp: SettingsStamp,
    /// Who changed them, where this stream says.
    pub changed_by: Option<String>,
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

    /// The newest change wins, in whatever order changes are heard of.
    fn take(&mut self, settings: ClusterSettings, stamp: SettingsStamp, changed_by: Option<String>) {
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
            Event::SettingsAdopted(adopted) => self.take(adopted.settings, adopted.stamp, None),
            _ => {}
        }
    }
}
