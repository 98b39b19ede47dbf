//! What supervisors, and the tools that ask them, say to each other: reports, bodies of requests, and what goes with them.
//!
//! Plain values that serialise. Messages between actors and ports both carry them.

mod check;
mod handover;
mod journal;
mod report;
mod requests;

pub use self::{
    check::Check,
    handover::{HandoverOffer, OfferAnswer},
    journal::JournalPage,
    report::*,
    requests::*,
};
