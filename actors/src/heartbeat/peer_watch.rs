//! What a supervisor observed of one peer: its reachability, and the window of its probes.

use interrex_events::HeartbeatsObserved;

use crate::{env::Moment, messages::ProbeEnded};

/// What was seen of a peer, for its window and its reachability.
#[derive(Debug, Clone)]
pub(super) struct PeerWatch {
    pub(super) window_since: Moment,
    pub(super) answered: u32,
    pub(super) round_trips: [u32; 11],
    pub(super) missed_at_ms: Vec<u32>,
    pub(super) misses: u32,
    pub(super) reachable: Option<bool>,
    pub(super) last_answer: Option<Moment>,
}

impl PeerWatch {
    pub(super) fn new(since: Moment) -> Self {
        Self {
            window_since: since,
            answered: 0,
            round_trips: [0; 11],
            missed_at_ms: Vec::new(),
            misses: 0,
            reachable: None,
            last_answer: None,
        }
    }

    pub(super) fn note(&mut self, probe: &ProbeEnded, answered: bool) {
        if answered {
            let took_ms = probe.ended.ms_since(probe.began);
            let class =
                HeartbeatsObserved::BOUNDS_MS.iter().position(|bound| took_ms <= *bound).unwrap_or(10);
            self.round_trips[class] += 1;
            self.answered += 1;
            self.misses = 0;
        } else {
            let offset = probe.began.ms_since(self.window_since);
            self.missed_at_ms.push(u32::try_from(offset).unwrap_or(u32::MAX));
            self.misses += 1;
        }
    }
}
