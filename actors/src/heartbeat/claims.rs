//! Who is main? What others say of it: a later epoch is believed, an older one refused.

use interrex_events::{Event, NoticeRefused};

use super::decider::Situation;
use crate::messages::Claim;

/// A later epoch is believed, an older one ignored: heartbeats of those who do not know yet are no attack.
pub(super) fn judge_report(situation: Situation<'_>, claim: &Claim) -> Option<Event> {
    (claim.epoch > situation.cluster.nodes.epoch).then(|| claim.announced().into())
}

/// A notice of an older epoch, or of another main of this one, is refused, and said so.
pub(super) fn judge_claim(situation: Situation<'_>, claim: &Claim) -> Vec<Event> {
    let nodes = &situation.cluster.nodes;
    let refusal = if claim.epoch < nodes.epoch {
        "the epoch is older than the one known here".to_owned()
    } else if claim.epoch == nodes.epoch && nodes.main != Some(claim.main) {
        format!(
            "epoch {} has another main here ({}): two nodes may both think they are main",
            nodes.epoch,
            nodes.main.map_or("none".to_owned(), |main| nodes.name(main))
        )
    } else if claim.epoch == nodes.epoch {
        return Vec::new();
    } else {
        return vec![claim.announced().into()];
    };
    if claim.learned_by == interrex_events::LearnedBy::Heartbeat {
        return Vec::new();
    }
    let refused = NoticeRefused {
        announced_by: claim.from,
        epoch: claim.epoch,
        known_epoch: nodes.epoch,
        reason: refusal,
    };
    vec![refused.into()]
}
