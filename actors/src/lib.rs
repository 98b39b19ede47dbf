//! What to do next.
pub mod report;
