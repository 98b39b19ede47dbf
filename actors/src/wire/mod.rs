//! The messages between supervisors and the tools that ask them: reports, bodies of requests, and their parts.
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
