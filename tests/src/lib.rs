//! What the end-to-end tests and the benchmarks share.

mod program;
mod proxy;

pub use program::{interrex, run};
pub use proxy::SlowProxy;
