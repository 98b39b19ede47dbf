//! Would a failover, a switchover and a rejoin work now? What was measured is judged here, and nothing is changed.
//!
//! Judgement is pure: it gets what somebody measured, or why it could not be measured, and makes a [`Finding`].

pub mod finding;
pub mod postgres;

pub use finding::{Breaks, Finding, Measured, Verdict, worst};
