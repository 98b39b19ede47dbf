//! Claims of other nodes about which node is main, and which of them are believed.
//!
//! A claim is believed only from a member of this cluster, and only about another node: no other node can make this node main.
//! The next epoch is believed at once if its own main claims it. Any other claim, such as a jump over epochs that this node
//! missed, or a second main of the same epoch, is believed once the `epoch_opened` event that made it is in this node's copy of
//! that main's journal. An epoch that no node opened is never believed.

use std::collections::BTreeMap;

use interrex_events::{Epoch, Event, LearnedBy, NodeId, NoticeRefused};
use interrex_projections::ClusterNodes;

use crate::messages::Claim;

/// The facts by which a claim is judged.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// This node.
    pub me: NodeId,
    /// The fold of this node's own events.
    pub nodes: &'a ClusterNodes,
    /// The newest epoch that each node opened, from the copies of their journals on this node.
    pub opened: &'a BTreeMap<NodeId, Epoch>,
}

/// The verdict on a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// The claim is new, and is believed.
    Believed,
    /// The claim says no more than this node knows.
    Known,
    /// The claim names an epoch that is not proved yet: it may be true, and is not believed yet.
    Unproved(String),
    /// The claim is wrong.
    Refused(String),
}

/// Judges a claim against the folded events.
#[must_use]
pub fn judge(known: Known<'_>, claim: &Claim) -> Judged {
    let Known { me, nodes, opened } = known;
    let member = |node: NodeId| nodes.get(node).is_some();
    if let Some(stranger) = [claim.from, claim.main].into_iter().find(|node| !member(*node)) {
        return Judged::Refused(format!("node {stranger} is not a member of this cluster"));
    }
    if claim.epoch > Epoch::HIGHEST {
        return Judged::Refused(format!("there is no epoch {}", claim.epoch));
    }
    if claim.epoch < nodes.epoch {
        return Judged::Refused("the epoch is older than the one known here".to_owned());
    }
    if claim.epoch == nodes.epoch && nodes.main == Some(claim.main) {
        return Judged::Known;
    }
    if claim.main == me {
        return Judged::Refused(format!(
            "this node never opened epoch {}: no other node can make it main",
            claim.epoch
        ));
    }
    let is_proved = opened.get(&claim.main) == Some(&claim.epoch);
    if claim.epoch == nodes.epoch {
        let other = nodes.main.map_or("none".to_owned(), |main| nodes.name(main));
        let two = format!(
            "epoch {} has another main on this node ({other}): two nodes may both be main",
            nodes.epoch
        );
        return match nodes.yields_to(claim.main, claim.epoch) {
            true if is_proved => Judged::Believed,
            true => Judged::Unproved(two),
            false => Judged::Refused(format!(
                "{two}; of two mains of one epoch, the node with the lower id keeps it"
            )),
        };
    }
    if is_proved || (claim.epoch == nodes.epoch.next() && claim.from == claim.main) {
        return Judged::Believed;
    }
    Judged::Unproved(format!(
        "this node knows epoch {}, and does not have an epoch_opened event of {} for epoch {} yet",
        nodes.epoch,
        nodes.name(claim.main),
        claim.epoch
    ))
}

/// The fact that follows from a claim. What heartbeats say is refused silently: of those who do not know yet that is no
/// attack, and they repeat it.
pub(super) fn fact(known: Known<'_>, claim: &Claim) -> Option<Event> {
    match judge(known, claim) {
        Judged::Believed => Some(claim.announced().into()),
        Judged::Known => None,
        Judged::Unproved(_) | Judged::Refused(_) if claim.learned_by == LearnedBy::Heartbeat => None,
        Judged::Unproved(reason) | Judged::Refused(reason) => {
            let known_epoch = known.nodes.epoch;
            Some(NoticeRefused { announced_by: claim.from, epoch: claim.epoch, known_epoch, reason }.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use interrex_events::{Address, Role};
    use interrex_projections::Node;

    use super::*;

    const ME: NodeId = NodeId(2);

    /// Three nodes; node 3 is main of epoch 7.
    fn nodes() -> ClusterNodes {
        let row = |node: u32| Node {
            node: NodeId(node),
            name: format!("node{node}"),
            address: Address::as_recorded(String::new()),
            postgres_address: Address::as_recorded(String::new()),
            redis_address: None,
            role: Role::Secondary,
            status: interrex_projections::NodeStatus::Online,
            status_since: None,
            postgres: None,
            timeline: None,
            lsn: None,
            redis: None,
            dependents: BTreeMap::new(),
            actor_restarts: 0,
            opened: None,
        };
        ClusterNodes {
            nodes: (1..=3).map(|node| (NodeId(node), row(node))).collect(),
            main: Some(NodeId(3)),
            epoch: Epoch(7),
            timeline: None,
        }
    }

    fn claim(from: u32, main: u32, epoch: u64) -> Claim {
        let (from, main, epoch) = (NodeId(from), NodeId(main), Epoch(epoch));
        Claim {
            main,
            epoch,
            timeline: None,
            switchpoint: None,
            planned: None,
            from,
            learned_by: LearnedBy::Notice,
        }
    }

    /// What becomes of a claim where the copies of journals show that these nodes opened these epochs.
    fn judged(claim: &Claim, opened: &[(u32, u64)]) -> &'static str {
        let opened = opened.iter().map(|(node, epoch)| (NodeId(*node), Epoch(*epoch))).collect();
        match judge(Known { me: ME, nodes: &nodes(), opened: &opened }, claim) {
            Judged::Believed => "believed",
            Judged::Known => "known",
            Judged::Unproved(_) => "unproved",
            Judged::Refused(_) => "refused",
        }
    }

    #[test]
    fn the_next_epoch_is_believed_of_its_own_main_alone() {
        assert_eq!(judged(&claim(1, 1, 8), &[]), "believed");
        assert_eq!(judged(&claim(3, 1, 8), &[]), "unproved", "a third node may have heard nonsense");
        assert_eq!(judged(&claim(3, 1, 8), &[(1, 8)]), "believed", "the event is here");
    }

    #[test]
    fn a_jump_over_epochs_is_believed_by_the_event_that_made_it() {
        assert_eq!(judged(&claim(1, 1, 307), &[]), "unproved");
        assert_eq!(judged(&claim(1, 1, 307), &[(1, 306)]), "unproved", "another epoch is no proof");
        assert_eq!(judged(&claim(1, 1, 307), &[(1, 307)]), "believed");
        assert_eq!(judged(&claim(1, 1, u64::MAX), &[(1, u64::MAX)]), "refused", "no cluster gets there");
    }

    #[test]
    fn nobody_but_a_node_itself_makes_it_main_and_strangers_make_nobody_main() {
        assert_eq!(judged(&claim(1, 2, 8), &[(2, 8)]), "refused");
        assert_eq!(judged(&claim(9, 1, 8), &[]), "refused", "who says it is no member");
        assert_eq!(judged(&claim(1, 9, 8), &[(9, 8)]), "refused", "whom it names is none");
    }

    #[test]
    fn of_two_mains_of_one_epoch_the_lower_node_id_keeps_it_once_it_is_proved() {
        assert_eq!(judged(&claim(1, 1, 7), &[(1, 7)]), "believed");
        assert_eq!(judged(&claim(1, 1, 7), &[]), "unproved", "a name in a configuration opens no epoch");
        assert_eq!(judged(&claim(3, 3, 7), &[(3, 7)]), "known");
        assert_eq!(judged(&claim(1, 1, 6), &[(1, 6)]), "refused", "it is older");
        let mut of_the_first = nodes();
        of_the_first.main = Some(NodeId(1));
        let opened = BTreeMap::from([(NodeId(3), Epoch(7))]);
        let judged = judge(Known { me: ME, nodes: &of_the_first, opened: &opened }, &claim(3, 3, 7));
        assert!(matches!(judged, Judged::Refused(_)), "{judged:?}");
    }
}
