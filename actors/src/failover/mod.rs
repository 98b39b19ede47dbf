//! FailoverActor: starts, refuses, resumes and finishes runs, one at a time, and fences a superseded node.

mod actor;
pub mod decider;
mod dry_run;
mod orders;
pub mod plan;
pub mod policy;
pub mod resting;
mod second_look;
pub mod steps;

pub use actor::FailoverActor;
pub use dry_run::dry_run;
pub(crate) use second_look::what_speaks_against;
