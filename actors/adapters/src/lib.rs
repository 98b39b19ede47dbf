//! The real things behind the ports of `interrex-actors`: PostgreSQL, Redis, processes, peers over HTTP, hooks.
//!
//! **Invariant:** nothing here decides; the core asks through a port, and what is observed is the answer.

pub mod checksums;
mod copying;
pub mod dependents;
pub mod guarded;
pub mod hooks;
mod no_reply;
pub mod peers;
pub mod postgres;
pub mod redis;
pub mod runtime;
pub mod secret;
pub mod stream;
