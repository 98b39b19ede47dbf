//! What the end-to-end tests and the benchmarks share.

mod clock;
#[cfg(test)]
mod english;
mod journal;
mod program;
mod proxy;

pub use clock::faketime;
pub use journal::{FACTS_OF_A_RUN, RELAY_PASSWORD, RELAY_TO, journal_of_a_test};
pub use program::{interrex, run};
pub use proxy::SlowProxy;
