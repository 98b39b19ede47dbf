//! FailoverActor: starts, refuses, resumes and finishes runs, one at a time, and fences a superseded node.

mod actor;
pub mod decider;
mod orders;
pub mod policy;
pub mod steps;

pub use actor::FailoverActor;
